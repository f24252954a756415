/* Device memory: one stretch of addresses per device that faults whenever the host touches it, with unowned
 * bytes between allocations; and pinned host memory. */
#include "gpu/emulation/emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    mbl_emu_block_t *block; /* [blocks], by address, none overlap */
    size_t blocks, room;
    size_t used, next; /* bytes of live blocks; where the search for a gap begins */
    size_t high;       /* bytes of the heap that were ever in use */
    size_t opened;     /* readable now */
} heap_t;

enum { KEPT_FREED = 8 << 20 }; /* bytes of addresses */

typedef struct {
    char *at;
    size_t bytes;
} pinned_t;

static struct {
    char *base;
    heap_t heap[MBL_EMU_MOST_DEVICES];
    int open;
    pinned_t *pinned;
    size_t pins, pin_room;
} memory;

bool mbl_emu_memory_open(void) {
    size_t bytes = MBL_EMU_SPAN * MBL_EMU_MOST_DEVICES;
    memory.base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < MBL_EMU_MOST_DEVICES; i++)
        memory.heap[i].next = MBL_EMU_ALIGN;
    return memory.base != MAP_FAILED;
}

char *mbl_emu_heap(int device) {
    return memory.base + (size_t)device * MBL_EMU_SPAN;
}

int mbl_emu_device_of(const void *address) {
    size_t at = (uintptr_t)address - (uintptr_t)memory.base;
    return memory.base && at < MBL_EMU_SPAN * MBL_EMU_MOST_DEVICES ? (int)(at / MBL_EMU_SPAN) : -1;
}

