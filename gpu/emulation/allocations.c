/* CUDA's calls for memory, of the device and pinned. */
#include "gpu/emulation/call.h"
#include "gpu/emulation/queue.h"

static cudaError_t memory_info(size_t *free_bytes, size_t *total_bytes) {
    cudaError_t error = mbl_emu_check_current();
    if (error != cudaSuccess)
        return error;
    *total_bytes = mbl_emu_settings.memory;
    *free_bytes = mbl_emu_settings.memory - mbl_emu_allocated(mbl_emu_current_device());
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    CALL(memory_info(free_bytes, total_bytes));
}

static cudaError_t device_malloc(void **out, size_t bytes) {
    cudaError_t error = mbl_emu_check_current();
    if (error == cudaSuccess)
        error = mbl_emu_refuse_capture(NULL);
    *out = NULL;
    return error != cudaSuccess || bytes == 0 ? error
                                              : mbl_emu_allocate(mbl_emu_current_device(), bytes, out);
}
cudaError_t cudaMalloc(void **out, size_t bytes) {
    CALL(device_malloc(out, bytes));
}
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream) {
    (void)stream;
    CALL(device_malloc(out, bytes));
}

/* Waits for the device, as cudaFree does. */
static cudaError_t device_free(void *ptr) {
    int device = mbl_emu_device_of(ptr);
    if (!ptr)
        return cudaSuccess;
    if (device < 0)
        return cudaErrorInvalidValue;
    cudaError_t error = mbl_emu_refuse_capture(NULL);
    if (error == cudaSuccess)
        error = mbl_emu_finish_device(device);
    return error != cudaSuccess ? error : mbl_emu_release(device, ptr);
}
cudaError_t cudaFree(void *ptr) {
    CALL(device_free(ptr));
}

typedef struct {
    mbl_emu_body_t body;
    int device;
    void *ptr;
} release_t;

static cudaError_t run_release(mbl_emu_body_t *self) {
    release_t *release = (release_t *)self;
    return mbl_emu_release(release->device, release->ptr);
}

static cudaError_t device_free_async(void *ptr, cudaStream_t stream) {
    int device = mbl_emu_device_of(ptr);
    const mbl_emu_block_t *block = device < 0 ? NULL : mbl_emu_block_of(device, ptr, NULL);
    if (!block || !block->live || mbl_emu_heap(device) + block->at != ptr)
        return cudaErrorInvalidValue;
    release_t *release = (release_t *)mbl_emu_body_new(sizeof *release, "cudaFreeAsync", run_release);
    if (!release)
        return cudaErrorMemoryAllocation;
    release->device = device;
    release->ptr = ptr;
    return mbl_emu_enqueue(stream, &release->body);
}
cudaError_t cudaFreeAsync(void *ptr, cudaStream_t stream) {
    CALL(device_free_async(ptr, stream));
}

static cudaError_t host_malloc(void **out, size_t bytes) {
    cudaError_t error = mbl_emu_check_current();
    return error != cudaSuccess ? error : mbl_emu_pinned_new(bytes, out);
}
cudaError_t cudaMallocHost(void **out, size_t bytes) {
    CALL(host_malloc(out, bytes));
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
    (void)flags;
    CALL(host_malloc(out, bytes));
}

static cudaError_t host_free(void *ptr) {
    if (!ptr)
        return cudaSuccess;
    for (int i = 0; i < mbl_emu_settings.devices; i++)
        (void)mbl_emu_finish_device(i);
    return mbl_emu_pinned_free(ptr);
}
cudaError_t cudaFreeHost(void *ptr) {
    CALL(host_free(ptr));
}

static cudaError_t pointer_attributes(struct cudaPointerAttributes *out, const void *ptr) {
    int device = mbl_emu_device_of(ptr);
    const mbl_emu_block_t *block = device < 0 ? NULL : mbl_emu_block_of(device, ptr, NULL);
    *out = (struct cudaPointerAttributes){.device = -2};
    void *same = (void *)(uintptr_t)ptr;
    if (block && block->live)
        *out = (struct cudaPointerAttributes){cudaMemoryTypeDevice, device, same, NULL};
    else if (mbl_emu_pinned(ptr))
        *out = (struct cudaPointerAttributes){cudaMemoryTypeHost, mbl_emu_current_device(), same, same};
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *ptr) {
    CALL(pointer_attributes(out, ptr));
}
