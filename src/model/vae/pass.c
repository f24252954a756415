/* What the decoder and the encoder of an image autoencoder have in common: buffers, and their blocks. */
#include "model/vae/internal.h"

#include <math.h>

enum { MOST_SAMPLES = 4096, MOST_SIDE = 4096 };

/* ---- buffers ---- */

/* With 2^12 samples, sides, and channels (config.c), and 2^5 pixels a latent and side, no buffer needs more
 * than 2^61 bytes, and all together stay below 2^64 bytes. */
mbl_status_t mbl_vae_check_size(const char *call, size_t max_n, size_t height, size_t width) {
    MBL_REQUIRE(max_n >= 1 && max_n <= MOST_SAMPLES, "%s: %zu samples; expected 1 to %d", call, max_n,
                MOST_SAMPLES);
    MBL_REQUIRE(height >= 1 && height <= MOST_SIDE && width >= 1 && width <= MOST_SIDE,
                "%s: latents of %zu x %zu; expected sides of 1 to %d", call, height, width, MOST_SIDE);
    return MBL_OK;
}

void mbl_vae_pass_carve(mbl_vae_pass_t *p, mbl_arena_t *arena, mbl_dtype_t dtype, size_t max_n,
                        const mbl_vae_room_t *room) {
    const size_t ct = mbl_dtype_size(dtype);
    p->x = mbl_arena_take(arena, max_n * room->stream, ct);
    p->spare = mbl_arena_take(arena, max_n * room->stream, ct);
    p->inner = mbl_arena_take(arena, max_n * room->inner, ct);
    if (room->attended) {
        p->k = mbl_arena_take(arena, max_n * room->attended, ct);
        p->v = mbl_arena_take(arena, max_n * room->attended, ct);
    }
}

mbl_status_t mbl_vae_fill(const mbl_vae_t *vae, void *data, size_t n, double value) {
    mbl_dtype_t st = mbl_dtype_stat(vae->dtype);
    mbl_tensor_t all = mbl_tensor_of(data, st, vae->ops->table->space, 1, n);
    void *values = mbl_calloc(n, mbl_dtype_size(st));
    if (!values)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu latents", n);
    for (size_t i = 0; i < n; i++) {
        if (st == MBL_F64)
            ((double *)values)[i] = value;
        else
            ((float *)values)[i] = (float)value;
    }
    mbl_status_t status = mbl_tensor_upload(vae->ops, &all, values);
    mbl_free(values);
    return status;
}

/* ---- blocks ---- */

mbl_tensor_t mbl_vae_image(const mbl_vae_pass_t *p, void *data, size_t up, size_t channels) {
    return mbl_tensor_of(data, p->vae->dtype, p->ops->table->space, 4, p->n, p->height * up, p->width * up,
                         channels);
}
mbl_tensor_t mbl_vae_tokens(const mbl_vae_pass_t *p, void *data, size_t channels) {
    return mbl_tensor_of(data, p->vae->dtype, p->ops->table->space, 3, p->n, p->height * p->width, channels);
}
static mbl_tensor_t rows(const mbl_vae_pass_t *p, void *data, size_t channels) {
    return mbl_tensor_of(data, p->vae->dtype, p->ops->table->space, 2, p->n * p->height * p->width, channels);
}
static void *weight_at(const mbl_vae_pass_t *p, size_t offset) {
    const mbl_vae_t *vae = p->vae;
    return (char *)vae->weights.data + offset * mbl_dtype_size(vae->dtype);
}
static mbl_tensor_t vector(const mbl_vae_pass_t *p, size_t offset, size_t n) {
    return mbl_tensor_of(weight_at(p, offset), p->vae->dtype, p->ops->table->space, 1, n);
}

mbl_status_t mbl_vae_norm(const mbl_vae_pass_t *p, const mbl_vae_norm_t *norm, void *to, void *from,
                          bool silu) {
    mbl_tensor_t y = mbl_vae_tokens(p, to, norm->channels), x = mbl_vae_tokens(p, from, norm->channels);
    mbl_tensor_t weight = vector(p, norm->weight, norm->channels),
                 bias = vector(p, norm->bias, norm->channels);
    return MBL_OP(p->ops, group_norm, .y = &y, .x = &x, .weight = &weight, .bias = &bias,
                  .groups = p->vae->config.norm_num_groups, .eps = MBL_VAE_EPS, .silu = silu);
}

