/* The identity of weights: SHA-256 over names, types, shapes and contents. */
#ifndef MBL_MODEL_DIGEST_H
#define MBL_MODEL_DIGEST_H

#include "base/sha256.h"
#include "model/dit.h"
#include "model/safetensors.h"

#include <signal.h>

/* Of a safetensors file, index or folder that is open. ERR_STOPPED before the next tensor once *stop is
 * nonzero (NULL: never). */
mbl_status_t mbl_digest_tensors(const mbl_st_t *st, int threads, const volatile sig_atomic_t *stop,
                                char out[MBL_SHA256_HEX]);
/* The same of what mbl_st_open makes of `path`. */
mbl_status_t mbl_digest_files(const char *path, int threads, const volatile sig_atomic_t *stop,
                              char out[MBL_SHA256_HEX]);
/* Of the weights of a model in memory, as f32 (f64 for f64). */
mbl_status_t mbl_digest_weights(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_dit_t *model,
                                char out[MBL_SHA256_HEX]);

#endif
