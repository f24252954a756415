/* From Gram matrices with known answers to the direction of a step, for each method; lengths and cosines
 * against vectors written out. Every rank gets rank 0's answer.   ctest-ranks: 1 2 4 */
#include "ranks.h"

#include "base/rng.h"
#include "rl/balance.h"

#include <math.h>
#include <string.h>

enum { DIM = 12, MAX = 8 };

/* Reward parts a_1..a_R and the common part c, as vectors. */
typedef struct {
    size_t r, k;
    double part[MAX + 1][DIM];
    mbl_balance_options_t options;
    mbl_balance_state_t state;
    mbl_balance_step_t step;
} case_t;

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (size_t i = 0; i < DIM; i++)
        sum += a[i] * b[i];
    return sum;
}

/* k reward parts with zeros; weighted_sum has one more. */
static case_t new_case(mbl_method_t method, size_t k) {
    case_t c = {.k = k, .r = k + mbl_method_has_objective(method)};
    c.options = (mbl_balance_options_t){.method = method, .rho = 0.7};
    return c;
}

static void random_parts(case_t *c, uint64_t seed, double common) {
    for (size_t i = 0; i <= c->r; i++)
        for (size_t j = 0; j < DIM; j++) {
            mbl_rng_t rng = mbl_rng(seed, MBL_RNG_STUDY, (uint32_t)i, j);
            float pair[2];
            mbl_rng_normal2(&rng, pair);
            c->part[i][j] = (i == c->r ? common : pow(4, (double)i)) * (double)pair[0];
        }
}

/* Only rank 0 knows the matrix and the state; all must get its answer. */
static void solve(mbl_comm_t *comm, case_t *c) {
    double gram[(MAX + 1) * (MAX + 1)];
    size_t m = c->r + 1;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++)
            gram[i * m + j] = comm->rank == 0 ? dot(c->part[i], c->part[j]) : NAN;
    if (comm->rank > 0)
        memset(&c->state, 0xff, sizeof c->state);
    assert_int_equal(mbl_balance(comm, &c->options, gram, c->k, &c->state, &c->step), MBL_OK);
    assert_true(same_on_all_ranks(comm, c->step.alpha, c->k));
    assert_true(same_on_all_ranks(comm, c->step.cos, c->k));
    assert_true(same_on_all_ranks(comm, c->step.coefficient, m));
    assert_true(same_on_all_ranks(comm, c->state.alpha_mean, c->k));
}

/* g_k = a_k + c, D = sum_j coefficient_j part_j. */
static void gradient_of(const case_t *c, size_t k, double *g) {
    for (size_t j = 0; j < DIM; j++)
        g[j] = c->part[k][j] + c->part[c->r][j];
}
static void direction_of(const case_t *c, double *d) {
    memset(d, 0, DIM * sizeof *d);
    for (size_t i = 0; i <= c->r; i++)
        for (size_t j = 0; j < DIM; j++)
            d[j] += c->step.coefficient[i] != 0 ? c->step.coefficient[i] * c->part[i][j] : 0;
}

/* Norms, cosines and their statistics are those of the vectors. */
static void check_diagnostics(const case_t *c) {
    double d[DIM], g[DIM], sum = 0, squares = 0, low = INFINITY, part = INFINITY, n = 0;
    direction_of(c, d);
    double length = sqrt(dot(d, d));
    assert_near(c->step.direction_norm, length, 1e-12 * fmax(1, length));
    for (size_t k = 0; k < c->k; k++) {
        if (!c->step.used[k]) {
            assert_near(c->step.cos[k], 0, 0);
            assert_near(c->step.cos_part[k], 0, 0);
            continue;
        }
        gradient_of(c, k, g);
        double cosine = dot(d, g) / (length * sqrt(dot(g, g)));
        assert_near(c->step.norm[k], sqrt(dot(g, g)), 1e-12 * fmax(1, sqrt(dot(g, g))));
        assert_near(c->step.cos[k], cosine, 1e-10);
        assert_near(c->step.cos_part[k], dot(d, c->part[k]) / (length * sqrt(dot(c->part[k], c->part[k]))),
                    1e-10);
        sum += cosine;
        squares += cosine * cosine;
        low = fmin(low, cosine);
        part = fmin(part, c->step.cos_part[k]);
        n++;
    }
    assert_near(c->step.n_used, n, 0);
    assert_near(c->step.cos_min, low, 1e-10);
    assert_near(c->step.cos_part_min, part, 0);
    assert_near(c->step.cos_mean, sum / n, 1e-10);
    assert_near(c->step.cos_var, squares / n - sum / n * (sum / n), 1e-10);
}

