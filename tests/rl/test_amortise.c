/* Weights of the steps between two solves: the direction of a solve with its alpha replaced by the average.
 */
#include "support.h"

#include "rl/amortise.h"

#include <math.h>
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
        mbl_amortise_t cache = {.age = 0};
        memset(&balance, 0, sizeof balance);
        assert_int_equal(mbl_balance_local(&options, gram, K, &balance, &solved), MBL_OK);
        mbl_amortise_keep(&cache, &solved, all, &balance, K);
        assert_int_equal(mbl_amortise_step(&options, &balance, &cache, all, K, &cached), MBL_OK);
        assert_int_equal(cached.n_used, K);
        for (size_t j = 0; j <= K; j++)
            assert_near(cached.coefficient[j], solved.coefficient[j], 1e-14);
        mbl_sets_t sets = mbl_sets(K, NULL, false);
        mbl_balance_measure(gram, &sets, NULL, K, &cached);
        assert_near(cached.direction_norm, solved.direction_norm, 1e-13);
        for (size_t j = 0; j < K; j++)
            assert_near(cached.cos[j], solved.cos[j], 1e-13);
    }
}

/* The same where the common part is added once, beside the rewards' own parts: with gradients that share one
 * of length 3, along the first. */
static void a_common_part_is_added_once(void **state) {
    static const double shared[M * M] = {1, 0.2, -0.4, 2, 0.2, 4, 1, -1, -0.4, 1, 16, 0.5, 2, -1, 0.5, 9};
    static const mbl_common_t commons[] = {MBL_COMMON_OFFSET, MBL_COMMON_APART};
    static const bool without[K] = {true, false, true};
    (void)state;
    for (int i = 0; i < 2; i++) {
        mbl_balance_options_t options = {.method = MBL_METHOD_MARBLE, .common = commons[i], .rho = 0.7};
        mbl_balance_state_t balance;
        mbl_balance_step_t solved, cached;
        mbl_amortise_t cache = {.age = 0};
        memset(&balance, 0, sizeof balance);
        assert_int_equal(mbl_balance_local(&options, shared, K, &balance, &solved), MBL_OK);
        mbl_amortise_keep(&cache, &solved, all, &balance, K);
        for (size_t j = 0; j < K; j++)
            assert_near(cache.norm[j], pow(2, (double)j), 1e-14); /* of the own parts */
        assert_int_equal(mbl_amortise_step(&options, &balance, &cache, all, K, &cached), MBL_OK);
        for (size_t j = 0; j <= K; j++)
            assert_near(cached.coefficient[j], solved.coefficient[j], 1e-14);
        assert_near(cached.coefficient[K], 1, 0);
        assert_int_equal(mbl_amortise_step(&options, &balance, &cache, without, K, &cached), MBL_OK);
        assert_near(cached.coefficient[1], 0, 0);
        assert_near(cached.coefficient[K], 1, 0);
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
    assert_int_equal(mbl_amortise_step(&options, &balance, &cache, without, K, &step), MBL_OK);
    assert_int_equal(step.n_used, 2);
    assert_near(step.alpha[0], 0.5 / 0.7, 1e-15);
    assert_near(step.coefficient[0], 2.5 * 0.5 / 0.7 / 1, 1e-14);
    assert_near(step.coefficient[1], 0, 0);
    assert_near(step.coefficient[2], 2.5 * 0.2 / 0.7 / 4, 1e-14);
    assert_near(step.coefficient[3], step.coefficient[0] + step.coefficient[2], 1e-15);
    cache.norm[0] = 0; /* not in the last solve: none until the next */
    assert_int_equal(mbl_amortise_step(&options, &balance, &cache, all, K, &step), MBL_OK);
    assert_true(!step.used[0] && step.used[1] && step.used[2]);
    assert_near(step.coefficient[0], 0, 0);
    assert_near(step.coefficient[1], 3 * 0.6 / 2, 1e-14);
}

static void when_a_solve_is_due(void **state) {
    mbl_amortise_t cache = {.norm = {1, MBL_AMORTISE_UNUSABLE, 4}};
    const bool none[K] = {false, true, false};
    const mbl_balance_state_t balance = {.seen = {true, true, true}};
    (void)state;
    assert_true(mbl_amortise_due(&cache, 3, all, K));
    for (cache.age = 1; cache.age < 5; cache.age++) {
        assert_int_equal(mbl_amortise_due(&cache, 3, all, K), cache.age >= 3);
        assert_true(mbl_amortise_due(&cache, 3, none, K));
        assert_true(mbl_amortise_due(&cache, 1, all, K));
    }
    mbl_balance_step_t empty;
    memset(&empty, 0, sizeof empty);
    mbl_amortise_keep(&cache, &empty, all, &balance, K);
    assert_true(mbl_amortise_due(&cache, 3, all, K));
}

/* A reward that the last solve had no score of goes on with what the one before it found; one that no solve
 * has had brings the next one forward; one whose scores were of no use to a solve waits for another. */
static void rewards_that_apply_again(void **state) {
    mbl_balance_state_t balance = {.alpha_mean = {0.5, 0.3}, .seen = {true, true, false}};
    mbl_amortise_t cache = {.norm = {0}};
    mbl_balance_step_t solved = {.used = {true, true}, .length = {1, 2}}, step;
    const bool two[K] = {true, true, false}, first[K] = {true, false, false};
    mbl_balance_options_t options = {.method = MBL_METHOD_MARBLE, .rho = 0.7};
    (void)state;
    mbl_amortise_keep(&cache, &solved, two, &balance, K);
    cache.age = 1;
    assert_true(!mbl_amortise_due(&cache, 9, two, K) && mbl_amortise_due(&cache, 9, all, K));
    solved.used[1] = false; /* the next solve has the first alone */
    solved.length[0] = 3;
    mbl_amortise_keep(&cache, &solved, first, &balance, K);
    cache.age = 1;
    assert_false(mbl_amortise_due(&cache, 9, two, K));
    assert_int_equal(mbl_amortise_step(&options, &balance, &cache, two, K, &step), MBL_OK);
    assert_int_equal(step.n_used, 2);
    assert_near(step.coefficient[0], 2.5 * 0.5 / 0.8 / 3, 1e-15); /* m = (3 + 2) / 2 */
    assert_near(step.coefficient[1], 2.5 * 0.3 / 0.8 / 2, 1e-15);
    balance.seen[1] = false; /* a length without an average, as after a warm-up, is of no use */
    mbl_amortise_keep(&cache, &solved, first, &balance, K);
    cache.age = 1;
    assert_true(mbl_amortise_due(&cache, 9, two, K));
    mbl_amortise_keep(&cache, &solved, two, &balance, K); /* its gradient was not usable */
    cache.age = 1;
    assert_false(mbl_amortise_due(&cache, 9, two, K));
    assert_int_equal(mbl_amortise_step(&options, &balance, &cache, two, K, &step), MBL_OK);
    assert_int_equal(step.n_used, 1);
    assert_near(step.norm[1], 0, 0);
    mbl_amortise_keep(&cache, &solved, first, &balance, K);
    cache.age = 1;
    assert_true(mbl_amortise_due(&cache, 9, two, K));
}

/* Rewards 1 and 2 as one objective: their mean is balanced, cached and fresh, and a solve of the two
 * gradients g_0 and (g_1 + g_2) / 2 gives the same direction. */
static void groups_keep_their_direction(void **state) {
    static const size_t group[K] = {0, 1, 1};
    static const double weights[K] = {2, 1, 3}, pair_weights[2] = {2, 2};
    static const double pair[9] = {1, -0.1, 0, -0.1, 5.5, 0, 0, 0, 0}; /* (0.2 - 0.4) / 2, (4 + 16 + 2) / 4 */
    static const mbl_method_t methods[] = {MBL_METHOD_MARBLE, MBL_METHOD_EQUAL, MBL_METHOD_FIXED,
                                           MBL_METHOD_PCGRAD};
    (void)state;
    for (int i = 0; i < 4; i++) {
        mbl_balance_options_t options = {
            .method = methods[i], .rho = 0.7, .weights = weights, .group = group};
        mbl_balance_options_t plain = {.method = methods[i], .rho = 0.7, .weights = pair_weights};
        mbl_balance_state_t balance, other;
        mbl_balance_step_t solved, cached, two;
        mbl_amortise_t cache = {.age = 0};
        memset(&balance, 0, sizeof balance);
        memset(&other, 0, sizeof other);
        assert_int_equal(mbl_balance_local(&options, gram, K, &balance, &solved), MBL_OK);
        assert_int_equal(mbl_balance_local(&plain, pair, 2, &other, &two), MBL_OK);
        assert_near(solved.coefficient[0], two.coefficient[0], 1e-14);
        assert_near(solved.coefficient[1], two.coefficient[1] / 2, 1e-14);
        assert_near(solved.coefficient[2], two.coefficient[1] / 2, 1e-14);
        assert_near(solved.alpha[1] + solved.alpha[2], two.alpha[1], 1e-14);
        assert_near(solved.length[2], sqrt(5.5), 1e-14);
        mbl_amortise_keep(&cache, &solved, all, &balance, K);
        assert_int_equal(mbl_amortise_step(&options, &balance, &cache, all, K, &cached), MBL_OK);
        for (size_t j = 0; j <= K; j++)
            assert_near(cached.coefficient[j], solved.coefficient[j], 1e-14);
    }
}

/* A reward that is not active takes no part in a solve or after it; its average stays. */
static void only_active_rewards_take_part(void **state) {
    static const bool active[K] = {true, false, true};
    mbl_balance_options_t options = {.method = MBL_METHOD_MARBLE, .rho = 0.7, .active = active};
    mbl_balance_state_t balance = {.alpha_mean = {0.2, 0.5, 0.3}, .seen = {true, true, true}};
    mbl_balance_step_t step;
    mbl_amortise_t cache = {.norm = {1, 2, 4}, .age = 1};
    (void)state;
    assert_int_equal(mbl_balance_local(&options, gram, K, &balance, &step), MBL_OK);
    assert_true(step.n_used == 2 && !step.used[1] && step.measured[1]);
    assert_near(step.alpha[1], 0, 0);
    assert_near(step.alpha[0], 0.5, 1e-12); /* two unit gradients: the bisector */
    assert_near(step.alpha[2], 0.5, 1e-12);
    assert_near(balance.alpha_mean[1], 0.5, 0);
    assert_near(balance.alpha_mean[0], 0.7 * 0.2 + 0.3 * 0.5, 1e-12);
    /* D is along g_0 + g_2 / 4, of length^2 1 + 1 - 0.2; <g_1, .> = 0.2 + 1 / 4 */
    assert_near(step.cos[1], 0.45 / (2 * sqrt(1.8)), 1e-12);
    /* which is the least of the three, and none of the balance's */
    assert_near(step.cos_min, 0.9 / sqrt(1.8), 1e-12);
    assert_near(step.cos_part_min, 0.9 / sqrt(1.8), 1e-12);
    assert_near(step.cos_mean, 0.9 / sqrt(1.8), 1e-12);
    assert_near(step.cos_var, 0, 1e-12);
    mbl_sets_t sets = mbl_sets(K, NULL, false);
    mbl_balance_measure(gram, &sets, active, K, &step);
    assert_near(step.cos_min, 0.9 / sqrt(1.8), 1e-12);
    mbl_balance_measure(gram, &sets, NULL, K, &step);
    assert_near(step.cos_min, step.cos[1], 0);
    assert_int_equal(mbl_amortise_step(&options, &balance, &cache, all, K, &step), MBL_OK);
    assert_true(step.n_used == 2 && !step.used[1]);
    assert_near(step.coefficient[1], 0, 0);
}

/* Opposite gradients in a group have no mean: the group is left out and the others go on. */
static void a_group_that_cancels_is_left_out(void **state) {
    static const double opposite[M * M] = {1, 0.3, -0.3, 0, 0.3, 4, -4, 0, -0.3, -4, 4, 0};
    static const size_t group[K] = {0, 1, 1};
    mbl_balance_options_t options = {.method = MBL_METHOD_MARBLE, .rho = 0.7, .group = group};
    mbl_balance_state_t balance;
    mbl_balance_step_t step;
    (void)state;
    memset(&balance, 0, sizeof balance);
    assert_int_equal(mbl_balance_local(&options, opposite, K, &balance, &step), MBL_OK);
    assert_int_equal(step.n_used, 1);
    assert_near(step.alpha[0], 1, 1e-14);
    assert_near(step.coefficient[0], 1, 1e-14);
    assert_true(!balance.seen[1] && !balance.seen[2]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_direction_cached_and_fresh),
        cmocka_unit_test(a_common_part_is_added_once),
        cmocka_unit_test(rewards_without_a_score_get_none),
        cmocka_unit_test(when_a_solve_is_due),
        cmocka_unit_test(rewards_that_apply_again),
        cmocka_unit_test(groups_keep_their_direction),
        cmocka_unit_test(only_active_rewards_take_part),
        cmocka_unit_test(a_group_that_cancels_is_left_out),
    };
    return cmocka_run_group_tests_name("amortise", tests, NULL, NULL);
}
