/* The decoder of an image autoencoder: its buffers and its pass. */
#include "base/mem.h"
#include "model/vae/internal.h"

#include <math.h>

struct mbl_vae_decoder {
    mbl_vae_t *vae;
    size_t max_n, height, width; /* of latents */
    void *memory;
    mbl_vae_pass_t pass;
    void *shift, *scaled; /* [max_n,C,height,width] st: shift_factor everywhere, latents as the decoder takes
                             them */
    void *bytes, *broken; /* [max_n,H,W,3] u8, [max_n] i32: what leaves the device */
    int32_t *on_host;     /* broken, there */
};

/* ---- buffers ---- */

static mbl_vae_room_t room_of(const mbl_vae_config_t *c, size_t height, size_t width) {
    const size_t last = c->blocks - 1;
    size_t area = height * width, in = c->block_out_channels[last];
    mbl_vae_room_t room = {.stream = area * mbl_vae_most(in, c->latent_channels),
                           .inner = area * in,
                           .attended = c->mid_block_add_attention ? area * in : 0};
    for (size_t i = 0; i <= last; i++) {
        size_t out = c->block_out_channels[last - i];
        room.stream = mbl_vae_most(room.stream, area * mbl_vae_most(in, out));
        room.inner = mbl_vae_most(room.inner, area * out);
        if (i < last)
            area *= 4;
        room.stream = mbl_vae_most(room.stream, area * out);
        in = out;
    }
    room.stream = mbl_vae_most(room.stream, area * MBL_VAE_PIXELS);
    return room;
}

static size_t carve(mbl_vae_decoder_t *d, const mbl_vae_config_t *c, mbl_dtype_t dtype, size_t bytes) {
    mbl_arena_t arena = {.base = d->memory, .size = bytes};
    const size_t st = mbl_dtype_size(mbl_dtype_stat(dtype)), n = d->max_n, area = d->height * d->width,
                 scale = mbl_vae_scale(c);
    const mbl_vae_room_t room = room_of(c, d->height, d->width);
    mbl_vae_pass_carve(&d->pass, &arena, dtype, n, &room);
    d->shift = mbl_arena_take(&arena, n * area * c->latent_channels, st);
    d->scaled = mbl_arena_take(&arena, n * area * c->latent_channels, st);
    d->bytes = mbl_arena_take(&arena, n * area * scale * scale * MBL_VAE_PIXELS, 1);
    d->broken = mbl_arena_take(&arena, n, sizeof(int32_t));
    return arena.used;
}

mbl_status_t mbl_vae_count(const mbl_vae_config_t *config, mbl_dtype_t dtype, size_t max_n, size_t height,
                           size_t width, mbl_vae_bytes_t *out) {
    mbl_vae_layout_t *layout;
    mbl_vae_decoder_t decoder = {.max_n = max_n, .height = height, .width = width};
    MBL_TRY(mbl_vae_check_size("vae_count", max_n, height, width));
    MBL_TRY(mbl_vae_layout_new(config, &layout));
    *out = (mbl_vae_bytes_t){.weights = layout->half[MBL_VAE_DECODER].used * mbl_dtype_size(dtype),
                             .buffers = carve(&decoder, config, dtype, 0)};
    mbl_vae_layout_free(layout);
    return MBL_OK;
}

static size_t pixel_count(const mbl_vae_decoder_t *d) {
    const size_t scale = mbl_vae_scale(&d->vae->config);
    return d->height * d->width * scale * scale * MBL_VAE_PIXELS;
}

mbl_status_t mbl_vae_decoder_new(mbl_vae_t *vae, size_t max_n, size_t height, size_t width,
                                 mbl_vae_decoder_t **out) {
    MBL_REQUIRE(vae && out, "vae_decoder_new: vae and out must be given");
    MBL_REQUIRE(vae->half == &vae->layout->half[MBL_VAE_DECODER],
                "vae_decoder_new: the vae has the encoder only");
    MBL_TRY(mbl_vae_check_size("vae_decoder_new", max_n, height, width));
    mbl_vae_decoder_t *d;
    mbl_status_t status;
    MBL_ALLOC(d, 1);
    *d = (mbl_vae_decoder_t){.vae = vae, .max_n = max_n, .height = height, .width = width};
    d->pass = (mbl_vae_pass_t){.vae = vae, .ops = vae->ops};
    size_t bytes = carve(d, &vae->config, vae->dtype, 0);
    MBL_TRY_GOTO(vae->ops->table->alloc(vae->ops, bytes, &d->memory), failed);
    carve(d, &vae->config, vae->dtype, bytes);
    MBL_ALLOC_GOTO(d->on_host, max_n, failed);
    MBL_TRY_GOTO(mbl_vae_fill(vae, d->shift, max_n * height * width * vae->config.latent_channels,
                              vae->config.shift_factor),
                 failed);
    *out = d;
    return MBL_OK;
failed:
    mbl_vae_decoder_free(d);
    return status;
}

void mbl_vae_decoder_free(mbl_vae_decoder_t *d) {
    if (!d)
        return;
    if (d->memory)
        d->vae->ops->table->free(d->vae->ops, d->memory);
    mbl_free(d->on_host);
    mbl_free(d);
}

