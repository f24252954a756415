/* Checked host memory. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static atomic_size_t mem_count, mem_live, mem_fail;

bool mbl_mul(size_t a, size_t b, size_t *result) {
    return !__builtin_mul_overflow(a, b, result);
}

bool mbl_add(size_t a, size_t b, size_t *result) {
    return !__builtin_add_overflow(a, b, result);
}

static bool due_to_fail(void) {
    atomic_fetch_add(&mem_count, 1);
    size_t n = atomic_load(&mem_fail);
    return n > 0 && atomic_fetch_sub(&mem_fail, 1) == 1;
}

enum { POPULATED = 64 << 20 };

/* Zeroes of the kernel's own instead of writing them behind it: half the time of a large block. As with
 * writing them, the memory is taken at once. false: write them. */
static bool zeroed_by_kernel(void *ptr, size_t bytes) {
#ifdef MADV_POPULATE_WRITE /* Linux 5.14 */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
                    begin = ((uintptr_t)ptr + page - 1) / page * page,
                    end = ((uintptr_t)ptr + bytes) / page * page;
    if (bytes < POPULATED || madvise((void *)begin, end - begin, MADV_DONTNEED) != 0 ||
        madvise((void *)begin, end - begin, MADV_POPULATE_WRITE) != 0)
        return false;
    memset(ptr, 0, begin - (uintptr_t)ptr);
    memset((void *)end, 0, (uintptr_t)ptr + bytes - end);
    return true;
#else
    return false;
#endif
}

void *mbl_calloc(size_t count, size_t size) {
    size_t bytes;
    if (due_to_fail() || !mbl_mul(count, size, &bytes) || bytes > SIZE_MAX - 64)
        return NULL;
    bytes = (bytes + 63) / 64 * 64;
    void *ptr = aligned_alloc(64, bytes ? bytes : 64);
    if (!ptr)
        return NULL;
    if (!zeroed_by_kernel(ptr, bytes))
        memset(ptr, 0, bytes ? bytes : 64);
    atomic_fetch_add(&mem_live, 1);
    return ptr;
}

void *mbl_realloc(void *ptr, size_t old_count, size_t count, size_t size) {
    void *next = mbl_calloc(count, size);
    if (!next)
        return NULL;
    if (ptr)
        memcpy(next, ptr, (old_count < count ? old_count : count) * size);
    mbl_free(ptr);
    return next;
}

void mbl_free(void *ptr) {
    if (!ptr)
        return;
    atomic_fetch_sub(&mem_live, 1);
    free(ptr);
}

char *mbl_strdup(const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = mbl_calloc(n, 1);
    if (copy)
        memcpy(copy, text, n);
    return copy;
}

char *mbl_format(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : mbl_calloc((size_t)n + 1, 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

void mbl_mem_fail_at(size_t n) {
    atomic_store(&mem_fail, n);
}

size_t mbl_mem_count(void) {
    return atomic_load(&mem_count);
}

size_t mbl_mem_live(void) {
    return atomic_load(&mem_live);
}

void *mbl_arena_take(mbl_arena_t *arena, size_t count, size_t size) {
    size_t bytes, start = (arena->used + 63) / 64 * 64, end;
    if (!mbl_mul(count, size, &bytes) || !mbl_add(start, bytes, &end)) {
        arena->used = SIZE_MAX - 64;
        return NULL;
    }
    arena->used = end;
    return arena->base && end <= arena->size ? arena->base + start : NULL;
}

size_t mbl_mem_peak(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}
