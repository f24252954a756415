/* The list `stages` of a configuration: {steps, rewards, method, weights}. */
#include "config/table.h"

#include "base/mem.h"
#include "base/suggest.h"

#include <string.h>

static const char *const stage_keys[] = {"steps", "rewards", "method", "weights"};
enum { N_KEYS = sizeof stage_keys / sizeof *stage_keys, MAX_STAGES = 1000 };

static const mbl_field_t steps_field = {.kind = MBL_FIELD_COUNT,
                                        .offset = offsetof(mbl_config_stage_t, steps),
                                        .fallback = "20",
                                        .low = 1,
                                        .high = 1e9};
static const mbl_field_t rewards_field = {
    .kind = MBL_FIELD_STRINGS, .offset = offsetof(mbl_config_stage_t, rewards), .low = 1, .high = 64};
static const mbl_field_t weight_field = {
    .kind = MBL_FIELD_NUMBER, .fallback = "1", .high = 1e6, .ends = MBL_FIELD_ABOVE};

static void free_stages(mbl_config_stage_t *stages, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < stages[i].rewards.count; j++)
            mbl_free(stages[i].rewards.items[j]);
        mbl_free(stages[i].rewards.items);
        mbl_free(stages[i].weights);
    }
    mbl_free(stages);
}

void mbl_config_free_stages(mbl_config_t *config) {
    free_stages(config->stages.items, config->stages.count);
    config->stages.items = NULL;
    config->stages.count = 0;
}

static mbl_status_t read_weights(mbl_config_stage_t *stage, const char *key, const mbl_yaml_node_t *node,
                                 mbl_config_problems_t *problems) {
    char shown[80];
    size_t n = 0;
    if (node->kind != MBL_YAML_LIST || !node->first) {
        mbl_config_problem(problems, node->line, "%s: %s; expected one number for every reward of the stage",
                           key, node->kind == MBL_YAML_LIST ? "empty" : mbl_config_shown(node, shown));
        return MBL_OK;
    }
    for (const mbl_yaml_node_t *item = node->first; item; item = item->next)
        n++;
    MBL_ALLOC(stage->weights, n);
    for (const mbl_yaml_node_t *item = node->first; item; item = item->next)
        MBL_TRY(
            mbl_config_read_field(&stage->weights[stage->n_weights++], &weight_field, key, item, problems));
    return MBL_OK;
}

static void unknown_key(const char *key, const mbl_yaml_node_t *node, mbl_config_problems_t *problems) {
    char hint[MBL_SUGGESTED];
    const char *best = NULL;
    size_t distance = 0;
    for (size_t i = 0; i < N_KEYS; i++)
        mbl_suggest(node->key, stage_keys[i], &best, &distance);
    mbl_config_problem(problems, node->key_line,
                       "%s: unknown key%s; keys of a stage: steps, rewards, method, weights", key,
                       mbl_suggested("", best, hint));
}

static mbl_status_t read_stage_key(mbl_config_stage_t *stage, size_t i, const mbl_yaml_node_t *node,
                                   mbl_config_problems_t *problems) {
    char key[128];
    mbl_field_t method_field = *mbl_config_field("balance.method");
    method_field.offset = offsetof(mbl_config_stage_t, method);
    snprintf(key, sizeof key, "stages.%zu.%.80s", i, node->key);
    if (strcmp(node->key, "steps") == 0)
        return mbl_config_read_field(stage, &steps_field, key, node, problems);
    if (strcmp(node->key, "rewards") == 0)
        return mbl_config_read_field(stage, &rewards_field, key, node, problems);
    if (strcmp(node->key, "weights") == 0)
        return read_weights(stage, key, node, problems);
    if (strcmp(node->key, "method") != 0) {
        unknown_key(key, node, problems);
        return MBL_OK;
    }
    stage->has_method = true;
    return mbl_config_read_field(stage, &method_field, key, node, problems);
}

