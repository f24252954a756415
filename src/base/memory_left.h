/* How much memory of the host this process may still take. */
#ifndef MBL_BASE_MEMORY_LEFT_H
#define MBL_BASE_MEMORY_LEFT_H

#include <stddef.h>

/* Bytes: what the kernel calls available, and at most what is left below the limits of the process's control
 * groups, whose file caches that nothing uses count as left. SIZE_MAX where neither is known. /proc and /sys
 * are looked up below `root` ("" but for tests). */
size_t mbl_memory_left(const char *root);
/* The same and what may still be swapped out. */
size_t mbl_memory_most(const char *root);

#endif
