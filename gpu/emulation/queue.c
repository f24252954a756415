/* Streams: queues of work that run when somebody waits for them, and no sooner, so that code which forgets to
 * wait sees what it would see on the slowest of devices. Order is kept as vector clocks, for the checkers. */
#include "gpu/emulation/queue.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct mbl_emu_stream mbl_emu_streams[MBL_EMU_MOST_STREAMS];
static struct {
    uint32_t host[MBL_EMU_MOST_STREAMS]; /* what the host has waited for */
    cudaError_t error[MBL_EMU_MOST_DEVICES];
} queue;

/* Streams 0.. are the default ones of the devices. */
void mbl_emu_queue_open(void) {
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++) {
        mbl_emu_streams[i].index = i;
        mbl_emu_streams[i].last = &mbl_emu_streams[i].first;
    }
    for (int i = 0; i < mbl_emu_settings.devices; i++) {
        mbl_emu_streams[i].device = i;
        mbl_emu_streams[i].used = mbl_emu_streams[i].blocking = true;
    }
}

cudaStream_t mbl_emu_stream_of(cudaStream_t handle) {
    if (!handle)
        return &mbl_emu_streams[mbl_emu_current_device()];
    size_t at = (uintptr_t)handle - (uintptr_t)mbl_emu_streams;
    return at < sizeof mbl_emu_streams && at % sizeof *mbl_emu_streams == 0 && handle->used ? handle : NULL;
}

cudaError_t mbl_emu_device_error(int device) {
    return queue.error[device];
}

mbl_emu_body_t *mbl_emu_body_new(size_t bytes, const char *name, cudaError_t (*run)(mbl_emu_body_t *self)) {
    mbl_emu_body_t *body = calloc(1, bytes);
    if (!body)
        return NULL;
    snprintf(body->name, sizeof body->name, "%s", name);
    body->run = run;
    body->references = 1;
    return body;
}

void mbl_emu_body_free(mbl_emu_body_t *body) {
    if (!body || --body->references > 0)
        return;
    if (body->drop)
        body->drop(body);
    else
        free(body);
}

void mbl_emu_mark_free(mbl_emu_mark_t *mark) {
    if (mark && --mark->references == 0)
        free(mark);
}

static void op_free(mbl_emu_op_t *op) {
    mbl_emu_body_free(op->body);
    mbl_emu_mark_free(op->pass);
    mbl_emu_mark_free(op->await);
    free(op);
}

/* An empty operation at the end of the stream, ordered behind all before it and what the host waited for. */
static mbl_emu_op_t *append(cudaStream_t stream) {
    mbl_emu_op_t *op = calloc(1, sizeof *op);
    if (!op)
        return NULL;
    mbl_emu_clock_merge(stream->clock, queue.host);
    memcpy(op->clock, stream->clock, sizeof op->clock);
    *stream->last = op;
    stream->last = &op->next;
    return op;
}

cudaError_t mbl_emu_add_await(cudaStream_t stream, mbl_emu_mark_t *mark) {
    mbl_emu_clock_merge(stream->clock, mark->clock);
    if (mark->done)
        return cudaSuccess;
    mbl_emu_op_t *op = append(stream);
    if (!op)
        return cudaErrorMemoryAllocation;
    op->await = mark;
    mark->references++;
    return cudaSuccess;
}

mbl_emu_mark_t *mbl_emu_add_mark(cudaStream_t stream) {
    mbl_emu_mark_t *mark = calloc(1, sizeof *mark);
    if (!mark)
        return NULL;
    mark->references = 1;
    mark->stream = stream;
    mark->graph = stream->graph;
    mbl_emu_clock_merge(stream->clock, queue.host);
    memcpy(mark->clock, stream->clock, sizeof mark->clock);
    if (mark->graph)
        return mark;
    mbl_emu_op_t *op = append(stream);
    if (!op) {
        free(mark);
        return NULL;
    }
    op->pass = mark;
    mark->references++;
    return mark;
}

static cudaError_t order_streams(cudaStream_t before, cudaStream_t after) {
    mbl_emu_mark_t *mark = mbl_emu_add_mark(before);
    if (!mark)
        return cudaErrorMemoryAllocation;
    cudaError_t error = mbl_emu_add_await(after, mark);
    mbl_emu_mark_free(mark);
    return error;
}

