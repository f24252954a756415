/* Latents to images: as they are where there is no vae, else by its decoder, several at once or in tiles. */
#include "model/pipeline_internal.h"
#include "base/mem.h"

#include <math.h>

enum { PIXELS = 3, MOST_AT_ONCE = 256 };

/* ---- sizes ---- */

/* Pixels of an image per latent along a side. */
static size_t scale_of(const mbl_pipeline_t *p) {
    return p->vae ? mbl_vae_scale(mbl_vae_config(p->vae)) : 1;
}

void mbl_pipeline_image_size(const mbl_pipeline_t *pipeline, size_t *height, size_t *width) {
    *height = pipeline->height * scale_of(pipeline);
    *width = pipeline->width * scale_of(pipeline);
}

static void drop_decoder(mbl_pipeline_t *p) {
    mbl_vae_decoder_free(p->decoder);
    mbl_vae_tiler_free(p->tiler);
    p->decoder = NULL;
    p->tiler = NULL;
    p->at_once = p->fitting = 0;
}

mbl_status_t mbl_pipeline_resize(mbl_pipeline_t *p, size_t height, size_t width) {
    const mbl_dit_sizes_t *sizes = mbl_dit_sizes(p->model);
    const size_t scale = scale_of(p), token = sizes->patch * scale, most = sizes->most_side * scale;
    if (!height && !width)
        height = width = sizes->side * scale;
    const size_t side[2] = {height, width};
    for (int i = 0; i < 2; i++)
        if (side[i] == 0 || side[i] % token != 0 || side[i] > most)
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "images of %zu x %zu pixels (height x width); expected multiples of %zu, what a "
                            "token of this model is wide, up to %zu",
                            height, width, token, most);
    if (height / scale != p->height || width / scale != p->width)
        drop_decoder(p);
    p->height = height / scale;
    p->width = width / scale;
    return MBL_OK;
}

/* ---- the vae ---- */

mbl_status_t mbl_pipeline_open_vae(mbl_pipeline_t *p, const char *folder) {
    char *path = mbl_format("%s/vae", folder);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", folder);
    mbl_ops_part(p->ops, "the image decoder's weights", "precision: bf16");
    mbl_status_t status = mbl_vae_open(p->ops, p->dtype, path, MBL_VAE_DECODER, &p->vae);
    mbl_free(path);
    return status == MBL_OK ? mbl_pipeline_set_decoding(p, 0, 0) : status;
}

mbl_status_t mbl_pipeline_blank_vae(mbl_pipeline_t *p, const mbl_vae_config_t *config) {
    MBL_TRY(mbl_vae_blank(p->ops, p->dtype, config, MBL_VAE_DECODER, &p->vae));
    return mbl_pipeline_set_decoding(p, 0, 0);
}

void mbl_pipeline_close_vae(mbl_pipeline_t *p) {
    drop_decoder(p);
    mbl_vae_close(p->vae);
    p->vae = NULL;
}

mbl_status_t mbl_pipeline_set_decoding(mbl_pipeline_t *p, size_t bytes, size_t tile) {
    if (tile % 4 != 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "tiles of %zu latents; expected a multiple of 4", tile);
    p->decode_bytes = bytes ? bytes : MBL_PIPELINE_DECODE_BYTES;
    p->tile = tile ? tile : MBL_PIPELINE_TILE;
    drop_decoder(p);
    return MBL_OK;
}

/* The most images whose buffers fit into decode_bytes. */
static mbl_status_t count_fitting(const mbl_pipeline_t *p, size_t *out) {
    mbl_vae_bytes_t one;
    MBL_TRY(mbl_vae_count(mbl_vae_config(p->vae), p->dtype, 1, p->height, p->width, &one));
    size_t fit = p->decode_bytes / one.buffers;
    *out = fit < 1 ? 1 : fit < MOST_AT_ONCE ? fit : MOST_AT_ONCE;
    return MBL_OK;
}

