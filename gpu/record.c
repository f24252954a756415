/* Recorded parts. A part is collected as bytes: for every operation its number, its arguments with pointers
 * to tensors replaced by their places, and the tensors; graphs.c keeps a graph by these bytes. */
#include "gpu/record.h"
#include "base/log.h"
#include "base/mem.h"
#include "gpu/cuda.h"
#include "gpu/graphs.h"
#include "gpu/kernels.h"

#include <string.h>

enum {
    LEAST = 4, /* operations; fewer are not worth a graph */
    COPY = MBL_OP_COUNT,
    ZERO,
    MOST_TENSORS = 16
};

/* Of one operation in the bytes; its arguments and tensors follow. */
typedef struct {
    uint32_t op, tensors;
} head_t;
typedef struct {
    void *dst;
    const void *src;
    size_t bytes;
} move_t;
typedef union {
    move_t move;
#define MEMBER(name, need) mbl_##name##_args_t name;
    MBL_OPS_LIST(MEMBER)
#undef MEMBER
} args_t;

struct mbl_cuda_record {
    bool on;
    char *log;
    size_t bytes, room, ops;
    mbl_cuda_graphs_t graphs;
};

static mbl_cuda_record_t *record_of(mbl_ops_t *ops) {
    return mbl_cuda_of(ops)->record;
}

static size_t args_bytes(uint32_t op) {
    static const size_t bytes[] = {
#define BYTES(name, need) sizeof(mbl_##name##_args_t),
        MBL_OPS_LIST(BYTES)
#undef BYTES
    };
    return op < MBL_OP_COUNT ? bytes[op] : sizeof(move_t);
}

mbl_status_t mbl_cuda_record_open(mbl_cuda_record_t **out) {
    mbl_cuda_record_t *record;
    MBL_ALLOC(record, 1);
    *out = record;
    return MBL_OK;
}

void mbl_cuda_record_close(mbl_cuda_record_t *record) {
    if (!record)
        return;
    if (record->graphs.now)
        MBL_DEBUG("device cuda: %llu of %llu recorded parts ran as graphs",
                  (unsigned long long)record->graphs.launched, (unsigned long long)record->graphs.now);
    mbl_cuda_graphs_drop(&record->graphs);
    mbl_free(record->log);
    mbl_free(record);
}

void mbl_cuda_record_forget(mbl_ops_t *ops) {
    mbl_cuda_graphs_drop(&record_of(ops)->graphs);
}

/* ---- collecting ---- */

static mbl_status_t put(mbl_cuda_record_t *record, const void *data, size_t bytes) {
    if (record->room - record->bytes < bytes) {
        size_t room = 2 * record->room + bytes + 65536;
        char *more;
        MBL_ALLOC(more, room);
        if (record->bytes)
            memcpy(more, record->log, record->bytes);
        mbl_free(record->log);
        record->log = more;
        record->room = room;
    }
    memcpy(record->log + record->bytes, data, bytes);
    record->bytes += bytes;
    return MBL_OK;
}

/* Only what says which numbers are meant, so that equal tensors are equal bytes. */
static mbl_tensor_t plain(const mbl_tensor_t *t) {
    mbl_tensor_t out;
    memset(&out, 0, sizeof out);
    out.data = t->data;
    out.dtype = t->dtype;
    out.space = t->space;
    out.ndim = t->ndim;
    for (int i = 0; i < t->ndim; i++) {
        out.dim[i] = t->dim[i];
        out.stride[i] = t->stride[i];
    }
    return out;
}

/* Bytes of arguments between fields and behind the last: undefined. Those that are not listed here cost a
 * graph when they differ, never a result. */
