/* The ways marble train balances rewards: every method runs, what each promises of its weights and its
 * direction holds in the metrics, and those that keep something from step to step go on with it after a stop.
 * On emulated GPUs those that do more on the device than sums of gradients. ctest-backends: cuda */
#include "train_case.h"

static void every_method_runs_and_marble_is_never_against_a_reward(void **state) {
    static const char *const others[] = {"fixed", "pcgrad", "upgrad", "cagrad", "nash"};
    (void)state;
    train_well(1, "one", "--set balance.common=together");
    train_well(1, "equal", "--set balance.method=equal --set train.steps=3");
    train_well(1, "sum",
               "--set balance.method=weighted_sum --set balance.diagnostics_every=2 --set train.steps=3");
    train_well(1, "offset", "--set balance.common=offset --set train.steps=2");
    train_well(1, "gdpo", "--set balance.method=gdpo --set train.steps=1");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char set[64];
        snprintf(set, sizeof set, "--set balance.method=%s --set train.steps=1", others[i]);
        train_well(2, others[i], set);
    }
    json_t *lines = lines_of("one", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        if (!(number_at(lines, i, "cos_min") > 0))
            fail_msg("step %zu: cos_min %g", i + 1, number_at(lines, i, "cos_min"));
    }
    json_decref(lines);
    lines = lines_of("sum", "metrics.jsonl");
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(compared(lines, i), i != 1);
    json_decref(lines);
}

/* Either half of the rows gives an alpha of its own; the step is that of all rows. */
static void alpha_of_two_halves(void **state) {
    (void)state;
    train_well(2, "whole", "--set train.steps=1");
    train_well(2, "halved", "--set balance.alpha_halves=2 --set train.steps=3");
    json_t *lines = lines_of("halved", "metrics.jsonl"), *other = lines_of("whole", "metrics.jsonl");
    assert_null(field(lines, 1, "alpha_halves"));
    for (size_t i = 0; i < 3; i += 2) {
        const char *name;
        json_t *pair;
        double sum[2] = {0}, difference = 0;
        json_object_foreach(field(lines, i, "alpha_halves"), name, pair) {
            double a = json_number_value(json_array_get(pair, 0)),
                   b = json_number_value(json_array_get(pair, 1));
            sum[0] += a;
            sum[1] += b;
            difference += fabs(a - b);
            assert_near(by(lines, i, "alpha_variance", name), (a - b) * (a - b) / 2, 1e-8);
        }
        assert_near(sum[0], 1, 1e-7);
        assert_near(sum[1], 1, 1e-7);
        assert_true(difference > 1e-3);
    }
    double norm = number_at(other, 0, "grad_norm");
    assert_near(number_at(lines, 0, "grad_norm"), norm, 1e-6 * norm);
    compare(field(lines, 0, "cos"), field(other, 0, "cos"), 1e-5, "cos");
    json_decref(lines);
    json_decref(other);
}

/* A limit that nothing meets presses its reward into the direction, more with every epoch, over a resume too.
 */
static void a_reward_with_a_min(void **state) {
    const char *more = "--set rewards.2.min=0.99 --set constraint.rate=0.005 --set "
                       "constraint.penalty=0.001 --set train.steps=6";
    (void)state;
    train_well(2, "limit", more);
    stop_and_go(2, "limit2", more, 3, "limit", 6);
    json_t *lines = lines_of("limit", "metrics.jsonl");
    double last = 0;
    for (size_t i = 0; i < 6; i++) {
        const json_t *color = json_object_get(field(lines, i, "constraint"), "color");
        double multiplier = json_number_value(json_object_get(color, "multiplier"));
        double pressure = json_number_value(json_object_get(color, "pressure"));
        assert_true(json_number_value(json_object_get(color, "gap")) > 0);
        assert_true(multiplier > last && pressure > multiplier);
        assert_near(by(lines, i, "alpha_raw", "color"), pressure / (1 + pressure), 1e-7);
        last = multiplier;
    }
    json_decref(lines);
}

/* Every micro-batch solves in step 1, then one of 8 at steps 3 and 5; stopping between two of them changes
 * nothing, and neither does the number of ranks. */
static void the_released_method(void **state) {
    const char *more =
        "--set balance.method=marble_reference --set balance.refresh_every=2 --set train.steps=5 "
        "--set balance.diagnostics_every=3";
    (void)state;
    train_well(1, "reference", more);
    train_well(2, "reference2", more);
    same_lines("reference", "reference2", "metrics.jsonl", 1e-4, 5);
    stop_and_go(2, "reference3", more, 4, "reference2", 5);
    json_t *lines = lines_of("reference", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(solved(lines, i), i % 2 == 0);
        assert_int_equal(compared(lines, i), i % 3 == 0);
        if (i % 2 == 0)
            assert_near(number_at(lines, i, "gram_share"), i == 0 ? 1 : 1.0 / PASSES, 1e-12);
    }
    json_decref(lines);
    same_lines("reference", "reference2", "gram.jsonl", 2e-3, 4); /* of steps that solve or compare */
    lines = lines_of("reference", "gram.jsonl");
    for (size_t i = 0; i < 4; i++) {
        size_t measured = 0;
        assert_near(number_at(lines, i, "step"), i < 1 ? 1 : (double)i + 2, 0);
        for (size_t k = 0; k < json_array_size(field(lines, i, "rewards")); k++) {
            const json_t *row = json_array_get(field(lines, i, "cos"), k), *own = json_array_get(row, k);
            measured += json_is_number(own);
            if (json_is_number(own)) {
                assert_near(json_number_value(own), 1, 0);
                assert_true(json_number_value(json_array_get(field(lines, i, "norm"), k)) > 0);
            }
        }
        assert_true(measured >= 2);
    }
    json_decref(lines);
}