/* Two orthogonal gradients, one three times as long. */
static void orthogonal(void **state) {
    for (mbl_method_t method = MBL_METHOD_MARBLE; method <= MBL_METHOD_EQUAL; method++) {
        case_t c = new_case(method, 2);
        c.part[0][0] = 1;
        c.part[1][1] = 3;
        solve(*state, &c);
        check_diagnostics(&c);
        for (size_t k = 0; k < 2; k++) {
            assert_near(c.step.alpha[k], 0.5, 1e-12);
            assert_near(c.step.cos[k], sqrt(0.5), 1e-12); /* equally aligned whatever their lengths */
        }
        assert_near(c.step.direction_norm, 2 * sqrt(0.5), 1e-12); /* m = 2 */
        assert_near(c.step.coefficient[0], 1, 1e-12);
        assert_near(c.step.coefficient[1], 1.0 / 3, 1e-12);
        assert_near(c.step.coefficient[2], 4.0 / 3, 1e-12);
    }
    case_t c = new_case(MBL_METHOD_WEIGHTED_SUM, 2);
    c.part[0][0] = c.part[2][0] = 1;
    c.part[1][1] = c.part[2][1] = 3;
    solve(*state, &c);
    check_diagnostics(&c);
    assert_near(c.step.cos[0], 1 / sqrt(10), 1e-12); /* the longer one has its way */
    assert_near(c.step.cos[1], 3 / sqrt(10), 1e-12);
    assert_near(c.step.coefficient[2], 1, 0);
    assert_near(c.step.coefficient[3], 1, 0);
    assert_near(c.step.coefficient[0], 0, 0);
}

/* Two gradients at an obtuse angle: their sum goes against the shorter one, marble's direction does not. */
static void conflicting(void **state) {
    case_t c = new_case(MBL_METHOD_MARBLE, 2), w = new_case(MBL_METHOD_WEIGHTED_SUM, 2);
    c.part[0][0] = 1;
    c.part[1][0] = -9;
    c.part[1][1] = sqrt(100 - 81);
    memcpy(w.part, c.part, sizeof c.part);
    for (size_t j = 0; j < DIM; j++)
        w.part[2][j] = c.part[0][j] + c.part[1][j];
    solve(*state, &c);
    solve(*state, &w);
    check_diagnostics(&c);
    check_diagnostics(&w);
    assert_near(c.step.cos_min, sqrt(0.05), 1e-12); /* half the angle between them: sqrt((1 - 0.9) / 2) */
    assert_near(c.step.cos_var, 0, 1e-12);
    assert_true(w.step.cos[0] < -0.8);
    assert_near(w.step.cos_min, w.step.cos[0], 0);
}

/* Opposite gradients leave no common direction: it is none, not rounding error blown up. */
static void opposite(void **state) {
    case_t c = new_case(MBL_METHOD_MARBLE, 2);
    for (size_t j = 0; j < DIM; j++) {
        c.part[0][j] = 0.1 * (double)(j + 1) / 7;
        c.part[1][j] = -0.3 * (double)(j + 1) / 7;
    }
    solve(*state, &c);
    assert_near(c.step.alpha[0], 0.5, 1e-9);
    assert_near(c.step.direction_norm, 0, 0);
    assert_near(c.step.cos[0], 0, 0);
    assert_near(c.step.cos[1], 0, 0);
}

/* Whatever the gradients, with a common part or without: never anti-aligned, and equally aligned with every
 * reward in the support. The common part is in D as often as the gradients are. */
