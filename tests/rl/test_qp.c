/* rl/qp: answers known by hand, degenerate Gram matrices, thousands of random ones against the certificate,
 * random points and projected gradients; golden cases from another method; balance and cosines. */
#include "support.h"
#include "base/clock.h"
#include "base/rng.h"
#include "rl/qp.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = MBL_QP_MAX };

static mbl_qp_result_t solve(const double *c, const double *linear, size_t k, double floor) {
    mbl_qp_result_t result;
    memset(&result, 0x55, sizeof result);
    mbl_status_t status = mbl_qp_solve(c, linear, k, floor, &result);
    if (status != MBL_OK)
        fail_msg("k %zu: %s: %s", k, mbl_status_name(status), mbl_fail_message());
    return result;
}

static double objective(const double *c, const double *linear, size_t k, const double *a) {
    double value = 0;
    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j < k; j++)
            value += 0.5 * a[i] * c[i * k + j] * a[j];
        value += linear ? linear[i] * a[i] : 0;
    }
    return value;
}

/* The optimality conditions, written here a second time: returns the largest violation relative to |C|, |b|.
 */
static double violation(const double *c, const double *linear, size_t k, double floor, const double *a) {
    double sum = 0, worst = 0, scale = 0, lowest = INFINITY, g[N];
    for (size_t i = 0; i < k; i++) {
        g[i] = linear ? linear[i] : 0;
        scale = fmax(scale, fabs(g[i]));
        for (size_t j = 0; j < k; j++) {
            g[i] += c[i * k + j] * a[j];
            scale = fmax(scale, fabs(c[i * k + j]));
        }
        lowest = fmin(lowest, g[i]);
        sum += a[i];
        worst = fmax(worst, floor - a[i]);
    }
    scale = scale > 0 ? scale : 1;
    /* no weight above the floor on a gradient that is not the lowest */
    for (size_t i = 0; i < k; i++)
        worst = fmax(worst, fmin(a[i] - floor, (g[i] - lowest) / scale));
    return fmax(worst, fabs(sum - 1));
}

/* Gram matrix [k, k] of k random rows of the given width; kind 1 repeats and mirrors rows, 2 squeezes the
 * columns over seven decades (condition 1e14), 3 has entries -1, 0, 1, 4 makes them all alike. */
static void random_gram(mbl_rng_t *rng, size_t k, size_t width, int kind, double *c) {
    static float rows[N][2 * N];
    for (size_t i = 0; i < k; i++) {
        mbl_rng_normal(rng, rows[i], width);
        for (size_t j = 0; j < width; j++) {
            if (kind == 1 && i > 0 && i % 3)
                rows[i][j] = i % 3 == 1 ? rows[i - 1][j] : -rows[i - 1][j];
            if (kind == 2)
                rows[i][j] *= powf(10, -7 * (float)j / (float)width);
            if (kind == 3)
                rows[i][j] = (float)mbl_rng_below(rng, 3) - 1;
            if (kind == 4)
                rows[i][j] = fabsf(rows[i][j]) + 2;
        }
    }
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++) {
            c[i * k + j] = 0;
            for (size_t d = 0; d < width; d++)
                c[i * k + j] += (double)rows[i][d] * rows[j][d];
        }
}

static void by_hand(void **state) {
    (void)state;
    mbl_qp_result_t r = solve((double[]){5}, NULL, 1, 0);
    assert_near(r.alpha[0], 1, 0);
    assert_near(r.objective, 2.5, 1e-15);
    assert_true(r.active[0]);
    /* orthogonal gradients: weights as 1 / |g|^2 */
    r = solve((double[]){1, 0, 0, 0, 4, 0, 0, 0, 0.25}, NULL, 3, 0);
    double total = 1 + 0.25 + 4;
    assert_near(r.alpha[0], 1 / total, 1e-15);
    assert_near(r.alpha[1], 0.25 / total, 1e-15);
    assert_near(r.alpha[2], 4 / total, 1e-15);
    assert_near(r.objective, 0.5 / total, 1e-15);
    /* a short gradient that dominates: the others are not needed */
    r = solve((double[]){1, 2, 3, 2, 9, 6, 3, 6, 16}, NULL, 3, 0);
    assert_near(r.alpha[0], 1, 0);
    assert_true(r.active[0] && !r.active[1] && !r.active[2]);
    /* unit vectors at 0, 60 and 120 degrees: the middle one adds nothing, as the outer two span the nearest
     * edge */
    r = solve((double[]){1, 0.5, -0.5, 0.5, 1, 0.5, -0.5, 0.5, 1}, NULL, 3, 0);
    assert_near(r.alpha[0], 0.5, 1e-14);
    assert_near(r.alpha[1], 0, 0);
    assert_near(r.alpha[2], 0.5, 1e-14);
}

