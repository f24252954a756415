/* balance.metric: adam (method.md section 7, an experiment): the Gram matrix of the gradients in the metric
 * P = 1 / (sqrt(vhat) + eps) by which AdamW scales what it is given, <x, y>_P = sum_i P_i x_i y_i. A
 * direction D with <D, g_k>_P >= 0 for all k is, scaled by AdamW, against no reward: momentum, weight decay
 * and what D itself adds to vhat aside.
 *
 * vhat is predicted as this step's would be if it went along the mean of the unit gradients:
 *     vhat = (beta2 v + (1 - beta2) d^2) / (1 - beta2^t),   d that mean after the gradient clip,
 * so that weights that have not moved yet (v = 0) are not magnified by 1 / eps. */
#ifndef MBL_RL_METRIC_H
#define MBL_RL_METRIC_H

#include "rl/optimizer.h"

typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t rows;  /* [M, count] f64: the sets, times sqrt(P) */
    mbl_tensor_t scale; /* [count] f64 */
    double *direction;  /* [count] host */
    float *v;           /* [count] host */
} mbl_metric_t;

/* For up to `rows` sets of `count` numbers of this rank, a multiple of 16 (mbl_shard_count). Free with
 * mbl_metric_free. */
mbl_status_t mbl_metric_new(mbl_ops_t *ops, size_t rows, size_t count, mbl_metric_t *out);
void mbl_metric_free(mbl_metric_t *metric);

/* sqrt(P) for moments v [n] of an optimizer that has done `steps` steps, and the mean direction d [n] of
 * global norm `norm`, into scale [n], which may be d. Pure numbers, local. */
void mbl_metric_scale(const mbl_adamw_options_t *options, uint64_t steps, const float *v, const double *d,
                      double norm, size_t n, double *scale);

/* gram [M*M] in the metric from this rank's shard [M, count] f64 of the sets, whose plain Gram matrix is
 * `plain`; the mean direction is sum_j mean_j set_j, of global norm `norm`. A set that is not finite keeps
 * that in its row and column. The same on every rank. Collective. */
mbl_status_t mbl_metric_gram(mbl_comm_t *comm, mbl_metric_t *metric, const mbl_optimizer_t *optimizer,
                             const mbl_adamw_options_t *options, const mbl_tensor_t *shard,
                             const double *plain, const double *mean, double norm, double *gram);

#endif
