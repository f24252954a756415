/* LoRA adapters as files that others load: diffusers' pytorch_lora_weights.safetensors, PEFT's adapter
 * folder, and merged into the weights of the base. Adapters are flat f32 vectors [P] on the host, laid out by
 * mbl_lora_new. Local. */
#ifndef MBL_MODEL_LORA_FILE_H
#define MBL_MODEL_LORA_FILE_H

#include "model/mmdit/mmdit.h"

/* For pipe.load_lora_weights of diffusers: "transformer.transformer_blocks.0.attn.to_q.lora_A.weight", ...
 * The scale alpha / rank is in B, because loaders that are told no alpha take the rank for it. */
mbl_status_t mbl_lora_write(const mbl_lora_t *lora, const float *values, const char *path);
/* For PeftModel.from_pretrained: folder/adapter_config.json and folder/adapter_model.safetensors
 * ("base_model.model." before the names, values as they are). `base` is named in it as the base model. The
 * folder is made. */
mbl_status_t mbl_lora_write_peft(const mbl_lora_t *lora, const float *values, const char *base,
                                 const char *folder);

/* What adapter a file of the first kind, or a folder of the second, holds: rank, alpha, target names by the
 * blocks' own words. ERR_FORMAT or ERR_UNSUPPORTED name the file and the tensor. */
mbl_status_t mbl_lora_read_config(const char *path, mbl_lora_config_t *out);
/* Its values into out [P] for that configuration. Sites that the file leaves out stay zero; a tensor that has
 * no site here is refused. */
mbl_status_t mbl_lora_read(const mbl_lora_t *lora, const char *path, float *out);

/* weights [all of the model, flat, host] += (alpha / rank) B A on every site, summed in f64. */
mbl_status_t mbl_lora_merge(const mbl_mmdit_t *model, const mbl_lora_t *lora, const float *values,
                            float *weights);

#endif
