/* libFuzzer harness of the checkpoint reader: any bytes are opened as a checkpoint. Nothing that the fuzzer
 * makes has a trailer that fits, so none may open: what is tried is the way up to there, with libhdf5 never
 * reached. */
#include "base/log.h"
#include "io/checkpoint.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The input stands before the start of a trailer, so that its numbers are reached at once. */
static const char start[] = "marble checkpoint v1 length ";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char path[64];
    mbl_ckpt_t *ckpt = NULL;
    unsigned char trailer[128];
    mbl_log_set_level(MBL_LOG_OFF);
    if (fd < 0) {
        fd = memfd_create("fuzz.h5", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    size_t part = size < sizeof trailer - sizeof start ? size : sizeof trailer - sizeof start;
    memset(trailer, ' ', sizeof trailer);
    memcpy(trailer, start, sizeof start - 1);
    memcpy(trailer + sizeof start - 1, data, part);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size ||
        pwrite(fd, trailer, sizeof trailer, (off_t)size) != sizeof trailer)
        return -1;
    if (mbl_ckpt_open(path, &ckpt) == MBL_OK)
        abort();
    return 0;
}
