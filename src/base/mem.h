/* Host memory: checked, zeroed, 64-byte aligned, with the failure of any allocation on demand (tests), and
 * arenas. */
#ifndef MBL_BASE_MEM_H
#define MBL_BASE_MEM_H

#include "base/status.h"

#include <stdbool.h>

/* count * size bytes, zeroed, 64-byte aligned; NULL when that overflows or there is no memory. Free with
 * mbl_free. */
void *mbl_calloc(size_t count, size_t size);
/* Grows (or shrinks) what mbl_calloc gave; old content kept, new bytes zeroed; NULL leaves the old block as
 * it was. */
void *mbl_realloc(void *ptr, size_t old_count, size_t count, size_t size);
void mbl_free(void *ptr);
char *mbl_strdup(const char *text);
/* printf into a fresh string; NULL without memory. */
char *mbl_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* a * b and a + b; false (result untouched) when they overflow. */
bool mbl_mul(size_t a, size_t b, size_t *result);
bool mbl_add(size_t a, size_t b, size_t *result);

/* Sets `ptr` to `count` zeroed elements or leaves the function with MBL_ERR_MEM. */
#define MBL_ALLOC(ptr, count)                                                                                \
    do {                                                                                                     \
        (ptr) = mbl_calloc((count), sizeof *(ptr));                                                          \
        if (!(ptr))                                                                                          \
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu x %zu bytes (%s)", (size_t)(count),              \
                            sizeof *(ptr), #ptr);                                                            \
    } while (0)
#define MBL_ALLOC_GOTO(ptr, count, label)                                                                    \
    do {                                                                                                     \
        (ptr) = mbl_calloc((count), sizeof *(ptr));                                                          \
        if (!(ptr)) {                                                                                        \
            status = MBL_FAIL(MBL_ERR_MEM, "no memory for %zu x %zu bytes (%s)", (size_t)(count),            \
                              sizeof *(ptr), #ptr);                                                          \
            goto label;                                                                                      \
        }                                                                                                    \
    } while (0)

/* Tests: the n-th allocation from now (1 = the next) fails, once; 0 turns it off. Counts and live blocks of
 * this process. */
void mbl_mem_fail_at(size_t n);
size_t mbl_mem_count(void);
size_t mbl_mem_live(void);

/* Memory counted first, allocated once, carved in order. With base NULL an arena only counts. */
typedef struct {
    unsigned char *base;
    size_t size, used;
} mbl_arena_t;

/* The next count * size bytes, 64-byte aligned; NULL while counting or when the arena is too small (then used
 * > size). */
void *mbl_arena_take(mbl_arena_t *arena, size_t count, size_t size);

/* Peak resident memory of this process in bytes (VmHWM). */
size_t mbl_mem_peak(void);

#endif
