/* The folder of a Python server: its program and its socket. It is locked while the run lives, so that a
 * later run knows the folders of runs that were killed, and removes them. */
#ifndef MBL_REWARD_REMOTE_CHILD_FOLDER_H
#define MBL_REWARD_REMOTE_CHILD_FOLDER_H

#include "base/status.h"

typedef struct {
    char *path, *program, *url; /* url: unix:PATH of a socket */
    int lock;                   /* an open file; -1: none */
} mbl_child_folder_t;

/* In TMPDIR, with the program in it. `reward`: for messages. Release with mbl_child_folder_remove, after an
 * error too. Errors: ERR_IO, ERR_MEM. */
mbl_status_t mbl_child_folder_make(const char *reward, mbl_child_folder_t *out);
void mbl_child_folder_remove(mbl_child_folder_t *folder);

#endif
