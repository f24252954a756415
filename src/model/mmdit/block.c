/* A block of the MM-DiT, forward. Every residual addition is fused with the norm that follows it, so a block
 * starts with its normalised inputs already made by the block before. */
#include "model/mmdit/internal.h"

#include <math.h>

/* ---- norms and residuals ---- */

/* A norm to be made: where from, where to, with which columns of the modulation. */
typedef struct {
    void *in, *out, *mean, *rstd;
    size_t scale, shift, tokens;
} norm_t;

static norm_t attention_norm(const mbl_pass_t *p, size_t layer, int side) {
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    norm_t norm = {acts->in,
                   acts->n_a,
                   acts->mean_a,
                   acts->rstd_a,
                   p->model->scale_out,
                   p->model->shift_out,
                   mbl_side_tokens(p->tape, side)};
    if (layer < p->model->config.num_layers) {
        norm.scale = p->model->blocks[layer].side[side].scale_a;
        norm.shift = p->model->blocks[layer].side[side].shift_a;
    }
    return norm;
}

static mbl_status_t layer_norm(const mbl_pass_t *p, const norm_t *norm) {
    mbl_tensor_t y = mbl_pass_rows(p, norm->out, norm->tokens, p->model->width);
    mbl_tensor_t x = mbl_pass_rows(p, norm->in, norm->tokens, p->model->width);
    mbl_tensor_t mean = mbl_pass_stat(p, norm->mean, norm->tokens);
    mbl_tensor_t rstd = mbl_pass_stat(p, norm->rstd, norm->tokens);
    mbl_tensor_t scale = mbl_pass_modulation(p, norm->scale), shift = mbl_pass_modulation(p, norm->shift);
    return MBL_OP(p->ops, layer_norm, .y = &y, .mean = norm->mean ? &mean : NULL,
                  .rstd = norm->mean ? &rstd : NULL, .x = &x, .scale = &scale, .shift = &shift,
                  .eps = MBL_MMDIT_EPS);
}

/* What is added to the stream: gate h, a column of the modulation and an activation. */
typedef struct {
    size_t column;
    void *h;
} gated_t;

/* norm->in = x + first (+ second, or NULL), norm->out = its norm. */
static mbl_status_t add_and_norm(const mbl_pass_t *p, void *x, const gated_t *first, const gated_t *second,
                                 const norm_t *norm) {
    size_t tokens = norm->tokens, width = p->model->width;
    mbl_tensor_t y = mbl_pass_rows(p, norm->in, tokens, width),
                 z = mbl_pass_rows(p, norm->out, tokens, width);
    mbl_tensor_t xt = mbl_pass_rows(p, x, tokens, width), ht = mbl_pass_rows(p, first->h, tokens, width);
    mbl_tensor_t mean = mbl_pass_stat(p, norm->mean, tokens), rstd = mbl_pass_stat(p, norm->rstd, tokens);
    mbl_tensor_t scale = mbl_pass_modulation(p, norm->scale), shift = mbl_pass_modulation(p, norm->shift);
    mbl_tensor_t gate = mbl_pass_modulation(p, first->column), gate2 = {0}, h2 = {0};
    if (second) {
        gate2 = mbl_pass_modulation(p, second->column);
        h2 = mbl_pass_rows(p, second->h, tokens, width);
    }
    return MBL_OP(p->ops, gate_norm, .y = &y, .z = &z, .mean = norm->mean ? &mean : NULL,
                  .rstd = norm->mean ? &rstd : NULL, .x = &xt, .gate = &gate, .h = &ht, .scale = &scale,
                  .shift = &shift, .eps = MBL_MMDIT_EPS, .gate2 = second ? &gate2 : NULL,
                  .h2 = second ? &h2 : NULL);
}

/* ---- attention ---- */

/* qkv of one side, and of that q and k normalised to tokens first.. of the attention whose buffers `heads`
 * has. */
