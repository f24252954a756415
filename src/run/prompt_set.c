/* Prompt sets of runs. */
#include "run/prompt_set.h"

#include "base/mem.h"
#include "run/prompt_encode.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Takes over the prompts, also on failure. */
static mbl_status_t take(const mbl_config_t *config, const mbl_encoder_t *encoder, mbl_prompts_t *prompts,
                         mbl_prompt_set_t *out) {
    mbl_status_t status = MBL_OK;
    mbl_prompt_set_t set = {.prompts = *prompts};
    MBL_ALLOC_GOTO(set.texts, prompts->count, done);
    for (size_t i = 0; i < prompts->count; i++)
        set.texts[i] = prompts->items[i].text;
    status = mbl_embeds_new(encoder, set.texts, prompts->count, config->prompts.device_bytes, &set.embeds);
done:
    if (status != MBL_OK) {
        mbl_prompt_set_free(&set);
        return status;
    }
    mbl_prompts_digest(&set.prompts, set.digest);
    *out = set;
    return MBL_OK;
}

/* The same with its prompts encoded, on this rank alone. */
static mbl_status_t take_encoded(const mbl_config_t *config, const mbl_encoder_t *encoder,
                                 mbl_prompts_t *prompts, mbl_prompt_set_t *out) {
    mbl_prompt_set_t set;
    MBL_TRY(take(config, encoder, prompts, &set));
    mbl_status_t status = mbl_prompt_set_encode_alone(encoder, &set);
    if (status != MBL_OK) {
        mbl_prompt_set_free(&set);
        return status;
    }
    *out = set;
    return MBL_OK;
}

/* One file of training prompts: those of a split. ERR_CONFIG where a share of it leaves none. */
static mbl_status_t load_split(const mbl_config_t *config, const char *file, int split, mbl_prompts_t *out) {
    double share = config->prompts.test_share;
    char where[500];
    mbl_prompts_t prompts;
    MBL_TRY(mbl_prompts_load("file", file, config->seed, split, config->prompts.limit, &prompts));
    size_t all = prompts.count;
    if (share > 0)
        mbl_prompts_split(&prompts, share, split);
    if (prompts.count == 0) {
        mbl_prompts_free(&prompts);
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: %g leaves none of the %zu prompts of %s for %s; expected another share, or more "
                        "prompts",
                        mbl_config_where(config, "prompts.test_share", where, sizeof where), share, all, file,
                        split ? "evaluation" : "training");
    }
    *out = prompts;
    return MBL_OK;
}

/* Source by source for training; for evaluation, which may take the first ones, spread. */
static mbl_status_t load_sources(const mbl_config_t *config, int split, mbl_prompts_t *out) {
    mbl_prompts_t all = {.items = NULL}, more;
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < config->prompts.sources.count && status == MBL_OK; i++) {
        const mbl_config_prompt_source_t *source = &config->prompts.sources.items[i];
        status = load_split(config, source->file, split, &more);
        if (status == MBL_OK)
            status = mbl_prompts_add(&all, &more, source->name, source->weight);
    }
    if (status == MBL_OK && split)
        status = mbl_prompts_mix(&all);
    if (status != MBL_OK) {
        mbl_prompts_free(&all);
        return status;
    }
    *out = all;
    return MBL_OK;
}

mbl_status_t mbl_prompt_set_load(const mbl_config_t *config, int split, mbl_prompts_t *out) {
    if (config->prompts.source == MBL_CONFIG_SOURCE_SIGNS)
        return mbl_prompts_load("signs", "", config->seed, split,
                                split ? config->prompts.test_count : config->prompts.train_count, out);
    if (split && config->prompts.test_share == 0)
        return mbl_prompts_load("file", config->prompts.test, config->seed, split, config->prompts.limit,
                                out);
    return config->prompts.sources.count > 0 ? load_sources(config, split, out)
                                             : load_split(config, config->prompts.train, split, out);
}

mbl_status_t mbl_prompt_set_take(const mbl_config_t *config, const mbl_encoder_t *encoder, int split,
                                 mbl_prompt_set_t *out) {
    mbl_prompts_t prompts;
    MBL_TRY(mbl_prompt_set_load(config, split, &prompts));
    return take(config, encoder, &prompts, out);
}

mbl_status_t mbl_prompt_set_negative(const mbl_config_t *config, const mbl_encoder_t *encoder,
                                     mbl_prompt_set_t *out) {
    mbl_prompts_t prompts = {.count = 1};
    *out = (mbl_prompt_set_t){.embeds = NULL};
    if (config->eval.guidance <= 1)
        return MBL_OK;
    MBL_ALLOC(prompts.items, 1);
    if (!(prompts.items->text = mbl_strdup(config->eval.negative))) {
        mbl_prompts_free(&prompts);
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the negative prompt");
    }
    return take(config, encoder, &prompts, out);
}

mbl_status_t mbl_prompt_set_open(const mbl_config_t *config, const mbl_encoder_t *encoder, int split,
                                 mbl_prompt_set_t *out) {
    mbl_prompts_t prompts;
    MBL_TRY(mbl_prompt_set_load(config, split, &prompts));
    return take_encoded(config, encoder, &prompts, out);
}

