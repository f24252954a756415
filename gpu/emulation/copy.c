/* Copies and fills. A copy from pageable host memory takes the bytes at once, one to pageable memory is done
 * on return, as CUDA has it; only pinned memory is touched later, in the order of the stream. */
#include "gpu/emulation/call.h"
#include "gpu/emulation/queue.h"

#include <stdlib.h>
#include <string.h>

/* height rows of width bytes. */
typedef struct {
    mbl_emu_body_t body;
    char *dst;
    const char *src; /* NULL: fill with value */
    size_t dst_pitch, src_pitch, width, height;
    int value;
    bool dst_device, src_device;
    char *staged; /* a copy of pageable source bytes, owned */
} copy_t;

static cudaError_t copy_row(const copy_t *copy, size_t row) {
    char *dst = copy->dst + row * copy->dst_pitch;
    const char *src = copy->src ? copy->src + row * copy->src_pitch : NULL;
    cudaError_t error = cudaSuccess;
    bool both = copy->dst_device && copy->src_device;
    if (copy->src_device)
        error = both ? mbl_emu_check_source(src, copy->width, copy->body.name)
                     : mbl_emu_check_range(src, copy->width, MBL_EMU_READ_ACCESS, copy->body.name);
    if (error == cudaSuccess && copy->dst_device)
        error = mbl_emu_check_range(dst, copy->width, MBL_EMU_WRITE_ACCESS, copy->body.name);
    if (error != cudaSuccess)
        return error;
    if (src)
        memmove(dst, src, copy->width);
    else
        memset(dst, copy->value, copy->width);
    if (both)
        mbl_emu_check_copied(dst, src, copy->width);
    return cudaSuccess;
}

static cudaError_t run_copy(mbl_emu_body_t *self) {
    const copy_t *copy = (const copy_t *)self;
    for (size_t row = 0; row < copy->height; row++) {
        cudaError_t error = copy_row(copy, row);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

static void drop_copy(mbl_emu_body_t *self) {
    free(((copy_t *)self)->staged);
    free(self);
}

static cudaError_t stage(copy_t *copy) {
    copy->staged = malloc(copy->width * copy->height);
    if (!copy->staged)
        return cudaErrorMemoryAllocation;
    for (size_t row = 0; row < copy->height; row++)
        memcpy(copy->staged + row * copy->width, copy->src + row * copy->src_pitch, copy->width);
    copy->src = copy->staged;
    copy->src_pitch = copy->width;
    return cudaSuccess;
}

static bool kind_fits(enum cudaMemcpyKind kind, bool dst_device, bool src_device) {
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !dst_device && !src_device;
    case cudaMemcpyHostToDevice:
        return dst_device && !src_device;
    case cudaMemcpyDeviceToHost:
        return !dst_device && src_device;
    case cudaMemcpyDeviceToDevice:
        return dst_device && src_device;
    case cudaMemcpyDefault:
        return true;
    }
    return false;
}

/* Puts a described copy into the stream; takes it. */
static cudaError_t submit(copy_t *copy, cudaStream_t handle, bool synchronous) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    bool from_host = copy->src && !copy->src_device, to_host = !copy->dst_device;
    bool pageable_source = from_host && !mbl_emu_pinned(copy->src);
    bool pageable_target = to_host && !mbl_emu_pinned(copy->dst);
    cudaError_t error = stream ? cudaSuccess : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && (synchronous || pageable_source || pageable_target))
        error = mbl_emu_refuse_capture(stream);
    if (error == cudaSuccess && pageable_source)
        error = stage(copy);
    if (error != cudaSuccess) {
        drop_copy(&copy->body);
        return error;
    }
    error = mbl_emu_enqueue(stream, &copy->body);
    return error == cudaSuccess && (synchronous || pageable_target) ? mbl_emu_finish(stream) : error;
}

static cudaError_t make(copy_t **out, const char *name, void *dst, size_t dst_pitch, size_t width,
                        size_t height) {
    copy_t *copy = (copy_t *)mbl_emu_body_new(sizeof *copy, name, run_copy);
    if (!copy)
        return cudaErrorMemoryAllocation;
    copy->body.drop = drop_copy;
    copy->dst = dst;
    copy->dst_pitch = dst_pitch;
    copy->width = width;
    copy->height = height;
    copy->dst_device = mbl_emu_device_of(dst) >= 0;
    *out = copy;
    return cudaSuccess;
}

static cudaError_t copy_rows(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                             size_t height, enum cudaMemcpyKind kind, cudaStream_t stream, bool synchronous) {
    static const char *const name[] = {"copy on the host", "copy to the device", "copy to the host",
                                       "copy on the device"};
    bool dst_device = mbl_emu_device_of(dst) >= 0, src_device = mbl_emu_device_of(src) >= 0;
    if (width == 0 || height == 0)
        return cudaSuccess;
    if (!dst || !src || !kind_fits(kind, dst_device, src_device) ||
        (height > 1 && (dst_pitch < width || src_pitch < width)))
        return cudaErrorInvalidValue;
    copy_t *copy;
    cudaError_t error = make(&copy, name[dst_device + 2 * src_device], dst, dst_pitch, width, height);
    if (error != cudaSuccess)
        return error;
    copy->src = src;
    copy->src_pitch = src_pitch;
    copy->src_device = src_device;
    return submit(copy, stream, synchronous);
}

static cudaError_t fill_rows(void *dst, size_t pitch, int value, size_t width, size_t height,
                             cudaStream_t stream) {
    if (width == 0 || height == 0)
        return cudaSuccess;
    if (mbl_emu_device_of(dst) < 0 || (height > 1 && pitch < width))
        return cudaErrorInvalidValue;
    copy_t *copy;
    cudaError_t error = make(&copy, "fill", dst, pitch, width, height);
    if (error != cudaSuccess)
        return error;
    copy->value = value;
    return submit(copy, stream, false);
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind) {
    CALL(copy_rows(dst, bytes, src, bytes, bytes, 1, kind, NULL, true));
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    CALL(copy_rows(dst, bytes, src, bytes, bytes, 1, kind, stream, false));
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    CALL(copy_rows(dst, dst_pitch, src, src_pitch, width, height, kind, stream, false));
}
cudaError_t cudaMemset(void *dst, int value, size_t bytes) {
    CALL(fill_rows(dst, bytes, value, bytes, 1, NULL));
}
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream) {
    CALL(fill_rows(dst, bytes, value, bytes, 1, stream));
}
cudaError_t cudaMemset2DAsync(void *dst, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
    CALL(fill_rows(dst, pitch, value, width, height, stream));
}

typedef struct {
    mbl_emu_body_t body;
    cudaHostFn_t function;
    void *data;
} host_call_t;

static cudaError_t run_host_call(mbl_emu_body_t *self) {
    const host_call_t *call = (const host_call_t *)self;
    call->function(call->data);
    return cudaSuccess;
}

static cudaError_t host_call(cudaStream_t stream, cudaHostFn_t function, void *data) {
    host_call_t *call = (host_call_t *)mbl_emu_body_new(sizeof *call, "host function", run_host_call);
    if (!call)
        return cudaErrorMemoryAllocation;
    call->function = function;
    call->data = data;
    return mbl_emu_enqueue(stream, &call->body);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    CALL(host_call(stream, function, data));
}
