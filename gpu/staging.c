/* Copies through pinned memory: small ones to the device each by a slot of a ring, so that numbers for the
 * next pass do not wait behind the one under way; large ones by two halves, of which one travels while the
 * other is filled or emptied. */
#include "gpu/staging.h"
#include "base/mem.h"
#include "gpu/cuda.h"

#include <string.h>

enum {
    HALF = 8 << 20,
    SLOT = 64 << 10,
    SLOTS = 64 /* a training micro-batch takes up to eight */
};

struct mbl_cuda_staging {
    char *half, *slot;       /* pinned: two halves, a ring of slots */
    cudaEvent_t halved[2];   /* the last copy of each half */
    bool busy[2];            /* it may be under way */
    cudaEvent_t sent[SLOTS]; /* the last copy of each slot */
    uint64_t asked, done;    /* small copies so far, and how many of them are known to be over */
    uint64_t *waits;         /* the backend's count */
};

static mbl_status_t open_parts(mbl_cuda_staging_t *s) {
    void *half, *slot;
    for (int i = 0; i < 2; i++)
        MBL_CUDA_TRY(cudaEventCreateWithFlags(&s->halved[i], cudaEventDisableTiming), "making an event");
    for (int i = 0; i < SLOTS; i++)
        MBL_CUDA_TRY(cudaEventCreateWithFlags(&s->sent[i], cudaEventDisableTiming), "making an event");
    MBL_CUDA_TRY(cudaHostAlloc(&half, 2 * HALF, cudaHostAllocDefault), "pinning memory for copies");
    s->half = half;
    MBL_CUDA_TRY(cudaHostAlloc(&slot, SLOTS * SLOT, cudaHostAllocDefault), "pinning memory for copies");
    s->slot = slot;
    return MBL_OK;
}

mbl_status_t mbl_cuda_staging_open(uint64_t *waits, mbl_cuda_staging_t **out) {
    mbl_cuda_staging_t *s;
    MBL_ALLOC(s, 1);
    s->waits = waits;
    mbl_status_t status = open_parts(s);
    if (status != MBL_OK) {
        mbl_cuda_staging_close(s);
        return status;
    }
    *out = s;
    return MBL_OK;
}

void mbl_cuda_staging_close(mbl_cuda_staging_t *s) {
    if (!s)
        return;
    for (int i = 0; i < 2; i++)
        if (s->halved[i])
            cudaEventDestroy(s->halved[i]);
    for (int i = 0; i < SLOTS; i++)
        if (s->sent[i])
            cudaEventDestroy(s->sent[i]);
    if (s->half)
        cudaFreeHost(s->half);
    if (s->slot)
        cudaFreeHost(s->slot);
    mbl_free(s);
}

void mbl_cuda_staging_passed(mbl_cuda_staging_t *s) {
    s->done = s->asked;
    s->busy[0] = s->busy[1] = false;
}

static mbl_status_t put_small(mbl_cuda_staging_t *s, void *dst, const void *src, size_t bytes,
                              cudaStream_t stream) {
    const size_t i = s->asked % SLOTS;
    if (s->asked - s->done == SLOTS) { /* not counted: the device has 63 copies' worth of work left */
        MBL_CUDA_TRY(cudaEventSynchronize(s->sent[i]), "waiting for a copy");
        s->done++;
    }
    memcpy(s->slot + i * SLOT, src, bytes);
    MBL_CUDA_TRY(cudaMemcpyAsync(dst, s->slot + i * SLOT, bytes, cudaMemcpyHostToDevice, stream),
                 "a copy to the device");
    MBL_CUDA_TRY(cudaEventRecord(s->sent[i], stream), "marking a copy");
    s->asked++;
    return MBL_OK;
}

static size_t piece_of(size_t bytes, size_t done) {
    return bytes - done < HALF ? bytes - done : HALF;
}

mbl_status_t mbl_cuda_staging_put(mbl_cuda_staging_t *s, void *dst, const void *src, size_t bytes,
                                  cudaStream_t stream) {
    if (bytes <= SLOT)
        return put_small(s, dst, src, bytes, stream);
    for (size_t done = 0, i = 0; done < bytes; done += HALF, i ^= 1) {
        char *half = s->half + i * HALF;
        if (s->busy[i])
            MBL_CUDA_TRY(mbl_cuda_wait_event(s->waits, s->halved[i]), "waiting for a copy");
        memcpy(half, (const char *)src + done, piece_of(bytes, done));
        MBL_CUDA_TRY(
            cudaMemcpyAsync((char *)dst + done, half, piece_of(bytes, done), cudaMemcpyHostToDevice, stream),
            "a copy to the device");
        MBL_CUDA_TRY(cudaEventRecord(s->halved[i], stream), "marking a copy");
        s->busy[i] = true;
    }
    return MBL_OK;
}

mbl_status_t mbl_cuda_staging_get(mbl_cuda_staging_t *s, void *dst, const void *src, size_t bytes,
                                  cudaStream_t stream) {
    size_t asked = 0;
    for (size_t done = 0; done < bytes; done += HALF) {
        for (; asked < bytes && asked < done + 2 * HALF; asked += HALF) {
            const size_t i = asked / HALF % 2;
            MBL_CUDA_TRY(cudaMemcpyAsync(s->half + i * HALF, (const char *)src + asked,
                                         piece_of(bytes, asked), cudaMemcpyDeviceToHost, stream),
                         "a copy from the device");
            MBL_CUDA_TRY(cudaEventRecord(s->halved[i], stream), "marking a copy");
        }
        const size_t i = done / HALF % 2;
        MBL_CUDA_TRY(mbl_cuda_wait_event(s->waits, s->halved[i]), "waiting for the device");
        memcpy((char *)dst + done, s->half + i * HALF, piece_of(bytes, done));
    }
    mbl_cuda_staging_passed(s);
    return MBL_OK;
}
