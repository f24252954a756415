/* Configuration changes on resume. */
#include "run/resume.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "io/checkpoint.h"
#include "config/table.h"
#include "config/yaml.h"

#include <stdlib.h>
#include <string.h>

/* The state in a checkpoint means something only with these as they were: random numbers and the order of
 * prompts follow from the first and the last ones, vectors are laid out by model.lora. */
static const char *const fixed_keys[] = {
    "seed",           "model.lora.rank",     "model.lora.alpha", "model.lora.targets",
    "prompts.source", "prompts.train_count", "prompts.groups"};

static bool is_fixed(const char *key) {
    for (size_t i = 0; i < sizeof fixed_keys / sizeof *fixed_keys; i++)
        if (strcmp(fixed_keys[i], key) == 0)
            return true;
    return false;
}

static bool same_number(const json_t *a, const json_t *b) {
    return json_is_number(a) && json_is_number(b) && json_number_value(a) == json_number_value(b);
}

/* One key; a fixed one that changed counts as a problem. */
static void compare_key(const char *path, const char *key, const json_t *was, const json_t *is,
                        size_t *refused) {
    char before[200], after[200];
    if (!was || !is || json_equal(was, is) || same_number(was, is))
        return;
    mbl_json_shown(was, before);
    mbl_json_shown(is, after);
    if (!is_fixed(key)) {
        MBL_RECORD("%s: on resume, %s changes from %s to %s", path, key, before, after);
        return;
    }
    ++*refused;
    if (mbl_log_rank() == 0)
        MBL_ERROR("%s: %s was %s and is now %s; a run keeps it from its start to its end", path, key, before,
                  after);
}

/* They have rules of their own: mbl_resume_keeps_schedule, mbl_resume_keeps_common (resume_balance.c). */
static const char schedule_key[] = "rollout.schedule", common_key[] = "balance.common";

/* Rewards go by position: names, types and groups stay, the rest may change. */
static const char *const fixed_in_reward[] = {"name", "type", "group"};

static void compare_rewards(const char *path, const json_t *was, const json_t *is, size_t *refused) {
    size_t n = json_array_size(was), m = json_array_size(is);
    bool same = n == m;
    char before[200], after[200], key[64];
    for (size_t i = 0; i < n && same; i++) {
        const json_t *a = json_array_get(was, i), *b = json_array_get(is, i);
        for (size_t j = 0; j < sizeof fixed_in_reward / sizeof *fixed_in_reward; j++) {
            const json_t *x = json_object_get(a, fixed_in_reward[j]),
                         *y = json_object_get(b, fixed_in_reward[j]);
            same = same && (x == y || json_equal(x, y)); /* both NULL where neither says it */
        }
        snprintf(key, sizeof key, "rewards.%zu", i);
        if (same)
            compare_key(path, key, a, b, refused);
    }
    if (same)
        return;
    ++*refused;
    if (mbl_log_rank() == 0)
        MBL_ERROR("%s: rewards was %s and is now %s; a run keeps their names, types, groups and order "
                  "from its start to its end",
                  path, mbl_json_shown(was, before), mbl_json_shown(is, after));
}

static void compare(const char *path, const json_t *was, const json_t *is, size_t *refused) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    for (size_t i = 0; i < n; i++) {
        const char *key = fields[i].key;
        if (strncmp(key, "pretrain.", 9) == 0 || strcmp(key, schedule_key) == 0 ||
            strcmp(key, common_key) == 0)
            continue;
        if (fields[i].kind == MBL_FIELD_REWARDS)
            compare_rewards(path, mbl_json_at(was, key), mbl_json_at(is, key), refused);
        else
            compare_key(path, key, mbl_json_at(was, key), mbl_json_at(is, key), refused);
    }
}

