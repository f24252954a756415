/* What the tests of marble eval share: two short runs to compare, the command as a user would give it, and
 * what it printed. */
#ifndef MBL_TESTS_EVAL_CASE_H
#define MBL_TESTS_EVAL_CASE_H

#include "runs.h"

#include <unistd.h>

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}\n"
    "rollout: {steps: 3, solver: euler, micro_batch: 8}\n"
    "train: {steps: 3, lr: 1.0e-2, beta: 1.0, micro_batch: 8, timestep_fraction: 0.7, old_decay: {rate: 1, "
    "hold: 0.5}}\n"
    "rewards: [{name: count}, {name: color}, {name: clean}]\n"
    "eval: {every: 3, prompts: 12, steps: 2, seed: 99}\n"
    "checkpoint: {every: 3, keep: 0}\n"
    "log: {level: warn, samples_every: 0}\n";
static const char prompts[] = "three blue circles\na red sign that says \"K7\"\ngreen above purple\n";

static inline int prepare(void **state) {
    char path[512];
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    snprintf(path, sizeof path, "%s/few.txt", folder);
    write_whole(path, prompts, sizeof prompts - 1);
    train_well(1, "a", "--set device=cpu");
    train_well(1, "b", "--set device=cpu --set seed=8 --set model.lora.rank=2 --set train.lr=3e-2");
    return 0;
}

/* marble eval run.yaml in the test's folder, on its backend; its exit code. What it prints goes to
 * folder/printed and folder/said. */
static inline int eval(int ranks, const char *arguments) {
    char command[4096];
    char start[512] = "";
    if (ranks > 1)
        snprintf(start, sizeof start, "%s/tests/with_ranks %d ", MBL_SOURCE_DIR, ranks);
    snprintf(command, sizeof command,
             "cd %s && OMP_NUM_THREADS=1 %s%s/marble eval run.yaml --set device=%s %s >printed 2>said",
             folder, start, MBL_BINARY_DIR, test_backend(), arguments);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline char *read_in(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return read_whole(path, NULL);
}

static inline void must_have(const char *file, const char *words) {
    char *text = read_in(file);
    if (!strstr(text, words))
        fail_msg("\"%s\" is not in %s:\n%s", words, file, text);
    free(text);
}

static inline void eval_well(int ranks, const char *arguments) {
    int code = eval(ranks, arguments);
    if (code != 0)
        fail_msg("exit %d of marble eval %s\n%s", code, arguments, read_in("said"));
}

static inline json_t *json_in(const char *name) {
    char *text = read_in(name);
    json_t *out = json_loads(text, 0, NULL);
    if (!out)
        fail_msg("%s: not JSON: %s", name, text);
    free(text);
    return out;
}

static inline double number(const json_t *object, const char *reward, const char *key) {
    const json_t *value = json_object_get(json_object_get(object, reward), key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* Another base model is known by its tensors, and refused before anything is drawn. */
static inline void must_refuse_another_base(int ranks) {
    char command[1024];
    snprintf(command, sizeof command, "cd %s && cp -r base/model other", folder);
    assert_int_equal(system(command), 0);
    char path[512];
    size_t size;
    snprintf(path, sizeof path, "%s/other/transformer/diffusion_pytorch_model.safetensors", folder);
    char *bytes = read_whole(path, &size);
    bytes[size - 2] ^= 1;
    write_whole(path, bytes, size);
    free(bytes);
    assert_int_equal(eval(ranks, "--checkpoint a/checkpoints/latest.h5 --set model.path=other --json"), 2);
    must_have("said", "a/checkpoints/latest.h5: made on another base model: its model_digest is ");
    must_have("said", "/other is ");
    char *printed = read_in("printed");
    assert_null(strstr(printed, "base"));
    free(printed);
}

#endif