/* min over t of |t g1 + (1 - t) g2|: t = clamp((g22 - g12) / (g11 + g22 - 2 g12), 0, 1), the MGDA formula. */
static void two_gradients(void **state) {
    (void)state;
    mbl_rng_t rng = mbl_rng(1, MBL_RNG_STUDY, 0, 0);
    int inside = 0;
    for (int round = 0; round < 2000; round++) {
        double c[4];
        random_gram(&rng, 2, 2 + round % 3, 0, c);
        double t = (c[3] - c[1]) / (c[0] + c[3] - 2 * c[1]);
        inside += t > 0 && t < 1;
        t = fmin(fmax(t, 0), 1);
        mbl_qp_result_t r = solve(c, NULL, 2, 0);
        assert_near(r.alpha[0], t, 1e-12);
        assert_near(r.alpha[0] + r.alpha[1], 1, 1e-15);
    }
    assert_true(inside > 500 && inside < 1900);
}

static void degenerate(void **state) {
    (void)state;
    static double c[N * N];
    for (size_t k = 1; k <= N; k++) {
        /* equal gradients, and none at all: equal weights, whatever the order */
        for (int zero = 0; zero < 2; zero++) {
            for (size_t i = 0; i < k * k; i++)
                c[i] = zero ? 0 : 3;
            mbl_qp_result_t r = solve(c, NULL, k, 0);
            for (size_t i = 0; i < k; i++)
                assert_near(r.alpha[i], 1.0 / (double)k, 1e-12);
        }
        /* rank one, g_i = s_i v with s = 2, -1, 2, -1 ...: D = 0 is reachable */
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++)
                c[i * k + j] = (i % 2 ? -1 : 2) * (j % 2 ? -1 : 2);
        mbl_qp_result_t r = solve(c, NULL, k, 0);
        assert_near(r.objective, k == 1 ? 2 : 0, 1e-14);
        double even = 0;
        for (size_t i = 0; i < k; i += 2) {
            even += r.alpha[i];
            assert_near(r.alpha[i], r.alpha[0], 1e-12);
        }
        assert_near(even, k == 1 ? 1 : 1.0 / 3, 1e-12);
    }
    /* opposite gradients */
    mbl_qp_result_t r = solve((double[]){1, -1, -1, 1}, NULL, 2, 0);
    assert_near(r.alpha[0], 0.5, 1e-15);
    assert_near(r.objective, 0, 1e-16);
    /* g2 = g1 and g3 orthogonal: the pair shares half */
    r = solve((double[]){1, 1, 0, 1, 1, 0, 0, 0, 1}, NULL, 3, 0);
    assert_near(r.alpha[0], 0.25, 1e-13);
    assert_near(r.alpha[1], 0.25, 1e-13);
    assert_near(r.alpha[2], 0.5, 1e-13);
    /* two opposite pairs, mutually orthogonal: a whole plane of optima, the centre is the shortest */
    r = solve((double[]){1, -1, 0, 0, -1, 1, 0, 0, 0, 0, 1, -1, 0, 0, -1, 1}, NULL, 4, 0);
    for (int i = 0; i < 4; i++)
        assert_near(r.alpha[i], 0.25, 1e-13);
}

