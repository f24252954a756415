/* What is said of prompts before anything is made with them. */
#include "run/prompt_report.h"

#include "base/grid.h"
#include "base/mem.h"
#include "data/quotes.h"
#include "reward/applies.h"
#include "run/stage.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char training[] = "training prompts", held_out[] = "held-out prompts";

/* ---- cut prompts ---- */

mbl_status_t mbl_prompt_report_cuts(const mbl_text_t *text, const char *const *prompts, size_t n,
                                    const char *set) {
    mbl_cuts_t cuts;
    for (size_t encoder = 0; text && mbl_log_rank() == 0; encoder++) {
        MBL_TRY(mbl_text_cuts(text, encoder, prompts, n, &cuts));
        if (!cuts.encoder)
            break;
        if (cuts.count == 0)
            continue;
        MBL_WARN("%zu of %zu %s have more than the %zu tokens that %s reads; the text after them has no "
                 "effect",
                 cuts.count, n, set, cuts.limit, cuts.encoder);
        for (size_t i = 0; i < cuts.count && i < MBL_CUTS_SHOWN; i++)
            MBL_WARN("  prompt %zu, %zu tokens, is cut off before: %s", cuts.first[i].prompt + 1,
                     cuts.first[i].tokens, cuts.first[i].text);
    }
    return MBL_OK;
}

static mbl_status_t report_cuts_of(const mbl_text_t *text, const mbl_prompts_t *prompts, const char *set) {
    const char **texts;
    MBL_ALLOC(texts, prompts->count);
    for (size_t i = 0; i < prompts->count; i++)
        texts[i] = prompts->items[i].text;
    mbl_status_t status = mbl_prompt_report_cuts(text, texts, prompts->count, set);
    mbl_free(texts);
    return status;
}

mbl_status_t mbl_prompt_report_cut_sets(const mbl_engine_t *engine, const mbl_text_t *text) {
    MBL_TRY(report_cuts_of(text, &engine->train.prompts, training));
    return report_cuts_of(text, &engine->test.prompts, held_out);
}

/* ---- quotes ---- */

static void report_quotes(const mbl_config_t *config, const mbl_prompts_t *prompts, const char *set) {
    size_t n = 0, first = 0;
    bool reads = false;
    for (size_t k = 0; k < config->rewards.count; k++)
        reads |= strcmp(config->rewards.items[k].type, "ocr") == 0;
    for (size_t i = 0; reads && i < prompts->count; i++)
        if (mbl_quotes_in(prompts->items[i].text) == MBL_QUOTES_OTHER && n++ == 0)
            first = i;
    if (n > 0 && mbl_log_rank() == 0)
        MBL_WARN(
            "%zu of %zu %s quote text, but not in straight double quotes; ocr takes only text in \"...\" as "
            "text to be shown; the first: %s",
            n, prompts->count, set, prompts->items[first].text);
}

mbl_status_t mbl_prompt_report_set(const mbl_engine_t *engine, const mbl_prompts_t *prompts,
                                   const char *set) {
    report_quotes(engine->config, prompts, set);
    return report_cuts_of(mbl_pipeline_text(engine->pipeline), prompts, set);
}

/* ---- rewards ---- */

typedef struct {
    size_t train[MBL_MAX_REWARDS], test[MBL_MAX_REWARDS]; /* prompts that a reward applies to */
} counts_t;

static void count(const mbl_engine_t *engine, const mbl_prompts_t *prompts, size_t *out) {
    for (size_t k = 0; k < engine->k; k++)
        for (size_t i = 0; i < prompts->count; i++)
            out[k] += mbl_scorer_pool_applies(engine->pool, k, &prompts->items[i]);
}

static void fill_table(const mbl_engine_t *engine, const counts_t *counts, mbl_grid_t *grid) {
    mbl_grid_cell(grid, "reward applies to");
    mbl_grid_cell(grid, "%s", training);
    mbl_grid_cell(grid, "%s", held_out);
    for (size_t k = 0; k < engine->k; k++) {
        mbl_grid_cell(grid, "%s", engine->config->rewards.items[k].name);
        mbl_grid_cell(grid, "%zu of %zu", counts->train[k], engine->train.prompts.count);
        mbl_grid_cell(grid, "%zu of %zu", counts->test[k], engine->test.prompts.count);
    }
}

static mbl_status_t log_table(const mbl_engine_t *engine, const counts_t *counts) {
    char *text = NULL, *save = NULL;
    size_t size = 0;
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(3, 1, &grid));
    fill_table(engine, counts, grid);
    FILE *out = open_memstream(&text, &size);
    mbl_status_t status =
        out ? mbl_grid_print(grid, false, out) : MBL_FAIL(MBL_ERR_MEM, "no memory for a table");
    if (out && fclose(out) != 0 && status == MBL_OK)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a table");
    for (char *line = status == MBL_OK ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save))
        MBL_INFO("%s", line);
    free(text);
    mbl_grid_free(grid);
    return status;
}

static void warn_rewards(const mbl_engine_t *engine, const counts_t *counts) {
    for (size_t k = 0; k < engine->k; k++) {
        const char *name = engine->config->rewards.items[k].name;
        if (counts->train[k] == 0)
            MBL_WARN("reward %s applies to none of the %zu %s: training cannot improve it", name,
                     engine->train.prompts.count, training);
        if (counts->test[k] == 0)
            MBL_WARN("reward %s applies to none of the %zu %s: evaluations will have null for it", name,
                     engine->test.prompts.count, held_out);
    }
}

