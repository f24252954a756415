/* Pages of mapped files: into the page tables many at a time, and out of them again. */
#ifndef MBL_BASE_PAGES_H
#define MBL_BASE_PAGES_H

#include <stddef.h>

/* Read or mapped at once, which costs a fraction of a fault for every few of them. Advice: where the kernel
 * does not take it, and where the file has become shorter, reading them is what it always is. */
void mbl_pages_fetch(const void *data, size_t bytes);
/* Of a mapped file only: the whole pages within leave the process's memory; they are in the file still. */
void mbl_pages_drop(const void *data, size_t bytes);

#endif
