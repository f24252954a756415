/* When a run keeps its adapter beside the weights instead of merging it.   ctest-backends: cuda */
#include "runs.h"

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "prompts: {source: signs, train_count: 40, test_count: 8, groups: 4, group_size: 4}\n"
    "rollout: {steps: 2, solver: euler, schedule: linear, micro_batch: 8}\n"
    "train: {steps: 3, lr: 2.0e-3, micro_batch: 8, timestep_fraction: 0.5}\n"
    "rewards: [{name: color}, {name: jpeg}]\n"
    "eval: {every: 0, prompts: 4, steps: 2}\n"
    "checkpoint: {every: 0}\n"
    "log: {samples_every: 0}\n";

static bool log_has(const char *out, const char *words) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.log", folder, out);
    char *log = read_whole(path, NULL);
    bool found = strstr(log, words) != NULL;
    free(log);
    return found;
}

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    return 0;
}

/* With room for no deviation at all only the first epoch, whose B is zero, runs merged, and the run is that
 * of `never` to the bit; with the default all do, and it is the same to rounding. */
static void runs_fall_back(void **state) {
    size_t steps = on_gpu() ? 2 : 3;
    char model[540], more[1024];
    (void)state;
    snprintf(model, sizeof model, "--set log.level=debug --set model.path=%s/base/model%s", folder,
             on_gpu() ? " --set prompts.groups=2 --set prompts.group_size=2 --set train.steps=2" : "");
    snprintf(more, sizeof more, "%s --set rollout.merge=never", model);
    train_well(1, "never", more);
    assert_false(log_has("never", "the rollout runs with its adapter"));
    snprintf(more, sizeof more, "%s --set rollout.merge_deviation=0", model);
    train_well(1, "strict", more);
    assert_true(log_has("strict", "epoch 1: the rollout runs with its adapter merged"));
    assert_true(log_has("strict", "epoch 2: the rollout runs with its adapter beside"));
    same_lines("never", "strict", "metrics.jsonl", 0, steps);
    train_well(2, "auto", model);
    assert_true(log_has("auto", "epoch 1: the rollout runs with its adapter merged"));
    assert_false(log_has("auto", "adapter beside"));
    same_lines("never", "auto", "metrics.jsonl", 1e-3, steps);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(runs_fall_back, prepare, drop_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
