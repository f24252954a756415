/* The decoder of an image autoencoder: its buffers and its pass, channels last throughout. */
#include "base/mem.h"
#include "model/vae/internal.h"

#include <math.h>

enum { MOST_SAMPLES = 4096, MOST_SIDE = 4096 };

struct mbl_vae_decoder {
    mbl_vae_t *vae;
    size_t max_n, height, width; /* of latents */
    void *memory;
    /* ct: images of any stage; `x` holds the current one, `spare` takes the next, `inner` is for what is
     * within a block. k and v are of the attention. */
    void *x, *spare, *inner, *k, *v;
    void *shift, *scaled; /* [max_n,C,height,width] st: shift_factor everywhere, latents as the decoder takes
                             them */
    void *pixels;         /* [max_n,H,W,3] st, on their way to the host */
    void *host;           /* the same there */
};

/* ---- buffers ---- */

/* The most values of an image that x and spare, and inner, hold at any stage, for one sample. */
static void widest(const mbl_vae_config_t *c, size_t height, size_t width, size_t *stream, size_t *inner) {
    const size_t last = c->blocks - 1;
    size_t area = height * width, in = c->block_out_channels[last];
    *inner = area * in;
    *stream = area * (in > c->latent_channels ? in : c->latent_channels);
    for (size_t i = 0; i <= last; i++) {
        size_t out = c->block_out_channels[last - i], wide = in > out ? in : out;
        *stream = area * wide > *stream ? area * wide : *stream;
        *inner = area * out > *inner ? area * out : *inner;
        if (i < last)
            area *= 4;
        *stream = area * out > *stream ? area * out : *stream;
        in = out;
    }
    *stream = area * MBL_VAE_PIXELS > *stream ? area * MBL_VAE_PIXELS : *stream;
}

static size_t carve(mbl_vae_decoder_t *d, const mbl_vae_config_t *c, mbl_dtype_t dtype, size_t bytes) {
    mbl_arena_t arena = {.base = d->memory, .size = bytes};
    const size_t ct = mbl_dtype_size(dtype), st = mbl_dtype_size(mbl_dtype_stat(dtype)), n = d->max_n,
                 area = d->height * d->width, scale = mbl_vae_scale(c);
    size_t stream, inner, attended = n * area * c->block_out_channels[c->blocks - 1];
    widest(c, d->height, d->width, &stream, &inner);
    d->x = mbl_arena_take(&arena, n * stream, ct);
    d->spare = mbl_arena_take(&arena, n * stream, ct);
    d->inner = mbl_arena_take(&arena, n * inner, ct);
    if (c->mid_block_add_attention) {
        d->k = mbl_arena_take(&arena, attended, ct);
        d->v = mbl_arena_take(&arena, attended, ct);
    }
    d->shift = mbl_arena_take(&arena, n * area * c->latent_channels, st);
    d->scaled = mbl_arena_take(&arena, n * area * c->latent_channels, st);
    d->pixels = mbl_arena_take(&arena, n * area * scale * scale * MBL_VAE_PIXELS, st);
    return arena.used;
}

/* With 2^12 samples, sides, and channels (config.c), and 2^5 pixels a latent and side, the buffers above stay
 * below 2^64 bytes. */
static mbl_status_t check_size(size_t max_n, size_t height, size_t width) {
    MBL_REQUIRE(max_n >= 1 && max_n <= MOST_SAMPLES, "vae_decoder_new: %zu samples; expected 1 to %d", max_n,
                MOST_SAMPLES);
    MBL_REQUIRE(height >= 1 && height <= MOST_SIDE && width >= 1 && width <= MOST_SIDE,
                "vae_decoder_new: latents of %zu x %zu; expected sides of 1 to %d", height, width, MOST_SIDE);
    return MBL_OK;
}