static void never_against_a_reward(void **state) {
    size_t anti = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        static const double commons[] = {0, 1, 50};
        case_t c = new_case(MBL_METHOD_MARBLE, 2 + seed % 6), e = new_case(MBL_METHOD_EQUAL, 2 + seed % 6);
        random_parts(&c, seed, commons[seed % 3]);
        memcpy(e.part, c.part, sizeof c.part);
        solve(*state, &c);
        solve(*state, &e);
        check_diagnostics(&c);
        check_diagnostics(&e);
        anti += e.step.cos_min < 0;
        assert_true(c.step.kkt_residual <= 1e-10);
        double sum = 0, all = 0;
        for (size_t k = 0; k < c.k; k++) {
            if (!(c.step.cos[k] > -1e-9))
                fail_msg("seed %d, reward %zu: cosine %g", (int)seed, k, c.step.cos[k]);
            if (c.step.alpha[k] > 1e-6)
                assert_near(c.step.cos[k], c.step.cos_min, 1e-7);
            sum += c.step.alpha[k];
            all += c.step.coefficient[k];
        }
        assert_near(sum, 1, 1e-12);
        assert_near(c.step.coefficient[c.r], all, 1e-12 * all);
    }
    assert_true(anti >= 3); /* equal weights do go against a reward in these cases */
}

/* A reward without a part of its own (nothing scored it) and one whose gradient is NaN take no part: the
 * others get what they would get alone. */
static void unusable_rewards(void **state) {
    case_t c = new_case(MBL_METHOD_MARBLE, 5), alone = new_case(MBL_METHOD_MARBLE, 3);
    random_parts(&c, 9, 1);
    memset(c.part[1], 0, sizeof c.part[1]);
    c.part[3][5] = NAN;
    for (size_t i = 0; i < 4; i++)
        memcpy(alone.part[i], c.part[(const int[]){0, 2, 4, 5}[i]], sizeof c.part[0]);
    for (size_t k = 0; k < 5; k++) {
        c.state.alpha_mean[k] = 0.1 + 0.05 * (double)k;
        c.state.seen[k] = k != 4;
    }
    solve(*state, &c);
    solve(*state, &alone);
    check_diagnostics(&c);
    static const bool used[] = {true, false, true, false, true};
    for (size_t k = 0, i = 0; k < 5; k++) {
        assert_int_equal(c.step.used[k], used[k]);
        if (used[k]) {
            assert_near(c.step.alpha[k], alone.step.alpha[i], 1e-12);
            assert_near(c.step.coefficient[k], alone.step.coefficient[i], 1e-12);
            assert_near(c.step.cos[k], alone.step.cos[i], 1e-12);
            i++;
        } else {
            assert_near(c.step.alpha[k], 0, 0);
            assert_near(c.step.coefficient[k], 0, 0);
            assert_near(c.state.alpha_mean[k], 0.1 + 0.05 * (double)k, 0);
            assert_near(c.step.alpha_mean[k], 0, 0);
        }
    }
    assert_true(isnan(c.step.norm[3]));
    assert_true(c.step.norm[1] > 0); /* of the common part alone */
}

static void nothing_usable(void **state) {
    for (mbl_method_t method = MBL_METHOD_MARBLE; method <= MBL_METHOD_WEIGHTED_SUM; method++) {
        case_t c = new_case(method, 3);
        random_parts(&c, 4, 1);
        for (size_t i = 0; i < c.r; i++)
            memset(c.part[i], 0, sizeof c.part[i]);
        c.part[1][2] = NAN;
        c.state.alpha_mean[0] = 0.4;
        solve(*state, &c);
        assert_int_equal(c.step.n_used, 0);
        for (size_t i = 0; i <= c.r; i++)
            assert_near(c.step.coefficient[i], 0, 0);
        assert_near(c.step.direction_norm, 0, 0);
        assert_near(c.step.cos_min, 0, 0);
        assert_near(c.step.cos_mean, 0, 0);
        assert_near(c.step.cos_var, 0, 0);
        assert_near(c.state.alpha_mean[0], 0.4, 0);
    }
    case_t c = new_case(MBL_METHOD_MARBLE, 3); /* a common part that is NaN spoils every gradient */
    random_parts(&c, 4, 1);
    c.part[3][0] = NAN;
    solve(*state, &c);
    assert_int_equal(c.step.n_used, 0);
    assert_near(c.step.coefficient[3], 0, 0);
}

