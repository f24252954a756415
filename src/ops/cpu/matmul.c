/* Matrix products: own kernels in f32 and bf16 (gemm.h), or with AVX-512 oneDNN with the primitives of recent
 * shapes kept, where what goes in or out beside an activation is a pass of its own; plain loops in f64 for
 * gradient checks. */
#include "ops/cpu/cpu.h"
#include "base/mem.h"
#include "ops/cpu/dnnl_compat.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/dnnl_setup.h"
#include "ops/cpu/isa.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { SLOTS = 8192, MOST = 4096 }; /* of the hash table; all go when it is half full */
enum { TILE_K = 32 };               /* bf16 values along K in a tile */

/* With few rows oneDNN takes kernels that add in another order, so that a sample's result would depend on how
 * many share its batch: such products run on padded copies. So it does in bf16 with few columns (a LoRA of
 * small rank), whatever the rows: those run in blocks of so many rows. */
enum { FEW_ROWS = 16, PADDED_ROWS = 32, FEW_COLUMNS = 16 };

typedef struct {
    mbl_dnnl_matmul_t what;
    mbl_dnnl_product_t product;
} entry_t;

struct mbl_cpu_matmuls {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bool has_amx; /* bf16 products run in tile registers (AMX) */
    const mbl_gemm_kernel_t *own;
    bool all_own;           /* not with AVX-512, where oneDNN is faster */
    unsigned char *scratch; /* oneDNN's own, grown as asked */
    size_t scratch_bytes, n;
    entry_t *entry[SLOTS];
    char *padding;
    size_t padding_bytes;
};

mbl_status_t mbl_cpu_matmuls_open(mbl_cpu_matmuls_t **out) {
    mbl_cpu_matmuls_t *m;
    mbl_cpu_isa_t isa;
    MBL_TRY(mbl_cpu_isa(&isa));
    MBL_ALLOC(m, 1);
    dnnl_status_t status = dnnl_engine_create(&m->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&m->stream, m->engine, dnnl_stream_default_flags);
    if (status != dnnl_success) {
        mbl_cpu_matmuls_close(m);
        return mbl_dnnl_failed("opening the CPU engine", status);
    }
    m->has_amx = mbl_cpu_has_amx();
    m->all_own = isa != MBL_CPU_AVX512;
    m->own = mbl_gemm_kernel(mbl_cpu_isa_name(m->all_own ? isa : MBL_CPU_AVX2));
    *out = m;
    return MBL_OK;
}

static void forget_all(mbl_cpu_matmuls_t *m) {
    for (size_t i = 0; i < SLOTS; i++) {
        if (!m->entry[i])
            continue;
        mbl_dnnl_product_free(&m->entry[i]->product);
        mbl_free(m->entry[i]);
        m->entry[i] = NULL;
    }
    m->n = 0;
}

void mbl_cpu_matmuls_close(mbl_cpu_matmuls_t *m) {
    if (!m)
        return;
    forget_all(m);
    mbl_free(m->scratch);
    if (m->stream)
        dnnl_stream_destroy(m->stream);
    if (m->engine)
        dnnl_engine_destroy(m->engine);
    mbl_free(m->padding);
    mbl_free(m);
}

static size_t hash_of(const mbl_dnnl_matmul_t *what) {
    uint64_t word[sizeof *what / 8], hash = 0x9E3779B97F4A7C15u;
    memcpy(word, what, sizeof word);
    for (size_t i = 0; i < sizeof word / sizeof word[0]; i++) {
        hash = (hash ^ word[i]) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 32;
    }
    return (size_t)hash;
}

static mbl_status_t find_product(mbl_cpu_matmuls_t *m, const mbl_dnnl_matmul_t *what,
                                 mbl_dnnl_product_t **out) {
    size_t at = hash_of(what) % SLOTS;
    for (; m->entry[at]; at = (at + 1) % SLOTS)
        if (memcmp(&m->entry[at]->what, what, sizeof *what) == 0) {
            *out = &m->entry[at]->product;
            return MBL_OK;
        }
    if (m->n >= MOST) {
        forget_all(m);
        at = hash_of(what) % SLOTS;
    }
    entry_t *entry;
    MBL_ALLOC(entry, 1);
    entry->what = *what;
    dnnl_status_t status = mbl_dnnl_product_new(m->engine, what, &entry->product);
    if (status != dnnl_success) {
        mbl_free(entry);
        return mbl_dnnl_failed("making a matrix product", status);
    }
    m->entry[at] = entry;
    m->n++;
    *out = &entry->product;
    return MBL_OK;
}