static mbl_status_t project_heads(const mbl_pass_t *p, size_t layer, int side, const mbl_side_acts_t *heads,
                                  size_t first, size_t all) {
    const mbl_mmdit_t *m = p->model;
    const mbl_side_t *s = &m->blocks[layer].side[side];
    const mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    size_t tokens = mbl_side_tokens(p->tape, side), n_heads = m->config.num_attention_heads;
    size_t d = m->config.attention_head_dim;
    mbl_dtype_t st = mbl_dtype_stat(m->base.dtype);
    mbl_space_t space = p->ops->table->space;
    MBL_TRY(mbl_linear_forward(p, &s->linear[MBL_LINEAR_QKV], acts->qkv, acts->n_a, tokens,
                               acts->lora[MBL_LINEAR_QKV]));
    mbl_tensor_t q = mbl_tensor_of(heads->q, m->base.dtype, space, 4, p->n, n_heads, all, d);
    mbl_tensor_t k = mbl_tensor_of(heads->k, m->base.dtype, space, 4, p->n, n_heads, all, d);
    mbl_tensor_t qkv = mbl_pass_rows(p, acts->qkv, tokens, 3 * m->width);
    mbl_tensor_t rq = mbl_tensor_of(acts->rstd_q, st, space, 3, p->n, tokens, n_heads);
    mbl_tensor_t rk = mbl_tensor_of(acts->rstd_k, st, space, 3, p->n, tokens, n_heads);
    mbl_tensor_t wq = mbl_flat_vector(&m->base.weights, s->norm_q, d),
                 wk = mbl_flat_vector(&m->base.weights, s->norm_k, d);
    bool norm = m->config.qk_norm;
    return MBL_OP(p->ops, qk_norm, .q = &q, .k = &k, .rstd_q = acts->rstd_q ? &rq : NULL,
                  .rstd_k = acts->rstd_k ? &rk : NULL, .qkv = &qkv, .weight_q = norm ? &wq : NULL,
                  .weight_k = norm ? &wk : NULL, .first = first, .eps = MBL_MMDIT_EPS);
}

