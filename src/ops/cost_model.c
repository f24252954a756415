/* The cost model: a table whose slots only count (see cost_model.h). */
#include "ops/cost_model.h"
#include "base/mem.h"

#include <string.h>

/* As fake_device.c: above the user's part of the address space. */
#define NOWHERE ((uintptr_t)1 << 52)
enum { ALIGN = 256, STAGE = 8 << 20, PRODUCTS = 32 << 20 }; /* cudaMalloc's, gpu/cuda.c's, matmul_plan's */

typedef struct {
    uintptr_t at;
    size_t bytes;
} block_t;

typedef struct {
    uintptr_t next;
    block_t *block; /* alive, [blocks] of block_room */
    size_t blocks, block_room, live, work, peak;
    mbl_cost_item_t *item; /* [items] of item_room */
    size_t items, item_room;
    bool fresh; /* the items were taken */
} counter_t;

static counter_t *counter_of(const mbl_ops_t *ops) {
    return ops->impl;
}

const char *mbl_cost_row_name(int row) {
    static const char *const others[] = {"(clear)", "(copy)", "(upload)", "(download)"};
    return row < MBL_OP_COUNT ? mbl_op_name((mbl_op_t)row) : others[row - MBL_OP_COUNT];
}

/* Room for one more in an array that doubles. */
static mbl_status_t grow(void **array, size_t n, size_t *room, size_t size) {
    if (n < *room)
        return MBL_OK;
    size_t more = *room ? 2 * *room : 64;
    char *larger;
    MBL_ALLOC(larger, more * size);
    if (n)
        memcpy(larger, *array, n * size);
    mbl_free(*array);
    *array = larger;
    *room = more;
    return MBL_OK;
}

static void see_peak(counter_t *counter) {
    size_t now = counter->live + counter->work + PRODUCTS;
    counter->peak = now > counter->peak ? now : counter->peak;
}

static mbl_status_t count(mbl_ops_t *ops, int row, const mbl_cost_t *cost) {
    counter_t *counter = counter_of(ops);
    if (counter->fresh)
        counter->items = 0;
    counter->fresh = false;
    if (cost->work > counter->work)
        counter->work = cost->work;
    see_peak(counter);
    for (size_t i = 0; i < counter->items; i++)
        if (counter->item[i].row == row && memcmp(&counter->item[i].cost, cost, sizeof *cost) == 0) {
            counter->item[i].calls++;
            return MBL_OK;
        }
    void *items = counter->item;
    MBL_TRY(grow(&items, counter->items, &counter->item_room, sizeof *counter->item));
    counter->item = items;
    counter->item[counter->items++] = (mbl_cost_item_t){row, 1, *cost};
    return MBL_OK;
}

static mbl_status_t count_copy(mbl_ops_t *ops, void *dst, mbl_space_t dst_space, const void *src,
                               mbl_space_t src_space, size_t bytes) {
    const mbl_cost_t once = {
        .bytes = (double)bytes, .least = (double)bytes, .launches = (bytes + STAGE - 1) / STAGE};
    const mbl_cost_t twice = {.bytes = 2.0 * (double)bytes, .least = 2.0 * (double)bytes, .launches = 1};
    if (dst_space == MBL_DEVICE && src_space == MBL_DEVICE)
        return count(ops, MBL_COST_COPY, &twice);
    if (dst_space == MBL_DEVICE)
        return count(ops, MBL_COST_UPLOAD, &once);
    if (src_space == MBL_HOST) {
        memmove(dst, src, bytes);
        return MBL_OK;
    }
    memset(dst, 0, bytes);
    return count(ops, MBL_COST_DOWNLOAD, &once);
}

