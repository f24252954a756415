/* fixed: unit gradients in the proportions that the user gave the rewards; nothing is solved. */
#include "rl/methods.h"

mbl_status_t mbl_method_fixed(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    mbl_method_answer(args, args->weights, out);
    return MBL_OK;
}
