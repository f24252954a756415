/* What a folder's text encoders and image decoder take on the device, from their config.json alone. */
#ifndef MBL_PLAN_PARTS_H
#define MBL_PLAN_PARTS_H

#include "config/config.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "plan/plan.h"

/* Numbers of an encoder's weights, and the most of them that are on the device at once with model.low_memory.
 */
typedef struct {
    size_t all, layer;
} mbl_plan_text_t;
mbl_plan_text_t mbl_plan_clip(const mbl_clip_config_t *config);
mbl_plan_text_t mbl_plan_t5(const mbl_t5_config_t *config);

/* Bytes of all text encoders of model.path while prompts are encoded, in weights of `size` bytes. */
mbl_status_t mbl_plan_text_bytes(const mbl_config_t *config, size_t size, size_t *out);

/* Pixels for a latent along a side (1 without a vae); the vae of model.path (blocks 0: none); and bytes of
 * the decoder and its buffers in a shape that has all else of it. */
mbl_status_t mbl_plan_scale(const mbl_config_t *config, size_t *out);
mbl_status_t mbl_plan_read_vae(const mbl_config_t *config, mbl_vae_config_t *out);
mbl_status_t mbl_plan_decoder_bytes(const mbl_plan_shape_t *shape, size_t *out);

#endif