mbl_status_t mbl_vae_count(const mbl_vae_config_t *config, mbl_dtype_t dtype, size_t max_n, size_t height,
                           size_t width, mbl_vae_bytes_t *out) {
    mbl_vae_layout_t *layout;
    mbl_vae_decoder_t decoder = {.max_n = max_n, .height = height, .width = width};
    MBL_TRY(check_size(max_n, height, width));
    MBL_TRY(mbl_vae_layout_new(config, &layout));
    *out = (mbl_vae_bytes_t){.weights = layout->used * mbl_dtype_size(dtype),
                             .buffers = carve(&decoder, config, dtype, 0)};
    mbl_vae_layout_free(layout);
    return MBL_OK;
}

static mbl_status_t fill_shift(mbl_vae_decoder_t *d) {
    const mbl_vae_config_t *c = &d->vae->config;
    const size_t n = d->max_n * d->height * d->width * c->latent_channels;
    mbl_dtype_t st = mbl_dtype_stat(d->vae->dtype);
    mbl_tensor_t shift = mbl_tensor_of(d->shift, st, d->vae->ops->table->space, 1, n);
    void *values = mbl_calloc(n, mbl_dtype_size(st));
    if (!values)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu latents", n);
    for (size_t i = 0; i < n; i++) {
        if (st == MBL_F64)
            ((double *)values)[i] = c->shift_factor;
        else
            ((float *)values)[i] = (float)c->shift_factor;
    }
    mbl_status_t status = mbl_tensor_upload(d->vae->ops, &shift, values);
    mbl_free(values);
    return status;
}

static size_t pixel_count(const mbl_vae_decoder_t *d) {
    const size_t scale = mbl_vae_scale(&d->vae->config);
    return d->height * d->width * scale * scale * MBL_VAE_PIXELS;
}

mbl_status_t mbl_vae_decoder_new(mbl_vae_t *vae, size_t max_n, size_t height, size_t width,
                                 mbl_vae_decoder_t **out) {
    MBL_REQUIRE(vae && out, "vae_decoder_new: vae and out must be given");
    MBL_TRY(check_size(max_n, height, width));
    mbl_vae_decoder_t *d;
    mbl_status_t status;
    MBL_ALLOC(d, 1);
    *d = (mbl_vae_decoder_t){.vae = vae, .max_n = max_n, .height = height, .width = width};
    size_t bytes = carve(d, &vae->config, vae->dtype, 0), st = mbl_dtype_size(mbl_dtype_stat(vae->dtype));
    MBL_TRY_GOTO(vae->ops->table->alloc(vae->ops, bytes, &d->memory), failed);
    carve(d, &vae->config, vae->dtype, bytes);
    MBL_TRY_GOTO(mbl_host_new(vae->ops, max_n * pixel_count(d) * st, &d->host), failed);
    MBL_TRY_GOTO(fill_shift(d), failed);
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
    mbl_host_free(d->vae->ops, d->host);
    mbl_free(d);
}

/* ---- the pass ---- */

/* The current image: n samples of height x width. */
typedef struct {
    mbl_vae_decoder_t *d;
    mbl_ops_t *ops;
    size_t n, height, width;
} pass_t;

static mbl_tensor_t image(const pass_t *p, void *data, size_t up, size_t channels) {
    return mbl_tensor_of(data, p->d->vae->dtype, p->ops->table->space, 4, p->n, p->height * up, p->width * up,
                         channels);
}
static mbl_tensor_t tokens(const pass_t *p, void *data, size_t channels) {
    return mbl_tensor_of(data, p->d->vae->dtype, p->ops->table->space, 3, p->n, p->height * p->width,
                         channels);
}
static mbl_tensor_t rows(const pass_t *p, void *data, size_t channels) {
    return mbl_tensor_of(data, p->d->vae->dtype, p->ops->table->space, 2, p->n * p->height * p->width,
                         channels);
}
static void *weight_at(const pass_t *p, size_t offset) {
    const mbl_vae_t *vae = p->d->vae;
    return (char *)vae->weights.data + offset * mbl_dtype_size(vae->dtype);
}
static mbl_tensor_t vector(const pass_t *p, size_t offset, size_t n) {
    return mbl_tensor_of(weight_at(p, offset), p->d->vae->dtype, p->ops->table->space, 1, n);
}

