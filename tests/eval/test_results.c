/* From a comparison's scores to tables, Markdown and JSON, with numbers that can be checked by hand. */
#include "support.h"

#include "base/mem.h"
#include "eval/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V(x)                                                                                                 \
    { (x), MBL_SCORE_VALID }
#define NA                                                                                                   \
    { 0, MBL_SCORE_NA }

enum { K = 2, ROWS = 6 };

/* Rows 0 to 3 are the first set's: prompts 0 and 1 from two seeds; rows 4 and 5 show prompt 2, the second's.
 */
static mbl_score_t base[] = {V(0), V(5), V(1), NA, V(0), V(5), V(1), NA, V(0.5), V(6), V(0.5), V(6)};
static mbl_score_t other[] = {V(1), V(5), V(1), NA, V(1), V(5), V(2), NA, V(0.5), V(7), V(0.25), V(7)};
static uint32_t prompt[] = {0, 1, 0, 1, 2, 2};
static const uint64_t seeds[] = {1, 2};
static mbl_reward_spec_t rewards[] = {{.name = "ocr"}, {.name = "a|b"}};
static mbl_config_t config;
static mbl_engine_t engine = {.config = &config, .k = K};
static mbl_candidate_t candidates[] = {
    {.name = "base", .scores = base}, {.name = "run@9", .path = "runs/run/x.h5", .step = 9, .scores = other}};
static mbl_comparison_set_t sets[] = {{.name = "test", .exist = 5, .prompts = 2, .first = 0, .images = 4},
                                      {.name = "draw", .exist = 1, .prompts = 1, .first = 4, .images = 2}};
static mbl_comparison_t comparison = {.engine = &engine,
                                      .options = {.seeds = seeds, .n_seeds = 2, .adapter = "ema"},
                                      .candidates = candidates,
                                      .sets = sets,
                                      .n_candidates = 2,
                                      .n_sets = 2,
                                      .images = ROWS,
                                      .prompts = 3,
                                      .prompt = prompt};

static int prepare(void **state) {
    (void)state;
    config.rewards.items = rewards;
    config.rewards.count = K;
    config.model.path = "models/base";
    config.eval.prompts = 2;
    config.eval.seed = 5;
    return 0;
}

static char *text_of(bool markdown) {
    mbl_results_t s;
    char *text = NULL;
    size_t size;
    assert_int_equal(mbl_results_new(&comparison, 1000, &s), MBL_OK);
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(mbl_results_print(&s, markdown, out), MBL_OK);
    fclose(out);
    mbl_results_free(&s);
    return text;
}

static void must_have(const char *text, const char *words) {
    if (!strstr(text, words))
        fail_msg("\"%s\" is not in:\n%s", words, text);
}

static void tables(void **state) {
    (void)state;
    char *text = text_of(false);
    must_have(text, "base: models/base\nrun@9: runs/run/x.h5, step 9, adapter ema\n\n");
    must_have(text, "test: 4 images of each, 2 prompts (the first of 5; --set eval.prompts=5 takes all), 2 "
                    "seeds\nreward   of ");
    must_have(text, "draw: 2 images of each, 1 prompt, 2 seeds\n");
    must_have(text, "all sets: 6 images of each, 3 prompts, 2 seeds\n");
    /* prompts worth 0 and 1; the other's 1 and 1.5 */
    must_have(text, "ocr      base    0.5000    0.0000 .. 1.0000*       4    0       0\n");
    must_have(text, "         run@9   1.2500    1.0000 .. 1.5000*       4    0       0\n");
    must_have(text, "a|b      base    5.0000                    -       2    2       0\n");
    must_have(text, "run@9 against base\n");
    /* +1, 0, +1, +1: three won, one tied; prompts +1 and +1/2, win rates 1 and 3/4 */
    must_have(
        text,
        "ocr         +0.7500  +0.5000 .. +1.0000*    87.5 %  75.0 % .. 100.0 %*    3     1     0   better\n");
    must_have(
        text,
        "a|b         +0.0000                    -    50.0 %                   -    0     2     0         \n");
    free(text);
    text = text_of(true);
    must_have(text, "- base: models/base\n");
    must_have(text, "## test: 4 images");
    must_have(text, "\n### run@9 against base\n\n| reward | difference | 95 % interval |");
    must_have(text,
              "| ocr | +0.7500 | +0.5000 .. +1.0000* | 87.5 % | 75.0 % .. 100.0 %* | 3 | 1 | 0 | better |\n");
    must_have(text, "| a\\|b | base | 5.0000 | - | 2 | 2 | 0 |\n");
    free(text);
}

