/* LoRA adapters as files that others load: diffusers' pytorch_lora_weights.safetensors, PEFT's adapter
 * folder, and merged into the weights of the base. Adapters are flat f32 vectors [P] on the host, laid out by
 * mbl_lora_new. Local. */
#ifndef MBL_MODEL_LORA_FILE_H
#define MBL_MODEL_LORA_FILE_H

#include "model/lora.h"

/* For pipe.load_lora_weights of diffusers: "transformer.transformer_blocks.0.attn.to_q.lora_A.weight", ...
 * The scale alpha / rank is in B, because loaders that are given no alpha take the rank for it. */
mbl_status_t mbl_lora_write(const mbl_lora_t *lora, const float *values, const char *path);
/* For PeftModel.from_pretrained: folder/adapter_config.json and folder/adapter_model.safetensors
 * ("base_model.model." before the names, values as they are). `base` is named in it as the base model. The
 * folder is made. */
mbl_status_t mbl_lora_write_peft(const mbl_lora_t *lora, const float *values, const char *base,
                                 const char *folder);

/* What adapter for `model` a file for diffusers (by its names of today or before, or kohya's), or PEFT's
 * folder, holds: the kinds of linear as targets, the largest rank, and as alpha / rank the largest factor.
 * PEFT's configuration (use_rslora, alpha_pattern, rank_pattern, ...), diffusers' lora_adapter_metadata and
 * kohya's alphas are applied as their loaders do; what is more than A and B is refused by its key, tensors
 * that are no such matrices or lack their partner by their names: ERR_FORMAT, ERR_UNSUPPORTED or ERR_CONFIG.
 */
mbl_status_t mbl_lora_read_config(const mbl_dit_t *model, const char *path, mbl_lora_config_t *out);
/* Its values into out [P] for that configuration, or one of at least that rank and of any alpha: smaller
 * ranks are filled up with zeros, factors that are not alpha / rank go into B. Sites that the file leaves out
 * stay zero; a tensor that has no site here is refused, and so is one with NaN or infinity. */
mbl_status_t mbl_lora_read(const mbl_lora_t *lora, const char *path, float *out);

/* Such an adapter ready for computing. Free with mbl_adapter_free, then mbl_lora_free; nothing is left after
 * a failure. */
mbl_status_t mbl_lora_open(const mbl_dit_t *model, const char *path, mbl_lora_t **lora,
                           mbl_adapter_t *adapter);

/* weights [all of the model, flat, host] += (alpha / rank) B A on every site, summed in f64. */
mbl_status_t mbl_lora_merge(const mbl_lora_t *lora, const float *values, float *weights);

#endif
