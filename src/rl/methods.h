/* The methods that turn a Gram matrix into a direction, as pure functions of numbers: one file each, chosen
 * by the list in method_list.h. Weights of the rewards stand where a method has a mean over rewards. */
#ifndef MBL_RL_METHODS_H
#define MBL_RL_METHODS_H

#include "rl/method_list.h"
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
    double kkt_residual;                 /* of the quadratic program, where a method solves one */
} mbl_method_answer_t;

/* Fills *out, which the caller has zeroed. Errors: of the quadratic program that a method solves. */
typedef mbl_status_t mbl_method_fn(const mbl_method_args_t *args, mbl_method_answer_t *out);

/* One for every method that weighs gradients: mbl_method_marble, ... */
#define MBL_METHOD_DECLARE(NAME, word, flags, help) mbl_method_fn mbl_method_##word;
#define MBL_METHOD_SKIP(NAME, word, flags, help)
MBL_METHOD_LIST(MBL_METHOD_DECLARE, MBL_METHOD_SKIP)
#undef MBL_METHOD_DECLARE
#undef MBL_METHOD_SKIP

/* NULL where it follows an objective of its own. */
mbl_method_fn *mbl_method_solver(mbl_method_t method);

/* From parts of unit gradients [n], of any positive sum, to alpha and D = m sum_k alpha_k g_k / n_k, m = mean
 * of the norms: all methods but for their directions take steps of comparable length. */
void mbl_method_answer(const mbl_method_args_t *args, const double *share, mbl_method_answer_t *out);

/* The Gram matrix of the unit gradients, [n, n]. */
void mbl_method_unit_gram(const mbl_method_args_t *args, double *gram);

#endif
