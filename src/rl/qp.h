/* The quadratic program of MARBLE (arXiv 2605.06507, section 3; README.md here), as a pure function of
 * numbers: minimise 1/2 a' C a + b' a   subject to   sum a = 1,  a >= floor with C symmetric positive
 * semidefinite (a Gram matrix, singular or not). Dense, exact, active set, f64. */
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
    /* max over k of |min(alpha_k - floor, (gradient_k - mu) / scale)| and of |sum - 1|, scale = max(|C|,
     * |b|): stationarity, feasibility and complementarity at once */
    double kkt_residual;
    int iterations;
} mbl_qp_result_t;

/* C is [k, k] row-major; linear [k] or NULL. Needs 1 <= k <= MBL_QP_MAX and k * floor <= 1. The certificate
 * is computed afresh from the returned alpha. Where several alpha are optimal (equal or dependent gradients)
 * the one of least norm is returned, so the order of the gradients does not matter. ERR_NUMERIC when C is not
 * finite or the residual exceeds 1e-10. Allocates nothing. */
mbl_status_t mbl_qp_solve(const double *c, const double *linear, size_t k, double floor,
                          mbl_qp_result_t *out);

/* The same for vectors of length_k >= 1 (NULL: all 1) along those whose matrix C is:
 *     minimise 1/2 sum_ij length_i alpha_i C_ij length_j alpha_j + b'alpha
 * to the accuracy relative to the shortest that mbl_qp_solve has for lengths all alike, however far apart
 * they are. The residual is that of the problem in x = length alpha, of whose optima the one of least |x| is
 * returned; active: in its support. */
mbl_status_t mbl_qp_solve_lengths(const double *c, const double *linear, const double *length, size_t k,
                                  double floor, mbl_qp_result_t *out);

/* A Gram matrix G [k, k] of gradients to weights: drops gradients that are not finite or have norm <= 1e-12
 * (alpha 0, used false; all may be: n_used 0), takes the rest as u_k = g_k / (n_k w_k), solves with C = <u_k,
 * u_l> and reports the direction D = m sum_k alpha_k u_k with m = mean of the used norms. `weights` w [k]
 * (NULL: all 1; scaled to mean 1; positive, else ERR_ARG) are priorities: <D, g_k / n_k> >= w_k |D|^2 / m for
 * every used k when the floor is 0, so a reward of weight 2 is promised twice the progress of one of
 * weight 1. */
typedef struct {
    mbl_qp_result_t qp;             /* over all k; zero where not used */
    bool used[MBL_QP_MAX];          /* entered the QP */
    double norm[MBL_QP_MAX];        /* |g_k| */
    double coefficient[MBL_QP_MAX]; /* c_k = m alpha_k / (n_k w_k): D = sum c_k g_k */
    double mean_norm;               /* m */
    size_t n_used;
} mbl_balance_result_t;
mbl_status_t mbl_qp_balance(const double *gram, size_t k, double floor, const double *weights,
                            mbl_balance_result_t *out);
/* The same with a linear term [k] (NULL: none) in the objective, 1/2 a'Ca + linear'a. */
mbl_status_t mbl_qp_balance_linear(const double *gram, const double *linear, size_t k, double floor,
                                   const double *weights, mbl_balance_result_t *out);

/* cos(sum_j c_j g_j, g_k) for every k from G [k, k]; 0 where a norm vanishes. */
void mbl_qp_cosines(const double *gram, size_t k, const double *coefficient, double *cos);

#endif
