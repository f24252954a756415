/* The encoder of an image autoencoder: its buffers and its pass. */
#include "model/vae/internal.h"

struct mbl_vae_encoder {
    mbl_vae_t *vae;
    size_t max_n, height, width; /* of images */
    void *memory;
    mbl_vae_pass_t pass;
    void *pixels;       /* [max_n,height,width,3] st, as they come from the host */
    void *shift, *mean; /* [max_n h w,C] st: what is subtracted everywhere, and the latents, channels last */
    void *host;         /* pixels there */
};

/* ---- buffers ---- */

static mbl_vae_room_t room_of(const mbl_vae_config_t *c, size_t height, size_t width) {
    size_t area = height * width, in = c->block_out_channels[0];
    mbl_vae_room_t room = {.stream = area * mbl_vae_most(in, MBL_VAE_PIXELS)};
    for (size_t i = 0; i < c->blocks; i++) {
        size_t out = c->block_out_channels[i];
        room.stream = mbl_vae_most(room.stream, area * mbl_vae_most(in, out));
        room.inner = mbl_vae_most(room.inner, area * out);
        if (i + 1 < c->blocks)
            area /= 4;
        in = out;
    }
    room.stream = mbl_vae_most(room.stream, area * 2 * c->latent_channels);
    room.attended = c->mid_block_add_attention ? area * in : 0;
    return room;
}

static size_t latent_count(const mbl_vae_encoder_t *e) {
    const size_t scale = mbl_vae_scale(&e->vae->config);
    return e->height / scale * (e->width / scale) * e->vae->config.latent_channels;
}

static size_t carve(mbl_vae_encoder_t *e, size_t bytes) {
    mbl_arena_t arena = {.base = e->memory, .size = bytes};
    const mbl_vae_room_t room = room_of(&e->vae->config, e->height, e->width);
    const size_t st = mbl_dtype_size(mbl_dtype_stat(e->vae->dtype));
    mbl_vae_pass_carve(&e->pass, &arena, e->vae->dtype, e->max_n, &room);
    e->pixels = mbl_arena_take(&arena, e->max_n * e->height * e->width * MBL_VAE_PIXELS, st);
    e->shift = mbl_arena_take(&arena, e->max_n * latent_count(e), st);
    e->mean = mbl_arena_take(&arena, e->max_n * latent_count(e), st);
    return arena.used;
}

mbl_status_t mbl_vae_encoder_new(mbl_vae_t *vae, size_t max_n, size_t height, size_t width,
                                 mbl_vae_encoder_t **out) {
    MBL_REQUIRE(vae && out, "vae_encoder_new: vae and out must be given");
    MBL_REQUIRE(vae->half == &vae->layout->half[MBL_VAE_ENCODER],
                "vae_encoder_new: the vae has the decoder only");
    const mbl_vae_config_t *c = &vae->config;
    const size_t scale = mbl_vae_scale(c), st = mbl_dtype_size(mbl_dtype_stat(vae->dtype));
    MBL_REQUIRE(height % scale == 0 && width % scale == 0,
                "vae_encoder_new: images of %zu x %zu; expected multiples of %zu", height, width, scale);
    MBL_TRY(mbl_vae_check_size("vae_encoder_new", max_n, height / scale, width / scale));
    mbl_vae_encoder_t *e;
    mbl_status_t status;
    MBL_ALLOC(e, 1);
    *e = (mbl_vae_encoder_t){.vae = vae, .max_n = max_n, .height = height, .width = width};
    e->pass = (mbl_vae_pass_t){.vae = vae, .ops = vae->ops};
    size_t bytes = carve(e, 0);
    MBL_TRY_GOTO(vae->ops->table->alloc(vae->ops, bytes, &e->memory), failed);
    carve(e, bytes);
    MBL_TRY_GOTO(mbl_host_new(vae->ops, max_n * height * width * MBL_VAE_PIXELS * st, &e->host), failed);
    MBL_TRY_GOTO(mbl_vae_fill(vae, e->shift, max_n * latent_count(e), -c->shift_factor * c->scaling_factor),
                 failed);
    *out = e;
    return MBL_OK;
failed:
    mbl_vae_encoder_free(e);
    return status;
}

void mbl_vae_encoder_free(mbl_vae_encoder_t *e) {
    if (!e)
        return;
    if (e->memory)
        e->vae->ops->table->free(e->vae->ops, e->memory);
    mbl_host_free(e->vae->ops, e->host);
    mbl_free(e);
}

/* ---- the pass ---- */

/* diffusers: bytes / 255 in f32, times 2, minus 1. Through conv_in. */
static mbl_status_t enter(mbl_vae_encoder_t *e, const uint8_t *rgb) {
    mbl_vae_pass_t *p = &e->pass;
    const mbl_dtype_t st = mbl_dtype_stat(e->vae->dtype);
    const size_t count = p->n * p->height * p->width * MBL_VAE_PIXELS;
    for (size_t i = 0; i < count; i++) {
        float value = (float)rgb[i] / 255.0f * 2.0f - 1.0f;
        if (st == MBL_F64)
            ((double *)e->host)[i] = (double)value;
        else
            ((float *)e->host)[i] = value;
    }
    mbl_tensor_t pixels = mbl_tensor_of(e->pixels, st, p->ops->table->space, 4, p->n, p->height, p->width,
                                        (size_t)MBL_VAE_PIXELS);
    mbl_tensor_t first = mbl_vae_image(p, p->spare, 1, MBL_VAE_PIXELS);
    MBL_TRY(mbl_tensor_upload(p->ops, &pixels, e->host));
    MBL_TRY(MBL_OP(p->ops, convert, .dst = &first, .src = &pixels));
    return mbl_vae_conv(p, &e->vae->half->conv_in, p->x, p->spare, 1, false);
}