/* The length of a run's second direction. */
static double second_norm(const char *name, const char *options) {
    char more[300];
    snprintf(more, sizeof more, "--set train.steps=2 %s", options);
    train_well(1, name, more);
    json_t *lines = lines_of(name, "metrics.jsonl");
    double norm = number_at(lines, 1, "grad_norm");
    json_decref(lines);
    assert_true(norm > 0);
    return norm;
}

/* Definitions that have a name reach the step: gdpo goes by groups unless the deviation is named, the
 * weighted sum may be a mean, the KL term is apart unless it is common, or of a fraction of the rows. */
static void definitions_by_name(void **state) {
    (void)state;
    double by_group = second_norm("gdpo-group", "--set balance.method=gdpo --set advantage.std=group");
    assert_near(second_norm("gdpo-auto", "--set balance.method=gdpo"), by_group, 0);
    double by_step = second_norm("gdpo-step", "--set balance.method=gdpo --set advantage.std=global");
    assert_true(fabs(by_step - by_group) > 1e-4 * by_group);
    double sum = second_norm("summed", "--set balance.method=weighted_sum");
    double mean = second_norm("averaged", "--set balance.method=weighted_sum --set balance.weighted=mean");
    assert_true(fabs(mean - sum) > 1e-4 * sum);
    double apart = second_norm("kl-apart", "--set train.kl=1");
    assert_near(second_norm("kl-named", "--set train.kl=1 --set balance.kl=apart"), apart, 0);
    assert_true(fabs(second_norm("kl-common", "--set train.kl=1 --set balance.kl=common") - apart) >
                1e-6 * apart);
    assert_true(fabs(second_norm("kl-half", "--set train.kl=1 --set train.kl_fraction=0.5") - apart) >
                1e-6 * apart);
    second_norm("shrunk", "--set balance.shrink=average");
    json_t *lines = lines_of("shrunk", "metrics.jsonl");
    for (size_t i = 0; i < 2; i++) {
        double left = number_at(lines, i, "shrunk");
        assert_true(left >= 0 && left <= 1);
        assert_int_equal(json_object_size(field(lines, i, "noise_ratio")),
                         json_object_size(field(lines, i, "cos")));
    }
    json_decref(lines);
    second_norm("one-half", "--set balance.shrink=average --set balance.gram_fraction=0.01");
    lines = lines_of("one-half", "metrics.jsonl"); /* the other half has no rows: nothing to shrink by */
    for (size_t i = 0; i < 2; i++) {
        assert_true(json_is_null(field(lines, i, "shrunk")));
        compare(field(lines, i, "alpha"), field(lines, i, "alpha_raw"), 1e-12, "alpha");
    }
    json_decref(lines);
}

/* With the guard no step works against a reward's own part; without it some step of the same run does. */
static void guarded_own_parts(void **state) {
    (void)state;
    double least[2] = {1, 1}, moved = 0;
    static const char *const guards[] = {"off", "own_parts"};
    for (size_t guard = 0; guard < 2; guard++) {
        char more[300];
        snprintf(more, sizeof more,
                 "--set train.steps=4 --set train.lr=0.01 --set train.old_decay.hold=0.95 --set "
                 "train.old_decay.rate=0.95 --set balance.common=together --set balance.guard=%s",
                 guards[guard]);
        train_well(1, guards[guard], more);
        json_t *lines = lines_of(guards[guard], "metrics.jsonl");
        for (size_t i = 0; i < 4; i++) {
            least[guard] = fmin(least[guard], number_at(lines, i, "cos_part_min"));
            if (guard)
                moved = fmax(moved, number_at(lines, i, "guard_moved"));
        }
        json_decref(lines);
    }
    assert_true(least[0] < -1e-3);
    assert_true(least[1] > -1e-7);
    assert_true(moved > 0);
}

int main(void) {
    const struct CMUnitTest on_gpus[] = {
        cmocka_unit_test(a_reward_with_a_min),
        cmocka_unit_test(the_released_method),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_method_runs_and_marble_is_never_against_a_reward),
        cmocka_unit_test(alpha_of_two_halves),
        cmocka_unit_test(definitions_by_name),
        cmocka_unit_test(guarded_own_parts),
        cmocka_unit_test(a_reward_with_a_min),
        cmocka_unit_test(the_released_method),
    };
    return on_gpu() ? cmocka_run_group_tests(on_gpus, prepare_counted, drop_folder)
                    : cmocka_run_group_tests(tests, prepare_counted, drop_folder);
}
