/* Tensors of any backend with a copy on the host, for tests that look at single numbers: fill the copy and
 * push it, or pull what an operation wrote. An address on the device stands for its place in the copy, so
 * views work too. */
#ifndef MBL_TESTS_MIRROR_H
#define MBL_TESTS_MIRROR_H

#include "support.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

enum { MIRRORS = 32 };
typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t whole;
    char *host;
    size_t bytes;
} mirror_t;
static mirror_t mirrors[MIRRORS];

/* A tensor of zeros. Free with mirror_free. */
static inline mbl_tensor_t mirror_new(mbl_ops_t *ops, mbl_dtype_t dtype, int ndim, size_t d0, size_t d1,
                                      size_t d2, size_t d3) {
    for (int i = 0; i < MIRRORS; i++) {
        mirror_t *m = &mirrors[i];
        if (m->host)
            continue;
        assert_int_equal(mbl_tensor_new(ops, dtype, &m->whole, ndim, d0, d1, d2, d3), MBL_OK);
        m->ops = ops;
        m->bytes = mbl_tensor_count(&m->whole) * mbl_dtype_size(dtype);
        m->host = calloc(m->bytes, 1);
        assert_non_null(m->host);
        return m->whole;
    }
    fail_msg("more than %d tensors at once", MIRRORS);
    return (mbl_tensor_t){.data = NULL};
}

static inline bool mirror_holds(const mirror_t *m, const void *address) {
    const char *start = m->whole.data;
    return m->host && (const char *)address >= start && (const char *)address < start + m->bytes;
}

/* The mirror that this address lies in. */
static inline mirror_t *mirror_of(const void *address) {
    static int last; /* most often the same again */
    if (mirror_holds(&mirrors[last], address))
        return &mirrors[last];
    for (int i = 0; i < MIRRORS; i++)
        if (mirror_holds(&mirrors[i], address))
            return &mirrors[last = i];
    fail_msg("an address of no tensor of this test");
    return NULL;
}

/* Where the copy of what is at this address lies. */
static inline void *mirror_at(const void *address) {
    mirror_t *m = mirror_of(address);
    return m->host + ((const char *)address - (const char *)m->whole.data);
}

static inline void mirror_push(const mbl_tensor_t *t) {
    mirror_t *m = mirror_of(t->data);
    assert_int_equal(mbl_tensor_upload(m->ops, &m->whole, m->host), MBL_OK);
    assert_int_equal(m->ops->table->sync(m->ops), MBL_OK); /* other handles may use it */
}

static inline void mirror_pull(const mbl_tensor_t *t) {
    mirror_t *m = mirror_of(t->data);
    assert_int_equal(mbl_tensor_download(m->ops, &m->whole, m->host), MBL_OK);
}

static inline void mirror_free(mbl_tensor_t *t) {
    if (!t->data)
        return;
    mirror_t *m = mirror_of(t->data);
    mbl_tensor_free(m->ops, t);
    free(m->host);
    memset(m, 0, sizeof *m);
}

/* Element i of the copy, counted from the tensor's first. */
static inline double mirror_get(const mbl_tensor_t *t, size_t i) {
    const void *host = mirror_at(t->data);
    if (t->dtype == MBL_F64)
        return ((const double *)host)[i];
    return t->dtype == MBL_F32 ? (double)((const float *)host)[i]
                               : (double)mbl_bf16_to_f32(((const uint16_t *)host)[i]);
}

static inline void mirror_put(const mbl_tensor_t *t, size_t i, double x) {
    void *host = mirror_at(t->data);
    if (t->dtype == MBL_F64)
        ((double *)host)[i] = x;
    else if (t->dtype == MBL_F32)
        ((float *)host)[i] = (float)x;
    else
        ((uint16_t *)host)[i] = mbl_bf16_from_f32((float)x);
}

/* The copy of a matrix as doubles, row after row; by columns when `transpose`. Free with free(). */
static inline double *mirror_values(const mbl_tensor_t *t, bool transpose) {
    const size_t rows = t->dim[0], columns = t->dim[1];
    double *out = calloc(rows * columns, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            out[transpose ? j * rows + i : i * columns + j] = mirror_get(t, i * t->stride[0] + j);
    return out;
}

#endif
