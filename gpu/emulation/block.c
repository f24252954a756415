/* Runs a launch: blocks one after another, the threads of a block as fibres. A thread runs until it waits at
 * a barrier or a collective; one that never waits is followed by the next thread on the same fibre, so it
 * costs no switch. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

mbl_emu_run_t mbl_emu_run;
mbl_emu_index_t mbl_emu_index;
static mbl_emu_fibre_t fibres[MBL_EMU_MOST_THREADS + 1];
static int fibre_count;

static void fibre_main(void);

/* Stacks start at different places of a page, or their hot ends would share cache sets. */
static void prepare_fibre(mbl_emu_fibre_t *fibre) {
    size_t shift = (size_t)(fibre - fibres) % 61 * 64;
    fibre->context = mbl_emu_context(fibre->stack, MBL_EMU_STACK - shift, fibre_main);
}

static mbl_emu_fibre_t *take_fibre(void) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_fibre_t *fibre = run->free_fibres;
    if (fibre) {
        run->free_fibres = fibre->next;
        return fibre;
    }
    fibre = &fibres[fibre_count];
    size_t page = 4096; /* below the stack: running over it faults */
    char *memory = mmap(NULL, MBL_EMU_STACK + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0)
        mbl_emu_broken("no memory for the stack of fibre %d", fibre_count);
    fibre_count++;
    fibre->stack = memory + page;
    prepare_fibre(fibre);
    return fibre;
}

static void set_running(int lane) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_warp_state_t *warp = &run->warp[lane / MBL_EMU_WARP];
    warp->ready &= ~(1u << lane % MBL_EMU_WARP);
    if (!warp->ready)
        run->ready_warps &= ~(1u << lane / MBL_EMU_WARP);
    run->running = lane;
    mbl_emu_index.thread = run->lane[lane].index;
    mbl_emu_now.mine = run->lane[lane].strand;
    mbl_emu_now.lanes = run->lane[lane].range + MBL_EMU_WARP;
    mbl_emu_now.stack = run->fibre ? (uintptr_t)run->fibre->stack : 0;
}

/* The next thread that can run: of the same warp if there is one. -1: none. */
static int pick(void) {
    mbl_emu_run_t *run = &mbl_emu_run;
    int warp = run->running / MBL_EMU_WARP;
    unsigned ready = run->warp[warp].ready;
    if (!ready) {
        if (!run->ready_warps)
            return -1;
        warp = __builtin_ctz(run->ready_warps);
        return warp * MBL_EMU_WARP + __builtin_ctz(run->warp[warp].ready);
    }
    unsigned later = ready & ~((2u << run->running % MBL_EMU_WARP) - 1);
    return warp * MBL_EMU_WARP + __builtin_ctz(later ? later : ready);
}

static const char *what_kind(mbl_emu_collective_t kind) {
    static const char *const name[] = {
        "__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",        "__shfl_xor_sync",
        "a vote",     "mma",         "a matrix load",  "a transposed matrix load"};
    return name[kind];
}

static void describe_wait(int lane, char *out, size_t size) {
    const mbl_emu_lane_t *l = &mbl_emu_run.lane[lane];
    int n = snprintf(out, size, "thread (%u,%u,%u) ", l->index.x, l->index.y, l->index.z);
    if (l->wait == MBL_EMU_AT_BARRIER)
        snprintf(out + n, size - (size_t)n, "waits at __syncthreads of line %d", mbl_emu_run.barrier.line);
    else if (l->wait == MBL_EMU_AT_COLLECTIVE)
        snprintf(out + n, size - (size_t)n, "waits at %s (mask 0x%08x) of line %d", what_kind(l->kind),
                 l->mask, l->line);
    else
        snprintf(out + n, size - (size_t)n, "has ended");
}

static void report_stuck(void) __attribute__((noreturn));
static void report_stuck(void) {
    mbl_emu_run_t *run = &mbl_emu_run;
    char first[160], other[160] = "";
    int a = 0;
    while (a < run->threads && run->lane[a].wait == MBL_EMU_ENDED)
        a++;
    describe_wait(a, first, sizeof first);
    for (int b = a + 1; b < run->threads && !*other; b++)
        if (run->lane[b].wait != run->lane[a].wait || run->lane[b].line != run->lane[a].line)
            describe_wait(b, other, sizeof other);
    mbl_emu_broken("divergent barrier: nobody can go on; %s%s%s", first, *other ? ", " : "", other);
}

