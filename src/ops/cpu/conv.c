/* Convolutions of images, channels last: oneDNN in f32 and bf16, a sample at a time so that none depends on
 * its batch, with the primitives of recent shapes kept; plain loops in f64. */
#include "ops/cpu/cpu.h"
#include "base/mem.h"
#include "ops/cpu/dnnl_conv.h"
#include "ops/cpu/dnnl_setup.h"
#include "ops/cpu/isa.h"

#include <omp.h>
#include <string.h>

enum { MOST = 64 }; /* shapes kept; a decoder has about twenty */

typedef struct {
    mbl_dnnl_conv_t what;
    mbl_dnnl_convolution_t convolution;
} entry_t;

struct mbl_cpu_convs {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    entry_t entry[MOST];
    size_t n;
    unsigned char *packed, *scratch; /* weights as oneDNN wants them, and what it works in; grown as asked */
    size_t packed_bytes, scratch_bytes;
    unsigned char *wide; /* bf16 as f32, where oneDNN has no bf16 */
    size_t wide_bytes;
};

mbl_status_t mbl_cpu_convs_open(mbl_cpu_convs_t **out) {
    mbl_cpu_convs_t *c;
    MBL_ALLOC(c, 1);
    dnnl_status_t status = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (status != dnnl_success) {
        mbl_cpu_convs_close(c);
        return mbl_dnnl_failed("opening the CPU engine", status);
    }
    *out = c;
    return MBL_OK;
}

static void forget_all(mbl_cpu_convs_t *c) {
    for (size_t i = 0; i < c->n; i++)
        mbl_dnnl_convolution_free(&c->entry[i].convolution);
    c->n = 0;
}

void mbl_cpu_convs_close(mbl_cpu_convs_t *c) {
    if (!c)
        return;
    forget_all(c);
    mbl_free(c->packed);
    mbl_free(c->scratch);
    mbl_free(c->wide);
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    if (c->engine)
        dnnl_engine_destroy(c->engine);
    mbl_free(c);
}

static mbl_status_t find(mbl_cpu_convs_t *c, const mbl_dnnl_conv_t *what, mbl_dnnl_convolution_t **out) {
    for (size_t i = 0; i < c->n; i++)
        if (memcmp(&c->entry[i].what, what, sizeof *what) == 0) {
            *out = &c->entry[i].convolution;
            return MBL_OK;
        }
    if (c->n == MOST)
        forget_all(c);
    entry_t *entry = &c->entry[c->n];
    dnnl_status_t status = mbl_dnnl_convolution_new(c->engine, what, &entry->convolution);
    if (status != dnnl_success)
        return mbl_dnnl_failed("making a convolution", status);
    entry->what = *what;
    c->n++;
    *out = &entry->convolution;
    return MBL_OK;
}

static mbl_status_t grow(unsigned char **memory, size_t *bytes, size_t wanted) {
    if (wanted <= *bytes)
        return MBL_OK;
    mbl_free(*memory);
    *memory = NULL;
    *bytes = 0;
    MBL_ALLOC(*memory, wanted);
    *bytes = wanted;
    return MBL_OK;
}

static mbl_dnnl_conv_t describe(const mbl_ops_t *ops, const mbl_conv2d_args_t *x) {
    mbl_dnnl_conv_t what;
    memset(&what, 0, sizeof what);
    what.height = (int64_t)(x->x->dim[1] * x->up);
    what.width = (int64_t)(x->x->dim[2] * x->up);
    what.channels = (int64_t)x->x->dim[3];
    what.outputs = (int64_t)x->y->dim[3];
    what.kh = (int64_t)x->weight->dim[1];
    what.kw = (int64_t)x->weight->dim[2];
    what.pad = (int64_t)x->pad;
    what.ct = (int32_t)x->x->dtype;
    what.bias = x->bias != NULL;
    what.accumulate = x->accumulate;
    what.threads = ops->threads;
    return what;
}

