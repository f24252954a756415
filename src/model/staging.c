/* Tensors on their way from the host into a model's weights. */
#include "model/staging.h"
#include "base/mem.h"

mbl_status_t mbl_staging_new(mbl_dtype_t dtype, size_t most, mbl_staging_t *out) {
    *out = (mbl_staging_t){dtype, mbl_calloc(most, mbl_dtype_size(mbl_dtype_stat(dtype))),
                           dtype == MBL_BF16 ? mbl_calloc(most, 2) : NULL};
    if (out->values && (out->narrow || dtype != MBL_BF16))
        return MBL_OK;
    mbl_staging_free(out);
    return MBL_FAIL(MBL_ERR_MEM, "no memory for a tensor of %zu values", most);
}

void mbl_staging_free(mbl_staging_t *staging) {
    mbl_free(staging->values);
    mbl_free(staging->narrow);
}

mbl_status_t mbl_staging_read(const mbl_staging_t *staging, const mbl_st_t *st, const char *name,
                              size_t count) {
    return staging->dtype == MBL_F64 ? mbl_st_read_f64(st, name, staging->values, count)
                                     : mbl_st_read_f32(st, name, staging->values, count);
}

mbl_status_t mbl_staging_put(mbl_ops_t *ops, const mbl_staging_t *staging, const void *values, size_t count,
                             const mbl_tensor_t *weights, size_t offset) {
    const size_t size = mbl_dtype_size(staging->dtype);
    if (staging->dtype == MBL_BF16) {
        const float *wide = values;
        uint16_t *narrow = staging->narrow;
        for (size_t i = 0; i < count; i++)
            narrow[i] = mbl_bf16_from_f32(wide[i]);
        values = narrow;
    }
    return ops->table->copy(ops, (char *)weights->data + offset * size, ops->table->space, values, MBL_HOST,
                            count * size);
}