static mbl_status_t read_stage(mbl_config_stage_t *stage, size_t i, const mbl_yaml_node_t *item,
                               mbl_config_problems_t *problems) {
    char shown[80];
    size_t before = problems->count;
    if (item->kind != MBL_YAML_MAP) {
        mbl_config_problem(problems, item->line,
                           "stages.%zu: %s is not a mapping; expected {steps: 20, rewards: [ocr]}", i,
                           mbl_config_shown(item, shown));
        return MBL_OK;
    }
    for (const mbl_yaml_node_t *child = item->first; child; child = child->next) {
        if (mbl_yaml_find(item, child->key) != child)
            mbl_config_problem(problems, child->key_line, "stages.%zu.%.80s: given twice; keep one", i,
                               child->key);
        else
            MBL_TRY(read_stage_key(stage, i, child, problems));
    }
    for (int j = 0; j < 2 && problems->count == before; j++)
        if (!mbl_yaml_find(item, stage_keys[j]))
            mbl_config_problem(problems, item->line,
                               "stages.%zu: has no %s; expected {steps: 20, rewards: [ocr]}", i,
                               stage_keys[j]);
    if (problems->count == before && stage->weights && stage->n_weights != stage->rewards.count)
        mbl_config_problem(problems, item->line,
                           "stages.%zu.weights: %zu for %zu rewards; expected one for each", i,
                           stage->n_weights, stage->rewards.count);
    return MBL_OK;
}

mbl_status_t mbl_config_read_stages(mbl_config_t *config, const mbl_yaml_node_t *list,
                                    mbl_config_problems_t *problems) {
    mbl_status_t status = MBL_OK;
    mbl_config_stage_t *stages = NULL;
    int *lines = NULL;
    size_t n = 0, i = 0;
    for (const mbl_yaml_node_t *item = list->first; item; item = item->next)
        n++;
    if (n == 0 || n > MAX_STAGES) {
        mbl_config_problem(problems, list->line,
                           "stages: a list of %zu; expected 1 to %d, such as [{steps: 20, rewards: [ocr]}], "
                           "or no key",
                           n, MAX_STAGES);
        return MBL_OK;
    }
    MBL_ALLOC(stages, n);
    MBL_ALLOC_GOTO(lines, n, failed);
    for (const mbl_yaml_node_t *item = list->first; item; item = item->next, i++) {
        lines[i] = item->line;
        MBL_TRY_GOTO(read_stage(&stages[i], i, item, problems), failed);
    }
    mbl_config_free_stages(config);
    config->stages.items = stages;
    config->stages.count = n;
    mbl_free(config->origin->stage_lines);
    config->origin->stage_lines = lines;
    return MBL_OK;
failed:
    free_stages(stages, n);
    mbl_free(lines);
    return status;
}

/* The place of a stage's i-th reward in the list of rewards; rewards.count when it is not there. */
static size_t find_reward(const mbl_config_t *config, const char *name, const char **best) {
    size_t distance = 0, k = 0;
    for (; k < config->rewards.count; k++) {
        if (strcmp(config->rewards.items[k].name, name) == 0)
            return k;
        mbl_suggest(name, config->rewards.items[k].name, best, &distance);
    }
    return k;
}

static void check_names(const mbl_config_t *config, size_t at, mbl_config_problems_t *problems) {
    const mbl_config_stage_t *stage = &config->stages.items[at];
    int line = config->origin->stage_lines[at];
    for (size_t i = 0; i < stage->rewards.count; i++) {
        char hint[MBL_SUGGESTED];
        const char *best = NULL, *name = stage->rewards.items[i];
        if (find_reward(config, name, &best) == config->rewards.count)
            mbl_config_problem(problems, line,
                               "stages.%zu.rewards: \"%s\" is not the name of a reward%s; expected names of "
                               "the list rewards",
                               at, name, mbl_suggested("", best, hint));
        for (size_t j = 0; j < i; j++)
            if (strcmp(stage->rewards.items[j], name) == 0) {
                mbl_config_problem(problems, line, "stages.%zu.rewards: \"%s\" twice; keep one", at, name);
                break;
            }
    }
}

void mbl_config_check_stages(const mbl_config_t *config, mbl_config_problems_t *problems) {
    size_t sum = 0;
    for (size_t i = 0; i < config->stages.count; i++) {
        sum += config->stages.items[i].steps;
        check_names(config, i, problems);
    }
    if (config->stages.count > 0 && sum != config->train.steps)
        mbl_config_problem(problems, mbl_config_line(config, "stages"),
                           "stages: %zu steps in all, while train.steps is %zu; expected the same number",
                           sum, config->train.steps);
}