static mbl_status_t norm(const pass_t *p, const mbl_vae_norm_t *norm, void *to, void *from, bool silu) {
    mbl_tensor_t y = tokens(p, to, norm->channels), x = tokens(p, from, norm->channels);
    mbl_tensor_t weight = vector(p, norm->weight, norm->channels),
                 bias = vector(p, norm->bias, norm->channels);
    return MBL_OP(p->ops, group_norm, .y = &y, .x = &x, .weight = &weight, .bias = &bias,
                  .groups = p->d->vae->config.norm_num_groups, .eps = MBL_VAE_EPS, .silu = silu);
}

static mbl_status_t conv(const pass_t *p, const mbl_vae_conv_t *conv, void *to, void *from, size_t up,
                         bool accumulate) {
    mbl_tensor_t y = image(p, to, up, conv->out), x = image(p, from, 1, conv->in);
    mbl_tensor_t bias = vector(p, conv->bias, conv->out);
    mbl_tensor_t weight = mbl_tensor_of(weight_at(p, conv->weight), p->d->vae->dtype, p->ops->table->space, 4,
                                        conv->out, conv->k, conv->k, conv->in);
    return MBL_OP(p->ops, conv2d, .y = &y, .x = &x, .weight = &weight, .bias = &bias, .pad = conv->k / 2,
                  .up = up, .accumulate = accumulate);
}

static mbl_status_t linear(const pass_t *p, const mbl_vae_conv_t *linear, void *to, void *from,
                           bool accumulate) {
    mbl_tensor_t y = rows(p, to, linear->out), x = rows(p, from, linear->in);
    mbl_tensor_t bias = vector(p, linear->bias, linear->out);
    mbl_tensor_t weight = mbl_tensor_of(weight_at(p, linear->weight), p->d->vae->dtype, p->ops->table->space,
                                        2, linear->out, linear->in);
    return MBL_OP(p->ops, matmul, .y = &y, .a = &x, .b = &weight, .bias = &bias, .transpose_b = true,
                  .accumulate = accumulate);
}

static void swap(mbl_vae_decoder_t *d) {
    void *x = d->x;
    d->x = d->spare;
    d->spare = x;
}

/* x = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x)))))) */
static mbl_status_t resnet(const pass_t *p, const mbl_vae_resnet_t *r) {
    mbl_vae_decoder_t *d = p->d;
    MBL_TRY(norm(p, &r->norm1, d->spare, d->x, true));
    MBL_TRY(conv(p, &r->conv1, d->inner, d->spare, 1, false));
    MBL_TRY(norm(p, &r->norm2, d->inner, d->inner, true));
    if (r->shortcut.out) {
        MBL_TRY(conv(p, &r->shortcut, d->spare, d->x, 1, false));
        swap(d);
    }
    return conv(p, &r->conv2, d->x, d->inner, 1, true);
}

/* x = x + out(attention of q, k, v of norm(x)), one head as wide as the image */
static mbl_status_t attention(const pass_t *p, const mbl_vae_attention_t *a) {
    mbl_vae_decoder_t *d = p->d;
    const size_t width = a->norm.channels, pixels = p->height * p->width;
    MBL_TRY(norm(p, &a->norm, d->spare, d->x, false));
    MBL_TRY(linear(p, &a->q, d->inner, d->spare, false));
    MBL_TRY(linear(p, &a->k, d->k, d->spare, false));
    MBL_TRY(linear(p, &a->v, d->v, d->spare, false));
    mbl_tensor_t out = tokens(p, d->spare, width), head[3];
    void *data[3] = {d->inner, d->k, d->v};
    for (int i = 0; i < 3; i++)
        head[i] =
            mbl_tensor_of(data[i], d->vae->dtype, p->ops->table->space, 4, p->n, (size_t)1, pixels, width);
    MBL_TRY(MBL_OP(p->ops, attention, .out1 = &out, .q = &head[0], .k = &head[1], .v = &head[2],
                   .scale = 1 / sqrt((double)width)));
    return linear(p, &a->out, d->x, d->spare, true);
}

