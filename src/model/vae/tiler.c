/* Large images decoded in overlapping tiles, blended as diffusers' tiled_decode does it: a tile's first rows
 * with the last ones of the tile above, then its first columns with the last ones of the tile to the left,
 * both as they were blended before. */
#include "model/vae/internal.h"

#include <math.h>
#include <string.h>

typedef struct {
    double *values;       /* [height,width,3] */
    size_t height, width; /* pixels */
} tile_t;

struct mbl_vae_tiler {
    mbl_vae_t *vae;
    mbl_vae_decoder_t *decoder; /* of one tile */
    size_t height, width, tile; /* latents */
    size_t step, rows, columns; /* latents from tile to tile, and how many tiles there are */
    size_t extent;              /* pixels that are blended */
    tile_t *above, *row;        /* [columns] */
    double *values;             /* of both */
    char *latents, *piece;      /* st on the host: an image's, a tile's */
    mbl_tensor_t on_device;     /* [C tile tile] st */
    mbl_tensor_t pixels;        /* of a tile, st, */
    void *host;                 /* and on the host */
};

/* ---- memory ---- */

static mbl_status_t check(const mbl_vae_t *vae, size_t height, size_t width, size_t tile) {
    MBL_REQUIRE(vae->half == &vae->layout->half[MBL_VAE_DECODER],
                "vae_tiler_new: the vae has the encoder only");
    MBL_REQUIRE(tile > 0 && tile % 4 == 0, "vae_tiler_new: tiles of %zu latents; expected a multiple of 4",
                tile);
    MBL_REQUIRE(height > tile || width > tile,
                "vae_tiler_new: latents of %zu x %zu; expected a side larger than a tile of %zu", height,
                width, tile);
    return mbl_vae_check_size("vae_tiler_new", 1, height, width);
}

static mbl_status_t allocate(mbl_vae_tiler_t *t) {
    const mbl_vae_config_t *c = &t->vae->config;
    const size_t side = t->tile * mbl_vae_scale(c), each = side * side * MBL_VAE_PIXELS;
    const mbl_dtype_t st = mbl_dtype_stat(t->vae->dtype);
    MBL_ALLOC(t->above, t->columns);
    MBL_ALLOC(t->row, t->columns);
    MBL_ALLOC(t->values, 2 * t->columns * each);
    for (size_t j = 0; j < t->columns; j++) {
        t->above[j].values = t->values + 2 * j * each;
        t->row[j].values = t->values + (2 * j + 1) * each;
    }
    MBL_ALLOC(t->latents, c->latent_channels * t->height * t->width * mbl_dtype_size(st));
    MBL_ALLOC(t->piece, c->latent_channels * t->tile * t->tile * mbl_dtype_size(st));
    MBL_TRY(mbl_tensor_new(t->vae->ops, st, &t->on_device, 1, c->latent_channels * t->tile * t->tile));
    MBL_TRY(mbl_tensor_new(t->vae->ops, st, &t->pixels, 1, each));
    MBL_TRY(mbl_host_new(t->vae->ops, each * mbl_dtype_size(st), &t->host));
    return mbl_vae_decoder_new(t->vae, 1, t->tile, t->tile, &t->decoder);
}

mbl_status_t mbl_vae_tiler_new(mbl_vae_t *vae, size_t height, size_t width, size_t tile,
                               mbl_vae_tiler_t **out) {
    MBL_REQUIRE(vae && out, "vae_tiler_new: vae and out must be given");
    MBL_TRY(check(vae, height, width, tile));
    mbl_vae_tiler_t *t;
    MBL_ALLOC(t, 1);
    *t = (mbl_vae_tiler_t){.vae = vae, .height = height, .width = width, .tile = tile, .step = tile / 4 * 3};
    t->rows = (height + t->step - 1) / t->step;
    t->columns = (width + t->step - 1) / t->step;
    t->extent = tile / 4 * mbl_vae_scale(&vae->config);
    mbl_status_t status = allocate(t);
    if (status != MBL_OK) {
        mbl_vae_tiler_free(t);
        return status;
    }
    *out = t;
    return MBL_OK;
}

void mbl_vae_tiler_free(mbl_vae_tiler_t *t) {
    if (!t)
        return;
    mbl_vae_decoder_free(t->decoder);
    mbl_tensor_free(t->vae->ops, &t->on_device);
    mbl_tensor_free(t->vae->ops, &t->pixels);
    mbl_host_free(t->vae->ops, t->host);
    mbl_free(t->piece);
    mbl_free(t->latents);
    mbl_free(t->values);
    mbl_free(t->row);
    mbl_free(t->above);
    mbl_free(t);
}

