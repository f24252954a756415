/* CUDA's calls for streams and events. */
#include "gpu/emulation/call.h"
#include "gpu/emulation/queue.h"

#include <stdlib.h>

static cudaError_t stream_create(cudaStream_t *out, unsigned flags) {
    for (int i = mbl_emu_settings.devices; i < MBL_EMU_MOST_STREAMS; i++) {
        cudaStream_t stream = &mbl_emu_streams[i];
        if (stream->used)
            continue;
        stream->used = true;
        stream->device = mbl_emu_current_device();
        stream->blocking = !(flags & cudaStreamNonBlocking);
        stream->graph = NULL;
        *out = stream;
        return cudaSuccess;
    }
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    CALL(stream_create(out, flags));
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) {
    (void)priority;
    CALL(stream_create(out, flags));
}
cudaError_t cudaStreamCreate(cudaStream_t *out) {
    CALL(stream_create(out, cudaStreamDefault));
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

static cudaError_t stream_destroy(cudaStream_t handle) {
    cudaStream_t stream = handle ? mbl_emu_stream_of(handle) : NULL;
    if (!stream || stream->index < mbl_emu_settings.devices)
        return cudaErrorInvalidResourceHandle;
    mbl_emu_run_out(stream);
    stream->used = false;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    CALL(stream_destroy(stream));
}

static cudaError_t stream_synchronize(cudaStream_t handle) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    cudaError_t error = mbl_emu_refuse_capture(stream);
    return error != cudaSuccess ? error : mbl_emu_finish(stream);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    CALL(stream_synchronize(stream));
}

static cudaError_t stream_query(cudaStream_t handle) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    cudaError_t error = mbl_emu_refuse_capture(stream);
    if (error == cudaSuccess)
        error = mbl_emu_drain_to(stream, NULL);
    return error != cudaSuccess ? error : mbl_emu_finish(stream);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    CALL(stream_query(stream));
}

static cudaError_t wait_event(cudaStream_t handle, cudaEvent_t event) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    if (!stream || !event)
        return cudaErrorInvalidResourceHandle;
    mbl_emu_mark_t *mark = event->mark;
    if (!mark)
        return cudaSuccess;
    if (mark->graph && !stream->graph)
        stream->graph = mark->graph; /* joins the capture */
    if (mark->graph) {
        mbl_emu_clock_merge(stream->clock, mark->clock);
        return cudaSuccess;
    }
    return mbl_emu_add_await(stream, mark);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    CALL(wait_event(stream, event));
}

static cudaError_t event_create(cudaEvent_t *out, unsigned flags) {
    cudaEvent_t event = calloc(1, sizeof *event);
    if (!event)
        return cudaErrorMemoryAllocation;
    event->timing = !(flags & cudaEventDisableTiming);
    *out = event;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    CALL(event_create(out, flags));
}
cudaError_t cudaEventCreate(cudaEvent_t *out) {
    CALL(event_create(out, cudaEventDefault));
}

static cudaError_t event_destroy(cudaEvent_t event) {
    if (!event)
        return cudaErrorInvalidResourceHandle;
    mbl_emu_mark_free(event->mark);
    free(event);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    CALL(event_destroy(event));
}

static cudaError_t event_record(cudaEvent_t event, cudaStream_t handle) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    if (!stream || !event)
        return cudaErrorInvalidResourceHandle;
    cudaError_t error = stream->graph ? cudaSuccess : mbl_emu_order_default(stream);
    if (error != cudaSuccess)
        return error;
    mbl_emu_mark_t *mark = mbl_emu_add_mark(stream);
    if (!mark)
        return cudaErrorMemoryAllocation;
    mbl_emu_mark_free(event->mark);
    event->mark = mark;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    CALL(event_record(event, stream));
}

static cudaError_t event_finish(cudaEvent_t event, bool wait) {
    if (!event)
        return cudaErrorInvalidResourceHandle;
    mbl_emu_mark_t *mark = event->mark;
    if (!mark)
        return cudaSuccess;
    if (mark->graph)
        return cudaErrorStreamCaptureUnsupported;
    if (!wait && !mark->done) {
        cudaError_t error = mbl_emu_drain_to(mark->stream, mark);
        if (error != cudaSuccess)
            return error;
    }
    return mbl_emu_finish_mark(mark);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    CALL(event_finish(event, true));
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    CALL(event_finish(event, false));
}

static cudaError_t event_elapsed(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    if (!start || !end || !start->mark || !end->mark || !start->timing || !end->timing)
        return cudaErrorInvalidResourceHandle;
    if (!start->mark->done || !end->mark->done)
        return cudaErrorNotReady;
    *milliseconds = (float)((end->mark->seconds - start->mark->seconds) * 1e3);
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    CALL(event_elapsed(milliseconds, start, end));
}
