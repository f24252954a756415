/* T5 v1.1's encoder (transformers' T5EncoderModel), forward only, driven by its config.json. */
#ifndef MBL_MODEL_T5_H
#define MBL_MODEL_T5_H

#include "model/safetensors.h"
#include "ops/ops.h"

typedef struct {
    size_t vocab_size, d_model, d_kv, d_ff, num_layers, num_heads, relative_attention_num_buckets,
        relative_attention_max_distance;
    double layer_norm_epsilon;
} mbl_t5_config_t;

typedef struct mbl_t5 mbl_t5_t;

mbl_status_t mbl_t5_config_read(const char *path, mbl_t5_config_t *out); /* config.json */
/* low_memory: no more than a layer's weights are on the device at one time; they are read again for every
 * call of mbl_t5_forward. */
mbl_status_t mbl_t5_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, bool low_memory,
                         mbl_t5_t **out);
/* The same with nothing but its config.json: weights that nothing is read into, for counting
 * (ops/cost_model.h). */
mbl_status_t mbl_t5_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_t5_t **out);
void mbl_t5_close(mbl_t5_t *t5);
const mbl_st_t *mbl_t5_file(const mbl_t5_t *t5); /* its open files */
const mbl_t5_config_t *mbl_t5_config(const mbl_t5_t *t5);

/* ids [N,T] on the host. out [N,T,d_model] ct (samples may be strided): the last hidden state after the final
 * norm. All tokens see all others, padding too, as SD3 has it. The residual stream is f32 (f64 for f64)
 * whatever the compute type: T5's grows beyond what f16 holds and bf16 resolves. */
mbl_status_t mbl_t5_forward(mbl_t5_t *t5, const int32_t *ids, size_t n, size_t tokens,
                            const mbl_tensor_t *out);

#endif
