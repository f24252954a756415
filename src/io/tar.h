/* Archives in the format of tar (POSIX ustar), of small files by name: what `tar xf` and WebDataset read. */
#ifndef MBL_IO_TAR_H
#define MBL_IO_TAR_H

#include "base/file.h"

#include <stdint.h>

enum { MBL_TAR_NAME = 100 };

/* Appends a file; `name` has at most 99 letters. Discards the writer on failure, as mbl_file_put does. */
mbl_status_t mbl_tar_put(mbl_file_writer_t *writer, const char *name, const void *data, size_t size);
/* The end of the archive; mbl_file_commit puts it in its place. */
mbl_status_t mbl_tar_end(mbl_file_writer_t *writer);

typedef struct {
    char name[MBL_TAR_NAME];
    int64_t offset; /* of its bytes */
    size_t size;
} mbl_tar_entry_t;

/* The entry whose header is at *at (0: the first), which goes on to the next one. *found is false at the end.
 * ERR_FORMAT, not logged, where there is no entry of ours. */
mbl_status_t mbl_tar_next(int fd, int64_t *at, mbl_tar_entry_t *out, bool *found);

#endif
