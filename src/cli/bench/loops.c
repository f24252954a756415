/* marble bench loops: the operations beside products at the shapes of the signs model, each with its
 * arithmetic and the bytes that it cannot but move, so that what is reached can be held against what the
 * processor can. */
#include "cli/bench/bench.h"
#include "ops/dry.h"

#include <stdio.h>

/* Tokens of the latent and of the text, width, heads, size of a head, rank of the adapter. */
enum { T_IMAGE = 64, T_TEXT = 16, D = 128, H = 4, HEAD = D / H, RANK = 16, MOST = 12 };

typedef struct {
    mbl_ops_t *ops;
    const void *args;
    mbl_op_t op;
} call_t;

static mbl_status_t run_call(void *context) {
    const call_t *call = context;
    switch (call->op) {
#define CASE(name)                                                                                           \
    case MBL_OP_##name:                                                                                      \
        MBL_TRY(mbl_op_##name(call->ops, call->args));                                                       \
        break;
        CASE(sample_grad)
        CASE(qk_norm)
        CASE(qk_norm_bwd)
        CASE(gate_norm)
        CASE(layer_norm)
        CASE(layer_norm_bwd)
        CASE(gate_bwd)
        CASE(act)
#undef CASE
    default:
        return MBL_FAIL(MBL_ERR_ARG, "bench loops: no case of %s", mbl_op_name(call->op));
    }
    return call->ops->table->sync(call->ops);
}

/* Times one call and prints its line; flops: its multiplications and additions. */
static mbl_status_t time_call(const mbl_bench_t *bench, mbl_ops_t *ops, mbl_op_t op, const void *args,
                              const char *shape, double flops) {
    call_t call = {ops, args, op};
    mbl_cost_t cost;
    mbl_bench_time_t time;
    mbl_dry_cost(op, args, &cost);
    MBL_TRY(mbl_bench_measure(bench, run_call, &call, &time));
    char what[96];
    snprintf(what, sizeof what, "%s %s", mbl_op_name(op), shape);
    const mbl_bench_figure_t figure[] = {{.name = "gflops", .value = 1e-9 * flops / time.median},
                                         {.name = "gb_per_s", .value = 1e-9 * cost.least / time.median},
                                         {.name = "threads", .value = (double)ops->threads}};
    return mbl_bench_print(bench, "loops", what, &time, figure, 3);
}

/* Every tensor of a case is taken from here and freed with it. */
typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_tensor_t tensor[MOST];
    size_t n;
    mbl_status_t status;
} pool_t;

static mbl_tensor_t *take(pool_t *pool, mbl_dtype_t dtype, size_t a, size_t b, size_t c, size_t d) {
    mbl_tensor_t *t = &pool->tensor[pool->n], random;
    if (pool->status != MBL_OK)
        return t;
    pool->status = mbl_bench_random(pool->ops, dtype, &random, a, b, c, d);
    if (pool->status != MBL_OK)
        return t;
    size_t dim[4], n = 0, all[] = {a, b, c, d};
    for (size_t i = 0; i < 4; i++)
        if (all[i] > 1 || n > 0)
            dim[n++] = all[i];
    *t = n == 1   ? mbl_tensor_reshape(&random, 1, dim[0])
         : n == 2 ? mbl_tensor_reshape(&random, 2, dim[0], dim[1])
         : n == 3 ? mbl_tensor_reshape(&random, 3, dim[0], dim[1], dim[2])
                  : random;
    pool->n++;
    return t;
}

/* Shapes of ct, and of its statistics. */
#define CT(...) take(pool, pool->dtype, __VA_ARGS__)
#define ST(...) take(pool, mbl_dtype_stat(pool->dtype), __VA_ARGS__)

static mbl_status_t sample_grad_case(const mbl_bench_t *bench, pool_t *pool, size_t tokens, size_t p,
                                     size_t q, size_t k) {
    size_t n = bench->samples;
    const mbl_sample_grad_args_t args = {.acc = take(pool, MBL_F64, 1, k, p, q),
                                         .a = CT(1, n, tokens, p),
                                         .b = CT(1, n, tokens, q),
                                         .coefficient = take(pool, MBL_F32, 1, 1, k, n),
                                         .factor = 1};
    char shape[64];
    MBL_TRY(pool->status);
    mbl_tensor_t acc = mbl_tensor_of(args.acc->data, MBL_F64, args.acc->place, 3, k, p, q),
                 coefficient = mbl_tensor_of(args.coefficient->data, MBL_F32, args.acc->place, 2, k, n);
    mbl_sample_grad_args_t whole = args;
    whole.acc = &acc;
    whole.coefficient = &coefficient;
    snprintf(shape, sizeof shape, "%s %zux%zux%zux%zu k=%zu", mbl_dtype_name(pool->dtype), n, tokens, p, q,
             k);
    return time_call(bench, pool->ops, MBL_OP_sample_grad, &whole, shape,
                     2 * (double)(n * p * q) * (double)(tokens + k));
}

