/* src/rl/constraint.c: multipliers by hand, augmented gradients against vectors written out, and quadratic
 * objectives on which the constraint holds at rest while the others improve. */
#include "support.h"

#include "rl/balance.h"
#include "rl/constraint.h"

#include <math.h>
#include <string.h>

enum { MAX = 6, DIM = 3 };

static const mbl_constraint_options_t usual = {.penalty = 10, .rate = 0.5, .smooth = 0.5, .most = 10};

static void multipliers_by_hand(void **state) {
    const double min[3] = {0.8, NAN, -1};
    mbl_reward_stats_t stats[3];
    memset(stats, 0, sizeof stats);
    stats[0].mean = 0.6, stats[0].std = 0.4, stats[0].valid = 9;
    stats[1].std = 1, stats[1].valid = 9;
    mbl_constraint_state_t s;
    double pressure[3];
    (void)state;
    memset(&s, 0, sizeof s);
    mbl_constraint_update(&usual, min, stats, 3, &s, pressure); /* 0.5 deviations below */
    assert_near(s.multiplier[0], 0.25, 1e-3);
    assert_near(pressure[0], 5.25, 2e-3);
    assert_true(isnan(pressure[1]));
    assert_near(pressure[2], 0, 0); /* no score yet */
    assert_true(s.seen[0] && !s.seen[2]);
    stats[0].mean = 0.9, stats[0].std = 0.2; /* smoothed: 0.75 and 0.3 */
    mbl_constraint_update(&usual, min, stats, 3, &s, pressure);
    assert_near(s.level[0], 0.75, 1e-15);
    assert_near(s.spread[0], 0.3, 1e-15);
    assert_near(s.multiplier[0], 0.25 + 0.5 / 6, 1e-3);
    assert_near(pressure[0], 0.25 + 10.5 / 6, 2e-3);
    stats[0].valid = 0; /* nothing is known anew: the multiplier stands */
    mbl_constraint_update(&usual, min, stats, 3, &s, pressure);
    assert_near(pressure[0], s.multiplier[0], 0);
    assert_near(s.level[0], 0.75, 0);
    stats[0].valid = 9, stats[0].mean = 3; /* well above: no pressure, nor credit for later */
    mbl_constraint_update(&usual, min, stats, 3, &s, pressure);
    assert_near(pressure[0], 0, 0);
    assert_near(s.multiplier[0], 0, 0);
    stats[0].mean = -100; /* out of reach: the largest, which is soon taken back */
    for (int i = 0; i < 50; i++)
        mbl_constraint_update(&usual, min, stats, 3, &s, pressure);
    assert_near(s.multiplier[0], 10, 0);
    assert_near(pressure[0], 10, 0);
    stats[0].std = 0; /* no scale: still finite */
    mbl_constraint_update(&usual, min, stats, 3, &s, pressure);
    assert_near(pressure[0], 10, 0);
}

/* ---- from vectors ---- */

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (size_t i = 0; i < DIM; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The direction for gradients g [k, DIM] under pressures (NULL: none), through the balance. */
static mbl_balance_step_t direction(mbl_method_t method, double g[][DIM], size_t k, const double *pressure,
                                    double *d) {
    mbl_balance_options_t options = {.method = method, .rho = 0.7, .cagrad_c = 0.5, .pressure = pressure};
    mbl_balance_state_t balance;
    mbl_balance_step_t step;
    double gram[(MAX + 1) * (MAX + 1)] = {0};
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            gram[i * (k + 1) + j] = dot(g[i], g[j]);
    memset(&balance, 0, sizeof balance);
    assert_int_equal(mbl_balance_local(&options, gram, k, &balance, &step), MBL_OK);
    memset(d, 0, DIM * sizeof *d);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < DIM; j++)
            d[j] += step.coefficient[i] * g[i][j];
    return step;
}

/* Without pressure: the direction that the free rewards alone would have. Free and pressed: no augmented
 * gradient is gone against, and alpha is what every unit gradient has in D. */
static void augmented_gradients(void **state) {
    double g[3][DIM] = {{1, 0.2, 0}, {-2, 1, 0.5}, {0.3, -0.4, 3}}, two[2][DIM], with[DIM], without[DIM];
    double pressure[3] = {NAN, 0, NAN};
    (void)state;
    memcpy(two[0], g[0], sizeof two[0]);
    memcpy(two[1], g[2], sizeof two[1]);
    direction(MBL_METHOD_MARBLE, g, 3, pressure, with);
    direction(MBL_METHOD_MARBLE, two, 2, NULL, without);
    for (size_t j = 0; j < DIM; j++)
        assert_near(with[j], without[j], 1e-12);
    for (double p = 0.1; p < 10; p *= 2) {
        double sum = 0, alpha = 0;
        pressure[1] = p;
        mbl_balance_step_t step = direction(MBL_METHOD_MARBLE, g, 3, pressure, with);
        for (size_t k = 0; k < 3; k++) {
            alpha += step.alpha[k];
            sum += step.coefficient[k] * sqrt(dot(g[k], g[k]));
        }
        assert_near(alpha, 1, 1e-12);
        for (size_t k = 0; k < 3; k++)
            assert_near(step.alpha[k], step.coefficient[k] * sqrt(dot(g[k], g[k])) / sum, 1e-12);
        assert_near(step.alpha[1], p / (1 + p), 1e-12); /* its part against all free ones together */
        for (size_t k = 0; k < 3; k += 2) {
            double augmented[DIM];
            for (size_t j = 0; j < DIM; j++)
                augmented[j] = g[k][j] / sqrt(dot(g[k], g[k])) + p * g[1][j] / sqrt(dot(g[1], g[1]));
            if (!(dot(augmented, with) > 0))
                fail_msg("pressure %g: augmented reward %zu is gone against by %g", p, k,
                         dot(augmented, with));
        }
    }
}

