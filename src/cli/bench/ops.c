/* marble bench matmul and attention: the operations that most of a step's arithmetic is in; marble bench
 * conv: those of an image decoder. */
#include "base/rng.h"
#include "cli/bench/bench.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>

mbl_status_t mbl_bench_random(mbl_ops_t *ops, mbl_dtype_t dtype, mbl_tensor_t *out, size_t a, size_t b,
                              size_t c, size_t d) {
    mbl_tensor_t wide = {.data = NULL}, noise, sample = {.data = NULL};
    int64_t index = 0;
    MBL_TRY(mbl_tensor_new(ops, dtype, out, 4, a, b, c, d));
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &wide, 4, a, b, c, d), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_I64, &sample, 1, (size_t)1), done);
    MBL_TRY_GOTO(mbl_tensor_upload(ops, &sample, &index), done);
    noise = mbl_tensor_reshape(&wide, 2, (size_t)1, a * b * c * d);
    MBL_TRY_GOTO(MBL_OP(ops, normal, .y = &noise, .sample = &sample, .seed = 1, .purpose = MBL_RNG_NOISE),
                 done);
    status = MBL_OP(ops, convert, .dst = out, .src = &wide);
done:
    mbl_tensor_free(ops, &wide);
    mbl_tensor_free(ops, &sample);
    if (status != MBL_OK)
        mbl_tensor_free(ops, out);
    return status;
}

typedef struct {
    mbl_ops_t *ops;
    mbl_matmul_args_t args;
} product_t;

static mbl_status_t run_product(void *context) {
    product_t *p = context;
    MBL_TRY(mbl_op_matmul(p->ops, &p->args));
    return p->ops->table->sync(p->ops);
}

/* [M,K] times [K,N], as a linear layer does it forward (b stored [N,K]), backward to its input (b stored
 * [K,N]), or backward to its weights (a stored [K,M], accumulated in f32). */
typedef struct {
    const char *name;
    size_t m, k, n;
    bool transpose_a, transpose_b;
} product_case_t;

static const product_case_t product_cases[] = {
    {"qkv", 3072, 128, 384, false, true},       {"out", 3072, 128, 128, false, true},
    {"ff in", 3072, 128, 512, false, true},     {"ff out", 3072, 512, 128, false, true},
    {"text qkv", 768, 128, 384, false, true},   {"qkv dx", 3072, 384, 128, false, false},
    {"ff in dx", 3072, 512, 128, false, false}, {"lora down", 3072, 128, 16, false, true},
    {"lora up", 3072, 16, 128, false, true},    {"qkv dw", 384, 3072, 128, true, false},
    {"ff dw", 512, 3072, 128, true, false},     {"lora dw", 16, 3072, 128, true, false},
    {"square", 1024, 1024, 1024, false, true},
};

/* Beside the time: shares of what multiplications alone could reach, where that is known, and of a copy of as
 * many bytes as the operands have. */
static mbl_status_t print_product(const mbl_bench_t *bench, const product_t *p, const char *what,
                                  const mbl_bench_time_t *time, double flops, double peak) {
    const mbl_matmul_args_t *x = &p->args;
    double copied,
        bytes = (double)(mbl_tensor_count(x->a) * mbl_dtype_size(x->a->dtype) +
                         mbl_tensor_count(x->b) * mbl_dtype_size(x->b->dtype) +
                         mbl_tensor_count(x->y) * mbl_dtype_size(x->y->dtype) * (x->accumulate ? 2 : 1));
    MBL_TRY(mbl_bench_copy(bench, p->ops, bytes, &copied));
    const mbl_bench_figure_t figure[] = {
        {.name = "gflops", .value = 1e-9 * flops / time->median},
        {.name = "percent_of_copy", .value = 100 * copied / time->median},
        {.name = "threads", .value = (double)p->ops->threads},
        {.name = "percent_of_peak", .value = peak > 0 ? 100 * flops / time->median / peak : 0},
        {.name = "peak_gflops", .value = 1e-9 * peak}};
    return mbl_bench_print(bench, "matmul", what, time, figure, peak > 0 ? 5 : 3);
}

