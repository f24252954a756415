/* The `check` backend (see check.h). It knows operations only through the operand table. */
#include "ops/check.h"
#include "base/mem.h"
#include "ops/list.h"

#include <string.h>

enum { MAX_OPERANDS = 16 };
static const uint64_t poison_f64 = 0x7ff8dead7fdbdeadu;
static const uint32_t poison_f32 = 0x7fdbdeadu;
static const uint16_t poison_bf16 = 0x7fdbu;

typedef struct {
    mbl_ops_table_t table; /* the handle's, with what the inner one lacks taken out */
    mbl_ops_t inner;
} check_t;

static check_t *check_of(mbl_ops_t *ops) {
    return ops->impl;
}

/* The i-th element of a strided tensor. */
static char *element(const mbl_tensor_t *t, size_t i) {
    size_t at = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += i % t->dim[d] * t->stride[d];
        i /= t->dim[d];
    }
    return (char *)t->data + at * mbl_dtype_size(t->dtype);
}

static const void *pattern_of(mbl_dtype_t dtype) {
    switch (dtype) {
    case MBL_F32:
        return &poison_f32;
    case MBL_BF16:
        return &poison_bf16;
    case MBL_F64:
        return &poison_f64;
    default:
        return NULL; /* whole numbers have no NaN */
    }
}

void mbl_check_poison(const mbl_tensor_t *t) {
    const void *pattern = pattern_of(t->dtype);
    for (size_t i = 0; pattern && i < mbl_tensor_count(t); i++)
        memcpy(element(t, i), pattern, mbl_dtype_size(t->dtype));
}

/* The first poisoned element, or the element count. */
static size_t find_poison(const mbl_tensor_t *t) {
    const void *pattern = pattern_of(t->dtype);
    size_t count = mbl_tensor_count(t), size = mbl_dtype_size(t->dtype);
    for (size_t i = 0; pattern && i < count; i++)
        if (memcmp(element(t, i), pattern, size) == 0)
            return i;
    return count;
}

/* FNV-1a, a word at a time. */
static uint64_t digest(const mbl_tensor_t *t) {
    uint64_t hash = 0xcbf29ce484222325u;
    size_t count = mbl_tensor_count(t), size = mbl_dtype_size(t->dtype);
    for (size_t i = 0; i < count; i++) {
        uint64_t word = 0;
        memcpy(&word, element(t, i), size);
        hash = (hash ^ word) * 0x100000001b3u;
    }
    return hash;
}

static bool overlap(const mbl_tensor_t *a, const mbl_tensor_t *b) {
    const char *a_end = element(a, mbl_tensor_count(a) - 1) + mbl_dtype_size(a->dtype);
    const char *b_end = element(b, mbl_tensor_count(b) - 1) + mbl_dtype_size(b->dtype);
    return (const char *)a->data < b_end && (const char *)b->data < a_end;
}

/* One call: its operands and what was found before it. */
typedef struct {
    mbl_op_t op;
    size_t n;
    const mbl_operand_t *operand;
    const mbl_tensor_t *tensor[MAX_OPERANDS];
    mbl_role_t role[MAX_OPERANDS];
    bool shared[MAX_OPERANDS]; /* lies over an operand of the other direction: y may be x */
    uint64_t before[MAX_OPERANDS];
} call_t;

static bool is_input(mbl_role_t role) {
    return role == MBL_IN || role == MBL_INOUT;
}

static void find_shared(call_t *call) {
    for (size_t i = 0; i < call->n; i++)
        for (size_t j = 0; j < call->n; j++)
            if (call->tensor[i] && call->tensor[j] &&
                (call->role[i] == MBL_IN) != (call->role[j] == MBL_IN) &&
                overlap(call->tensor[i], call->tensor[j]))
                call->shared[i] = true;
}

static mbl_status_t before_call(call_t *call, mbl_op_t op, const void *args) {
    *call = (call_t){.op = op};
    call->operand = mbl_op_operands(op, &call->n);
    MBL_REQUIRE(call->n <= MAX_OPERANDS, "check: %s has %zu operands, %d are possible", mbl_op_name(op),
                call->n, MAX_OPERANDS);
    for (size_t i = 0; i < call->n; i++) {
        const mbl_tensor_t *t = *(const mbl_tensor_t *const *)((const char *)args + call->operand[i].offset);
        call->tensor[i] = t;
        call->role[i] = mbl_op_role(op, &call->operand[i], args);
        if (t && is_input(call->role[i]) && find_poison(t) < mbl_tensor_count(t))
            return MBL_FAIL(MBL_ERR_INTERNAL, "%s reads %s, whose element %zu of %zu was never written",
                            mbl_op_name(op), call->operand[i].name, find_poison(t), mbl_tensor_count(t));
    }
    find_shared(call);
    for (size_t i = 0; i < call->n; i++) {
        if (call->tensor[i] && call->role[i] == MBL_OUT && !call->shared[i])
            mbl_check_poison(call->tensor[i]);
        if (call->tensor[i] && call->role[i] == MBL_IN && !call->shared[i])
            call->before[i] = digest(call->tensor[i]);
    }
    return MBL_OK;
}

