/* Tensors on their way from the host into a model's weights, one at a time: as they are read or drawn (f32;
 * f64 for f64), and in the compute type. */
#ifndef MBL_MODEL_STAGING_H
#define MBL_MODEL_STAGING_H

#include "model/safetensors.h"
#include "ops/ops.h"

typedef struct {
    mbl_dtype_t dtype; /* of the weights */
    void *values, *narrow;
} mbl_staging_t;

/* Room for a tensor of at most `most` values. Free it, unless it failed. */
mbl_status_t mbl_staging_new(mbl_dtype_t dtype, size_t most, mbl_staging_t *out);
void mbl_staging_free(mbl_staging_t *staging);
/* staging->values from the file. */
mbl_status_t mbl_staging_read(const mbl_staging_t *staging, const mbl_st_t *st, const char *name,
                              size_t count);
/* `values` (staging's, or others of that type) in the compute type to the weights from `offset` on. */
mbl_status_t mbl_staging_put(mbl_ops_t *ops, const mbl_staging_t *staging, const void *values, size_t count,
                             const mbl_tensor_t *weights, size_t offset);

#endif
