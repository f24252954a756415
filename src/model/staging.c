/* Tensors on their way from the host into a model's weights. */
#include "model/staging.h"
#include "base/mem.h"
#include "base/pages.h"

enum { PIECE = 1 << 20, PART = 1 << 16 }; /* elements of a file at a time, and of a thread */

mbl_status_t mbl_staging_new(mbl_dtype_t dtype, size_t most, mbl_staging_t *out) {
    *out = (mbl_staging_t){dtype, mbl_calloc(most, mbl_dtype_size(mbl_dtype_stat(dtype))),
                           dtype == MBL_BF16 ? mbl_calloc(most, 2) : NULL};
    if (out->values && (out->narrow || dtype != MBL_BF16))
        return MBL_OK;
    mbl_staging_free(out);
    *out = (mbl_staging_t){0};
    return MBL_FAIL(MBL_ERR_MEM, "no memory for a tensor of %zu values", most);
}

void mbl_staging_free(mbl_staging_t *staging) {
    mbl_free(staging->values);
    mbl_free(staging->narrow);
}

mbl_status_t mbl_staging_read(const mbl_staging_t *staging, const mbl_st_t *st, const char *name,
                              size_t count) {
    return staging->dtype == MBL_F64 ? mbl_st_read_f64(st, name, staging->values, count)
                                     : mbl_st_read_f32(st, name, staging->values, count);
}

mbl_status_t mbl_staging_put(mbl_ops_t *ops, const mbl_staging_t *staging, const void *values, size_t count,
                             const mbl_tensor_t *weights, size_t offset) {
    const size_t size = mbl_dtype_size(staging->dtype);
    if (staging->dtype == MBL_BF16) {
        const float *wide = values;
        uint16_t *narrow = staging->narrow;
#pragma omp parallel for simd num_threads(ops->threads) schedule(static) if (count > PART)
        for (size_t i = 0; i < count; i++)
            narrow[i] = mbl_bf16_from_f32(wide[i]);
        values = narrow;
    }
    return ops->table->copy(ops, (char *)weights->data + offset * size, ops->table->space, values, MBL_HOST,
                            count * size);
}

/* ---- from a file ---- */

static mbl_status_t widen(const mbl_st_t *st, const mbl_st_entry_t *entry, mbl_dtype_t dtype, size_t first,
                          size_t n, void *values) {
    return dtype == MBL_F64 ? mbl_st_piece_f64(st, entry, first, n, values)
                            : mbl_st_piece_f32(st, entry, first, n, values);
}

/* The same by all threads. What fails does so again on this one, whose message it is. */
static mbl_status_t widen_by_all(const mbl_ops_t *ops, const mbl_st_t *st, const mbl_st_entry_t *entry,
                                 mbl_dtype_t dtype, size_t first, size_t n, void *values) {
    const size_t size = mbl_dtype_size(mbl_dtype_stat(dtype));
    size_t failed = n;
#pragma omp parallel for num_threads(ops->threads) schedule(static) reduction(min : failed) if (n > PART)
    for (size_t part = 0; part < n; part += PART) {
        mbl_fail_quiet(1);
        if (widen(st, entry, dtype, first + part, n - part < PART ? n - part : PART,
                  (char *)values + part * size) != MBL_OK)
            failed = part < failed ? part : failed;
        mbl_fail_quiet(0);
    }
    return failed < n ? widen(st, entry, dtype, first + failed, n - failed < PART ? n - failed : PART, values)
                      : MBL_OK;
}

static mbl_status_t load_piece(mbl_ops_t *ops, const mbl_staging_t *staging, const mbl_st_t *st,
                               const mbl_st_entry_t *entry, size_t first, size_t n,
                               const mbl_tensor_t *weights, size_t offset) {
    MBL_TRY(widen_by_all(ops, st, entry, staging->dtype, first, n, staging->values));
    return mbl_staging_put(ops, staging, staging->values, n, weights, offset + first);
}

/* A piece that the file has in the type of the weights; *done: whether it was one. */
static mbl_status_t load_as_is(mbl_ops_t *ops, const mbl_st_t *st, const mbl_st_entry_t *entry, size_t first,
                               size_t n, const mbl_tensor_t *weights, size_t offset, bool *done) {
    const size_t size = mbl_dtype_size(weights->dtype);
    const void *from;
    MBL_TRY(mbl_st_piece_as_is(st, entry, weights->dtype, first, n, &from));
    *done = from != NULL;
    return from ? ops->table->copy(ops, (char *)weights->data + (offset + first) * size, ops->table->space,
                                   from, MBL_HOST, n * size)
                : MBL_OK;
}

mbl_status_t mbl_staging_load(mbl_ops_t *ops, const mbl_st_t *st, const char *name,
                              const mbl_tensor_t *weights, size_t offset) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    mbl_staging_t staging = {0};
    mbl_status_t status = MBL_OK;
    MBL_REQUIRE(entry, "a tensor %s to load", name);
    MBL_TRY(mbl_st_check_floating(st, entry));
    const size_t size = mbl_dtype_size(entry->dtype), count = entry->bytes / size;
    for (size_t first = 0; status == MBL_OK && first < count; first += PIECE) {
        size_t n = count - first < PIECE ? count - first : PIECE;
        const char *piece = (const char *)entry->data + first * size;
        bool done = false;
        status = mbl_ops_go_on(ops);
        if (status != MBL_OK)
            break;
        mbl_pages_fetch(piece, n * size);
        status = load_as_is(ops, st, entry, first, n, weights, offset, &done);
        if (status == MBL_OK && !done && !staging.values)
            status = mbl_staging_new(weights->dtype, n, &staging);
        if (status == MBL_OK && !done)
            status = load_piece(ops, &staging, st, entry, first, n, weights, offset);
        mbl_pages_drop(piece, n * size);
    }
    mbl_staging_free(&staging);
    mbl_st_release(st, name); /* the pages between two pieces */
    return status;
}