static mbl_status_t time_product(const mbl_bench_t *bench, mbl_ops_t *ops, const product_case_t *c,
                                 mbl_dtype_t dtype, double peak) {
    mbl_tensor_t a = {.data = NULL}, b = {.data = NULL}, y = {.data = NULL};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bench_random(ops, dtype, &a, 1, 1, c->m, c->k), done);
    MBL_TRY_GOTO(mbl_bench_random(ops, dtype, &b, 1, 1, c->k, c->n), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, c->transpose_a ? mbl_dtype_stat(dtype) : dtype, &y, 2, c->m, c->n),
                 done);
    mbl_tensor_t left = mbl_tensor_reshape(&a, 2, c->transpose_a ? c->k : c->m, c->transpose_a ? c->m : c->k);
    mbl_tensor_t right =
        mbl_tensor_reshape(&b, 2, c->transpose_b ? c->n : c->k, c->transpose_b ? c->k : c->n);
    product_t p = {ops,
                   {.y = &y,
                    .a = &left,
                    .b = &right,
                    .transpose_a = c->transpose_a,
                    .transpose_b = c->transpose_b,
                    .accumulate = c->transpose_a}};
    mbl_bench_time_t time;
    MBL_TRY_GOTO(mbl_bench_measure(bench, run_product, &p, &time), done);
    char what[64];
    snprintf(what, sizeof what, "%s %zux%zux%zu %s", mbl_dtype_name(dtype), c->m, c->k, c->n, c->name);
    status = print_product(bench, &p, what, &time, 2 * (double)c->m * (double)c->k * (double)c->n, peak);
done:
    mbl_tensor_free(ops, &a);
    mbl_tensor_free(ops, &b);
    mbl_tensor_free(ops, &y);
    return status;
}

mbl_status_t mbl_bench_matmul(const mbl_bench_t *bench) {
    mbl_ops_t *ops;
    MBL_TRY(mbl_ops_open(bench->device, bench->threads, &ops));
    mbl_status_t status = MBL_OK;
    static const mbl_dtype_t dtypes[] = {MBL_F32, MBL_BF16};
    enum { CASES = sizeof product_cases / sizeof *product_cases };
    double peak = 0;
    for (size_t i = 0; i < 2 * CASES && status == MBL_OK; i++) {
        if (i % CASES == 0)
            status = mbl_bench_peak(bench, ops, dtypes[i / CASES], &peak);
        if (status == MBL_OK)
            status = time_product(bench, ops, &product_cases[i % CASES], dtypes[i / CASES], peak);
    }
    mbl_ops_close(ops);
    return status;
}

/* q, k, their gradients, rows of queries, keys and values and their gradients, the merged output and its
 * gradient. */
typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t heads[4], qkv[2], out[2], lse;
    double scale;
} attention_t;

static mbl_tensor_t values(const mbl_tensor_t *qkv) {
    const size_t d = qkv->dim[3] / 3;
    mbl_tensor_t rows = mbl_tensor_reshape(qkv, 3, qkv->dim[0], qkv->dim[2], 3 * d);
    return mbl_tensor_columns(&rows, 2 * d, d);
}

static mbl_status_t run_forward(void *context) {
    attention_t *x = context;
    mbl_tensor_t v = values(&x->qkv[0]);
    MBL_TRY(MBL_OP(x->ops, attention, .out1 = &x->out[0], .lse = &x->lse, .q = &x->heads[0],
                   .k = &x->heads[1], .v1 = &v, .scale = x->scale));
    return x->ops->table->sync(x->ops);
}

static mbl_status_t run_backward(void *context) {
    attention_t *x = context;
    mbl_tensor_t v = values(&x->qkv[0]), dv = values(&x->qkv[1]);
    MBL_TRY(MBL_OP(x->ops, attention_bwd, .dq = &x->heads[2], .dk = &x->heads[3], .dv1 = &dv,
                   .dout1 = &x->out[1], .out1 = &x->out[0], .lse = &x->lse, .q = &x->heads[0],
                   .k = &x->heads[1], .v1 = &v, .scale = x->scale));
    return x->ops->table->sync(x->ops);
}

