/* The checks of one access of a kernel, and the entries that the compiler calls for them: kernels are
 * compiled with -fsanitize=thread, which puts a call before every load and store, and with
 * -fsanitize=alignment,bounds; the sanitizers' own libraries are not linked. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <link.h>
#include <stdio.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { GOOD = MBL_EMU_OWNED | MBL_EMU_SET };

/* ---- who else was there ---- */

static bool clash(mbl_emu_relation_t relation) {
    return relation > MBL_EMU_SELF;
}

/* The cell's reader after the running thread has read, too. */
static mbl_emu_strand_t joined(mbl_emu_relation_t relation) {
    switch (relation) {
    case MBL_EMU_SAME_WARP:
        return mbl_emu_now.lanes;
    case MBL_EMU_SAME_BLOCK:
        return mbl_emu_now.several;
    case MBL_EMU_OTHER_BLOCK:
        return mbl_emu_now.op;
    default:
        return mbl_emu_now.mine;
    }
}

/* What the quick comparison could not decide. */
static __attribute__((noinline)) cudaError_t slow_cell(mbl_emu_cell_t *cell, const void *address,
                                                       size_t bytes, mbl_emu_access_t access, bool shared) {
    mbl_emu_relation_t writer = mbl_emu_relation(cell->writer, shared);
    if (clash(writer) && !(access == MBL_EMU_ATOMIC_ACCESS && mbl_emu_is_atomic(cell->writer))) {
        mbl_emu_report_conflict(address, bytes, access, true, cell->writer, writer);
        return cudaErrorLaunchFailure;
    }
    mbl_emu_relation_t reader = mbl_emu_relation(cell->reader, shared);
    if (access == MBL_EMU_READ_ACCESS) {
        cell->reader = joined(reader);
        return cudaSuccess;
    }
    if (clash(reader)) {
        mbl_emu_report_conflict(address, bytes, access, false, cell->reader, reader);
        return cudaErrorLaunchFailure;
    }
    bool thread = access == MBL_EMU_WRITE_ACCESS;
    *cell = (mbl_emu_cell_t){thread ? mbl_emu_now.mine : mbl_emu_now.atomics, 0};
    return cudaSuccess;
}

/* A strand that needs no second look: ordered before, or the thread itself. */
INLINE bool quick(mbl_emu_strand_t strand, mbl_emu_strand_t bound) {
    return strand < bound || strand == mbl_emu_now.mine ||
           strand - mbl_emu_now.block < mbl_emu_now.epoch - mbl_emu_now.block;
}

INLINE bool quick_reader(mbl_emu_strand_t reader) {
    return reader == mbl_emu_now.several || reader == mbl_emu_now.op || reader == mbl_emu_now.lanes;
}

