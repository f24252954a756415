/* The MM-DiT of Stable Diffusion 3 and 3.5 (diffusers' SD3Transformer2DModel): a family of transformers
 * (dit_family.h). to_q, to_k, to_v (and add_*_proj) of a block are adjacent in the flat vector, so that one
 * product computes all three. Only src/model and its tests know it. */
#ifndef MBL_MODEL_MMDIT_H
#define MBL_MODEL_MMDIT_H

#include "model/dit_family.h"

#define MBL_MMDIT_CLASS "SD3Transformer2DModel"

/* config.json of the transformer folder. */
typedef struct {
    size_t sample_size, patch_size, in_channels, out_channels, num_layers, attention_head_dim,
        num_attention_heads;
    size_t joint_attention_dim, caption_projection_dim, pooled_projection_dim, pos_embed_max_size;
    bool dual_attention[MBL_DIT_MAX_BLOCKS]; /* dual_attention_layers */
    bool qk_norm;                            /* "rms_norm" or null */
} mbl_mmdit_config_t;

/* Reads and checks a configuration; `where` is its file, for messages: ERR_CONFIG with file, key, found,
 * expected. */
mbl_status_t mbl_mmdit_config_parse(const char *where, const json_t *config, mbl_mmdit_config_t *out);
/* One that diffusers reads; NULL without memory. */
json_t *mbl_mmdit_config_json(const mbl_mmdit_config_t *config);

#endif