mbl_status_t mbl_prompt_set_read(const mbl_config_t *config, const char *path, size_t most,
                                 const mbl_encoder_t *encoder, size_t *exist, mbl_prompt_set_t *out) {
    mbl_prompts_t prompts;
    MBL_TRY(mbl_prompts_load("file", path, 0, 1, 0, &prompts));
    size_t found = prompts.count;
    mbl_prompts_cut(&prompts, most);
    MBL_TRY(take_encoded(config, encoder, &prompts, out));
    *exist = found;
    return MBL_OK;
}

void mbl_prompt_set_free(mbl_prompt_set_t *set) {
    mbl_embeds_free(set->embeds);
    mbl_prompts_free(&set->prompts);
    mbl_free(set->texts);
    mbl_free(set->keys);
    memset(set, 0, sizeof *set);
}

/* ---- in checkpoints ---- */

static json_t *one_set(const mbl_prompt_set_t *set, const char *file) {
    json_t *out = json_pack("{s:I, s:s}", "count", (json_int_t)set->prompts.count, "sha256", set->digest);
    json_t *sources = set->prompts.n_sources ? json_array() : NULL;
    for (size_t s = 0; s < set->prompts.n_sources; s++) {
        const mbl_prompt_source_t *source = &set->prompts.sources[s];
        json_array_append_new(sources, json_pack("{s:s, s:f, s:I}", "name", source->name, "weight",
                                                 source->weight, "count", (json_int_t)source->count));
    }
    if (out && *file)
        json_object_set_new(out, "file", json_string(file));
    if (out && sources)
        json_object_set_new(out, "sources", sources);
    return out;
}

/* What a message calls the files of a set. */
static const char *name_of(const mbl_config_t *config, int split) {
    const char *file = split ? config->prompts.test : config->prompts.train;
    return *file ? file : config->prompts.sources.count ? "the list prompts.sources" : config->prompts.train;
}

mbl_status_t mbl_prompt_sets_describe(const mbl_config_t *config, const mbl_prompt_set_t *train,
                                      const mbl_prompt_set_t *test, char **out) {
    json_t *root = json_pack(
        "{s:s, s:o, s:o}", "source", mbl_config_word("prompts.source", config->prompts.source), "train",
        one_set(train, config->prompts.train), "test", one_set(test, config->prompts.test));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    *out = text ? mbl_strdup(text) : NULL;
    free(text);
    return *out ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to describe the prompts");
}

/* What a checkpoint says of one set: count and digest, which is "" where it does not. */
typedef struct {
    size_t count;
    const char *digest;
} was_t;

/* From the attribute, or from the configuration of before there was one: it took the first *_count lines. */
static was_t what_was(const json_t *prompts, const json_t *config, const char *split) {
    const json_t *set = json_object_get(prompts, split);
    char key[32];
    if (set)
        return (was_t){(size_t)json_integer_value(json_object_get(set, "count")),
                       json_string_value(json_object_get(set, "sha256"))};
    snprintf(key, sizeof key, "%s_count", split);
    return (was_t){(size_t)json_integer_value(json_object_get(json_object_get(config, "prompts"), key)), ""};
}

/* One set; counts one that is another. */
static void compare_set(const mbl_prompt_set_t *set, const char *split, const char *file, was_t was,
                        const char *path, bool accept, size_t *changed) {
    bool known = was.digest && *was.digest;
    char digests[64] = "";
    if (was.count == set->prompts.count && (!known || strcmp(was.digest, set->digest) == 0))
        return;
    ++*changed;
    if (mbl_log_rank() > 0)
        return;
    if (known)
        snprintf(digests, sizeof digests, " (sha256 %.12s then, %.12s now)", was.digest, set->digest);
    mbl_log_at(accept ? MBL_LOG_WARN : MBL_LOG_ERROR,
               "%s: made with %zu prompts of prompts.%s; %s has %zu%s%s", path, was.count, split, file,
               set->prompts.count, was.count == set->prompts.count ? " others" : "", digests);
}

static mbl_status_t compare_sets(const mbl_config_t *config, const mbl_prompt_set_t *train,
                                 const mbl_prompt_set_t *test, const json_t *prompts, const json_t *was,
                                 const char *path, bool accept) {
    const json_t *section = json_object_get(was, "prompts");
    const char *source = json_string_value(json_object_get(section, "source"));
    size_t changed = 0;
    if (config->prompts.source != MBL_CONFIG_SOURCE_FILE || !source || strcmp(source, "file") != 0)
        return MBL_OK; /* the keys say it all */
    compare_set(train, "train", name_of(config, 0), what_was(prompts, was, "train"), path, accept, &changed);
    compare_set(test, "test", name_of(config, 1), what_was(prompts, was, "test"), path, accept, &changed);
    if (changed == 0 || accept)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_CONFIG,
                    "%s: other prompts than it was made with, above; expected the same files%s, or --accept "
                    "prompts, which goes on with these",
                    path, prompts ? "" : " (with prompts.limit, where only their first lines were taken)");
}

mbl_status_t mbl_prompt_sets_check(const mbl_config_t *config, const mbl_prompt_set_t *train,
                                   const mbl_prompt_set_t *test, const mbl_ckpt_t *ckpt, const char *path,
                                   bool accept) {
    const char *text = mbl_ckpt_attr(ckpt, "prompts"), *old = mbl_ckpt_attr(ckpt, "config");
    json_t *prompts = text ? json_loads(text, 0, NULL) : NULL, *was = old ? json_loads(old, 0, NULL) : NULL;
    mbl_status_t status = compare_sets(config, train, test, prompts, was, path, accept);
    json_decref(prompts);
    json_decref(was);
    return status;
}
