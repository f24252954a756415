/* upgrad (arXiv 2406.16232): the mean of the gradients' projections onto the cone of directions that go
 * against none of them. By duality the projection of w_i g_i is the shortest sum_k v_k g_k with v >= 0 and
 * v_i >= w_i. */
#include "rl/cone.h"
#include "rl/methods.h"

mbl_status_t mbl_method_upgrad(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    double unit[MBL_MAX_REWARDS * MBL_MAX_REWARDS], share[MBL_MAX_REWARDS] = {0};
    size_t n = args->n;
    mbl_method_unit_gram(args, unit);
    for (size_t i = 0; i < n; i++) {
        double linear[MBL_MAX_REWARDS], more[MBL_MAX_REWARDS], residual;
        for (size_t j = 0; j < n; j++)
            linear[j] = unit[j * n + i];
        MBL_TRY(mbl_cone_solve(unit, linear, n, more, &residual));
        more[i] += 1;
        for (size_t j = 0; j < n; j++) /* projections scale with what is projected */
            share[j] += args->weights[i] * args->norm[i] * more[j];
        out->kkt_residual = residual > out->kkt_residual ? residual : out->kkt_residual;
    }
    mbl_method_answer(args, share, out);
    return MBL_OK;
}
