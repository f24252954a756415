/* Values of safetensors: floating-point tensors and rows of them, widened, all of them finite. */
#include "model/safetensors_internal.h"
#include "base/pages.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- values ---- */

/* The bits in their places are the value times 2^-112, subnormals too; infinities and NaN get the exponent of
 * theirs. */
static inline float f16_to_f32(uint16_t bits) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)(bits & 0x7fffu) << 13};
    x.f *= 0x1p112f;
    x.u |= ((bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u) | (uint32_t)(bits & 0x8000u) << 16;
    return x.f;
}

static double element(const mbl_st_entry_t *entry, size_t i) {
    const unsigned char *from = (const unsigned char *)entry->data + i * mbl_dtype_size(entry->dtype);
    double f64;
    float f32;
    uint16_t half;
    switch (entry->dtype) {
    case MBL_F64:
        memcpy(&f64, from, sizeof f64);
        return f64;
    case MBL_F32:
        memcpy(&f32, from, sizeof f32);
        return (double)f32;
    default:
        memcpy(&half, from, sizeof half);
        return (double)(entry->is_f16 ? f16_to_f32(half) : mbl_bf16_to_f32(half));
    }
}

/* Elements from `from` on, unaligned, as f32. The common halves go without a switch for every number. */
static void widen(const mbl_st_entry_t *entry, size_t first, float *out, size_t n) {
    const unsigned char *from = (const unsigned char *)entry->data + first * mbl_dtype_size(entry->dtype);
    if (entry->dtype == MBL_F32 && n > 0)
        memcpy(out, from, n * sizeof *out);
    else if (entry->dtype == MBL_BF16)
        for (size_t i = 0; i < n; i++) {
            uint16_t half;
            memcpy(&half, from + 2 * i, sizeof half);
            out[i] = entry->is_f16 ? f16_to_f32(half) : mbl_bf16_to_f32(half);
        }
    else
        for (size_t i = 0; i < n; i++)
            out[i] = (float)element(entry, first + i);
}

static const char *path_of(const mbl_st_t *st, const mbl_st_entry_t *entry) {
    for (size_t f = 0; f < st->n_files; f++) {
        const unsigned char *begin = st->files[f].map, *data = entry->data;
        if (data >= begin && data < begin + st->files[f].size)
            return st->files[f].path;
    }
    return st->n_files > 0 ? st->files[0].path : "?";
}

mbl_status_t mbl_st_check_floating(const mbl_st_t *st, const mbl_st_entry_t *entry) {
    if (entry->dtype != MBL_F32 && entry->dtype != MBL_BF16 && entry->dtype != MBL_F64)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: dtype %s, expected F32, BF16, F16 or F64",
                        path_of(st, entry), entry->name, entry->type);
    return MBL_OK;
}

/* The tensor, if it holds `count` floating-point numbers. */
static mbl_status_t floating(const mbl_st_t *st, const char *name, size_t count, const mbl_st_entry_t **out) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: missing", st->n_files > 0 ? st->files[0].path : "?",
                        name);
    MBL_TRY(mbl_st_check_floating(st, entry));
    size_t found = entry->bytes / mbl_dtype_size(entry->dtype);
    if (found != count)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: %zu elements; expected %zu", path_of(st, entry), name,
                        found, count);
    *out = entry;
    return MBL_OK;
}

/* Element i, which cannot be computed with, by its place in the tensor. */
static mbl_status_t not_finite(const mbl_st_t *st, const mbl_st_entry_t *entry, size_t i) {
    char place[200] = "";
    double value = element(entry, i);
    size_t used = 0, below = 1;
    for (int d = 1; d < entry->ndim; d++)
        below *= entry->dim[d];
    for (int d = 0; d < entry->ndim; d++) {
        used += (size_t)snprintf(place + used, sizeof place - used, "%s%zu", d ? ", " : "", i / below);
        i %= below;
        below /= d + 1 < entry->ndim ? entry->dim[d + 1] : 1;
    }
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: element [%s] is %g; expected a finite number",
                    path_of(st, entry), entry->name, place, value);
}

/* ---- pieces ---- */

enum { SCANNED = 4096 }; /* elements at a time: what is found there is looked for one by one */

static bool all_finite_f32(const float *x, size_t n) {
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(fabsf(x[i]) <= FLT_MAX);
    return !bad;
}

static bool all_finite_f64(const double *x, size_t n) {
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(fabs(x[i]) <= DBL_MAX);
    return !bad;
}

