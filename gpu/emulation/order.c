/* Strands: who ran when, and whether two of them are ordered. Their numbers rise with time, so most questions
 * are one comparison; the tables here answer the others, and name both parties of a conflict. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERATIONS = 4096 };                   /* remembered */
#define RENEW ((mbl_emu_strand_t)0xC0000000u) /* numbers begin anew before an operation beyond this */

typedef struct {
    mbl_emu_strand_t first;
    int stream;
    uint32_t sequence; /* in its stream */
    char name[72];
} operation_t;

/* Strands of one stretch of the running operation: all warps of a block between two barriers, or one warp
 * (warp >= 0) behind a __syncwarp. */
typedef struct {
    mbl_emu_strand_t first;
    int warp;
    uint64_t block;
} stretch_t;

static struct {
    mbl_emu_strand_t next;
    operation_t operation[OPERATIONS]; /* a ring; */
    uint64_t operations;               /* ever */
    uint32_t executed[MBL_EMU_MOST_STREAMS];
    mbl_emu_order_t now;
    stretch_t *stretch;            /* [stretches] of the running operation, by number */
    size_t stretches, room, epoch; /* epoch: index of the running block's stretch */
    int warps;
} order = {.next = 1};

static operation_t *operation_at(uint64_t i) {
    return &order.operation[i % OPERATIONS];
}

static bool ordered(const operation_t *op) {
    return op->sequence <= order.now.clock[op->stream];
}

/* The smallest strand that is not ordered before `now`. */
static mbl_emu_strand_t safe_bound(mbl_emu_strand_t own) {
    bool all = true;
    for (int i = 0; i < MBL_EMU_MOST_STREAMS; i++)
        all = all && order.executed[i] <= order.now.clock[i];
    if (all)
        return own;
    mbl_emu_strand_t safe = own;
    uint64_t oldest = order.operations > OPERATIONS ? order.operations - OPERATIONS : 0;
    for (uint64_t i = order.operations; i-- > oldest;)
        if (!ordered(operation_at(i)))
            safe = operation_at(i)->first;
    return safe;
}

void mbl_emu_order_begin(const mbl_emu_order_t *now) {
    if (order.next > RENEW) {
        for (int i = 0; i < mbl_emu_settings.devices; i++)
            mbl_emu_checks_reset(i);
        order.next = 1;
        order.operations = 0;
    }
    order.now = *now;
    order.stretches = 0;
    mbl_emu_strand_t own = order.next++;
    mbl_emu_now.op = own;
    mbl_emu_now.mine = order.next++; /* of a copy or library call: one strand for all of it */
    mbl_emu_now.safe = safe_bound(own);
    mbl_emu_now.block = mbl_emu_now.epoch = order.next;
    mbl_emu_now.several = mbl_emu_now.atomics = 0;
    operation_t *op = operation_at(order.operations++);
    op->first = own;
    op->stream = now->stream;
    op->sequence = now->clock[now->stream];
    snprintf(op->name, sizeof op->name, "%s", now->name);
    order.executed[now->stream] = op->sequence;
}

static void add_stretch(int warp, uint64_t block, mbl_emu_strand_t strands) {
    if (order.stretches == order.room) {
        size_t room = order.room ? 2 * order.room : 1024;
        stretch_t *more = realloc(order.stretch, room * sizeof *more);
        if (!more)
            mbl_emu_broken("no memory for the order of %zu barriers", room);
        order.stretch = more;
        order.room = room;
    }
    order.stretch[order.stretches++] = (stretch_t){order.next, warp, block};
    order.next += strands;
}

mbl_emu_strand_t mbl_emu_checks_epoch(uint64_t block, int warps, bool first) {
    if (!mbl_emu_now.checked)
        return 0;
    mbl_emu_strand_t epoch = order.next;
    add_stretch(-1, block, (mbl_emu_strand_t)warps * MBL_EMU_RANGE + 2);
    order.epoch = order.stretches - 1;
    order.warps = warps;
    if (first)
        mbl_emu_now.block = epoch;
    mbl_emu_now.epoch = epoch;
    mbl_emu_now.several = epoch + (mbl_emu_strand_t)warps * MBL_EMU_RANGE;
    mbl_emu_now.atomics = mbl_emu_now.several + 1;
    return epoch;
}

mbl_emu_strand_t mbl_emu_checks_range(int warp) {
    if (!mbl_emu_now.checked)
        return 0;
    mbl_emu_strand_t first = order.next;
    add_stretch(warp, order.stretch[order.epoch].block, MBL_EMU_RANGE);
    return first;
}

