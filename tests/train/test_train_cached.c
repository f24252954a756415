/* Steps of marble train that solve seldom, late, or on few rows: which ones solve and compare, what they go
 * on with, and that stopping among them changes nothing. On emulated GPUs the steps alone.
 * ctest-backends: cuda */
#include "train_case.h"

/* Solves at steps 1, 4 and 7 only; cosines where a step solves or diagnostics are due; the averaged alpha
 * stands in between. */
static void cached_steps(void **state) {
    const char *more = "--set balance.refresh_every=3 --set balance.diagnostics_every=4 --set train.steps=8";
    (void)state;
    train_well(1, "cached", more);
    train_well(2, "cached2", more);
    same_lines("cached", "cached2", "metrics.jsonl", 1e-4, 8);
    json_t *lines = lines_of("cached", "metrics.jsonl");
    for (size_t i = 0; i < 8; i++) {
        const char *name;
        json_t *alpha;
        assert_int_equal(solved(lines, i), i % 3 == 0);
        assert_int_equal(field(lines, i, "alpha_raw") != NULL, i % 3 == 0);
        assert_int_equal(compared(lines, i), i % 3 == 0 || i == 4);
        json_object_foreach(field(lines, i, "alpha_ema"), name, alpha)
            assert_near(json_number_value(alpha), by(lines, i - i % 3, "alpha_ema", name), 1e-12);
        compare(field(lines, i, "alpha"), field(lines, i, i % 3 ? "alpha_ema" : "alpha_raw"), 1e-8, "alpha");
    }
    assert_true(number_at(lines, 4, "cos_min") > -1);
    json_decref(lines);
}

/* Stops after step 5, in the middle of the window that step 4 opened; diagnostics change no step. */
static void resume_between_solves(void **state) {
    const char *more = "--set balance.refresh_every=3 --set balance.diagnostics_every=0 --set train.steps=8";
    (void)state;
    train_well(2, "window", more);
    stop_and_go(2, "window2", more, 5, "window", 8);
    json_t *lines = lines_of("window", "metrics.jsonl"), *other = lines_of("cached2", "metrics.jsonl");
    /* of step 5 all gradients against one pass; AdamW then magnifies rounding */
    for (size_t i = 0; i <= 4; i++)
        assert_near(number_at(lines, i, "grad_norm"), number_at(other, i, "grad_norm"),
                    1e-6 * number_at(other, i, "grad_norm"));
    json_decref(lines);
    json_decref(other);
}

/* The same rows whatever the number of ranks; the direction is that of all rows also where diagnostics form
 * all gradients of them. */
static void weights_from_a_part_of_the_rows(void **state) {
    const char *more = "--set balance.gram_fraction=0.5 --set train.steps=4 --set balance.on_refresh=smooth "
                       "--set balance.diagnostics_every=";
    char with[512], without[512];
    (void)state;
    snprintf(with, sizeof with, "%s3", more);
    snprintf(without, sizeof without, "%s0", more);
    train_well(1, "part", with);
    train_well(2, "part2", with);
    train_well(1, "part3", without);
    same_lines("part", "part2", "metrics.jsonl", 1e-4, 4);
    json_t *lines = lines_of("part", "metrics.jsonl"), *other = lines_of("part3", "metrics.jsonl");
    for (size_t i = 0; i < 4; i++) {
        assert_near(number_at(lines, i, "gram_share"), 0.5, 1e-12);
        assert_int_equal(compared(lines, i), i % 3 == 0);
        compare(field(lines, i, "alpha"), field(lines, i, "alpha_ema"), 1e-8, "alpha"); /* used, too */
    }
    double norm = number_at(other, 0, "grad_norm"); /* AdamW then magnifies rounding */
    assert_near(number_at(lines, 0, "grad_norm"), norm, 1e-6 * norm);
    json_decref(lines);
    json_decref(other);
}

/* Two steps of equal weights, then a window of two steps that step 3 opens, from the first solution on; color
 * and clean share an objective, jpeg is the other that varies. Stopping in the warm-up or within the window
 * changes nothing. */
static void warm_up_and_groups(void **state) {
    const char *more =
        "--set balance.warmup=2 --set balance.refresh_every=2 --set rewards.2.group=looks --set "
        "rewards.3.group=looks --set train.steps=5 --set balance.diagnostics_every=0";
    (void)state;
    train_well(2, "warm", more);
    stop_and_go(2, "warm1", more, 1, "warm", 5);
    stop_and_go(2, "warm3", more, 3, "warm", 5);
    json_t *lines = lines_of("warm", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(solved(lines, i), i % 2 == 0);
        assert_near(by(lines, i, "alpha", "color"), by(lines, i, "alpha", "clean"), 1e-8);
    }
    assert_near(by(lines, 0, "alpha_raw", "jpeg"), 0.5, 1e-8);
    assert_near(by(lines, 0, "alpha_raw", "color"), 0.25, 1e-8);
    /* the first solution starts the average */
    compare(field(lines, 2, "alpha_ema"), field(lines, 2, "alpha_raw"), 1e-8, "alpha");
    json_decref(lines);
}

int main(void) {
    const struct CMUnitTest on_gpus[] = {
        cmocka_unit_test(cached_steps),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cached_steps),
        cmocka_unit_test(resume_between_solves),
        cmocka_unit_test(weights_from_a_part_of_the_rows),
        cmocka_unit_test(warm_up_and_groups),
    };
    return on_gpu() ? cmocka_run_group_tests(on_gpus, prepare_counted, drop_folder)
                    : cmocka_run_group_tests(tests, prepare_counted, drop_folder);
}
