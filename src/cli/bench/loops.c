/* marble bench loops: the operations beside products at the shapes of the signs model, each with its
 * arithmetic and the bytes that it cannot but move, so that what is reached can be held against what the
 * processor can. */
#include "cli/bench/bench.h"

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

/* What a call has to do at least: multiplications and additions, numbers of ct read or written. */
typedef struct {
    double flops, numbers;
} work_t;

/* Times one call and prints its line. */
static mbl_status_t time_call(const mbl_bench_t *bench, mbl_ops_t *ops, mbl_op_t op, const void *args,
                              const char *shape, mbl_dtype_t dtype, work_t work) {
    call_t call = {ops, args, op};
    mbl_bench_time_t time;
    double bytes = work.numbers * (double)mbl_dtype_size(dtype), copied, peak;
    MBL_TRY(mbl_bench_copy(bench, ops, bytes, &copied));
    MBL_TRY(mbl_bench_peak(bench, ops, MBL_F32, &peak)); /* of bf16 too: it is computed with in f32 */
    MBL_TRY(mbl_bench_measure(bench, run_call, &call, &time));
    char what[96];
    snprintf(what, sizeof what, "%s %s %s", mbl_op_name(op), mbl_dtype_name(dtype), shape);
    const mbl_bench_figure_t figure[] = {
        {.name = "gflops", .value = 1e-9 * work.flops / time.median},
        {.name = "gb_per_s", .value = 1e-9 * bytes / time.median},
        {.name = "percent_of_copy", .value = 100 * copied / time.median},
        {.name = "threads", .value = (double)ops->threads},
        {.name = "percent_of_peak", .value = peak > 0 ? 100 * work.flops / time.median / peak : 0}};
    return mbl_bench_print(bench, "loops", what, &time, figure, peak > 0 ? 5 : 4);
}

/* Every tensor of a case is taken from here and freed with it. */
typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_tensor_t tensor[MOST];
    size_t n;
    mbl_status_t status;
} pool_t;

static mbl_tensor_t *take(pool_t *pool, mbl_dtype_t dtype, const size_t *dim, int ndim) {
    mbl_tensor_t *t = &pool->tensor[pool->n];
    size_t four[4] = {1, 1, 1, 1};
    for (int i = 0; i < ndim; i++)
        four[4 - ndim + i] = dim[i];
    if (pool->status == MBL_OK)
        pool->status = mbl_bench_random(pool->ops, dtype, t, four[0], four[1], four[2], four[3]);
    if (pool->status != MBL_OK)
        return t;
    pool->n++;
    *t = ndim == 1   ? mbl_tensor_reshape(t, 1, dim[0])
         : ndim == 2 ? mbl_tensor_reshape(t, 2, dim[0], dim[1])
         : ndim == 3 ? mbl_tensor_reshape(t, 3, dim[0], dim[1], dim[2])
                     : *t;
    return t;
}

/* Of a type by its shape; of ct; of the type of statistics. */
#define OF(dtype, ...)                                                                                       \
    take(pool, (dtype), (const size_t[]){__VA_ARGS__},                                                       \
         (int)(sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t)))
#define CT(...) OF(pool->dtype, __VA_ARGS__)
#define ST(...) OF(mbl_dtype_stat(pool->dtype), __VA_ARGS__)

static mbl_status_t sample_grad_case(const mbl_bench_t *bench, pool_t *pool, const size_t shape[4]) {
    size_t n = bench->samples, tokens = shape[0], p = shape[1], q = shape[2], k = shape[3];
    const mbl_sample_grad_args_t args = {.acc = OF(MBL_F64, k, p, q),
                                         .a = CT(n, tokens, p),
                                         .b = CT(n, tokens, q),
                                         .coefficient = OF(MBL_F32, k, n),
                                         .factor = 1};
    const work_t work = {.flops = 2 * (double)(n * p * q) * (double)(tokens + k),
                         .numbers = (double)(n * tokens * (p + q))};
    char text[64];
    MBL_TRY(pool->status);
    snprintf(text, sizeof text, "%zux%zux%zux%zu k=%zu", n, tokens, p, q, k);
    return time_call(bench, pool->ops, MBL_OP_sample_grad, &args, text, pool->dtype, work);
}

static mbl_status_t qk_norm_case(const mbl_bench_t *bench, pool_t *pool, bool backward) {
    size_t n = bench->samples, all = T_IMAGE + T_TEXT;
    char shape[64];
    const mbl_tensor_t *qkv = CT(n, T_IMAGE, 3 * D), *q = CT(n, H, all, HEAD), *k = CT(n, H, all, HEAD),
                       *rstd_q = ST(n, T_IMAGE, H), *rstd_k = ST(n, T_IMAGE, H), *weight_q = CT(HEAD),
                       *weight_k = CT(HEAD), *dqkv = CT(n, T_IMAGE, 3 * D);
    MBL_TRY(pool->status);
    const mbl_qk_norm_args_t args = {.q = q,
                                     .k = k,
                                     .rstd_q = rstd_q,
                                     .rstd_k = rstd_k,
                                     .qkv = qkv,
                                     .weight_q = weight_q,
                                     .weight_k = weight_k,
                                     .eps = 1e-6};
    const mbl_qk_norm_bwd_args_t back = {.dqkv = dqkv,
                                         .dq = q,
                                         .dk = k,
                                         .qkv = qkv,
                                         .rstd_q = rstd_q,
                                         .rstd_k = rstd_k,
                                         .weight_q = weight_q,
                                         .weight_k = weight_k};
    snprintf(shape, sizeof shape, "%zux%dx%dx%d", n, T_IMAGE, H, HEAD);
    double elements = (double)(n * T_IMAGE * D);
    const work_t work = {.flops = 8 * elements, .numbers = 4 * elements},
                 work_back = {.flops = 16 * elements, .numbers = 6 * elements};
    return backward ? time_call(bench, pool->ops, MBL_OP_qk_norm_bwd, &back, shape, pool->dtype, work_back)
                    : time_call(bench, pool->ops, MBL_OP_qk_norm, &args, shape, pool->dtype, work);
}

/* The norms over the width, and the loops over the residual stream. */
static mbl_status_t norm_case(const mbl_bench_t *bench, pool_t *pool, mbl_op_t op) {
    size_t n = bench->samples;
    char shape[64];
    const mbl_tensor_t *x = CT(n, T_IMAGE, D), *y = CT(n, T_IMAGE, D), *h = CT(n, T_IMAGE, D),
                       *z = CT(n, T_IMAGE, D), *mean = ST(n, T_IMAGE), *rstd = ST(n, T_IMAGE),
                       *gate = CT(n, D), *scale = CT(n, D), *shift = CT(n, D);
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
    snprintf(shape, sizeof shape, "%zux%dx%d", n, T_IMAGE, D);
    double elements = (double)(n * T_IMAGE * D);
    struct {
        mbl_op_t op;
        const void *args;
        work_t work; /* of an element */
    } all[] = {{MBL_OP_gate_norm, &gate_norm, {11, 4}},
               {MBL_OP_layer_norm, &norm, {9, 2}},
               {MBL_OP_layer_norm_bwd, &norm_bwd, {14, 4}},
               {MBL_OP_gate_bwd, &gate_bwd, {1, 2}},
               {MBL_OP_act, &act, {25, 2}}};
    size_t i = 0;
    while (all[i].op != op)
        i++;
    const work_t work = {all[i].work.flops * elements, all[i].work.numbers * elements};
    return time_call(bench, pool->ops, op, all[i].args, shape, pool->dtype, work);
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
        return sample_grad_case(bench, pool, shapes[i]);
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