/* Index of the first block that starts above `at`. */
static size_t above(const heap_t *heap, size_t at) {
    size_t low = 0, high = heap->blocks;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (heap->block[middle].at > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

const mbl_emu_block_t *mbl_emu_block_of(int device, const void *address, const mbl_emu_block_t **nearest) {
    const heap_t *heap = &memory.heap[device];
    size_t at = (size_t)((const char *)address - mbl_emu_heap(device)), i = above(heap, at);
    const mbl_emu_block_t *block = i > 0 ? &heap->block[i - 1] : NULL;
    if (nearest)
        *nearest = block;
    return block && at - block->at < block->bytes ? block : NULL;
}

void mbl_emu_unseen(int device, const void *address) {
    mbl_emu_block_t *block = (mbl_emu_block_t *)(uintptr_t)mbl_emu_block_of(device, address, NULL);
    if (block)
        block->unseen = true;
}

static size_t footprint(size_t bytes) {
    return (bytes + MBL_EMU_ALIGN - 1) / MBL_EMU_ALIGN * MBL_EMU_ALIGN + MBL_EMU_ALIGN;
}

/* Forgets freed blocks in [at, at + bytes). */
static void forget(heap_t *heap, size_t at, size_t bytes) {
    size_t first = above(heap, at);
    if (first > 0 && heap->block[first - 1].at + footprint(heap->block[first - 1].bytes) > at)
        first--;
    size_t last = first;
    while (last < heap->blocks && heap->block[last].at < at + bytes)
        last++;
    memmove(heap->block + first, heap->block + last, (heap->blocks - last) * sizeof *heap->block);
    heap->blocks -= last - first;
}

/* The first gap between live blocks from `start` on that holds `bytes`; MBL_EMU_SPAN: none. */
static size_t find_gap(const heap_t *heap, size_t start, size_t bytes) {
    size_t at = start, i = above(heap, start);
    if (i > 0 && heap->block[i - 1].live && heap->block[i - 1].at + footprint(heap->block[i - 1].bytes) > at)
        at = heap->block[i - 1].at + footprint(heap->block[i - 1].bytes);
    for (; i < heap->blocks; i++) {
        if (!heap->block[i].live)
            continue;
        if (heap->block[i].at >= at + bytes)
            break;
        at = heap->block[i].at + footprint(heap->block[i].bytes);
    }
    return at + bytes <= MBL_EMU_SPAN ? at : MBL_EMU_SPAN;
}

static bool grow(heap_t *heap) {
    if (heap->blocks < heap->room)
        return true;
    size_t room = heap->room ? 2 * heap->room : 64;
    mbl_emu_block_t *more = realloc(heap->block, room * sizeof *more);
    if (!more)
        return false;
    heap->block = more;
    heap->room = room;
    return true;
}

cudaError_t mbl_emu_allocate(int device, size_t bytes, void **out) {
    heap_t *heap = &memory.heap[device];
    size_t limit = mbl_emu_settings.memory;
    if (bytes > limit || heap->used > limit - bytes || !grow(heap))
        return cudaErrorMemoryAllocation;
    /* The next addresses first, so that freed ones stay known for a while; but protecting memory takes time
     * for every page of addresses ever used. */
    if (heap->next > heap->used + KEPT_FREED)
        heap->next = MBL_EMU_ALIGN;
    size_t want = footprint(bytes), at = find_gap(heap, heap->next, want);
    if (at == MBL_EMU_SPAN)
        at = find_gap(heap, MBL_EMU_ALIGN, want);
    if (at == MBL_EMU_SPAN)
        return cudaErrorMemoryAllocation;
    forget(heap, at, want);
    size_t i = above(heap, at);
    memmove(heap->block + i + 1, heap->block + i, (heap->blocks - i) * sizeof *heap->block);
    heap->block[i] = (mbl_emu_block_t){at, bytes, .live = true};
    heap->blocks++;
    heap->used += bytes;
    heap->next = at + want;
    if (heap->next > heap->high)
        heap->high = heap->next;
    mbl_emu_checks_owned(device, at, bytes, true);
    *out = mbl_emu_heap(device) + at;
    return cudaSuccess;
}

/* Gives whole pages inside [at, at + bytes) back. */
static void give_back(char *start, size_t bytes) {
    uintptr_t page = 4096, first = ((uintptr_t)start + page - 1) / page * page,
              last = ((uintptr_t)start + bytes) / page * page;
    if (last > first)
        madvise((void *)first, last - first, MADV_DONTNEED);
}

cudaError_t mbl_emu_release(int device, void *ptr) {
    heap_t *heap = &memory.heap[device];
    mbl_emu_block_t *block = (mbl_emu_block_t *)(uintptr_t)mbl_emu_block_of(device, ptr, NULL);
    size_t at = (size_t)((char *)ptr - mbl_emu_heap(device));
    if (!block || block->at != at || !block->live)
        return cudaErrorInvalidValue;
    block->live = false;
    heap->used -= block->bytes;
    mbl_emu_checks_owned(device, at, block->bytes, false);
    give_back(ptr, block->bytes);
    return cudaSuccess;
}

size_t mbl_emu_allocated(int device) {
    return memory.heap[device].used;
}

void mbl_emu_memory_reset(int device) {
    heap_t *heap = &memory.heap[device];
    mbl_emu_checks_owned(device, 0, heap->high, false);
    give_back(mbl_emu_heap(device), heap->high);
    heap->blocks = heap->used = 0;
    heap->next = MBL_EMU_ALIGN;
}

void mbl_emu_describe(const void *address, char out[MBL_EMU_TEXT]) {
    int device = mbl_emu_device_of(address);
    if (device < 0) {
        snprintf(out, MBL_EMU_TEXT, "%p, which is %s", address,
                 mbl_emu_pinned(address) ? "pinned host memory" : "host memory or nothing");
        return;
    }
    const mbl_emu_block_t *nearest, *block = mbl_emu_block_of(device, address, &nearest);
    size_t at = (size_t)((const char *)address - mbl_emu_heap(device));
    if (block)
        snprintf(out, MBL_EMU_TEXT, "byte %zu of a device allocation of %zu bytes%s (device %d, %p)",
                 at - block->at, block->bytes, block->live ? "" : " that was freed", device, address);
    else if (nearest)
        snprintf(out, MBL_EMU_TEXT,
                 "%zu bytes behind the end of a device allocation of %zu bytes%s (device "
                 "%d, %p)",
                 at - nearest->at - nearest->bytes, nearest->bytes, nearest->live ? "" : " that was freed",
                 device, address);
    else
        snprintf(out, MBL_EMU_TEXT, "device memory before any allocation (device %d, %p)", device, address);
}

void mbl_emu_access_open(void) {
    if (memory.open++ > 0)
        return;
    for (int i = 0; i < mbl_emu_settings.devices; i++) {
        heap_t *heap = &memory.heap[i];
        size_t last = heap->blocks;
        while (last > 0 && !heap->block[last - 1].live)
            last--;
        size_t end = last > 0 ? heap->block[last - 1].at + footprint(heap->block[last - 1].bytes) : 0;
        size_t bytes = (end + 4095) / 4096 * 4096;
        if (bytes > 0 && mprotect(mbl_emu_heap(i), bytes, PROT_READ | PROT_WRITE) == 0)
            heap->opened = bytes;
    }
}

void mbl_emu_access_close(void) {
    if (--memory.open > 0)
        return;
    for (int i = 0; i < mbl_emu_settings.devices; i++) {
        heap_t *heap = &memory.heap[i];
        if (heap->opened > 0 && mbl_emu_settings.checks)
            mprotect(mbl_emu_heap(i), heap->opened, PROT_NONE);
        heap->opened = 0;
    }
}

cudaError_t mbl_emu_pinned_new(size_t bytes, void **out) {
    if (memory.pins == memory.pin_room) {
        size_t room = memory.pin_room ? 2 * memory.pin_room : 16;
        pinned_t *more = realloc(memory.pinned, room * sizeof *more);
        if (!more)
            return cudaErrorMemoryAllocation;
        memory.pinned = more;
        memory.pin_room = room;
    }
    char *at = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    memory.pinned[memory.pins++] = (pinned_t){at, bytes};
    *out = at;
    return cudaSuccess;
}

cudaError_t mbl_emu_pinned_free(void *ptr) {
    for (size_t i = 0; i < memory.pins; i++)
        if (memory.pinned[i].at == ptr) {
            munmap(ptr, memory.pinned[i].bytes ? memory.pinned[i].bytes : 1);
            memory.pinned[i] = memory.pinned[--memory.pins];
            return cudaSuccess;
        }
    return cudaErrorInvalidValue;
}

bool mbl_emu_pinned(const void *address) {
    for (size_t i = 0; i < memory.pins; i++)
        if ((uintptr_t)address - (uintptr_t)memory.pinned[i].at < memory.pinned[i].bytes)
            return true;
    return false;
}