static void clear_padding(mbl_op_t op, args_t *args) {
    char *at = (char *)args;
#define CLEAR(name, after, type, end)                                                                        \
    memset(at + offsetof(mbl_##name##_args_t, after) + sizeof(type), 0,                                      \
           (end)-offsetof(mbl_##name##_args_t, after) - sizeof(type))
#define CLEAR_END(name, after, type) CLEAR(name, after, type, sizeof(mbl_##name##_args_t))
    if (op == MBL_OP_matmul) {
        CLEAR(matmul, accumulate, bool, offsetof(mbl_matmul_args_t, act));
        CLEAR_END(matmul, act, mbl_act_t);
    } else if (op == MBL_OP_attention)
        CLEAR_END(attention, causal, bool);
    else if (op == MBL_OP_act)
        CLEAR_END(act, act, mbl_act_t);
    else if (op == MBL_OP_act_bwd)
        CLEAR_END(act_bwd, act, mbl_act_t);
    else if (op == MBL_OP_patchify)
        CLEAR_END(patchify, order, mbl_patch_order_t);
    else if (op == MBL_OP_unpatchify)
        CLEAR_END(unpatchify, order, mbl_patch_order_t);
    else if (op == MBL_OP_group_norm)
        CLEAR_END(group_norm, silu, bool);
    else if (op == MBL_OP_conv2d)
        CLEAR_END(conv2d, accumulate, bool);
#undef CLEAR
#undef CLEAR_END
}

static mbl_status_t collect(mbl_cuda_record_t *record, mbl_op_t op, const void *args) {
    size_t n, found = 0;
    const mbl_operand_t *operand = mbl_op_operands(op, &n);
    mbl_tensor_t tensor[MOST_TENSORS];
    args_t copy;
    if (n > MOST_TENSORS)
        return MBL_FAIL(MBL_ERR_INTERNAL, "%s has %zu operands", mbl_op_name(op), n);
    memset(&copy, 0, sizeof copy);
    memcpy(&copy, args, args_bytes(op));
    clear_padding(op, &copy);
    for (size_t i = 0; i < n; i++) {
        const mbl_tensor_t *t;
        char *at = (char *)&copy + operand[i].offset;
        memcpy(&t, at, sizeof t);
        if (!t)
            continue;
        tensor[found++] = plain(t);
        uintptr_t place = found; /* counted from 1, so that it is not NULL */
        memcpy(at, &place, sizeof place);
    }
    head_t head = {(uint32_t)op, (uint32_t)found};
    MBL_TRY(put(record, &head, sizeof head));
    MBL_TRY(put(record, &copy, args_bytes(op)));
    MBL_TRY(put(record, tensor, found * sizeof *tensor));
    record->ops++;
    return MBL_OK;
}

static mbl_status_t collect_move(mbl_cuda_record_t *record, uint32_t op, const move_t *move) {
    head_t head = {op, 0};
    MBL_TRY(put(record, &head, sizeof head));
    MBL_TRY(put(record, move, sizeof *move));
    record->ops++;
    return MBL_OK;
}

/* ---- running ---- */

static mbl_status_t run_move(mbl_ops_t *ops, uint32_t op, const move_t *move) {
    cudaStream_t stream = mbl_cuda_stream(ops);
    if (op == ZERO)
        MBL_CUDA_TRY(cudaMemsetAsync(move->dst, 0, move->bytes, stream), "clearing a tensor");
    else
        MBL_CUDA_TRY(cudaMemcpyAsync(move->dst, move->src, move->bytes, cudaMemcpyDeviceToDevice, stream),
                     "a copy on the device");
    return MBL_OK;
}

static mbl_status_t run_op(mbl_ops_t *ops, mbl_op_t op, const args_t *args) {
    switch (op) {
#define RUN(name, need)                                                                                      \
    case MBL_OP_##name:                                                                                      \
        return mbl_cuda_##name(ops, &args->name);
        MBL_OPS_LIST(RUN)
#undef RUN
    default:
        return MBL_FAIL(MBL_ERR_INTERNAL, "operation %d in a recorded part", (int)op);
    }
}

/* Asks the device for everything collected. */
static mbl_status_t run_all(mbl_ops_t *ops) {
    const mbl_cuda_record_t *record = record_of(ops);
    const char *at = record->log;
    while (at < record->log + record->bytes) {
        head_t head;
        args_t args;
        mbl_tensor_t tensor[MOST_TENSORS];
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        memcpy(&args, at, args_bytes(head.op));
        at += args_bytes(head.op);
        if (head.op >= MBL_OP_COUNT) {
            MBL_TRY(run_move(ops, head.op, &args.move));
            continue;
        }
        memcpy(tensor, at, head.tensors * sizeof *tensor);
        at += head.tensors * sizeof *tensor;
        size_t n;
        const mbl_operand_t *operand = mbl_op_operands((mbl_op_t)head.op, &n);
        for (size_t i = 0; i < n; i++) {
            uintptr_t place;
            char *to = (char *)&args + operand[i].offset;
            memcpy(&place, to, sizeof place);
            const mbl_tensor_t *t = place ? &tensor[place - 1] : NULL;
            memcpy(to, &t, sizeof t);
        }
        MBL_TRY(run_op(ops, (mbl_op_t)head.op, &args));
    }
    return MBL_OK;
}

static mbl_status_t run_part(mbl_ops_t *ops) {
    mbl_cuda_record_t *record = record_of(ops);
    if (record->ops < LEAST)
        return run_all(ops);
    return mbl_cuda_graphs_run(&record->graphs, ops, record->log, record->bytes, run_all);
}

mbl_status_t mbl_cuda_record_flush(mbl_ops_t *ops) {
    mbl_cuda_record_t *record = record_of(ops);
    if (record->bytes == 0)
        return MBL_OK;
    mbl_status_t status = mbl_cuda_enter(ops);
    if (status == MBL_OK)
        status = run_part(ops);
    record->bytes = record->ops = 0;
    return status;
}

mbl_status_t mbl_cuda_record_begin(mbl_ops_t *ops) {
    record_of(ops)->on = true;
    return MBL_OK;
}

mbl_status_t mbl_cuda_record_end(mbl_ops_t *ops, mbl_status_t status) {
    mbl_cuda_record_t *record = record_of(ops);
    record->on = false;
    if (status == MBL_OK)
        return mbl_cuda_record_flush(ops);
    record->bytes = record->ops = 0;
    return status;
}

mbl_status_t mbl_cuda_record_copy(mbl_ops_t *ops, void *dst, const void *src, size_t bytes) {
    mbl_cuda_record_t *record = record_of(ops);
    const move_t move = {dst, src, bytes};
    if (record->on)
        return collect_move(record, COPY, &move);
    MBL_TRY(mbl_cuda_enter(ops));
    return run_move(ops, COPY, &move);
}

mbl_status_t mbl_cuda_record_zero(mbl_ops_t *ops, void *ptr, size_t bytes) {
    mbl_cuda_record_t *record = record_of(ops);
    const move_t move = {ptr, NULL, bytes};
    if (record->on)
        return collect_move(record, ZERO, &move);
    MBL_TRY(mbl_cuda_enter(ops));
    return run_move(ops, ZERO, &move);
}

/* Those with numbers on the host run at once. */
static bool needs_host(mbl_op_t op) {
    return mbl_op_to_host(op) || op == MBL_OP_combine;
}

#define RECORDED(name, need)                                                                                 \
    mbl_status_t mbl_cuda_recorded_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                 \
        if (record_of(ops)->on && !needs_host(MBL_OP_##name))                                                \
            return collect(record_of(ops), MBL_OP_##name, args);                                             \
        MBL_TRY(mbl_cuda_record_flush(ops));                                                                 \
        MBL_TRY(mbl_cuda_enter(ops));                                                                        \
        return mbl_cuda_##name(ops, args);                                                                   \
    }
MBL_OPS_LIST(RECORDED)