/* The right half of every row of from [rows,2 columns] to [rows,columns]. */
static mbl_status_t take_right(const mbl_vae_pass_t *p, void *to, void *from, size_t rows, size_t columns) {
    const mbl_dtype_t ct = p->vae->dtype;
    mbl_tensor_t all = mbl_tensor_of(from, ct, p->ops->table->space, 2, rows, 2 * columns);
    mbl_tensor_t right = mbl_tensor_columns(&all, columns, columns);
    mbl_tensor_t kept = mbl_tensor_of(to, ct, p->ops->table->space, 2, rows, columns);
    return MBL_OP(p->ops, convert, .dst = &kept, .src = &right);
}

/* A convolution at stride 2 over an image with a row and a column of zeros at its end. conv2d has stride 1:
 * with zeros all round, its odd rows and columns are those results. */
static mbl_status_t halve(mbl_vae_pass_t *p, const mbl_vae_conv_t *conv) {
    MBL_TRY(mbl_vae_conv(p, conv, p->spare, p->x, 1, false));
    MBL_TRY(take_right(p, p->inner, p->spare, p->n * p->height / 2, p->width * conv->out));
    p->height /= 2;
    MBL_TRY(take_right(p, p->x, p->inner, p->n * p->height * p->width / 2, conv->out));
    p->width /= 2;
    return MBL_OK;
}

/* (mean - shift_factor) scaling_factor of the moments [n,h,w,2C] in spare. */
static mbl_status_t leave(mbl_vae_encoder_t *e, const mbl_tensor_t *latents) {
    mbl_vae_pass_t *p = &e->pass;
    const mbl_vae_config_t *c = &e->vae->config;
    const mbl_space_t space = p->ops->table->space;
    const mbl_dtype_t st = mbl_dtype_stat(e->vae->dtype);
    const size_t area = p->height * p->width, channels = c->latent_channels;
    mbl_tensor_t moments = mbl_tensor_of(p->spare, e->vae->dtype, space, 2, p->n * area, 2 * channels);
    mbl_tensor_t left = mbl_tensor_columns(&moments, 0, channels);
    mbl_tensor_t mean = mbl_tensor_of(e->mean, st, space, 2, p->n * area, channels), shift = mean;
    shift.data = e->shift;
    MBL_TRY(MBL_OP(p->ops, convert, .dst = &mean, .src = &left));
    MBL_TRY(MBL_OP(p->ops, axpby, .y = &mean, .x = &shift, .a = 1, .b = c->scaling_factor));
    mbl_tensor_t tokens = mbl_tensor_reshape(&mean, 3, p->n, area, channels);
    return MBL_OP(p->ops, unpatchify, .image = latents, .tokens = &tokens, .patch = 1,
                  .order = MBL_PATCH_PQC);
}

static mbl_status_t check_call(const mbl_vae_encoder_t *e, size_t n, const mbl_tensor_t *latents) {
    const mbl_vae_config_t *c = &e->vae->config;
    const size_t scale = mbl_vae_scale(c);
    const mbl_dtype_t st = mbl_dtype_stat(e->vae->dtype);
    char found[MBL_TENSOR_TEXT];
    MBL_REQUIRE(n >= 1 && n <= e->max_n, "vae_encode: %zu images; expected 1 to %zu", n, e->max_n);
    MBL_REQUIRE(latents->ndim == 4 && latents->dim[0] == n && latents->dim[1] == c->latent_channels &&
                    latents->dim[2] == e->height / scale && latents->dim[3] == e->width / scale &&
                    latents->dtype == st && mbl_tensor_contiguous(latents),
                "vae_encode: latents %s; expected [%zu,%zu,%zu,%zu] %s", mbl_tensor_text(latents, found), n,
                c->latent_channels, e->height / scale, e->width / scale, mbl_dtype_name(st));
    return MBL_OK;
}

mbl_status_t mbl_vae_encode(mbl_vae_encoder_t *e, const uint8_t *rgb, size_t n, const mbl_tensor_t *latents) {
    MBL_REQUIRE(e && rgb && latents, "vae_encode: encoder, rgb and latents must be given");
    MBL_TRY(check_call(e, n, latents));
    const mbl_vae_half_t *half = e->vae->half;
    mbl_vae_pass_t *p = &e->pass;
    p->n = n;
    p->height = e->height;
    p->width = e->width;
    MBL_TRY(enter(e, rgb));
    for (size_t i = 0; i < e->vae->config.blocks; i++) {
        const mbl_vae_block_t *block = &half->block[i];
        for (size_t j = 0; j < block->resnets; j++)
            MBL_TRY(mbl_vae_resnet(p, &block->resnet[j]));
        if (block->sample.out)
            MBL_TRY(halve(p, &block->sample));
    }
    MBL_TRY(mbl_vae_middle(p, half));
    MBL_TRY(mbl_vae_norm(p, &half->norm_out, p->x, p->x, true));
    MBL_TRY(mbl_vae_conv(p, &half->conv_out, p->spare, p->x, 1, false));
    return leave(e, latents);
}
