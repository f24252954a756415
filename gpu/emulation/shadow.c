/* The shadow: for every byte of device and shared memory whether somebody owns it and whether it was written,
 * for every two bytes who wrote and read them last. And the checks of whole ranges, for copies and libraries.
 */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

mbl_emu_now_t mbl_emu_now;
__thread bool mbl_emu_active;
static struct {
    unsigned char *state;
    mbl_emu_cell_t *cells;
} shadow[MBL_EMU_MOST_DEVICES];

static void *reserve(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

bool mbl_emu_checks_open(void) {
    enum { SHARED = 512 * 1024 };
    mbl_emu_now.shared.state = reserve(SHARED);
    mbl_emu_now.shared.cells = reserve(SHARED / 2 * sizeof(mbl_emu_cell_t));
    bool good = mbl_emu_now.shared.state && mbl_emu_now.shared.cells;
    for (int i = 0; i < mbl_emu_settings.devices && good; i++) {
        shadow[i].state = reserve(MBL_EMU_SPAN);
        shadow[i].cells = reserve(MBL_EMU_SPAN / 2 * sizeof(mbl_emu_cell_t));
        good = shadow[i].state && shadow[i].cells;
    }
    return good;
}

void mbl_emu_checks_reset(int device) {
    madvise(shadow[device].cells, MBL_EMU_SPAN / 2 * sizeof(mbl_emu_cell_t), MADV_DONTNEED);
    memset(mbl_emu_now.shared.cells, 0, mbl_emu_now.shared.size / 2 * sizeof(mbl_emu_cell_t));
}

/* Zeroes [at, at + bytes), giving whole pages back. */
static void clear(void *start, size_t bytes) {
    uintptr_t page = 4096, at = (uintptr_t)start, end = at + bytes;
    uintptr_t first = (at + page - 1) / page * page, last = end / page * page;
    if (last <= first) {
        memset(start, 0, bytes);
        return;
    }
    memset(start, 0, first - at);
    madvise((void *)first, last - first, MADV_DONTNEED);
    memset((void *)last, 0, end - last);
}

void mbl_emu_checks_owned(int device, size_t at, size_t bytes, bool owned) {
    if (!mbl_emu_settings.checks || bytes == 0)
        return;
    clear(shadow[device].state + at, bytes);
    clear(shadow[device].cells + at / 2, (bytes + 1) / 2 * sizeof(mbl_emu_cell_t));
    if (owned)
        memset(shadow[device].state + at, MBL_EMU_OWNED, bytes);
}

void mbl_emu_checks_shared(size_t at, size_t bytes, bool owned) {
    if (mbl_emu_now.checked)
        memset(mbl_emu_now.shared.state + at, owned ? MBL_EMU_OWNED : 0, bytes);
}

void mbl_emu_checks_unset(const void *address, size_t bytes) {
    if (mbl_emu_now.checked && mbl_emu_is_shared(address, bytes))
        memset(mbl_emu_now.shared.state + ((uintptr_t)address - mbl_emu_now.shared.base), MBL_EMU_OWNED,
               bytes);
}

void mbl_emu_checks_begin(const mbl_emu_order_t *order) {
    mbl_emu_now.heap.base = (uintptr_t)mbl_emu_heap(order->device);
    mbl_emu_now.heap.size = MBL_EMU_SPAN;
    mbl_emu_now.heap.state = shadow[order->device].state;
    mbl_emu_now.heap.cells = shadow[order->device].cells;
    if (mbl_emu_settings.checks)
        mbl_emu_order_begin(order);
}

/* ---- whole ranges ---- */

static cudaError_t check_bounds(int device, const void *address, size_t bytes, mbl_emu_access_t access) {
    const mbl_emu_block_t *block = mbl_emu_block_of(device, address, NULL);
    size_t at = (size_t)((const char *)address - mbl_emu_heap(device));
    if (block && block->live && at - block->at + bytes <= block->bytes)
        return cudaSuccess;
    if (block && block->live)
        address = mbl_emu_heap(device) + block->at + block->bytes;
    return mbl_emu_report_bounds(address, bytes, access);
}

/* rubbish: whether reading bytes that nobody has written is fine. */
static cudaError_t check(const void *address, size_t bytes, mbl_emu_access_t access, const char *what,
                         bool rubbish) {
    if (bytes == 0)
        return cudaSuccess;
    mbl_emu_operation = what;
    int device = mbl_emu_device_of(address);
    cudaError_t error = cudaErrorIllegalAddress;
    if (device < 0 || (uintptr_t)mbl_emu_heap(device) != mbl_emu_now.heap.base)
        mbl_emu_report_bounds(address, bytes, access);
    else
        error = check_bounds(device, address, bytes, access);
    if (error == cudaSuccess && mbl_emu_settings.checks)
        error = mbl_emu_check_heap(address, bytes, access, rubbish);
    mbl_emu_operation = NULL;
    return error;
}

cudaError_t mbl_emu_check_range(const void *address, size_t bytes, mbl_emu_access_t access,
                                const char *what) {
    return check(address, bytes, access, what, false);
}

cudaError_t mbl_emu_check_source(const void *address, size_t bytes, const char *what) {
    return check(address, bytes, MBL_EMU_READ_ACCESS, what, true);
}

void mbl_emu_check_copied(const void *dst, const void *src, size_t bytes) {
    if (!mbl_emu_settings.checks)
        return;
    unsigned char *to = mbl_emu_now.heap.state + ((uintptr_t)dst - mbl_emu_now.heap.base);
    const mbl_emu_block_t *from = mbl_emu_block_of(mbl_emu_device_of(src), src, NULL);
    if (from && from->unseen)
        memset(to, MBL_EMU_OWNED | MBL_EMU_SET, bytes);
    else
        memcpy(to, mbl_emu_now.heap.state + ((uintptr_t)src - mbl_emu_now.heap.base), bytes);
}
