/* A run goes on with any number of ranks: from the checkpoints of 1, 2, 3, 4 and 8 ranks on each of 1, 2, 3,
 * 4 and 8, twenty further steps. The same ranks: bit for bit. Others: what is measured agrees to 1e-4, and so
 * do weights and moments. The model is a tiny one, pretrained here for a second. On emulated GPUs the runs
 * are shorter, and only some hand over to others.   ctest-backends: cuda */
#include "runs.h"

static size_t before = 2, after = 20;
static int counts = 5;
static const int rank_counts[] = {1, 2, 3, 4, 8};

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 8, group_size: 3}\n"
    "rollout: {steps: 2, solver: euler, schedule: linear, micro_batch: 8}\n"
    "train: {steps: 22, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 8, timestep_fraction: 0.5}\n"
    "rewards: [{name: ocr}, {name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 10, prompts: 4, steps: 2}\n"
    "checkpoint: {every: 2, keep: 0}\n"
    "log: {level: error, samples_every: 0}\n";

/* A run on n ranks, small enough for the emulation where that is the device. */
static void run(int n, const char *out, const char *more) {
    char options[1024] = "";
    if (on_gpu())
        snprintf(options, sizeof options,
                 "--set train.steps=%zu --set prompts.groups=4 --set prompts.group_size=2 --set "
                 "rollout.steps=2 --set rollout.micro_batch=4 --set train.micro_batch=4 --set eval.every=2 "
                 "--set eval.prompts=2 --set eval.steps=1 --set rollout.merge=never --set checkpoint.every=1 "
                 "--set log.level=info",
                 before + after);
    strncat(options, " ", sizeof options - strlen(options) - 1);
    strncat(options, more, sizeof options - strlen(options) - 1);
    train_well(n, out, options);
}

static int prepare(void **state) {
    (void)state;
    if (on_gpu()) {
        before = 1;
        after = 2;
        counts = 4;
    }
    make_folder(config);
    make_tiny_model("base");
    return 0;
}

static const char *name_of(const char *prefix, int from, int to) {
    static char names[4][32];
    static int next;
    char *out = names[next++ % 4];
    snprintf(out, sizeof names[0], "%s%d-%d", prefix, from, to);
    return out;
}

/* Largest deviation of a dataset of two checkpoints, relative to its length. */
static double deviation(const char *one, const char *other, const char *dataset) {
    char path[512];
    const char *out[2] = {one, other};
    mbl_ckpt_t *ckpt[2];
    mbl_ckpt_item_t item = {NULL, MBL_F32, 0, NULL};
    float *data[2];
    char step[32];
    snprintf(step, sizeof step, "%zu", before + after);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/checkpoints/latest.h5", folder, out[i]);
        assert_int_equal(mbl_ckpt_open(path, &ckpt[i]), MBL_OK);
        assert_string_equal(mbl_ckpt_attr(ckpt[i], "step"), step);
        for (size_t n = 0; mbl_ckpt_item(ckpt[i], n, &item) && strcmp(item.name, dataset) != 0;)
            n++;
        assert_string_equal(item.name, dataset);
        data[i] = calloc(item.count, sizeof(float));
        assert_int_equal(mbl_ckpt_read(ckpt[i], dataset, MBL_F32, item.count, data[i]), MBL_OK);
    }
    double error = relative_error_f32(data[0], data[1], item.count);
    for (int i = 0; i < 2; i++) {
        free(data[i]);
        mbl_ckpt_close(ckpt[i]);
    }
    return error;
}

static void the_unbroken_runs_agree(void **state) {
    (void)state;
    for (int i = 0; i < counts; i++) {
        run(rank_counts[i], name_of("unbroken", rank_counts[i], 0), "");
        if (i > 0)
            same_lines("unbroken1-0", name_of("unbroken", rank_counts[i], 0), "metrics.jsonl", 1e-4,
                       before + after);
    }
}

static void go_on(int from, int to) {
    static const char *const datasets[] = {"adapter/current", "adapter/old", "adapter/ema", "optimizer/m",
                                           "optimizer/v"};
    char more[600];
    const char *out = name_of("from", from, to), *same = name_of("unbroken", to, 0);
    snprintf(more, sizeof more, "--resume %s/unbroken%d-0/checkpoints/step-%06zu.h5", folder, from, before);
    run(to, out, more);
    if (from == to) {
        same_last_lines(same, out, "metrics.jsonl", 0, after);
        same_checkpoint(same, out, before + after);
        return;
    }
    same_last_lines("unbroken1-0", out, "metrics.jsonl", 1e-4, after);
    same_last_lines("unbroken1-0", out, "eval.jsonl", 1e-4, on_gpu() ? 2 : 3);
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++) {
        double error = deviation(out, "unbroken1-0", datasets[i]);
        if (!(error <= 1e-4)) {
            print_error("%s, from %d ranks to %d: off by %.3g\n", datasets[i], from, to, error);
            fail();
        }
    }
}

static void any_number_of_ranks_goes_on_from_any(void **state) {
    (void)state;
    if (on_gpu()) {
        go_on(2, 2);
        go_on(2, 4);
        go_on(2, 1);
        return;
    }
    for (int from = 0; from < counts; from++)
        for (int to = 0; to < counts; to++)
            go_on(rank_counts[from], rank_counts[to]);
}

/* Device memory through MPI: staged by the host, in its order of sums. */
static void without_nccl_the_same(void **state) {
    char path[512];
    (void)state;
    setenv("MARBLE_NCCL", "0", 1);
    run(2, "staged", "");
    unsetenv("MARBLE_NCCL");
    snprintf(path, sizeof path, "%s/staged.log", folder);
    char *log = read_whole(path, NULL);
    if (!strstr(log, "mpi moves device memory between ranks through the host: MARBLE_NCCL=0"))
        fail_msg("%s", log);
    free(log);
    same_lines("unbroken2-0", "staged", "metrics.jsonl", 1e-4, before + after);
    same_lines("unbroken2-0", "staged", "eval.jsonl", 1e-4, 3);
}

/* One run handed from rank count to rank count, a few steps each. */
static void a_run_may_change_its_ranks_again_and_again(void **state) {
    char more[128];
    (void)state;
    size_t steps = before + after;
    for (int i = 0; i < counts; i++) {
        snprintf(more, sizeof more, "--set train.steps=%zu --resume auto",
                 i + 1 < counts ? 4 * (size_t)(i + 1) : steps);
        run(rank_counts[counts - 1 - i], "wandering", more);
    }
    same_lines("unbroken1-0", "wandering", "metrics.jsonl", 1e-4, steps);
}

int main(void) {
    const struct CMUnitTest on_gpus[] = {
        cmocka_unit_test(the_unbroken_runs_agree),
        cmocka_unit_test(any_number_of_ranks_goes_on_from_any),
        cmocka_unit_test(without_nccl_the_same),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unbroken_runs_agree),
        cmocka_unit_test(any_number_of_ranks_goes_on_from_any),
        cmocka_unit_test(a_run_may_change_its_ranks_again_and_again),
    };
    return on_gpu() ? cmocka_run_group_tests(on_gpus, prepare, drop_folder)
                    : cmocka_run_group_tests(tests, prepare, drop_folder);
}