/* One candidate: no pairs and no z-score, which would be 0 by construction. */
static void the_base_alone(void **state) {
    (void)state;
    comparison.n_candidates = 1;
    char *text = text_of(false);
    comparison.n_candidates = 2;
    must_have(text, "ocr ");
    assert_null(strstr(text, "z-score"));
    assert_null(strstr(text, "against"));
    free(text);
}

static double number(const json_t *value, const char *a, const char *b, const char *c) {
    value = json_object_get(value, a);
    value = b ? json_object_get(value, b) : value;
    value = c ? json_object_get(value, c) : value;
    if (!value)
        fail_msg("%s.%s.%s is missing", a, b ? b : "", c ? c : "");
    return json_is_null(value) ? NAN : json_number_value(value);
}

static void as_json(void **state) {
    mbl_results_t s;
    json_t *root;
    (void)state;
    assert_int_equal(mbl_results_new(&comparison, 1000, &s), MBL_OK);
    assert_int_equal(mbl_results_json(&s, &root), MBL_OK);
    assert_int_equal(json_array_size(json_object_get(root, "candidates")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "seeds")), 2);
    assert_near(number(root, "base", "ocr", "mean"), 0.5, 1e-12);
    assert_near(number(root, "trained", "ocr", "mean"), 5.75 / 6, 1e-12);
    assert_near(number(root, "difference", "ocr", "mean"), 2.75 / 6, 1e-12);
    assert_near(number(root, "difference", "a|b", "n"), 4, 0);
    const json_t *set = json_array_get(json_object_get(root, "sets"), 0);
    assert_string_equal(json_string_value(json_object_get(set, "name")), "test");
    const json_t *pair = json_array_get(json_object_get(set, "pairs"), 0);
    assert_string_equal(json_string_value(json_object_get(pair, "of")), "run@9");
    assert_string_equal(json_string_value(json_object_get(pair, "against")), "base");
    assert_near(number(pair, "rewards", "ocr", "win_rate"), 0.875, 1e-12);
    assert_near(number(pair, "rewards", "ocr", "win_rate_low"), 0.75, 1e-12);
    assert_true(isnan(number(pair, "rewards", "a|b", "low")));
    /* z-scores: one scale for both candidates and all sets; a reward's spread is 1 in it */
    double mean = number(root, "z_scale", "ocr", "mean"),
           deviation = number(root, "z_scale", "ocr", "deviation");
    assert_near(mean, 8.75 / 12, 1e-12);
    const json_t *all = json_object_get(root, "all");
    const json_t *row = json_array_get(json_object_get(all, "scores"), 0);
    double second =
        (5.5 - number(root, "z_scale", "a|b", "mean")) / number(root, "z_scale", "a|b", "deviation");
    assert_near(number(row, "z_score", "mean", NULL), ((0.5 - mean) / deviation + second) / 2, 1e-12);
    json_decref(root);
    mbl_results_free(&s);
}

static void without_memory(void **state) {
    size_t live = mbl_mem_live();
    (void)state;
    for (size_t at = 1;; at++) {
        mbl_results_t s;
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_results_new(&comparison, 100, &s);
        mbl_mem_fail_at(0);
        if (status == MBL_OK) {
            mbl_results_free(&s);
            assert_true(at > 20);
            break;
        }
        assert_int_equal(status, MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables),
        cmocka_unit_test(the_base_alone),
        cmocka_unit_test(as_json),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
