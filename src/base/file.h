/* Whole files: read at once, written under a temporary name, synced and renamed, so that a reader never sees
 * half a file; folders made with their parents. */
#ifndef MBL_BASE_FILE_H
#define MBL_BASE_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdio.h>

/* The whole file with a 0 after it; *size (or NULL) without that 0. ERR_IO names the file and why, ERR_FORMAT
 * when it is longer than `limit` bytes. Free with mbl_free. */
mbl_status_t mbl_file_read(const char *path, size_t limit, char **out, size_t *size);

/* The same of a pipe, which is read to its end, or of any other file. */
mbl_status_t mbl_file_read_stream(const char *path, size_t limit, char **out, size_t *size);

/* Whether the content is that of a pointer which git-lfs leaves where a file has not been fetched, and the
 * failure that says so. mbl_file_read looks for itself. */
bool mbl_is_lfs_pointer(const void *data, size_t size);
mbl_status_t mbl_lfs_pointer_found(const char *path, const void *data, size_t size);

/* A file being written. On success commit has put it in its place; after any failure, or discard, nothing is
 * left. A writer whose begin failed needs no discard. What is there and no file (a pipe, /dev/stdout) is
 * written into as it goes; `temporary` is NULL then. */
typedef struct {
    char *path, *temporary;
    FILE *file;
} mbl_file_writer_t;
mbl_status_t mbl_file_begin(const char *path, mbl_file_writer_t *out);
mbl_status_t mbl_file_put(mbl_file_writer_t *writer, const void *data, size_t size); /* discards on failure */
mbl_status_t mbl_file_commit(mbl_file_writer_t *writer);
void mbl_file_discard(mbl_file_writer_t *writer);

/* The three above in one. */
mbl_status_t mbl_file_write(const char *path, const void *data, size_t size);

/* Makes the folder and its parents; fine when it is there already. */
mbl_status_t mbl_folder_make(const char *path);
bool mbl_file_exists(const char *path);
bool mbl_folder_exists(const char *path);

#endif
