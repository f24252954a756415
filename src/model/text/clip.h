/* CLIP text encoder with projection (transformers' CLIPTextModelWithProjection), forward only, driven by its
 * config.json. */
#ifndef MBL_MODEL_CLIP_H
#define MBL_MODEL_CLIP_H

#include "model/safetensors.h"
#include "ops/ops.h"

typedef struct {
    size_t vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
        max_position_embeddings;
    size_t projection_dim;
    double layer_norm_eps;
    mbl_act_t act; /* quick_gelu, gelu */
    int32_t eos_token_id;
} mbl_clip_config_t;

typedef struct mbl_clip mbl_clip_t;

mbl_status_t mbl_clip_config_read(const char *path, mbl_clip_config_t *out); /* config.json */
/* low_memory: the embeddings or one layer are on the device at one time; they are read again for every call
 * of mbl_clip_forward. */
mbl_status_t mbl_clip_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, bool low_memory,
                           mbl_clip_t **out);
/* The same with nothing but its config.json: weights that nothing is read into, for counting
 * (ops/cost_model.h). */
mbl_status_t mbl_clip_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_clip_t **out);
void mbl_clip_close(mbl_clip_t *clip);
const mbl_st_t *mbl_clip_file(const mbl_clip_t *clip); /* its open files */
const mbl_clip_config_t *mbl_clip_config(const mbl_clip_t *clip);

/* ids [N,T] i32 and end [N] (position of the end token) on the host. hidden: [N,T,hidden] ct (samples and
 * rows may be strided), the hidden states SD3 uses (transformers' hidden_states[-2]: before the last layer,
 * no final norm). pooled: [N,projection_dim] ct, the projected final-norm state at the end token. */
mbl_status_t mbl_clip_forward(mbl_clip_t *clip, const int32_t *ids, const size_t *end, size_t n,
                              size_t tokens, const mbl_tensor_t *hidden, const mbl_tensor_t *pooled);

/* Writes a fresh random encoder (normal(0, 0.02) scaled as CLIP does; embeddings normal(0, 1) when `strong`,
 * so that a frozen random encoder keeps words apart) into `folder`: config.json, model.safetensors (f32). */
mbl_status_t mbl_clip_create(const mbl_clip_config_t *config, uint64_t seed, bool strong, const char *folder);

#endif