static mbl_status_t qk_norm_case(const mbl_bench_t *bench, pool_t *pool, bool backward) {
    size_t n = bench->samples, all = T_IMAGE + T_TEXT;
    char shape[64];
    const mbl_tensor_t *qkv = CT(1, n, T_IMAGE, 3 * D), *q = CT(n, H, all, HEAD), *k = CT(n, H, all, HEAD),
                       *v = CT(n, H, all, HEAD), *rstd_q = ST(1, n, T_IMAGE, H),
                       *rstd_k = ST(1, n, T_IMAGE, H), *weight_q = CT(1, 1, 1, HEAD),
                       *weight_k = CT(1, 1, 1, HEAD), *dqkv = CT(1, n, T_IMAGE, 3 * D);
    MBL_TRY(pool->status);
    const mbl_qk_norm_args_t args = {.q = q,
                                     .k = k,
                                     .v = v,
                                     .rstd_q = rstd_q,
                                     .rstd_k = rstd_k,
                                     .qkv = qkv,
                                     .weight_q = weight_q,
                                     .weight_k = weight_k,
                                     .eps = 1e-6};
    const mbl_qk_norm_bwd_args_t back = {.dqkv = dqkv,
                                         .dq = q,
                                         .dk = k,
                                         .dv = v,
                                         .qkv = qkv,
                                         .rstd_q = rstd_q,
                                         .rstd_k = rstd_k,
                                         .weight_q = weight_q,
                                         .weight_k = weight_k};
    snprintf(shape, sizeof shape, "%s %zux%dx%dx%d", mbl_dtype_name(pool->dtype), n, T_IMAGE, H, HEAD);
    double elements = 2 * (double)(n * T_IMAGE * D);
    return backward ? time_call(bench, pool->ops, MBL_OP_qk_norm_bwd, &back, shape, 8 * elements)
                    : time_call(bench, pool->ops, MBL_OP_qk_norm, &args, shape, 4 * elements);
}

/* The norms over the width, and the loops over the residual stream. */
static mbl_status_t norm_case(const mbl_bench_t *bench, pool_t *pool, mbl_op_t op) {
    size_t n = bench->samples;
    char shape[64];
    const mbl_tensor_t *x = CT(1, n, T_IMAGE, D), *y = CT(1, n, T_IMAGE, D), *h = CT(1, n, T_IMAGE, D),
                       *z = CT(1, n, T_IMAGE, D), *mean = ST(1, 1, n, T_IMAGE), *rstd = ST(1, 1, n, T_IMAGE),
                       *gate = CT(1, 1, n, D), *scale = CT(1, 1, n, D), *shift = CT(1, 1, n, D);
    MBL_TRY(pool->status);
    const mbl_gate_norm_args_t gate_norm = {.y = y,
                                            .z = z,
                                            .mean = mean,
                                            .rstd = rstd,
                                            .x = x,
                                            .gate = gate,
                                            .h = h,
                                            .scale = scale,
                                            .shift = shift,
                                            .eps = 1e-6};
    const mbl_layer_norm_args_t norm = {
        .y = y, .mean = mean, .rstd = rstd, .x = x, .scale = scale, .shift = shift, .eps = 1e-6};
    const mbl_layer_norm_bwd_args_t norm_bwd = {
        .dx = y, .dy = h, .x = x, .mean = mean, .rstd = rstd, .scale = scale};
    const mbl_gate_bwd_args_t gate_bwd = {.dh = y, .dy = x, .gate = gate};
    const mbl_act_args_t act = {.y = y, .x = x, .act = MBL_ACT_GELU_TANH};
    snprintf(shape, sizeof shape, "%s %zux%dx%d", mbl_dtype_name(pool->dtype), n, T_IMAGE, D);
    double elements = (double)(n * T_IMAGE * D);
    switch (op) {
    case MBL_OP_gate_norm:
        return time_call(bench, pool->ops, op, &gate_norm, shape, 11 * elements);
    case MBL_OP_layer_norm:
        return time_call(bench, pool->ops, op, &norm, shape, 9 * elements);
    case MBL_OP_layer_norm_bwd:
        return time_call(bench, pool->ops, op, &norm_bwd, shape, 14 * elements);
    case MBL_OP_gate_bwd:
        return time_call(bench, pool->ops, op, &gate_bwd, shape, elements);
    default:
        return time_call(bench, pool->ops, op, &act, shape, 25 * elements);
    }
}

static mbl_status_t run_case(const mbl_bench_t *bench, pool_t *pool, size_t i) {
    static const mbl_op_t norms[] = {MBL_OP_gate_norm, MBL_OP_layer_norm, MBL_OP_layer_norm_bwd,
                                     MBL_OP_gate_bwd, MBL_OP_act};
    static const size_t shapes[][4] = {{T_IMAGE, D, RANK, 1},
                                       {T_IMAGE, D, RANK, 5},
                                       {T_TEXT, D, RANK, 5},
                                       {T_IMAGE, 3 * RANK, D, 1},
                                       {T_IMAGE, 4 * D, RANK, 5}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    if (i < SHAPES)
        return sample_grad_case(bench, pool, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
    if (i < SHAPES + 2)
        return qk_norm_case(bench, pool, i > SHAPES);
    return norm_case(bench, pool, norms[i - SHAPES - 2]);
}

mbl_status_t mbl_bench_loops(const mbl_bench_t *bench) {
    static const mbl_dtype_t dtypes[] = {MBL_F32, MBL_BF16};
    enum { CASES = 5 + 2 + 5 };
    mbl_ops_t *ops;
    MBL_TRY(mbl_ops_open(bench->device, bench->threads, &ops));
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < 2 * CASES && status == MBL_OK; i++) {
        pool_t pool = {.ops = ops, .dtype = dtypes[i / CASES]};
        status = run_case(bench, &pool, i % CASES);
        for (size_t j = 0; j < pool.n; j++)
            mbl_tensor_free(ops, &pool.tensor[j]);
    }
    mbl_ops_close(ops);
    return status;
}
