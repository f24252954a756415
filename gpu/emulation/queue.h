/* Streams, events and the order between them, as queue.c, streams.c, graph.c and those that queue work share
 * them. */
#ifndef MBL_GPU_EMULATION_QUEUE_H
#define MBL_GPU_EMULATION_QUEUE_H

#include "gpu/emulation/emulator.h"

/* A point in a stream: what an event stands for since it was recorded last. */
typedef struct {
    int references;
    bool done;
    cudaStream_t stream;
    struct mbl_emu_graph *graph; /* recorded while capturing */
    uint32_t clock[MBL_EMU_MOST_STREAMS];
    double seconds; /* when it was passed */
} mbl_emu_mark_t;

typedef struct mbl_emu_op mbl_emu_op_t;
struct mbl_emu_op {
    mbl_emu_op_t *next;
    mbl_emu_body_t *body;         /* work, or */
    mbl_emu_mark_t *pass, *await; /* a point that is passed, or one that must be passed first */
    uint32_t clock[MBL_EMU_MOST_STREAMS];
};

struct mbl_emu_stream {
    int index, device;
    bool used, blocking, draining;        /* blocking: ordered with the device's default stream */
    uint32_t clock[MBL_EMU_MOST_STREAMS]; /* what the next operation comes after */
    mbl_emu_op_t *first, **last;
    struct mbl_emu_graph *graph; /* being captured into */
};

struct mbl_emu_event {
    mbl_emu_mark_t *mark; /* NULL: never recorded */
    bool timing;
};

/* A captured sequence of work. */
struct mbl_emu_graph {
    cudaStream_t origin;
    mbl_emu_body_t **body; /* [bodies] of room */
    size_t bodies, room;
    cudaError_t error; /* what invalidated the capture */
    int references;
};

extern struct mbl_emu_stream mbl_emu_streams[MBL_EMU_MOST_STREAMS];

/* The stream of a handle: NULL is the default stream of the current device. NULL when it is none. */
cudaStream_t mbl_emu_stream_of(cudaStream_t handle);
/* After both. */
static inline void mbl_emu_clock_merge(uint32_t *into, const uint32_t *clock) {
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++)
        if (clock[i] > into[i])
            into[i] = clock[i];
}
/* A point behind all that is in the stream now; one reference is the caller's. NULL without memory. */
mbl_emu_mark_t *mbl_emu_add_mark(cudaStream_t stream);
void mbl_emu_mark_free(mbl_emu_mark_t *mark);
/* What comes next in the stream comes after the mark. */
cudaError_t mbl_emu_add_await(cudaStream_t stream, mbl_emu_mark_t *mark);
/* Work of a default stream comes after all earlier work of the blocking streams of its device, and theirs
 * after its. */
cudaError_t mbl_emu_order_default(cudaStream_t stream);
/* Runs everything of the stream; cudaErrorNotReady: a message of another rank is under way. */
cudaError_t mbl_emu_drain(cudaStream_t stream);
/* The same up to the goal (NULL: to the end). */
cudaError_t mbl_emu_drain_to(cudaStream_t stream, const mbl_emu_mark_t *goal);
/* The same, waiting for other ranks; finish_mark also orders the host behind. */
void mbl_emu_run_out(cudaStream_t stream);
cudaError_t mbl_emu_finish_mark(const mbl_emu_mark_t *mark);
/* Waits for it, and the host is then ordered behind. */
cudaError_t mbl_emu_finish(cudaStream_t stream);
cudaError_t mbl_emu_finish_device(int device);
/* The first error of a device, which all its later calls give; reset clears it. */
cudaError_t mbl_emu_device_error(int device);
void mbl_emu_queue_open(void);
void mbl_emu_queue_reset(int device);
/* What a call that waits or allocates gives while the stream (NULL: any stream of the process) captures. */
cudaError_t mbl_emu_refuse_capture(cudaStream_t stream);
void mbl_emu_body_free(mbl_emu_body_t *body);
/* Appends to the graph, taking a reference. */
cudaError_t mbl_emu_graph_add(struct mbl_emu_graph *graph, mbl_emu_body_t *body);
int mbl_emu_current_device(void);
/* The error of having no device, or one that has failed. */
cudaError_t mbl_emu_check_current(void);

#endif
