/* The two copies of a kernel, and which of them a launch takes: MARBLE_EMULATED_CHECKS=all the checked one,
 * off the quick one, first the checked one for the first launches of a kernel with the same grid, block and
 * shared memory. Launches of the quick copy leave no trace in the shadow: what is recorded of others stays
 * true, and the blocks of memory they were given count as written. */
#include "gpu/emulation/emulator.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST = 2 }; /* launches; the second of them finds what the first one left in its memory */

static mbl_emu_quick_t *known;

bool mbl_emu_quick_add(mbl_emu_quick_t *quick, const char *name) {
    quick->name = name;
    quick->next = known;
    known = quick;
    return true;
}

/* Whether two names are the same but for the namespace of quick copies. */
static bool same(const char *checked, const char *quick) {
    static const char space[] = "mbl_quick::";
    const size_t length = sizeof space - 1;
    for (; *quick; checked++, quick++) {
        while (strncmp(quick, space, length) == 0)
            quick += length;
        if (*checked != *quick)
            return false;
    }
    return !*checked;
}

const mbl_emu_quick_t *mbl_emu_quick_of(const void *file, const char *name) {
    const mbl_emu_quick_t *quick = known;
    while (quick && !(quick->file == file && same(name, quick->name)))
        quick = quick->next;
    return quick;
}

/* ---- launches so far ---- */

typedef struct {
    const void *function;
    dim3 grid, block;
    size_t shared_bytes;
    int launches; /* 0: a free place */
} shape_t;

static struct {
    shape_t *shape; /* [room], a power of two: a table by hash, at most half full */
    size_t room, used;
} shapes;

static bool is_shape(const shape_t *s, const mbl_emu_launch_t *x) {
    return s->function == x->function && s->shared_bytes == x->shared_bytes && s->grid.x == x->grid.x &&
           s->grid.y == x->grid.y && s->grid.z == x->grid.z && s->block.x == x->block.x &&
           s->block.y == x->block.y && s->block.z == x->block.z;
}

static size_t hash_of(const mbl_emu_launch_t *x) {
    const uint64_t part[] = {
        (uintptr_t)x->function, x->grid.x, x->grid.y, x->grid.z, x->block.x, x->block.y, x->block.z,
        x->shared_bytes};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        hash = (hash ^ part[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return (size_t)hash;
}

static shape_t *place_of(const mbl_emu_launch_t *x) {
    size_t at = hash_of(x) & (shapes.room - 1);
    while (shapes.shape[at].launches && !is_shape(&shapes.shape[at], x))
        at = (at + 1) & (shapes.room - 1);
    return &shapes.shape[at];
}

static bool grow(void) {
    size_t before = shapes.room;
    shape_t *old = shapes.shape, *more = calloc(before ? 2 * before : 1024, sizeof *more);
    if (!more)
        return false;
    shapes.shape = more;
    shapes.room = before ? 2 * before : 1024;
    for (size_t i = 0; i < before; i++)
        if (old[i].launches) {
            const mbl_emu_launch_t x = {.function = old[i].function,
                                        .grid = old[i].grid,
                                        .block = old[i].block,
                                        .shared_bytes = old[i].shared_bytes};
            *place_of(&x) = old[i];
        }
    free(old);
    return true;
}

/* Counts it; without memory every launch is a first one. */
static bool among_first(const mbl_emu_launch_t *x) {
    if (2 * shapes.used >= shapes.room && !grow())
        return true;
    shape_t *shape = place_of(x);
    if (!shape->launches) {
        *shape = (shape_t){x->function, x->grid, x->block, x->shared_bytes, 0};
        shapes.used++;
    }
    return shape->launches < FIRST && ++shape->launches;
}

bool mbl_emu_take_checked(const mbl_emu_launch_t *launch, int device) {
    if (mbl_emu_settings.checks == MBL_EMU_CHECKS_ALL ||
        (mbl_emu_settings.checks == MBL_EMU_CHECKS_FIRST && among_first(launch)))
        return true;
    /* Kernels reach memory through their arguments alone: pointers, or structures with some. */
    const char *arguments = launch->arguments;
    for (size_t at = 0; at + sizeof(void *) <= launch->argument_bytes; at += sizeof(void *)) {
        const void *pointer;
        memcpy(&pointer, arguments + at, sizeof pointer);
        if (mbl_emu_device_of(pointer) == device)
            mbl_emu_unseen(device, pointer);
    }
    return false;
}
