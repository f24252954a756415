/* An optimizer step as training takes it, on the bench world. */
#include "cli/bench/update.h"

#include "rl/gram.h"
#include "rl/gram_part.h"

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
    mbl_amortise_keep(&w->cache, &step, k);
    memcpy(coefficient, step.coefficient, m * sizeof *coefficient);
    *norm = step.direction_norm;
    return MBL_OK;
}

/* AdamW along the direction; with_cosines: and what the step did to every reward, whose m sets stand in the
 * shard. */
static mbl_status_t move(mbl_bench_world_t *w, size_t m, bool with_cosines, double norm) {
    double gram[MAX_SETS * MAX_SETS];
    mbl_adamw_options_t options = {1e-5, 0.9, 0.999, 1e-8, 1e-4, 1.0};
    mbl_tensor_t with_step = mbl_tensor_rows(&w->shard, 0, m + 1);
    mbl_tensor_t last = mbl_tensor_rows(&w->shard, m, 1), flat = mbl_tensor_reshape(&last, 1, w->padded);
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m + 1, m + 1);
    if (with_cosines)
        MBL_TRY(MBL_OP(w->ops, convert, .dst = &flat, .src = &w->policy.current));
    MBL_TRY(mbl_optimizer_step(w->comm, &w->optimizer, &options, &w->direction, norm, &w->policy.current));
    MBL_TRY(mbl_policy_stepped(&w->policy));
    if (!with_cosines)
        return MBL_OK;
    MBL_TRY(MBL_OP(w->ops, convert, .dst = &w->direction, .src = &w->policy.current));
    MBL_TRY(MBL_OP(w->ops, axpby, .y = &flat, .x = &w->direction, .a = -1, .b = 1));
    MBL_TRY(MBL_OP(w->ops, gram, .gram = &host, .x = &with_step));
    return mbl_comm_allreduce(w->comm, gram, (m + 1) * (m + 1), MBL_COMM_F64, MBL_COMM_SUM);
}

static mbl_status_t combine(mbl_bench_world_t *w, size_t m, const double *coefficient) {
    mbl_tensor_t sets = mbl_tensor_rows(&w->shard, 0, m);
    return MBL_OP(w->ops, combine, .y = &w->direction, .x = &sets, .coefficient = coefficient);
}

/* Weights of one backward pass: the cached ones, or all for the objective of the method's own. */
static mbl_status_t known_weights(const mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                                  double *c) {
    mbl_balance_options_t options = {.method = method->method};
    mbl_balance_step_t step;
    bool valid[MBL_MAX_REWARDS];
    c[k] = 1;
    if (mbl_method_has_objective(method->method))
        return MBL_OK;
    for (size_t i = 0; i < k; i++)
        valid[i] = true;
    MBL_TRY(mbl_amortise_step(&options, &w->balance, &w->cache, valid, k, &step));
    memcpy(c, step.coefficient, k * sizeof *c);
    return MBL_OK;
}

/* Solves on a part of the rows, then one backward pass over the rest with its weights. */
static mbl_status_t update_by_part(mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                                   mbl_gradient_args_t *args) {
    double coefficient[MAX_SETS], norm, of_rest;
    mbl_gram_part_t part = {.fraction = method->gram_fraction,
                            .micro_batch = w->batch.n,
                            .timesteps = args->timesteps,
                            .slices = 1,
                            .seed = args->seed,
                            .step = (uint32_t)w->optimizer.steps};
    mbl_tensor_t sets = mbl_tensor_rows(&w->sets, 0, k + 1), one = mbl_tensor_rows(&w->sets, 0, 1);
    mbl_tensor_t rest = mbl_tensor_rows(&w->shard, k + 1, 1), flat = mbl_tensor_reshape(&rest, 1, w->padded);
    mbl_tensor_t row = mbl_tensor_reshape(&w->direction, 2, (size_t)1, w->padded);
    mbl_tensor_t host = MBL_TENSOR_2(&norm, MBL_F64, 1, 1);
    mbl_gradient_stats_t stats;
    mbl_gram_part(&part, &w->batch, w->part_of);
    args->part_of = w->part_of;
    args->part = MBL_PART_GRAM;
    MBL_TRY(mbl_gradient_run(w->gradient, args, &sets, &stats));
    MBL_TRY(mbl_bench_weigh(w, method, k, coefficient, &norm));
    args->part = MBL_PART_REST;
    args->c = coefficient;
    MBL_TRY(mbl_gradient_run(w->gradient, args, &one, &stats));
    MBL_TRY(mbl_gram(w->comm, w->ops, &one, &rest, &of_rest));
    MBL_TRY(combine(w, k + 1, coefficient));
    MBL_TRY(MBL_OP(w->ops, axpby, .y = &w->direction, .x = &flat, .a = 1, .b = 1));
    MBL_TRY(MBL_OP(w->ops, gram, .gram = &host, .x = &row));
    MBL_TRY(mbl_comm_allreduce(w->comm, &norm, 1, MBL_COMM_F64, MBL_COMM_SUM));
    return move(w, k + 1, false, sqrt(norm));
}

static mbl_status_t update_whole(mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                                 mbl_gradient_args_t *args) {
    double coefficient[MAX_SETS], known[MAX_SETS] = {0}, norm;
    size_t m = method->all ? args->parts + 1 : 1;
    mbl_tensor_t sets = mbl_tensor_rows(&w->sets, 0, m);
    mbl_gradient_stats_t stats;
    MBL_TRY(known_weights(w, method, k, known));
    args->c = method->all ? NULL : known;
    MBL_TRY(mbl_gradient_run(w->gradient, args, &sets, &stats));
    MBL_TRY(mbl_bench_weigh(w, method, k, coefficient, &norm));
    MBL_TRY(combine(w, m, coefficient));
    return move(w, m, method->all, norm);
}

mbl_status_t mbl_bench_update(mbl_bench_world_t *w, const mbl_bench_method_t *method, size_t k,
                              size_t timesteps) {
    mbl_gradient_args_t args = mbl_bench_world_args(w, k, timesteps, 1e-4);
    args.parts = parts_of(method, k);
    MBL_TRY(method->gram_fraction > 0 ? update_by_part(w, method, k, &args)
                                      : update_whole(w, method, k, &args));
    MBL_TRY(mbl_policy_average(&w->policy, w->optimizer.steps, 0.9));
    MBL_TRY(mbl_policy_follow(&w->policy, 0.5));
    return w->ops->table->sync(w->ops);
}
