/* src/run/evaluate: the mean over images and its interval over prompts. */
#include "support.h"
#include "run/evaluate.h"

#include <math.h>

/* One image of each prompt: the usual interval. */
static void one_image_of_each(void **state) {
    const double scores[] = {0.25, 1, -3, 0.5, 2};
    mbl_eval_sums_t by_prompt[6] = {{0, 0}}; /* the last prompt has no valid score */
    mbl_eval_score_t out = {.n = 0};
    double mean = 0, variance = 0;
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        by_prompt[i] = (mbl_eval_sums_t){scores[i], 1};
        mean += scores[i] / 5;
    }
    for (size_t i = 0; i < 5; i++)
        variance += (scores[i] - mean) * (scores[i] - mean) / 4;
    mbl_eval_mean(by_prompt, 6, 1, &out);
    assert_int_equal(out.n, 5);
    assert_int_equal(out.prompts, 5);
    assert_near(out.mean, mean, 1e-15);
    assert_near(out.ci95, 1.959964 * sqrt(variance / 5), 1e-14);
}

/* Several images of each count as one where they are alike; two columns. */
static void images_of_a_prompt_are_one(void **state) {
    const mbl_eval_sums_t once[] = {{1, 1}, {9, 9}, {4, 1}, {9, 9}, {7, 1}, {9, 9}};
    const mbl_eval_sums_t thrice[] = {{3, 3}, {9, 9}, {12, 3}, {9, 9}, {21, 3}, {9, 9}};
    const mbl_eval_sums_t uneven[] = {{4, 2}, {5, 1}, {12, 3}};
    mbl_eval_score_t a = {.n = 0}, b = {.n = 0};
    (void)state;
    mbl_eval_mean(once, 3, 2, &a);
    mbl_eval_mean(thrice, 3, 2, &b);
    assert_near(a.mean, 4, 1e-15);
    assert_near(b.mean, 4, 1e-15);
    assert_near(a.ci95, 1.959964 * sqrt(3), 1e-12);
    assert_near(b.ci95, a.ci95, 1e-12);
    assert_int_equal(b.n, 9);
    assert_int_equal(b.prompts, 3);
    mbl_eval_mean(uneven, 3, 1, &b); /* mean 3.5; 4 - 7, 5 - 3.5, 12 - 10.5 */
    assert_near(b.mean, 3.5, 1e-15);
    assert_near(b.ci95, 1.959964 * sqrt(1.5 * (9 + 2.25 + 2.25)) / 6, 1e-12);
}

static void too_few(void **state) {
    const mbl_eval_sums_t alone[] = {{0, 0}, {6, 4}};
    mbl_eval_score_t out = {.n = 0};
    (void)state;
    mbl_eval_mean(alone, 2, 1, &out);
    assert_near(out.mean, 1.5, 1e-15);
    assert_true(isnan(out.ci95));
    mbl_eval_mean(alone, 1, 1, &out);
    assert_true(isnan(out.mean) && isnan(out.ci95));
    assert_int_equal(out.n, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_image_of_each),
        cmocka_unit_test(images_of_a_prompt_are_one),
        cmocka_unit_test(too_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
