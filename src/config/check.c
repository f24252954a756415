/* What several keys must satisfy together, and with the number of ranks. */
#include "config/table.h"

#include "base/address.h"
#include "base/suggest.h"
#include "data/signs/signs.h"
#include "ops/list.h"
#include "rl/qp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

size_t mbl_config_objectives(const mbl_config_t *config, size_t *of) {
    size_t n = 0, found[MBL_MAX_REWARDS];
    for (size_t i = 0; i < config->rewards.count; i++) {
        const char *group = config->rewards.items[i].group;
        size_t j = 0;
        while (j < i && !(group && config->rewards.items[j].group &&
                          strcmp(group, config->rewards.items[j].group) == 0))
            j++;
        found[i] = j < i ? found[j] : n++;
    }
    if (of)
        memcpy(of, found, config->rewards.count * sizeof *of);
    return n;
}

static void check_some_reward(const mbl_config_t *config, mbl_config_problems_t *problems) {
    if (config->rewards.count == 0)
        mbl_config_problem(problems, 0,
                           "rewards: none (K = 0); expected a list such as [{name: ocr}, {name: count}]");
}

static void check_listen(const mbl_config_t *config, mbl_config_problems_t *problems) {
    mbl_address_t address;
    if (!mbl_address_read(config->service.listen, &address))
        mbl_config_problem(problems, mbl_config_line(config, "service.listen"),
                           "service.listen: \"%.100s\" is no address; expected auto, off, HOST:PORT such as "
                           "127.0.0.1:8080, or unix:PATH of at most 107 letters",
                           config->service.listen);
}

/* What a reward that is only scored goes together with. */
static const char *needed_by_monitor(const mbl_config_t *config, const mbl_reward_spec_t *spec) {
    if (spec->on_failure == MBL_ON_FAILURE_STOP)
        return "on_failure: skip";
    if (!isnan(spec->min) || spec->group)
        return "no min and no group";
    for (size_t i = 0; i < config->stages.count; i++)
        for (size_t j = 0; j < config->stages.items[i].rewards.count; j++)
            if (strcmp(config->stages.items[i].rewards.items[j], spec->name) == 0)
                return "no stage that trains it";
    if (mbl_method_is(config->balance.method, MBL_METHOD_MICRO_BATCHES))
        return "another balance.method than marble_reference";
    for (size_t k = 0; k < config->rewards.count; k++)
        if (!isnan(config->rewards.items[k].min))
            return "no reward with a min";
    for (size_t k = 0; k < config->rewards.count; k++)
        if (config->rewards.items[k].use == MBL_REWARD_TRAINED)
            return NULL;
    return "at least one reward that is trained";
}

static void check_monitors(const mbl_config_t *config, mbl_config_problems_t *problems) {
    for (size_t k = 0; k < config->rewards.count; k++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[k];
        const char *need = spec->use == MBL_REWARD_MONITOR ? needed_by_monitor(config, spec) : NULL;
        if (need)
            mbl_config_problem(problems, config->origin->reward_lines[k],
                               "rewards.%zu.monitor: true; expected %s with it", k, need);
    }
}

static void list_scorers(const char *type, char *out, size_t size, const char **best) {
    const mbl_scorer_t *scorer;
    size_t used = 0, distance = 0;
    out[0] = 0;
    for (size_t i = 0; (scorer = mbl_scorer_at(i)) && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", scorer->name);
        mbl_suggest(type, scorer->name, best, &distance);
    }
}

static void check_scorers(const mbl_config_t *config, mbl_config_problems_t *problems) {
    for (size_t i = 0; i < config->rewards.count; i++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[i];
        char hint[MBL_SUGGESTED];
        const char *best = NULL;
        char known[400];
        if (mbl_scorer_find(spec->type))
            continue;
        list_scorers(spec->type, known, sizeof known, &best);
        mbl_config_problem(problems, config->origin->reward_lines[i],
                           "rewards.%zu.%s: \"%s\" is not a registered reward%s; expected one of %s", i,
                           strcmp(spec->type, spec->name) == 0 ? "name" : "type", spec->type,
                           mbl_suggested("", best, hint), known);
    }
}

mbl_status_t mbl_config_check_rewards(const mbl_config_t *config) {
    mbl_config_problems_t problems = {.origin = config->origin};
    check_scorers(config, &problems);
    return mbl_config_problems_end(&problems);
}