/* latents / scaling_factor + shift_factor, channels last in ct, through conv_in */
static mbl_status_t enter(mbl_vae_decoder_t *d, const mbl_tensor_t *latents) {
    mbl_vae_pass_t *p = &d->pass;
    const mbl_vae_config_t *c = &d->vae->config;
    mbl_tensor_t scaled = *latents, shift = *latents;
    scaled.data = d->scaled;
    shift.data = d->shift;
    MBL_TRY(mbl_tensor_copy(p->ops, &scaled, &shift));
    MBL_TRY(MBL_OP(p->ops, axpby, .y = &scaled, .x = latents, .a = 1 / c->scaling_factor, .b = 1));
    mbl_tensor_t last = mbl_vae_tokens(p, p->spare, c->latent_channels);
    MBL_TRY(MBL_OP(p->ops, patchify, .tokens = &last, .image = &scaled, .patch = 1, .order = MBL_PATCH_PQC));
    return mbl_vae_conv(p, &d->vae->half->conv_in, p->x, p->spare, 1, false);
}

static mbl_status_t check_call(const mbl_vae_decoder_t *d, const mbl_tensor_t *latents) {
    const size_t channels = d->vae->config.latent_channels;
    char found[MBL_TENSOR_TEXT];
    MBL_REQUIRE(latents->ndim == 4 && latents->dim[0] >= 1 && latents->dim[0] <= d->max_n &&
                    latents->dim[1] == channels && latents->dim[2] == d->height &&
                    latents->dim[3] == d->width && latents->dtype == mbl_dtype_stat(d->vae->dtype) &&
                    mbl_tensor_contiguous(latents),
                "vae_decode: latents %s; expected [1..%zu,%zu,%zu,%zu] %s", mbl_tensor_text(latents, found),
                d->max_n, channels, d->height, d->width, mbl_dtype_name(mbl_dtype_stat(d->vae->dtype)));
    return MBL_OK;
}

/* Latents of at most the decoder's height and width to *out [n,H,W,3] ct, in the decoder's buffers. */
static mbl_status_t decode(mbl_vae_decoder_t *d, const mbl_tensor_t *latents, mbl_tensor_t *out) {
    const mbl_vae_half_t *half = d->vae->half;
    mbl_vae_pass_t *p = &d->pass;
    p->n = latents->dim[0];
    p->height = latents->dim[2];
    p->width = latents->dim[3];
    MBL_TRY(enter(d, latents));
    MBL_TRY(mbl_vae_middle(p, half));
    for (size_t i = 0; i < d->vae->config.blocks; i++) {
        const mbl_vae_block_t *block = &half->block[i];
        for (size_t j = 0; j < block->resnets; j++)
            MBL_TRY(mbl_vae_resnet(p, &block->resnet[j]));
        if (!block->sample.out)
            continue;
        MBL_TRY(mbl_vae_conv(p, &block->sample, p->spare, p->x, 2, false));
        mbl_vae_swap(p);
        p->height *= 2;
        p->width *= 2;
    }
    MBL_TRY(mbl_vae_norm(p, &half->norm_out, p->x, p->x, true));
    MBL_TRY(mbl_vae_conv(p, &half->conv_out, p->spare, p->x, 1, false));
    *out = mbl_vae_image(p, p->spare, 1, MBL_VAE_PIXELS);
    return MBL_OK;
}

mbl_status_t mbl_vae_decode_part(mbl_vae_decoder_t *d, const mbl_tensor_t *latents,
                                 const mbl_tensor_t *pixels) {
    mbl_tensor_t last;
    MBL_TRY(decode(d, latents, &last));
    return MBL_OP(d->pass.ops, convert, .dst = pixels, .src = &last);
}

mbl_status_t mbl_vae_decode(mbl_vae_decoder_t *d, const mbl_tensor_t *latents, const mbl_tensor_t *pixels) {
    MBL_REQUIRE(d && latents && pixels, "vae_decode: decoder, latents and pixels must be given");
    MBL_TRY(check_call(d, latents));
    return mbl_vae_decode_part(d, latents, pixels);
}

/* ---- bytes ---- */

/* diffusers: x / 2 + 0.5 clamped to 0..1, times 255 in f32, rounded to even. */
uint8_t mbl_vae_to_byte(double x) {
    float y = (float)(x * 0.5 + 0.5);
    y = y > 0 ? y < 1 ? y : 1 : 0;
    return (uint8_t)nearbyintf(y * 255);
}

mbl_status_t mbl_vae_decode_bytes(mbl_vae_decoder_t *d, const mbl_tensor_t *latents, uint8_t *rgb,
                                  bool *broken) {
    MBL_REQUIRE(d && latents && rgb, "vae_decode_bytes: decoder, latents and rgb must be given");
    MBL_TRY(check_call(d, latents));
    mbl_ops_t *ops = d->vae->ops;
    const size_t n = latents->dim[0], each = pixel_count(d);
    mbl_tensor_t last, bytes = mbl_tensor_of(d->bytes, MBL_U8, ops->table->space, 2, n, each),
                       found = mbl_tensor_of(d->broken, MBL_I32, ops->table->space, 1, n);
    MBL_TRY(decode(d, latents, &last));
    mbl_tensor_t rows = mbl_tensor_reshape(&last, 2, n, each);
    MBL_TRY(MBL_OP(ops, to_bytes, .y = &bytes, .broken = &found, .x = &rows));
    MBL_TRY(mbl_tensor_download(ops, &bytes, rgb));
    if (!broken)
        return MBL_OK;
    MBL_TRY(mbl_tensor_download(ops, &found, d->on_host));
    for (size_t i = 0; i < n; i++)
        broken[i] = d->on_host[i] != 0;
    return MBL_OK;
}
