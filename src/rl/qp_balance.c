/* From a Gram matrix of raw gradients to weights: which gradients take part, unit lengths, priorities, and
 * what the direction means for each reward. */
#include "rl/qp.h"

#include <math.h>
#include <string.h>

enum { N = MBL_QP_MAX };

/* Below this part of the sum of its terms a direction is rounding error: it has cancelled out. */
static const double CANCELLED = 1e-14;

/* The gradients worth using: finite and longer than 1e-12. */
static void find_used(const double *gram, size_t k, mbl_balance_result_t *out) {
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        double square = gram[i * k + i];
        out->norm[i] = square > 0 ? sqrt(square) : square == 0 ? 0 : NAN;
        out->used[i] = isfinite(out->norm[i]) && out->norm[i] > 1e-12;
        if (out->used[i]) {
            out->n_used++;
            sum += out->norm[i];
        }
    }
    out->mean_norm = out->n_used ? sum / (double)out->n_used : 0;
}

/* 1 / (n_k w_k) with the w of the used gradients scaled to mean 1. */
static mbl_status_t find_factors(const double *weights, size_t k, const mbl_balance_result_t *out,
                                 double *factor) {
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        if (weights && !(weights[i] > 0 && isfinite(weights[i])))
            return MBL_FAIL(
                MBL_ERR_ARG,
                "qp: priority %zu is %g; expected a positive number (leave a reward out instead of "
                "giving it none)",
                i, weights[i]);
        if (out->used[i])
            sum += weights ? weights[i] : 1;
    }
    for (size_t i = 0; i < k; i++)
        factor[i] = out->used[i] ? sum / (double)out->n_used / (weights ? weights[i] : 1) / out->norm[i] : 0;
    return MBL_OK;
}

/* Solves for the used gradients and spreads the answer over all k. */
static mbl_status_t solve_used(const double *gram, const double *linear, size_t k, double floor,
                               const double *factor, mbl_balance_result_t *out) {
    double c[N * N], b[N] = {0};
    size_t index[N], n = 0;
    for (size_t i = 0; i < k; i++)
        if (out->used[i])
            index[n++] = i;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            c[i * n + j] = gram[index[i] * k + index[j]] * factor[index[i]] * factor[index[j]];
        b[i] = linear ? linear[index[i]] : 0;
    }
    mbl_qp_result_t small;
    MBL_TRY(mbl_qp_solve(c, linear ? b : NULL, n, floor, &small));
    out->qp.objective = small.objective;
    out->qp.kkt_residual = small.kkt_residual;
    out->qp.iterations = small.iterations;
    for (size_t i = 0; i < n; i++) {
        out->qp.alpha[index[i]] = small.alpha[i];
        out->qp.active[index[i]] = small.active[i];
        out->coefficient[index[i]] = out->mean_norm * small.alpha[i] * factor[index[i]];
    }
    return MBL_OK;
}

mbl_status_t mbl_qp_balance_linear(const double *gram, const double *linear, size_t k, double floor,
                                   const double *weights, mbl_balance_result_t *out) {
    MBL_REQUIRE(gram && out, "qp: balance needs a matrix and a place for the result");
    MBL_REQUIRE(k >= 1 && k <= N, "qp: %zu gradients; expected 1 to %d", k, N);
    mbl_balance_result_t result;
    double factor[N];
    memset(&result, 0, sizeof result);
    find_used(gram, k, &result);
    MBL_TRY(find_factors(weights, k, &result, factor));
    if (result.n_used)
        MBL_TRY(solve_used(gram, linear, k, floor, factor, &result));
    *out = result;
    return MBL_OK;
}

mbl_status_t mbl_qp_balance(const double *gram, size_t k, double floor, const double *weights,
                            mbl_balance_result_t *out) {
    return mbl_qp_balance_linear(gram, NULL, k, floor, weights, out);
}

void mbl_qp_cosines(const double *gram, size_t k, const double *coefficient, double *cos) {
    double square = 0, longest = 0;
    for (size_t i = 0; i < k; i++) {
        cos[i] = 0;
        for (size_t j = 0; j < k; j++)
            if (coefficient[j] != 0) /* a gradient left out may be NaN */
                cos[i] += gram[i * k + j] * coefficient[j];
        if (coefficient[i] != 0) {
            square += coefficient[i] * cos[i];
            longest += fabs(coefficient[i]) * sqrt(fmax(gram[i * k + i], 0));
        }
    }
    bool exists = square > CANCELLED * longest * longest && isfinite(square);
    for (size_t i = 0; i < k; i++) {
        double length = exists ? sqrt(square) * sqrt(fmax(gram[i * k + i], 0)) : 0;
        double value = cos[i] / length;
        cos[i] = length > 0 && isfinite(value) ? fmin(fmax(value, -1), 1) : 0;
    }
}