static void go_to(mbl_emu_fibre_t *self, int lane) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_lane_t *to = &run->lane[lane];
    if (!to->fibre)
        to->fibre = take_fibre();
    run->fibre = to->fibre;
    set_running(lane);
    mbl_emu_switch(&self->context, to->fibre->context);
}

void mbl_emu_wait(mbl_emu_wait_t why) {
    mbl_emu_me()->wait = why;
    int next = pick();
    if (next < 0)
        report_stuck();
    go_to(mbl_emu_run.fibre, next);
}

void mbl_emu_wake(int lane) {
    mbl_emu_run_t *run = &mbl_emu_run;
    run->lane[lane].wait = MBL_EMU_FREE;
    run->warp[lane / MBL_EMU_WARP].ready |= 1u << lane % MBL_EMU_WARP;
    run->ready_warps |= 1u << lane / MBL_EMU_WARP;
}

static void begin_epoch(bool block) {
    mbl_emu_run_t *run = &mbl_emu_run;
    if (!mbl_emu_now.checked)
        return;
    mbl_emu_strand_t first = mbl_emu_checks_epoch(run->block, run->warps, block);
    for (int i = 0; i < run->threads; i++) {
        run->lane[i].range = first + (mbl_emu_strand_t)(i / MBL_EMU_WARP) * MBL_EMU_RANGE;
        run->lane[i].strand = run->lane[i].range + (mbl_emu_strand_t)(i % MBL_EMU_WARP);
    }
    mbl_emu_now.mine = mbl_emu_me()->strand;
    mbl_emu_now.lanes = mbl_emu_me()->range + MBL_EMU_WARP;
}

void mbl_emu_barrier(const char *file, int line) {
    mbl_emu_run_t *run = &mbl_emu_run;
    char other[160];
    if (run->live < run->threads) {
        int ended = 0;
        while (run->lane[ended].wait != MBL_EMU_ENDED)
            ended++;
        describe_wait(ended, other, sizeof other);
        mbl_emu_broken("divergent barrier: it waits at __syncthreads of line %d, but %s", line, other);
    }
    if (run->arrived == 0)
        run->barrier = (mbl_emu_site_t){file, line};
    if (run->barrier.line != line || (run->barrier.file != file && strcmp(run->barrier.file, file) != 0)) {
        int there = 0;
        while (run->lane[there].wait != MBL_EMU_AT_BARRIER)
            there++;
        describe_wait(there, other, sizeof other);
        mbl_emu_broken("divergent barrier: it waits at __syncthreads of line %d, but %s", line, other);
    }
    if (++run->arrived < run->live) {
        mbl_emu_wait(MBL_EMU_AT_BARRIER);
        return;
    }
    run->arrived = 0;
    for (int i = 0; i < run->threads; i++)
        if (i != run->running)
            mbl_emu_wake(i);
    begin_epoch(false);
}

static void begin_block(void) {
    mbl_emu_run_t *run = &mbl_emu_run;
    const dim3 *grid = &run->launch->grid;
    mbl_emu_index.block =
        (uint3){(unsigned)(run->block % grid->x), (unsigned)(run->block / grid->x % grid->y),
                (unsigned)(run->block / grid->x / grid->y)};
    for (int i = 0; i < run->threads; i++) {
        run->lane[i].fibre = NULL;
        run->lane[i].wait = MBL_EMU_FREE;
        run->lane[i].copies = run->lane[i].group = 0;
    }
    for (int w = 0; w < run->warps; w++) {
        run->warp[w].ready = run->warp[w].exists;
        run->warp[w].ended = run->warp[w].waiting = 0;
    }
    run->ready_warps = run->warps == 32 ? ~0u : (1u << run->warps) - 1;
    run->live = run->threads;
    run->arrived = 0;
    run->running = 0;
    mbl_emu_shared_begin(run->launch->shared_bytes);
    begin_epoch(true);
}