static void floors_and_linear_terms(void **state) {
    (void)state;
    double c[4] = {1, 0, 0, 9};
    /* free optimum (.9, .1); the floor lifts the second */
    mbl_qp_result_t r = solve(c, NULL, 2, 0.2);
    assert_near(r.alpha[0], 0.8, 1e-15);
    assert_near(r.alpha[1], 0.2, 1e-15);
    assert_true(r.active[0] && !r.active[1]);
    assert_near(r.objective, 0.5 * (0.64 + 9 * 0.04), 1e-15);
    r = solve(c, NULL, 2, 0.05);
    assert_near(r.alpha[1], 0.1, 1e-14);
    /* the floor leaves one point */
    r = solve(c, NULL, 2, 0.5);
    assert_near(r.alpha[0], 0.5, 0);
    assert_true(!r.active[0] && !r.active[1]);
    /* 1/2 (a^2 + (1-a)^2) + b a: a = 1/2 - b/2 */
    r = solve((double[]){1, 0, 0, 1}, (double[]){0.4, 0}, 2, 0);
    assert_near(r.alpha[0], 0.3, 1e-15);
    r = solve((double[]){1, 0, 0, 1}, (double[]){1.5, 0}, 2, 0);
    assert_near(r.alpha[0], 0, 0);
    assert_near(r.objective, 0.5, 1e-15);
    /* no curvature: a linear program, with a tie */
    r = solve((double[9]){0}, (double[]){2, 1, 1}, 3, 0);
    assert_near(r.alpha[0], 0, 0);
    assert_near(r.alpha[1], 0.5, 1e-13);
    /* flat along (1, -1), where only the linear term decides */
    r = solve((double[]){1, 1, 1, 1}, (double[]){0, 1e-6}, 2, 0);
    assert_near(r.alpha[0], 1, 1e-15);
}

static void refuses(void **state) {
    (void)state;
    static double c[65 * 65];
    mbl_qp_result_t r;
    memset(&r, 0x55, sizeof r);
    mbl_qp_result_t before = r;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_qp_solve(c, NULL, 0, 0, &r), MBL_ERR_ARG);
    assert_int_equal(mbl_qp_solve(c, NULL, 65, 0, &r), MBL_ERR_ARG);
    assert_int_equal(mbl_qp_solve(c, NULL, 4, 0.26, &r), MBL_ERR_ARG);
    assert_int_equal(mbl_qp_solve(c, NULL, 4, -0.1, &r), MBL_ERR_ARG);
    assert_int_equal(mbl_qp_solve(c, NULL, 4, NAN, &r), MBL_ERR_ARG);
    assert_int_equal(mbl_qp_solve((double[]){1, 0, 0, NAN}, NULL, 2, 0, &r), MBL_ERR_NUMERIC);
    assert_int_equal(mbl_qp_solve((double[]){1, INFINITY, 0, 1}, NULL, 2, 0, &r), MBL_ERR_NUMERIC);
    assert_int_equal(mbl_qp_solve((double[]){1, 0, 0, 1}, (double[]){0, NAN}, 2, 0, &r), MBL_ERR_NUMERIC);
    mbl_fail_quiet(0);
    assert_memory_equal(&r, &before, sizeof r);
}

/* A feasible point: floor + (1 - k floor) times a random point of the simplex, sometimes of few corners. */
static void random_point(mbl_rng_t *rng, size_t k, double floor, double *a) {
    double sum = 0;
    uint32_t keep = 1 + mbl_rng_below(rng, 4);
    for (size_t i = 0; i < k; i++) {
        a[i] = -log(1e-9 + (double)mbl_rng_uniform(rng));
        if (keep < 4 && mbl_rng_below(rng, 4) >= keep)
            a[i] = 1e-12;
        sum += a[i];
    }
    for (size_t i = 0; i < k; i++)
        a[i] = floor + (1 - (double)k * floor) * a[i] / sum;
}

