/* The `fake` backend: cpu's operations on tensors whose addresses no host code can use, as a device's are. A
 * tensor's address is the memory's own plus an offset that leads out of the address space, so a read or a
 * write that does not go through the backend ends the process at that instruction, on every run, without a
 * GPU. Results are cpu's to the bit, and where the host would wait for a device is counted. For tests. */
#include "base/mem.h"
#include "ops/list.h"

#include <string.h>

enum { MAX_OPERANDS = 16 };
/* Above the user's part of the address space with four levels of page tables, in a part nobody is given with
 * five, and below the byte that some processors ignore. */
#define FAR ((uintptr_t)1 << 52)

typedef struct {
    mbl_ops_table_t table; /* the handle's, with what cpu lacks taken out */
    mbl_ops_t inner;
} fake_t;

static mbl_ops_t *inner_of(mbl_ops_t *ops) {
    return &((fake_t *)ops->impl)->inner;
}

static void *to_far(void *ptr) {
    return (void *)((uintptr_t)ptr + FAR);
}

static void *to_near(const void *ptr) {
    return (void *)((uintptr_t)ptr - FAR);
}

static bool is_far(const void *ptr) {
    return (uintptr_t)ptr >= FAR;
}

/* Points the operands in `args` at copies of their tensors with addresses the cpu backend can use. What lies
 * on the host (the Gram matrix) stays. */
static mbl_status_t bring_near(mbl_op_t op, void *args, mbl_tensor_t near[MAX_OPERANDS]) {
    size_t n;
    const mbl_operand_t *operand = mbl_op_operands(op, &n);
    MBL_REQUIRE(n <= MAX_OPERANDS, "fake device: %s has %zu operands, %d are possible", mbl_op_name(op), n,
                MAX_OPERANDS);
    for (size_t i = 0; i < n; i++) {
        const mbl_tensor_t **at = (const mbl_tensor_t **)(void *)((char *)args + operand[i].offset);
        if (!*at || (*at)->space == MBL_HOST)
            continue;
        if (!is_far((*at)->data))
            return MBL_FAIL(MBL_ERR_INTERNAL, "%s: %s is said to be on the device and lies on the host",
                            mbl_op_name(op), operand[i].name);
        near[i] = **at;
        near[i].data = to_near(near[i].data);
        near[i].space = MBL_HOST;
        *at = &near[i];
    }
    return MBL_OK;
}

#define SLOT(name, need)                                                                                     \
    static mbl_status_t fake_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                       \
        mbl_ops_t *inner = inner_of(ops);                                                                    \
        mbl_##name##_args_t own = *args;                                                                     \
        mbl_tensor_t near[MAX_OPERANDS];                                                                     \
        MBL_TRY(bring_near(MBL_OP_##name, &own, near));                                                      \
        ops->waits += mbl_op_to_host(MBL_OP_##name);                                                         \
        return inner->table->name(inner, &own);                                                              \
    }
MBL_OPS_LIST(SLOT)
#undef SLOT

static mbl_status_t fake_open(mbl_ops_t *ops, int threads) {
    fake_t *fake;
    MBL_ALLOC(fake, 1);
    fake->table = *ops->table;
#define LACKS(name, need)                                                                                    \
    if (!mbl_ops_cpu.name)                                                                                   \
        fake->table.name = NULL;
    MBL_OPS_LIST(LACKS)
#undef LACKS
    fake->inner.table = &mbl_ops_cpu;
    fake->inner.threads = threads;
    mbl_status_t status = mbl_ops_cpu.open(&fake->inner, threads);
    if (status != MBL_OK) {
        mbl_free(fake);
        return status;
    }
    ops->impl = fake;
    ops->table = &fake->table;
    return MBL_OK;
}

static void fake_close(mbl_ops_t *ops) {
    mbl_ops_cpu.close(inner_of(ops));
    mbl_free(ops->impl);
    ops->impl = NULL;
}

static mbl_status_t fake_alloc(mbl_ops_t *ops, size_t bytes, void **out) {
    void *ptr;
    MBL_TRY(mbl_ops_cpu.alloc(inner_of(ops), bytes, &ptr));
    *out = to_far(ptr);
    return MBL_OK;
}

static void fake_free(mbl_ops_t *ops, void *ptr) {
    if (ptr)
        mbl_ops_cpu.free(inner_of(ops), to_near(ptr));
}

static mbl_status_t fake_copy(mbl_ops_t *ops, void *dst, mbl_space_t dst_space, const void *src,
                              mbl_space_t src_space, size_t bytes) {
    MBL_REQUIRE(is_far(dst) == (dst_space == MBL_DEVICE) && is_far(src) == (src_space == MBL_DEVICE),
                "copy: an address is not in the memory space it is said to be in");
    ops->waits += is_far(src) && !is_far(dst);
    return mbl_ops_cpu.copy(inner_of(ops), is_far(dst) ? to_near(dst) : dst, MBL_HOST,
                            is_far(src) ? to_near(src) : src, MBL_HOST, bytes);
}

static mbl_status_t fake_zero(mbl_ops_t *ops, void *ptr, size_t bytes) {
    return mbl_ops_cpu.zero(inner_of(ops), to_near(ptr), bytes);
}

static mbl_status_t fake_sync(mbl_ops_t *ops) {
    ops->waits++;
    return mbl_ops_cpu.sync(inner_of(ops));
}

/* As on a GPU. */
static bool fake_bf16(mbl_ops_t *ops) {
    (void)ops;
    return true;
}

const mbl_ops_table_t mbl_ops_fake = {.name = "fake",
                                      .space = MBL_DEVICE,
                                      .open = fake_open,
                                      .close = fake_close,
                                      .bf16_is_native = fake_bf16,
                                      .alloc = fake_alloc,
                                      .free = fake_free,
                                      .copy = fake_copy,
                                      .zero = fake_zero,
                                      .sync = fake_sync,
#define SLOT(name, need) .name = fake_##name,
                                      MBL_OPS_LIST(SLOT)
#undef SLOT
};
