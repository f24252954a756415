/* The dry backend: a table whose slots only count (see dry.h). */
#include "ops/dry.h"
#include "base/mem.h"

#include <string.h>

/* As far.c: above the user's part of the address space. */
#define DRY ((uintptr_t)1 << 52)
enum { ALIGN = 256, STAGE = 8 << 20, PRODUCTS = 32 << 20 }; /* cudaMalloc's, gpu/cuda.c's, matmul_plan's */

typedef struct {
    uintptr_t at;
    size_t bytes;
} block_t;

typedef struct {
    uintptr_t next;
    block_t *block; /* alive, [blocks] of block_room */
    size_t blocks, block_room, live, work, peak;
    mbl_dry_item_t *item; /* [items] of item_room */
    size_t items, item_room;
    bool fresh; /* the items were taken */
} dry_t;

static dry_t *dry_of(const mbl_ops_t *ops) {
    return ops->impl;
}

const char *mbl_dry_name(int row) {
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

static void see_peak(dry_t *dry) {
    size_t now = dry->live + dry->work + PRODUCTS;
    dry->peak = now > dry->peak ? now : dry->peak;
}

static mbl_status_t count(mbl_ops_t *ops, int row, const mbl_cost_t *cost) {
    dry_t *dry = dry_of(ops);
    if (dry->fresh)
        dry->items = 0;
    dry->fresh = false;
    if (cost->work > dry->work)
        dry->work = cost->work;
    see_peak(dry);
    for (size_t i = 0; i < dry->items; i++)
        if (dry->item[i].row == row && memcmp(&dry->item[i].cost, cost, sizeof *cost) == 0) {
            dry->item[i].calls++;
            return MBL_OK;
        }
    void *items = dry->item;
    MBL_TRY(grow(&items, dry->items, &dry->item_room, sizeof *dry->item));
    dry->item = items;
    dry->item[dry->items++] = (mbl_dry_item_t){row, 1, *cost};
    return MBL_OK;
}

static mbl_status_t dry_copy(mbl_ops_t *ops, void *dst, mbl_place_t dst_place, const void *src,
                             mbl_place_t src_place, size_t bytes) {
    const mbl_cost_t once = {
        .bytes = (double)bytes, .least = (double)bytes, .launches = (bytes + STAGE - 1) / STAGE};
    const mbl_cost_t twice = {.bytes = 2.0 * (double)bytes, .least = 2.0 * (double)bytes, .launches = 1};
    if (dst_place == MBL_DEVICE && src_place == MBL_DEVICE)
        return count(ops, MBL_DRY_COPY, &twice);
    if (dst_place == MBL_DEVICE)
        return count(ops, MBL_DRY_UPLOAD, &once);
    if (src_place == MBL_HOST) {
        memmove(dst, src, bytes);
        return MBL_OK;
    }
    memset(dst, 0, bytes);
    return count(ops, MBL_DRY_DOWNLOAD, &once);
}

/* Counts an operation; a result that it leaves on the host (gram's) is copied there. */
static mbl_status_t count_op(mbl_ops_t *ops, mbl_op_t op, const void *args) {
    mbl_cost_t cost;
    size_t n;
    const mbl_operand_t *operand = mbl_op_operands(op, &n);
    mbl_dry_cost(op, args, &cost);
    MBL_TRY(count(ops, (int)op, &cost));
    for (size_t i = 0; i < n; i++) {
        const mbl_tensor_t *t = *(const mbl_tensor_t *const *)((const char *)args + operand[i].offset);
        if (t && t->place == MBL_HOST)
            MBL_TRY(dry_copy(ops, t->data, MBL_HOST, NULL, MBL_DEVICE,
                             mbl_tensor_count(t) * mbl_dtype_size(t->dtype)));
    }
    return MBL_OK;
}

#define SLOT(name, need)                                                                                     \
    static mbl_status_t dry_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                        \
        return count_op(ops, MBL_OP_##name, args);                                                           \
    }
MBL_OPS_LIST(SLOT)
#undef SLOT

static mbl_status_t dry_zero(mbl_ops_t *ops, void *ptr, size_t bytes) {
    (void)ptr;
    const mbl_cost_t cost = {.bytes = (double)bytes, .least = (double)bytes, .launches = 1};
    return count(ops, MBL_DRY_ZERO, &cost);
}

/* As cuda_alloc, which clears what it gives. */
static mbl_status_t dry_alloc(mbl_ops_t *ops, size_t bytes, void **out) {
    dry_t *dry = dry_of(ops);
    void *blocks = dry->block;
    MBL_TRY(grow(&blocks, dry->blocks, &dry->block_room, sizeof *dry->block));
    dry->block = blocks;
    dry->block[dry->blocks++] = (block_t){dry->next, bytes};
    *out = (void *)dry->next;
    dry->next += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    dry->live += bytes;
    see_peak(dry);
    return dry_zero(ops, *out, bytes);
}

static void dry_free(mbl_ops_t *ops, void *ptr) {
    dry_t *dry = dry_of(ops);
    for (size_t i = 0; i < dry->blocks; i++)
        if (dry->block[i].at == (uintptr_t)ptr) {
            dry->live -= dry->block[i].bytes;
            dry->block[i] = dry->block[--dry->blocks];
            return;
        }
}

static mbl_status_t dry_sync(mbl_ops_t *ops) {
    (void)ops;
    return MBL_OK;
}

static mbl_status_t dry_open(mbl_ops_t *ops, int threads) {
    (void)threads;
    dry_t *dry;
    MBL_ALLOC(dry, 1);
    dry->next = DRY;
    ops->impl = dry;
    return MBL_OK;
}

static void dry_close(mbl_ops_t *ops) {
    dry_t *dry = dry_of(ops);
    mbl_free(dry->block);
    mbl_free(dry->item);
    mbl_free(dry);
    ops->impl = NULL;
}

static const mbl_ops_table_t dry_table = {.name = "dry",
                                          .place = MBL_DEVICE,
                                          .open = dry_open,
                                          .close = dry_close,
                                          .alloc = dry_alloc,
                                          .free = dry_free,
                                          .copy = dry_copy,
                                          .zero = dry_zero,
                                          .sync = dry_sync,
#define SLOT(name, need) .name = dry_##name,
                                          MBL_OPS_LIST(SLOT)
#undef SLOT
};

mbl_status_t mbl_dry_open(mbl_ops_t **out) {
    mbl_ops_t *ops;
    MBL_ALLOC(ops, 1);
    ops->table = &dry_table;
    ops->threads = 1;
    mbl_status_t status = dry_open(ops, 1);
    if (status != MBL_OK) {
        mbl_free(ops);
        return status;
    }
    *out = ops;
    return MBL_OK;
}

const mbl_dry_item_t *mbl_dry_take(mbl_ops_t *ops, size_t *n) {
    dry_t *dry = dry_of(ops);
    *n = dry->fresh ? 0 : dry->items;
    dry->fresh = true;
    return dry->item;
}

size_t mbl_dry_live(const mbl_ops_t *ops) {
    return dry_of(ops)->live;
}

size_t mbl_dry_peak(const mbl_ops_t *ops) {
    return dry_of(ops)->peak;
}
