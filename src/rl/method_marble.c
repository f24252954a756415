/* marble (arXiv 2605.06507): the weights of the quadratic programme; no reward of positive weight is gone
 * against. */
#include "rl/methods.h"
#include "rl/qp.h"

#include <string.h>

mbl_status_t mbl_method_marble(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    mbl_balance_result_t result;
    MBL_TRY(mbl_qp_balance(args->gram, args->n, args->floor, args->weights, &result));
    memcpy(out->alpha, result.qp.alpha, args->n * sizeof *out->alpha);
    memcpy(out->coefficient, result.coefficient, args->n * sizeof *out->coefficient);
    out->kkt_residual = result.qp.kkt_residual;
    return MBL_OK;
}
