/* The identity of a transformer. Contents are digested in blocks, on several threads, and the digests of the
 * blocks digested: a large model takes seconds. */
#include "model/digest.h"
#include "base/mem.h"
#include "base/pages.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 4 << 20 };

/* Updates `sha` with the digests of all blocks of `data`; of a mapped file no more than a block of every
 * thread is in memory. */
static mbl_status_t add_blocks(mbl_sha256_t *sha, int threads, const void *data, size_t bytes, bool mapped) {
    size_t blocks = (bytes + BLOCK - 1) / BLOCK;
    unsigned char(*digests)[MBL_SHA256_BYTES];
    MBL_ALLOC(digests, blocks ? blocks : 1);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (blocks > 1)
    for (size_t i = 0; i < blocks; i++) {
        size_t begin = i * BLOCK, n = bytes - begin < BLOCK ? bytes - begin : BLOCK;
        const char *from = (const char *)data + begin;
        mbl_sha256_t block;
        if (mapped)
            mbl_pages_fetch(from, n);
        mbl_sha256_init(&block);
        mbl_sha256_update(&block, from, n);
        mbl_sha256_final(&block, digests[i]);
        if (mapped)
            mbl_pages_drop(from, n);
    }
    mbl_sha256_update(sha, digests, blocks * MBL_SHA256_BYTES);
    mbl_free(digests);
    return MBL_OK;
}

static mbl_status_t add_tensor(mbl_sha256_t *sha, int threads, const char *name, const char *dtype, int ndim,
                               const size_t *dim, const void *data, size_t bytes, bool mapped) {
    char text[64];
    mbl_sha256_update(sha, name, strlen(name) + 1);
    mbl_sha256_update(sha, dtype, strlen(dtype) + 1);
    for (int i = 0; i < ndim; i++) {
        int n = snprintf(text, sizeof text, "%zu,", dim[i]);
        mbl_sha256_update(sha, text, (size_t)n);
    }
    return add_blocks(sha, threads, data, bytes, mapped);
}

mbl_status_t mbl_digest_tensors(const mbl_st_t *st, int threads, const volatile sig_atomic_t *stop,
                                char out[MBL_SHA256_HEX]) {
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    for (size_t i = 0; i < mbl_st_count(st); i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        if (stop && *stop)
            return MBL_ERR_STOPPED;
        MBL_TRY(add_tensor(&sha, threads, entry->name, entry->type, entry->ndim, entry->dim, entry->data,
                           entry->bytes, true));
        mbl_st_release(st, entry->name);
    }
    mbl_sha256_hex(&sha, out);
    return MBL_OK;
}

mbl_status_t mbl_digest_files(const char *path, int threads, const volatile sig_atomic_t *stop,
                              char out[MBL_SHA256_HEX]) {
    mbl_st_t *st;
    MBL_TRY(mbl_st_open(path, &st));
    mbl_status_t status = mbl_digest_tensors(st, threads, stop, out);
    mbl_st_close(st);
    return status;
}

mbl_status_t mbl_digest_weights(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_dit_t *model,
                                char out[MBL_SHA256_HEX]) {
    mbl_status_t status;
    mbl_dtype_t wide = mbl_dtype_stat(dtype);
    mbl_tensor_t flat = {0};
    char *host = NULL;
    mbl_sha256_t sha;
    size_t total = mbl_tensor_count(mbl_dit_weights(model)), size = mbl_dtype_size(wide);
    MBL_TRY_GOTO(mbl_tensor_new(ops, wide, &flat, 1, total), done);
    MBL_TRY_GOTO(mbl_dit_get_weights(model, &flat), done);
    MBL_ALLOC_GOTO(host, total * size, done);
    MBL_TRY_GOTO(mbl_tensor_download(ops, &flat, host), done);
    mbl_sha256_init(&sha);
    for (size_t i = 0; i < mbl_dit_param_count(model); i++) {
        const mbl_param_t *p = mbl_dit_param(model, i);
        MBL_TRY_GOTO(add_tensor(&sha, ops->threads, p->name, mbl_dtype_name(wide), p->ndim, p->dim,
                                host + p->offset * size, p->count * size, false),
                     done);
    }
    mbl_sha256_hex(&sha, out);
done:
    mbl_free(host);
    mbl_tensor_free(ops, &flat);
    return status;
}