/* `device` names a backend of this build. */
static void check_device(const mbl_config_t *config, mbl_config_problems_t *problems) {
#define TABLE(name) &mbl_ops_##name,
    static const mbl_ops_table_t *const tables[] = {MBL_OPS_BACKENDS(TABLE)};
#undef TABLE
    const char *device = mbl_config_word("device", (int)config->device);
    bool found = config->device == MBL_CONFIG_DEVICE_AUTO;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        found |= !tables[i]->missing && strcmp(tables[i]->name, device) == 0;
    if (!found)
        mbl_config_problem(problems, mbl_config_line(config, "device"),
                           "device: %s is not built in; expected auto or cpu (marble doctor says why)",
                           device);
}

/* Only one rank can read a pipe, and only once. */
static bool is_pipe(const char *path) {
    struct stat about;
    return *path && stat(path, &about) == 0 && !S_ISREG(about.st_mode);
}

/* A file that is named or missing where `wanted` says otherwise. */
static void check_file(const mbl_config_t *config, const char *key, const char *value, bool wanted,
                       const char *instead, mbl_config_problems_t *problems) {
    bool signs = config->prompts.source == MBL_CONFIG_SOURCE_SIGNS;
    if (wanted && !value[0])
        mbl_config_problem(problems, mbl_config_line(config, "prompts.source"),
                           "%s: missing; prompts.source: file needs the path of a .txt or .jsonl file%s%s",
                           key, *instead ? ", or " : "", instead);
    if (!wanted && value[0])
        mbl_config_problem(problems, mbl_config_line(config, key),
                           signs ? "%s: a file, while prompts.source is signs; expected prompts.source: file"
                                 : "%s: a file, while there is %s; expected one of the two",
                           key, instead);
}

static void check_pipe(const mbl_config_t *config, const char *key, const char *path, size_t ranks,
                       mbl_config_problems_t *problems) {
    if (is_pipe(path) && ranks > 1)
        mbl_config_problem(problems, mbl_config_line(config, key),
                           "%s: a pipe, which one rank alone can read, while there are %zu; expected a "
                           "file that all of them see",
                           key, ranks);
    else if (is_pipe(path) && config->prompts.test_share > 0)
        mbl_config_problem(
            problems, mbl_config_line(config, key),
            "%s: a pipe, which can be read only once, while prompts.test_share is %g; expected "
            "a file",
            key, config->prompts.test_share);
}

static void check_files(const mbl_config_t *config, size_t ranks, mbl_config_problems_t *problems) {
    bool signs = config->prompts.source == MBL_CONFIG_SOURCE_SIGNS, some = config->prompts.sources.count > 0;
    bool share = config->prompts.test_share > 0;
    if (signs && some)
        mbl_config_problem(problems, mbl_config_line(config, "prompts.sources"),
                           "prompts.sources: files, while prompts.source is signs; expected prompts.source: "
                           "file");
    if (signs && share)
        mbl_config_problem(
            problems, mbl_config_line(config, "prompts.test_share"),
            "prompts.test_share: %g, while prompts.source is signs; expected prompts.test_count",
            config->prompts.test_share);
    check_file(config, "prompts.train", config->prompts.train, !signs && !some, "prompts.sources", problems);
    check_file(config, "prompts.test", config->prompts.test, !signs && !share, "prompts.test_share",
               problems);
    check_pipe(config, "prompts.train", config->prompts.train, ranks, problems);
    check_pipe(config, "prompts.test", config->prompts.test, ranks, problems);
    for (size_t i = 0; i < config->prompts.sources.count; i++)
        check_pipe(config, "prompts.sources", config->prompts.sources.items[i].file, ranks, problems);
}

static void check_prompts(const mbl_config_t *config, size_t ranks, mbl_config_problems_t *problems) {
    bool signs = config->prompts.source == MBL_CONFIG_SOURCE_SIGNS;
    check_files(config, ranks, problems);
    if (signs && config->prompts.limit > 0)
        mbl_config_problem(problems, mbl_config_line(config, "prompts.limit"),
                           "prompts.limit: %zu, while prompts.source is signs; expected prompts.train_count "
                           "and prompts.test_count",
                           config->prompts.limit);
    const size_t images = config->prompts.groups * config->prompts.group_size;
    if (ranks > images)
        mbl_config_problem(
            problems, mbl_config_line(config, "prompts.groups"),
            "prompts.groups: %zu groups of %zu images for %zu ranks; every rank needs an image: "
            "start at most %zu ranks, or raise prompts.groups or prompts.group_size",
            config->prompts.groups, config->prompts.group_size, ranks, images);
    if (signs && config->prompts.groups > config->prompts.train_count)
        mbl_config_problem(problems, mbl_config_line(config, "prompts.groups"),
                           "prompts.groups: %zu of only %zu training sentences; expected at most "
                           "prompts.train_count",
                           config->prompts.groups, config->prompts.train_count);
}

