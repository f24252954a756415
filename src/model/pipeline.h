/* A diffusers model folder, ready to use: transformer/, tokenizer/ + text_encoder/ (and _2, _3 where the
 * model has them), scheduler/, vae/ where it has one. A folder without vae/ generates pixels directly. */
#ifndef MBL_MODEL_PIPELINE_H
#define MBL_MODEL_PIPELINE_H

#include "base/sha256.h"
#include "model/lora.h"
#include "model/text/prompt.h"
#include "model/vae/vae.h"

typedef struct mbl_pipeline mbl_pipeline_t;

/* text: how the text encoders are used, NULL: as prompt.h says of NULL. */
mbl_status_t mbl_pipeline_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                               const mbl_text_options_t *text, mbl_pipeline_t **out);
/* The same without the digest, which takes as long as reading the files: on a host with several ranks one of
 * them computes it, and all set it before anybody asks. */
mbl_status_t mbl_pipeline_open_shared(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                                      const mbl_text_options_t *text, mbl_pipeline_t **out);
mbl_status_t mbl_pipeline_digest_of(const char *folder, int threads, const volatile sig_atomic_t *stop,
                                    char out[MBL_SHA256_HEX]);
void mbl_pipeline_set_digest(mbl_pipeline_t *pipeline, const char digest[MBL_SHA256_HEX]);
/* The same with a fresh transformer of `config` in memory and text encoder and tokenizer read from `folder`
 * (pretraining). */
mbl_status_t mbl_pipeline_new(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, const json_t *config,
                              uint64_t seed, mbl_pipeline_t **out);
/* The same with a blank transformer and neither text encoder nor tokenizer, for prompts of `tokens` tokens:
 * everything but encoding works on it. For counting (ops/cost_model.h). */
mbl_status_t mbl_pipeline_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const json_t *config, size_t tokens,
                                mbl_pipeline_t **out);
/* Gives a blank pipeline an image decoder without weights. */
mbl_status_t mbl_pipeline_blank_vae(mbl_pipeline_t *pipeline, const mbl_vae_config_t *config);
void mbl_pipeline_close(mbl_pipeline_t *pipeline);

mbl_dit_t *mbl_pipeline_model(mbl_pipeline_t *pipeline);
mbl_ops_t *mbl_pipeline_ops(mbl_pipeline_t *pipeline);
size_t mbl_pipeline_context_tokens(const mbl_pipeline_t *pipeline);
double mbl_pipeline_shift(const mbl_pipeline_t *pipeline); /* of the sigma schedule, from scheduler/ */
/* Shape of what the transformer generates: channels, height, width. */
void mbl_pipeline_latent(const mbl_pipeline_t *pipeline, size_t *channels, size_t *height, size_t *width);
/* A digest of all tensors of the transformer's files (64 hex digits + 0), the identity a checkpoint keeps;
 * whatever the compute type. Of a fresh transformer: of its initial weights. */
const char *mbl_pipeline_digest(const mbl_pipeline_t *pipeline);

/* Room for n prompts of this pipeline. */
mbl_status_t mbl_pipeline_conditions(const mbl_pipeline_t *pipeline, size_t n, mbl_conditions_t *out);
/* Conditions of n prompts (model/embeds.h: of a whole set). Free with mbl_conditions_free. */
mbl_status_t mbl_pipeline_encode(mbl_pipeline_t *pipeline, const char *const *prompts, size_t n,
                                 mbl_conditions_t *out);
mbl_text_t *mbl_pipeline_text(mbl_pipeline_t *pipeline); /* NULL where it has none */
/* Takes the text encoders off the device until prompts are encoded again. */
void mbl_pipeline_release_text(mbl_pipeline_t *pipeline);
void mbl_pipeline_image_size(const mbl_pipeline_t *pipeline, size_t *height, size_t *width);
/* Images of another size from here on, 0 for both: the one the transformer was made for. ERR_CONFIG unless
 * both sides are multiples of what one token stands for (16 pixels in what is published) and the table of
 * positions holds as many. Before samplers, tapes and decoders are made. */
mbl_status_t mbl_pipeline_resize(mbl_pipeline_t *pipeline, size_t height, size_t width);
/* How a vae decodes: as many images at once as fit into `bytes` of the device's memory, but one at least (0:
 * MBL_PIPELINE_DECODE_BYTES), those with a side of more than `tile` latents in tiles of that side (a multiple
 * of 4; 0: MBL_PIPELINE_TILE). Nothing for a pipeline without one. */
enum { MBL_PIPELINE_DECODE_BYTES = 1 << 30, MBL_PIPELINE_TILE = 128 };
mbl_status_t mbl_pipeline_set_decoding(mbl_pipeline_t *pipeline, size_t bytes, size_t tile);
/* Makes the buffers that decode up to max_n images at once, which mbl_pipeline_decode does by itself
 * otherwise, of the first images that it is given. ERR_MEM says what to lower. */
mbl_status_t mbl_pipeline_prepare_decoding(mbl_pipeline_t *pipeline, size_t max_n);
/* Latents [n,C,H,W] f32 in the backend's memory space to 8-bit images rgb [n,H',W',3] on the host (H' = H
 * where there is no vae). broken [n] (NULL: not wanted): whether an image has numbers in it that are not
 * finite, whose pixels mean nothing. */
mbl_status_t mbl_pipeline_decode(mbl_pipeline_t *pipeline, const mbl_tensor_t *latents, uint8_t *rgb,
                                 bool *broken);

/* Writes the fixed parts of a fresh signs-type folder: tokenizer/ (a vocabulary with one token per word and
 * glyph, `tokens` long), text_encoder/ (random, frozen, width `hidden`, `layers` layers, projected to
 * `pooled`), scheduler/scheduler_config.json (shift 3), model_index.json. The transformer is saved with
 * mbl_dit_save. */
mbl_status_t mbl_pipeline_create(const char *folder, const char *const *words, size_t n_words, size_t tokens,
                                 size_t hidden, size_t layers, size_t pooled, uint64_t seed);

#endif
