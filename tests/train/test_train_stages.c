/* Stages of marble train, each with its own set of rewards: what they are made of, stopping within and
 * between them, and that the first step of one is that of a run with its rewards alone.
 * ctest-backends: cuda */
#include "train_case.h"

static double least_of_trained(json_t *cos, const json_t *trained) {
    const char *name;
    json_t *value;
    double least = INFINITY;
    json_object_foreach(cos, name, value) if (json_is_true(json_object_get(trained, name))) least =
        fmin(least, json_is_number(value) ? json_number_value(value) : INFINITY);
    return least;
}

/* Three stages, of which the second begins amid an epoch: the others' rewards are scored but have no alpha,
 * every stage solves in its first step and starts its averages there. Stopping within a stage or between two
 * changes nothing, and neither does the number of ranks. */
static void stages_one_after_another(void **state) {
    const char *more = "--set train.updates_per_epoch=2 --set balance.refresh_every=9 --set "
                       "balance.diagnostics_every=4 --set checkpoint.every=2 --set log.level=info";
    const char *first = "{steps: 3, rewards: [color, clean, jpeg]}",
               *third = "{steps: 2, rewards: [color, clean]}";
    const char *second = "rewards: [jpeg, clean], method: weighted_sum, weights: [1, 3]}";
    static const int stage[] = {1, 1, 1, 2, 2, 2, 3, 3};
    static const char *const outside[][2] = {{"ocr", "count"}, {"ocr", "color"}, {"count", "jpeg"}};
    char whole[1024], half[1024], path[512];
    (void)state;
    snprintf(whole, sizeof whole, "%s --set train.steps=8 --set 'stages=[%s, {steps: 3, %s, %s]'", more,
             first, second, third);
    train_well(2, "stages", whole);
    train_well(1, "stages1", whole);
    same_lines("stages", "stages1", "metrics.jsonl", 1e-4, 8);
    strcat(whole, " --resume auto");
    for (int steps = 4; steps < 8; steps += 2) {
        char out[32];
        snprintf(out, sizeof out, "stages%d", steps);
        snprintf(half, sizeof half, "%s --set train.steps=%d --set 'stages=[%s, {steps: %d, %s]'", more,
                 steps, first, steps - 3, second);
        train_well(2, out, half);
        train_well(2, out, whole);
        same_lines("stages", out, "metrics.jsonl", 0, 8);
        same_checkpoint("stages", out, 8);
    }
    json_t *lines = lines_of("stages", "metrics.jsonl");
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(json_integer_value(field(lines, i, "stage")), stage[i]);
        assert_true(by(lines, i, "reward", "color") > 0); /* scored all through */
        assert_near(by(lines, i, "valid", "jpeg"), IMAGES, 0);
        if (field(lines, i, "alpha"))
            for (int k = 0; k < 2; k++)
                assert_near(by(lines, i, "alpha", outside[stage[i] - 1][k]), 0, 0);
        assert_true(json_is_true(json_object_get(field(lines, i, "trained"), "clean")));
        assert_true(json_is_false(json_object_get(field(lines, i, "trained"), outside[stage[i] - 1][0])));
        if (compared(lines, i))
            assert_near(number_at(lines, i, "cos_min"),
                        least_of_trained(field(lines, i, "cos"), field(lines, i, "trained")), 1e-12);
        if (stage[i] != 2)
            assert_int_equal(solved(lines, i), i == 0 || i == 6);
    }
    assert_near(by(lines, 4, "alpha", "clean"), 3, 0);
    assert_true(fabs(by(lines, 4, "cos", "color")) > 0); /* compared with all the same */
    compare(field(lines, 6, "alpha_ema"), field(lines, 6, "alpha_raw"), 1e-8, "alpha");
    compare(field(lines, 7, "alpha"), field(lines, 6, "alpha_raw"), 1e-8, "alpha");
    assert_true(by(lines, 6, "alpha", "clean") > 0 && by(lines, 6, "alpha", "color") > 0);
    json_decref(lines);
    snprintf(path, sizeof path, "%s/stages.log", folder);
    char *log = read_whole(path, NULL);
    if (!strstr(log, "step 4/8  stage 2/3 "))
        fail_msg("%s", log);
    free(log);
}

/* The first step of a stage is that of a run with its rewards alone. */
static void a_stage_is_a_run_of_its_rewards(void **state) {
    static const char *const methods[] = {"marble", "weighted_sum", "gdpo"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        char stage[512], alone[512], one[32], other[32];
        snprintf(stage, sizeof stage,
                 "--set train.steps=1 --set 'stages=[{steps: 1, rewards: [jpeg, color], weights: [3, 1], "
                 "method: %s}]'",
                 methods[i]);
        snprintf(alone, sizeof alone,
                 "--set train.steps=1 --set balance.method=%s --set 'rewards=[{name: color}, {name: jpeg, "
                 "weight: 3}]'",
                 methods[i]);
        snprintf(one, sizeof one, "stage_%s", methods[i]);
        snprintf(other, sizeof other, "alone_%s", methods[i]);
        train_well(1, one, stage);
        train_well(1, other, alone);
        json_t *a = lines_of(one, "metrics.jsonl"), *b = lines_of(other, "metrics.jsonl");
        double norm = number_at(b, 0, "grad_norm");
        assert_true(norm > 0);
        assert_near(number_at(a, 0, "grad_norm"), norm, 1e-6 * norm);
        assert_near(by(a, 0, "cos", "jpeg"), by(b, 0, "cos", "jpeg"), 1e-6);
        json_decref(a);
        json_decref(b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_one_after_another),
        cmocka_unit_test(a_stage_is_a_run_of_its_rewards),
    };
    return cmocka_run_group_tests(tests, prepare_counted, drop_folder);
}