/* Stages, or the whole run, in which no reward that is trained applies to anything. */
static mbl_status_t warn_idle_stages(const mbl_engine_t *engine, const counts_t *counts) {
    mbl_stage_t stage = {.count = 1};
    for (size_t i = 0; i < stage.count; i++) {
        bool trains = false;
        MBL_TRY(mbl_stage_at(engine->config, stage.end, &stage));
        for (size_t k = 0; k < engine->k; k++)
            trains |= stage.active[k] && counts->train[k] > 0;
        if (!trains)
            MBL_WARN("no reward that steps %llu to %llu train applies to any of the %s: these steps cannot "
                     "change the weights",
                     (unsigned long long)stage.first + 1, (unsigned long long)stage.end, training);
    }
    return MBL_OK;
}

static void report_groups(const mbl_engine_t *engine) {
    size_t groups = engine->config->prompts.groups, have = engine->train.prompts.count;
    char where[500];
    if (groups > have)
        MBL_WARN("%s: %zu prompts per epoch, but there are only %zu %s: some are used %zu times in one epoch",
                 mbl_config_where(engine->config, "prompts.groups", where, sizeof where), groups, have,
                 training, (groups + have - 1) / have);
}

/* Adds the keys of a prompt's metadata that are not in the list yet. */
static void list_keys(const mbl_prompt_t *prompt, char *out, size_t size) {
    json_t *metadata = prompt->metadata ? json_loads(prompt->metadata, 0, NULL) : NULL, *value;
    const char *key;
    json_object_foreach(metadata, key, value) {
        char word[80];
        size_t used = strlen(out);
        snprintf(word, sizeof word, "%s%.60s,", used ? " " : "", key);
        if (!strstr(out, word + (used > 0)) && used + strlen(word) < size)
            memcpy(out + used, word, strlen(word) + 1);
    }
    json_decref(metadata);
}

/* Whether a reward applies to a prompt by its metadata. */
static bool has_key(const char *applies_to, const mbl_prompts_t *const sets[2]) {
    mbl_applies_t *applies;
    bool found = false;
    if (mbl_applies_open(applies_to, &applies) != MBL_OK)
        return true; /* no memory: not what is asked here */
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; i < sets[s]->count && !found; i++)
            found = mbl_applies_to(applies, &sets[s]->items[i]);
    mbl_applies_close(applies);
    return found;
}

bool mbl_prompt_report_lacks_key(const mbl_config_t *config, size_t k, const mbl_prompts_t *train,
                                 const mbl_prompts_t *test, char *text, size_t size) {
    static const char metadata[] = "metadata.";
    const mbl_prompts_t *sets[] = {train, test};
    const char *said = config->rewards.items[k].applies_to;
    char keys[400] = "";
    if (!said || strncmp(said, metadata, strlen(metadata)) != 0 || has_key(said, sets))
        return false;
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; i < sets[s]->count; i++) {
            list_keys(&sets[s]->items[i], keys, sizeof keys);
            if (strlen(keys) > sizeof keys - 80)
                break;
        }
    if (keys[0])
        keys[strlen(keys) - 1] = 0; /* the last comma */
    snprintf(text, size, "applies_to: %s: no prompt has metadata with the key %s; keys there are: %s", said,
             said + strlen(metadata), keys[0] ? keys : "none");
    return true;
}

static mbl_status_t check_key(const mbl_engine_t *engine, size_t k) {
    char where[500], text[700];
    if (!mbl_prompt_report_lacks_key(engine->config, k, &engine->train.prompts, &engine->test.prompts, text,
                                     sizeof text))
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_CONFIG, "%s.%s", mbl_config_where_reward(engine->config, k, where, sizeof where),
                    text);
}

static void report_sources(const mbl_engine_t *engine) {
    const mbl_prompts_t *train = &engine->train.prompts, *test = &engine->test.prompts;
    double total = 0;
    for (size_t s = 0; s < train->n_sources; s++)
        total += train->sources[s].weight;
    for (size_t s = 0; s < train->n_sources; s++)
        MBL_INFO("prompts of %s: %zu for training, %.3g of the %zu in an epoch", train->sources[s].name,
                 train->sources[s].count,
                 train->sources[s].weight / total * (double)engine->config->prompts.groups,
                 engine->config->prompts.groups);
    for (size_t s = 0; s < test->n_sources; s++)
        MBL_INFO("prompts of %s: %zu held out", test->sources[s].name, test->sources[s].count);
}

mbl_status_t mbl_prompt_report_run(const mbl_engine_t *engine) {
    counts_t counts;
    if (mbl_log_rank() != 0)
        return MBL_OK;
    memset(&counts, 0, sizeof counts);
    count(engine, &engine->train.prompts, counts.train);
    count(engine, &engine->test.prompts, counts.test);
    MBL_TRY(mbl_prompt_report_set(engine, &engine->train.prompts, training));
    MBL_TRY(mbl_prompt_report_set(engine, &engine->test.prompts, held_out));
    report_sources(engine);
    MBL_TRY(log_table(engine, &counts));
    for (size_t k = 0; k < engine->k; k++)
        MBL_TRY(check_key(engine, k));
    warn_rewards(engine, &counts);
    MBL_TRY(warn_idle_stages(engine, &counts));
    report_groups(engine);
    return MBL_OK;
}
