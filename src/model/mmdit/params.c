/* The layout of the flat weight vector: every tensor by diffusers' name, ordered so that linears of one input
 * lie side by side (q, k, v; all modulations) and the buffer of positions comes last. */
#include "base/mem.h"
#include "model/mmdit/internal.h"

#include <stdio.h>

static const char *const linear_names[MBL_SIDES][MBL_LINEARS][3] = {
    [MBL_SIDE_IMAGE] = {{"attn.to_q", "attn.to_k", "attn.to_v"},
                        {"attn.to_out.0"},
                        {"ff.net.0.proj"},
                        {"ff.net.2"}},
    [MBL_SIDE_CONTEXT] = {{"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"},
                          {"attn.to_add_out"},
                          {"ff_context.net.0.proj"},
                          {"ff_context.net.2"}},
    [MBL_SIDE_DUAL] = {{"attn2.to_q", "attn2.to_k", "attn2.to_v"}, {"attn2.to_out.0"}},
};
static const char *const norm_names[MBL_SIDES][2] = {{"attn.norm_q", "attn.norm_k"},
                                                     {"attn.norm_added_q", "attn.norm_added_k"},
                                                     {"attn2.norm_q", "attn2.norm_k"}};

/* Appends a tensor (only counts while params is NULL) and returns its place. */
static size_t put(mbl_mmdit_t *m, const char *name, int ndim, const size_t dim[4]) {
    size_t offset = m->base.n_weights, count = 1;
    for (int i = 0; i < ndim; i++)
        count *= dim[i];
    if (m->base.params) {
        mbl_param_t *param = &m->base.params[m->base.n_params];
        snprintf(param->name, sizeof param->name, "%s", name);
        param->ndim = ndim;
        for (int i = 0; i < ndim; i++)
            param->dim[i] = dim[i];
        param->offset = offset;
        param->count = count;
        param->trained = true;
    }
    m->base.n_params++;
    m->base.n_weights += count;
    return offset;
}

/* Weights, then biases, of n linears whose names follow `prefix`. */
static mbl_linear_t put_linears(mbl_mmdit_t *m, const char *prefix, const char *const *names, size_t n,
                                size_t in, size_t out) {
    mbl_linear_t linear = {.in = in, .out = out, .n = n, .id = MBL_NO_SITE};
    char name[96];
    for (size_t j = 0; j < n; j++) {
        snprintf(name, sizeof name, "%s%s.weight", prefix, names[j]);
        size_t offset = put(m, name, 2, (size_t[4]){out, in});
        linear.weight = j ? linear.weight : offset;
    }
    for (size_t j = 0; j < n; j++) {
        snprintf(name, sizeof name, "%s%s.bias", prefix, names[j]);
        size_t offset = put(m, name, 1, (size_t[4]){out});
        linear.bias = j ? linear.bias : offset;
    }
    return linear;
}

static mbl_linear_t put_linear(mbl_mmdit_t *m, const char *name, size_t in, size_t out) {
    return put_linears(m, "", &name, 1, in, out);
}

static void put_embedders(mbl_mmdit_t *m) {
    const mbl_mmdit_config_t *c = &m->config;
    size_t width = m->width, p = c->patch_size;
    m->patch = (mbl_linear_t){.in = c->in_channels * p * p, .out = width, .n = 1, .id = MBL_NO_SITE};
    m->patch.weight = put(m, "pos_embed.proj.weight", 4, (size_t[4]){width, c->in_channels, p, p});
    m->patch.bias = put(m, "pos_embed.proj.bias", 1, (size_t[4]){width});
    m->time1 = put_linear(m, "time_text_embed.timestep_embedder.linear_1", MBL_TIME_FREQUENCIES, width);
    m->time2 = put_linear(m, "time_text_embed.timestep_embedder.linear_2", width, width);
    m->text1 = put_linear(m, "time_text_embed.text_embedder.linear_1", c->pooled_projection_dim, width);
    m->text2 = put_linear(m, "time_text_embed.text_embedder.linear_2", width, width);
    m->context = put_linear(m, "context_embedder", c->joint_attention_dim, width);
}

static size_t modulation_width(const mbl_mmdit_t *m, const mbl_block_t *block, int side) {
    if (side == MBL_SIDE_CONTEXT)
        return (block->last ? 2 : 6) * m->width;
    return (block->dual ? 9 : 6) * m->width;
}

/* Tensors of one kind (weights or biases) of all modulations; returns the first one's place. */
static size_t put_modulation(mbl_mmdit_t *m, bool bias) {
    static const char *const names[] = {"norm1", "norm1_context"};
    char name[96];
    size_t first = m->base.n_weights;
    for (size_t i = 0; i < m->config.num_layers; i++)
        for (int side = 0; side < 2; side++) {
            size_t rows = modulation_width(m, &m->blocks[i], side);
            snprintf(name, sizeof name, "transformer_blocks.%zu.%s.linear.%s", i, names[side],
                     bias ? "bias" : "weight");
            put(m, name, bias ? 1 : 2, (size_t[4]){rows, m->width});
        }
    put(m, bias ? "norm_out.linear.bias" : "norm_out.linear.weight", bias ? 1 : 2,
        (size_t[4]){2 * m->width, m->width});
    return first;
}

