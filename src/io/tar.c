/* Archives in the format of tar. */
#include "io/tar.h"

#include <string.h>
#include <unistd.h>

enum { BLOCK = 512, NAME = 0, MODE = 100, SIZE = 124, TIME = 136, SUM = 148, TYPE = 156, MAGIC = 257 };

static unsigned sum_of(const unsigned char *header) {
    unsigned sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += i >= SUM && i < SUM + 8 ? ' ' : header[i];
    return sum;
}

mbl_status_t mbl_tar_put(mbl_file_writer_t *writer, const char *name, const void *data, size_t size) {
    unsigned char header[BLOCK] = {0};
    static const char padding[BLOCK];
    char *text = (char *)header;
    if (strlen(name) >= MBL_TAR_NAME || size >= (size_t)1 << 33) {
        mbl_file_discard(writer);
        return MBL_FAIL(MBL_ERR_ARG, "%s: no file for an archive; expected at most 99 letters and 8 GiB",
                        name);
    }
    memcpy(text + NAME, name, strlen(name));
    snprintf(text + MODE, 8, "%07o", 0644);
    snprintf(text + 108, 8, "%07o", 0); /* owner and group */
    snprintf(text + 116, 8, "%07o", 0);
    snprintf(text + SIZE, 12, "%011llo", (unsigned long long)size);
    snprintf(text + TIME, 12, "%011o", 0); /* equal contents make equal archives */
    text[TYPE] = '0';
    memcpy(text + MAGIC,
           "ustar\0"
           "00",
           8);
    snprintf(text + SUM, 8, "%06o", sum_of(header));
    text[SUM + 7] = ' ';
    MBL_TRY(mbl_file_put(writer, header, BLOCK));
    MBL_TRY(mbl_file_put(writer, data, size));
    return size % BLOCK ? mbl_file_put(writer, padding, BLOCK - size % BLOCK) : MBL_OK;
}

mbl_status_t mbl_tar_end(mbl_file_writer_t *writer) {
    static const char end[2 * BLOCK];
    return mbl_file_put(writer, end, sizeof end);
}

/* An octal number of `size` digits at most, ended by a zero or a blank; false for anything else. */
static bool read_octal(const unsigned char *text, size_t size, uint64_t *out) {
    uint64_t value = 0;
    size_t i = 0;
    for (; i < size && text[i] >= '0' && text[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(text[i] - '0');
    *out = value;
    return i > 0 && (i == size || text[i] == 0 || text[i] == ' ');
}

mbl_status_t mbl_tar_next(int fd, int64_t *at, mbl_tar_entry_t *out, bool *found) {
    unsigned char header[BLOCK];
    uint64_t size, sum;
    *found = false;
    ssize_t got = pread(fd, header, BLOCK, *at);
    if (got == BLOCK && header[0] == 0)
        return MBL_OK;
    if (got != BLOCK || header[NAME + MBL_TAR_NAME - 1] != 0 || memcmp(header + MAGIC, "ustar", 5) != 0 ||
        header[TYPE] != '0' || !read_octal(header + SIZE, 11, &size) || !read_octal(header + SUM, 8, &sum) ||
        sum != sum_of(header))
        return MBL_ERR_FORMAT;
    memcpy(out->name, header + NAME, MBL_TAR_NAME);
    out->offset = *at + BLOCK;
    out->size = (size_t)size;
    *at = out->offset + (int64_t)((size + BLOCK - 1) / BLOCK * BLOCK);
    *found = true;
    return MBL_OK;
}
