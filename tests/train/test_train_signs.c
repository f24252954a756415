/* marble train on the model of the examples, deploy/examples/signs-base, in which the scores of all five
 * rewards vary: ranks agree, the direction goes against no reward, and the step is compared with each. */
#include "train_case.h"

static const char *const rewards[] = {"ocr", "count", "color", "clean", "jpeg"};

static int prepare_signs(void **state) {
    char config[2048];
    (void)state;
    const char *tiny = strstr(train_config, "base/model");
    assert_non_null(tiny);
    snprintf(config, sizeof config, "%.*s%s/deploy/examples/signs-base%s", (int)(tiny - train_config),
             train_config, MBL_SOURCE_DIR, tiny + strlen("base/model"));
    make_folder(config);
    return 0;
}

/* A seed with which both ocr and count vary within groups at the first step. */
#define VARIED "--set seed=9 --set rollout.solver=dpm2 "

static void every_rank_count_gives_the_same_run(void **state) {
    (void)state;
    train_well(1, "one", VARIED "--set train.steps=2");
    train_well(2, "two", VARIED "--set train.steps=2");
    train_well(4, "four", VARIED "--set train.steps=2");
    same_lines("one", "two", "metrics.jsonl", 1e-4, 2);
    same_lines("one", "four", "metrics.jsonl", 1e-4, 2);
    same_lines("one", "four", "eval.jsonl", 1e-4, 2);
    same_lines("one", "four", "advantages.jsonl", 2e-3, 1);
}

static void marble_is_never_against_a_reward(void **state) {
    (void)state;
    json_t *lines = lines_of("one", "metrics.jsonl");
    assert_int_equal(json_integer_value(field(lines, 0, "rewards_used")), 5);
    for (size_t i = 0; i < 2; i++) {
        if (!(number_at(lines, i, "cos_min") > 0))
            fail_msg("step %zu: cos_min %g", i + 1, number_at(lines, i, "cos_min"));
    }
    json_decref(lines);
}

/* At the first step AdamW moves every weight by +-lr where its gradient is not tiny, so the step has a clear
 * cosine with every reward's gradient, also of those whose weight is 0: none under weighted_sum, some under
 * marble. */
static void the_step_is_compared_with_rewards_of_no_weight(void **state) {
    static const char *const methods[] = {"weighted_sum", "marble"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char more[256];
        snprintf(more, sizeof more, VARIED "--set balance.method=%s --set train.steps=1 --set train.kl=0",
                 methods[i]);
        train_well(1, methods[i], more);
        json_t *lines = lines_of(methods[i], "metrics.jsonl");
        for (int k = 0; k < 5; k++) {
            double cosine = by(lines, 0, "cos", rewards[k]), of_step = by(lines, 0, "cos_step", rewards[k]);
            if (!(fabs(of_step) > 0.1 * fabs(cosine) && cosine != 0))
                fail_msg("%s: %s: cos %g, cos_step %g", methods[i], rewards[k], cosine, of_step);
        }
        json_decref(lines);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_count_gives_the_same_run),
        cmocka_unit_test(marble_is_never_against_a_reward),
        cmocka_unit_test(the_step_is_compared_with_rewards_of_no_weight),
    };
    return cmocka_run_group_tests(tests, prepare_signs, drop_folder);
}