static mbl_status_t print_attention(const mbl_bench_t *bench, const attention_t *x, const char *direction,
                                    double products, const mbl_bench_time_t *time) {
    const size_t *dim = x->heads[0].dim;
    char what[64];
    snprintf(what, sizeof what, "%s %zux%zux%zux%zu %s", mbl_dtype_name(x->heads[0].dtype), dim[0], dim[1],
             dim[2], dim[3], direction);
    double flops = products * 2 * (double)(dim[0] * dim[1]) * (double)(dim[2] * dim[2]) * (double)dim[3],
           peak;
    MBL_TRY(mbl_bench_peak(bench, x->ops, MBL_F32, &peak)); /* the CPU widens bf16 */
    const mbl_bench_figure_t figure[] = {
        {.name = "gflops", .value = 1e-9 * flops / time->median},
        {.name = "threads", .value = (double)x->ops->threads},
        {.name = "percent_of_peak", .value = peak > 0 ? 100 * flops / time->median / peak : 0}};
    return mbl_bench_print(bench, "attention", what, time, figure, peak > 0 ? 3 : 2);
}

static mbl_status_t time_attention(const mbl_bench_t *bench, mbl_ops_t *ops, const size_t dim[4],
                                   mbl_dtype_t dtype) {
    attention_t x = {.ops = ops, .scale = 1 / sqrt((double)dim[3])};
    mbl_bench_time_t time;
    mbl_status_t status;
    for (int i = 0; i < 4; i++)
        MBL_TRY_GOTO(mbl_bench_random(ops, dtype, &x.heads[i], dim[0], dim[1], dim[2], dim[3]), done);
    for (int i = 0; i < 2; i++)
        MBL_TRY_GOTO(mbl_bench_random(ops, dtype, &x.qkv[i], dim[0], 1, dim[2], 3 * dim[1] * dim[3]), done);
    for (int i = 0; i < 2; i++)
        MBL_TRY_GOTO(mbl_tensor_new(ops, dtype, &x.out[i], 3, dim[0], dim[2], dim[1] * dim[3]), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, mbl_dtype_stat(dtype), &x.lse, 3, dim[0], dim[1], dim[2]), done);
    MBL_TRY_GOTO(mbl_bench_measure(bench, run_forward, &x, &time), done);
    MBL_TRY_GOTO(print_attention(bench, &x, "forward", 2, &time), done);
    MBL_TRY_GOTO(mbl_tensor_copy(ops, &x.out[1], &x.out[0]), done);
    MBL_TRY_GOTO(mbl_bench_measure(bench, run_backward, &x, &time), done);
    status = print_attention(bench, &x, "backward", 5, &time);
done:
    for (int i = 0; i < 4; i++)
        mbl_tensor_free(ops, &x.heads[i]);
    for (int i = 0; i < 2; i++) {
        mbl_tensor_free(ops, &x.qkv[i]);
        mbl_tensor_free(ops, &x.out[i]);
    }
    mbl_tensor_free(ops, &x.lse);
    return status;
}

mbl_status_t mbl_bench_attention(const mbl_bench_t *bench) {
    mbl_ops_t *ops;
    MBL_TRY(mbl_ops_open(bench->device, bench->threads, &ops));
    mbl_status_t status = MBL_OK;
    /* the last, a batch of SD3.5-Medium, is for devices: it fills one */
    static const size_t dims[][4] = {{48, 4, 80, 32}, {48, 4, 64, 32}, {1, 24, 1229, 64}, {9, 24, 1229, 64}};
    static const mbl_dtype_t dtypes[] = {MBL_F32, MBL_BF16};
    size_t cases = sizeof dims / sizeof *dims - (ops->table->space == MBL_HOST);
    for (size_t i = 0; i < 2 * cases && status == MBL_OK; i++)
        status = time_attention(bench, ops, dims[i % cases], dtypes[i / cases]);
    mbl_ops_close(ops);
    return status;
}

/* x, weight, bias and y of a convolution; of a group norm all but `weight`. */
typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t x, weight, bias, scale, y;
    size_t up;
} image_t;

static mbl_status_t run_conv(void *context) {
    image_t *p = context;
    MBL_TRY(MBL_OP(p->ops, conv2d, .y = &p->y, .x = &p->x, .weight = &p->weight, .bias = &p->bias,
                   .pad = p->weight.dim[1] / 2, .up = p->up));
    return p->ops->table->sync(p->ops);
}

