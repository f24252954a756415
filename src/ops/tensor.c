/* Tensors: sizes, contiguity and views. No memory is touched here. */
#include "ops/tensor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    size_t size;
    const char *name;
} dtypes[] = {
    [MBL_F32] = {4, "f32"}, [MBL_BF16] = {2, "bf16"}, [MBL_F64] = {8, "f64"},
    [MBL_I32] = {4, "i32"}, [MBL_I64] = {8, "i64"},   [MBL_U8] = {1, "u8"},
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

size_t mbl_dtype_size(mbl_dtype_t dtype) {
    return (size_t)dtype < DTYPES ? dtypes[dtype].size : 0;
}

const char *mbl_dtype_name(mbl_dtype_t dtype) {
    return (size_t)dtype < DTYPES ? dtypes[dtype].name : "?";
}

mbl_dtype_t mbl_dtype_stat(mbl_dtype_t dtype) {
    return dtype == MBL_F64 ? MBL_F64 : MBL_F32;
}

size_t mbl_tensor_count(const mbl_tensor_t *t) {
    size_t count = t->ndim > 0;
    for (int i = 0; i < t->ndim; i++)
        count *= t->dim[i];
    return count;
}

bool mbl_tensor_contiguous(const mbl_tensor_t *t) {
    size_t stride = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->dim[i] != 1 && t->stride[i] != stride)
            return false;
        stride *= t->dim[i];
    }
    return true;
}

bool mbl_tensor_same_shape(const mbl_tensor_t *a, const mbl_tensor_t *b) {
    if (a->ndim != b->ndim)
        return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

char *mbl_tensor_text(const mbl_tensor_t *t, char *out) {
    if (!t || t->ndim < 1 || t->ndim > MBL_MAX_DIMS) {
        snprintf(out, MBL_TENSOR_TEXT, "%s", t ? "empty" : "NULL");
        return out;
    }
    char *at = out;
    for (int i = 0; i < t->ndim; i++)
        at += sprintf(at, "%c%zu", i ? ',' : '[', t->dim[i]);
    sprintf(at, "] %s", mbl_dtype_name(t->dtype));
    return out;
}

static void set_shape(mbl_tensor_t *t, int ndim, va_list dims) {
    t->ndim = ndim;
    for (int i = 0; i < ndim; i++)
        t->dim[i] = va_arg(dims, size_t);
    size_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t->stride[i] = stride;
        stride *= t->dim[i];
    }
}

static const mbl_tensor_t empty_tensor = {.data = NULL};

mbl_tensor_t mbl_tensor_of(void *data, mbl_dtype_t dtype, mbl_space_t space, int ndim, ...) {
    mbl_tensor_t t = {.data = data, .dtype = dtype, .space = space};
    if (ndim < 1 || ndim > MBL_MAX_DIMS) {
        MBL_FAIL(MBL_ERR_ARG, "tensor: %d dimensions, 1 to %d are possible", ndim, MBL_MAX_DIMS);
        return empty_tensor;
    }
    va_list dims;
    va_start(dims, ndim);
    set_shape(&t, ndim, dims);
    va_end(dims);
    return t;
}

mbl_tensor_t mbl_tensor_reshape(const mbl_tensor_t *t, int ndim, ...) {
    mbl_tensor_t view = *t;
    char from[MBL_TENSOR_TEXT], to[MBL_TENSOR_TEXT];
    if (ndim < 1 || ndim > MBL_MAX_DIMS) {
        MBL_FAIL(MBL_ERR_ARG, "reshape: %d dimensions, 1 to %d are possible", ndim, MBL_MAX_DIMS);
        return empty_tensor;
    }
    va_list dims;
    va_start(dims, ndim);
    set_shape(&view, ndim, dims);
    va_end(dims);
    view.own = false;
    if (mbl_tensor_count(&view) != mbl_tensor_count(t) || !mbl_tensor_contiguous(t)) {
        MBL_FAIL(MBL_ERR_ARG, "reshape: %s%s to %s", mbl_tensor_text(t, from),
                 mbl_tensor_contiguous(t) ? "" : " (strided)", mbl_tensor_text(&view, to));
        return empty_tensor;
    }
    return view;
}

static mbl_tensor_t cut(const mbl_tensor_t *t, int axis, size_t first, size_t count) {
    char text[MBL_TENSOR_TEXT];
    if (axis < 0 || axis >= MBL_MAX_DIMS || first > t->dim[axis] || count > t->dim[axis] - first) {
        MBL_FAIL(MBL_ERR_ARG, "view: %zu from %zu on in dimension %d of %s", count, first, axis,
                 mbl_tensor_text(t, text));
        return empty_tensor;
    }
    mbl_tensor_t view = *t;
    view.data = (char *)t->data + first * t->stride[axis] * mbl_dtype_size(t->dtype);
    view.dim[axis] = count;
    view.own = false;
    return view;
}

mbl_tensor_t mbl_tensor_rows(const mbl_tensor_t *t, size_t first, size_t count) {
    return cut(t, t->ndim > 0 ? 0 : -1, first, count);
}

mbl_tensor_t mbl_tensor_columns(const mbl_tensor_t *t, size_t first, size_t count) {
    return cut(t, t->ndim - 1, first, count);
}