/* Unaligned numbers of two bytes: a whole exponent is infinity or not a number. */
static bool all_finite_bf16(const unsigned char *from, size_t n) {
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        bad |= (half & 0x7f80u) == 0x7f80u;
    }
    return !bad;
}

mbl_status_t mbl_st_piece_f32(const mbl_st_t *st, const mbl_st_entry_t *entry, size_t first, size_t n,
                              float *out) {
    widen(entry, first, out, n);
    for (size_t i = 0; i < n; i += SCANNED) {
        if (all_finite_f32(out + i, n - i < SCANNED ? n - i : SCANNED))
            continue;
        while (isfinite(out[i]))
            i++;
        return not_finite(st, entry, first + i);
    }
    return MBL_OK;
}

mbl_status_t mbl_st_piece_f64(const mbl_st_t *st, const mbl_st_entry_t *entry, size_t first, size_t n,
                              double *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = element(entry, first + i);
    for (size_t i = 0; i < n; i += SCANNED) {
        if (all_finite_f64(out + i, n - i < SCANNED ? n - i : SCANNED))
            continue;
        while (isfinite(out[i]))
            i++;
        return not_finite(st, entry, first + i);
    }
    return MBL_OK;
}

/* Unaligned numbers of another type than bf16, through a small buffer. */
static bool all_finite(const mbl_st_entry_t *entry, const unsigned char *from, size_t n) {
    union {
        float f32[SCANNED];
        double f64[SCANNED];
    } x;
    if (entry->dtype == MBL_BF16)
        return all_finite_bf16(from, n);
    memcpy(&x, from, n * mbl_dtype_size(entry->dtype));
    return entry->dtype == MBL_F64 ? all_finite_f64(x.f64, n) : all_finite_f32(x.f32, n);
}

mbl_status_t mbl_st_piece_as_is(const mbl_st_t *st, const mbl_st_entry_t *entry, mbl_dtype_t dtype,
                                size_t first, size_t n, const void **out) {
    const size_t size = mbl_dtype_size(dtype);
    const unsigned char *from = (const unsigned char *)entry->data + first * size;
    *out = NULL;
    if (entry->dtype != dtype || entry->is_f16)
        return MBL_OK;
    for (size_t i = 0; i < n; i += SCANNED) {
        if (all_finite(entry, from + i * size, n - i < SCANNED ? n - i : SCANNED))
            continue;
        while (isfinite(element(entry, first + i)))
            i++;
        return not_finite(st, entry, first + i);
    }
    *out = from;
    return MBL_OK;
}

/* ---- tensors and rows ---- */

mbl_status_t mbl_st_read_f32(const mbl_st_t *st, const char *name, float *out, size_t count) {
    const mbl_st_entry_t *entry;
    MBL_TRY(floating(st, name, count, &entry));
    return mbl_st_piece_f32(st, entry, 0, count, out);
}

mbl_status_t mbl_st_read_f64(const mbl_st_t *st, const char *name, double *out, size_t count) {
    const mbl_st_entry_t *entry;
    MBL_TRY(floating(st, name, count, &entry));
    return mbl_st_piece_f64(st, entry, 0, count, out);
}

/* Row `row` of a floating-point tensor of `cols` columns, or why not. */
static mbl_status_t row_of(const mbl_st_t *st, const char *name, size_t row, size_t cols,
                           const mbl_st_entry_t **out) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    MBL_REQUIRE(entry && entry->ndim == 2 && entry->dim[1] == cols && row < entry->dim[0],
                "row %zu of %zu columns of tensor %s", row, cols, name);
    return floating(st, name, entry->dim[0] * cols, out);
}

mbl_status_t mbl_st_read_row_f32(const mbl_st_t *st, const char *name, size_t row, float *out, size_t cols) {
    const mbl_st_entry_t *entry;
    MBL_TRY(row_of(st, name, row, cols, &entry));
    return mbl_st_piece_f32(st, entry, row * cols, cols, out);
}

mbl_status_t mbl_st_read_row_f64(const mbl_st_t *st, const char *name, size_t row, double *out, size_t cols) {
    const mbl_st_entry_t *entry;
    MBL_TRY(row_of(st, name, row, cols, &entry));
    return mbl_st_piece_f64(st, entry, row * cols, cols, out);
}

/* Pages that neighbours share stay. */
void mbl_st_release(const mbl_st_t *st, const char *name) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    if (entry)
        mbl_pages_drop(entry->data, entry->bytes);
}