static mbl_status_t run_group_norm(void *context) {
    image_t *p = context;
    const size_t *dim = p->x.dim;
    mbl_tensor_t x = mbl_tensor_reshape(&p->x, 3, dim[0], dim[1] * dim[2], dim[3]);
    MBL_TRY(MBL_OP(p->ops, group_norm, .y = &x, .x = &x, .weight = &p->scale, .bias = &p->scale, .groups = 32,
                   .eps = 1e-6, .silu = true));
    return p->ops->table->sync(p->ops);
}

/* Images of a decoder of SD3's layout on its way from 64 x 64 latents to 512 x 512 pixels. */
typedef struct {
    size_t side, channels, outputs, window, up;
    bool norm; /* time the group norm before it, too */
} conv_case_t;

static const conv_case_t conv_cases[] = {
    {64, 512, 512, 3, 1, true},   {64, 512, 512, 3, 2, false}, {128, 256, 256, 3, 1, true},
    {128, 512, 256, 1, 1, false}, {256, 128, 128, 3, 1, true}, {256, 128, 3, 3, 1, false},
};

static mbl_status_t time_image(const mbl_bench_t *bench, image_t *p, const conv_case_t *c) {
    mbl_bench_time_t time;
    char what[96];
    const char *type = mbl_dtype_name(p->x.dtype);
    MBL_TRY(mbl_bench_measure(bench, run_conv, p, &time));
    snprintf(what, sizeof what, "%s %zux%zux%zu -> %zu, %zux%zu%s", type, c->side, c->side, c->channels,
             c->outputs, c->window, c->window, c->up > 1 ? ", enlarged" : "");
    double flops = 2 * (double)mbl_tensor_count(&p->y) * (double)(c->window * c->window * c->channels);
    const mbl_bench_figure_t conv[] = {{.name = "gflops", .value = 1e-9 * flops / time.median},
                                       {.name = "threads", .value = (double)p->ops->threads}};
    MBL_TRY(mbl_bench_print(bench, "conv", what, &time, conv, 2));
    if (!c->norm)
        return MBL_OK;
    MBL_TRY(mbl_bench_measure(bench, run_group_norm, p, &time));
    snprintf(what, sizeof what, "%s %zux%zux%zu group norm, silu", type, c->side, c->side, c->channels);
    double bytes = 2 * (double)mbl_tensor_count(&p->x) * (double)mbl_dtype_size(p->x.dtype);
    const mbl_bench_figure_t norm[] = {{.name = "gb_per_s", .value = 1e-9 * bytes / time.median},
                                       {.name = "threads", .value = (double)p->ops->threads}};
    return mbl_bench_print(bench, "conv", what, &time, norm, 2);
}

static mbl_status_t time_conv(const mbl_bench_t *bench, mbl_ops_t *ops, const conv_case_t *c,
                              mbl_dtype_t dtype) {
    image_t p = {.ops = ops, .up = c->up};
    mbl_tensor_t *all[] = {&p.x, &p.weight, &p.bias, &p.scale, &p.y};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bench_random(ops, dtype, &p.x, 1, c->side, c->side, c->channels), done);
    MBL_TRY_GOTO(mbl_bench_random(ops, dtype, &p.weight, c->outputs, c->window, c->window, c->channels),
                 done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, dtype, &p.bias, 1, c->outputs), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, dtype, &p.scale, 1, c->channels), done);
    MBL_TRY_GOTO(mbl_tensor_new(ops, dtype, &p.y, 4, (size_t)1, c->side * c->up, c->side * c->up, c->outputs),
                 done);
    status = time_image(bench, &p, c);
done:
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(ops, all[i]);
    return status;
}

mbl_status_t mbl_bench_conv(const mbl_bench_t *bench) {
    mbl_ops_t *ops;
    MBL_TRY(mbl_ops_open(bench->device, bench->threads, &ops));
    mbl_status_t status = MBL_OK;
    static const mbl_dtype_t dtypes[] = {MBL_F32, MBL_BF16};
    enum { CASES = sizeof conv_cases / sizeof *conv_cases };
    for (size_t i = 0; i < 2 * CASES && status == MBL_OK; i++)
        status = time_conv(bench, ops, &conv_cases[i % CASES], dtypes[i / CASES]);
    mbl_ops_close(ops);
    return status;
}
