/* Signal-to-noise ratios and shrinking: by hand, and that both find what is true of random gradients. */
#include "support.h"

#include "base/rng.h"
#include "rl/noise.h"

#include <math.h>
#include <string.h>

enum { DIM = 400, K = 3, ROWS = 60 };

static double normal(uint64_t seed, uint32_t stream, size_t i) {
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_STUDY, stream, i);
    float pair[2];
    mbl_rng_normal2(&rng, pair);
    return (double)pair[0];
}

/* Row r of reward k: a mean of length mean[k] along one axis of its own, and noise of variance 1 in all. */
static void add_row(uint64_t seed, const double *mean, size_t row, double part[K][DIM]) {
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < DIM; i++)
            part[k][i] +=
                (normal(seed, (uint32_t)(row * K + k), i) / sqrt(DIM) + (i == k ? mean[k] : 0)) / ROWS;
}

static void gram_of(double part[K][DIM], const mbl_sets_t *sets, double *gram) {
    size_t m = mbl_sets_count(sets);
    memset(gram, 0, m * m * sizeof *gram);
    for (size_t i = 0; i < K; i++)
        for (size_t j = 0; j < K; j++)
            for (size_t d = 0; d < DIM; d++)
                gram[i * m + j] += part[i][d] * part[j][d];
}

/* Known answers: rows of unit noise and mean s have the ratio ROWS s^2, also where the halves are unequal. */
static void ratio_is_that_of_the_rows(void **state) {
    static const double mean[K] = {0, 0.5, 2};
    mbl_sets_t sets = mbl_sets(K, NULL, false);
    (void)state;
    for (size_t half = 15; half <= 30; half += 15) {
        double sum[K] = {0}, squares[K] = {0};
        enum { SEEDS = 20 };
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            double part[2][K][DIM] = {{{0}}}, whole[K][DIM], gram[3][16], share = (double)half / ROWS,
                   ratio[K];
            for (size_t row = 0; row < ROWS; row++)
                add_row(seed, mean, row, part[row >= half]);
            for (size_t i = 0; i < K * DIM; i++)
                whole[i / DIM][i % DIM] = part[0][i / DIM][i % DIM] + part[1][i / DIM][i % DIM];
            gram_of(whole, &sets, gram[0]);
            gram_of(part[0], &sets, gram[1]);
            gram_of(part[1], &sets, gram[2]);
            mbl_noise_ratio(&sets, gram[0], gram[1], gram[2], &share, K, ratio);
            for (size_t k = 0; k < K; k++) {
                sum[k] += ratio[k] / SEEDS;
                squares[k] += ratio[k] * ratio[k] / SEEDS;
            }
        }
        for (size_t k = 0; k < K; k++) {
            double want = ROWS * mean[k] * mean[k], error = sqrt((squares[k] - sum[k] * sum[k]) / SEEDS);
            assert_near(sum[k], want, 4 * error + 0.02 * want);
            assert_true(error < 0.05 + 0.05 * want);
        }
    }
}

static void ratio_without_a_half(void **state) {
    double gram[16] = {0}, ratio[K], none = 0, all = 1, some = 0.5;
    mbl_sets_t sets = mbl_sets(K, NULL, false);
    (void)state;
    gram[0] = 1;
    gram[5] = NAN;
    mbl_noise_ratio(&sets, gram, gram, gram, &none, K, ratio);
    assert_true(isnan(ratio[0]));
    mbl_noise_ratio(&sets, gram, gram, gram, &all, K, ratio);
    assert_true(isnan(ratio[0]));
    mbl_noise_ratio(&sets, gram, gram, gram, &some, K, ratio);
    assert_true(!isnan(ratio[0]) && isnan(ratio[1]) && isnan(ratio[2])); /* not finite, 0 */
    sets.of[0] = MBL_NO_MASK;
    mbl_noise_ratio(&sets, gram, gram, gram, &some, K, ratio);
    assert_true(isnan(ratio[0]));
}

static void shrinks_by_what_halves_disagree(void **state) {
    static const double target[K] = {0.25, 0.25, 0.5}, same[K] = {0.5, 0, 0.5},
                        far[2][K] = {{1, 0, 0}, {0, 0, 1}};
    static const double near[2][K] = {{0.6, 0, 0.4}, {0.4, 0, 0.6}};
    bool used[K] = {true, true, true};
    double alpha[K] = {0.5, 0, 0.5};
    (void)state;
    assert_near(mbl_noise_shrink(same, same, 0.5, target, used, K, alpha), 1, 0);
    assert_near(alpha[0], 0.5, 0);
    /* v = 0.25 * 0.08 = 0.02, |d|^2 = 0.125 */
    assert_near(mbl_noise_shrink(near[0], near[1], 0.5, target, used, K, alpha), 0.84, 1e-15);
    assert_near(alpha[0], 0.25 + 0.84 * 0.25, 1e-15);
    assert_near(alpha[1], 0.25 - 0.84 * 0.25, 1e-15);
    assert_near(alpha[2], 0.5, 1e-15);
    assert_near(mbl_noise_shrink(far[0], far[1], 0.5, target, used, K, alpha), 0, 0);
    for (size_t k = 0; k < K; k++)
        assert_near(alpha[k], target[k], 0);
    assert_near(mbl_noise_shrink(same, same, 0.5, target, used, K, alpha), 1,
                0);  /* at the target, no noise */
    used[1] = false; /* what takes no part stays as it is, and counts for nothing */
    double lone[K] = {0.5, 7, 0.5}, pair[K] = {0.75, 7, 0.25};
    assert_near(mbl_noise_shrink(lone, lone, 0.5, lone, used, K, pair), 1, 0);
    assert_near(pair[1], 7, 0);
}

/* Shrunk estimates of many draws are nearer to the truth than the draws, where noise rules. */
static void shrinking_helps_where_noise_rules(void **state) {
    static const double truth[K] = {0.4, 0.3, 0.3}, target[K] = {1.0 / 3, 1.0 / 3, 1.0 / 3};
    static const bool used[K] = {true, true, true};
    double raw = 0, shrunk = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        double half[2][K], alpha[K];
        for (uint32_t h = 0; h < 2;
             h++) { /* on the plane of sum 1; the simplex plays no part in the formula */
            double noise[K], mean = 0;
            for (size_t k = 0; k < K; k++)
                mean += (noise[k] = 0.3 * normal(seed, h, k)) / K;
            for (size_t k = 0; k < K; k++)
                half[h][k] = truth[k] + noise[k] - mean;
        }
        for (size_t k = 0; k < K; k++) {
            alpha[k] = (half[0][k] + half[1][k]) / 2;
            raw += pow(alpha[k] - truth[k], 2);
        }
        mbl_noise_shrink(half[0], half[1], 0.5, target, used, K, alpha);
        for (size_t k = 0; k < K; k++)
            shrunk += pow(alpha[k] - truth[k], 2);
    }
    if (!(shrunk < 0.7 * raw))
        fail_msg("squared error %.4g after shrinking, %.4g before", shrunk, raw);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ratio_is_that_of_the_rows),
        cmocka_unit_test(ratio_without_a_half),
        cmocka_unit_test(shrinks_by_what_halves_disagree),
        cmocka_unit_test(shrinking_helps_where_noise_rules),
    };
    return cmocka_run_group_tests_name("noise", tests, NULL, NULL);
}
