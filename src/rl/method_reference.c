/* marble_reference: the quadratic program as the released code poses it. A weight multiplies its unit
 * gradient, before the solve and in D = m sum_k alpha_k w_k g_k / n_k; so a reward of greater weight gets
 * less alpha, the other way round than under marble. */
#include "rl/methods.h"
#include "rl/qp.h"

#include <string.h>

mbl_status_t mbl_method_marble_reference(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    mbl_balance_result_t result;
    double inverse[MBL_MAX_REWARDS];
    for (size_t i = 0; i < args->n; i++)
        inverse[i] = 1 / args->weights[i];
    MBL_TRY(mbl_qp_balance(args->gram, args->n, args->floor, inverse, &result));
    memcpy(out->alpha, result.qp.alpha, args->n * sizeof *out->alpha);
    for (size_t i = 0; i < args->n; i++)
        out->coefficient[i] = args->n == 1
                                  ? 1 /* a lone gradient is taken as it is */
                                  : result.mean_norm * out->alpha[i] * args->weights[i] / args->norm[i];
    out->kkt_residual = result.qp.kkt_residual;
    return MBL_OK;
}
