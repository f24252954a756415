/* src/config/stages: stages of rewards in run.yaml. */
#include "config_case.h"
#include <math.h>

/* As tests/study/arms.py writes them, and with everything that a stage may say. */
static void stages_are_read(void **state) {
    static const char three[] =
        "model: {path: .}\nrewards: [{name: ocr}, {name: count}, {name: clean}, {name: jpeg}]\n"
        "train: {steps: 20}\nprompts: {groups: 4}\n";
    static const char stages[] =
        "stages=[{rewards: [ocr, clean, jpeg], steps: 6}, {rewards: [count, clean], steps: 14, "
        "method: weighted_sum, weights: [1, 2.5]}]";
    char *before, *after;
    mbl_config_t *config, *again;
    (void)state;
    assert_int_equal(parse(three, stages, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 1), MBL_OK);
    assert_int_equal(config->stages.count, 2);
    const mbl_config_stage_t *first = &config->stages.items[0], *last = &config->stages.items[1];
    assert_int_equal(first->steps, 6);
    assert_int_equal(first->rewards.count, 3);
    assert_string_equal(first->rewards.items[1], "clean");
    assert_true(!first->has_method && !first->weights);
    assert_true(last->has_method && last->method == MBL_METHOD_WEIGHTED_SUM);
    assert_int_equal(last->n_weights, 2);
    assert_near(last->weights[1], 2.5, 0);
    assert_int_equal(mbl_config_json(config, &before), MBL_OK);
    assert_int_equal(parse(before, NULL, &again), MBL_OK);
    assert_int_equal(mbl_config_json(again, &after), MBL_OK);
    assert_string_equal(before, after);
    assert_non_null(strstr(before, "\"weights\": ["));
    mbl_free(before);
    mbl_free(after);
    mbl_config_free(again);
    mbl_config_free(config);
    REFUSED(three, "stages=3", "stages: 3 is not a list; expected a list of stages such as");
    REFUSED(three, "stages=[]", "stages: a list of 0; expected 1 to 1000, such as");
    REFUSED(three, "stages=[ocr]", "stages.0: \"ocr\" is not a mapping; expected {steps: 20");
    REFUSED(three, "stages=[{steps: 20}]", "stages.0: has no rewards; expected {steps: 20");
    REFUSED(three, "stages=[{rewards: [ocr]}]", "stages.0: has no steps; expected");
    REFUSED(three, "stages=[{steps: 0, rewards: [ocr]}]", "stages.0.steps: 0");
    REFUSED(three, "stages=[{steps: 20, rewards: []}]", "stages.0.rewards: a list of 0");
    REFUSED(three, "stages=[{steps: 20, reward: [ocr]}]",
            "stages.0.reward: unknown key; did you mean rewards?");
    REFUSED(three, "stages=[{steps: 20, rewards: [ocr], method: marbel}]", "stages.0.method: \"marbel\"",
            "marble");
    REFUSED(three, "stages=[{steps: 20, steps: 3, rewards: [ocr]}]", "stages.0.steps: given twice");
    REFUSED(three, "stages=[{steps: 20, rewards: [ocr], weights: [1, 2]}]",
            "stages.0.weights: 2 for 1 rewards; expected one for each");
    REFUSED(three, "stages=[{steps: 20, rewards: [ocr], weights: [0]}]", "stages.0.weights: 0");
    REFUSED(three, "stages=[{steps: 20, rewards: [ocr], weights: 2}]",
            "stages.0.weights: 2; expected one number for every reward of the stage");
}

/* Five steps of two rewards that share a group. */
static const char five[] = "model: {path: .}\nrewards: [{name: ocr}, {name: count, group: a}]\n"
                           "train: {steps: 5}\nprompts: {groups: 4}\n";