/* e1, e2 and their diagonal: the shortest point of the hull does without the diagonal, unless a floor is
 * set. */
static void floor_is_kept(void **state) {
    case_t c = new_case(MBL_METHOD_MARBLE, 3);
    c.part[0][0] = 2;
    c.part[1][1] = 2;
    c.part[2][0] = c.part[2][1] = 2 * sqrt(0.5);
    solve(*state, &c);
    check_diagnostics(&c);
    assert_near(c.step.alpha[0], 0.5, 1e-12);
    assert_near(c.step.alpha[2], 0, 1e-12);
    assert_near(c.step.cos[2], 1, 1e-12);
    c.options.floor = 0.1;
    solve(*state, &c);
    check_diagnostics(&c);
    assert_near(c.step.alpha[0], 0.45, 1e-12);
    assert_near(c.step.alpha[1], 0.45, 1e-12);
    assert_near(c.step.alpha[2], 0.1, 1e-12);
}

/* Weights 2 and 1 on orthogonal gradients: twice the progress per unit gradient. */
static void priorities(void **state) {
    static const double two_to_one[] = {2, 1}, random_weights[] = {3, 1, 0.5, 7, 2};
    case_t c = new_case(MBL_METHOD_MARBLE, 2);
    c.part[0][0] = 1;
    c.part[1][1] = 3;
    c.options.weights = two_to_one;
    solve(*state, &c);
    check_diagnostics(&c);
    assert_near(c.step.alpha[0], 0.8, 1e-12); /* units 3/4 e1 and 3/2 e2 */
    assert_near(c.step.cos[0] / c.step.cos[1], 2, 1e-12);
    c = new_case(MBL_METHOD_MARBLE, 5);
    c.options.weights = random_weights;
    random_parts(&c, 2, 3);
    memset(c.part[3], 0, sizeof c.part[3]); /* left out, and its weight with it */
    solve(*state, &c);
    check_diagnostics(&c);
    double d[DIM], g[DIM], mean = 0;
    direction_of(&c, d);
    for (size_t k = 0; k < 5; k++)
        mean += c.step.used[k] ? c.step.norm[k] / 4 : 0;
    for (size_t k = 0; k < 5; k++) {
        gradient_of(&c, k, g);
        double promised = random_weights[k] / (6.5 / 4) * dot(d, d) / mean;
        if (k != 3 && !(dot(d, g) / c.step.norm[k] >= promised * (1 - 1e-9)))
            fail_msg("reward %zu: progress %g, promised %g", k, dot(d, g) / c.step.norm[k], promised);
    }
}

/* fixed: unit gradients 3 : 1, whatever their lengths; a reward that is missing leaves its share to the rest.
 */
static void fixed_shares(void **state) {
    static const double weights[] = {6, 5, 2};
    case_t c = new_case(MBL_METHOD_FIXED, 3);
    c.part[0][0] = 1;
    c.part[2][1] = 3;
    c.options.weights = weights;
    solve(*state, &c);
    check_diagnostics(&c);
    assert_near(c.step.alpha[0], 0.75, 1e-15);
    assert_near(c.step.alpha[1], 0, 0);
    assert_near(c.step.alpha[2], 0.25, 1e-15);
    assert_near(c.step.coefficient[0], 1.5, 1e-15); /* m = 2 */
    assert_near(c.step.coefficient[2], 0.5 / 3, 1e-15);
    assert_near(c.step.cos[0], 3 / sqrt(10), 1e-12);
    static const double negative[] = {6, 5, -2};
    double gram[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0};
    c.options.weights = negative;
    assert_int_equal(mbl_balance(*state, &c.options, gram, 3, &c.state, &c.step), MBL_ERR_ARG);
}

/* e_1, 2 e_2 and c = e_1 / 2. Added once, c tilts the direction; allowed for, the shortest (3/2)(alpha_1,
 * alpha_2) + c is the one with both reward parts at the same progress. */
