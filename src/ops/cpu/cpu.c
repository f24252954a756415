/* The cpu backend: its table, and memory on the host. */
#include "ops/cpu/cpu.h"
#include "base/mem.h"
#include "base/memory_left.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mbl_status_t cpu_open(mbl_ops_t *ops, int threads) {
    (void)threads; /* ops->threads has it */
    mbl_cpu_t *cpu;
    MBL_ALLOC(cpu, 1);
    mbl_status_t status = mbl_cpu_isa(&cpu->isa);
    if (status == MBL_OK)
        status = mbl_cpu_matmuls_open(&cpu->matmuls);
    if (status == MBL_OK)
        status = mbl_cpu_convs_open(&cpu->convs);
    if (status != MBL_OK) {
        mbl_cpu_matmuls_close(cpu->matmuls);
        mbl_free(cpu);
        return status;
    }
    ops->impl = cpu;
    return MBL_OK;
}

static void cpu_close(mbl_ops_t *ops) {
    mbl_cpu_t *cpu = mbl_cpu_of(ops);
    mbl_cpu_matmuls_close(cpu->matmuls);
    mbl_cpu_convs_close(cpu->convs);
    mbl_free(cpu->work);
    mbl_free(cpu);
    ops->impl = NULL;
}

mbl_status_t mbl_cpu_workspace(mbl_ops_t *ops, size_t bytes, void **out) {
    mbl_cpu_t *cpu = mbl_cpu_of(ops);
    if (bytes > cpu->work_bytes) {
        mbl_free(cpu->work);
        cpu->work_bytes = 0;
        cpu->work = mbl_calloc(bytes, 1);
        if (!cpu->work)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu bytes of scratch", bytes);
        cpu->work_bytes = bytes;
    }
    *out = cpu->work;
    return MBL_OK;
}

enum { LARGE = 64 << 20 }; /* bytes: asking the kernel takes no time beside zeroing them */

/* A kernel that promises more than there is kills the process later; so what is not there is refused here. */
static mbl_status_t cpu_alloc(mbl_ops_t *ops, size_t bytes, void **out) {
    const size_t most = bytes >= LARGE ? mbl_memory_most("") : SIZE_MAX;
    void *ptr = bytes <= most ? mbl_calloc(bytes, 1) : NULL;
    if (!ptr)
        return mbl_ops_no_memory(ops, "memory", bytes, most);
    *out = ptr;
    return MBL_OK;
}

static void cpu_free(mbl_ops_t *ops, void *ptr) {
    (void)ops;
    mbl_free(ptr);
}

static mbl_status_t cpu_copy(mbl_ops_t *ops, void *dst, mbl_space_t dst_space, const void *src,
                             mbl_space_t src_space, size_t bytes) {
    (void)ops;
    MBL_REQUIRE(dst_space == MBL_HOST && src_space == MBL_HOST, "copy: the cpu backend has host memory only");
    memmove(dst, src, bytes);
    return MBL_OK;
}

static mbl_status_t cpu_zero(mbl_ops_t *ops, void *ptr, size_t bytes) {
    (void)ops;
    memset(ptr, 0, bytes);
    return MBL_OK;
}

static mbl_status_t cpu_sync(mbl_ops_t *ops) {
    (void)ops;
    return MBL_OK;
}

static void cpu_describe(mbl_ops_t *ops, char *out, size_t size) {
    const char *limit = getenv("MARBLE_CPU_ISA");
    char onednn[MBL_CPU_TEXT], version[MBL_CPU_TEXT];
    mbl_cpu_onednn(version, onednn);
    snprintf(out, size, "%s; products: %s; oneDNN: %s%s", mbl_cpu_isa_name(mbl_cpu_of(ops)->isa),
             mbl_cpu_of(ops)->isa == MBL_CPU_AVX512 ? "oneDNN" : "own", onednn,
             limit && *limit ? " (MARBLE_CPU_ISA is set)" : "");
}

static bool cpu_bf16(mbl_ops_t *ops) {
    (void)ops;
    return mbl_cpu_bf16_is_native();
}

static mbl_status_t cpu_memory_left(mbl_ops_t *ops, size_t *bytes) {
    (void)ops;
    *bytes = mbl_memory_left("");
    return MBL_OK;
}

const mbl_ops_table_t mbl_ops_cpu = {.name = "cpu",
                                     .automatic = true,
                                     .space = MBL_HOST,
                                     .open = cpu_open,
                                     .close = cpu_close,
                                     .describe = cpu_describe,
                                     .bf16_is_native = cpu_bf16,
                                     .alloc = cpu_alloc,
                                     .free = cpu_free,
                                     .copy = cpu_copy,
                                     .zero = cpu_zero,
                                     .sync = cpu_sync,
                                     .memory_left = cpu_memory_left,
#define SLOT(name, need) .name = mbl_cpu_##name,
                                     MBL_OPS_LIST(SLOT)
#undef SLOT
};