static void random_problems(void **state) {
    (void)state;
    static double c[N * N];
    double worst = 0, other[N], linear[N], slowest[N + 1] = {0};
    const uint32_t rounds = SANITIZED ? 1000 : 6000, of_every_size = SANITIZED ? 2 * N : 640;
    for (uint32_t round = 0; round < rounds; round++) {
        mbl_rng_t rng = mbl_rng(7, MBL_RNG_STUDY, round, 0);
        size_t k = round < of_every_size ? 1 + round % N : 1 + mbl_rng_below(&rng, 20);
        size_t widths[] = {k + 3, 2 * k, 1 + k / 2, 1, 2};
        random_gram(&rng, k, widths[mbl_rng_below(&rng, 5)], (int)mbl_rng_below(&rng, 5), c);
        double floor = mbl_rng_below(&rng, 3) ? 0 : (double)mbl_rng_uniform(&rng) / (double)k;
        bool with_linear = mbl_rng_below(&rng, 3) == 0;
        for (size_t i = 0; i < k; i++)
            linear[i] = ((double)mbl_rng_uniform(&rng) - 0.5) * c[0];
        const double *b = with_linear ? linear : NULL;
        double start = mbl_now();
        mbl_qp_result_t r = solve(c, b, k, floor);
        slowest[k] = fmax(slowest[k], mbl_now() - start);
        double found = violation(c, b, k, floor, r.alpha), scale = 1e-300;
        if (!(found <= 1e-10 && r.kkt_residual <= 1e-10))
            fail_msg("round %u, k %zu: violation %.3g, certificate %.3g", round, k, found, r.kkt_residual);
        worst = fmax(worst, found);
        for (size_t i = 0; i < k; i++)
            scale = fmax(scale, fmax(c[i * k + i], fabs(linear[i])));
        assert_near(r.objective, objective(c, b, k, r.alpha), 1e-13 * scale);
        for (int i = 0; i < 20; i++) {
            random_point(&rng, k, floor, other);
            if (objective(c, b, k, other) < r.objective - 1e-12 * scale)
                fail_msg("round %u, k %zu: a random point has %.15g, the answer %.15g", round, k,
                         objective(c, b, k, other), r.objective);
        }
    }
    print_message("largest violation %.2g; slowest solve at k = 5, 16, 20: %.3f, %.3f, %.3f ms\n", worst,
                  slowest[5] * 1e3, slowest[16] * 1e3, slowest[20] * 1e3);
}

/* Projection onto the simplex by bisection of the shift. */
static void project(double *a, size_t k) {
    double low = -1e3, high = 1e3;
    for (int i = 0; i < 100; i++) {
        double shift = 0.5 * (low + high), sum = 0;
        for (size_t j = 0; j < k; j++)
            sum += fmax(a[j] - shift, 0);
        if (sum > 1)
            low = shift;
        else
            high = shift;
    }
    for (size_t j = 0; j < k; j++)
        a[j] = fmax(a[j] - low, 0);
}

static void projected_gradient_agrees(void **state) {
    (void)state;
    for (uint32_t round = 0; round < (SANITIZED ? 7 : 30); round++) {
        mbl_rng_t rng = mbl_rng(8, MBL_RNG_STUDY, round, 0);
        size_t k = 2 + round % 7;
        double c[N * N], a[N], trace = 0;
        random_gram(&rng, k, k + 20, 0, c);
        for (size_t i = 0; i < k; i++)
            a[i] = 1.0 / (double)k, trace += c[i * k + i];
        for (int step = 0; step < 1500; step++) {
            double next[N];
            for (size_t i = 0; i < k; i++) {
                next[i] = a[i];
                for (size_t j = 0; j < k; j++)
                    next[i] -= c[i * k + j] * a[j] / trace;
            }
            project(next, k);
            memcpy(a, next, sizeof a);
        }
        mbl_qp_result_t r = solve(c, NULL, k, 0);
        for (size_t i = 0; i < k; i++)
            assert_near(r.alpha[i], a[i], 1e-8);
        assert_near(r.objective, objective(c, NULL, k, a), 1e-12 * trace);
    }
}

static void order_does_not_matter(void **state) {
    (void)state;
    for (uint32_t round = 0; round < (SANITIZED ? 300 : 1500); round++) {
        mbl_rng_t rng = mbl_rng(9, MBL_RNG_STUDY, round, 0);
        size_t k = 2 + round % 15;
        double c[N * N], p[N * N];
        uint32_t order[N];
        int kinds[] = {0, 1, 3, 4};
        random_gram(&rng, k, round % 2 ? k + 3 : 1 + k / 2, kinds[round % 4], c);
        mbl_rng_permutation(&rng, order, (uint32_t)k);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++)
                p[i * k + j] = c[order[i] * k + order[j]];
        mbl_qp_result_t r = solve(c, NULL, k, 0), s = solve(p, NULL, k, 0);
        for (size_t i = 0; i < k; i++)
            if (!(fabs(s.alpha[i] - r.alpha[order[i]]) <= 1e-7))
                fail_msg("round %u, k %zu: %.12g in one order, %.12g in another", round, k, r.alpha[order[i]],
                         s.alpha[i]);
    }
}

