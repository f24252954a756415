/* Copies of files and folders. */
#ifndef MBL_BASE_COPY_H
#define MBL_BASE_COPY_H

#include "base/status.h"

/* One file, whole or not at all; links are followed. ERR_IO names the file. */
mbl_status_t mbl_file_copy(const char *from, const char *to);
/* A folder with all below it, but not the entry called `except` at its top (NULL: everything). `to` is made;
 * files of the same name in it are replaced. */
mbl_status_t mbl_folder_copy(const char *from, const char *to, const char *except);

#endif
