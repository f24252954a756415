/* The methods that turn a Gram matrix into a direction, as pure functions of numbers: one file each, chosen
 * by a table in balance.c. Weights of the rewards stand where a method has a mean over rewards. */
#ifndef MBL_RL_METHODS_H
#define MBL_RL_METHODS_H

#include "rl/types.h"

typedef struct {
    size_t n;              /* usable gradients, 1..MBL_MAX_REWARDS */
    const double *gram;    /* [n, n] of the gradients, finite, with a positive diagonal */
    const double *norm;    /* [n] |g_k|: the roots of the diagonal */
    const double *weights; /* [n] of the rewards: positive, mean 1 (reference: of any sum) */
    /* [n] <g_k, c> of a common part c that is added to D once, when the method is to allow for it: the
     * shortest D + c is sought (marble only); else NULL */
    const double *common;
    double floor;    /* least alpha (marble, reference) */
    double cagrad_c; /* radius around the mean gradient, of its length: [0, 1) (cagrad) */
} mbl_method_args_t;

typedef struct {
    double alpha[MBL_MAX_REWARDS];       /* [n] part of every unit gradient in D, sum 1 */
    double coefficient[MBL_MAX_REWARDS]; /* [n] D = sum_k coefficient_k g_k */
    double kkt_residual;                 /* of the programme, where a method solves one */
} mbl_method_answer_t;

/* Fills *out, which the caller has zeroed. Errors: of the programme that a method solves. */
typedef mbl_status_t mbl_method_fn(const mbl_method_args_t *args, mbl_method_answer_t *out);

mbl_method_fn mbl_method_marble; /* arXiv 2605.06507: the shortest convex combination of unit gradients */
mbl_method_fn mbl_method_equal;  /* all alpha equal, weights or not */
mbl_method_fn mbl_method_fixed;  /* alpha = the weights of the rewards */
mbl_method_fn mbl_method_pcgrad; /* arXiv 2001.06782: conflicts projected away, one after another */
mbl_method_fn
    mbl_method_upgrad; /* arXiv 2406.16232: mean of the projections onto the cone without conflict */
mbl_method_fn mbl_method_cagrad;    /* arXiv 2110.14048: largest least progress near the mean gradient */
mbl_method_fn mbl_method_nash;      /* arXiv 2202.01017: largest product of progresses */
mbl_method_fn mbl_method_reference; /* marble with weights as in its released code */

/* From parts of unit gradients [n], of any positive sum, to alpha and D = m sum_k alpha_k g_k / n_k, m = mean
 * of the norms: all methods but for their directions take steps of comparable length. */
void mbl_method_answer(const mbl_method_args_t *args, const double *share, mbl_method_answer_t *out);

/* The Gram matrix of the unit gradients, [n, n]. */
void mbl_method_unit_gram(const mbl_method_args_t *args, double *gram);

#endif