static void common_part_apart(void **state) {
    case_t c = new_case(MBL_METHOD_MARBLE, 2);
    double d[DIM];
    c.part[0][0] = 1;
    c.part[1][1] = 2;
    c.part[2][0] = 0.5;
    c.options.common = MBL_COMMON_APART;
    solve(*state, &c);
    check_diagnostics(&c);
    direction_of(&c, d);
    assert_near(c.step.alpha[0], 0.5, 1e-12);
    assert_near(d[0], 1.25, 1e-12);
    assert_near(d[1], 0.75, 1e-12);
    c.options.common = MBL_COMMON_OFFSET;
    solve(*state, &c);
    check_diagnostics(&c);
    direction_of(&c, d);
    assert_near(c.step.alpha[0], 1.0 / 3, 1e-12);
    assert_near(d[0], 1, 1e-12);
    assert_near(d[1], 1, 1e-12);
    assert_near(c.step.coefficient[2], 1, 0);
    c.options.method = MBL_METHOD_EQUAL;
    assert_int_equal(
        mbl_balance(*state, &c.options, (double[9]){1, 0, 0, 0, 1, 0, 0, 0, 1}, 2, &c.state, &c.step),
        MBL_ERR_ARG);
}

/* offset on random parts: no reward part is gone against more than those in the support, which are level; and
 * apart does what together does when there is no common part. */
static void offset_levels_the_parts(void **state) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        case_t c = new_case(MBL_METHOD_MARBLE, 2 + seed % 6),
               none = new_case(MBL_METHOD_MARBLE, 2 + seed % 6);
        double d[DIM], least = INFINITY, progress[MAX];
        random_parts(&c, seed, 20);
        c.options.common = MBL_COMMON_OFFSET;
        solve(*state, &c);
        check_diagnostics(&c);
        direction_of(&c, d);
        for (size_t k = 0; k < c.k; k++) {
            progress[k] = dot(d, c.part[k]) / sqrt(dot(c.part[k], c.part[k]));
            least = fmin(least, progress[k]);
        }
        for (size_t k = 0; k < c.k; k++)
            if (c.step.alpha[k] > 1e-6)
                assert_near(progress[k], least, 1e-8 * sqrt(dot(d, d)));
        random_parts(&none, seed, 0);
        solve(*state, &none);
        memcpy(d, none.step.alpha, sizeof d < sizeof none.step.alpha ? sizeof d : sizeof none.step.alpha);
        none.options.common = MBL_COMMON_APART;
        solve(*state, &none);
        for (size_t k = 0; k < none.k; k++)
            assert_near(none.step.alpha[k], d[k], 1e-9);
    }
}

/* The guarded direction is the nearest one that works against no own part: against vectors written out, it
 * is D + sum x_k a_k with x >= 0, no <D, a_k> below 0, and x_k > 0 only where <D, a_k> = 0 (the conditions of
 * a projection onto a cone). Where none is below 0, nothing moves. */
static void guarded_against_no_own_part(void **state) {
    mbl_comm_t *comm = *state;
    size_t moved = 0, still = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        case_t c = new_case(seed % 2 ? MBL_METHOD_MARBLE : MBL_METHOD_EQUAL, 4), free;
        random_parts(&c, seed, seed % 4 < 2 ? 2 : 60);
        if (seed % 8 == 3)
            c.options.common = MBL_COMMON_OFFSET;
        free = c;
        solve(comm, &free);
        c.options.guard = true;
        solve(comm, &c);
        double before[DIM], d[DIM], change[DIM], norm = 0, square = 0;
        direction_of(&free, before);
        direction_of(&c, d);
        for (size_t j = 0; j < DIM; j++)
            change[j] = d[j] - before[j];
        norm = sqrt(dot(before, before));
        square = dot(change, change);
        assert_near(c.step.moved, sqrt(square) / norm, 1e-6);
        for (size_t i = 0; i < c.k; i++) {
            double length = sqrt(dot(c.part[i], c.part[i])), along = dot(d, c.part[i]) / (length * norm);
            double x = (c.step.coefficient[i] - free.step.coefficient[i]) * length / norm;
            assert_true(along > -1e-6);
            assert_true(x >= 0);
            assert_true(x < 1e-6 || along < 1e-6);
            assert_near(c.step.cos_part[i], dot(d, c.part[i]) / (length * sqrt(dot(d, d))), 1e-9);
            assert_near(c.step.alpha[i], free.step.alpha[i], 0);
        }
        moved += square > 0;
        still += square == 0;
    }
    assert_true(moved > 5);
    assert_true(still > 5);
}

