/* Names, shapes and places of an image autoencoder's weights. */
#include "base/mem.h"
#include "model/vae/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    ALIGNMENT = 32, /* elements between the beginnings of tensors: at least 64 bytes */
    RESNET = 10,    /* tensors of a residual block at most */
    OTHERS = 16     /* of conv_in, the attention, norm_out and conv_out */
};

typedef struct {
    mbl_vae_layout_t *to;
    size_t used;
    bool failed; /* sizes overflow */
} layout_t;

/* ndim: 1, 2 (linears) or 4 (convolutions of k x k). */
static size_t place(layout_t *l, const char *prefix, const char *name, const char *part, int ndim, size_t out,
                    size_t in, size_t k) {
    mbl_vae_param_t *p = &l->to->params[l->to->n_params++];
    snprintf(p->name, sizeof p->name, "%s%s%s", prefix, name, part);
    p->ndim = ndim;
    const size_t dim[4] = {out, in, k, k};
    p->count = 1;
    for (int i = 0; i < ndim; i++) {
        p->dim[i] = dim[i];
        l->failed |= !mbl_mul(p->count, dim[i], &p->count);
    }
    p->offset = (l->used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    l->failed |= !mbl_add(p->offset, p->count, &l->used);
    return p->offset;
}

static mbl_vae_norm_t place_norm(layout_t *l, const char *prefix, const char *name, size_t channels) {
    mbl_vae_norm_t norm = {.channels = channels};
    norm.weight = place(l, prefix, name, ".weight", 1, channels, 0, 0);
    norm.bias = place(l, prefix, name, ".bias", 1, channels, 0, 0);
    return norm;
}

/* k = 0: a linear. */
static mbl_vae_conv_t place_conv(layout_t *l, const char *prefix, const char *name, size_t in, size_t out,
                                 size_t k) {
    mbl_vae_conv_t conv = {.in = in, .out = out, .k = k ? k : 1};
    conv.weight = place(l, prefix, name, ".weight", k ? 4 : 2, out, in, k);
    conv.bias = place(l, prefix, name, ".bias", 1, out, 0, 0);
    return conv;
}

static void place_resnet(layout_t *l, const char *prefix, size_t in, size_t out, mbl_vae_resnet_t *r) {
    r->norm1 = place_norm(l, prefix, "norm1", in);
    r->conv1 = place_conv(l, prefix, "conv1", in, out, 3);
    r->norm2 = place_norm(l, prefix, "norm2", out);
    r->conv2 = place_conv(l, prefix, "conv2", out, out, 3);
    if (in != out)
        r->shortcut = place_conv(l, prefix, "conv_shortcut", in, out, 1);
}

static void place_mid(layout_t *l, const char *half, const mbl_vae_config_t *c, mbl_vae_half_t *to) {
    const size_t d = c->block_out_channels[c->blocks - 1];
    char prefix[64];
    for (size_t i = 0; i < 2; i++) {
        snprintf(prefix, sizeof prefix, "%s.mid_block.resnets.%zu.", half, i);
        place_resnet(l, prefix, d, d, &to->mid[i]);
    }
    if (!c->mid_block_add_attention)
        return;
    snprintf(prefix, sizeof prefix, "%s.mid_block.attentions.0.", half);
    to->attention.norm = place_norm(l, prefix, "group_norm", d);
    to->attention.q = place_conv(l, prefix, "to_q", d, d, 0);
    to->attention.k = place_conv(l, prefix, "to_k", d, d, 0);
    to->attention.v = place_conv(l, prefix, "to_v", d, d, 0);
    to->attention.out = place_conv(l, prefix, "to_out.0", d, d, 0);
}

/* Block i of a half, numbered in the order of the pass; `sample` is what its last convolution is called. */
static void place_block(layout_t *l, const char *half, const char *sample, size_t i, size_t in, size_t out,
                        bool last, mbl_vae_block_t *block) {
    char prefix[64];
    for (size_t j = 0; j < block->resnets; j++) {
        snprintf(prefix, sizeof prefix, "%s_blocks.%zu.resnets.%zu.", half, i, j);
        place_resnet(l, prefix, j ? out : in, out, &block->resnet[j]);
    }
    snprintf(prefix, sizeof prefix, "%s_blocks.%zu.%s.0.", half, i, sample);
    if (!last)
        block->sample = place_conv(l, prefix, "conv", out, out, 3);
}

/* Every half has a flat vector of its own. */
static mbl_vae_half_t *begin(layout_t *l, mbl_vae_part_t part) {
    mbl_vae_half_t *half = &l->to->half[part];
    half->first = l->to->n_params;
    l->used = 0;
    return half;
}

static void finish(const layout_t *l, mbl_vae_half_t *half) {
    half->n = l->to->n_params - half->first;
    half->used = l->used;
}

static void place_decoder(layout_t *l, const mbl_vae_config_t *c) {
    mbl_vae_half_t *to = begin(l, MBL_VAE_DECODER);
    size_t d = c->block_out_channels[c->blocks - 1];
    to->conv_in = place_conv(l, "decoder.", "conv_in", c->latent_channels, d, 3);
    place_mid(l, "decoder", c, to);
    for (size_t i = 0; i < c->blocks; i++) {
        size_t out = c->block_out_channels[c->blocks - 1 - i];
        to->block[i].resnets = c->layers_per_block + 1;
        place_block(l, "decoder.up", "upsamplers", i, d, out, i + 1 == c->blocks, &to->block[i]);
        d = out;
    }
    to->norm_out = place_norm(l, "decoder.", "conv_norm_out", d);
    to->conv_out = place_conv(l, "decoder.", "conv_out", d, MBL_VAE_PIXELS, 3);
    finish(l, to);
}

static void place_encoder(layout_t *l, const mbl_vae_config_t *c) {
    mbl_vae_half_t *to = begin(l, MBL_VAE_ENCODER);
    size_t d = c->block_out_channels[0];
    to->conv_in = place_conv(l, "encoder.", "conv_in", MBL_VAE_PIXELS, d, 3);
    for (size_t i = 0; i < c->blocks; i++) {
        size_t out = c->block_out_channels[i];
        to->block[i].resnets = c->layers_per_block;
        place_block(l, "encoder.down", "downsamplers", i, d, out, i + 1 == c->blocks, &to->block[i]);
        d = out;
    }
    place_mid(l, "encoder", c, to);
    to->norm_out = place_norm(l, "encoder.", "conv_norm_out", d);
    to->conv_out =
        place_conv(l, "encoder.", "conv_out", d, 2 * c->latent_channels, 3); /* mean, log variance */
    finish(l, to);
}

mbl_status_t mbl_vae_layout_new(const mbl_vae_config_t *config, mbl_vae_layout_t **out) {
    mbl_vae_layout_t *layout;
    layout_t l = {0};
    mbl_status_t status;
    const size_t resnets = config->blocks * (config->layers_per_block + 1) + 2;
    MBL_ALLOC(layout, 1);
    MBL_ALLOC_GOTO(layout->params, 2 * (resnets * RESNET + config->blocks * 2 + OTHERS), failed);
    l.to = layout;
    place_decoder(&l, config);
    place_encoder(&l, config);
    if (l.failed) {
        status = MBL_FAIL(MBL_ERR_MEM, "an autoencoder larger than any memory");
        goto failed;
    }
    *out = layout;
    return MBL_OK;
failed:
    mbl_vae_layout_free(layout);
    return status;
}

void mbl_vae_layout_free(mbl_vae_layout_t *layout) {
    if (!layout)
        return;
    mbl_free(layout->params);
    mbl_free(layout);
}
