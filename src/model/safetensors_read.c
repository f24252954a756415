/* Values of safetensors: floating-point tensors and rows of them, widened, all of them finite. */
#include "model/safetensors_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* The tensor, if it holds `count` floating-point numbers. */
static mbl_status_t floating(const mbl_st_t *st, const char *name, size_t count, const mbl_st_entry_t **out) {
    const char *path = st->n_files > 0 ? st->files[0].path : "?";
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: missing", path, name);
    if (entry->dtype != MBL_F32 && entry->dtype != MBL_BF16 && entry->dtype != MBL_F64)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: dtype %s, expected F32, BF16, F16 or F64", path, name,
                        entry->type);
    size_t found = entry->bytes / mbl_dtype_size(entry->dtype);
    if (found != count)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: %zu elements; expected %zu", path, name, found,
                        count);
    *out = entry;
    return MBL_OK;
}

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
    const char *path = st->n_files > 0 ? st->files[0].path : "?";
    for (size_t f = 0; f < st->n_files; f++) {
        const unsigned char *begin = st->files[f].map, *data = entry->data;
        if (data >= begin && data < begin + st->files[f].size)
            path = st->files[f].path;
    }
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: element [%s] is %g; expected a finite number", path,
                    entry->name, place, value);
}

mbl_status_t mbl_st_read_f32(const mbl_st_t *st, const char *name, float *out, size_t count) {
    const mbl_st_entry_t *entry;
    MBL_TRY(floating(st, name, count, &entry));
    widen(entry, 0, out, count);
    for (size_t i = 0; i < count; i += SCANNED) {
        size_t n = count - i < SCANNED ? count - i : SCANNED;
        if (all_finite_f32(out + i, n))
            continue;
        while (isfinite(out[i]))
            i++;
        return not_finite(st, entry, i);
    }
    return MBL_OK;
}

mbl_status_t mbl_st_read_f64(const mbl_st_t *st, const char *name, double *out, size_t count) {
    const mbl_st_entry_t *entry;
    MBL_TRY(floating(st, name, count, &entry));
    for (size_t i = 0; i < count; i++)
        out[i] = element(entry, i);
    for (size_t i = 0; i < count; i += SCANNED) {
        size_t n = count - i < SCANNED ? count - i : SCANNED;
        if (all_finite_f64(out + i, n))
            continue;
        while (isfinite(out[i]))
            i++;
        return not_finite(st, entry, i);
    }
    return MBL_OK;
}

/* ---- parts ---- */

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
    widen(entry, row * cols, out, cols);
    for (size_t i = 0; i < cols; i++)
        if (!isfinite(out[i]))
            return not_finite(st, entry, row * cols + i);
    return MBL_OK;
}

mbl_status_t mbl_st_read_row_f64(const mbl_st_t *st, const char *name, size_t row, double *out, size_t cols) {
    const mbl_st_entry_t *entry;
    MBL_TRY(row_of(st, name, row, cols, &entry));
    for (size_t i = 0; i < cols; i++) {
        out[i] = element(entry, row * cols + i);
        if (!isfinite(out[i]))
            return not_finite(st, entry, row * cols + i);
    }
    return MBL_OK;
}

/* Pages that neighbours share stay. */
void mbl_st_release(const mbl_st_t *st, const char *name) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (!entry)
        return;
    uintptr_t begin = ((uintptr_t)entry->data + page - 1) / page * page,
              end = ((uintptr_t)entry->data + entry->bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}
