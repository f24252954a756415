/* The quadratic programme of MARBLE (paper section 3; method.md section 6), as a pure function of numbers:
 *     minimise 1/2 a' C a + b' a   subject to   sum a = 1,  a >= floor
 * with C symmetric positive semidefinite (a Gram matrix, singular or not). Dense, exact, active set, f64. */
#ifndef MBL_RL_QP_H
#define MBL_RL_QP_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { MBL_QP_MAX = 64 };

typedef struct {
    double alpha[MBL_QP_MAX];
    bool active[MBL_QP_MAX]; /* alpha_k above the floor, i.e. in the support */
    double objective;        /* 1/2 a'Ca + b'a */
    double kkt_residual; /* relative: max of stationarity, feasibility and complementarity over max(1, |C|,
                            |b|) */
    int iterations;
} mbl_qp_result_t;

/* C is [k, k] row-major; linear [k] or NULL. Needs 1 <= k <= MBL_QP_MAX and k * floor <= 1. The certificate
 * is computed afresh from the returned alpha; ERR_NUMERIC when C is not finite or the residual exceeds 1e-10.
 * Allocates nothing. */
mbl_status_t mbl_qp_solve(const double *c, const double *linear, size_t k, double floor,
                          mbl_qp_result_t *out);

/* A Gram matrix G [k, k] of gradients to weights: drops gradients that are not finite or have norm <= 1e-12
 * (alpha 0, used false), normalises the rest to C = G / (n n'), applies priorities (`weights` [k] or NULL;
 * objective over weight-scaled unit gradients), solves, and reports the direction D = m sum_k alpha_k g_k /
 * n_k with m = mean of the used norms. */
typedef struct {
    mbl_qp_result_t qp;             /* over all k; zero where not used */
    bool used[MBL_QP_MAX];          /* entered the QP */
    double norm[MBL_QP_MAX];        /* |g_k| */
    double coefficient[MBL_QP_MAX]; /* c_k = m alpha_k / n_k: D = sum c_k g_k */
    double mean_norm;               /* m */
    size_t n_used;
} mbl_balance_result_t;
mbl_status_t mbl_qp_balance(const double *gram, size_t k, double floor, const double *weights,
                            mbl_balance_result_t *out);

/* cos(sum_j c_j g_j, g_k) for every k from G [k, k]; 0 where a norm vanishes. */
void mbl_qp_cosines(const double *gram, size_t k, const double *coefficient, double *cos);

#endif