INLINE cudaError_t check_cells(const mbl_emu_memory_t *memory, size_t at, size_t bytes,
                               mbl_emu_access_t access, mbl_emu_strand_t bound, bool shared) {
    mbl_emu_cell_t *cell = memory->cells + at / 2, *end = memory->cells + (at + bytes + 1) / 2;
    for (; cell < end; cell++) {
        if (access == MBL_EMU_READ_ACCESS && quick(cell->writer, bound)) {
            if (quick(cell->reader, bound)) {
                cell->reader = mbl_emu_now.mine;
                continue;
            }
            if (quick_reader(cell->reader))
                continue;
        } else if (access == MBL_EMU_WRITE_ACCESS && quick(cell->writer, bound) &&
                   quick(cell->reader, bound)) {
            *cell = (mbl_emu_cell_t){mbl_emu_now.mine, 0};
            continue;
        }
        const void *address = (const void *)(memory->base + at);
        cudaError_t error = slow_cell(cell, address, bytes, access, shared);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

/* ---- who owns it, was it written ---- */

static bool written_unseen(const void *address) {
    int device = mbl_emu_device_of(address);
    const mbl_emu_block_t *block = device < 0 ? NULL : mbl_emu_block_of(device, address, NULL);
    return block && block->unseen;
}

static __attribute__((noinline)) cudaError_t slow_state(const mbl_emu_memory_t *memory, size_t at,
                                                        size_t bytes, mbl_emu_access_t access) {
    unsigned char *state = memory->state + at;
    for (size_t i = 0; i < bytes; i++) {
        const void *address = (const void *)(memory->base + at + i);
        if (!(state[i] & MBL_EMU_OWNED))
            return mbl_emu_report_bounds(address, bytes, access);
        if (access != MBL_EMU_WRITE_ACCESS && state[i] != GOOD && !written_unseen(address))
            return mbl_emu_report_unset(address, bytes);
        state[i] = GOOD;
    }
    return cudaSuccess;
}

INLINE bool all_good(const unsigned char *state, size_t bytes) {
    uint64_t a = 0, b = 0;
    const uint64_t good = 0x0303030303030303u;
    switch (bytes) {
    case 1:
        return *state == GOOD;
    case 2:
        memcpy(&a, state, 2);
        return a == (good & 0xffffu);
    case 4:
        memcpy(&a, state, 4);
        return a == (good & 0xffffffffu);
    case 8:
        memcpy(&a, state, 8);
        return a == good;
    case 16:
        memcpy(&a, state, 8);
        memcpy(&b, state + 8, 8);
        return a == good && b == good;
    default:
        return false;
    }
}

INLINE cudaError_t check_memory(const mbl_emu_memory_t *memory, size_t at, size_t bytes,
                                mbl_emu_access_t access, mbl_emu_strand_t bound, bool shared) {
    if (!all_good(memory->state + at, bytes)) {
        cudaError_t error = slow_state(memory, at, bytes, access);
        if (error != cudaSuccess)
            return error;
    }
    return check_cells(memory, at, bytes, access, bound, shared);
}

cudaError_t mbl_emu_check_heap(const void *address, size_t bytes, mbl_emu_access_t access, bool rubbish) {
    const mbl_emu_memory_t *heap = &mbl_emu_now.heap;
    size_t at = (uintptr_t)address - heap->base;
    cudaError_t error = rubbish ? cudaSuccess : slow_state(heap, at, bytes, access);
    return error != cudaSuccess ? error : check_cells(heap, at, bytes, access, mbl_emu_now.safe, false);
}

/* ---- neither device nor shared memory ---- */

static int find_constant(struct dl_phdr_info *info, size_t size, void *data) {
    uintptr_t address = *(const uintptr_t *)data;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        bool fixed = (part->p_type == PT_LOAD && !(part->p_flags & PF_W)) || part->p_type == PT_GNU_RELRO;
        if (fixed && address - info->dlpi_addr - part->p_vaddr < part->p_memsz)
            return 1;
    }
    return 0;
}

/* Pinned host memory, the arguments of the launch and constants of the program are fine. */
static __attribute__((noinline)) void check_elsewhere(const void *address, size_t bytes,
                                                      mbl_emu_access_t access) {
    const mbl_emu_launch_t *launch = mbl_emu_run.launch;
    uintptr_t at = (uintptr_t)address;
    if (mbl_emu_pinned(address))
        return; /* visible to all devices at its own address */
    if (access == MBL_EMU_READ_ACCESS && (at - (uintptr_t)launch->arguments < launch->argument_bytes ||
                                          dl_iterate_phdr(find_constant, &at) != 0))
        return;
    mbl_emu_stop(mbl_emu_report_bounds(address, bytes, access));
}

INLINE void check(const void *address, size_t bytes, mbl_emu_access_t access) {
    const mbl_emu_now_t *now = &mbl_emu_now;
    cudaError_t error = cudaSuccess;
    size_t at = (uintptr_t)address - now->heap.base;
    if (at < now->heap.size)
        error = check_memory(&now->heap, at, bytes, access, now->safe, false);
    else if ((at = (uintptr_t)address - now->shared.base) < now->shared.size)
        error = check_memory(&now->shared, at, bytes, access, now->epoch, true);
    else if ((uintptr_t)address - now->stack >= MBL_EMU_STACK)
        check_elsewhere(address, bytes, access);
    if (__builtin_expect(error != cudaSuccess, 0))
        mbl_emu_stop(error);
}

void mbl_emu_check_access(const void *address, size_t bytes, mbl_emu_access_t access) {
    if (mbl_emu_now.checked)
        check(address, bytes, access);
}

void mbl_emu_atomic(const void *address, size_t bytes) {
    if ((uintptr_t)address % bytes)
        mbl_emu_misaligned(address, bytes, "an atomic");
    mbl_emu_check_access(address, bytes, MBL_EMU_ATOMIC_ACCESS);
}

/* ---- what the compiler calls ---- */

#if MBL_EMULATION_CHECKS
/* Host code of a kernel file calls them, too: only inside a kernel do they count. */
INLINE void instrumented(const void *address, size_t bytes, mbl_emu_access_t access) {
    if (mbl_emu_active && mbl_emu_now.checked)
        check(address, bytes, access);
}

#define ENTRY(name)                                                                                          \
    void name(void *address);                                                                                \
    void name(void *address)
#define ENTRIES(bytes)                                                                                       \
    ENTRY(__tsan_read##bytes) {                                                                              \
        instrumented(address, bytes, MBL_EMU_READ_ACCESS);                                                   \
    }                                                                                                        \
    ENTRY(__tsan_write##bytes) {                                                                             \
        instrumented(address, bytes, MBL_EMU_WRITE_ACCESS);                                                  \
    }                                                                                                        \
    ENTRY(__tsan_unaligned_read##bytes) {                                                                    \
        instrumented(address, bytes, MBL_EMU_READ_ACCESS);                                                   \
    }                                                                                                        \
    ENTRY(__tsan_unaligned_write##bytes) {                                                                   \
        instrumented(address, bytes, MBL_EMU_WRITE_ACCESS);                                                  \
    }
ENTRIES(1)
ENTRIES(2)
ENTRIES(4)
ENTRIES(8)
ENTRIES(16)

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_read_range(void *address, size_t bytes);
void __tsan_read_range(void *address, size_t bytes) {
    instrumented(address, bytes, MBL_EMU_READ_ACCESS);
}
void __tsan_write_range(void *address, size_t bytes);
void __tsan_write_range(void *address, size_t bytes) {
    instrumented(address, bytes, MBL_EMU_WRITE_ACCESS);
}
void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller) {
    (void)caller;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}

/* What the compiler passes: where in the source, the type, log2 of its alignment. */
typedef struct {
    const char *file;
    uint32_t line, column;
    const void *type;
    unsigned char log_alignment, kind;
} mismatch_t;
typedef struct {
    const char *file;
    uint32_t line, column;
} place_t;

void __ubsan_handle_type_mismatch_v1(const mismatch_t *what, void *address);
void __ubsan_handle_type_mismatch_v1(const mismatch_t *what, void *address) {
    char text[MBL_EMU_TEXT];
    snprintf(text, sizeof text, "an access (%s:%u)", what->file, what->line);
    if (mbl_emu_active && mbl_emu_now.checked)
        mbl_emu_misaligned(address, (size_t)1 << what->log_alignment, text);
}
void __ubsan_handle_out_of_bounds(const place_t *what, void *index);
void __ubsan_handle_out_of_bounds(const place_t *what, void *index) {
    if (mbl_emu_active && mbl_emu_now.checked) {
        char me[MBL_EMU_TEXT];
        mbl_emu_where(me);
        mbl_emu_report("%s: out of bounds: index %td of the array of %s:%u", me, (intptr_t)index, what->file,
                       what->line);
        mbl_emu_stop(cudaErrorIllegalAddress);
    }
}
#endif
