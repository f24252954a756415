/* What the checkers say: who does what, where, and who else. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <stdio.h>

static const char *verb(mbl_emu_access_t access) {
    return access == MBL_EMU_READ_ACCESS    ? "reads"
           : access == MBL_EMU_WRITE_ACCESS ? "writes"
                                            : "changes by an atomic";
}

static void describe(const void *address, char out[MBL_EMU_TEXT]) {
    if (!mbl_emu_shared_describe(address, out))
        mbl_emu_describe(address, out);
}

static const char *const missing[] = {[MBL_EMU_SAME_WARP] = "with no __syncwarp or barrier between",
                                      [MBL_EMU_SAME_BLOCK] = "with no barrier between",
                                      [MBL_EMU_OTHER_BLOCK] = "and nothing orders blocks of one launch",
                                      [MBL_EMU_OTHER_STREAM] =
                                          "and no event or synchronisation orders the two streams"};

/* Who does what now: a thread of a kernel, or a whole operation. */
const char *mbl_emu_operation;

static void who(char out[MBL_EMU_TEXT]) {
    if (mbl_emu_operation)
        snprintf(out, MBL_EMU_TEXT, "%s", mbl_emu_operation);
    else
        mbl_emu_where(out);
}

void mbl_emu_report_conflict(const void *address, size_t bytes, mbl_emu_access_t access, bool wrote,
                             mbl_emu_strand_t other, mbl_emu_relation_t relation) {
    char me[MBL_EMU_TEXT], where[MBL_EMU_TEXT], party[MBL_EMU_TEXT];
    who(me);
    describe(address, where);
    mbl_emu_describe_strand(other, party);
    mbl_emu_report("%s: %s: it %s %zu bytes at %s, which %s %s, %s", me,
                   relation == MBL_EMU_OTHER_STREAM ? "missing stream order" : "race", verb(access), bytes,
                   where, party, wrote ? "wrote" : "read", missing[relation]);
}

cudaError_t mbl_emu_report_bounds(const void *address, size_t bytes, mbl_emu_access_t access) {
    char me[MBL_EMU_TEXT], where[MBL_EMU_TEXT];
    who(me);
    describe(address, where);
    int device = mbl_emu_device_of(address);
    bool shared = mbl_emu_is_shared(address, 1);
    bool other = device >= 0 && (uintptr_t)mbl_emu_heap(device) != mbl_emu_now.heap.base;
    mbl_emu_report("%s: %s: it %s %zu bytes at %s", me,
                   shared       ? "out of bounds"
                   : device < 0 ? "host pointer on the device"
                   : other      ? "memory of another device"
                                : "out of bounds",
                   verb(access), bytes, where);
    return cudaErrorIllegalAddress;
}

cudaError_t mbl_emu_report_unset(const void *address, size_t bytes) {
    char me[MBL_EMU_TEXT], where[MBL_EMU_TEXT];
    who(me);
    describe(address, where);
    mbl_emu_report("%s: uninitialised memory: it reads %zu bytes at %s, %s", me, bytes, where,
                   mbl_emu_is_shared(address, 1) ? "which no thread of the block has written so far"
                                                 : "which nobody has written");
    return cudaErrorLaunchFailure;
}

void mbl_emu_misaligned(const void *address, size_t bytes, const char *what) {
    char me[MBL_EMU_TEXT], where[MBL_EMU_TEXT];
    mbl_emu_where(me);
    describe(address, where);
    mbl_emu_report("%s: misaligned address: %s of %zu bytes at %s, which is not a multiple of %zu", me, what,
                   bytes, where, bytes);
    mbl_emu_stop(cudaErrorMisalignedAddress);
}
