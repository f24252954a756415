/* What clip.c and clip_layout.c share: names, shapes and positions of an encoder's weights in one flat
 * vector. */
#ifndef MBL_MODEL_CLIP_INTERNAL_H
#define MBL_MODEL_CLIP_INTERNAL_H

#include "model/text/clip.h"
#include "model/text/weights.h"

/* Order within a layer. q, k, v are adjacent, so that one product computes all three. */
enum {
    CLIP_LN1_W,
    CLIP_LN1_B,
    CLIP_Q_W,
    CLIP_K_W,
    CLIP_V_W,
    CLIP_Q_B,
    CLIP_K_B,
    CLIP_V_B,
    CLIP_OUT_W,
    CLIP_OUT_B,
    CLIP_LN2_W,
    CLIP_LN2_B,
    CLIP_FC1_W,
    CLIP_FC1_B,
    CLIP_FC2_W,
    CLIP_FC2_B,
    CLIP_LAYER_PARAMS
};
/* Before the layers, and after them (counted from the end of the layers). */
enum { CLIP_TOKEN, CLIP_POSITION, CLIP_LAYERS };
enum { CLIP_FINAL_W, CLIP_FINAL_B, CLIP_PROJECTION, CLIP_TAIL };

size_t mbl_clip_param_count(const mbl_clip_config_t *config);
/* Fills out[count]; *total: length of the flat vector. Groups: embeddings, layers, what is behind them. */
void mbl_clip_layout(const mbl_clip_config_t *config, mbl_text_param_t *out, size_t *total);

#endif