static mbl_dnnl_matmul_t describe(const mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    mbl_dnnl_matmul_t what;
    memset(&what, 0, sizeof what);
    what.m = (int64_t)x->y->dim[0];
    what.n = (int64_t)x->y->dim[1];
    what.k = (int64_t)x->a->dim[!x->transpose_a];
    int64_t a = (int64_t)x->a->stride[0], b = (int64_t)x->b->stride[0];
    what.a_row = x->transpose_a ? 1 : a;
    what.a_column = x->transpose_a ? a : 1;
    what.b_row = x->transpose_b ? 1 : b;
    what.b_column = x->transpose_b ? b : 1;
    what.y_row = (int64_t)x->y->stride[0];
    what.ct = (int32_t)x->a->dtype;
    what.y_type = (int32_t)x->y->dtype;
    what.act = (int32_t)x->act;
    what.bias = x->bias != NULL;
    what.accumulate = x->accumulate;
    what.threads = ops->threads;
    return what;
}

static mbl_status_t grow_scratch(mbl_cpu_matmuls_t *m, size_t bytes) {
    if (bytes <= m->scratch_bytes)
        return MBL_OK;
    mbl_free(m->scratch);
    m->scratch_bytes = 0;
    MBL_ALLOC(m->scratch, bytes);
    m->scratch_bytes = bytes;
    return MBL_OK;
}

static mbl_status_t run_product(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    mbl_cpu_matmuls_t *m = mbl_cpu_of(ops)->matmuls;
    const mbl_dnnl_matmul_t what = describe(ops, x);
    mbl_dnnl_product_t *p = NULL;
    MBL_TRY(find_product(m, &what, &p));
    MBL_TRY(grow_scratch(m, p->scratch_bytes));
    dnnl_memory_set_data_handle(p->a, x->a->data);
    dnnl_memory_set_data_handle(p->b, x->b->data);
    dnnl_memory_set_data_handle(p->y, x->y->data);
    dnnl_exec_arg_t arg[5] = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->y}};
    int n = 3;
    if (p->scratch_bytes > 0) {
        dnnl_memory_set_data_handle(p->scratch, m->scratch);
        arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, p->scratch};
    }
    if (x->bias) {
        dnnl_memory_set_data_handle(p->bias, x->bias->data);
        arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p->bias};
    }
    dnnl_status_t status = dnnl_primitive_execute(p->primitive, m->stream, n, arg);
    return status == dnnl_success ? MBL_OK : mbl_dnnl_failed("a matrix product", status);
}

/* A copy of x [rows,columns] in bf16, filled up with zeros to those of *out, which is dense. */
static void pad(const mbl_ops_t *ops, const mbl_tensor_t *out, const mbl_tensor_t *x) {
    size_t columns = out->dim[1];
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < out->dim[0]; i++) {
        uint16_t *to = (uint16_t *)out->data + i * columns;
        size_t used = i < x->dim[0] ? x->dim[1] : 0;
        const uint16_t *from = (const uint16_t *)x->data + (used ? i * x->stride[0] : 0);
        for (size_t j = 0; j < used; j++)
            to[j] = from[j];
        for (size_t j = used; j < columns; j++)
            to[j] = 0;
    }
}

/* Tiles hold 32 values along K, and oneDNN leaves them out for less (a LoRA of rank 16): filling K up with
 * zeros is twice as fast. Whether that is done must not depend on M, so that rows do not depend on the
 * batch. */
static mbl_status_t run_filled_up(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    size_t m = x->y->dim[0], n = x->y->dim[1];
    void *work;
    MBL_TRY(mbl_cpu_workspace(ops, TILE_K * (m + n) * sizeof(uint16_t), &work));
    mbl_tensor_t a = mbl_tensor_of(work, MBL_BF16, MBL_HOST, 2, x->transpose_a ? (size_t)TILE_K : m,
                                   x->transpose_a ? m : (size_t)TILE_K);
    mbl_tensor_t b = mbl_tensor_of((uint16_t *)work + TILE_K * m, MBL_BF16, MBL_HOST, 2,
                                   x->transpose_b ? n : (size_t)TILE_K, x->transpose_b ? (size_t)TILE_K : n);
    pad(ops, &a, x->a);
    pad(ops, &b, x->b);
    mbl_matmul_args_t filled = *x;
    filled.a = &a;
    filled.b = &b;
    return run_product(ops, &filled);
}