mbl_status_t mbl_vae_conv(const mbl_vae_pass_t *p, const mbl_vae_conv_t *conv, void *to, void *from,
                          size_t up, bool accumulate) {
    mbl_tensor_t y = mbl_vae_image(p, to, up, conv->out), x = mbl_vae_image(p, from, 1, conv->in);
    mbl_tensor_t bias = vector(p, conv->bias, conv->out);
    mbl_tensor_t weight = mbl_tensor_of(weight_at(p, conv->weight), p->vae->dtype, p->ops->table->space, 4,
                                        conv->out, conv->k, conv->k, conv->in);
    return MBL_OP(p->ops, conv2d, .y = &y, .x = &x, .weight = &weight, .bias = &bias, .pad = conv->k / 2,
                  .up = up, .accumulate = accumulate);
}

static mbl_status_t linear(const mbl_vae_pass_t *p, const mbl_vae_conv_t *linear, void *to, void *from,
                           bool accumulate) {
    mbl_tensor_t y = rows(p, to, linear->out), x = rows(p, from, linear->in);
    mbl_tensor_t bias = vector(p, linear->bias, linear->out);
    mbl_tensor_t weight = mbl_tensor_of(weight_at(p, linear->weight), p->vae->dtype, p->ops->table->space, 2,
                                        linear->out, linear->in);
    return MBL_OP(p->ops, matmul, .y = &y, .a = &x, .b = &weight, .bias = &bias, .transpose_b = true,
                  .accumulate = accumulate);
}

void mbl_vae_swap(mbl_vae_pass_t *p) {
    void *x = p->x;
    p->x = p->spare;
    p->spare = x;
}

/* x = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x)))))) */
mbl_status_t mbl_vae_resnet(mbl_vae_pass_t *p, const mbl_vae_resnet_t *r) {
    MBL_TRY(mbl_vae_norm(p, &r->norm1, p->spare, p->x, true));
    MBL_TRY(mbl_vae_conv(p, &r->conv1, p->inner, p->spare, 1, false));
    MBL_TRY(mbl_vae_norm(p, &r->norm2, p->inner, p->inner, true));
    if (r->shortcut.out) {
        MBL_TRY(mbl_vae_conv(p, &r->shortcut, p->spare, p->x, 1, false));
        mbl_vae_swap(p);
    }
    return mbl_vae_conv(p, &r->conv2, p->x, p->inner, 1, true);
}

/* x = x + out(attention of q, k, v of norm(x)), one head as wide as the image */
static mbl_status_t attention(const mbl_vae_pass_t *p, const mbl_vae_attention_t *a) {
    const size_t width = a->norm.channels, pixels = p->height * p->width;
    MBL_TRY(mbl_vae_norm(p, &a->norm, p->spare, p->x, false));
    MBL_TRY(linear(p, &a->q, p->inner, p->spare, false));
    MBL_TRY(linear(p, &a->k, p->k, p->spare, false));
    MBL_TRY(linear(p, &a->v, p->v, p->spare, false));
    mbl_tensor_t out = mbl_vae_tokens(p, p->spare, width), v = mbl_vae_tokens(p, p->v, width), head[2];
    void *data[2] = {p->inner, p->k};
    for (int i = 0; i < 2; i++)
        head[i] =
            mbl_tensor_of(data[i], p->vae->dtype, p->ops->table->space, 4, p->n, (size_t)1, pixels, width);
    MBL_TRY(MBL_OP(p->ops, attention, .out1 = &out, .q = &head[0], .k = &head[1], .v1 = &v,
                   .scale = 1 / sqrt((double)width)));
    return linear(p, &a->out, p->x, p->spare, true);
}

mbl_status_t mbl_vae_middle(mbl_vae_pass_t *p, const mbl_vae_half_t *half) {
    MBL_TRY(mbl_vae_resnet(p, &half->mid[0]));
    if (p->vae->config.mid_block_add_attention)
        MBL_TRY(attention(p, &half->attention));
    return mbl_vae_resnet(p, &half->mid[1]);
}