/* Keys that say nothing here: as if they did is how 25,000 prompts become 1,000 unnoticed. */
static void warn_counts(const mbl_config_t *config) {
    const struct {
        const char *key;
        size_t value;
    } counts[] = {{"prompts.train_count", config->prompts.train_count},
                  {"prompts.test_count", config->prompts.test_count}};
    char where[500];
    for (size_t i = 0; i < 2; i++)
        if (config->prompts.source == MBL_CONFIG_SOURCE_FILE && mbl_config_line(config, counts[i].key) != 0 &&
            mbl_log_rank() == 0)
            MBL_WARN("%s: %zu is ignored with prompts.source: file; all prompts of the file are used, "
                     "or the first prompts.limit of them",
                     mbl_config_where(config, counts[i].key, where, sizeof where), counts[i].value);
}

static void check_training(const mbl_config_t *config, mbl_config_problems_t *problems) {
    double timesteps = config->train.timestep_fraction * (double)config->rollout.steps;
    if (timesteps < 1)
        mbl_config_problem(
            problems, mbl_config_line(config, "train.timestep_fraction"),
            "train.timestep_fraction: %g of %zu rollout steps is no whole timestep; expected at least "
            "%g",
            config->train.timestep_fraction, config->rollout.steps, 1.0 / (double)config->rollout.steps);
    else if (config->train.updates_per_epoch > (size_t)timesteps)
        mbl_config_problem(
            problems, mbl_config_line(config, "train.updates_per_epoch"),
            "train.updates_per_epoch: %zu updates of %zu timesteps; expected at most one a timestep",
            config->train.updates_per_epoch, (size_t)timesteps);
}

/* The best checkpoint by a reward: one of the run's rewards, and evaluated where checkpoints stand. */
static void check_keep(const mbl_config_t *config, mbl_config_problems_t *problems) {
    const mbl_config_strings_t *best = &config->checkpoint.keep.best;
    size_t step = config->checkpoint.every, eval = config->eval.every;
    int line = mbl_config_line(config, "checkpoint.keep.best");
    for (size_t i = 0; i < best->count; i++) {
        bool found = false;
        for (size_t k = 0; k < config->rewards.count; k++)
            found |= strcmp(config->rewards.items[k].name, best->items[i]) == 0;
        if (!found)
            mbl_config_problem(problems, line, "checkpoint.keep.best: \"%.60s\" is not a reward of this run",
                               best->items[i]);
    }
    if (best->count && (eval == 0 || step == 0 || eval % step != 0))
        mbl_config_problem(
            problems, line,
            "checkpoint.keep.best: evaluations every %zu steps and checkpoints every %zu; expected "
            "eval.every to be a multiple of checkpoint.every, above 0",
            eval, step);
}

static void check_size(const mbl_config_t *config, mbl_config_problems_t *problems) {
    if (!config->rollout.height != !config->rollout.width)
        mbl_config_problem(
            problems, mbl_config_line(config, config->rollout.height ? "rollout.height" : "rollout.width"),
            "rollout.height: %zu and rollout.width: %zu; expected both or neither", config->rollout.height,
            config->rollout.width);
    if (config->rollout.decode_tile % 4)
        mbl_config_problem(problems, mbl_config_line(config, "rollout.decode_tile"),
                           "rollout.decode_tile: %zu; expected a multiple of 4", config->rollout.decode_tile);
}

/* Skip-layer guidance is a part of guidance. */
static void check_guidance(const mbl_config_t *config, mbl_config_problems_t *problems) {
    if (config->eval.skip_layers.count > 0 && config->eval.guidance <= 1)
        mbl_config_problem(
            problems, mbl_config_line(config, "eval.skip_layers"),
            "eval.skip_layers: %zu layers, while eval.guidance is 1, none; expected a guidance "
            "above 1 with them",
            config->eval.skip_layers.count);
    if (config->eval.negative[0] && config->eval.guidance <= 1)
        mbl_config_problem(problems, mbl_config_line(config, "eval.negative"),
                           "eval.negative: a negative prompt, while eval.guidance is 1, none; expected a "
                           "guidance above 1 with it");
}