static mbl_status_t run_any_depth(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    size_t n = x->y->dim[1], k = x->a->dim[!x->transpose_a];
    bool fill = x->a->dtype == MBL_BF16 && mbl_cpu_of(ops)->matmuls->has_amx && k < TILE_K && n >= TILE_K;
    return fill ? run_filled_up(ops, x) : run_product(ops, x);
}

static void copy_rows(const mbl_tensor_t *dst, const mbl_tensor_t *src, size_t rows) {
    size_t size = mbl_dtype_size(src->dtype);
    for (size_t i = 0; i < rows; i++)
        memcpy((char *)dst->data + i * dst->stride[0] * size, (char *)src->data + i * src->stride[0] * size,
               src->dim[1] * size);
}

static mbl_status_t run_padded(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    mbl_cpu_matmuls_t *m = mbl_cpu_of(ops)->matmuls;
    size_t rows = x->y->dim[0], k = x->a->dim[1], n = x->y->dim[1];
    size_t a_bytes = PADDED_ROWS * k * mbl_dtype_size(x->a->dtype);
    size_t bytes = a_bytes + PADDED_ROWS * n * mbl_dtype_size(x->y->dtype);
    if (bytes > m->padding_bytes) {
        mbl_free(m->padding);
        m->padding_bytes = 0;
        MBL_ALLOC(m->padding, bytes);
        m->padding_bytes = bytes;
    }
    mbl_tensor_t a = mbl_tensor_of(m->padding, x->a->dtype, MBL_HOST, 2, (size_t)PADDED_ROWS, k);
    mbl_tensor_t y = mbl_tensor_of(m->padding + a_bytes, x->y->dtype, MBL_HOST, 2, (size_t)PADDED_ROWS, n);
    memset(m->padding, 0, x->accumulate ? bytes : a_bytes);
    copy_rows(&a, x->a, rows);
    if (x->accumulate)
        copy_rows(&y, x->y, rows);
    mbl_matmul_args_t padded = *x;
    padded.a = &a;
    padded.y = &y;
    MBL_TRY(run_any_depth(ops, &padded));
    copy_rows(x->y, &y, rows);
    return MBL_OK;
}

static mbl_status_t run_in_blocks(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    for (size_t first = 0; first < x->y->dim[0]; first += PADDED_ROWS) {
        size_t rows = x->y->dim[0] - first < PADDED_ROWS ? x->y->dim[0] - first : PADDED_ROWS;
        mbl_tensor_t a = mbl_tensor_rows(x->a, first, rows), y = mbl_tensor_rows(x->y, first, rows);
        mbl_matmul_args_t block = *x;
        block.a = &a;
        block.y = &y;
        MBL_TRY(run_padded(ops, &block));
    }
    return MBL_OK;
}

static mbl_status_t run_any_rows(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    if (x->transpose_a)
        return run_any_depth(ops, x);
    if (x->a->dtype == MBL_BF16 && x->y->dim[1] < FEW_COLUMNS)
        return run_in_blocks(ops, x);
    return x->y->dim[0] <= FEW_ROWS ? run_padded(ops, x) : run_any_depth(ops, x);
}

/* A product of own kernels. */
static mbl_status_t run_own(mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    const mbl_gemm_kernel_t *kernel = mbl_cpu_of(ops)->matmuls->own;
    size_t bytes;
    void *work;
    MBL_TRY(mbl_gemm_bytes(kernel, x, ops->threads, &bytes));
    MBL_TRY(mbl_cpu_workspace(ops, bytes, &work));
    mbl_gemm_run(kernel, x, ops->threads, work);
    return MBL_OK;
}

static double act_f64(double x, mbl_act_t act) {
    switch (act) {
    case MBL_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case MBL_ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x * 0.7071067811865476));
    case MBL_ACT_SILU:
        return x / (1 + exp(-x));
    case MBL_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case MBL_ACT_NONE:
        break;
    }
    return x;
}

