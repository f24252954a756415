/* The running launch as the parts of the executor share it: block.c runs lanes on fibres, warp.c the
 * collectives, shared.c the block's arrays. */
#ifndef MBL_GPU_EMULATION_EXECUTOR_H
#define MBL_GPU_EMULATION_EXECUTOR_H

#include "gpu/emulation/emulator.h"

typedef enum { MBL_EMU_FREE, MBL_EMU_AT_BARRIER, MBL_EMU_AT_COLLECTIVE, MBL_EMU_ENDED } mbl_emu_wait_t;

/* A cp.async that has not been waited for. */
typedef struct {
    void *to;
    const void *from;
    unsigned group;
    bool some;
} mbl_emu_copy_t;

/* One thread of the running block. */
typedef struct {
    mbl_emu_fibre_t *fibre;         /* NULL until it starts */
    mbl_emu_strand_t strand, range; /* its strand, and the first of the strands of its warp since their last
                                       __syncwarp */
    mbl_emu_wait_t wait;
    uint3 index;
    /* the collective it waits for */
    mbl_emu_collective_t kind;
    unsigned mask;
    int line, argument, width;
    uint64_t value;       /* in and out */
    void *operand[3];     /* of mma and matrix loads, on the lane's stack or in shared memory */
    mbl_emu_copy_t *copy; /* [copies] of copy_room */
    unsigned copies, copy_room, group;
} mbl_emu_lane_t;

typedef struct {
    unsigned exists, ready, ended, waiting; /* lanes by bit; waiting: for a collective */
} mbl_emu_warp_state_t;

typedef struct {
    const mbl_emu_launch_t *launch;
    void (*thread)(const void *arguments); /* the copy of the kernel that runs */
    mbl_emu_lane_t lane[MBL_EMU_MOST_THREADS];
    mbl_emu_warp_state_t warp[MBL_EMU_MOST_THREADS / MBL_EMU_WARP];
    unsigned ready_warps;
    int threads, warps, running, live, arrived;
    mbl_emu_site_t barrier; /* where the first arrived */
    uint64_t block, blocks;
    mbl_emu_fibre_t *fibre, *free_fibres; /* the running one; those without a thread */
    void *main;                           /* the context that started the launch */
    cudaError_t error;
} mbl_emu_run_t;
extern mbl_emu_run_t mbl_emu_run;

static inline mbl_emu_lane_t *mbl_emu_me(void) {
    return &mbl_emu_run.lane[mbl_emu_run.running];
}

/* Lets others run; returns when this lane is made ready again (mbl_emu_wake). */
void mbl_emu_wait(mbl_emu_wait_t why);
void mbl_emu_wake(int lane);
/* Reports and stops: a rule of barriers or collectives is broken. */
void mbl_emu_broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* shared.c */
void mbl_emu_shared_begin(size_t dynamic_bytes); /* a block starts */
bool mbl_emu_shared_describe(const void *address, char out[MBL_EMU_TEXT]);
bool mbl_emu_shared_open(void);

#endif
