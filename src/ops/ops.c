/* Backends by name, and the memory of tensors in a backend's memory space. */
#include "ops/ops.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/mem.h"
#include "ops/list.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const mbl_ops_table_t *const backends[] = {
#define BACKEND(name) &mbl_ops_##name,
    MBL_OPS_BACKENDS(BACKEND)
#undef BACKEND
};
enum { BACKENDS = sizeof backends / sizeof backends[0] };
#define BACKEND_NAME(name) " " #name
static const char backend_names[] = MBL_OPS_BACKENDS(BACKEND_NAME) " auto";

static int threads_of_process(void) {
    mbl_threads_t threads;
    mbl_threads_alone(&threads);
    return threads.count;
}

static mbl_status_t open_table(const mbl_ops_table_t *table, int threads, mbl_ops_t **out) {
    mbl_ops_t *ops;
    MBL_ALLOC(ops, 1);
    ops->table = table;
    ops->threads = threads > 0 ? threads : threads_of_process();
    mbl_status_t status = table->open(ops, ops->threads);
    if (status != MBL_OK) {
        mbl_free(ops);
        return status;
    }
    *out = ops;
    return MBL_OK;
}

static mbl_status_t open_automatic(int threads, mbl_ops_t **out) {
    mbl_status_t status = MBL_ERR_UNSUPPORTED;
    for (size_t i = 0; i < BACKENDS && status != MBL_OK; i++) {
        if (!backends[i]->automatic)
            continue;
        bool last = true;
        for (size_t j = i + 1; j < BACKENDS; j++)
            last = last && !backends[j]->automatic;
        if (!last)
            mbl_fail_quiet(1);
        status = open_table(backends[i], threads, out);
        if (!last)
            mbl_fail_quiet(0);
    }
    return status;
}

bool mbl_ops_bf16_is_native(mbl_ops_t *ops) {
    return ops->table->bf16_is_native && ops->table->bf16_is_native(ops);
}

mbl_status_t mbl_ops_open(const char *name, int threads, mbl_ops_t **out) {
    MBL_REQUIRE(name && out, "ops_open: name or out is NULL");
    const char *named = getenv("MARBLE_DEVICE");
    if (strcmp(name, "auto") == 0 && named && *named)
        name = named;
    if (strcmp(name, "auto") == 0)
        return open_automatic(threads, out);
    for (size_t i = 0; i < BACKENDS; i++)
        if (strcmp(name, backends[i]->name) == 0)
            return open_table(backends[i], threads, out);
    return MBL_FAIL(MBL_ERR_CONFIG, "device '%s' is unknown; there are:%s", name, backend_names);
}

void mbl_ops_close(mbl_ops_t *ops) {
    if (!ops)
        return;
    ops->table->close(ops);
    mbl_free(ops);
}

mbl_status_t mbl_tensor_new(mbl_ops_t *ops, mbl_dtype_t dtype, mbl_tensor_t *out, int ndim, ...) {
    MBL_REQUIRE(ndim >= 1 && ndim <= MBL_MAX_DIMS, "tensor: %d dimensions, 1 to %d are possible", ndim,
                MBL_MAX_DIMS);
    mbl_tensor_t t = {.dtype = dtype, .space = ops->table->space, .own = true, .ndim = ndim};
    va_list dims;
    va_start(dims, ndim);
    for (int i = 0; i < ndim; i++)
        t.dim[i] = va_arg(dims, size_t);
    va_end(dims);
    size_t bytes = mbl_dtype_size(dtype);
    bool fits = bytes > 0;
    for (int i = ndim - 1; i >= 0; i--) {
        t.stride[i] = i == ndim - 1 ? 1 : t.stride[i + 1] * t.dim[i + 1];
        fits = fits && mbl_mul(bytes, t.dim[i], &bytes);
    }
    char text[MBL_TENSOR_TEXT];
    MBL_REQUIRE(fits, "tensor: %s has no size in memory", mbl_tensor_text(&t, text));
    MBL_TRY(ops->table->alloc(ops, bytes, &t.data));
    *out = t;
    return MBL_OK;
}

void mbl_tensor_free(mbl_ops_t *ops, mbl_tensor_t *t) {
    if (!t)
        return;
    if (t->own && t->data)
        ops->table->free(ops, t->data);
    memset(t, 0, sizeof *t);
}

static mbl_status_t check_whole(const mbl_tensor_t *t, const char *what) {
    char text[MBL_TENSOR_TEXT];
    MBL_REQUIRE(t && t->data && mbl_tensor_contiguous(t), "%s: %s must be a contiguous tensor", what,
                mbl_tensor_text(t, text));
    return MBL_OK;
}

static size_t bytes_of(const mbl_tensor_t *t) {
    return mbl_tensor_count(t) * mbl_dtype_size(t->dtype);
}

mbl_status_t mbl_tensor_upload(mbl_ops_t *ops, const mbl_tensor_t *t, const void *host) {
    MBL_TRY(check_whole(t, "upload"));
    return ops->table->copy(ops, t->data, t->space, host, MBL_HOST, bytes_of(t));
}

mbl_status_t mbl_tensor_download(mbl_ops_t *ops, const mbl_tensor_t *t, void *host) {
    MBL_TRY(check_whole(t, "download"));
    return ops->table->copy(ops, host, MBL_HOST, t->data, t->space, bytes_of(t));
}

