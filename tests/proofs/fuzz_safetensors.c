/* libFuzzer harness of src/model/safetensors*.c: any bytes are opened, and every tensor of what opens is
 * read.
 */
#include "base/log.h"
#include "base/mem.h"
#include "model/safetensors.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char path[64];
    mbl_st_t *st;
    mbl_log_set_level(MBL_LOG_OFF);
    if (fd < 0) {
        fd = memfd_create("fuzz.safetensors", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        return -1;
    if (mbl_st_open(path, &st) != MBL_OK)
        return 0;
    for (size_t i = 0; i < mbl_st_count(st); i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        size_t count = entry->bytes / mbl_dtype_size(entry->is_f16 ? MBL_BF16 : entry->dtype);
        float *values = mbl_calloc(count, sizeof *values);
        if (values)
            (void)mbl_st_read_f32(st, entry->name, values, count);
        mbl_free(values);
    }
    (void)mbl_st_metadata(st, "format");
    mbl_st_close(st);
    return 0;
}