static mbl_status_t after_call(const call_t *call) {
    for (size_t i = 0; i < call->n; i++) {
        const mbl_tensor_t *t = call->tensor[i];
        if (!t || call->shared[i])
            continue;
        if (call->role[i] != MBL_IN && find_poison(t) < mbl_tensor_count(t))
            return MBL_FAIL(MBL_ERR_INTERNAL, "%s left element %zu of %zu of %s unwritten",
                            mbl_op_name(call->op), find_poison(t), mbl_tensor_count(t),
                            call->operand[i].name);
        if (call->role[i] == MBL_IN && digest(t) != call->before[i])
            return MBL_FAIL(MBL_ERR_INTERNAL, "%s changed its input %s", mbl_op_name(call->op),
                            call->operand[i].name);
    }
    return MBL_OK;
}

#define SLOT(name, need)                                                                                     \
    static mbl_status_t check_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                      \
        mbl_ops_t *inner = &check_of(ops)->inner;                                                            \
        call_t call;                                                                                         \
        MBL_TRY(before_call(&call, MBL_OP_##name, args));                                                    \
        MBL_TRY(inner->table->name(inner, args));                                                            \
        MBL_TRY(inner->table->sync(inner));                                                                  \
        return after_call(&call);                                                                            \
    }
MBL_OPS_LIST(SLOT)
#undef SLOT

static mbl_status_t open_round(mbl_ops_t *ops, const mbl_ops_table_t *inner, int threads) {
    check_t *check;
    if (inner->space != MBL_HOST)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "check: backend '%s' keeps its tensors on a device",
                        inner->name);
    MBL_ALLOC(check, 1);
    check->table = *ops->table;
#define LACKS(name, need)                                                                                    \
    if (!inner->name)                                                                                        \
        check->table.name = NULL;
    MBL_OPS_LIST(LACKS)
#undef LACKS
    check->inner.table = inner;
    check->inner.threads = threads;
    mbl_status_t status = inner->open(&check->inner, threads);
    if (status != MBL_OK) {
        mbl_free(check);
        return status;
    }
    ops->impl = check;
    ops->table = &check->table;
    return MBL_OK;
}

static mbl_status_t check_open(mbl_ops_t *ops, int threads) {
    return open_round(ops, &mbl_ops_cpu, threads);
}

static void check_close(mbl_ops_t *ops) {
    check_t *check = check_of(ops);
    check->inner.table->close(&check->inner);
    mbl_free(check);
    ops->impl = NULL;
}

static mbl_status_t check_alloc(mbl_ops_t *ops, size_t bytes, void **out) {
    mbl_ops_t *inner = &check_of(ops)->inner;
    return inner->table->alloc(inner, bytes, out);
}

static void check_free(mbl_ops_t *ops, void *ptr) {
    mbl_ops_t *inner = &check_of(ops)->inner;
    inner->table->free(inner, ptr);
}

static mbl_status_t check_copy(mbl_ops_t *ops, void *dst, mbl_space_t dst_space, const void *src,
                               mbl_space_t src_space, size_t bytes) {
    mbl_ops_t *inner = &check_of(ops)->inner;
    return inner->table->copy(inner, dst, dst_space, src, src_space, bytes);
}

static mbl_status_t check_zero(mbl_ops_t *ops, void *ptr, size_t bytes) {
    mbl_ops_t *inner = &check_of(ops)->inner;
    return inner->table->zero(inner, ptr, bytes);
}

static mbl_status_t check_sync(mbl_ops_t *ops) {
    mbl_ops_t *inner = &check_of(ops)->inner;
    return inner->table->sync(inner);
}

static bool check_bf16(mbl_ops_t *ops) {
    return mbl_ops_bf16_is_native(&check_of(ops)->inner);
}

const mbl_ops_table_t mbl_ops_check = {.name = "check",
                                       .space = MBL_HOST,
                                       .open = check_open,
                                       .close = check_close,
                                       .bf16_is_native = check_bf16,
                                       .alloc = check_alloc,
                                       .free = check_free,
                                       .copy = check_copy,
                                       .zero = check_zero,
                                       .sync = check_sync,
#define SLOT(name, need) .name = check_##name,
                                       MBL_OPS_LIST(SLOT)
#undef SLOT
};

mbl_status_t mbl_check_open(const mbl_ops_table_t *inner, int threads, mbl_ops_t **out) {
    mbl_ops_t *ops;
    MBL_ALLOC(ops, 1);
    ops->table = &mbl_ops_check;
    ops->threads = threads > 0 ? threads : 1;
    mbl_status_t status = open_round(ops, inner, ops->threads);
    if (status != MBL_OK) {
        mbl_free(ops);
        return status;
    }
    *out = ops;
    return MBL_OK;
}