/* latents / scaling_factor + shift_factor, channels last in ct, through conv_in */
static mbl_status_t enter(const pass_t *p, const mbl_tensor_t *latents) {
    mbl_vae_decoder_t *d = p->d;
    const mbl_vae_config_t *c = &d->vae->config;
    mbl_tensor_t scaled = *latents, shift = *latents;
    scaled.data = d->scaled;
    shift.data = d->shift;
    MBL_TRY(mbl_tensor_copy(p->ops, &scaled, &shift));
    MBL_TRY(MBL_OP(p->ops, axpby, .y = &scaled, .x = latents, .a = 1 / c->scaling_factor, .b = 1));
    mbl_tensor_t last = tokens(p, d->spare, c->latent_channels);
    MBL_TRY(MBL_OP(p->ops, patchify, .tokens = &last, .image = &scaled, .patch = 1, .order = MBL_PATCH_PQC));
    return conv(p, &d->vae->layout->decoder.conv_in, d->x, d->spare, 1, false);
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

mbl_status_t mbl_vae_decode(mbl_vae_decoder_t *d, const mbl_tensor_t *latents, const mbl_tensor_t *pixels) {
    MBL_REQUIRE(d && latents && pixels, "vae_decode: decoder, latents and pixels must be given");
    MBL_TRY(check_call(d, latents));
    const mbl_vae_config_t *c = &d->vae->config;
    const mbl_vae_half_t *half = &d->vae->layout->decoder;
    pass_t p = {d, d->vae->ops, latents->dim[0], d->height, d->width};
    MBL_TRY(enter(&p, latents));
    MBL_TRY(resnet(&p, &half->mid[0]));
    if (c->mid_block_add_attention)
        MBL_TRY(attention(&p, &half->attention));
    MBL_TRY(resnet(&p, &half->mid[1]));
    for (size_t i = 0; i < c->blocks; i++) {
        const mbl_vae_block_t *block = &half->block[i];
        for (size_t j = 0; j < block->resnets; j++)
            MBL_TRY(resnet(&p, &block->resnet[j]));
        if (!block->sample.out)
            continue;
        MBL_TRY(conv(&p, &block->sample, d->spare, d->x, 2, false));
        swap(d);
        p.height *= 2;
        p.width *= 2;
    }
    MBL_TRY(norm(&p, &half->norm_out, d->x, d->x, true));
    MBL_TRY(conv(&p, &half->conv_out, d->spare, d->x, 1, false));
    mbl_tensor_t last = image(&p, d->spare, 1, MBL_VAE_PIXELS);
    return MBL_OP(p.ops, convert, .dst = pixels, .src = &last);
}

/* ---- bytes ---- */

/* diffusers: x / 2 + 0.5 clamped to 0..1, times 255 in f32, rounded to even. */
static uint8_t to_byte(double x) {
    float y = (float)(x * 0.5 + 0.5);
    y = y > 0 ? y < 1 ? y : 1 : 0;
    return (uint8_t)nearbyintf(y * 255);
}

mbl_status_t mbl_vae_decode_bytes(mbl_vae_decoder_t *d, const mbl_tensor_t *latents, uint8_t *rgb) {
    MBL_REQUIRE(d && latents && rgb, "vae_decode_bytes: decoder, latents and rgb must be given");
    MBL_TRY(check_call(d, latents));
    const size_t scale = mbl_vae_scale(&d->vae->config), n = latents->dim[0], each = pixel_count(d);
    const mbl_dtype_t st = mbl_dtype_stat(d->vae->dtype);
    mbl_tensor_t pixels = mbl_tensor_of(d->pixels, st, d->vae->ops->table->space, 4, n, d->height * scale,
                                        d->width * scale, (size_t)MBL_VAE_PIXELS);
    MBL_TRY(mbl_vae_decode(d, latents, &pixels));
    MBL_TRY(mbl_tensor_download(d->vae->ops, &pixels, d->host));
    for (size_t i = 0; i < n * each; i++) {
        double x = st == MBL_F64 ? ((const double *)d->host)[i] : (double)((const float *)d->host)[i];
        if (isnan(x))
            return MBL_FAIL(MBL_ERR_NUMERIC, "vae: image %zu of %zu has a pixel that is not a number",
                            i / each, n);
        rgb[i] = to_byte(x);
    }
    return MBL_OK;
}