/* What the checkpoint's run did by a key of earlier versions, and no run does now. */
static void compare_retired(const char *path, const json_t *was, size_t *refused) {
    char before[200];
    const mbl_config_retired_t *key;
    for (size_t i = 0; (key = mbl_config_retired(i)); i++) {
        const json_t *value = mbl_json_at(was, key->key);
        const char *word = json_string_value(value);
        if (!value || (word && strcmp(word, key->kept) == 0))
            continue;
        ++*refused;
        if (mbl_log_rank() == 0)
            MBL_ERROR(
                "%s: %s was %s, which is not supported any longer, %s; start a new run, for instance from "
                "its merged model: marble export %s --merged DIR",
                path, key->key, mbl_json_shown(value, before), key->why, path);
    }
}

/* What a key that the checkpoint's run did not know yet means for it: the definition it had. */
static const struct {
    const char *key, *was;
} newer_keys[] = {
    {"balance.kl",
     "before this version every reward's gradient was a mean over all images, r = 1/2 where the "
     "reward does not apply; it is one over those that it applies to now. The KL term was part of "
     "each, as with balance.kl: common"}};

static void log_newer(const char *path, const json_t *was) {
    for (size_t i = 0; i < sizeof newer_keys / sizeof *newer_keys; i++)
        if (!mbl_json_at(was, newer_keys[i].key) && mbl_log_rank() == 0)
            MBL_WARN("%s was written by a version without %s: %s", path, newer_keys[i].key,
                     newer_keys[i].was);
}

mbl_status_t mbl_resume_check(const mbl_config_t *config, const char *path, const char *old) {
    char *text;
    size_t refused = 0;
    json_t *was = json_loads(old, 0, NULL);
    if (!was)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: its configuration is not JSON", path);
    mbl_status_t status = mbl_config_json(config, &text);
    json_t *is = status == MBL_OK ? json_loads(text, 0, NULL) : NULL;
    if (status == MBL_OK)
        mbl_free(text);
    if (status == MBL_OK && !is)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory to compare configurations");
    if (status == MBL_OK)
        compare(path, was, is, &refused);
    compare_retired(path, was, &refused);
    log_newer(path, was);
    json_decref(was);
    json_decref(is);
    if (refused)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: %zu key%s that cannot change on resume, above; take the old value%s, or start a new run",
            path, refused, refused == 1 ? "" : "s", refused == 1 ? "" : "s");
    return status;
}

mbl_sigma_schedule_kind_t mbl_resume_schedule(const char *old) {
    mbl_sigma_schedule_kind_t kind = MBL_SCHEDULE_LINEAR;
    json_t *was = json_loads(old, 0, NULL);
    const char *word = json_string_value(mbl_json_at(was, schedule_key));
    if (word)
        (void)mbl_sigma_schedule_find(word, &kind);
    json_decref(was);
    return kind;
}

bool mbl_resume_keeps_schedule(const mbl_config_t *config, mbl_sigma_schedule_kind_t made) {
    const char *was = mbl_config_word(schedule_key, (int)made);
    const char *is = mbl_config_word(schedule_key, (int)config->rollout.schedule);
    if (config->rollout.schedule == made)
        return false;
    if (mbl_config_line(config, schedule_key) != 0) {
        MBL_RECORD("on resume, rollout.schedule changes from %s to %s", was, is);
        return false;
    }
    MBL_RECORD(
        "rollout.schedule: %s, by which the checkpoint's run drew its images; --set rollout.schedule=%s "
        "changes it",
        was, is);
    return true;
}

static mbl_status_t config_tree(const mbl_config_t *config, json_t **out) {
    char *text;
    MBL_TRY(mbl_config_json(config, &text));
    *out = json_loads(text, 0, NULL);
    mbl_free(text);
    return *out ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to compare configurations");
}

/* The first key of the adapter's layout in which two configurations differ, with both values; NULL: none. */
typedef struct {
    const char *key;
    char is[200], was[200];
} difference_t;

