/* A run goes on with any number of ranks: from the checkpoints of 1, 2, 3, 4 and 8 ranks on each of 1, 2, 3,
 * 4 and 8, twenty further steps. The same ranks: bit for bit. Others: what is measured agrees to 1e-4, and so
 * do weights and moments. The model is a tiny one, pretrained here for a second. */
#include "runs.h"

enum { BEFORE = 2, AFTER = 20, STEPS = BEFORE + AFTER };
static const int rank_counts[] = {1, 2, 3, 4, 8};
enum { COUNTS = sizeof rank_counts / sizeof *rank_counts };

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 8, group_size: 4}\n"
    "rollout: {steps: 3, solver: euler, micro_batch: 8}\n"
    "train: {steps: 22, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 8, timestep_fraction: 0.7}\n"
    "rewards: [{name: ocr}, {name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 10, prompts: 4, steps: 2}\n"
    "checkpoint: {every: 2, keep: 0}\n"
    "log: {level: error, samples_every: 0}\n";

static int prepare(void **state) {
    char path[512];
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    write_whole(path, config, sizeof config - 1);
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
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/checkpoints/latest.h5", folder, out[i]);
        assert_int_equal(mbl_ckpt_open(path, &ckpt[i]), MBL_OK);
        assert_string_equal(mbl_ckpt_attr(ckpt[i], "step"), "22");
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
    for (int i = 0; i < COUNTS; i++) {
        train_well(rank_counts[i], name_of("unbroken", rank_counts[i], 0), "");
        if (i > 0)
            same_lines("unbroken1-0", name_of("unbroken", rank_counts[i], 0), "metrics.jsonl", 1e-4, STEPS);
    }
}

static void go_on(int from, int to) {
    static const char *const datasets[] = {"adapter/current", "adapter/old", "adapter/ema", "optimizer/m",
                                           "optimizer/v"};
    char more[600];
    const char *out = name_of("from", from, to), *same = name_of("unbroken", to, 0);
    snprintf(more, sizeof more, "--resume %s/unbroken%d-0/checkpoints/step-%06d.h5", folder, from, BEFORE);
    train_well(to, out, more);
    if (from == to) {
        same_last_lines(same, out, "metrics.jsonl", 0, AFTER);
        same_checkpoint(same, out, STEPS);
        return;
    }
    same_last_lines("unbroken1-0", out, "metrics.jsonl", 1e-4, AFTER);
    same_last_lines("unbroken1-0", out, "eval.jsonl", 1e-4, 3);
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
    for (int from = 0; from < COUNTS; from++)
        for (int to = 0; to < COUNTS; to++)
            go_on(rank_counts[from], rank_counts[to]);
}

/* One run handed from rank count to rank count, a few steps each. */
static void a_run_may_change_its_ranks_again_and_again(void **state) {
    char more[128];
    (void)state;
    for (int i = 0; i < COUNTS; i++) {
        snprintf(more, sizeof more, "--set train.steps=%d --resume auto",
                 i + 1 < COUNTS ? 4 * (i + 1) : STEPS);
        train_well(rank_counts[COUNTS - 1 - i], "wandering", more);
    }
    same_lines("unbroken1-0", "wandering", "metrics.jsonl", 1e-4, STEPS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unbroken_runs_agree),
        cmocka_unit_test(any_number_of_ranks_goes_on_from_any),
        cmocka_unit_test(a_run_may_change_its_ranks_again_and_again),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