static void no_free_reward(void **state) {
    double g[2][DIM] = {{2, 0, 0}, {0, 4, 0}}, d[DIM], pressure[2] = {1, 3};
    (void)state;
    direction(MBL_METHOD_MARBLE, g, 2, pressure, d);
    assert_near(d[0], 3 * 0.25, 1e-12); /* mean length 3 */
    assert_near(d[1], 3 * 0.75, 1e-12);
    pressure[0] = pressure[1] = 0;
    mbl_balance_step_t step = direction(MBL_METHOD_MARBLE, g, 2, pressure, d);
    assert_near(step.direction_norm, 0, 0);
    assert_near(step.alpha[0] + step.alpha[1], 0, 0);
}

/* ---- a toy: R_k = -|x - goal_k|^2 / 2 ---- */

static const double goals[3][DIM] = {{0, 0, 0}, {4, 0, 0}, {0, 4, 1}};
static const double start[DIM] = {6, 5, 3};

static double reward(const double *x, size_t k) {
    double sum = 0;
    for (size_t j = 0; j < DIM; j++)
        sum -= (x[j] - goals[k][j]) * (x[j] - goals[k][j]) / 2;
    return sum;
}

/* Descends with reward 0 kept at or above min (NAN: no constraint). */
static void descend(mbl_method_t method, double min, size_t steps, double *x) {
    const double limits[3] = {min, NAN, NAN};
    mbl_constraint_state_t s;
    memset(&s, 0, sizeof s);
    memcpy(x, start, sizeof start);
    for (size_t step = 0; step < steps; step++) {
        double g[3][DIM], d[DIM], pressure[3];
        mbl_reward_stats_t stats[3];
        memset(stats, 0, sizeof stats);
        for (size_t k = 0; k < 3; k++) {
            stats[k].mean = reward(x, k);
            stats[k].std = 2;
            stats[k].valid = 1;
            for (size_t j = 0; j < DIM; j++)
                g[k][j] = x[j] - goals[k][j];
        }
        mbl_constraint_update(&usual, limits, stats, 3, &s, pressure);
        direction(method, g, 3, pressure, d);
        for (size_t j = 0; j < DIM; j++)
            x[j] -= 0.01 * d[j];
    }
}

static void the_constraint_holds_at_rest(void **state) {
    static const mbl_method_t methods[] = {MBL_METHOD_MARBLE, MBL_METHOD_EQUAL,  MBL_METHOD_FIXED,
                                           MBL_METHOD_PCGRAD, MBL_METHOD_UPGRAD, MBL_METHOD_CAGRAD,
                                           MBL_METHOD_NASH};
    static const double min = -0.1;
    double x[DIM], y[DIM];
    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        descend(methods[i], NAN, 6000, y);
        if (!(reward(y, 0) < min - 0.4))
            fail_msg("method %d: %g without the constraint: it asks for nothing", (int)methods[i],
                     reward(y, 0));
        descend(methods[i], min, 6000, x);
        if (!(fabs(reward(x, 0) - min) < 1e-2))
            fail_msg("method %d: %g at rest, min %g", (int)methods[i], reward(x, 0), min);
        for (size_t k = 1; k < 3; k++)
            if (!(reward(x, k) > reward(start, k) + 1))
                fail_msg("method %d: reward %zu went from %g to %g", (int)methods[i], k, reward(start, k),
                         reward(x, k));
    }
}

/* A limit that is met anyway changes nothing at rest: the rewards without it have the say. */
static void a_limit_met_anyway_leaves_the_trade_off(void **state) {
    double x[DIM], g[3][DIM], d[DIM];
    const double free_one[3] = {0, NAN, NAN};
    (void)state;
    descend(MBL_METHOD_MARBLE, -50, 6000, x);
    for (size_t k = 0; k < 3; k++)
        for (size_t j = 0; j < DIM; j++)
            g[k][j] = x[j] - goals[k][j];
    direction(MBL_METHOD_MARBLE, g, 3, free_one, d);
    assert_near(sqrt(dot(d, d)), 0, 1e-3); /* at rest between the goals 1 and 2 */
    assert_true(reward(x, 0) > -50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multipliers_by_hand),
        cmocka_unit_test(augmented_gradients),
        cmocka_unit_test(no_free_reward),
        cmocka_unit_test(the_constraint_holds_at_rest),
        cmocka_unit_test(a_limit_met_anyway_leaves_the_trade_off),
    };
    return cmocka_run_group_tests_name("constraint", tests, NULL, NULL);
}
