/* Graphs: a stream that captures collects work instead of queuing it; other streams join by waiting for its
 * events. A launch queues the collected work again, in the order of the capture. */
#include "gpu/emulation/call.h"
#include "gpu/emulation/queue.h"

#include <stdlib.h>

struct mbl_emu_graph_exec {
    struct mbl_emu_graph *graph;
};

cudaError_t mbl_emu_refuse_capture(cudaStream_t stream) {
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++) {
        cudaStream_t other = &mbl_emu_streams[i];
        if (!other->used || !other->graph || (stream && stream != other))
            continue;
        other->graph->error = cudaErrorStreamCaptureInvalidated;
        return cudaErrorStreamCaptureUnsupported;
    }
    return cudaSuccess;
}

cudaError_t mbl_emu_graph_add(struct mbl_emu_graph *graph, mbl_emu_body_t *body) {
    if (graph->bodies == graph->room) {
        size_t room = graph->room ? 2 * graph->room : 256;
        mbl_emu_body_t **more = realloc(graph->body, room * sizeof *more);
        if (!more)
            return cudaErrorMemoryAllocation;
        graph->body = more;
        graph->room = room;
    }
    body->references++;
    graph->body[graph->bodies++] = body;
    return cudaSuccess;
}

static void graph_free(struct mbl_emu_graph *graph) {
    if (--graph->references > 0)
        return;
    for (size_t i = 0; i < graph->bodies; i++)
        mbl_emu_body_free(graph->body[i]);
    free(graph->body);
    free(graph);
}

static cudaError_t begin_capture(cudaStream_t handle) {
    cudaStream_t stream = handle ? mbl_emu_stream_of(handle) : NULL;
    if (!stream || stream->index < mbl_emu_settings.devices)
        return cudaErrorStreamCaptureUnsupported;
    if (stream->graph)
        return cudaErrorInvalidValue;
    struct mbl_emu_graph *graph = calloc(1, sizeof *graph);
    if (!graph)
        return cudaErrorMemoryAllocation;
    graph->origin = stream;
    graph->references = 1;
    stream->graph = graph;
    return cudaSuccess;
}

/* Ends the capture of all streams; joined ones must have been waited for by the origin. */
static cudaError_t end_capture(cudaStream_t handle, cudaGraph_t *out) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    struct mbl_emu_graph *graph = stream ? stream->graph : NULL;
    *out = NULL;
    if (!graph || graph->origin != stream)
        return cudaErrorInvalidValue;
    cudaError_t error = graph->error;
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++) {
        cudaStream_t joined = &mbl_emu_streams[i];
        if (joined->graph != graph)
            continue;
        if (error == cudaSuccess && stream->clock[i] < joined->clock[i])
            error = cudaErrorStreamCaptureUnjoined;
        joined->graph = NULL;
    }
    if (error != cudaSuccess)
        graph_free(graph);
    else
        *out = graph;
    return error;
}

static cudaError_t is_capturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    *status = !stream->graph                        ? cudaStreamCaptureStatusNone
              : stream->graph->error != cudaSuccess ? cudaStreamCaptureStatusInvalidated
                                                    : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

static cudaError_t instantiate(cudaGraphExec_t *out, cudaGraph_t graph) {
    if (!graph)
        return cudaErrorInvalidValue;
    cudaGraphExec_t exec = calloc(1, sizeof *exec);
    if (!exec)
        return cudaErrorMemoryAllocation;
    graph->references++;
    exec->graph = graph;
    *out = exec;
    return cudaSuccess;
}

static cudaError_t graph_launch(cudaGraphExec_t exec, cudaStream_t stream) {
    if (!exec)
        return cudaErrorInvalidValue;
    for (size_t i = 0; i < exec->graph->bodies; i++) {
        exec->graph->body[i]->references++;
        cudaError_t error = mbl_emu_enqueue(stream, exec->graph->body[i]);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)mode; /* every capture is checked as cudaStreamCaptureModeGlobal */
    CALL(begin_capture(stream));
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    CALL(end_capture(stream, out));
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    CALL(is_capturing(stream, status));
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    CALL(instantiate(out, graph));
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    CALL(graph_launch(exec, stream));
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    mbl_emu_lock();
    if (exec)
        graph_free(exec->graph);
    free(exec);
    mbl_emu_unlock();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    mbl_emu_lock();
    if (graph)
        graph_free(graph);
    mbl_emu_unlock();
    return cudaSuccess;
}
