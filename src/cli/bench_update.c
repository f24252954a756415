/* An optimizer step as training takes it, on the bench world. */
#include "cli/bench_update.h"

#include "rl/gram.h"

#include <math.h>
#include <string.h>

enum { MAX_SETS = MBL_MAX_REWARDS + 3 };

static size_t parts_of(const mbl_bench_method_t *method, size_t k) {
    return k + mbl_method_has_objective(method->method);
}

mbl_status_t mbl_bench_weigh(mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                             double *coefficient, double *norm) {
    double gram[MAX_SETS * MAX_SETS];
    size_t m = method->all ? parts_of(method, k) + 1 : 1;
    mbl_tensor_t sets = mbl_tensor_rows(&w->sets, 0, m), shard = mbl_tensor_rows(&w->shard, 0, m);
    mbl_balance_options_t options = {.method = method->method, .rho = 0.7};
    mbl_balance_step_t step;
    MBL_TRY(mbl_gram(w->comm, w->ops, &sets, &shard, gram));
    if (!method->all) {
        coefficient[0] = 1;
        *norm = sqrt(gram[0]);
        return MBL_OK;
    }
    MBL_TRY(mbl_balance(w->comm, &options, gram, k, &w->balance, &step));
    memcpy(coefficient, step.coefficient, m * sizeof *coefficient);
    *norm = step.direction_norm;
    return MBL_OK;
}

/* AdamW along the direction, and what the step did to every reward where all gradients are there. */
static mbl_status_t move(mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                         const double *coefficient, double norm) {
    double gram[MAX_SETS * MAX_SETS];
    size_t m = method->all ? parts_of(method, k) + 1 : 1;
    mbl_adamw_options_t options = {1e-5, 0.9, 0.999, 1e-8, 1e-4, 1.0};
    mbl_tensor_t sets = mbl_tensor_rows(&w->shard, 0, m), with_step = mbl_tensor_rows(&w->shard, 0, m + 1);
    mbl_tensor_t last = mbl_tensor_rows(&w->shard, m, 1), flat = mbl_tensor_reshape(&last, 1, w->padded);
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m + 1, m + 1);
    MBL_TRY(MBL_OP(w->ops, combine, .y = &w->direction, .x = &sets, .coefficient = coefficient));
    if (method->all)
        MBL_TRY(MBL_OP(w->ops, convert, .dst = &flat, .src = &w->policy.current));
    MBL_TRY(mbl_optimizer_step(w->comm, &w->optimizer, &options, &w->direction, norm, &w->policy.current));
    MBL_TRY(mbl_policy_stepped(&w->policy));
    if (!method->all)
        return MBL_OK;
    MBL_TRY(MBL_OP(w->ops, convert, .dst = &w->direction, .src = &w->policy.current));
    MBL_TRY(MBL_OP(w->ops, axpby, .y = &flat, .x = &w->direction, .a = -1, .b = 1));
    MBL_TRY(MBL_OP(w->ops, gram, .gram = &host, .x = &with_step));
    return mbl_comm_allreduce(w->comm, gram, (m + 1) * (m + 1), MBL_COMM_F64, MBL_COMM_SUM);
}

mbl_status_t mbl_bench_update(mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                              size_t timesteps) {
    double coefficient[MAX_SETS], one[MAX_SETS] = {0}, norm;
    size_t parts = parts_of(method, k);
    mbl_gradient_args_t args = mbl_bench_world_args(w, k, timesteps, 1e-4);
    mbl_tensor_t sets = mbl_tensor_rows(&w->sets, 0, method->all ? parts + 1 : 1);
    mbl_gradient_stats_t stats;
    one[parts - 1] = 1;
    args.parts = parts;
    args.c = method->all ? NULL : one;
    MBL_TRY(mbl_gradient_run(w->gradient, &args, &sets, &stats));
    MBL_TRY(mbl_bench_weigh(w, method, k, coefficient, &norm));
    MBL_TRY(move(w, method, k, coefficient, norm));
    MBL_TRY(mbl_policy_average(&w->policy, w->optimizer.steps, 0.9));
    MBL_TRY(mbl_policy_follow(&w->policy, 0.5));
    return w->ops->table->sync(w->ops);
}
