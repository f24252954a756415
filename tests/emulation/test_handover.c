/* A run handed from the CPU to an emulated GPU and back, on one rank and two: with `precision: f32` it agrees
 * with the run that nothing stopped to f32's rounding, and so does the whole run on either device. Where
 * `precision: auto` would mean another one there, the run goes on and says so. */
#include "runs.h"

enum { STEPS = 4, HALF = 2 };

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, schedule: linear, micro_batch: 4, merge: never}\n"
    "train: {steps: 4, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 4, timestep_fraction: 0.5}\n"
    "rewards: [{name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 2, prompts: 2, steps: 1}\n"
    "checkpoint: {every: 1, keep: 0}\n"
    "log: {level: info, samples_every: 0}\n";

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    train_well(1, "cpu", "--set device=cpu");
    train_well(1, "gpu", "--set device=cuda");
    return 0;
}

static char *log_of(const char *out) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.log", folder, out);
    return read_whole(path, NULL);
}

static bool log_has(const char *out, const char *words) {
    char *log = log_of(out);
    bool found = strstr(log, words) != NULL;
    free(log);
    return found;
}

/* Largest deviation of a vector of the last checkpoints, relative to its length. */
static double deviation(const char *one, const char *other, const char *dataset) {
    const char *out[2] = {one, other};
    float *data[2];
    size_t count = 0;
    for (int i = 0; i < 2; i++) {
        char path[512];
        mbl_ckpt_t *ckpt;
        mbl_ckpt_item_t item = {NULL, MBL_F32, 0, NULL};
        snprintf(path, sizeof path, "%s/%s/checkpoints/step-%06d.h5", folder, out[i], STEPS);
        assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
        for (size_t n = 0; mbl_ckpt_item(ckpt, n, &item) && strcmp(item.name, dataset) != 0;)
            n++;
        assert_string_equal(item.name, dataset);
        count = item.count;
        data[i] = calloc(count, sizeof(float));
        assert_int_equal(mbl_ckpt_read(ckpt, dataset, MBL_F32, count, data[i]), MBL_OK);
        mbl_ckpt_close(ckpt);
    }
    double error = relative_error_f32(data[0], data[1], count);
    free(data[0]);
    free(data[1]);
    return error;
}

/* Metrics have two digits in common: where gradients oppose each other, as those of groups of two images
 * do, the length of what is left of them is a small difference of large numbers (with oneDNN's kernels for
 * SSE4.1 it agrees to 2e-3). */
static void same_run(const char *one, const char *other, size_t lines) {
    static const char *const datasets[] = {"adapter/current", "adapter/ema", "optimizer/m", "optimizer/v"};
    same_last_lines(one, other, "metrics.jsonl", 1e-2, lines);
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++) {
        double error = deviation(other, one, datasets[i]);
        print_message("%s and %s: %s within %.2g\n", one, other, datasets[i], error);
        assert_true(error <= 2e-5);
    }
}

static void devices_agree(void **state) {
    (void)state;
    same_run("cpu", "gpu", STEPS);
}

static void go_on(const char *from, int ranks, const char *device, const char *out) {
    char more[700];
    snprintf(more, sizeof more, "--resume %s/%s/checkpoints/step-%06d.h5 --set device=%s", folder, from, HALF,
             device);
    train_well(ranks, out, more);
    assert_true(log_has(out, "on resume, device changes from"));
    assert_false(log_has(out, "and the run goes on in"));
    same_run(from, out, STEPS - HALF);
}

static void from_one_to_the_other(void **state) {
    (void)state;
    go_on("gpu", 1, "cpu", "gpu-cpu");
    go_on("cpu", 1, "cuda", "cpu-gpu");
    go_on("cpu", 2, "cuda", "cpu-gpu2");
}

/* auto is bf16 on every GPU; f32 stands here for what it is on a CPU that multiplies bf16 slowly. */
static void another_precision_is_logged(void **state) {
    char more[700];
    (void)state;
    snprintf(more, sizeof more,
             "--resume %s/cpu/checkpoints/step-%06d.h5 --set device=cuda --set precision=auto --set "
             "train.steps=%d",
             folder, HALF, HALF + 1);
    train_well(1, "auto", more);
    if (!log_has("auto", "step-000002.h5: was computed in f32, and the run goes on in bf16 (precision: auto, "
                         "device cuda)") ||
        !log_has("auto", "precision=f32 keeps them"))
        fail_msg("%s", log_of("auto"));
    snprintf(more, sizeof more, "--resume auto --set device=cpu --set train.steps=%d", HALF + 2);
    train_well(1, "auto", more);
    assert_true(log_has("auto", "step-000003.h5: was computed in bf16, and the run goes on in f32"));
    json_t *lines = lines_of("auto", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), 2);
    json_decref(lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_agree),
        cmocka_unit_test(from_one_to_the_other),
        cmocka_unit_test(another_precision_is_logged),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
