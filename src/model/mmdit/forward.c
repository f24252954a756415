/* Forward pass of the MM-DiT. Every residual addition is fused with the norm that follows it, so a block
 * starts with its normalised inputs already made by the block before. */
#include "model/mmdit/internal.h"

#include <math.h>

/* ---- inputs ---- */

/* The rows of pos_embed that an image of this size uses: the centre of the square grid. */
static mbl_status_t crop_position(const mbl_pass_t *p) {
    mbl_mmdit_tape_t *tape = p->tape;
    const mbl_mmdit_t *m = p->model;
    if (tape->position_ready && tape->version == m->base.version)
        return MBL_OK;
    size_t patch = m->config.patch_size, max = m->config.pos_embed_max_size;
    size_t rows = tape->height / patch, columns = tape->width / patch;
    size_t top = (max - rows) / 2, left = (max - columns) / 2;
    mbl_space_t space = p->ops->table->space;
    for (size_t i = 0; i < rows; i++) {
        size_t from = m->position + ((top + i) * max + left) * m->width, count = columns * m->width;
        mbl_tensor_t src = mbl_flat_vector(&m->base.weights, from, count);
        mbl_tensor_t dst = mbl_tensor_of((char *)tape->position + i * count * mbl_dtype_size(m->base.dtype),
                                         m->base.dtype, space, 1, count);
        MBL_TRY(mbl_tensor_copy(p->ops, &dst, &src));
    }
    tape->position_ready = true;
    tape->version = m->base.version;
    return MBL_OK;
}

/* Time and pooled text to silu(condition), then all modulations of all blocks in one product. */
static mbl_status_t condition(const mbl_pass_t *p, const mbl_dit_input_t *input) {
    mbl_mmdit_tape_t *tape = p->tape;
    const mbl_mmdit_t *m = p->model;
    mbl_tensor_t time_in = mbl_pass_matrix(p, tape->time_in, p->n, MBL_TIME_FREQUENCIES);
    mbl_tensor_t sum = mbl_pass_matrix(p, tape->condition, p->n, m->width);
    mbl_tensor_t text = mbl_pass_matrix(p, tape->silu, p->n, m->width); /* until silu is made */
    mbl_tensor_t time_pre = mbl_pass_matrix(p, tape->time_pre, p->n, m->width);
    mbl_tensor_t time_post = mbl_pass_matrix(p, tape->time_post, p->n, m->width);
    mbl_tensor_t text_pre = mbl_pass_matrix(p, tape->text_pre, p->n, m->width);
    mbl_tensor_t text_post = mbl_pass_matrix(p, tape->text_post, p->n, m->width);
    MBL_TRY(MBL_OP(p->ops, timestep, .y = &time_in, .t = input->t, .factor = 1000));
    MBL_TRY(mbl_linear_forward(p, &m->time1, tape->time_pre, tape->time_in, 1, NULL));
    MBL_TRY(MBL_OP(p->ops, act, .y = &time_post, .x = &time_pre, .act = MBL_ACT_SILU));
    MBL_TRY(mbl_linear_forward(p, &m->time2, tape->condition, tape->time_post, 1, NULL));
    MBL_TRY(mbl_linear_forward(p, &m->text1, tape->text_pre, input->conditions->pooled.data, 1, NULL));
    MBL_TRY(MBL_OP(p->ops, act, .y = &text_post, .x = &text_pre, .act = MBL_ACT_SILU));
    MBL_TRY(mbl_linear_forward(p, &m->text2, tape->silu, tape->text_post, 1, NULL));
    MBL_TRY(MBL_OP(p->ops, axpby, .y = &sum, .x = &text, .a = 1, .b = 1));
    MBL_TRY(MBL_OP(p->ops, act, .y = &text, .x = &sum, .act = MBL_ACT_SILU));
    return mbl_linear_forward(p, &m->modulation, tape->modulation, tape->silu, 1, NULL);
}