/* An image [height,width,pixel bytes] with every pixel repeated up x up times. */
static void enlarge(const mbl_ops_t *ops, char *out, const char *x, size_t height, size_t width, size_t pixel,
                    size_t up) {
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < height * up; i++) {
        char *to = out + i * width * up * pixel;
        const char *from = x + i / up * width * pixel;
        for (size_t j = 0; j < width * up; j++)
            memcpy(to + j * pixel, from + j / up * pixel, pixel);
    }
}

static mbl_status_t pack_weights(mbl_cpu_convs_t *c, const mbl_dnnl_convolution_t *p, void *weight) {
    dnnl_memory_set_data_handle(p->weight, weight);
    dnnl_memory_set_data_handle(p->packed, c->packed);
    const dnnl_exec_arg_t arg[] = {{DNNL_ARG_FROM, p->weight}, {DNNL_ARG_TO, p->packed}};
    dnnl_status_t status = dnnl_primitive_execute(p->pack, c->stream, 2, arg);
    return status == dnnl_success ? MBL_OK : mbl_dnnl_failed("laying out a convolution's weights", status);
}

static mbl_status_t run_sample(mbl_cpu_convs_t *c, const mbl_dnnl_convolution_t *p, const mbl_tensor_t *bias,
                               void *y, void *x) {
    dnnl_memory_set_data_handle(p->x, x);
    dnnl_memory_set_data_handle(p->y, y);
    dnnl_exec_arg_t arg[5] = {{DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, p->packed}, {DNNL_ARG_DST, p->y}};
    int n = 3;
    if (p->scratch_bytes > 0) {
        dnnl_memory_set_data_handle(p->scratch, c->scratch);
        arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, p->scratch};
    }
    if (bias) {
        dnnl_memory_set_data_handle(p->bias, bias->data);
        arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p->bias};
    }
    dnnl_status_t status = dnnl_primitive_execute(p->conv, c->stream, n, arg);
    return status == dnnl_success ? MBL_OK : mbl_dnnl_failed("a convolution", status);
}

static mbl_status_t run_all(mbl_ops_t *ops, const mbl_conv2d_args_t *x) {
    mbl_cpu_convs_t *c = mbl_cpu_of(ops)->convs;
    const mbl_dnnl_conv_t what = describe(ops, x);
    size_t size = mbl_dtype_size(x->x->dtype), pixel = x->x->dim[3] * size;
    mbl_dnnl_convolution_t *p = NULL;
    void *large = NULL;
    MBL_TRY(find(c, &what, &p));
    MBL_TRY(grow(&c->packed, &c->packed_bytes, p->packed_bytes));
    MBL_TRY(grow(&c->scratch, &c->scratch_bytes, p->scratch_bytes));
    if (x->up > 1)
        MBL_TRY(mbl_cpu_workspace(ops, (size_t)what.height * (size_t)what.width * pixel, &large));
    MBL_TRY(pack_weights(c, p, x->weight->data));
    for (size_t n = 0; n < x->x->dim[0]; n++) {
        char *from = (char *)x->x->data + n * x->x->stride[0] * size;
        char *to = (char *)x->y->data + n * x->y->stride[0] * size;
        if (x->up > 1)
            enlarge(ops, large, from, x->x->dim[1], x->x->dim[2], pixel, x->up);
        MBL_TRY(run_sample(c, p, x->bias, to, x->up > 1 ? large : from));
    }
    return MBL_OK;
}

/* A dense f32 copy of a bf16 tensor whose samples alone may lie apart; moves *at behind it. */
static mbl_tensor_t widened(const mbl_ops_t *ops, const mbl_tensor_t *x, float **at, bool copy) {
    size_t rows = x->ndim > 1 ? x->dim[0] : 1, each = mbl_tensor_count(x) / (rows ? rows : 1);
    size_t apart = x->ndim > 1 ? x->stride[0] : each;
    const uint16_t *from = x->data;
    mbl_tensor_t out = *x;
    out.dtype = MBL_F32;
    out.data = *at;
    if (x->ndim > 1)
        out.stride[0] = each;
    *at += rows * each;
    if (!copy)
        return out;
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < rows * each; i++)
        ((float *)out.data)[i] = mbl_bf16_to_f32(from[i / each * apart + i % each]);
    return out;
}