static void end_lane(void) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_lane_t *me = mbl_emu_me();
    if (me->copies)
        mbl_emu_broken("it ends before waiting for %u of its asynchronous copies", me->copies);
    if (run->arrived > 0) {
        int there = 0;
        char other[160];
        while (run->lane[there].wait != MBL_EMU_AT_BARRIER)
            there++;
        describe_wait(there, other, sizeof other);
        mbl_emu_broken("divergent barrier: it ends, but %s", other);
    }
    me->wait = MBL_EMU_ENDED;
    run->warp[run->running / MBL_EMU_WARP].ended |= 1u << run->running % MBL_EMU_WARP;
    run->live--;
}

/* A fibre: thread after thread, block after block. */
static void fibre_main(void) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_fibre_t *self = run->fibre;
    for (;;) {
        run->thread(run->launch->arguments);
        end_lane();
        int next = pick();
        if (next < 0 && run->live > 0)
            report_stuck();
        if (next < 0 && ++run->block < run->blocks) {
            begin_block();
            next = 0;
        }
        if (next >= 0 && !run->lane[next].fibre) {
            run->lane[next].fibre = self;
            set_running(next);
            continue;
        }
        self->next = run->free_fibres;
        run->free_fibres = self;
        if (next >= 0)
            go_to(self, next);
        else
            mbl_emu_switch(&self->context, run->main);
    }
}

void mbl_emu_stop(cudaError_t error) {
    mbl_emu_run_t *run = &mbl_emu_run;
    void *here;
    run->error = error;
    mbl_emu_switch(&here, run->main);
    abort(); /* nobody comes back: the fibres are made anew */
}

void mbl_emu_broken(const char *format, ...) {
    char text[MBL_EMU_TEXT], where[MBL_EMU_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mbl_emu_where(where);
    mbl_emu_report("%s: %s", where, text);
    mbl_emu_stop(cudaErrorLaunchFailure);
}

void mbl_emu_where(char out[MBL_EMU_TEXT]) {
    const mbl_emu_index_t *i = &mbl_emu_index;
    snprintf(out, MBL_EMU_TEXT, "kernel %.100s, block (%u,%u,%u), thread (%u,%u,%u)",
             mbl_emu_run.launch->name, i->block.x, i->block.y, i->block.z, i->thread.x, i->thread.y,
             i->thread.z);
}

static void begin_launch(const mbl_emu_launch_t *launch) {
    mbl_emu_run_t *run = &mbl_emu_run;
    const dim3 *block = &launch->block, *grid = &launch->grid;
    run->launch = launch;
    run->threads = (int)(block->x * block->y * block->z);
    run->warps = (run->threads + MBL_EMU_WARP - 1) / MBL_EMU_WARP;
    run->block = 0;
    run->blocks = (uint64_t)grid->x * grid->y * grid->z;
    run->error = cudaSuccess;
    mbl_emu_index.block_dim = (uint3){block->x, block->y, block->z};
    mbl_emu_index.grid_dim = (uint3){grid->x, grid->y, grid->z};
    for (int i = 0; i < run->threads; i++) {
        unsigned n = (unsigned)i;
        run->lane[i].index = (uint3){n % block->x, n / block->x % block->y, n / block->x / block->y};
    }
    for (int w = 0; w < run->warps; w++) {
        int lanes = run->threads - w * MBL_EMU_WARP;
        run->warp[w].exists = lanes >= MBL_EMU_WARP ? ~0u : (1u << lanes) - 1;
    }
}

cudaError_t mbl_emu_execute(const mbl_emu_launch_t *launch, bool checked) {
    mbl_emu_run_t *run = &mbl_emu_run;
    mbl_emu_now.checked = checked;
    begin_launch(launch);
    run->thread = checked || !launch->run_quick ? launch->run : launch->run_quick;
    begin_block();
    run->fibre = take_fibre();
    run->lane[0].fibre = run->fibre;
    set_running(0);
    mbl_emu_active = true;
    mbl_emu_switch(&run->main, run->fibre->context);
    mbl_emu_active = mbl_emu_now.checked = false;
    if (run->error != cudaSuccess) { /* the fibres hang in the middle of the kernel */
        run->free_fibres = NULL;
        for (int i = 0; i < fibre_count; i++) {
            prepare_fibre(&fibres[i]);
            fibres[i].next = run->free_fibres;
            run->free_fibres = &fibres[i];
        }
    }
    return run->error;
}