static mbl_status_t embed(const mbl_pass_t *p, const mbl_dit_input_t *input) {
    mbl_mmdit_tape_t *tape = p->tape;
    const mbl_mmdit_t *m = p->model;
    mbl_side_acts_t *image = &tape->acts[0].side[MBL_SIDE_IMAGE];
    mbl_tensor_t patches = mbl_pass_rows(p, tape->patches, tape->tokens[0], m->patch.in);
    mbl_tensor_t x = mbl_pass_rows(p, image->in, tape->tokens[0], m->width);
    mbl_tensor_t position = mbl_pass_matrix(p, tape->position, tape->tokens[0], m->width);
    MBL_TRY(MBL_OP(p->ops, patchify, .tokens = &patches, .image = input->x, .patch = m->config.patch_size,
                   .order = MBL_PATCH_CPQ));
    MBL_TRY(mbl_linear_forward(p, &m->patch, image->in, tape->patches, tape->tokens[0], NULL));
    MBL_TRY(MBL_OP(p->ops, add_rows, .y = &x, .rows = &position));
    return mbl_linear_forward(p, &m->context, tape->acts[0].side[MBL_SIDE_CONTEXT].in,
                              input->conditions->context.data, tape->tokens[1], NULL);
}

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

/* q, k, v of one side, normalised, to tokens first.. of the attention whose buffers `heads` has. */
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
    mbl_tensor_t v = mbl_tensor_of(heads->v, m->base.dtype, space, 4, p->n, n_heads, all, d);
    mbl_tensor_t qkv = mbl_pass_rows(p, acts->qkv, tokens, 3 * m->width);
    mbl_tensor_t rq = mbl_tensor_of(acts->rstd_q, st, space, 3, p->n, tokens, n_heads);
    mbl_tensor_t rk = mbl_tensor_of(acts->rstd_k, st, space, 3, p->n, tokens, n_heads);
    mbl_tensor_t wq = mbl_flat_vector(&m->base.weights, s->norm_q, d),
                 wk = mbl_flat_vector(&m->base.weights, s->norm_k, d);
    bool norm = m->config.qk_norm;
    return MBL_OP(p->ops, qk_norm, .q = &q, .k = &k, .v = &v, .rstd_q = acts->rstd_q ? &rq : NULL,
                  .rstd_k = acts->rstd_k ? &rk : NULL, .qkv = &qkv, .weight_q = norm ? &wq : NULL,
                  .weight_k = norm ? &wk : NULL, .first = first, .eps = MBL_MMDIT_EPS);
}

