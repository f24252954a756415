/* The image autoencoder of Stable Diffusion 3 and 3.5 (diffusers' AutoencoderKL without quant_conv).
 * Forward only: it is never trained. */
#ifndef MBL_MODEL_VAE_H
#define MBL_MODEL_VAE_H

#include "ops/ops.h"

enum { MBL_VAE_MAX_BLOCKS = 6, MBL_VAE_MAX_LAYERS = 8 };

/* What its config.json says. Latents of a transformer are (z - shift_factor) scaling_factor. */
typedef struct {
    size_t latent_channels, blocks, block_out_channels[MBL_VAE_MAX_BLOCKS], layers_per_block, norm_num_groups;
    bool mid_block_add_attention;
    double scaling_factor, shift_factor;
} mbl_vae_config_t;

/* Reads and checks a config.json: ERR_CONFIG with file, key, found, expected. */
mbl_status_t mbl_vae_config_read(const char *path, mbl_vae_config_t *out);
/* Pixels of an image per latent along a side: 8 in what is published. */
size_t mbl_vae_scale(const mbl_vae_config_t *config);

typedef struct mbl_vae mbl_vae_t;
typedef enum { MBL_VAE_DECODER, MBL_VAE_ENCODER, MBL_VAE_PARTS } mbl_vae_part_t;

/* One half's weights from `folder` (config.json and a safetensors file of f64, f32, f16 or bf16), held in
 * dtype (f32, bf16, f64). A tensor that is missing, of another shape or not asked for is ERR_FORMAT with
 * file, tensor, found, expected. */
mbl_status_t mbl_vae_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_vae_part_t part,
                          mbl_vae_t **out);
/* The same with weights that nothing is read into, for counting (ops/cost_model.h). */
mbl_status_t mbl_vae_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_vae_config_t *config,
                           mbl_vae_part_t part, mbl_vae_t **out);
void mbl_vae_close(mbl_vae_t *vae);
const mbl_vae_config_t *mbl_vae_config(const mbl_vae_t *vae);

/* ---- decoder ---- */

/* Buffers that decode up to max_n latents of height x width at once; nothing is allocated afterwards but what
 * a backend keeps for its own work. Free before the vae. */
typedef struct mbl_vae_decoder mbl_vae_decoder_t;
mbl_status_t mbl_vae_decoder_new(mbl_vae_t *vae, size_t max_n, size_t height, size_t width,
                                 mbl_vae_decoder_t **out);
void mbl_vae_decoder_free(mbl_vae_decoder_t *decoder);

/* Bytes on the device: of the decoder's weights, and of its buffers. Needs no weights. */
typedef struct {
    size_t weights, buffers;
} mbl_vae_bytes_t;
mbl_status_t mbl_vae_count(const mbl_vae_config_t *config, mbl_dtype_t dtype, size_t max_n, size_t height,
                           size_t width, mbl_vae_bytes_t *out);

/* latents [n,C,height,width], as a sampler leaves them, to pixels [n,H,W,3], -1 black and 1 white, not
 * clamped; both f32 (f64 for f64), in the backend's memory space, 1 <= n <= max_n. */
mbl_status_t mbl_vae_decode(mbl_vae_decoder_t *decoder, const mbl_tensor_t *latents,
                            const mbl_tensor_t *pixels);
/* The same to bytes on the host, rgb [n,H,W,3], clamped and rounded as diffusers' image processor does it;
 * what is no number becomes 0. broken [n] (or NULL): whether an image has a pixel that is not finite. */
mbl_status_t mbl_vae_decode_bytes(mbl_vae_decoder_t *decoder, const mbl_tensor_t *latents, uint8_t *rgb,
                                  bool *broken);

/* ---- decoder of large images, in tiles ---- */

/* Latents height x width are cut into tiles of tile x tile, a multiple of 4, which overlap by a quarter and
 * are blended linearly there, as diffusers does with enable_tiling: memory on the device is that of a tile.
 * One side at least must be larger than a tile. Free before the vae. */
typedef struct mbl_vae_tiler mbl_vae_tiler_t;
mbl_status_t mbl_vae_tiler_new(mbl_vae_t *vae, size_t height, size_t width, size_t tile,
                               mbl_vae_tiler_t **out);
void mbl_vae_tiler_free(mbl_vae_tiler_t *tiler);
/* As mbl_vae_decode_bytes, for any n: latents [n,C,height,width] to rgb [n,H,W,3]. */
mbl_status_t mbl_vae_tiler_decode_bytes(mbl_vae_tiler_t *tiler, const mbl_tensor_t *latents, uint8_t *rgb,
                                        bool *broken);

/* ---- encoder ---- */

/* Buffers that encode up to max_n images of height x width pixels, multiples of mbl_vae_scale. Free before
 * the vae. */
typedef struct mbl_vae_encoder mbl_vae_encoder_t;
mbl_status_t mbl_vae_encoder_new(mbl_vae_t *vae, size_t max_n, size_t height, size_t width,
                                 mbl_vae_encoder_t **out);
void mbl_vae_encoder_free(mbl_vae_encoder_t *encoder);

/* rgb [n,height,width,3] on the host to latents [n,C,h,w] f32 (f64 for f64) in the backend's memory space, as
 * a transformer takes them: of the distribution that the encoder gives, the mean. 1 <= n <= max_n. */
mbl_status_t mbl_vae_encode(mbl_vae_encoder_t *encoder, const uint8_t *rgb, size_t n,
                            const mbl_tensor_t *latents);

#endif
