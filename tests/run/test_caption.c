/* src/run/caption: prompts with their scores, N/A and failures by the rewards' names. */
#include "support.h"
#include "base/mem.h"
#include "run/caption.h"

#include <string.h>

static void names_and_scores(void **state) {
    (void)state;
    const char *const names[] = {"ocr", "count", "jpeg"};
    const mbl_score_t scores[] = {{0.5, MBL_SCORE_VALID}, {0, MBL_SCORE_NA}, {0, MBL_SCORE_FAILED}};
    char *text = mbl_caption("a \"sign\"", names, scores, 3);
    assert_string_equal(text, "a \"sign\"\nocr\xC2\xA0"
                              "0.50  count\xC2\xA0N/A  jpeg\xC2\xA0"
                              "failed");
    mbl_free(text);
    text = mbl_caption("alone", names, scores, 0);
    assert_string_equal(text, "alone");
    mbl_free(text);
}

static void many_rewards(void **state) {
    (void)state;
    const char *names[64];
    mbl_score_t scores[64];
    for (size_t i = 0; i < 64; i++) {
        names[i] = "a_name_of_thirty_two_characters_";
        scores[i] = (mbl_score_t){-123456.5, MBL_SCORE_VALID};
    }
    char *text = mbl_caption("all", names, scores, 64);
    const char *end = strstr(text, "  +56\xC2\xA0more");
    assert_non_null(end);
    assert_string_equal(end, "  +56\xC2\xA0more");
    size_t found = 0;
    for (const char *at = text; (at = strstr(at, "-123456.50")); at++)
        found++;
    assert_int_equal(found, MBL_CAPTION_REWARDS);
    mbl_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_and_scores), cmocka_unit_test(many_rewards)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