mbl_status_t mbl_tensor_copy(mbl_ops_t *ops, const mbl_tensor_t *dst, const mbl_tensor_t *src) {
    MBL_TRY(check_whole(dst, "copy"));
    MBL_TRY(check_whole(src, "copy"));
    char to[MBL_TENSOR_TEXT], from[MBL_TENSOR_TEXT];
    MBL_REQUIRE(dst->dtype == src->dtype && mbl_tensor_count(dst) == mbl_tensor_count(src),
                "copy: %s from %s", mbl_tensor_text(dst, to), mbl_tensor_text(src, from));
    return ops->table->copy(ops, dst->data, dst->space, src->data, src->space, bytes_of(dst));
}

mbl_status_t mbl_tensor_zero(mbl_ops_t *ops, const mbl_tensor_t *t) {
    MBL_TRY(check_whole(t, "zero"));
    return ops->table->zero(ops, t->data, bytes_of(t));
}

mbl_status_t mbl_ops_record_begin(mbl_ops_t *ops) {
    bool wanted = ops->record && !ops->profile && ops->table->record_begin;
    return wanted ? ops->table->record_begin(ops) : MBL_OK;
}

mbl_status_t mbl_ops_record_end(mbl_ops_t *ops, mbl_status_t status) {
    return ops->table->record_end ? ops->table->record_end(ops, status) : status;
}

mbl_status_t mbl_ops_mark(mbl_ops_t *ops, size_t i) {
    MBL_REQUIRE(i < MBL_OPS_ALL_MARKS, "mark %zu; expected less than %d", i, MBL_OPS_ALL_MARKS);
    if (ops->table->mark)
        return ops->table->mark(ops, i);
    ops->mark[i] = mbl_now();
    return MBL_OK;
}

mbl_status_t mbl_ops_between(mbl_ops_t *ops, size_t from, size_t to, double *seconds) {
    MBL_REQUIRE(from < MBL_OPS_ALL_MARKS && to < MBL_OPS_ALL_MARKS,
                "marks %zu and %zu; expected less than %d", from, to, MBL_OPS_ALL_MARKS);
    if (ops->table->between)
        return ops->table->between(ops, from, to, seconds);
    *seconds = ops->mark[to] - ops->mark[from];
    return MBL_OK;
}

mbl_status_t mbl_ops_profiled(mbl_ops_t *ops) {
    for (size_t i = 0; i < ops->n_profiled; i++) {
        double seconds;
        const size_t from = MBL_OPS_MARKS + 2 * i;
        MBL_TRY(mbl_ops_between(ops, from, from + 1, &seconds));
        ops->stats[ops->profiled[i]].seconds += seconds;
    }
    ops->n_profiled = 0;
    return MBL_OK;
}

mbl_status_t mbl_ops_memory_left(mbl_ops_t *ops, size_t *bytes) {
    MBL_REQUIRE(ops && bytes, "ops_memory_left: ops and bytes must be given");
    if (ops->table->memory_left)
        return ops->table->memory_left(ops, bytes);
    *bytes = SIZE_MAX;
    return MBL_OK;
}

void mbl_ops_part(mbl_ops_t *ops, const char *part, const char *lower) {
    ops->part = part;
    ops->lower = lower;
}

void mbl_ops_stop(mbl_ops_t *ops, const volatile sig_atomic_t *stop) {
    ops->stop = stop;
}

mbl_status_t mbl_ops_go_on(const mbl_ops_t *ops) {
    return ops->stop && *ops->stop ? MBL_ERR_STOPPED : MBL_OK;
}

enum { SIZE_TEXT = 32 };

static const char *size_text(size_t bytes, char out[SIZE_TEXT]) {
    const double mib = 1048576;
    if ((double)bytes < 1024 * mib)
        snprintf(out, SIZE_TEXT, "%.1f MiB", (double)bytes / mib);
    else
        snprintf(out, SIZE_TEXT, "%.2f GiB", (double)bytes / (1024 * mib));
    return out;
}

mbl_status_t mbl_ops_no_memory(const mbl_ops_t *ops, const char *memory, size_t bytes, size_t left) {
    const char *part = ops->part ? ops->part : "a step",
               *lower = ops->lower ? ops->lower : "a smaller rollout.micro_batch or train.micro_batch";
    char asked[SIZE_TEXT], there[SIZE_TEXT], missing[SIZE_TEXT],
        found[96] = "and the process may not take more (ulimit)";
    if (left < bytes)
        snprintf(found, sizeof found, "%s are left, %s are missing", size_text(left, there),
                 size_text(bytes - left, missing));
    return MBL_FAIL(MBL_ERR_MEM, "no %s for %s: %s at once, %s; expected more, or %s", memory, part,
                    size_text(bytes, asked), found, lower);
}

mbl_status_t mbl_host_new(mbl_ops_t *ops, size_t bytes, void **out) {
    if (ops->table->alloc_host)
        return ops->table->alloc_host(ops, bytes, out);
    void *ptr = mbl_calloc(bytes, 1);
    if (!ptr)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu bytes beside the device", bytes);
    *out = ptr;
    return MBL_OK;
}

void mbl_host_free(mbl_ops_t *ops, void *ptr) {
    if (!ptr)
        return;
    if (ops->table->free_host)
        ops->table->free_host(ops, ptr);
    else
        mbl_free(ptr);
}