cudaError_t mbl_emu_order_default(cudaStream_t stream) {
    cudaStream_t standard = &mbl_emu_streams[stream->device];
    if (stream != standard)
        return stream->blocking &&
                       (standard->first || standard->clock[standard->index] > stream->clock[standard->index])
                   ? order_streams(standard, stream)
                   : cudaSuccess;
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++) {
        cudaStream_t other = &mbl_emu_streams[i];
        if (other == stream || !other->used || !other->blocking || other->device != stream->device ||
            other->graph)
            continue;
        cudaError_t error = order_streams(other, stream);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

static cudaError_t run_body(cudaStream_t stream, mbl_emu_op_t *op) {
    mbl_emu_order_t order = {.name = op->body->name, .device = stream->device, .stream = stream->index};
    memcpy(order.clock, op->clock, sizeof order.clock);
    mbl_emu_checks_begin(&order);
    return op->body->run(op->body);
}

static cudaError_t run_op(cudaStream_t stream, mbl_emu_op_t *op) {
    if (op->await && !op->await->done)
        return mbl_emu_drain_to(op->await->stream, op->await);
    if (op->pass) {
        op->pass->done = true;
        op->pass->seconds = mbl_now();
    }
    if (!op->body || queue.error[stream->device] != cudaSuccess)
        return cudaSuccess;
    cudaError_t error = run_body(stream, op);
    if (error != cudaSuccess && error != cudaErrorNotReady) {
        queue.error[stream->device] = error;
        error = cudaSuccess; /* the queue goes on, its work is skipped */
    }
    return error;
}

cudaError_t mbl_emu_drain_to(cudaStream_t stream, const mbl_emu_mark_t *goal) {
    cudaError_t error = cudaSuccess;
    if (!stream->first || stream->draining)
        return stream->draining && goal && !goal->done ? cudaErrorNotReady : cudaSuccess;
    stream->draining = true;
    mbl_emu_access_open();
    while (stream->first && error == cudaSuccess && !(goal && goal->done)) {
        mbl_emu_op_t *op = stream->first;
        error = run_op(stream, op);
        if (error != cudaSuccess)
            break;
        stream->first = op->next;
        if (!stream->first)
            stream->last = &stream->first;
        op_free(op);
    }
    mbl_emu_access_close();
    stream->draining = false;
    return error;
}

cudaError_t mbl_emu_drain(cudaStream_t stream) {
    return mbl_emu_drain_to(stream, NULL);
}

static void back_off(void) {
    const struct timespec pause = {0, 20000};
    mbl_emu_unlock();
    nanosleep(&pause, NULL);
    mbl_emu_lock();
}

cudaError_t mbl_emu_finish_mark(const mbl_emu_mark_t *mark) {
    int device = mark->stream->device;
    while (!mark->done && mbl_emu_drain_to(mark->stream, mark) == cudaErrorNotReady)
        back_off();
    mbl_emu_clock_merge(queue.host, mark->clock);
    return queue.error[device];
}

void mbl_emu_run_out(cudaStream_t stream) {
    while (mbl_emu_drain_to(stream, NULL) == cudaErrorNotReady)
        back_off();
}

cudaError_t mbl_emu_finish(cudaStream_t stream) {
    mbl_emu_run_out(stream);
    mbl_emu_clock_merge(queue.host, stream->clock);
    return queue.error[stream->device];
}

cudaError_t mbl_emu_finish_device(int device) {
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++)
        if (mbl_emu_streams[i].used && mbl_emu_streams[i].device == device)
            (void)mbl_emu_finish(&mbl_emu_streams[i]);
    return queue.error[device];
}

void mbl_emu_queue_reset(int device) {
    queue.error[device] = cudaErrorUnknown; /* pending work is dropped, not run */
    (void)mbl_emu_finish_device(device);
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++)
        if (mbl_emu_streams[i].device == device && i >= mbl_emu_settings.devices)
            mbl_emu_streams[i].used = false;
    queue.error[device] = cudaSuccess;
}

cudaError_t mbl_emu_enqueue(cudaStream_t handle, mbl_emu_body_t *body) {
    cudaStream_t stream = mbl_emu_stream_of(handle);
    cudaError_t error = !body ? cudaErrorMemoryAllocation : cudaSuccess;
    if (!stream)
        error = cudaErrorInvalidResourceHandle;
    else if (queue.error[stream->device] != cudaSuccess)
        error = queue.error[stream->device];
    if (error == cudaSuccess && stream->graph) {
        stream->clock[stream->index]++;
        error = mbl_emu_graph_add(stream->graph, body);
        mbl_emu_body_free(body);
        return error;
    }
    if (error == cudaSuccess)
        error = mbl_emu_order_default(stream);
    mbl_emu_op_t *op = NULL;
    if (error == cudaSuccess) {
        stream->clock[stream->index]++;
        op = append(stream);
        if (!op)
            error = cudaErrorMemoryAllocation;
    }
    if (error != cudaSuccess) {
        mbl_emu_body_free(body);
        return error;
    }
    op->body = body;
    return mbl_emu_settings.blocking ? mbl_emu_finish(stream) : cudaSuccess;
}
