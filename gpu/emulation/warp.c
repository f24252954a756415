/* What the lanes of a warp do together. Each lane leaves its operands and waits; the last to arrive works for
 * all of them. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lane i of the running warp. */
static mbl_emu_lane_t *lane_of(int i) {
    return &mbl_emu_run.lane[mbl_emu_run.running / MBL_EMU_WARP * MBL_EMU_WARP + i];
}

static void shuffle_all(const mbl_emu_warp_state_t *warp, unsigned mask) {
    uint64_t in[MBL_EMU_WARP];
    for (int i = 0; i < MBL_EMU_WARP; i++)
        in[i] = lane_of(i)->value;
    for (int i = 0; i < MBL_EMU_WARP; i++) {
        mbl_emu_lane_t *lane = lane_of(i);
        if (!(mask >> i & 1))
            continue;
        int width = lane->width, first = i / width * width, from = i, argument = lane->argument;
        if (lane->kind == MBL_EMU_SHUFFLE_INDEX)
            from = first + (argument & (width - 1));
        else if (lane->kind == MBL_EMU_SHUFFLE_UP)
            from = i - argument >= first ? i - argument : i;
        else if (lane->kind == MBL_EMU_SHUFFLE_DOWN)
            from = i + argument < first + width ? i + argument : i;
        else
            from = (i ^ argument) < first + width ? i ^ argument : i;
        if (!((mask & warp->exists) >> from & 1))
            mbl_emu_broken("a shuffle of line %d: lane %d reads from lane %d, which takes no part in it",
                           lane->line, i, from);
        lane->value = in[from];
    }
}

static void ballot_all(unsigned mask) {
    unsigned votes = 0;
    for (int i = 0; i < MBL_EMU_WARP; i++)
        if (mask >> i & 1 && lane_of(i)->value)
            votes |= 1u << i;
    for (int i = 0; i < MBL_EMU_WARP; i++)
        if (mask >> i & 1)
            lane_of(i)->value = votes;
}

static float bf16(uint32_t pair, int high) {
    uint32_t bits = high ? pair & 0xffff0000u : pair << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* d += a b, operands spread over the lanes as gpu/mma.h says. A tensor core adds the 16 products of a row in
 * an order of its own; here it is a sum in double, rounded once, which is within its error. */
static void mma_all(void) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < MBL_EMU_WARP; lane++) {
        const uint32_t *pa = lane_of(lane)->operand[1], *pb = lane_of(lane)->operand[2];
        int g = lane / 4, r = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int h = 0; h < 2; h++)
                a[g + (i & 1) * 8][2 * r + (i >> 1) * 8 + h] = bf16(pa[i], h);
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 2; h++)
                b[2 * r + i * 8 + h][g] = bf16(pb[i], h);
    }
    double sum[16][8] = {{0}};
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                sum[i][j] += (double)a[i][k] * (double)b[k][j];
    for (int lane = 0; lane < MBL_EMU_WARP; lane++) {
        float *d = lane_of(lane)->operand[0];
        int g = lane / 4, r = lane % 4;
        for (int i = 0; i < 4; i++)
            d[i] = (float)((double)d[i] + sum[g + (i >> 1) * 8][2 * r + (i & 1)]);
    }
}

static void load_all(bool transposed) {
    uint16_t m[4][8][8];
    for (int lane = 0; lane < MBL_EMU_WARP; lane++)
        memcpy(m[lane / 8][lane % 8], lane_of(lane)->operand[1], sizeof m[0][0]);
    for (int lane = 0; lane < MBL_EMU_WARP; lane++) {
        uint32_t *out = lane_of(lane)->operand[0];
        int g = lane / 4, r = lane % 4;
        for (int i = 0; i < 4; i++)
            out[i] = transposed ? (uint32_t)m[i][2 * r][g] | (uint32_t)m[i][2 * r + 1][g] << 16
                                : (uint32_t)m[i][g][2 * r] | (uint32_t)m[i][g][2 * r + 1] << 16;
    }
}

