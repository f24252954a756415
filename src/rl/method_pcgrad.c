/* pcgrad (arXiv 2001.06782): every gradient loses what it has against each of the others, in turn; then the
 * sum. PCGrad's paper draws the turns anew at every step; here gradient i meets i + 1, i + 2, ... in a
 * circle, so that a run can be repeated from its Gram matrices. */
#include "rl/methods.h"

mbl_status_t mbl_method_pcgrad(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    double unit[MBL_MAX_REWARDS * MBL_MAX_REWARDS], share[MBL_MAX_REWARDS] = {0};
    size_t n = args->n;
    mbl_method_unit_gram(args, unit);
    for (size_t i = 0; i < n; i++) {
        double own[MBL_MAX_REWARDS] = {0}; /* g_i as it is left, over unit gradients */
        own[i] = args->weights[i] * args->norm[i];
        for (size_t step = 1; step < n; step++) {
            size_t j = (i + step) % n;
            double along = 0;
            for (size_t l = 0; l < n; l++)
                along += unit[j * n + l] * own[l];
            own[j] -= along < 0 ? along : 0;
        }
        for (size_t l = 0; l < n; l++)
            share[l] += own[l];
    }
    mbl_method_answer(args, share, out);
    return MBL_OK;
}
