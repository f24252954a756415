/* Launches of kernels: their limits, their place in the stream. */
#include "gpu/emulation/call.h"
#include "gpu/emulation/queue.h"

#include <string.h>

enum { MOST_FUNCTIONS = 256 };
static struct {
    struct {
        const void *function;
        size_t dynamic_bytes;
    } function[MOST_FUNCTIONS];
    int functions;
    uint64_t run;
} launches;

static size_t *allowed_bytes(const void *function) {
    for (int i = 0; i < launches.functions; i++)
        if (launches.function[i].function == function)
            return &launches.function[i].dynamic_bytes;
    return NULL;
}

static cudaError_t function_attribute(const void *function, int value) {
    if (value < 0 || value > MBL_EMU_MOST_SHARED)
        return cudaErrorInvalidValue;
    size_t *bytes = allowed_bytes(function);
    if (!bytes && launches.functions == MOST_FUNCTIONS)
        return cudaErrorMemoryAllocation;
    if (!bytes) {
        launches.function[launches.functions].function = function;
        bytes = &launches.function[launches.functions++].dynamic_bytes;
    }
    *bytes = (size_t)value;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) {
    CALL(attribute == cudaFuncAttributeMaxDynamicSharedMemorySize ? function_attribute(function, value)
                                                                  : cudaErrorInvalidValue);
}

typedef struct {
    mbl_emu_body_t body;
    mbl_emu_launch_t launch;
    int device;
    _Alignas(16) unsigned char arguments[];
} kernel_t;

static cudaError_t run_kernel(mbl_emu_body_t *self) {
    if (++launches.run == mbl_emu_settings.broken_launch)
        return cudaErrorECCUncorrectable;
    const kernel_t *kernel = (const kernel_t *)self;
    return mbl_emu_execute(&kernel->launch, mbl_emu_take_checked(&kernel->launch, kernel->device));
}

static cudaError_t check_launch(const mbl_emu_launch_t *launch, cudaStream_t stream) {
    const dim3 *g = &launch->grid, *b = &launch->block;
    if (!stream || stream->device != mbl_emu_current_device())
        return cudaErrorInvalidResourceHandle;
    uint64_t threads = (uint64_t)b->x * b->y * b->z;
    if (threads == 0 || threads > MBL_EMU_MOST_THREADS || b->z > 64 || g->x == 0 || g->y == 0 || g->z == 0 ||
        g->x > 0x7fffffffu || g->y > 65535 || g->z > 65535)
        return cudaErrorInvalidConfiguration;
    const size_t *allowed = allowed_bytes(launch->function);
    if (launch->shared_bytes >
        (allowed && *allowed > MBL_EMU_STATIC_SHARED ? *allowed : MBL_EMU_STATIC_SHARED))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static cudaError_t enqueue_kernel(const mbl_emu_launch_t *launch, cudaStream_t stream) {
    cudaError_t error = mbl_emu_check_current();
    if (error == cudaSuccess)
        error = check_launch(launch, mbl_emu_stream_of(stream));
    if (error != cudaSuccess)
        return error;
    kernel_t *kernel =
        (kernel_t *)mbl_emu_body_new(sizeof *kernel + launch->argument_bytes, launch->name, run_kernel);
    if (!kernel)
        return cudaErrorMemoryAllocation;
    memcpy(kernel->arguments, launch->arguments, launch->argument_bytes);
    kernel->launch = *launch;
    kernel->launch.arguments = kernel->arguments;
    kernel->device = mbl_emu_stream_of(stream)->device;
    return mbl_emu_enqueue(stream, &kernel->body);
}
cudaError_t mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream) {
    CALL(enqueue_kernel(launch, stream));
}