/* Counts an operation; a result that it leaves on the host (gram's) is copied there. */
static mbl_status_t count_op(mbl_ops_t *ops, mbl_op_t op, const void *args) {
    mbl_cost_t cost;
    size_t n;
    const mbl_operand_t *operand = mbl_op_operands(op, &n);
    mbl_cost_of(op, args, &cost);
    MBL_TRY(count(ops, (int)op, &cost));
    for (size_t i = 0; i < n; i++) {
        const mbl_tensor_t *t = *(const mbl_tensor_t *const *)((const char *)args + operand[i].offset);
        if (t && t->space == MBL_HOST)
            MBL_TRY(count_copy(ops, t->data, MBL_HOST, NULL, MBL_DEVICE,
                               mbl_tensor_count(t) * mbl_dtype_size(t->dtype)));
    }
    return MBL_OK;
}

#define SLOT(name, need)                                                                                     \
    static mbl_status_t count_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                      \
        return count_op(ops, MBL_OP_##name, args);                                                           \
    }
MBL_OPS_LIST(SLOT)
#undef SLOT

static mbl_status_t count_zero(mbl_ops_t *ops, void *ptr, size_t bytes) {
    (void)ptr;
    const mbl_cost_t cost = {.bytes = (double)bytes, .least = (double)bytes, .launches = 1};
    return count(ops, MBL_COST_ZERO, &cost);
}

/* As cuda_alloc, which clears what it gives. */
static mbl_status_t count_alloc(mbl_ops_t *ops, size_t bytes, void **out) {
    counter_t *counter = counter_of(ops);
    void *blocks = counter->block;
    MBL_TRY(grow(&blocks, counter->blocks, &counter->block_room, sizeof *counter->block));
    counter->block = blocks;
    counter->block[counter->blocks++] = (block_t){counter->next, bytes};
    *out = (void *)counter->next;
    counter->next += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    counter->live += bytes;
    see_peak(counter);
    return count_zero(ops, *out, bytes);
}

static void count_free(mbl_ops_t *ops, void *ptr) {
    counter_t *counter = counter_of(ops);
    for (size_t i = 0; i < counter->blocks; i++)
        if (counter->block[i].at == (uintptr_t)ptr) {
            counter->live -= counter->block[i].bytes;
            counter->block[i] = counter->block[--counter->blocks];
            return;
        }
}

static mbl_status_t count_sync(mbl_ops_t *ops) {
    (void)ops;
    return MBL_OK;
}

static mbl_status_t count_open(mbl_ops_t *ops, int threads) {
    (void)threads;
    counter_t *counter;
    MBL_ALLOC(counter, 1);
    counter->next = NOWHERE;
    ops->impl = counter;
    return MBL_OK;
}

static void count_close(mbl_ops_t *ops) {
    counter_t *counter = counter_of(ops);
    mbl_free(counter->block);
    mbl_free(counter->item);
    mbl_free(counter);
    ops->impl = NULL;
}

static const mbl_ops_table_t count_table = {.name = "cost model",
                                            .space = MBL_DEVICE,
                                            .open = count_open,
                                            .close = count_close,
                                            .alloc = count_alloc,
                                            .free = count_free,
                                            .copy = count_copy,
                                            .zero = count_zero,
                                            .sync = count_sync,
#define SLOT(name, need) .name = count_##name,
                                            MBL_OPS_LIST(SLOT)
#undef SLOT
};

mbl_status_t mbl_cost_model_open(mbl_ops_t **out) {
    mbl_ops_t *ops;
    MBL_ALLOC(ops, 1);
    ops->table = &count_table;
    ops->threads = 1;
    mbl_status_t status = count_open(ops, 1);
    if (status != MBL_OK) {
        mbl_free(ops);
        return status;
    }
    *out = ops;
    return MBL_OK;
}

const mbl_cost_item_t *mbl_cost_model_take(mbl_ops_t *ops, size_t *n) {
    counter_t *counter = counter_of(ops);
    *n = counter->fresh ? 0 : counter->items;
    counter->fresh = true;
    return counter->item;
}

size_t mbl_cost_model_live(const mbl_ops_t *ops) {
    return counter_of(ops)->live;
}

size_t mbl_cost_model_peak(const mbl_ops_t *ops) {
    return counter_of(ops)->peak;
}
