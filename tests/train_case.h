/* What the tests of marble train share: a run of a few small steps on a tiny model that a second of
 * pretraining has made, on the backend that MARBLE_TEST_BACKEND names, and what metrics.jsonl says of it. In
 * 16 images of that model no text can be read and no shape counted, so `ocr` and `count` are scored but flat;
 * test_train_signs has runs in which all five vary. */
#ifndef MBL_TESTS_TRAIN_CASE_H
#define MBL_TESTS_TRAIN_CASE_H

#include "runs.h"

/* Of the run in prepare()'s run.yaml: 4 groups of 4 images in micro-batches of 4, each pass over 2
 * timesteps. */
enum { STEPS = 6, IMAGES = 16, GROUP = 4, PASSES = 8 };

static const char train_config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 60, test_count: 12, groups: 4, group_size: 4}\n"
    "rollout: {steps: 3, solver: euler, schedule: linear, micro_batch: 4}\n"
    "train: {steps: 6, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 4, timestep_fraction: 0.7}\n"
    "rewards: [{name: ocr}, {name: count}, {name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 3, prompts: 6, steps: 2}\n"
    "checkpoint: {every: 2, keep: 0}\n"
    "log: {level: warn, samples_every: 0, advantages_every: 2}\n";

/* What emulated GPUs get through: 4 images a step. For tests that count no images. */
static const char train_config_gpu[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 60, test_count: 12, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, schedule: linear, micro_batch: 4, merge: never}\n"
    "train: {steps: 6, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 4, timestep_fraction: 0.5}\n"
    "rewards: [{name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 3, prompts: 2, steps: 1}\n"
    "checkpoint: {every: 2, keep: 0}\n"
    "log: {level: warn, samples_every: 0, advantages_every: 2}\n";

static inline int prepare(void **state) {
    (void)state;
    make_folder(on_gpu() ? train_config_gpu : train_config);
    make_tiny_model("base");
    return 0;
}

/* For tests that count images, on GPUs too. */
static inline int prepare_counted(void **state) {
    (void)state;
    make_folder(train_config);
    make_tiny_model("base");
    return 0;
}

/* A run into `out` that ends after `stop` steps, then resumed with `more` alone: the metrics and
 * the last checkpoint are those of the run `whole` of `steps` steps, bit for bit. */
static inline void stop_and_go(int ranks, const char *out, const char *more, size_t stop, const char *whole,
                               size_t steps) {
    char options[2048];
    snprintf(options, sizeof options, "%s --set train.steps=%zu", more, stop);
    train_well(ranks, out, options);
    snprintf(options, sizeof options, "%s --resume auto", more);
    train_well(ranks, out, options);
    same_lines(whole, out, "metrics.jsonl", 0, steps);
    same_checkpoint(whole, out, steps);
}

static inline json_t *field(const json_t *lines, size_t i, const char *name) {
    return json_object_get(json_array_get(lines, i), name);
}

static inline double number_at(const json_t *lines, size_t i, const char *name) {
    return json_number_value(field(lines, i, name));
}

/* The number that line i has under `name` for a reward. */
static inline double by(const json_t *lines, size_t i, const char *name, const char *reward) {
    return json_number_value(json_object_get(field(lines, i, name), reward));
}

/* Whether the step of line i solved, and whether it compared its direction with the rewards. */
static inline bool solved(const json_t *lines, size_t i) {
    return json_is_true(field(lines, i, "refreshed"));
}

static inline bool compared(const json_t *lines, size_t i) {
    return field(lines, i, "cos_min") != NULL;
}

#endif
