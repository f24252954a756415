/* Weights of the steps between two solves: the direction of a solve with its alpha replaced by the average.
 */
#include "support.h"

#include "rl/amortise.h"

#include <string.h>

enum { K = 3, M = K + 1 };

/* Rewards of lengths 1, 2 and 4 with some overlap, without a common part. */
static const double gram[M * M] = {1, 0.2, -0.4, 0, 0.2, 4, 1, 0, -0.4, 1, 16, 0};
static const bool all[K] = {true, true, true};

/* After a single solve the average is its alpha, so cached coefficients are those of the solve. */
static void same_direction_cached_and_fresh(void **state) {
    static const double weights[K] = {1, 2, 3};
    static const mbl_method_t methods[] = {MBL_METHOD_MARBLE, MBL_METHOD_MARBLE, MBL_METHOD_EQUAL,
                                           MBL_METHOD_FIXED};
    (void)state;
    for (int i = 0; i < 4; i++) {
        mbl_balance_options_t options = {.method = methods[i], .rho = 0.7, .weights = i % 2 ? weights : NULL};
        mbl_balance_state_t balance;
        mbl_balance_step_t solved, cached;
        mbl_amortise_t cache;
        memset(&balance, 0, sizeof balance);
        assert_int_equal(mbl_balance_local(&options, gram, K, &balance, &solved), MBL_OK);
        mbl_amortise_keep(&cache, &solved, K);
        mbl_amortise_step(&options, &balance, &cache, all, K, &cached);
        assert_int_equal(cached.n_used, K);
        for (size_t j = 0; j <= K; j++)
            assert_near(cached.coefficient[j], solved.coefficient[j], 1e-14);
        mbl_balance_measure(gram, K, &cached);
        assert_near(cached.direction_norm, solved.direction_norm, 1e-13);
        for (size_t j = 0; j < K; j++)
            assert_near(cached.cos[j], solved.cos[j], 1e-13);
    }
}

/* Written out: m alphabar_k / n_k over the rewards that are in the cache and valid now. */
static void rewards_without_a_score_get_none(void **state) {
    mbl_balance_options_t options = {.method = MBL_METHOD_MARBLE, .rho = 0.7};
    mbl_balance_state_t balance = {.alpha_mean = {0.5, 0.3, 0.2}};
    mbl_amortise_t cache = {.norm = {1, 2, 4}, .age = 1};
    mbl_balance_step_t step;
    const bool without[K] = {true, false, true};
    (void)state;
    mbl_amortise_step(&options, &balance, &cache, without, K, &step);
    assert_int_equal(step.n_used, 2);
    assert_near(step.alpha[0], 0.5 / 0.7, 1e-15);
    assert_near(step.coefficient[0], 2.5 * 0.5 / 0.7 / 1, 1e-14);
    assert_near(step.coefficient[1], 0, 0);
    assert_near(step.coefficient[2], 2.5 * 0.2 / 0.7 / 4, 1e-14);
    assert_near(step.coefficient[3], step.coefficient[0] + step.coefficient[2], 1e-15);
    cache.norm[0] = 0; /* not in the last solve: none until the next */
    mbl_amortise_step(&options, &balance, &cache, all, K, &step);
    assert_true(!step.used[0] && step.used[1] && step.used[2]);
    assert_near(step.coefficient[0], 0, 0);
    assert_near(step.coefficient[1], 3 * 0.6 / 2, 1e-14);
}

static void when_a_solve_is_due(void **state) {
    mbl_amortise_t cache = {.norm = {1, 0, 4}};
    const bool none[K] = {false, true, false};
    (void)state;
    assert_true(mbl_amortise_due(&cache, 3, all, K));
    for (cache.age = 1; cache.age < 5; cache.age++) {
        assert_int_equal(mbl_amortise_due(&cache, 3, all, K), cache.age >= 3);
        assert_true(mbl_amortise_due(&cache, 3, none, K));
        assert_true(mbl_amortise_due(&cache, 1, all, K));
    }
    mbl_balance_step_t empty;
    memset(&empty, 0, sizeof empty);
    mbl_amortise_keep(&cache, &empty, K);
    assert_true(mbl_amortise_due(&cache, 3, all, K));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_direction_cached_and_fresh),
        cmocka_unit_test(rewards_without_a_score_get_none),
        cmocka_unit_test(when_a_solve_is_due),
    };
    return cmocka_run_group_tests_name("amortise", tests, NULL, NULL);
}