static void sync_all(unsigned mask) {
    if (!mbl_emu_now.checked)
        return;
    mbl_emu_strand_t first = mbl_emu_checks_range(mbl_emu_run.running / MBL_EMU_WARP);
    for (int i = 0; i < MBL_EMU_WARP; i++)
        if (mask >> i & 1) {
            lane_of(i)->range = first;
            lane_of(i)->strand = first + (mbl_emu_strand_t)i;
        }
    mbl_emu_now.mine = mbl_emu_me()->strand;
    mbl_emu_now.lanes = first + MBL_EMU_WARP;
}

static void work(const mbl_emu_warp_state_t *warp, mbl_emu_collective_t kind, unsigned mask) {
    switch (kind) {
    case MBL_EMU_SYNC:
        sync_all(mask);
        break;
    case MBL_EMU_BALLOT:
        ballot_all(mask);
        break;
    case MBL_EMU_MMA_BF16:
        mma_all();
        break;
    case MBL_EMU_LOAD_MATRICES:
    case MBL_EMU_LOAD_MATRICES_TRANSPOSED:
        load_all(kind == MBL_EMU_LOAD_MATRICES_TRANSPOSED);
        break;
    default:
        shuffle_all(warp, mask);
    }
}

static void check_meeting(const mbl_emu_warp_state_t *warp, const mbl_emu_lane_t *me, int own) {
    if (!(me->mask >> own & 1))
        mbl_emu_broken("line %d: lane %d calls a warp collective with mask 0x%08x, which leaves it out",
                       me->line, own, me->mask);
    if (me->mask & warp->ended)
        mbl_emu_broken("divergent warp: mask 0x%08x of line %d names lane %d, which has ended", me->mask,
                       me->line, __builtin_ctz(me->mask & warp->ended));
    unsigned others = warp->waiting & me->mask;
    if (others) {
        const mbl_emu_lane_t *other = lane_of(__builtin_ctz(others));
        if (other->kind != me->kind || other->mask != me->mask)
            mbl_emu_broken("divergent warp: lane %d comes to line %d with mask 0x%08x, but lane %d waits at "
                           "line %d with mask 0x%08x for another operation",
                           own, me->line, me->mask, __builtin_ctz(others), other->line, other->mask);
    }
}

static void rendezvous(mbl_emu_lane_t *me) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_warp_state_t *warp = &run->warp[run->running / MBL_EMU_WARP];
    int own = run->running % MBL_EMU_WARP;
    check_meeting(warp, me, own);
    unsigned all = me->mask & warp->exists;
    warp->waiting |= 1u << own;
    if ((warp->waiting & all) != all) {
        mbl_emu_wait(MBL_EMU_AT_COLLECTIVE);
        return;
    }
    warp->waiting &= ~all;
    work(warp, me->kind, all);
    for (unsigned rest = all & ~(1u << own); rest; rest &= rest - 1)
        mbl_emu_wake(run->running - own + __builtin_ctz(rest));
}

static mbl_emu_lane_t *arrive(mbl_emu_collective_t kind, unsigned mask, int line) {
    mbl_emu_lane_t *me = mbl_emu_me();
    me->kind = kind;
    me->mask = mask;
    me->line = line;
    return me;
}

void mbl_emu_syncwarp(unsigned mask, int line) {
    rendezvous(arrive(MBL_EMU_SYNC, mask, line));
}

uint64_t mbl_emu_shuffle(mbl_emu_collective_t kind, unsigned mask, uint64_t value, int argument, int width,
                         int line) {
    mbl_emu_lane_t *me = arrive(kind, mask, line);
    if (width < 1 || width > MBL_EMU_WARP || (width & (width - 1)))
        mbl_emu_broken("line %d: a shuffle of width %d; 1, 2, 4, 8, 16 and 32 are possible", line, width);
    me->value = value;
    me->argument = argument;
    me->width = width;
    rendezvous(me);
    return me->value;
}

