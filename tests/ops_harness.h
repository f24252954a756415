/* Operands for tests of operations: made from the counter-based generator with values that bf16 holds
 * exactly, so that a call in f64, f32 and bf16 starts from the same numbers. */
#ifndef MBL_TESTS_OPS_HARNESS_H
#define MBL_TESTS_OPS_HARNESS_H

#include "support.h"
#include "base/rng.h"
#include "ops/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPERANDS = 48, GAP = 3 };
typedef enum { COMPUTE, STAT, GRAD64 } kind_t; /* compute type, statistics type, f64 always */
typedef enum {
    IN = 0,
    OUT = 1,      /* starts as rubbish */
    ADD = 2,      /* read and written */
    BATCH = 4,    /* the first dimension counts samples: may be cut to one */
    ROWS = 8,     /* rows may be strided */
    POSITIVE = 16 /* at least 0.1 */
} flags_t;

/* One call: the backend, the type, and the operands made so far. */
typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t ct;
    bool strided;   /* put gaps between rows where they are allowed */
    int only;       /* cut BATCH operands to this sample; -1: all of them */
    bool leave_out; /* leave optional operands out */
    mbl_tensor_t base[MAX_OPERANDS], view[MAX_OPERANDS];
    int flags[MAX_OPERANDS], n;
} run_t;

#define OK(call) assert_int_equal((call), MBL_OK)

static inline size_t memory_count(const mbl_tensor_t *base) {
    return mbl_tensor_count(base);
}

static inline double read_number(const void *data, mbl_dtype_t dtype, size_t i) {
    switch (dtype) {
    case MBL_F32:
        return (double)((const float *)data)[i];
    case MBL_BF16:
        return (double)mbl_bf16_to_f32(((const uint16_t *)data)[i]);
    default:
        return ((const double *)data)[i];
    }
}

static inline void write_number(void *data, mbl_dtype_t dtype, size_t i, double value) {
    switch (dtype) {
    case MBL_F32:
        ((float *)data)[i] = (float)value;
        break;
    case MBL_BF16:
        ((uint16_t *)data)[i] = mbl_bf16_from_f32((float)value);
        break;
    default:
        ((double *)data)[i] = value;
    }
}

/* Normal numbers of operand `index`, those of outputs others: at least `count`, made once for all calls. */
static inline const float *normals(int index, bool output, size_t count) {
    static struct {
        float *x;
        size_t count;
    } made[MAX_OPERANDS][2];
    if (made[index][output].count >= count)
        return made[index][output].x;
    float *x = realloc(made[index][output].x, (count + 2) * sizeof *x);
    assert_non_null(x);
    mbl_rng_t rng = mbl_rng(7, MBL_RNG_STUDY, (uint32_t)index, output);
    for (size_t i = 0; i < count; i += 2)
        mbl_rng_normal2(&rng, x + i);
    made[index][output].x = x;
    made[index][output].count = count;
    return x;
}

/* Numbers of operand `index`: normal, or rubbish for an output. */
static inline void fill(run_t *run, const mbl_tensor_t *base, int index, int flags) {
    size_t count = memory_count(base);
    void *host = calloc(count, mbl_dtype_size(base->dtype));
    assert_non_null(host);
    const float *normal = normals(index, flags & OUT, count);
    for (size_t i = 0; i < count; i++) {
        float x = flags & POSITIVE ? fabsf(normal[i]) + 0.1f : normal[i];
        write_number(host, base->dtype, i, (double)mbl_bf16_to_f32(mbl_bf16_from_f32(x)));
    }
    OK(mbl_tensor_upload(run->ops, base, host));
    free(host);
}

/* The next operand. Strided, only its view has the given shape, and the gaps must stay as they were. */
static inline const mbl_tensor_t *operand(run_t *run, int flags, kind_t kind, int ndim, size_t d0, size_t d1,
                                          size_t d2, size_t d3) {
    mbl_dtype_t dtype = kind == COMPUTE ? run->ct : kind == STAT ? mbl_dtype_stat(run->ct) : MBL_F64;
    int index = run->n++;
    assert_true(index < MAX_OPERANDS);
    size_t dim[4] = {d0, d1, d2, d3}, gap = run->strided && flags & ROWS ? GAP : 0;
    mbl_tensor_t *base = &run->base[index], *view = &run->view[index];
    dim[ndim - 1] += 2 * gap;
    OK(mbl_tensor_new(run->ops, dtype, base, ndim, dim[0], dim[1], dim[2], dim[3]));
    fill(run, base, index, flags);
    *view = mbl_tensor_columns(base, gap, dim[ndim - 1] - 2 * gap);
    if (flags & BATCH && run->only >= 0)
        *view = mbl_tensor_rows(view, (size_t)run->only, 1);
    view->own = false;
    run->flags[index] = flags;
    return view;
}
#define operand1(run, flags, kind, a) operand((run), (flags), (kind), 1, (a), 0, 0, 0)
#define operand2(run, flags, kind, a, b) operand((run), (flags), (kind), 2, (a), (b), 0, 0)
#define operand3(run, flags, kind, a, b, c) operand((run), (flags), (kind), 3, (a), (b), (c), 0)
#define operand4(run, flags, kind, a, b, c, d) operand((run), (flags), (kind), 4, (a), (b), (c), (d))

/* All numbers of a view in order. Free with free(). */
static inline double *numbers(mbl_ops_t *ops, const mbl_tensor_t *base, const mbl_tensor_t *view) {
    size_t size = mbl_dtype_size(base->dtype), count = mbl_tensor_count(view);
    char *host = calloc(memory_count(base), size);
    double *out = calloc(count, sizeof *out);
    assert_true(host && out);
    OK(mbl_tensor_download(ops, base, host));
    const char *start = host + ((const char *)view->data - (const char *)base->data);
    const size_t width = view->dim[view->ndim - 1];
    for (size_t i = 0; i < count; i += width) { /* row by row */
        size_t at = 0, rest = i / width;
        for (int d = view->ndim - 2; d >= 0; d--) {
            at += rest % view->dim[d] * view->stride[d];
            rest /= view->dim[d];
        }
        for (size_t j = 0; j < width; j++)
            out[i + j] = read_number(start, base->dtype, at + j);
    }
    free(host);
    return out;
}

static inline void release(run_t *run) {
    for (int i = 0; i < run->n; i++)
        mbl_tensor_free(run->ops, &run->base[i]);
    run->n = 0;
}

#endif