mbl_status_t mbl_config_check(const mbl_config_t *config, size_t ranks) {
    mbl_config_problems_t problems = {.origin = config->origin};
    if (!config->model.path[0])
        mbl_config_problem(
            &problems, mbl_config_line(config, "model.path"),
            "model.path: missing; expected the folder of a base model in the diffusers layout");
    check_device(config, &problems);
    check_some_reward(config, &problems);
    check_listen(config, &problems);
    check_monitors(config, &problems);
    check_scorers(config, &problems);
    check_prompts(config, ranks, &problems);
    warn_counts(config);
    check_training(config, &problems);
    check_keep(config, &problems);
    check_guidance(config, &problems);
    check_size(config, &problems);
    mbl_config_check_stages(config, &problems);
    mbl_config_check_methods(config, &problems);
    return mbl_config_problems_end(&problems);
}

static void check_model(const mbl_config_t *config, mbl_config_problems_t *problems) {
    size_t width = config->pretrain.model.num_attention_heads * config->pretrain.model.attention_head_dim;
    size_t side = config->pretrain.model.sample_size, patch = config->pretrain.model.patch_size;
    const mbl_config_counts_t *dual = &config->pretrain.model.dual_attention_layers;
    if (config->pretrain.model.caption_projection_dim != width)
        mbl_config_problem(problems, mbl_config_line(config, "pretrain.model.caption_projection_dim"),
                           "pretrain.model.caption_projection_dim: %zu; expected %zu, num_attention_heads x "
                           "attention_head_dim",
                           config->pretrain.model.caption_projection_dim, width);
    if (side != MBL_SIGNS_SIZE)
        mbl_config_problem(problems, mbl_config_line(config, "pretrain.model.sample_size"),
                           "pretrain.model.sample_size: %zu; expected %d, the side of the signs' images",
                           side, MBL_SIGNS_SIZE);
    if (config->pretrain.model.in_channels != 3)
        mbl_config_problem(problems, mbl_config_line(config, "pretrain.model.in_channels"),
                           "pretrain.model.in_channels: %zu; expected 3, red, green and blue",
                           config->pretrain.model.in_channels);
    if (side % patch)
        mbl_config_problem(problems, mbl_config_line(config, "pretrain.model.sample_size"),
                           "pretrain.model.sample_size: %zu; expected a multiple of patch_size %zu", side,
                           patch);
    else if (side / patch > config->pretrain.model.pos_embed_max_size)
        mbl_config_problem(
            problems, mbl_config_line(config, "pretrain.model.pos_embed_max_size"),
            "pretrain.model.pos_embed_max_size: %zu; expected at least %zu, sample_size / patch_size",
            config->pretrain.model.pos_embed_max_size, side / patch);
    for (size_t i = 0; i < dual->count; i++)
        if (dual->items[i] >= config->pretrain.model.num_layers)
            mbl_config_problem(problems, mbl_config_line(config, "pretrain.model.dual_attention_layers"),
                               "pretrain.model.dual_attention_layers: %zu; expected less than num_layers %zu",
                               dual->items[i], config->pretrain.model.num_layers);
}

mbl_status_t mbl_config_check_pretrain(const mbl_config_t *config, size_t ranks) {
    mbl_config_problems_t problems = {.origin = config->origin};
    if (ranks > config->pretrain.batch)
        mbl_config_problem(&problems, mbl_config_line(config, "pretrain.batch"),
                           "pretrain.batch: %zu images for %zu ranks; start at most %zu ranks",
                           config->pretrain.batch, ranks, config->pretrain.batch);
    if (config->pretrain.warmup > config->pretrain.steps)
        mbl_config_problem(&problems, mbl_config_line(config, "pretrain.warmup"),
                           "pretrain.warmup: %zu; expected at most pretrain.steps %zu",
                           config->pretrain.warmup, config->pretrain.steps);
    if (config->pretrain.text_share + config->pretrain.count_share > 1)
        mbl_config_problem(&problems, mbl_config_line(config, "pretrain.count_share"),
                           "pretrain.count_share: %g beside a text_share of %g; expected a sum of at most 1",
                           config->pretrain.count_share, config->pretrain.text_share);
    check_some_reward(config, &problems);
    check_scorers(config, &problems);
    check_device(config, &problems);
    check_model(config, &problems);
    if (config->rollout.height || config->rollout.width)
        mbl_config_problem(
            &problems, mbl_config_line(config, "rollout.height"),
            "rollout.height: %zu and rollout.width: %zu; expected neither: pretraining draws images of "
            "pretrain.model.sample_size",
            config->rollout.height, config->rollout.width);
    return mbl_config_problems_end(&problems);
}

bool mbl_config_bf16(const mbl_config_t *config, bool native) {
    if (config->precision != MBL_CONFIG_PRECISION_AUTO)
        return config->precision == MBL_CONFIG_PRECISION_BF16;
    return native;
}