/* tests/golden/make_qp.py tries every support, so its answers share no step with ours. */
static void golden(void **state) {
    (void)state;
    json_error_t error;
    json_t *cases = json_load_file(MBL_SOURCE_DIR "/tests/golden/qp.json", 0, &error);
    if (!cases)
        fail_msg("qp.json:%d: %s", error.line, error.text);
    assert_true(json_array_size(cases) >= 60);
    size_t n;
    json_t *one;
    json_array_foreach(cases, n, one) {
        json_t *gram = json_object_get(one, "gram"), *linear = json_object_get(one, "linear");
        json_t *alpha = json_object_get(one, "alpha");
        double c[N * N], b[N] = {0}, floor = json_number_value(json_object_get(one, "floor"));
        size_t k = json_array_size(gram);
        for (size_t i = 0; i < k * k; i++)
            c[i] = json_number_value(json_array_get(json_array_get(gram, i / k), i % k));
        for (size_t i = 0; linear && i < k; i++)
            b[i] = json_number_value(json_array_get(linear, i));
        mbl_qp_result_t r = solve(c, linear ? b : NULL, k, floor);
        double want = json_number_value(json_object_get(one, "objective"));
        const char *name = json_string_value(json_object_get(one, "name"));
        if (!(fabs(r.objective - want) <= 1e-13))
            fail_msg("%s: objective %.15g, want %.15g", name, r.objective, want);
        for (size_t i = 0; json_is_true(json_object_get(one, "unique")) && i < k; i++)
            if (!(fabs(r.alpha[i] - json_number_value(json_array_get(alpha, i))) <= 1e-9))
                fail_msg("%s: alpha %zu is %.12g, want %.12g", name, i, r.alpha[i],
                         json_number_value(json_array_get(alpha, i)));
    }
    json_decref(cases);
}

static mbl_balance_result_t balance(const double *gram, size_t k, double floor, const double *weights) {
    mbl_balance_result_t result;
    mbl_status_t status = mbl_qp_balance(gram, k, floor, weights, &result);
    if (status != MBL_OK)
        fail_msg("balance: %s: %s", mbl_status_name(status), mbl_fail_message());
    return result;
}

/* The length of a gradient decides nothing but its coefficient; D stays level over the rewards. */
static void balance_ignores_lengths(void **state) {
    (void)state;
    mbl_rng_t rng = mbl_rng(10, MBL_RNG_STUDY, 0, 0);
    double gram[36], scaled[36], cos[6], s[6] = {1, 1e-6, 300, 0.5, 1e5, 7};
    for (int round = 0; round < 200; round++) {
        random_gram(&rng, 6, 9, 0, gram);
        for (int i = 0; i < 36; i++)
            scaled[i] = gram[i] * s[i / 6] * s[i % 6];
        mbl_balance_result_t a = balance(gram, 6, 0, NULL), b = balance(scaled, 6, 0, NULL);
        double mean = 0, lowest = 1;
        mbl_qp_cosines(scaled, 6, b.coefficient, cos);
        for (int i = 0; i < 6; i++) {
            assert_near(b.qp.alpha[i], a.qp.alpha[i], 1e-10);
            assert_near(b.norm[i], a.norm[i] * s[i], 1e-12 * b.norm[i]);
            mean += b.norm[i] / 6;
            lowest = fmin(lowest, cos[i]);
        }
        assert_near(b.mean_norm, mean, 1e-12 * mean);
        for (int i = 0; i < 6; i++) {
            assert_near(b.coefficient[i], mean * b.qp.alpha[i] / b.norm[i], 1e-12 * fabs(b.coefficient[i]));
            if (b.qp.active[i])
                assert_near(cos[i], lowest, 1e-7); /* every active reward gains alike, the others more */
        }
        assert_true(lowest > -1e-9);
    }
}

