/* cagrad (arXiv 2110.14048): of the directions within c |g_0| of the mean gradient g_0, the one whose least
 * progress over the rewards is largest. Its dual is to minimise <g_w, g_0> + s |g_w| over convex combinations
 * g_w, s = c |g_0|; then D = g_0 + s g_w / |g_w|. As |g_w| = min over r of (|g_w|^2 / r + r) / 2, the dual is
 * the exact quadratic program for a fixed r, with one unknown r = |g_w|. */
#include "rl/methods.h"
#include "rl/qp.h"

#include <math.h>

/* Shorter than this, of the lengths of its terms, a combination is rounding error: the gradients have no
 * common direction to go towards. */
static const double STATIONARY = 1e-7;

/* In units of the shortest gradient, so that each of them counts however far apart their lengths are. */
typedef struct {
    size_t n;
    double unit[MBL_MAX_REWARDS * MBL_MAX_REWARDS]; /* <g_i, g_j> / |g_i| |g_j| */
    double length[MBL_MAX_REWARDS];                 /* at least 1 */
    double linear[MBL_MAX_REWARDS];                 /* <g_k, g_0> */
    double longest, mean, s;                        /* the mean of the weighted lengths */
    double terms;                                   /* sum_k w_k |g_k| of the solution */
    mbl_qp_result_t qp;
} dual_t;

/* |g_w| of the solution for r, less r: falls through 0 at the answer. */
static mbl_status_t excess(dual_t *dual, double r, double *out) {
    double scaled[MBL_MAX_REWARDS * MBL_MAX_REWARDS] = {0}, x[MBL_MAX_REWARDS] = {0}, square = 0;
    size_t n = dual->n;
    for (size_t i = 0; i < n * n; i++)
        scaled[i] = dual->unit[i] * dual->s / r;
    MBL_TRY(mbl_qp_solve_lengths(scaled, dual->linear, dual->length, n, 0, &dual->qp));
    dual->terms = 0;
    for (size_t i = 0; i < n; i++)
        dual->terms += x[i] = dual->length[i] * dual->qp.alpha[i];
    for (size_t i = 0; i < n * n; i++)
        square += dual->unit[i] * x[i / n] * x[i % n];
    *out = sqrt(fmax(square, 0)) - r;
    return MBL_OK;
}

/* The root of excess between low (excess above 0) and high, by the Illinois method. */
static mbl_status_t find_length(dual_t *dual, double low, double at_low, double high, double at_high,
                                double *r) {
    for (int round = 0; round < 100 && high - low > 1e-12 * high; round++) {
        double at, next = (low * at_high - high * at_low) / (at_high - at_low);
        if (!(next > low && next < high))
            next = 0.5 * (low + high);
        MBL_TRY(excess(dual, next, &at));
        *r = next;
        if (fabs(at) <= 1e-13 * next)
            break;
        if (at > 0) {
            low = next, at_low = at;
            at_high /= 2;
        } else {
            high = next, at_high = at;
            at_low /= 2;
        }
    }
    return MBL_OK;
}

static void set_up(const mbl_method_args_t *args, dual_t *dual) {
    double shortest = INFINITY, square = 0;
    size_t n = dual->n = args->n;
    for (size_t i = 0; i < n; i++)
        shortest = fmin(shortest, args->norm[i]);
    for (size_t i = 0; i < n; i++) {
        dual->length[i] = fmax(1, args->norm[i] / shortest);
        dual->longest = fmax(dual->longest, dual->length[i]);
        dual->mean += dual->length[i] * args->weights[i] / (double)n;
    }
    mbl_method_unit_gram(args, dual->unit);
    for (size_t i = 0; i < n * n; i++)
        dual->linear[i / n] +=
            dual->unit[i] * dual->length[i / n] * dual->length[i % n] * args->weights[i % n] / (double)n;
    for (size_t i = 0; i < n; i++)
        square += dual->linear[i] * args->weights[i] / (double)n;
    dual->s = args->cagrad_c * sqrt(fmax(square, 0));
}

/* r = |g_w|; 0 where the gradients have no common direction. */
static mbl_status_t solve_dual(dual_t *dual, double *r) {
    double at_low, at_high;
    *r = dual->longest; /* no combination is longer */
    MBL_TRY(excess(dual, *r, &at_high));
    if (at_high < 0) {
        *r = STATIONARY;
        MBL_TRY(excess(dual, *r, &at_low));
        if (at_low > 0)
            MBL_TRY(find_length(dual, *r, at_low, dual->longest, at_high, r));
    }
    if (!(*r > STATIONARY * dual->terms))
        *r = 0;
    return MBL_OK;
}

mbl_status_t mbl_method_cagrad(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    dual_t dual = {0};
    double share[MBL_MAX_REWARDS], r = 0;
    set_up(args, &dual);
    if (dual.s > STATIONARY * args->cagrad_c * dual.mean)
        MBL_TRY(solve_dual(&dual, &r));
    for (size_t i = 0; i < args->n; i++) {
        share[i] = args->weights[i] / (double)args->n;
        if (r > 0)
            share[i] += dual.s / r * dual.qp.alpha[i];
        share[i] *= args->norm[i];
    }
    out->kkt_residual = dual.qp.kkt_residual;
    mbl_method_answer(args, share, out);
    return MBL_OK;
}
