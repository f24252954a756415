/* The methods on Gram matrices with known answers: by hand, from torchjd (tests/golden/make_methods.py), and
 * by what defines each of them. */
#include "support.h"

#include "base/rng.h"
#include "rl/cone.h"
#include "rl/methods.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { N = MBL_MAX_REWARDS, DIM = 80 };

static mbl_status_t run(mbl_method_fn *method, const double *gram, size_t n, const double *weights, double c,
                        mbl_method_answer_t *out) {
    double norm[N], ones[N];
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        norm[i] = sqrt(gram[i * n + i]);
        ones[i] = 1;
    }
    mbl_method_args_t args = {
        .n = n, .gram = gram, .norm = norm, .weights = weights ? weights : ones, .cagrad_c = c};
    return method(&args, out);
}

/* <D, g_k> for every k, and |D|^2. */
static double progress(const double *gram, size_t n, const mbl_method_answer_t *answer, double *along) {
    double square = 0;
    for (size_t i = 0; i < n; i++) {
        along[i] = 0;
        for (size_t j = 0; j < n; j++)
            along[i] += gram[i * n + j] * answer->coefficient[j];
        square += along[i] * answer->coefficient[i];
    }
    return square;
}

/* n gradients that share some direction, of very different lengths, in `dim` dimensions. */
static void random_gram(uint64_t seed, size_t n, size_t dim, double *gram) {
    static double vector[N][DIM];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < dim; j++) {
            mbl_rng_t rng = mbl_rng(seed, MBL_RNG_STUDY, (uint32_t)i, j);
            float pair[2];
            mbl_rng_normal2(&rng, pair);
            vector[i][j] = pow(3, (double)(i % 5)) * ((double)pair[0] + 0.2);
        }
    for (size_t i = 0; i < n * n; i++) {
        gram[i] = 0;
        for (size_t j = 0; j < dim; j++)
            gram[i] += vector[i / n][j] * vector[i % n][j];
    }
}

/* ---- by hand ---- */