static void balance_drops_bad_gradients(void **state) {
    (void)state;
    /* gradients 1 and 3 are fine and orthogonal, 0 is NaN, 2 is zero, 4 overflowed */
    double gram[25], cos[5];
    for (int i = 0; i < 25; i++)
        gram[i] = i / 5 == 0 || i % 5 == 0 ? NAN : i / 5 == 4 || i % 5 == 4 ? INFINITY : 0;
    gram[6] = 4, gram[18] = 16;
    mbl_balance_result_t r = balance(gram, 5, 0, NULL);
    bool used[5] = {false, true, false, true, false};
    double alpha[5] = {0, 0.5, 0, 0.5, 0}, coefficient[5] = {0, 3 * 0.5 / 2, 0, 3 * 0.5 / 4, 0};
    assert_int_equal(r.n_used, 2);
    assert_near(r.mean_norm, 3, 1e-15);
    mbl_qp_cosines(gram, 5, r.coefficient, cos);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(r.used[i], used[i]);
        assert_near(r.qp.alpha[i], alpha[i], 1e-15);
        assert_near(r.coefficient[i], coefficient[i], 1e-15);
        assert_near(cos[i], used[i] ? sqrt(0.5) : 0, 1e-14);
    }
    /* a floor is for those that take part: 5 x 0.3 would not fit, 2 x 0.3 does */
    r = balance(gram, 5, 0.3, NULL);
    assert_near(r.qp.alpha[1], 0.5, 1e-15);
    memset(gram, 0, sizeof gram);
    r = balance(gram, 5, 0, NULL);
    assert_int_equal(r.n_used, 0);
    assert_near(r.mean_norm + r.qp.alpha[0] + r.coefficient[0], 0, 0);
}

/* A priority promises progress: with every reward active, <D, g_k / n_k> is proportional to w_k. */
static void priorities_promise_progress(void **state) {
    (void)state;
    double weights[3] = {1, 2, 0.5}, cos[3];
    double gram[9] = {1, 0.2, 0, 0.2, 4, -0.1, 0, -0.1, 9};
    mbl_balance_result_t r = balance(gram, 3, 0, weights);
    mbl_qp_cosines(gram, 3, r.coefficient, cos);
    assert_true(r.qp.active[0] && r.qp.active[1] && r.qp.active[2]);
    assert_near(cos[1] / cos[0], 2, 1e-12);
    assert_near(cos[2] / cos[0], 0.5, 1e-12);
    /* only their ratios count */
    mbl_balance_result_t s = balance(gram, 3, 0, (double[]){10, 20, 5});
    assert_near(s.coefficient[1], r.coefficient[1], 1e-13);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_qp_balance(gram, 3, 0, (double[]){1, 0, 1}, &s), MBL_ERR_ARG);
    assert_int_equal(mbl_qp_balance(gram, 3, 0, (double[]){1, NAN, 1}, &s), MBL_ERR_ARG);
    mbl_fail_quiet(0);
}

static void cosines_by_hand(void **state) {
    (void)state;
    double cos[2];
    /* g1 = (3, 0), g2 = (0, 4); D = g1 + g2 = (3, 4) */
    mbl_qp_cosines((double[]){9, 0, 0, 16}, 2, (double[]){1, 1}, cos);
    assert_near(cos[0], 0.6, 1e-15);
    assert_near(cos[1], 0.8, 1e-15);
    mbl_qp_cosines((double[]){9, 0, 0, 16}, 2, (double[]){-1, 0}, cos);
    assert_near(cos[0], -1, 0);
    assert_near(cos[1], 0, 0);
    /* cancelled but for rounding: no direction, no cosine */
    mbl_qp_cosines((double[]){1, -1 + 2e-16, -1 + 2e-16, 1}, 2, (double[]){1, 1}, cos);
    assert_near(cos[0], 0, 0);
    mbl_qp_cosines((double[]){0, 0, 0, 1}, 2, (double[]){1, 1}, cos);
    assert_near(cos[0], 0, 0);
    assert_near(cos[1], 1, 1e-15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(two_gradients),
        cmocka_unit_test(degenerate),
        cmocka_unit_test(floors_and_linear_terms),
        cmocka_unit_test(refuses),
        cmocka_unit_test(random_problems),
        cmocka_unit_test(projected_gradient_agrees),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(golden),
        cmocka_unit_test(balance_ignores_lengths),
        cmocka_unit_test(balance_drops_bad_gradients),
        cmocka_unit_test(priorities_promise_progress),
        cmocka_unit_test(cosines_by_hand),
    };
    return cmocka_run_group_tests_name("qp", tests, NULL, NULL);
}
