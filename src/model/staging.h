/* Tensors on their way from a file or from a generator into a model's weights. */
#ifndef MBL_MODEL_STAGING_H
#define MBL_MODEL_STAGING_H

#include "model/safetensors.h"
#include "ops/ops.h"

/* A tensor of the file to the weights from `offset` on, in their type: straight from the mapped file where it
 * has that type, else through a buffer of a piece. Its shape was checked; the file's pages are given back. */
mbl_status_t mbl_staging_load(mbl_ops_t *ops, const mbl_st_t *st, const char *name,
                              const mbl_tensor_t *weights, size_t offset);

/* For tensors that go through the host whole, one at a time: as they are read or drawn (f32; f64 for f64),
 * and in the compute type. */
typedef struct {
    mbl_dtype_t dtype; /* of the weights */
    void *values, *narrow;
} mbl_staging_t;

/* Room for a tensor of at most `most` values. Free it, also after a failure. */
mbl_status_t mbl_staging_new(mbl_dtype_t dtype, size_t most, mbl_staging_t *out);
void mbl_staging_free(mbl_staging_t *staging);
/* staging->values from the file. */
mbl_status_t mbl_staging_read(const mbl_staging_t *staging, const mbl_st_t *st, const char *name,
                              size_t count);
/* `values` (staging's, or others of that type) in the compute type to the weights from `offset` on. */
mbl_status_t mbl_staging_put(mbl_ops_t *ops, const mbl_staging_t *staging, const void *values, size_t count,
                             const mbl_tensor_t *weights, size_t offset);

#endif