/* |g_1| = 1, |g_2| = 2, cosine -1/2. Each loses its part along the other: g_1 + g_2 / 4 and g_2 + g_1. */
static void two_in_conflict(void **state) {
    static const double gram[] = {1, -1, -1, 4};
    mbl_method_answer_t answer;
    (void)state;
    assert_int_equal(run(mbl_method_pcgrad, gram, 2, NULL, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 2 / 4.5, 1e-15); /* 2 g_1 + 5/4 g_2: shares 2 and 5/2 */
    assert_near(answer.alpha[1], 2.5 / 4.5, 1e-15);
    assert_near(answer.coefficient[0], 1.5 * 2 / 4.5, 1e-15); /* m = 1.5 */
    assert_near(answer.coefficient[1], 1.5 * 1.25 / 4.5, 1e-15);
    assert_int_equal(run(mbl_method_upgrad, gram, 2, NULL, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 2 / 4.5, 1e-11); /* for two, the cone's faces are those projections */
    static const double weights[] = {1.5, 0.5};   /* 1.5 (g_1 + g_2 / 4) + 0.5 (g_2 + g_1): 2 and 7/4 */
    assert_int_equal(run(mbl_method_pcgrad, gram, 2, weights, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 2 / 3.75, 1e-15);
    assert_int_equal(run(mbl_method_upgrad, gram, 2, weights, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 2 / 3.75, 1e-11);
    assert_int_equal(run(mbl_method_nash, gram, 2, NULL, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 0.5, 1e-12); /* two players: the bisector, whatever the lengths */
    assert_near(answer.alpha[1], 0.5, 1e-12);
}

/* Without conflict pcgrad and upgrad leave the sum alone, and cagrad's answer on e_1, 2 e_2 is known: the
 * dual <g_w, g_0> + s |g_w| on (1 - t) e_1 + 2 t e_2. */
static void orthogonal(void **state) {
    static const double gram[] = {1, 0, 0, 4};
    mbl_method_answer_t answer;
    double best = INFINITY, at = 0, s = 0.5 * sqrt(1.25);
    (void)state;
    assert_int_equal(run(mbl_method_pcgrad, gram, 2, NULL, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 1.0 / 3, 1e-15);
    assert_int_equal(run(mbl_method_upgrad, gram, 2, NULL, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 1.0 / 3, 1e-15);
    static const double weights[] = {1.6, 0.4};
    assert_int_equal(run(mbl_method_nash, gram, 2, weights, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 2.0 / 3, 1e-9); /* a^2 = w over unit gradients: 2 to 1 */
    for (int i = 0; i <= 2000000; i++) {
        double t = i / 2e6, length = sqrt((1 - t) * (1 - t) + 4 * t * t);
        double value = 0.5 * (1 - t) + 2 * t + s * length;
        if (value < best)
            best = value, at = t;
    }
    assert_int_equal(run(mbl_method_cagrad, gram, 2, NULL, 0.5, &answer), MBL_OK);
    double more = s / sqrt((1 - at) * (1 - at) + 4 * at * at), first = 0.5 + more * (1 - at);
    double second = 2 * (0.5 + more * at);
    assert_near(answer.alpha[0], first / (first + second), 1e-5);
    assert_int_equal(run(mbl_method_cagrad, gram, 2, NULL, 0, &answer), MBL_OK);
    assert_near(answer.alpha[0], 1.0 / 3, 1e-15); /* no room: the mean */
}

/* ---- against torchjd ---- */

static void read_array(json_t *array, double *out) {
    for (size_t i = 0; i < json_array_size(array); i++)
        out[i] = json_number_value(json_array_get(array, i));
}

static void golden(void **state) {
    static const struct {
        const char *key;
        mbl_method_fn *method;
        double tolerance; /* what torchjd's solver or regularisation leaves */
    } columns[] = {{"pcgrad", mbl_method_pcgrad, 1e-12},
                   {"upgrad", mbl_method_upgrad, 1e-8},
                   {"upgrad_weighted", mbl_method_upgrad, 1e-8},
                   {"cagrad", mbl_method_cagrad, 1e-4},
                   {"nash", mbl_method_nash, 2e-3}};
    json_error_t error;
    json_t *cases = json_load_file(MBL_SOURCE_DIR "/tests/golden/methods.json", 0, &error), *one;
    size_t at, compared[5] = {0};
    (void)state;
    if (!cases)
        fail_msg("methods.json:%d: %s", error.line, error.text);
    assert_int_equal(json_array_size(cases), 10);
    json_array_foreach(cases, at, one) {
        json_t *rows = json_object_get(one, "gram");
        size_t n = json_array_size(rows);
        double gram[N * N], weights[N], want[N];
        for (size_t i = 0; i < n; i++)
            read_array(json_array_get(rows, i), gram + i * n);
        read_array(json_object_get(one, "weights"), weights);
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
            mbl_method_answer_t answer;
            if (json_is_null(json_object_get(one, columns[c].key)))
                continue;
            compared[c]++;
            read_array(json_object_get(one, columns[c].key), want);
            bool weighted = strstr(columns[c].key, "weighted");
            assert_int_equal(run(columns[c].method, gram, n, weighted ? weights : NULL, 0.5, &answer),
                             MBL_OK);
            for (size_t i = 0; i < n; i++)
                if (!(fabs(answer.alpha[i] - want[i]) <= columns[c].tolerance))
                    fail_msg("%s, case %zu, reward %zu: alpha %.12g, torchjd %.12g", columns[c].key, at, i,
                             answer.alpha[i], want[i]);
        }
    }
    json_decref(cases);
    for (size_t c = 0; c < 5; c++)
        assert_true(compared[c] >= (c < 4 ? 10 : 4));
}

/* ---- by definition ---- */

/* upgrad goes against nobody; nash's a satisfies G a = w / a; cagrad stays in its ball and no other point of
 * the ball that was tried has a larger least progress. */
static void definitions(void **state) {
    static double gram[N * N];
    double along[N];
    mbl_method_answer_t answer;
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        size_t n = seed % 20 == 0 ? N : 2 + seed % 7;
        random_gram(seed, n, n == N ? DIM : n + 1, gram);
        assert_int_equal(run(mbl_method_upgrad, gram, n, NULL, 0, &answer), MBL_OK);
        double square = progress(gram, n, &answer, along);
        for (size_t i = 0; i < n; i++)
            if (!(along[i] >= -1e-9 * sqrt(square * gram[i * n + i])))
                fail_msg("upgrad, seed %d, reward %zu: cosine %g", (int)seed, i,
                         along[i] / sqrt(square * gram[i * n + i]));
        assert_int_equal(run(mbl_method_nash, gram, n, NULL, 0, &answer), MBL_OK);
        square = progress(gram, n, &answer, along);
        for (size_t i = 0; i < n; i++) /* each reward's part of |D|^2 is the same */
            assert_near(along[i] * answer.coefficient[i] / square, 1 / (double)n, 1e-7 / (double)n);
    }
}

/* Least progress of coefficients `c` [n], and how far they are from the mean gradient, of its length. */
static double least_progress(const double *gram, size_t n, const double *c, double *away) {
    double least = INFINITY, far = 0, mean = 0;
    for (size_t i = 0; i < n; i++) {
        double along = 0;
        for (size_t j = 0; j < n; j++) {
            along += gram[i * n + j] * c[j];
            far += gram[i * n + j] * (c[i] - 1 / (double)n) * (c[j] - 1 / (double)n);
            mean += gram[i * n + j] / (double)(n * n);
        }
        least = fmin(least, along);
    }
    *away = sqrt(far / mean);
    return least;
}

static void cagrad_is_best_in_its_ball(void **state) {
    double gram[N * N], away, c[N], other[N];
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        size_t n = 2 + seed % 5;
        mbl_method_answer_t answer;
        random_gram(100 + seed, n, n + 1, gram);
        assert_int_equal(run(mbl_method_cagrad, gram, n, NULL, 0.4, &answer), MBL_OK);
        /* its length is lost: the ray meets the ball's surface twice, and progress says which is meant */
        double along[N], square = progress(gram, n, &answer, along), middle = 0, mean = 0, low = INFINITY;
        for (size_t i = 0; i < n; i++) {
            middle += along[i] / (double)n / square;
            low = fmin(low, along[i]);
        }
        for (size_t i = 0; i < n * n; i++)
            mean += gram[i] / (double)(n * n) / square;
        double half = sqrt(fmax(0, middle * middle - (1 - 0.4 * 0.4) * mean));
        for (size_t i = 0; i < n; i++)
            c[i] = answer.coefficient[i] * (low > 0 ? middle + half : middle - half);
        double least = least_progress(gram, n, c, &away);
        assert_near(away, 0.4, 1e-6);
        for (uint32_t attempt = 0; attempt < 2000; attempt++) {
            double far, size = attempt % 2 ? 1 : 0.01;
            for (size_t i = 0; i < n; i++) {
                mbl_rng_t rng = mbl_rng(seed, MBL_RNG_STUDY, attempt, i);
                float pair[2];
                mbl_rng_normal2(&rng, pair);
                other[i] = c[i] + size * (double)pair[0] * c[0];
            }
            least_progress(gram, n, other, &far);
            for (size_t i = 0; i < n; i++) /* onto the ball */
                other[i] = 1 / (double)n + (other[i] - 1 / (double)n) * 0.4 / far;
            double found = least_progress(gram, n, other, &far);
            if (!(found <= least + 1e-6 * fabs(least)))
                fail_msg("seed %d: least progress %.9g, another point of the ball has %.9g", (int)seed, least,
                         found);
        }
    }
}

/* The dual of two gradients, 1 and `length` long, w_2 = exp u / (1 + exp u): <g_w, g_0> + s |g_w|. */
typedef struct {
    long double length, cosine, s, w, r;
} pair_t;

static long double dual_of_pair(pair_t *p, long double u) {
    long double a = 1 / (1 + expl(u)), b = p->length / (1 + expl(-u)); /* lengths of the terms of g_w */
    long double c = 0.5L, d = 0.5L * p->length;                        /* ... and of g_0 */
    p->w = 1 / (1 + expl(-u));
    p->r = sqrtl((a + p->cosine * b) * (a + p->cosine * b) + (1 - p->cosine * p->cosine) * b * b);
    return a * c + b * d + p->cosine * (a * d + b * c) + p->s * p->r;
}

/* Convex in w and so with one minimum in u: by golden sections, in 80 bits. */
static void minimise_pair(pair_t *p) {
    const long double ratio = 0.618033988749894848L;
    long double low = -60, high = 60;
    for (int i = 0; i < 130; i++) {
        long double a = high - ratio * (high - low), b = low + ratio * (high - low);
        if (dual_of_pair(p, a) < dual_of_pair(p, b))
            high = b;
        else
            low = a;
    }
    dual_of_pair(p, (low + high) / 2);
}

/* However far apart two gradients' lengths are, cagrad's answer is that of a search for the least of its
 * dual; and so it is where each is given twice. */
static void cagrad_of_lengths_far_apart(void **state) {
    static const double lengths[] = {1, 1e3, 1e7, 1e9, 1e-8}, cosines[] = {-0.9, -0.3, 0, 0.5};
    (void)state;
    for (int l = 0; l < 5; l++)
        for (int c = 0; c < 4; c++) {
            double size = lengths[l], gram[4] = {1, size * cosines[c], size * cosines[c], size * size},
                   twice[16];
            pair_t pair = {.length = size, .cosine = cosines[c]};
            mbl_method_answer_t answer, doubled;
            pair.s = 0.25L * sqrtl(1 + 2 * pair.cosine * pair.length + pair.length * pair.length);
            minimise_pair(&pair);
            long double first = 0.5L + pair.s / pair.r * (1 - pair.w),
                        second = 0.5L + pair.s / pair.r * pair.w;
            double wanted = (double)(first / second);
            assert_int_equal(run(mbl_method_cagrad, gram, 2, NULL, 0.5, &answer), MBL_OK);
            assert_near(answer.coefficient[0] / answer.coefficient[1], wanted, 1e-6 * wanted);
            for (size_t i = 0; i < 16; i++)
                twice[i] = gram[i / 4 / 2 * 2 + i % 4 / 2];
            assert_int_equal(run(mbl_method_cagrad, twice, 4, NULL, 0.5, &doubled), MBL_OK);
            assert_near((doubled.coefficient[0] + doubled.coefficient[1]) /
                            (doubled.coefficient[2] + doubled.coefficient[3]),
                        wanted, 1e-6 * wanted);
        }
}

/* Opposite, equal and dependent gradients: an answer, finite, of sum 1, and none turned against a reward. */
static void degenerate(void **state) {
    static const double opposite[] = {1, -2, -2, 4}, equal[] = {3, 3, 3, 3, 3, 3, 3, 3, 3};
    static const double planar[] = {1, 0, 1, 0, 1, 1, 1, 1, 2};
    static const struct {
        const double *gram;
        size_t n;
    } cases[] = {{opposite, 2}, {equal, 3}, {planar, 3}, {equal, 1}};
    mbl_method_fn *const methods[] = {mbl_method_marble, mbl_method_equal,  mbl_method_fixed,
                                      mbl_method_pcgrad, mbl_method_upgrad, mbl_method_cagrad,
                                      mbl_method_nash};
    (void)state;
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++)
        for (size_t c = 0; c < 4; c++) {
            double sum = 0, along[N];
            mbl_method_answer_t answer;
            assert_int_equal(run(methods[m], cases[c].gram, cases[c].n, NULL, 0.5, &answer), MBL_OK);
            progress(cases[c].gram, cases[c].n, &answer, along);
            for (size_t i = 0; i < cases[c].n; i++) {
                sum += answer.alpha[i];
                assert_true(answer.alpha[i] >= 0 && isfinite(answer.coefficient[i]));
                if (c > 0)
                    assert_true(along[i] > 0);
            }
            assert_near(sum, 1, 1e-12);
            if (c == 1)
                assert_near(answer.alpha[2], 1.0 / 3, 1e-9);
        }
}

/* Opposite gradients, exactly or but for rounding, alone or beside others: no bargain, so the shares are
 * those of the combination that cancels, and nothing fails on the way there. */
static void nash_without_a_bargain(void **state) {
    mbl_method_answer_t answer;
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2)
        for (double away = 0; away<1e-3; away = away> 0 ? 1.7 * away : 1e-17) {
            double along = sign * away - 1, weights[] = {1.5, 0.6, 0.9};
            double two[] = {1, 3 * along, 3 * along, 9};
            double three[] = {1, 3 * along, 0, 3 * along, 9, 0, 0, 0, 4};
            if (along < -1 && away > 1e-15)
                continue; /* no Gram matrix */
            assert_int_equal(run(mbl_method_nash, two, 2, NULL, 0, &answer), MBL_OK);
            assert_near(answer.alpha[0], 0.5, 1e-6);
            assert_near(answer.coefficient[0], 1, 2e-6); /* m / 2 n_1, m = 2 */
            assert_int_equal(run(mbl_method_nash, two, 2, weights, 0, &answer), MBL_OK);
            assert_true(answer.alpha[0] > 0.49 && answer.alpha[1] > 0.49);
            assert_int_equal(run(mbl_method_nash, three, 3, weights, 0, &answer), MBL_OK);
            assert_near(answer.alpha[0] + answer.alpha[1] + answer.alpha[2], 1, 1e-12);
            assert_near(answer.alpha[0], answer.alpha[1], 0.03);
            assert_true(answer.alpha[2] < 0.03);
        }
    static const double pair[] = {3, -3, -1, 1, -3, 3, 1, -1, -1, 1, 3, 1, 1, -1, 1, 3};
    assert_int_equal(run(mbl_method_nash, pair, 4, NULL, 0, &answer), MBL_OK);
    for (size_t i = 0; i < 4; i++) /* marble's, to the rounding */
        assert_near(answer.alpha[i], i < 2 ? 0.5 : 0, 1e-9);
    static const double indefinite[] = {1, 0, -0.9, 0, 1, -0.9, -0.9, -0.9, 1};
    mbl_fail_quiet(1);
    assert_int_equal(run(mbl_method_nash, indefinite, 3, NULL, 0, &answer), MBL_ERR_NUMERIC);
    mbl_fail_quiet(0);
}

/* x >= 0, Cx + b >= 0, x'(Cx + b) = 0 on a case by hand and on random ones with more variables than rank. */
static void cone_program(void **state) {
    static const double c[] = {2, 1, 1, 2}, b[] = {-3, 1};
    static double gram[N * N];
    double x[N], residual, linear[N];
    (void)state;
    assert_int_equal(mbl_cone_solve(c, b, 2, x, &residual), MBL_OK);
    assert_near(x[0], 1.5, 1e-11); /* slope of the second: 1.5 + 1 > 0 */
    assert_near(x[1], 0, 0);
    for (uint64_t seed = 1; seed <= 30; seed++) {
        size_t n = seed % 10 == 0 ? N : 1 + seed % 12;
        random_gram(200 + seed, n, 1 + seed % 9, gram);
        for (size_t i = 0; i < n; i++)
            linear[i] = gram[i * n] - 2 * gram[i * n + n - 1];
        assert_int_equal(mbl_cone_solve(gram, linear, n, x, &residual), MBL_OK);
        double scale = 0, duality = 0;
        for (size_t i = 0; i < n * n; i++)
            scale = fmax(scale, fabs(gram[i]));
        for (size_t i = 0; i < n; i++) {
            double slope = linear[i];
            for (size_t j = 0; j < n; j++)
                slope += gram[i * n + j] * x[j];
            assert_true(x[i] >= 0);
            if (!(slope >= -1e-7 * scale))
                fail_msg("seed %d, variable %zu: slope %g of %g", (int)seed, i, slope, scale);
            duality += x[i] * slope;
        }
        assert_near(duality / scale, 0, 1e-6);
    }
    assert_int_equal(mbl_cone_solve(c, b, 0, x, &residual), MBL_ERR_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_in_conflict),
        cmocka_unit_test(orthogonal),
        cmocka_unit_test(golden),
        cmocka_unit_test(definitions),
        cmocka_unit_test(cagrad_is_best_in_its_ball),
        cmocka_unit_test(cagrad_of_lengths_far_apart),
        cmocka_unit_test(degenerate),
        cmocka_unit_test(nash_without_a_bargain),
        cmocka_unit_test(cone_program),
    };
    return cmocka_run_group_tests_name("methods", tests, NULL, NULL);
}