unsigned mbl_emu_ballot(unsigned mask, int predicate, int line) {
    mbl_emu_lane_t *me = arrive(MBL_EMU_BALLOT, mask, line);
    me->value = predicate != 0;
    rendezvous(me);
    return (unsigned)me->value;
}

unsigned mbl_emu_activemask(void) {
    const mbl_emu_warp_state_t *warp = &mbl_emu_run.warp[mbl_emu_run.running / MBL_EMU_WARP];
    return warp->exists & ~warp->ended;
}

static void need_whole_warp(const char *what, int line) {
    if (mbl_emu_run.threads % MBL_EMU_WARP || mbl_emu_run.launch->block.y * mbl_emu_run.launch->block.z != 1)
        mbl_emu_broken("line %d: %s needs whole warps, in x alone", line, what);
}

void mbl_emu_mma_bf16(float *d, const uint32_t *a, const uint32_t *b, int line) {
    need_whole_warp("mma", line);
    mbl_emu_lane_t *me = arrive(MBL_EMU_MMA_BF16, ~0u, line);
    me->operand[0] = d;
    me->operand[1] = (void *)(uintptr_t)a;
    me->operand[2] = (void *)(uintptr_t)b;
    rendezvous(me);
}

void mbl_emu_load_matrices(uint32_t *out, const void *row, bool transposed, int line) {
    need_whole_warp("a matrix load", line);
    mbl_emu_check_access(row, 16, MBL_EMU_READ_ACCESS);
    mbl_emu_lane_t *me =
        arrive(transposed ? MBL_EMU_LOAD_MATRICES_TRANSPOSED : MBL_EMU_LOAD_MATRICES, ~0u, line);
    if (!mbl_emu_is_shared(row, 16))
        mbl_emu_broken("line %d: a matrix load from memory that is not shared", line);
    if ((uintptr_t)row % 16)
        mbl_emu_broken("line %d: a matrix load from an address that is not a multiple of 16", line);
    me->operand[0] = out;
    me->operand[1] = (void *)(uintptr_t)row;
    rendezvous(me);
}

void mbl_emu_copy16(void *shared, const void *from, bool some) {
    mbl_emu_lane_t *me = mbl_emu_me();
    if (!mbl_emu_is_shared(shared, 16))
        mbl_emu_broken("an asynchronous copy to memory that is not shared");
    if ((uintptr_t)shared % 16 || (some && (uintptr_t)from % 16))
        mbl_emu_broken("an asynchronous copy of 16 bytes between addresses that are not multiples of 16");
    if (some)
        mbl_emu_check_access(from, 16, MBL_EMU_READ_ACCESS);
    mbl_emu_check_access(shared, 16, MBL_EMU_WRITE_ACCESS);
    mbl_emu_checks_unset(shared, 16); /* until it arrives */
    if (me->copies == me->copy_room) {
        unsigned room = me->copy_room ? 2 * me->copy_room : 16;
        mbl_emu_copy_t *more = realloc(me->copy, room * sizeof *more);
        if (!more)
            mbl_emu_broken("no memory for %u asynchronous copies", room);
        me->copy = more;
        me->copy_room = room;
    }
    me->copy[me->copies++] = (mbl_emu_copy_t){shared, from, me->group, some};
}

void mbl_emu_copy_commit(void) {
    mbl_emu_me()->group++;
}

void mbl_emu_copy_wait(int newest) {
    mbl_emu_lane_t *me = mbl_emu_me();
    unsigned done = 0;
    while (done < me->copies && me->copy[done].group + (unsigned)newest < me->group) {
        const mbl_emu_copy_t *copy = &me->copy[done++];
        if (copy->some)
            memcpy(copy->to, copy->from, 16);
        else
            memset(copy->to, 0, 16);
        mbl_emu_check_access(copy->to, 16, MBL_EMU_WRITE_ACCESS);
    }
    me->copies -= done;
    memmove(me->copy, me->copy + done, me->copies * sizeof *me->copy);
}
