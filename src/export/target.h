/* Where an export may write: never into the base model, by device and inode and through links neither, and
 * over nothing that is there without --force. */
#ifndef MBL_EXPORT_TARGET_H
#define MBL_EXPORT_TARGET_H

#include "base/status.h"

#include <stdbool.h>

typedef struct {
    const char *option; /* "--merged", for messages */
    const char *path;   /* NULL: not asked for */
    bool folder;        /* else a file */
    bool beside;        /* may not lie above the base model either */
} mbl_target_t;

/* Checks all before anything is written. ERR_USAGE names option and path: a file that exists or a folder with
 * something in it (without `force`), what is no file or no folder, the checkpoint itself, two outputs in one
 * place. */
mbl_status_t mbl_target_check(const mbl_target_t *targets, size_t n, const char *base, const char *checkpoint,
                              bool force);

/* Whether two folders are one. */
bool mbl_target_same(const char *a, const char *b);

/* Copies to `to` (made) what model_index.json of `base` names, and licences, but not transformer/.
 * Old weights in the parts of `to`, transformer/ too, are removed first, since loaders might take them for
 * the new ones. A part of `to` that is a link is refused. */
mbl_status_t mbl_target_copy_base(const char *base, const char *to);
/* Puts model_index.json in, last of all: a model whose export broke off has none and opens nowhere. */
mbl_status_t mbl_target_finish(const char *base, const char *to);

#endif
