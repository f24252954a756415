/* src/rl/min_valid: a group with too few scores counts as failed for that reward, and for no other. */
#include "support.h"

#include "rl/min_valid.h"

enum { GROUP = 4, GROUPS = 4, K = 2, N = GROUP * GROUPS };

static void test_groups_are_dropped(void **state) {
    (void)state;
    /* v valid, n not applicable, f failed; of reward 0, reward 1 is always valid */
    static const char *const groups[GROUPS] = {"vvff", "vfff", "nnvf", "nnnn"};
    static const struct {
        double least;
        const char *expected[GROUPS];
    } cases[] = {{0, {"vvff", "vfff", "nnvf", "nnnn"}},
                 {0.5, {"vvff", "ffff", "nnvf", "nnnn"}},
                 {0.51, {"ffff", "ffff", "nnff", "nnnn"}},
                 {1, {"ffff", "ffff", "nnff", "nnnn"}}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        mbl_score_t scores[N * K];
        mbl_batch_t batch = {.n = N, .n_global = N, .group_size = GROUP, .k = K, .all = scores};
        const double least[K] = {cases[c].least, 1};
        for (size_t i = 0; i < N; i++) {
            char what = groups[i / GROUP][i % GROUP];
            scores[i * K] = (mbl_score_t){what == 'v' ? 0.25 : 0, what == 'v'   ? MBL_SCORE_VALID
                                                                  : what == 'n' ? MBL_SCORE_NA
                                                                                : MBL_SCORE_FAILED};
            scores[i * K + 1] = (mbl_score_t){0.5, MBL_SCORE_VALID};
        }
        mbl_min_valid(least, &batch);
        for (size_t i = 0; i < N; i++) {
            char want = cases[c].expected[i / GROUP][i % GROUP];
            mbl_score_t score = scores[i * K];
            char got = score.state == MBL_SCORE_VALID ? 'v' : score.state == MBL_SCORE_NA ? 'n' : 'f';
            if (got != want)
                fail_msg("least %g, group %zu, image %zu: %c, expected %c", cases[c].least, i / GROUP,
                         i % GROUP, got, want);
            assert_near(score.value, want == 'v' ? 0.25 : 0, 0);
            assert_int_equal(scores[i * K + 1].state, MBL_SCORE_VALID);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_groups_are_dropped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