/* One row of an f64 product: y[n] += sum_k a[k a_step] b[k,n]. */
static void row_f64(double *y, const double *a, size_t a_step, const mbl_matmul_args_t *x, size_t k,
                    size_t n) {
    const double *b = x->b->data;
    size_t stride = x->b->stride[0];
    if (x->transpose_b) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (size_t i = 0; i < k; i++)
                sum += a[i * a_step] * b[j * stride + i];
            y[j] += sum;
        }
        return;
    }
    for (size_t i = 0; i < k; i++) {
        double factor = a[i * a_step];
#pragma omp simd
        for (size_t j = 0; j < n; j++)
            y[j] += factor * b[i * stride + j];
    }
}

static void product_f64(const mbl_ops_t *ops, const mbl_matmul_args_t *x) {
    size_t m = x->y->dim[0], n = x->y->dim[1], k = x->a->dim[!x->transpose_a], stride = x->a->stride[0];
    const double *a = x->a->data, *bias = x->bias ? x->bias->data : NULL;
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < m; i++) {
        double *y = (double *)x->y->data + i * x->y->stride[0];
        if (!x->accumulate)
            memset(y, 0, n * sizeof *y);
        row_f64(y, x->transpose_a ? a + i : a + i * stride, x->transpose_a ? stride : 1, x, k, n);
        for (size_t j = 0; j < n && (bias || x->act != MBL_ACT_NONE); j++)
            y[j] = act_f64(y[j] + (bias ? bias[j] : 0), x->act);
    }
}

/* The product with a bias and an activation, of y's rows alone. */
static mbl_status_t product(mbl_ops_t *ops, const mbl_matmul_args_t *args) {
    if (args->a->dtype == MBL_F64) {
        product_f64(ops, args);
        return MBL_OK;
    }
    /* oneDNN takes OpenMP's number of threads, which belongs to the calling thread. */
    if (omp_get_max_threads() != ops->threads)
        omp_set_num_threads(ops->threads);
    return run_any_rows(ops, args);
}

/* y = act(x), or y = y act'(x); whole matrices at once where they are dense. */
static mbl_status_t apply(mbl_ops_t *ops, const mbl_tensor_t *y, const mbl_tensor_t *x, mbl_act_t act,
                          bool slope) {
    const size_t rows = y->dim[0], columns = y->dim[1];
    const bool dense = mbl_tensor_contiguous(y) && mbl_tensor_contiguous(x);
    for (size_t i = 0; i < (dense ? 1 : rows); i++) {
        mbl_tensor_t to = mbl_tensor_rows(y, i, dense ? rows : 1),
                     from = mbl_tensor_rows(x, i, dense ? rows : 1);
        to = mbl_tensor_of(to.data, y->dtype, MBL_HOST, 2, to.dim[0], columns);
        from = mbl_tensor_of(from.data, x->dtype, MBL_HOST, 2, from.dim[0], columns);
        const mbl_act_args_t forward = {.y = &to, .x = &from, .act = act};
        const mbl_act_bwd_args_t backward = {.dx = &to, .dy = &to, .x = &from, .act = act};
        MBL_TRY(slope ? mbl_cpu_act_bwd(ops, &backward) : mbl_cpu_act(ops, &forward));
    }
    return MBL_OK;
}

mbl_status_t mbl_cpu_matmul(mbl_ops_t *ops, const mbl_matmul_args_t *args) {
    /* One column: oneDNN 3.7 adds the bias of such products to their first row alone. */
    if (args->a->dtype != MBL_F64 && (mbl_cpu_of(ops)->matmuls->all_own || args->y->dim[1] == 1))
        return run_own(ops, args);
    if (!args->pre && !args->through)
        return product(ops, args);
    mbl_matmul_args_t linear = *args;
    linear.act = MBL_ACT_NONE;
    linear.pre = linear.through = NULL;
    if (args->through) {
        MBL_TRY(product(ops, &linear));
        return apply(ops, args->y, args->through, args->act, true);
    }
    linear.y = args->pre;
    if (args->accumulate)
        copy_rows(args->pre, args->y, args->y->dim[0]);
    MBL_TRY(product(ops, &linear));
    return apply(ops, args->y, args->pre, args->act, false);
}
