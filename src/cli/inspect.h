/* The halves of `marble inspect`, one for each kind of thing that has a path. */
#ifndef MBL_CLI_INSPECT_H
#define MBL_CLI_INSPECT_H

#include "base/status.h"

#include <stdbool.h>

/* A checkpoint, every digest in it verified: attributes and datasets to stdout, as text or as one JSON
 * object; or, with `attribute`, the value of that attribute alone. */
mbl_status_t mbl_inspect_checkpoint(const char *path, const char *attribute, bool json);

/* What two checkpoints differ in: attributes (the configuration key by key) and datasets. */
mbl_status_t mbl_inspect_diff(const char *a, const char *b, bool json);

/* A model folder, one part of it, or a safetensors file or index: configuration, digest, parameters and
 * tensors. */
mbl_status_t mbl_inspect_model(const char *path, bool json);

#endif