static void narrow(const mbl_ops_t *ops, const mbl_tensor_t *y, const float *from) {
    size_t each = mbl_tensor_count(y) / (y->dim[0] ? y->dim[0] : 1);
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < y->dim[0] * each; i++)
        ((uint16_t *)y->data)[i / each * y->stride[0] + i % each] = mbl_bf16_from_f32(from[i]);
}

/* bf16 on CPUs without AVX-512: in f32, rounded at the end, as bf16 units do it. */
static mbl_status_t run_widened(mbl_ops_t *ops, const mbl_conv2d_args_t *x) {
    mbl_cpu_convs_t *c = mbl_cpu_of(ops)->convs;
    size_t room = mbl_tensor_count(x->x) + mbl_tensor_count(x->weight) + mbl_tensor_count(x->y) +
                  (x->bias ? mbl_tensor_count(x->bias) : 0);
    mbl_tensor_t bias;
    MBL_TRY(grow(&c->wide, &c->wide_bytes, room * sizeof(float)));
    float *at = (float *)(void *)c->wide;
    mbl_tensor_t from = widened(ops, x->x, &at, true), weight = widened(ops, x->weight, &at, true);
    mbl_tensor_t y = widened(ops, x->y, &at, x->accumulate);
    mbl_conv2d_args_t wide = *x;
    wide.x = &from;
    wide.weight = &weight;
    wide.y = &y;
    if (x->bias) {
        bias = widened(ops, x->bias, &at, true);
        wide.bias = &bias;
    }
    MBL_TRY(run_all(ops, &wide));
    narrow(ops, x->y, y.data);
    return MBL_OK;
}

/* The sum over window and channels of one number of the result. */
static double sum_f64(const mbl_conv2d_args_t *a, size_t n, size_t row, size_t column, size_t output) {
    const mbl_tensor_t *x = a->x, *w = a->weight;
    double sum = 0;
    for (size_t i = 0; i < w->dim[1]; i++)
        for (size_t j = 0; j < w->dim[2]; j++) {
            size_t at = row + i, beside = column + j; /* counted from the padding's corner */
            if (at < a->pad || at - a->pad >= x->dim[1] * a->up || beside < a->pad ||
                beside - a->pad >= x->dim[2] * a->up)
                continue;
            const double *pixel = (const double *)x->data + n * x->stride[0] +
                                  (at - a->pad) / a->up * x->stride[1] +
                                  (beside - a->pad) / a->up * x->stride[2];
            const double *weight =
                (const double *)w->data + output * w->stride[0] + i * w->stride[1] + j * w->stride[2];
            double part = 0;
#pragma omp simd reduction(+ : part)
            for (size_t c = 0; c < x->dim[3]; c++)
                part += pixel[c] * weight[c];
            sum += part;
        }
    return sum;
}

static void conv_f64(const mbl_ops_t *ops, const mbl_conv2d_args_t *a) {
    size_t height = a->y->dim[1], width = a->y->dim[2], outputs = a->y->dim[3];
    const double *bias = a->bias ? a->bias->data : NULL;
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t pixel = 0; pixel < a->y->dim[0] * height * width; pixel++) {
        double *y = (double *)a->y->data + pixel * outputs;
        for (size_t o = 0; o < outputs; o++) {
            double sum = sum_f64(a, pixel / width / height, pixel / width % height, pixel % width, o);
            y[o] = (a->accumulate ? y[o] : 0) + sum + (bias ? bias[o] : 0);
        }
    }
}

mbl_status_t mbl_cpu_conv2d(mbl_ops_t *ops, const mbl_conv2d_args_t *args) {
    if (args->x->dtype == MBL_F64) {
        conv_f64(ops, args);
        return MBL_OK;
    }
    /* oneDNN takes OpenMP's number of threads, which belongs to the calling thread. */
    if (omp_get_max_threads() != ops->threads)
        omp_set_num_threads(ops->threads);
    return args->x->dtype == MBL_BF16 && !mbl_cpu_has_bf16() ? run_widened(ops, args) : run_all(ops, args);
}