/* The stretch of the running operation that holds the strand; NULL: none. */
static const stretch_t *stretch_of(mbl_emu_strand_t strand) {
    size_t low = 0, high = order.stretches;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (order.stretch[middle].first > strand)
            high = middle;
        else
            low = middle + 1;
    }
    return low > 0 ? &order.stretch[low - 1] : NULL;
}

static const operation_t *operation_of(mbl_emu_strand_t strand) {
    uint64_t oldest = order.operations > OPERATIONS ? order.operations - OPERATIONS : 0;
    for (uint64_t i = order.operations; i-- > oldest;)
        if (operation_at(i)->first <= strand)
            return operation_at(i);
    return NULL;
}

/* Warp and lane of a strand inside the running block's epoch; lane MBL_EMU_WARP: several lanes. */
static void split(mbl_emu_strand_t strand, const stretch_t *stretch, int *warp, int *lane) {
    int at = (int)(strand - stretch->first);
    *warp = stretch->warp >= 0 ? stretch->warp : at / MBL_EMU_RANGE;
    *lane = at % MBL_EMU_RANGE;
}

mbl_emu_relation_t mbl_emu_relation(mbl_emu_strand_t strand, bool shared) {
    const mbl_emu_now_t *now = &mbl_emu_now;
    if (strand == now->mine)
        return MBL_EMU_SELF;
    if (strand < now->safe || (shared && strand < now->epoch))
        return MBL_EMU_BEFORE;
    if (strand < now->op) {
        const operation_t *op = operation_of(strand);
        return op && !ordered(op) ? MBL_EMU_OTHER_STREAM : MBL_EMU_BEFORE;
    }
    if (strand < now->block)
        return MBL_EMU_OTHER_BLOCK;
    if (strand < now->epoch)
        return MBL_EMU_BEFORE;
    if (strand == now->several || strand == now->atomics)
        return MBL_EMU_SAME_BLOCK;
    int warp, lane, own = mbl_emu_run.running / MBL_EMU_WARP;
    const stretch_t *stretch = stretch_of(strand);
    split(strand, stretch, &warp, &lane);
    if (warp != own)
        return MBL_EMU_SAME_BLOCK;
    /* Numbers below the warp's present range are from before its last __syncwarp. */
    if (strand < mbl_emu_me()->range || strand >= mbl_emu_me()->range + MBL_EMU_RANGE)
        return MBL_EMU_BEFORE;
    return MBL_EMU_SAME_WARP;
}

bool mbl_emu_is_atomic(mbl_emu_strand_t strand) {
    if (strand < mbl_emu_now.op)
        return false;
    const stretch_t *stretch = stretch_of(strand);
    return stretch && stretch->warp < 0 &&
           strand == stretch->first + (mbl_emu_strand_t)order.warps * MBL_EMU_RANGE + 1;
}

/* "thread (3,0,0)" or "several threads", "of this block" or "of block (2,0,0)". */
static void describe_thread(mbl_emu_strand_t strand, const stretch_t *stretch, char out[MBL_EMU_TEXT]) {
    const dim3 *grid = &mbl_emu_run.launch->grid;
    uint64_t block = stretch->block;
    char who[64] = "several threads", whose[64] = "this block";
    int warp, lane;
    split(strand, stretch, &warp, &lane);
    if (warp >= order.warps)
        snprintf(who, sizeof who, "%s", lane == 1 ? "atomics" : "several threads");
    else if (lane == MBL_EMU_WARP)
        snprintf(who, sizeof who, "several threads of warp %d", warp);
    else {
        uint3 i = mbl_emu_run.lane[warp * MBL_EMU_WARP + lane].index;
        snprintf(who, sizeof who, "thread (%u,%u,%u)", i.x, i.y, i.z);
    }
    if (block != mbl_emu_run.block)
        snprintf(whose, sizeof whose, "block (%u,%u,%u)", (unsigned)(block % grid->x),
                 (unsigned)(block / grid->x % grid->y), (unsigned)(block / grid->x / grid->y));
    snprintf(out, MBL_EMU_TEXT, "%s of %s", who, whose);
}

void mbl_emu_describe_strand(mbl_emu_strand_t strand, char out[MBL_EMU_TEXT]) {
    if (strand == mbl_emu_now.op) {
        snprintf(out, MBL_EMU_TEXT, "several blocks");
        return;
    }
    const stretch_t *stretch = strand > mbl_emu_now.op ? stretch_of(strand) : NULL;
    if (stretch) {
        describe_thread(strand, stretch, out);
        return;
    }
    const operation_t *op = operation_of(strand);
    snprintf(out, MBL_EMU_TEXT, "%s of stream %d", op ? op->name : "an operation", op ? op->stream : -1);
}