/* alphabar over steps whose alphas are known, rewards coming and going. */
static void smoothing(void **state) {
    case_t c = new_case(MBL_METHOD_EQUAL, 3);
    c.part[0][0] = c.part[1][1] = 1;
    solve(*state, &c); /* the third has no part of its own */
    assert_near(c.state.alpha_mean[0], 0.5, 1e-15);
    assert_int_equal(c.state.seen[2], false);
    c.part[2][2] = 1;
    solve(*state, &c); /* all three: 1/3 each; the third starts from it */
    assert_near(c.state.alpha_mean[0], 0.7 * 0.5 + 0.3 / 3, 1e-15);
    assert_near(c.state.alpha_mean[2], 1.0 / 3, 1e-15);
    double sum = 2 * 0.45 + 1.0 / 3;
    assert_near(c.step.alpha_mean[0], 0.45 / sum, 1e-15);
    assert_near(c.step.alpha_mean[2], 1.0 / 3 / sum, 1e-15);
    memset(c.part[0], 0, sizeof c.part[0]);
    solve(*state, &c); /* the first is missing and keeps its own */
    assert_near(c.state.alpha_mean[0], 0.45, 1e-15);
    assert_near(c.state.alpha_mean[1], 0.7 * 0.45 + 0.3 * 0.5, 1e-15);
    assert_near(c.step.alpha_mean[0], 0, 0);
    assert_near(c.step.alpha_mean[1] + c.step.alpha_mean[2], 1, 1e-15);
    assert_near(c.step.alpha[1], 0.5, 1e-15);
}

static void weighted_sum_reports_its_weights(void **state) {
    static const double weights[] = {2, 0.25};
    case_t c = new_case(MBL_METHOD_WEIGHTED_SUM, 2);
    random_parts(&c, 6, 1);
    c.options.weights = weights;
    solve(*state, &c);
    check_diagnostics(&c);
    assert_near(c.step.alpha[0], 2, 0);
    assert_near(c.step.alpha[1], 0.25, 0);
    assert_near(c.state.alpha_mean[0], 0, 0);
}

static void bad_arguments(void **state) {
    double gram[4] = {1, 0, 0, 1};
    case_t c = new_case(MBL_METHOD_MARBLE, 1);
    mbl_method_t method = MBL_METHOD_MARBLE;
    assert_int_equal(mbl_balance(*state, &c.options, gram, 0, &c.state, &c.step), MBL_ERR_ARG);
    assert_int_equal(mbl_balance(*state, &c.options, gram, MBL_MAX_REWARDS + 1, &c.state, &c.step),
                     MBL_ERR_ARG);
    assert_true(mbl_method_find("equal", &method) && method == MBL_METHOD_EQUAL);
    assert_true(mbl_method_find("weighted_sum", &method) && method == MBL_METHOD_WEIGHTED_SUM);
    assert_true(mbl_method_find("marble", &method) && method == MBL_METHOD_MARBLE);
    assert_false(mbl_method_find("marbles", &method));
}

int main(void) {
    mbl_comm_t *comm = open_ranks();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(orthogonal, comm),
        cmocka_unit_test_prestate(conflicting, comm),
        cmocka_unit_test_prestate(opposite, comm),
        cmocka_unit_test_prestate(never_against_a_reward, comm),
        cmocka_unit_test_prestate(unusable_rewards, comm),
        cmocka_unit_test_prestate(nothing_usable, comm),
        cmocka_unit_test_prestate(floor_is_kept, comm),
        cmocka_unit_test_prestate(priorities, comm),
        cmocka_unit_test_prestate(fixed_shares, comm),
        cmocka_unit_test_prestate(common_part_apart, comm),
        cmocka_unit_test_prestate(offset_levels_the_parts, comm),
        cmocka_unit_test_prestate(guarded_against_no_own_part, comm),
        cmocka_unit_test_prestate(smoothing, comm),
        cmocka_unit_test_prestate(weighted_sum_reports_its_weights, comm),
        cmocka_unit_test_prestate(bad_arguments, comm),
    };
    if (!comm)
        return 1;
    int failed = cmocka_run_group_tests_name("balance", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