/* Softmax attention over the heads of `acts`; the image's part and (second NULL: none) the context's. */
static mbl_status_t attend(const mbl_pass_t *p, const mbl_side_acts_t *acts, const mbl_side_acts_t *second) {
    const mbl_mmdit_t *m = p->model;
    size_t image = p->tape->tokens[0], all = image + (second ? p->tape->tokens[1] : 0);
    size_t heads = m->config.num_attention_heads, d = m->config.attention_head_dim;
    mbl_space_t space = p->ops->table->space;
    mbl_tensor_t q = mbl_tensor_of(acts->q, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t k = mbl_tensor_of(acts->k, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t lse = mbl_tensor_of(acts->lse, mbl_dtype_stat(m->base.dtype), space, 3, p->n, heads, all);
    mbl_tensor_t out1 = mbl_pass_rows(p, acts->attended, image, m->width);
    mbl_tensor_t v1 = mbl_pass_values(p, acts->qkv, image), out2 = {0}, v2 = {0};
    if (second) {
        out2 = mbl_pass_rows(p, second->attended, p->tape->tokens[1], m->width);
        v2 = mbl_pass_values(p, second->qkv, p->tape->tokens[1]);
    }
    return MBL_OP(p->ops, attention, .out1 = &out1, .out2 = second ? &out2 : NULL, .lse = &lse, .q = &q,
                  .k = &k, .v1 = &v1, .v2 = second ? &v2 : NULL, .scale = 1 / sqrt((double)d));
}

static mbl_status_t joint_attention(const mbl_pass_t *p, size_t layer) {
    mbl_side_acts_t *image = &p->tape->acts[layer].side[MBL_SIDE_IMAGE];
    mbl_side_acts_t *context = &p->tape->acts[layer].side[MBL_SIDE_CONTEXT];
    size_t first = p->tape->tokens[0], all = first + p->tape->tokens[1];
    MBL_TRY(project_heads(p, layer, MBL_SIDE_IMAGE, image, 0, all));
    MBL_TRY(project_heads(p, layer, MBL_SIDE_CONTEXT, image, first, all));
    return attend(p, image, context);
}

/* The second attention of a dual block works on another modulation of the same norm; its statistics are the
 * first one's. */
static mbl_status_t dual_attention(const mbl_pass_t *p, size_t layer) {
    const mbl_side_t *s = &p->model->blocks[layer].side[MBL_SIDE_DUAL];
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[MBL_SIDE_DUAL];
    norm_t norm = attention_norm(p, layer, MBL_SIDE_IMAGE);
    norm.out = acts->n_a;
    norm.mean = norm.rstd = NULL;
    norm.scale = s->scale_a;
    norm.shift = s->shift_a;
    MBL_TRY(layer_norm(p, &norm));
    MBL_TRY(project_heads(p, layer, MBL_SIDE_DUAL, acts, 0, norm.tokens));
    return attend(p, acts, NULL);
}

static mbl_status_t project_out(const mbl_pass_t *p, size_t layer, int side) {
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    return mbl_linear_forward(p, &p->model->blocks[layer].side[side].linear[MBL_LINEAR_OUT], acts->h_a,
                              acts->attended, mbl_side_tokens(p->tape, side), acts->lora[MBL_LINEAR_OUT]);
}

/* ---- feed-forward ---- */

/* Through the gelu. */
static mbl_status_t feed_forward_first(const mbl_pass_t *p, size_t layer, int side) {
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    return mbl_linear_forward_gelu(p, &p->model->blocks[layer].side[side].linear[MBL_LINEAR_FF1], acts->post,
                                   acts->pre, acts->n_m, mbl_side_tokens(p->tape, side),
                                   acts->lora[MBL_LINEAR_FF1]);
}

static mbl_status_t feed_forward_second(const mbl_pass_t *p, size_t layer, int side) {
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    return mbl_linear_forward(p, &p->model->blocks[layer].side[side].linear[MBL_LINEAR_FF2], acts->h_m,
                              acts->post, mbl_side_tokens(p->tape, side), acts->lora[MBL_LINEAR_FF2]);
}

/* From the attention's output to the feed-forward net's normalised input, on one side. */
static mbl_status_t add_attention(const mbl_pass_t *p, size_t layer, int side) {
    const mbl_block_t *block = &p->model->blocks[layer];
    const mbl_side_t *s = &block->side[side];
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    norm_t norm = {acts->mid,
                   acts->n_m,
                   acts->mean_m,
                   acts->rstd_m,
                   s->scale_m,
                   s->shift_m,
                   mbl_side_tokens(p->tape, side)};
    const bool dual = side == MBL_SIDE_IMAGE && block->dual;
    const gated_t first = {s->gate_a, acts->h_a},
                  second = {block->side[MBL_SIDE_DUAL].gate_a, p->tape->acts[layer].side[MBL_SIDE_DUAL].h_a};
    MBL_TRY(project_out(p, layer, side));
    if (dual)
        MBL_TRY(project_out(p, layer, MBL_SIDE_DUAL));
    return add_and_norm(p, acts->in, &first, dual ? &second : NULL, &norm);
}

/* From there to the next block's normalised input. */
static mbl_status_t add_feed_forward(const mbl_pass_t *p, size_t layer, int side) {
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    const gated_t net = {p->model->blocks[layer].side[side].gate_m, acts->h_m};
    norm_t next = attention_norm(p, layer + 1, side);
    MBL_TRY(feed_forward_first(p, layer, side));
    MBL_TRY(feed_forward_second(p, layer, side));
    return add_and_norm(p, acts->mid, &net, NULL, &next);
}

static mbl_status_t attentions(const mbl_pass_t *p, size_t layer) {
    MBL_TRY(joint_attention(p, layer));
    return p->model->blocks[layer].dual ? dual_attention(p, layer) : MBL_OK;
}

/* The sides that go on after the attention. */
static int sides_of(const mbl_block_t *block) {
    return block->last ? MBL_SIDE_IMAGE + 1 : MBL_SIDE_CONTEXT + 1;
}

mbl_status_t mbl_block_begin(const mbl_pass_t *p, size_t layer) {
    const bool end = layer == p->model->config.num_layers; /* only the image goes on to norm_out */
    for (int side = 0; side < (end ? MBL_SIDE_IMAGE + 1 : MBL_SIDE_CONTEXT + 1); side++) {
        norm_t norm = attention_norm(p, layer, side);
        MBL_TRY(layer_norm(p, &norm));
    }
    return MBL_OK;
}

mbl_status_t mbl_block_forward(const mbl_pass_t *p, size_t layer) {
    MBL_TRY(attentions(p, layer));
    for (int side = 0; side < sides_of(&p->model->blocks[layer]); side++) {
        MBL_TRY(add_attention(p, layer, side));
        MBL_TRY(add_feed_forward(p, layer, side));
    }
    return MBL_OK;
}

mbl_status_t mbl_block_again(const mbl_pass_t *p, size_t layer) {
    const mbl_block_t *block = &p->model->blocks[layer];
    MBL_TRY(mbl_block_begin(p, layer));
    MBL_TRY(attentions(p, layer));
    for (int side = 0; side < sides_of(block); side++) {
        MBL_TRY(add_attention(p, layer, side));
        MBL_TRY(feed_forward_first(p, layer, side));
        if (p->tape->kind == MBL_TAPE_FULL || mbl_pass_site(p, &block->side[side].linear[MBL_LINEAR_FF2]))
            MBL_TRY(feed_forward_second(p, layer, side));
    }
    return MBL_OK;
}