static void stages_are_checked(void **state) {
    static const struct {
        const char *stages, *set, *part; /* "": nothing is wrong */
    } cases[] = {
        {"stages=[{steps: 4, rewards: [ocr]}]", "seed=1",
         "stages: 4 steps in all, while train.steps is 5; expected the same number"},
        {"stages=[{steps: 5, rewards: [orc]}]", "seed=1",
         "stages.0.rewards: \"orc\" is not the name of a reward; did you mean ocr?; expected names of"},
        {"stages=[{steps: 5, rewards: [ocr, ocr]}]", "seed=1", "stages.0.rewards: \"ocr\" twice; keep one"},
        {"stages=[{steps: 5, rewards: [ocr]}]", "balance={method: marble_reference}",
         "stages: not with balance.method: marble_reference; expected no stages"},
        {"stages=[{steps: 2, rewards: [ocr]}, {steps: 3, rewards: [ocr], method: marble_reference}]",
         "seed=1", "stages: not with stages.1.method: marble_reference; expected no stages"},
        {"stages=[{steps: 2, rewards: [ocr]}, {steps: 3, rewards: [ocr], method: gdpo}]", "seed=1",
         "rewards.1.group: a with stages.1.method: gdpo, which adds all rewards up"},
        {"stages=[{steps: 2, rewards: [ocr]}, {steps: 3, rewards: [ocr], method: equal}]", "balance.warmup=3",
         "balance.warmup: 3 with stages.1.method: equal, which has no first solve"},
        {"stages=[{steps: 2, rewards: [ocr]}, {steps: 3, rewards: [ocr], method: equal}]", "balance.warmup=2",
         ""}, /* over before that stage begins */
        {"stages=[{steps: 2, rewards: [ocr], method: nash}, {steps: 3, rewards: [ocr]}]", "balance.floor=0.1",
         "balance.floor: 0.1 with stages.0.method: nash, which has no least alpha"},
        {"stages=[{steps: 5, rewards: [ocr], method: fixed}]", "balance.alpha_halves=1",
         "balance.alpha_halves: 1 with stages.0.method: fixed, which does not solve"},
        {"stages=[{steps: 5, rewards: [ocr], method: nash}]", "balance.common=offset",
         "balance.common: offset with stages.0.method: nash; expected balance.common: auto, or "
         "balance.method: marble"},
        {"stages=[{steps: 2, rewards: [ocr], method: nash}, {steps: 3, rewards: [ocr]}]",
         "balance.common=auto", ""},
        {"stages=[{steps: 5, rewards: [ocr], method: marble}]", "balance={method: gdpo, floor: 0.1}",
         ""}, /* balance.method is not used */
        {"stages=[{steps: 5, rewards: [ocr]}]", "rewards.0.min=0.5",
         "rewards.0.min: 0.5 with stages; expected no stages with it"},
        {"stages=[{steps: 2, rewards: [ocr]}, {steps: 3, rewards: [count]}]", "balance.floor=0.6",
         ""}, /* each balances one reward */
        {"stages=[{steps: 2, rewards: [ocr]}, {steps: 3, rewards: [ocr, count]}]", "balance.floor=0.6",
         "balance.floor: 0.6 with 2 rewards of stages.1; expected at most 1 / 2"},
        {"stages=[{steps: 2, rewards: [ocr], method: equal}, {steps: 3, rewards: [ocr]}]", "balance.rho=0.5",
         ""}, /* the second stage averages */
        {"stages=[{steps: 2, rewards: [ocr], method: equal}, {steps: 3, rewards: [ocr], method: fixed}]",
         "balance.rho=0.5", "balance.rho: has no meaning"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_config_t *config;
        const char *sets[] = {cases[i].stages, cases[i].set};
        assert_int_equal(mbl_config_parse(five, sizeof five - 1, "run.yaml", sets, 2, &config), MBL_OK);
        mbl_status_t status = mbl_config_check(config, 1);
        if (status != (cases[i].part[0] ? MBL_ERR_CONFIG : MBL_OK))
            fail_msg("case %zu: %s", i, mbl_fail_message());
        if (status != MBL_OK)
            check_parts(mbl_fail_message(), &cases[i].part, 1);
        mbl_config_free(config);
    }
}

/* auto goes by the method of each stage. */
static void the_common_part_by_stage(void **state) {
    const char *sets[] = {"stages=[{steps: 1, rewards: [ocr], method: nash}, {steps: 2, rewards: [ocr]}, "
                          "{steps: 1, rewards: [ocr], method: gdpo}, {steps: 1, rewards: [ocr], method: "
                          "nash}]"};
    mbl_config_t *config;
    char text[64];
    (void)state;
    assert_int_equal(mbl_config_parse(five, sizeof five - 1, "run.yaml", sets, 1, &config), MBL_OK);
    assert_true(mbl_config_common_text(config, text, sizeof text));
    assert_string_equal(text, "together with nash, offset with marble");
    mbl_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_are_read),
        cmocka_unit_test(stages_are_checked),
        cmocka_unit_test(the_common_part_by_stage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