/* Softmax attention over the heads of `acts`; the image's part and (second NULL: none) the context's. */
static mbl_status_t attend(const mbl_pass_t *p, const mbl_side_acts_t *acts, void *second) {
    const mbl_mmdit_t *m = p->model;
    size_t image = p->tape->tokens[0], all = image + (second ? p->tape->tokens[1] : 0);
    size_t heads = m->config.num_attention_heads, d = m->config.attention_head_dim;
    mbl_space_t space = p->ops->table->space;
    mbl_tensor_t q = mbl_tensor_of(acts->q, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t k = mbl_tensor_of(acts->k, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t v = mbl_tensor_of(acts->v, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t lse = mbl_tensor_of(acts->lse, mbl_dtype_stat(m->base.dtype), space, 3, p->n, heads, all);
    mbl_tensor_t out1 = mbl_pass_rows(p, acts->attended, image, m->width);
    mbl_tensor_t out2 = mbl_pass_rows(p, second, p->tape->tokens[1], m->width);
    return MBL_OP(p->ops, attention, .out1 = &out1, .out2 = second ? &out2 : NULL, .lse = &lse, .q = &q,
                  .k = &k, .v = &v, .scale = 1 / sqrt((double)d));
}

static mbl_status_t joint_attention(const mbl_pass_t *p, size_t layer) {
    mbl_side_acts_t *image = &p->tape->acts[layer].side[MBL_SIDE_IMAGE];
    mbl_side_acts_t *context = &p->tape->acts[layer].side[MBL_SIDE_CONTEXT];
    size_t first = p->tape->tokens[0], all = first + p->tape->tokens[1];
    MBL_TRY(project_heads(p, layer, MBL_SIDE_IMAGE, image, 0, all));
    MBL_TRY(project_heads(p, layer, MBL_SIDE_CONTEXT, image, first, all));
    return attend(p, image, context->attended);
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

static mbl_status_t feed_forward(const mbl_pass_t *p, size_t layer, int side) {
    const mbl_side_t *s = &p->model->blocks[layer].side[side];
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    size_t tokens = mbl_side_tokens(p->tape, side);
    MBL_TRY(mbl_linear_forward_gelu(p, &s->linear[MBL_LINEAR_FF1], acts->post, acts->pre, acts->n_m, tokens,
                                    acts->lora[MBL_LINEAR_FF1]));
    return mbl_linear_forward(p, &s->linear[MBL_LINEAR_FF2], acts->h_m, acts->post, tokens,
                              acts->lora[MBL_LINEAR_FF2]);
}

/* From the attention's output to the next block's normalised input, on one side. */
static mbl_status_t finish_side(const mbl_pass_t *p, size_t layer, int side) {
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
                  second = {block->side[MBL_SIDE_DUAL].gate_a, p->tape->acts[layer].side[MBL_SIDE_DUAL].h_a},
                  net = {s->gate_m, acts->h_m};
    MBL_TRY(project_out(p, layer, side));
    if (dual)
        MBL_TRY(project_out(p, layer, MBL_SIDE_DUAL));
    MBL_TRY(add_and_norm(p, acts->in, &first, dual ? &second : NULL, &norm));
    MBL_TRY(feed_forward(p, layer, side));
    norm_t next = attention_norm(p, layer + 1, side);
    return add_and_norm(p, acts->mid, &net, NULL, &next);
}

static mbl_status_t forward_block(const mbl_pass_t *p, size_t layer) {
    MBL_TRY(joint_attention(p, layer));
    if (p->model->blocks[layer].dual)
        MBL_TRY(dual_attention(p, layer));
    MBL_TRY(finish_side(p, layer, MBL_SIDE_IMAGE));
    return p->model->blocks[layer].last ? MBL_OK : finish_side(p, layer, MBL_SIDE_CONTEXT);
}

/* A block that is left out: its inputs go on as they are, to the norms of the one behind it. Without gradient
 * all blocks have one place for them. */
static mbl_status_t skip_block(const mbl_pass_t *p, size_t layer) {
    for (int side = 0; side < (p->model->blocks[layer].last ? 1 : 2); side++) {
        norm_t norm = attention_norm(p, layer + 1, side);
        MBL_TRY(layer_norm(p, &norm));
    }
    return MBL_OK;
}

/* ---- output ---- */

static mbl_status_t output(const mbl_pass_t *p, const mbl_tensor_t *v) {
    const mbl_mmdit_t *m = p->model;
    mbl_mmdit_tape_t *tape = p->tape;
    mbl_side_acts_t *acts = &tape->acts[m->config.num_layers].side[MBL_SIDE_IMAGE];
    size_t rows = p->n * tape->tokens[0];
    mbl_tensor_t y = mbl_tensor_of(tape->out_tokens, mbl_dtype_stat(m->base.dtype), p->ops->table->space, 2,
                                   rows, m->out.out);
    mbl_tensor_t x = mbl_pass_matrix(p, acts->n_a, rows, m->width);
    mbl_tensor_t w = mbl_flat_matrix(&m->base.weights, m->out.weight, m->out.out, m->width);
    mbl_tensor_t bias = mbl_flat_vector(&m->base.weights, m->out.bias, m->out.out);
    MBL_TRY(MBL_OP(p->ops, matmul, .y = &y, .a = &x, .b = &w, .bias = &bias, .transpose_b = true));
    mbl_tensor_t tokens = mbl_tensor_reshape(&y, 3, p->n, tape->tokens[0], m->out.out);
    return MBL_OP(p->ops, unpatchify, .image = v, .tokens = &tokens, .patch = m->config.patch_size,
                  .order = MBL_PATCH_PQC);
}

static bool shaped(const mbl_tensor_t *t, mbl_dtype_t dtype, int ndim, const size_t *dim) {
    if (!t || t->dtype != dtype || t->ndim != ndim || !mbl_tensor_contiguous(t))
        return false;
    for (int i = 0; i < ndim; i++)
        if (t->dim[i] != dim[i])
            return false;
    return true;
}

static mbl_status_t check_input(const mbl_mmdit_t *m, const mbl_adapter_t *adapter, const mbl_dit_input_t *in,
                                const mbl_mmdit_tape_t *tape, const mbl_tensor_t *v) {
    MBL_REQUIRE(in && in->x && in->t && in->conditions && v,
                "mmdit_forward: model, input, tape and v must be given");
    MBL_REQUIRE(!adapter || adapter->lora == tape->lora,
                "mmdit_forward: the tape was made for another layout of adapters");
    const mbl_mmdit_config_t *c = &m->config;
    mbl_dtype_t st = mbl_dtype_stat(m->base.dtype);
    size_t n = in->x->dim[0];
    MBL_REQUIRE(n > 0 && n <= tape->max_n, "mmdit_forward: %zu samples, the tape holds up to %zu", n,
                tape->max_n);
    MBL_REQUIRE(shaped(in->x, st, 4, (size_t[]){n, c->in_channels, tape->height, tape->width}),
                "mmdit_forward: x must be %s [%zu,%zu,%zu,%zu]", mbl_dtype_name(st), n, c->in_channels,
                tape->height, tape->width);
    MBL_REQUIRE(shaped(v, st, 4, (size_t[]){n, c->out_channels, tape->height, tape->width}),
                "mmdit_forward: v must be %s [%zu,%zu,%zu,%zu]", mbl_dtype_name(st), n, c->out_channels,
                tape->height, tape->width);
    MBL_REQUIRE(!in->skip || tape->kind == MBL_TAPE_NONE,
                "mmdit_forward: blocks left out on a tape with gradient");
    MBL_REQUIRE(shaped(in->t, st, 1, &n), "mmdit_forward: t must be %s [%zu]", mbl_dtype_name(st), n);
    MBL_REQUIRE(shaped(&in->conditions->context, m->base.dtype, 3,
                       (size_t[]){n, tape->tokens[1], c->joint_attention_dim}),
                "mmdit_forward: context must be %s [%zu,%zu,%zu]", mbl_dtype_name(m->base.dtype), n,
                tape->tokens[1], c->joint_attention_dim);
    MBL_REQUIRE(shaped(&in->conditions->pooled, m->base.dtype, 2, (size_t[]){n, c->pooled_projection_dim}),
                "mmdit_forward: pooled must be %s [%zu,%zu]", mbl_dtype_name(m->base.dtype), n,
                c->pooled_projection_dim);
    return MBL_OK;
}

mbl_status_t mbl_mmdit_forward(mbl_dit_t *dit, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                               mbl_tape_t *base, const mbl_tensor_t *v) {
    const mbl_mmdit_t *model = mbl_mmdit_of(dit);
    mbl_mmdit_tape_t *tape = (mbl_mmdit_tape_t *)base;
    MBL_TRY(check_input(model, adapter, input, tape, v));
    mbl_pass_t pass = {
        .ops = dit->ops, .model = model, .adapter = adapter, .tape = tape, .n = input->x->dim[0]};
    tape->n = 0;
    MBL_TRY(crop_position(&pass));
    MBL_TRY(condition(&pass, input));
    MBL_TRY(embed(&pass, input));
    for (int side = 0; side < 2; side++) {
        norm_t norm = attention_norm(&pass, 0, side);
        MBL_TRY(layer_norm(&pass, &norm));
    }
    for (size_t i = 0; i < model->config.num_layers; i++)
        MBL_TRY(input->skip >> i & 1 ? skip_block(&pass, i) : forward_block(&pass, i));
    MBL_TRY(output(&pass, v));
    tape->n = pass.n;
    tape->adapted = adapter != NULL;
    return MBL_OK;
}