/* ---- tiles ---- */

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Tile (i, j) of the image in t->latents, decoded. */
static mbl_status_t decode(mbl_vae_tiler_t *t, size_t i, size_t j, tile_t *out) {
    const mbl_dtype_t st = mbl_dtype_stat(t->vae->dtype);
    const size_t size = mbl_dtype_size(st), channels = t->vae->config.latent_channels,
                 scale = mbl_vae_scale(&t->vae->config);
    const size_t height = least(t->tile, t->height - i * t->step),
                 width = least(t->tile, t->width - j * t->step);
    for (size_t row = 0; row < channels * height; row++) {
        size_t from = (row / height * t->height + i * t->step + row % height) * t->width + j * t->step;
        memcpy(t->piece + row * width * size, t->latents + from * size, width * size);
    }
    mbl_tensor_t latents =
        mbl_tensor_of(t->on_device.data, st, t->on_device.space, 4, (size_t)1, channels, height, width);
    MBL_TRY(mbl_tensor_upload(t->vae->ops, &latents, t->piece));
    out->height = height * scale;
    out->width = width * scale;
    mbl_tensor_t pixels = mbl_tensor_of(t->pixels.data, st, t->pixels.space, 4, (size_t)1, out->height,
                                        out->width, (size_t)MBL_VAE_PIXELS);
    MBL_TRY(mbl_vae_decode_part(t->decoder, &latents, &pixels));
    MBL_TRY(mbl_tensor_download(t->vae->ops, &pixels, t->host));
    for (size_t k = 0; k < out->height * out->width * MBL_VAE_PIXELS; k++)
        out->values[k] = st == MBL_F64 ? ((const double *)t->host)[k] : (double)((const float *)t->host)[k];
    return MBL_OK;
}

static double *pixel_of(const tile_t *tile, size_t y, size_t x) {
    return tile->values + (y * tile->width + x) * MBL_VAE_PIXELS;
}

static void blend(double *to, const double *from, double share) {
    for (int c = 0; c < MBL_VAE_PIXELS; c++)
        to[c] = from[c] * (1 - share) + to[c] * share;
}

static void blend_above(const tile_t *above, const tile_t *tile, size_t extent) {
    extent = least(extent, least(above->height, tile->height));
    for (size_t y = 0; y < extent; y++)
        for (size_t x = 0; x < tile->width; x++)
            blend(pixel_of(tile, y, x), pixel_of(above, above->height - extent + y, x),
                  (double)y / (double)extent);
}

static void blend_left(const tile_t *left, const tile_t *tile, size_t extent) {
    extent = least(extent, least(left->width, tile->width));
    for (size_t y = 0; y < tile->height; y++)
        for (size_t x = 0; x < extent; x++)
            blend(pixel_of(tile, y, x), pixel_of(left, y, left->width - extent + x),
                  (double)x / (double)extent);
}

/* The part of tile (i, j) that the image takes: all but what the next tiles blend. Whether it is finite. */
static bool put(const mbl_vae_tiler_t *t, size_t i, size_t j, const tile_t *tile, uint8_t *rgb) {
    const size_t scale = mbl_vae_scale(&t->vae->config), step = t->step * scale;
    bool finite = true;
    for (size_t y = 0; y < least(step, tile->height); y++)
        for (size_t x = 0; x < least(step, tile->width); x++)
            for (size_t c = 0; c < MBL_VAE_PIXELS; c++) {
                double value = pixel_of(tile, y, x)[c];
                finite = finite && isfinite(value);
                rgb[((i * step + y) * t->width * scale + j * step + x) * MBL_VAE_PIXELS + c] =
                    mbl_vae_to_byte(value);
            }
    return finite;
}

static mbl_status_t decode_image(mbl_vae_tiler_t *t, uint8_t *rgb, bool *finite) {
    *finite = true;
    for (size_t i = 0; i < t->rows; i++) {
        for (size_t j = 0; j < t->columns; j++) {
            MBL_TRY(decode(t, i, j, &t->row[j]));
            if (i > 0)
                blend_above(&t->above[j], &t->row[j], t->extent);
            if (j > 0)
                blend_left(&t->row[j - 1], &t->row[j], t->extent);
            *finite = put(t, i, j, &t->row[j], rgb) && *finite;
        }
        tile_t *above = t->above;
        t->above = t->row;
        t->row = above;
    }
    return MBL_OK;
}

mbl_status_t mbl_vae_tiler_decode_bytes(mbl_vae_tiler_t *t, const mbl_tensor_t *latents, uint8_t *rgb,
                                        bool *broken) {
    MBL_REQUIRE(t && latents && rgb, "vae_tiler_decode_bytes: tiler, latents and rgb must be given");
    const size_t channels = t->vae->config.latent_channels, scale = mbl_vae_scale(&t->vae->config);
    const mbl_dtype_t st = mbl_dtype_stat(t->vae->dtype);
    char found[MBL_TENSOR_TEXT];
    MBL_REQUIRE(latents->ndim == 4 && latents->dim[1] == channels && latents->dim[2] == t->height &&
                    latents->dim[3] == t->width && latents->dtype == st && mbl_tensor_contiguous(latents),
                "vae_tiler_decode_bytes: latents %s; expected [n,%zu,%zu,%zu] %s",
                mbl_tensor_text(latents, found), channels, t->height, t->width, mbl_dtype_name(st));
    for (size_t n = 0; n < latents->dim[0]; n++) {
        mbl_tensor_t one = mbl_tensor_rows(latents, n, 1);
        bool finite;
        MBL_TRY(mbl_tensor_download(t->vae->ops, &one, t->latents));
        MBL_TRY(decode_image(t, rgb + n * t->height * t->width * scale * scale * MBL_VAE_PIXELS, &finite));
        if (broken)
            broken[n] = !finite;
    }
    return MBL_OK;
}
