/* An epoch is cut by image: runs on more ranks than there are groups, whose ranks hold parts of groups, are
 * those of one rank; the same ranks again are the same bits; and a run goes on from any of them on any other.
 * 3 groups of 2 images: on 4 ranks two have 2 images and two have 1, on 6 each has one. */
#include "runs.h"

enum { STEPS = 4, HALF = 2 };

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 12, test_count: 4, groups: 3, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, schedule: linear, micro_batch: 4, merge: never}\n"
    "train: {steps: 4, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 4, timestep_fraction: 1}\n"
    "rewards: [{name: color, min_valid: 0.9}, {name: clean}, {name: jpeg}]\n"
    "balance: {gram_fraction: 0.5, alpha_halves: 2}\n"
    "eval: {every: 2, prompts: 3, steps: 1}\n"
    "checkpoint: {every: 2, keep: 0}\n"
    "log: {level: warn, samples_every: 2, advantages_every: 1}\n";

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    train_well(1, "one", "");
    return 0;
}

/* Scores and advantages do not round by ranks; what gradients sum up does. */
static void check_like_one_rank(const char *out) {
    same_lines("one", out, "metrics.jsonl", 1e-4, STEPS);
    same_lines("one", out, "advantages.jsonl", 1e-3, STEPS);
    same_lines("one", out, "eval.jsonl", 1e-4, 3);
}

static void more_ranks_than_groups(void **state) {
    (void)state;
    train_well(4, "four", "");
    check_like_one_rank("four");
    train_well(6, "six", "");
    check_like_one_rank("six");
}

static void the_same_ranks_are_the_same_bits(void **state) {
    char more[600];
    (void)state;
    snprintf(more, sizeof more, "--resume %s/four/checkpoints/step-%06d.h5", folder, HALF);
    train_well(4, "again", more);
    same_last_lines("four", "again", "metrics.jsonl", 0, STEPS - HALF);
    same_checkpoint("four", "again", STEPS);
}

static void other_ranks_go_on(void **state) {
    char more[600];
    (void)state;
    snprintf(more, sizeof more, "--resume %s/six/checkpoints/step-%06d.h5", folder, HALF);
    train_well(2, "fewer", more);
    same_last_lines("one", "fewer", "metrics.jsonl", 1e-4, STEPS - HALF);
    snprintf(more, sizeof more, "--resume %s/one/checkpoints/step-%06d.h5", folder, HALF);
    train_well(5, "more", more);
    same_last_lines("one", "more", "metrics.jsonl", 1e-4, STEPS - HALF);
}

static void no_rank_without_an_image(void **state) {
    char path[512];
    (void)state;
    assert_int_equal(train(7, "seven", ""), 2);
    snprintf(path, sizeof path, "%s/seven.log", folder);
    char *log = read_whole(path, NULL);
    if (!strstr(
            log,
            "prompts.groups: 3 groups of 2 images for 7 ranks; every rank needs an image: start at most 6"))
        fail_msg("%s", log);
    free(log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_ranks_than_groups),
        cmocka_unit_test(the_same_ranks_are_the_same_bits),
        cmocka_unit_test(other_ranks_go_on),
        cmocka_unit_test(no_rank_without_an_image),
    };
    return cmocka_run_group_tests_name("uneven_ranks", tests, prepare, drop_folder);
}
