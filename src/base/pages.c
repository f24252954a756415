/* Pages of mapped files: into the page tables many at a time, and out of them again. */
#include "base/pages.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

void mbl_pages_fetch(const void *data, size_t bytes) {
#ifdef MADV_POPULATE_READ /* Linux 5.14 */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data / page * page;
    if (bytes > 0)
        (void)madvise((void *)begin, (uintptr_t)data + bytes - begin, MADV_POPULATE_READ);
#else
    (void)data, (void)bytes;
#endif
}

void mbl_pages_drop(const void *data, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
                    begin = ((uintptr_t)data + page - 1) / page * page,
                    end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}
