/* Shared memory of the running block: one arena, its arrays laid out as the threads ask for them, with bytes
 * that nobody owns between two arrays. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { ARENA = 512 * 1024, MOST_ARRAYS = 64, GAP = 64 };

typedef struct {
    const void *site; /* NULL: the dynamic one */
    const char *name;
    size_t at, bytes;
} array_t;

static struct {
    char *arena;
    array_t array[MOST_ARRAYS];
    int arrays;
    size_t used, bytes; /* with and without gaps */
    size_t marked;      /* used by the last block that was checked */
} shared;

bool mbl_emu_shared_open(void) {
    shared.arena =
        mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared.arena == MAP_FAILED)
        return false;
    mbl_emu_now.shared.base = (uintptr_t)shared.arena;
    mbl_emu_now.shared.size = ARENA;
    return true;
}

static void *place(const void *site, const char *name, size_t bytes) {
    if (shared.arrays == MOST_ARRAYS)
        mbl_emu_broken("more than %d shared arrays", MOST_ARRAYS);
    size_t at = (shared.used + GAP + 15) & ~(size_t)15;
    if (shared.bytes + bytes > (size_t)MBL_EMU_MOST_SHARED || at + bytes + GAP > ARENA)
        mbl_emu_broken("shared array '%s' of %zu bytes beside %zu others: a block has %d", name, bytes,
                       shared.bytes, MBL_EMU_MOST_SHARED);
    shared.array[shared.arrays++] = (array_t){site, name, at, bytes};
    shared.used = at + bytes;
    shared.bytes += bytes;
    if (mbl_emu_now.checked) {
        mbl_emu_checks_shared(at, bytes, true);
        shared.marked = shared.used;
    }
    return shared.arena + at;
}

void mbl_emu_shared_begin(size_t dynamic_bytes) {
    if (mbl_emu_now.checked) {
        mbl_emu_checks_shared(0, shared.marked + GAP, false);
        shared.marked = 0;
    }
    shared.arrays = 0;
    shared.used = shared.bytes = 0;
    if (dynamic_bytes > 0)
        place(NULL, "(dynamic)", dynamic_bytes);
}

void *mbl_emu_shared(const void *site, const char *name, size_t bytes) {
    for (int i = 0; i < shared.arrays; i++)
        if (shared.array[i].site == site)
            return shared.arena + shared.array[i].at;
    size_t dynamic = mbl_emu_run.launch->shared_bytes;
    if (shared.bytes - dynamic + bytes > MBL_EMU_STATIC_SHARED)
        mbl_emu_broken("shared array '%s' of %zu bytes beside %zu others: more than %d must be dynamic", name,
                       bytes, shared.bytes - dynamic, MBL_EMU_STATIC_SHARED);
    return place(site, name, bytes);
}

void *mbl_emu_shared_dynamic(const char *name) {
    if (mbl_emu_run.launch->shared_bytes == 0)
        mbl_emu_broken("it uses the dynamic shared array '%s', but the launch gives it 0 bytes", name);
    shared.array[0].name = name;
    return shared.arena + shared.array[0].at;
}

bool mbl_emu_shared_describe(const void *address, char out[MBL_EMU_TEXT]) {
    size_t at = (uintptr_t)address - (uintptr_t)shared.arena;
    if (at >= ARENA)
        return false;
    const array_t *nearest = NULL;
    for (int i = 0; i < shared.arrays; i++)
        if (shared.array[i].at <= at)
            nearest = &shared.array[i];
    if (!nearest && shared.arrays > 0)
        snprintf(out, MBL_EMU_TEXT, "byte -%zu of shared array '%s'", shared.array[0].at - at,
                 shared.array[0].name);
    else if (!nearest)
        snprintf(out, MBL_EMU_TEXT, "shared memory in a block that has no shared array");
    else
        snprintf(out, MBL_EMU_TEXT, "byte %zu of shared array '%s' of %zu bytes", at - nearest->at,
                 nearest->name, nearest->bytes);
    return true;
}