mbl_status_t mbl_pipeline_prepare_decoding(mbl_pipeline_t *p, size_t max_n) {
    if (!p->vae || p->tiler)
        return MBL_OK;
    mbl_ops_part(p->ops, "the image decoder's activations",
                 "a smaller rollout.decode_bytes or rollout.decode_tile");
    if (p->height > p->tile || p->width > p->tile)
        return mbl_vae_tiler_new(p->vae, p->height, p->width, p->tile, &p->tiler);
    if (!p->fitting)
        MBL_TRY(count_fitting(p, &p->fitting));
    const size_t at_once = max_n < p->fitting ? max_n : p->fitting;
    if (p->decoder && at_once <= p->at_once)
        return MBL_OK;
    mbl_vae_decoder_free(p->decoder);
    p->decoder = NULL;
    MBL_TRY(mbl_vae_decoder_new(p->vae, at_once, p->height, p->width, &p->decoder));
    p->at_once = at_once;
    return MBL_OK;
}

static mbl_status_t decode_latents(mbl_pipeline_t *p, const mbl_tensor_t *latents, uint8_t *rgb,
                                   bool *broken) {
    const size_t n = latents->dim[0], scale = scale_of(p),
                 bytes = p->height * scale * p->width * scale * PIXELS;
    MBL_TRY(mbl_pipeline_prepare_decoding(p, n));
    if (p->tiler)
        return mbl_vae_tiler_decode_bytes(p->tiler, latents, rgb, broken);
    for (size_t first = 0, some; first < n; first += some) {
        some = n - first < p->at_once ? n - first : p->at_once;
        mbl_tensor_t part = mbl_tensor_rows(latents, first, some);
        MBL_TRY(mbl_vae_decode_bytes(p->decoder, &part, rgb + first * bytes, broken ? broken + first : NULL));
    }
    return MBL_OK;
}

/* ---- pixels as they are ---- */

/* Latents on the host: where they are, or in a buffer that is kept. */
static mbl_status_t on_host(mbl_pipeline_t *p, const mbl_tensor_t *latents, const void **out) {
    size_t bytes = mbl_tensor_count(latents) * mbl_dtype_size(latents->dtype);
    if (latents->space == MBL_HOST) {
        MBL_TRY(p->ops->table->sync(p->ops));
        *out = latents->data;
        return MBL_OK;
    }
    if (bytes > p->host_bytes) {
        void *grown = mbl_calloc(bytes, 1);
        if (!grown)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu bytes of latents", bytes);
        mbl_free(p->host);
        p->host = grown;
        p->host_bytes = bytes;
    }
    MBL_TRY(mbl_tensor_download(p->ops, latents, p->host));
    *out = p->host;
    return MBL_OK;
}

/* [-1, 1] to 0..255, rounded; what is no number becomes 0. */
static uint8_t to_byte(double x) {
    double y = (x + 1) * 127.5 + 0.5;
    return (uint8_t)(y > 0 ? y < 255 ? y : 255 : 0);
}

static mbl_status_t decode_pixels(mbl_pipeline_t *p, const mbl_tensor_t *latents, uint8_t *rgb,
                                  bool *broken) {
    const size_t area = p->height * p->width;
    const void *data = NULL;
    MBL_TRY(on_host(p, latents, &data));
    for (size_t i = 0; i < latents->dim[0]; i++) {
        bool finite = true;
        for (size_t c = 0; c < PIXELS; c++) {
            for (size_t at = 0; at < area; at++) {
                size_t from = (i * PIXELS + c) * area + at;
                double x = latents->dtype == MBL_F64 ? ((const double *)data)[from]
                                                     : (double)((const float *)data)[from];
                rgb[(i * area + at) * PIXELS + c] = to_byte(x);
                finite = finite && isfinite(x);
            }
        }
        if (broken)
            broken[i] = !finite;
    }
    return MBL_OK;
}

mbl_status_t mbl_pipeline_decode(mbl_pipeline_t *pipeline, const mbl_tensor_t *latents, uint8_t *rgb,
                                 bool *broken) {
    size_t channels, height, width;
    mbl_pipeline_latent(pipeline, &channels, &height, &width);
    MBL_REQUIRE(latents->ndim == 4 && latents->dim[1] == channels && latents->dim[2] == height &&
                    latents->dim[3] == width && mbl_tensor_contiguous(latents) &&
                    (latents->dtype == MBL_F32 || latents->dtype == MBL_F64),
                "latents to decode must be [n,%zu,%zu,%zu] f32 or f64", channels, height, width);
    return pipeline->vae ? decode_latents(pipeline, latents, rgb, broken)
                         : decode_pixels(pipeline, latents, rgb, broken);
}
