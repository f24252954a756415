/* equal: the mean of the unit gradients, whatever the weights. The baseline that a balance must beat. */
#include "rl/methods.h"

mbl_status_t mbl_method_equal(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    double share[MBL_MAX_REWARDS];
    for (size_t i = 0; i < args->n; i++)
        share[i] = 1;
    mbl_method_answer(args, share, out);
    return MBL_OK;
}
