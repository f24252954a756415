/* marble (arXiv 2605.06507): the weights of the quadratic program; no reward of positive weight is gone
 * against. */
#include "rl/methods.h"
#include "rl/qp.h"

#include <string.h>

mbl_status_t mbl_method_marble(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    mbl_balance_result_t result;
    double linear[MBL_MAX_REWARDS], mean = 0;
    for (size_t i = 0; i < args->n; i++)
        mean += args->norm[i] / (double)args->n;
    for (size_t i = 0; args->common && i < args->n; i++) /* |m sum alpha_k u_k + c|^2 / 2m^2, u = g / (n w) */
        linear[i] = args->common[i] / (args->norm[i] * args->weights[i] * mean);
    MBL_TRY(mbl_qp_balance_linear(args->gram, args->common ? linear : NULL, args->n, args->floor,
                                  args->weights, &result));
    memcpy(out->alpha, result.qp.alpha, args->n * sizeof *out->alpha);
    memcpy(out->coefficient, result.coefficient, args->n * sizeof *out->coefficient);
    out->kkt_residual = result.qp.kkt_residual;
    return MBL_OK;
}
