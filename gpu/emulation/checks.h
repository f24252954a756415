/* The checkers' state that the hot paths read: who runs now, and the shadow of the memory it may touch. */
#ifndef MBL_GPU_EMULATION_CHECKS_H
#define MBL_GPU_EMULATION_CHECKS_H

#include "gpu/emulation/emulator.h"

/* Strands of one warp between two __syncwarp: one a lane, and one that stands for several of them. */
enum { MBL_EMU_RANGE = MBL_EMU_WARP + 1 };

/* One kind of memory: where it is, and the shadow of its bytes. */
typedef struct {
    uintptr_t base;
    size_t size;
    unsigned char *state;  /* [size] */
    mbl_emu_cell_t *cells; /* [size / 2] */
} mbl_emu_memory_t;

typedef struct {
    mbl_emu_strand_t mine;
    mbl_emu_strand_t safe;             /* all strands below belong to operations ordered before this one */
    mbl_emu_strand_t op;               /* the first strand of this operation; stands for several blocks */
    mbl_emu_strand_t block;            /* the first strand of the running block */
    mbl_emu_strand_t epoch;            /* and since its last barrier */
    mbl_emu_strand_t several, atomics; /* several threads of the block; atomics of the block (this epoch) */
    mbl_emu_strand_t lanes;            /* several lanes of the warp, since its last __syncwarp */
    uintptr_t stack;                   /* of the running fibre */
    bool checked;                      /* a checked launch is running */
    mbl_emu_memory_t heap, shared;
} mbl_emu_now_t;
extern mbl_emu_now_t mbl_emu_now;
/* Whether this host thread is inside a kernel: only then do instrumented accesses count. */
extern __thread bool mbl_emu_active __attribute__((tls_model("initial-exec")));

/* The block goes on behind a barrier (or starts): its strands, by warp MBL_EMU_RANGE each, from the result.
 */
mbl_emu_strand_t mbl_emu_checks_epoch(uint64_t block, int warps, bool first);
/* The lanes of a warp meet at __syncwarp: their new strands, MBL_EMU_RANGE from the result. */
mbl_emu_strand_t mbl_emu_checks_range(int warp);

/* One access of the running thread; does not return when it breaks a rule. */
void mbl_emu_check_access(const void *address, size_t bytes, mbl_emu_access_t access);
void mbl_emu_misaligned(const void *address, size_t bytes, const char *what) __attribute__((noreturn));
/* The bytes count as never written. */
void mbl_emu_checks_unset(const void *address, size_t bytes);
void mbl_emu_checks_shared(size_t at, size_t bytes, bool owned);
static inline bool mbl_emu_is_shared(const void *address, size_t bytes) {
    uintptr_t offset = (uintptr_t)address - mbl_emu_now.shared.base;
    return offset < mbl_emu_now.shared.size && offset + bytes <= mbl_emu_now.shared.size;
}

/* How a strand stands to the running one (order.c). */
typedef enum {
    MBL_EMU_BEFORE,      /* ordered */
    MBL_EMU_SELF,        /* the same thread */
    MBL_EMU_SAME_WARP,   /* another lane (or several) of the warp, no __syncwarp between */
    MBL_EMU_SAME_BLOCK,  /* another thread (or several) of the block, no barrier between */
    MBL_EMU_OTHER_BLOCK, /* of the same launch */
    MBL_EMU_OTHER_STREAM /* an operation of another stream that no event orders */
} mbl_emu_relation_t;
mbl_emu_relation_t mbl_emu_relation(mbl_emu_strand_t strand, bool shared);
bool mbl_emu_is_atomic(mbl_emu_strand_t strand);
/* "thread (3,0,0) of this block", "kernel scale of stream 2". */
void mbl_emu_describe_strand(mbl_emu_strand_t strand, char out[MBL_EMU_TEXT]);
/* The safe bound for an operation that begins; strands for it. */
void mbl_emu_order_begin(const mbl_emu_order_t *order);

/* An owned range of the heap, as one access of the running operation. rubbish: it may be uninitialised. */
cudaError_t mbl_emu_check_heap(const void *address, size_t bytes, mbl_emu_access_t access, bool rubbish);

/* reports.c; mbl_emu_operation names a copy or library call that is at work, NULL: a thread of a kernel is.
 */
extern const char *mbl_emu_operation;
void mbl_emu_report_conflict(const void *address, size_t bytes, mbl_emu_access_t access, bool wrote,
                             mbl_emu_strand_t other, mbl_emu_relation_t relation);
cudaError_t mbl_emu_report_bounds(const void *address, size_t bytes, mbl_emu_access_t access);
cudaError_t mbl_emu_report_unset(const void *address, size_t bytes);

#endif