static mbl_status_t compare_adapters(const mbl_config_t *config, const mbl_config_t *made,
                                     difference_t *out) {
    static const char *const keys[] = {"model.lora.rank", "model.lora.alpha", "model.lora.targets"};
    json_t *was = NULL, *is = NULL;
    out->key = NULL;
    mbl_status_t status = config_tree(made, &was);
    if (status == MBL_OK)
        status = config_tree(config, &is);
    for (size_t i = 0; status == MBL_OK && !out->key && i < sizeof keys / sizeof *keys; i++) {
        const json_t *a = mbl_json_at(was, keys[i]), *b = mbl_json_at(is, keys[i]);
        if (json_equal(a, b) || same_number(a, b))
            continue;
        out->key = keys[i];
        mbl_json_shown(a, out->was);
        mbl_json_shown(b, out->is);
    }
    json_decref(was);
    json_decref(is);
    return status;
}

mbl_status_t mbl_resume_same_adapter(const mbl_config_t *config, const char *name, const mbl_config_t *made,
                                     const char *path) {
    difference_t found;
    MBL_TRY(compare_adapters(config, made, &found));
    if (!found.key)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_CONFIG,
                    "%s: %s is %s, in the checkpoint %s it is %s; expected the same, or none at all: the "
                    "checkpoint has its own",
                    name, found.key, found.is, path, found.was);
}

mbl_status_t mbl_resume_log_adapter(const mbl_config_t *config, const mbl_config_t *made, const char *path) {
    difference_t found;
    MBL_TRY(compare_adapters(config, made, &found));
    if (found.key)
        MBL_WARN("%s: %s is %s in the checkpoint, whose adapter is used; the configuration has %s", path,
                 found.key, found.was, found.is);
    return MBL_OK;
}

/* That the base model is where it is said to be, or else where the checkpoint's configuration has it. */
static mbl_status_t find_base(const char *path, const char *text, const char *model) {
    if (model && !mbl_folder_exists(model))
        return MBL_FAIL(MBL_ERR_USAGE, "--model: %s: is no folder; expected the base model of %s", model,
                        path);
    json_t *config = json_loads(text, 0, NULL);
    const char *base = json_string_value(mbl_json_at(config, "model.path"));
    mbl_status_t status = MBL_OK;
    if (!model && base && !mbl_folder_exists(base))
        status = MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: made on the base model %s, which is not there; expected --model DIR, where it lies now",
            path, base);
    json_decref(config);
    return status;
}

static mbl_status_t parse_config(const mbl_ckpt_t *ckpt, const char *path, const char *model,
                                 mbl_config_t **out, size_t *step) {
    /* what is made of its adapters does not depend on how the run found them */
    const char *sets[8] = {"device=cpu",      "prompts.source=signs", "prompts.train=''",
                           "prompts.test=''", "balance.metric=plain", "model.lora.from=''"};
    const char *kind = mbl_ckpt_attr(ckpt, "kind"), *text = mbl_ckpt_attr(ckpt, "config");
    const char *steps = mbl_ckpt_attr(ckpt, "step");
    char *set = NULL, *quoted = NULL;
    if (!kind || strcmp(kind, "train") != 0 || !text || !steps)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: a checkpoint of kind \"%s\"; expected one of marble train", path,
                        kind ? kind : "");
    MBL_TRY(find_base(path, text, model));
    if (model && (quoted = mbl_yaml_quoted(model)))
        set = mbl_format("model.path=%s", quoted);
    mbl_free(quoted);
    if (model && !set)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    sets[6] = mbl_resume_schedule(text) == MBL_SCHEDULE_LINEAR ? "rollout.schedule=linear"
                                                               : "rollout.schedule=diffusers";
    sets[7] = set;
    mbl_status_t status = mbl_config_parse(text, strlen(text), path, sets, set ? 8 : 7, out);
    if (status == MBL_OK)
        *step = strtoul(steps, NULL, 10);
    mbl_free(set);
    return status;
}

mbl_status_t mbl_resume_config(const char *path, const char *model, mbl_config_t **out, size_t *step) {
    mbl_ckpt_t *ckpt;
    MBL_TRY(mbl_ckpt_open(path, &ckpt));
    mbl_status_t status = parse_config(ckpt, path, model, out, step);
    mbl_ckpt_close(ckpt);
    return status;
}
