/* src/run/stage.c: which rewards, weights and method every step has, by hand. */
#include "support.h"

#include "run/stage.h"

#include <string.h>

static const char yaml[] = "model: {path: .}\n"
                           "train: {steps: 9}\n"
                           "prompts: {groups: 4}\n"
                           "rewards: [{name: ocr, weight: 2}, {name: count}, {name: clean, weight: 5}]\n";

static mbl_config_t *config_with(const char *stages) {
    mbl_config_t *config;
    size_t n = stages ? 1 : 0;
    assert_int_equal(mbl_config_parse(yaml, sizeof yaml - 1, "run.yaml", &stages, n, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 1), MBL_OK);
    return config;
}

static void steps_find_their_stage(void **state) {
    static const struct {
        size_t index, first, end, parts;
        mbl_method_t method;
        bool active[3];
        double weights[3];
    } want[] = {{0, 0, 2, 3, MBL_METHOD_MARBLE, {true, false, true}, {2, 1, 5}},
                {1, 2, 3, 4, MBL_METHOD_WEIGHTED_SUM, {true, true, false}, {0.25, 4, 5}},
                {2, 3, 9, 3, MBL_METHOD_NASH, {false, true, false}, {2, 1, 5}}};
    static const size_t of_step[] = {0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2}; /* past the end: the last */
    mbl_config_t *config = config_with(
        "stages=[{steps: 2, rewards: [clean, ocr]}, {rewards: [count, ocr], steps: 1, method: weighted_sum, "
        "weights: [4, 0.25]}, {rewards: [count], steps: 6, method: nash}]");
    size_t most;
    (void)state;
    for (size_t step = 0; step < sizeof of_step / sizeof *of_step; step++) {
        mbl_stage_t stage;
        size_t at = of_step[step];
        assert_int_equal(mbl_stage_at(config, step, &stage), MBL_OK);
        assert_int_equal(stage.index, at);
        assert_int_equal(stage.count, 3);
        assert_int_equal(stage.first, want[at].first);
        assert_int_equal(stage.end, want[at].end);
        assert_int_equal(stage.parts, want[at].parts);
        assert_int_equal(stage.method, want[at].method);
        assert_memory_equal(stage.active, want[at].active, sizeof want[at].active);
        for (size_t k = 0; k < 3; k++)
            assert_near(stage.weights[k], want[at].weights[k], 0);
    }
    assert_int_equal(mbl_stage_most_parts(config, &most), MBL_OK);
    assert_int_equal(most, 4); /* in the middle: neither the first nor the last stage's */
    mbl_config_free(config);
}

static void a_run_without_stages_is_one(void **state) {
    mbl_config_t *config = config_with(NULL);
    mbl_stage_t stage;
    size_t most;
    (void)state;
    for (size_t step = 0; step < 12; step += 4) {
        assert_int_equal(mbl_stage_at(config, step, &stage), MBL_OK);
        assert_true(stage.index == 0 && stage.count == 1 && stage.first == 0 && stage.end == 9);
        assert_true(stage.active[0] && stage.active[1] && stage.active[2]);
        assert_true(stage.weights[0] == 2 && stage.weights[1] == 1 && stage.weights[2] == 5);
    }
    assert_int_equal(mbl_stage_most_parts(config, &most), MBL_OK);
    assert_int_equal(most, 3);
    mbl_config_free(config);
    config = config_with("balance.method=marble_reference");
    assert_int_equal(mbl_stage_most_parts(config, &most), MBL_OK);
    assert_int_equal(most, 4);
    mbl_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_find_their_stage),
        cmocka_unit_test(a_run_without_stages_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