/* Columns of the modulation that belong to a side, from `at` on. */
static size_t place_modulation(const mbl_mmdit_t *m, mbl_block_t *block, int side, size_t at) {
    mbl_side_t *s = &block->side[side];
    size_t d = m->width;
    if (side == MBL_SIDE_CONTEXT && block->last) {
        s->scale_a = at;
        s->shift_a = at + d;
        return at + 2 * d;
    }
    s->shift_a = at;
    s->scale_a = at + d;
    s->gate_a = at + 2 * d;
    s->shift_m = at + 3 * d;
    s->scale_m = at + 4 * d;
    s->gate_m = at + 5 * d;
    if (side == MBL_SIDE_IMAGE && block->dual) {
        mbl_side_t *dual = &block->side[MBL_SIDE_DUAL];
        dual->shift_a = at + 6 * d;
        dual->scale_a = at + 7 * d;
        dual->gate_a = at + 8 * d;
    }
    return at + modulation_width(m, block, side);
}

static void put_modulations(mbl_mmdit_t *m) {
    size_t at = 0;
    for (size_t i = 0; i < m->config.num_layers; i++)
        for (int side = 0; side < 2; side++)
            at = place_modulation(m, &m->blocks[i], side, at);
    m->scale_out = at;
    m->shift_out = at + m->width;
    m->modulation = (mbl_linear_t){.in = m->width, .out = at + 2 * m->width, .n = 1, .id = MBL_NO_SITE};
    m->modulation.weight = put_modulation(m, false);
    m->modulation.bias = put_modulation(m, true);
}

/* Appends linears of a block, one group, to the list (only counts while that is NULL). */
static void list_linears(mbl_mmdit_t *m, size_t layer, mbl_linear_t *linear, const char *const *names) {
    linear->id = m->base.n_groups++;
    for (size_t j = 0; j < linear->n; j++, m->base.n_linears++) {
        if (!m->base.linears)
            continue;
        mbl_dit_linear_t *entry = &m->base.linears[m->base.n_linears];
        *entry = (mbl_dit_linear_t){.in = linear->in,
                                    .out = linear->out,
                                    .weight = linear->weight + j * linear->out * linear->in,
                                    .block = layer,
                                    .group = linear->id,
                                    .of = linear->n,
                                    .at = j};
        entry->kind = (size_t)snprintf(entry->name, sizeof entry->name, "transformer_blocks.%zu.", layer);
        snprintf(entry->name + entry->kind, sizeof entry->name - entry->kind, "%s", names[j]);
    }
}

static void put_side(mbl_mmdit_t *m, size_t layer, int side) {
    mbl_block_t *block = &m->blocks[layer];
    mbl_side_t *s = &block->side[side];
    size_t width = m->width, wide = 4 * width;
    char prefix[48], name[96];
    snprintf(prefix, sizeof prefix, "transformer_blocks.%zu.", layer);
    bool ends = side == MBL_SIDE_CONTEXT && block->last;
    const size_t in[MBL_LINEARS] = {width, width, width, wide},
                 out[MBL_LINEARS] = {width, width, wide, width};
    for (int l = 0; l < MBL_LINEARS; l++) {
        const char *const *names = linear_names[side][l];
        if (!names[0] || (ends && l != MBL_LINEAR_QKV))
            continue;
        s->linear[l] = put_linears(m, prefix, names, l == MBL_LINEAR_QKV ? 3 : 1, in[l], out[l]);
        list_linears(m, layer, &s->linear[l], names);
    }
    for (int j = 0; j < 2 && m->config.qk_norm; j++) {
        snprintf(name, sizeof name, "%s%s.weight", prefix, norm_names[side][j]);
        *(j ? &s->norm_k : &s->norm_q) = put(m, name, 1, (size_t[4]){m->config.attention_head_dim});
    }
}

static void put_all(mbl_mmdit_t *m) {
    const mbl_mmdit_config_t *c = &m->config;
    m->base.n_params = m->base.n_weights = m->base.n_linears = m->base.n_groups = 0;
    put_embedders(m);
    put_modulations(m);
    for (size_t i = 0; i < c->num_layers; i++)
        for (int side = 0; side < MBL_SIDES; side++)
            if (side != MBL_SIDE_DUAL || m->blocks[i].dual)
                put_side(m, i, side);
    m->out = put_linear(m, "proj_out", m->width, c->patch_size * c->patch_size * c->out_channels);
    size_t places = c->pos_embed_max_size * c->pos_embed_max_size;
    m->position = put(m, "pos_embed.pos_embed", 3, (size_t[4]){1, places, m->width});
    if (m->base.params)
        m->base.params[m->base.n_params - 1].trained = false;
}

mbl_status_t mbl_mmdit_layout(mbl_mmdit_t *m) {
    m->width = m->config.attention_head_dim * m->config.num_attention_heads;
    MBL_ALLOC(m->blocks, m->config.num_layers);
    for (size_t i = 0; i < m->config.num_layers; i++) {
        m->blocks[i].dual = m->config.dual_attention[i];
        m->blocks[i].last = i + 1 == m->config.num_layers;
    }
    put_all(m);
    MBL_ALLOC(m->base.params, m->base.n_params);
    MBL_ALLOC(m->base.linears, m->base.n_linears);
    put_all(m);
    return MBL_OK;
}
