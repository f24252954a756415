/* Backward pass of the MM-DiT: d_stream[side] carries the gradient of the residual stream down the blocks.
 * LoRA passes leave out what only the weights need and end at the lowest block that has an adapter. */
#include "model/mmdit/internal.h"

#include <math.h>

static mbl_status_t zero_rows(const mbl_pass_t *p, void *data, size_t tokens, size_t columns) {
    mbl_tensor_t t = mbl_pass_rows(p, data, tokens, columns);
    return mbl_tensor_zero(p->ops, &t);
}

/* d_stream += through y = norm(in) (1 + scale) + shift, from d_norm. */
static mbl_status_t norm_backward(const mbl_pass_t *p, int side, void *in, void *mean, void *rstd,
                                  size_t scale, size_t shift) {
    size_t tokens = mbl_side_tokens(p->tape, side), width = p->model->width;
    int stream = side == MBL_SIDE_CONTEXT;
    mbl_tensor_t dx = mbl_pass_rows(p, p->tape->d_stream[stream], tokens, width);
    mbl_tensor_t dy = mbl_pass_rows(p, p->tape->d_norm, tokens, width);
    mbl_tensor_t x = mbl_pass_rows(p, in, tokens, width);
    mbl_tensor_t m = mbl_pass_stat(p, mean, tokens), r = mbl_pass_stat(p, rstd, tokens);
    mbl_tensor_t scales = mbl_pass_modulation(p, scale);
    bool full = p->sink->full;
    mbl_tensor_t dscale = {0}, dshift = {0};
    if (full) {
        dscale = mbl_pass_d_modulation(p, scale);
        dshift = mbl_pass_d_modulation(p, shift);
    }
    return MBL_OP(p->ops, layer_norm_bwd, .dx = &dx, .dscale = full ? &dscale : NULL,
                  .dshift = full ? &dshift : NULL, .dy = &dy, .x = &x, .mean = &m, .rstd = &r,
                  .scale = &scales);
}

/* d_h[side] = gate d_stream (and dgate, which needs h). */
static mbl_status_t gate_backward(const mbl_pass_t *p, int side, size_t gate_column, void *h) {
    size_t tokens = mbl_side_tokens(p->tape, side), width = p->model->width;
    mbl_tensor_t dh = mbl_pass_rows(p, p->tape->d_h[side], tokens, width);
    mbl_tensor_t dy = mbl_pass_rows(p, p->tape->d_stream[side == MBL_SIDE_CONTEXT], tokens, width);
    mbl_tensor_t gate = mbl_pass_modulation(p, gate_column), ht = mbl_pass_rows(p, h, tokens, width);
    bool full = p->sink->full;
    mbl_tensor_t dgate = {0};
    if (full)
        dgate = mbl_pass_d_modulation(p, gate_column);
    return MBL_OP(p->ops, gate_bwd, .dh = &dh, .dgate = full ? &dgate : NULL, .dy = &dy, .gate = &gate,
                  .h = full ? &ht : NULL);
}

static mbl_status_t feed_forward_backward(const mbl_pass_t *p, size_t layer, int side) {
    const mbl_side_t *s = &p->model->blocks[layer].side[side];
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    mbl_mmdit_tape_t *tape = p->tape;
    size_t tokens = mbl_side_tokens(tape, side);
    MBL_TRY(gate_backward(p, side, s->gate_m, acts->h_m));
    MBL_TRY(mbl_linear_backward(p, &s->linear[MBL_LINEAR_FF2], tape->d_wide, tape->d_h[side], acts->post,
                                tokens, acts->lora[MBL_LINEAR_FF2], acts->pre));
    MBL_TRY(mbl_linear_backward(p, &s->linear[MBL_LINEAR_FF1], tape->d_norm, tape->d_wide, acts->n_m, tokens,
                                acts->lora[MBL_LINEAR_FF1], NULL));
    return norm_backward(p, side, acts->mid, acts->mean_m, acts->rstd_m, s->scale_m, s->shift_m);
}

static mbl_status_t project_out_backward(const mbl_pass_t *p, size_t layer, int side) {
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    return mbl_linear_backward(p, &p->model->blocks[layer].side[side].linear[MBL_LINEAR_OUT],
                               p->tape->d_attended[side == MBL_SIDE_CONTEXT], p->tape->d_h[side],
                               acts->attended, mbl_side_tokens(p->tape, side), acts->lora[MBL_LINEAR_OUT],
                               NULL);
}

/* Where dqkv of a side's tokens is made: in d_wide, the context's behind the image's, for attention leaves
 * the gradients of both sides' values there at once. */
static void *d_qkv(const mbl_pass_t *p, int side) {
    const size_t before = side == MBL_SIDE_CONTEXT ? p->n * p->tape->tokens[0] * 3 * p->model->width : 0;
    return (char *)p->tape->d_wide + before * mbl_dtype_size(p->model->base.dtype);
}

/* d_attended to d_q, d_k and the values' part of dqkv. */
static mbl_status_t attend_backward(const mbl_pass_t *p, const mbl_side_acts_t *acts,
                                    const mbl_side_acts_t *second) {
    const mbl_mmdit_t *m = p->model;
    mbl_mmdit_tape_t *tape = p->tape;
    size_t image = tape->tokens[0], all = image + (second ? tape->tokens[1] : 0);
    size_t heads = m->config.num_attention_heads, d = m->config.attention_head_dim;
    mbl_space_t space = p->ops->table->space;
    mbl_tensor_t q = mbl_tensor_of(acts->q, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t k = mbl_tensor_of(acts->k, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t dq = mbl_tensor_of(tape->d_q, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t dk = mbl_tensor_of(tape->d_k, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t lse = mbl_tensor_of(acts->lse, mbl_dtype_stat(m->base.dtype), space, 3, p->n, heads, all);
    mbl_tensor_t out1 = mbl_pass_rows(p, acts->attended, image, m->width);
    mbl_tensor_t dout1 = mbl_pass_rows(p, tape->d_attended[0], image, m->width);
    mbl_tensor_t v1 = mbl_pass_values(p, acts->qkv, image);
    mbl_tensor_t dv1 = mbl_pass_values(p, d_qkv(p, MBL_SIDE_IMAGE), image);
    mbl_tensor_t out2 = {0}, dout2 = {0}, v2 = {0}, dv2 = {0};
    if (second) {
        out2 = mbl_pass_rows(p, second->attended, tape->tokens[1], m->width);
        dout2 = mbl_pass_rows(p, tape->d_attended[1], tape->tokens[1], m->width);
        v2 = mbl_pass_values(p, second->qkv, tape->tokens[1]);
        dv2 = mbl_pass_values(p, d_qkv(p, MBL_SIDE_CONTEXT), tape->tokens[1]);
    }
    return MBL_OP(p->ops, attention_bwd, .dq = &dq, .dk = &dk, .dv1 = &dv1, .dv2 = second ? &dv2 : NULL,
                  .dout1 = &dout1, .dout2 = second ? &dout2 : NULL, .out1 = &out1,
                  .out2 = second ? &out2 : NULL, .lse = &lse, .q = &q, .k = &k, .v1 = &v1,
                  .v2 = second ? &v2 : NULL, .scale = 1 / sqrt((double)d));
}

/* d_q, d_k of one side's tokens through the head norms: dqkv is whole. */
static mbl_status_t heads_backward(const mbl_pass_t *p, size_t layer, int side, size_t first, size_t all) {
    const mbl_mmdit_t *m = p->model;
    const mbl_side_t *s = &m->blocks[layer].side[side];
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    mbl_mmdit_tape_t *tape = p->tape;
    size_t tokens = mbl_side_tokens(tape, side), heads = m->config.num_attention_heads;
    size_t d = m->config.attention_head_dim;
    mbl_dtype_t st = mbl_dtype_stat(m->base.dtype);
    mbl_space_t space = p->ops->table->space;
    mbl_tensor_t dq = mbl_tensor_of(tape->d_q, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t dk = mbl_tensor_of(tape->d_k, m->base.dtype, space, 4, p->n, heads, all, d);
    mbl_tensor_t dqkv = mbl_pass_rows(p, d_qkv(p, side), tokens, 3 * m->width);
    mbl_tensor_t qkv = mbl_pass_rows(p, acts->qkv, tokens, 3 * m->width);
    mbl_tensor_t rq = mbl_tensor_of(acts->rstd_q, st, space, 3, p->n, tokens, heads);
    mbl_tensor_t rk = mbl_tensor_of(acts->rstd_k, st, space, 3, p->n, tokens, heads);
    mbl_tensor_t wq = mbl_flat_vector(&m->base.weights, s->norm_q, d),
                 wk = mbl_flat_vector(&m->base.weights, s->norm_k, d);
    bool norm = m->config.qk_norm, full = norm && p->sink->full;
    mbl_tensor_t dwq = {0}, dwk = {0};
    if (full) {
        dwq = mbl_flat_vector(p->sink->full, s->norm_q, d);
        dwk = mbl_flat_vector(p->sink->full, s->norm_k, d);
    }
    return MBL_OP(p->ops, qk_norm_bwd, .dqkv = &dqkv, .dweight_q = full ? &dwq : NULL,
                  .dweight_k = full ? &dwk : NULL, .dq = &dq, .dk = &dk, .qkv = &qkv,
                  .rstd_q = norm ? &rq : NULL, .rstd_k = norm ? &rk : NULL, .weight_q = norm ? &wq : NULL,
                  .weight_k = norm ? &wk : NULL, .first = first);
}

/* From d_q, d_k and the values' gradient down to the stream the attention read (`down` false: only the
 * gradients on the way). */
static mbl_status_t project_heads_backward(const mbl_pass_t *p, size_t layer, int side, size_t first,
                                           size_t all, bool down) {
    const mbl_side_t *s = &p->model->blocks[layer].side[side];
    mbl_side_acts_t *acts = &p->tape->acts[layer].side[side];
    int stream = side == MBL_SIDE_CONTEXT ? MBL_SIDE_CONTEXT : MBL_SIDE_IMAGE;
    mbl_side_acts_t *from = &p->tape->acts[layer].side[stream];
    if (!down && !mbl_pass_site(p, &s->linear[MBL_LINEAR_QKV]))
        return MBL_OK;
    MBL_TRY(heads_backward(p, layer, side, first, all));
    MBL_TRY(mbl_linear_backward(p, &s->linear[MBL_LINEAR_QKV], down ? p->tape->d_norm : NULL, d_qkv(p, side),
                                acts->n_a, mbl_side_tokens(p->tape, side), acts->lora[MBL_LINEAR_QKV], NULL));
    return down ? norm_backward(p, side, from->in, from->mean_a, from->rstd_a, s->scale_a, s->shift_a)
                : MBL_OK;
}

static mbl_status_t attention_backward(const mbl_pass_t *p, size_t layer, bool down) {
    const mbl_block_t *block = &p->model->blocks[layer];
    mbl_mmdit_tape_t *tape = p->tape;
    mbl_side_acts_t *acts = tape->acts[layer].side;
    size_t image = tape->tokens[0], all = image + tape->tokens[1];
    /* both gates see the gradient after the attentions: before either adds to it */
    MBL_TRY(gate_backward(p, MBL_SIDE_IMAGE, block->side[MBL_SIDE_IMAGE].gate_a, acts[MBL_SIDE_IMAGE].h_a));
    if (block->dual) {
        MBL_TRY(gate_backward(p, MBL_SIDE_DUAL, block->side[MBL_SIDE_DUAL].gate_a, acts[MBL_SIDE_DUAL].h_a));
        MBL_TRY(project_out_backward(p, layer, MBL_SIDE_DUAL));
        MBL_TRY(attend_backward(p, &acts[MBL_SIDE_DUAL], NULL));
        MBL_TRY(project_heads_backward(p, layer, MBL_SIDE_DUAL, 0, image, down));
    }
    MBL_TRY(project_out_backward(p, layer, MBL_SIDE_IMAGE));
    if (block->last) {
        MBL_TRY(zero_rows(p, tape->d_attended[1], tape->tokens[1], p->model->width));
    } else {
        MBL_TRY(gate_backward(p, MBL_SIDE_CONTEXT, block->side[MBL_SIDE_CONTEXT].gate_a,
                              acts[MBL_SIDE_CONTEXT].h_a));
        MBL_TRY(project_out_backward(p, layer, MBL_SIDE_CONTEXT));
    }
    MBL_TRY(attend_backward(p, &acts[MBL_SIDE_IMAGE], &acts[MBL_SIDE_CONTEXT]));
    MBL_TRY(project_heads_backward(p, layer, MBL_SIDE_IMAGE, 0, all, down));
    return project_heads_backward(p, layer, MBL_SIDE_CONTEXT, image, all, down);
}

static mbl_status_t output_backward(const mbl_pass_t *p, const mbl_tensor_t *dv) {
    const mbl_mmdit_t *m = p->model;
    mbl_mmdit_tape_t *tape = p->tape;
    mbl_side_acts_t *acts = &tape->acts[m->config.num_layers].side[MBL_SIDE_IMAGE];
    mbl_tensor_t tokens = mbl_pass_rows(p, tape->d_tokens, tape->tokens[0], m->out.out);
    MBL_TRY(MBL_OP(p->ops, patchify, .tokens = &tokens, .image = dv, .patch = m->config.patch_size,
                   .order = MBL_PATCH_PQC));
    MBL_TRY(mbl_linear_backward(p, &m->out, tape->d_norm, tape->d_tokens, acts->n_a, tape->tokens[0], NULL,
                                NULL));
    for (int side = 0; side < 2; side++)
        MBL_TRY(zero_rows(p, tape->d_stream[side], tape->tokens[side], m->width));
    return norm_backward(p, MBL_SIDE_IMAGE, acts->in, acts->mean_a, acts->rstd_a, m->scale_out, m->shift_out);
}

/* dx of two linears with silu between, from d [N,D] of the second's output: only their weights matter. */
static mbl_status_t embedder_backward(const mbl_pass_t *p, const mbl_linear_t *first,
                                      const mbl_linear_t *second, void *d, void *in, void *pre, void *post) {
    mbl_tensor_t dt = mbl_pass_matrix(p, p->tape->d_time, p->n, second->in);
    mbl_tensor_t pre_t = mbl_pass_matrix(p, pre, p->n, second->in);
    MBL_TRY(mbl_linear_backward(p, second, p->tape->d_time, d, post, 1, NULL, NULL));
    MBL_TRY(MBL_OP(p->ops, act_bwd, .dx = &dt, .dy = &dt, .x = &pre_t, .act = MBL_ACT_SILU));
    return mbl_linear_backward(p, first, NULL, p->tape->d_time, in, 1, NULL, NULL);
}

/* The gradients of the modulations, then of what they are made from. */
static mbl_status_t condition_backward(const mbl_pass_t *p, const mbl_dit_input_t *input) {
    const mbl_mmdit_t *m = p->model;
    mbl_mmdit_tape_t *tape = p->tape;
    mbl_tensor_t wide = mbl_tensor_of(tape->d_modulation, mbl_dtype_stat(m->base.dtype), p->ops->table->space,
                                      2, p->n, m->modulation.out);
    mbl_tensor_t narrow = mbl_pass_matrix(p, tape->d_modulation_ct, p->n, m->modulation.out);
    if (wide.dtype == narrow.dtype)
        narrow = wide;
    else
        MBL_TRY(MBL_OP(p->ops, convert, .dst = &narrow, .src = &wide));
    MBL_TRY(mbl_linear_backward(p, &m->modulation, tape->d_silu, narrow.data, tape->silu, 1, NULL, NULL));
    mbl_tensor_t d = mbl_pass_matrix(p, tape->d_silu, p->n, m->width);
    mbl_tensor_t sum = mbl_pass_matrix(p, tape->condition, p->n, m->width);
    MBL_TRY(MBL_OP(p->ops, act_bwd, .dx = &d, .dy = &d, .x = &sum, .act = MBL_ACT_SILU));
    MBL_TRY(embedder_backward(p, &m->time1, &m->time2, tape->d_silu, tape->time_in, tape->time_pre,
                              tape->time_post));
    return embedder_backward(p, &m->text1, &m->text2, tape->d_silu, input->conditions->pooled.data,
                             tape->text_pre, tape->text_post);
}

static mbl_status_t input_backward(const mbl_pass_t *p, const mbl_dit_input_t *input) {
    const mbl_mmdit_t *m = p->model;
    mbl_mmdit_tape_t *tape = p->tape;
    MBL_TRY(mbl_linear_backward(p, &m->patch, NULL, tape->d_stream[0], tape->patches, tape->tokens[0], NULL,
                                NULL));
    MBL_TRY(mbl_linear_backward(p, &m->context, NULL, tape->d_stream[1], input->conditions->context.data,
                                tape->tokens[1], NULL, NULL));
    return condition_backward(p, input);
}

static mbl_status_t check_sink(const mbl_mmdit_t *m, const mbl_adapter_t *adapter,
                               const mbl_mmdit_tape_t *tape, const mbl_tensor_t *dv,
                               const mbl_gradient_sink_t *sink) {
    mbl_dtype_t st = mbl_dtype_stat(m->base.dtype);
    MBL_REQUIRE(tape->kind != MBL_TAPE_NONE && tape->n > 0, "mmdit_backward: the tape holds no forward pass");
    MBL_REQUIRE(tape->adapted == (adapter != NULL) && (!adapter || adapter->lora == tape->lora),
                "mmdit_backward: the adapter is not that of the forward pass");
    MBL_REQUIRE(dv->dtype == st && dv->ndim == 4 && dv->dim[0] == tape->n,
                "mmdit_backward: dv must be %s of the %zu samples of the forward pass", mbl_dtype_name(st),
                tape->n);
    MBL_REQUIRE(!sink->full || tape->kind == MBL_TAPE_FULL,
                "mmdit_backward: all weights' gradient needs a FULL tape");
    MBL_REQUIRE(!sink->full || (sink->full->dtype == st && sink->full->ndim == 1 &&
                                sink->full->dim[0] == m->base.n_weights),
                "mmdit_backward: full must be %s [%zu]", mbl_dtype_name(st), m->base.n_weights);
    if (!sink->sets)
        return MBL_OK;
    MBL_REQUIRE(adapter, "mmdit_backward: gradient sets without an adapter");
    MBL_REQUIRE(sink->sets->dtype == MBL_F64 && sink->sets->ndim == 2 &&
                    sink->sets->dim[1] == mbl_lora_room(adapter->lora),
                "mmdit_backward: sets must be f64 [K,%zu]", mbl_lora_room(adapter->lora));
    MBL_REQUIRE(sink->coefficient && sink->coefficient->dtype == MBL_F32 && sink->coefficient->ndim == 2 &&
                    sink->coefficient->dim[0] == sink->sets->dim[0] && sink->coefficient->dim[1] == tape->n,
                "mmdit_backward: coefficient must be f32 [%zu,%zu]", sink->sets->dim[0], tape->n);
    return MBL_OK;
}

mbl_status_t mbl_mmdit_backward(mbl_dit_t *dit, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                                mbl_tape_t *base, const mbl_tensor_t *dv, const mbl_gradient_sink_t *sink) {
    const mbl_mmdit_t *model = mbl_mmdit_of(dit);
    mbl_mmdit_tape_t *tape = (mbl_mmdit_tape_t *)base;
    MBL_REQUIRE(input && dv && sink && (sink->sets || sink->full),
                "mmdit_backward: model, input, tape, dv and a sink must be given");
    MBL_TRY(check_sink(model, adapter, tape, dv, sink));
    mbl_pass_t pass = {
        .ops = model->base.ops, .model = model, .adapter = adapter, .tape = tape, .sink = sink, .n = tape->n};
    size_t lowest = sink->full ? 0 : adapter->lora->first_block;
    if (sink->full) {
        mbl_tensor_t all = mbl_tensor_of(tape->d_modulation, mbl_dtype_stat(model->base.dtype),
                                         model->base.ops->table->space, 2, pass.n, model->modulation.out);
        MBL_TRY(mbl_tensor_zero(model->base.ops, &all));
    }
    MBL_TRY(output_backward(&pass, dv));
    for (size_t i = model->config.num_layers; i-- > lowest;) {
        if (i < tape->again)
            MBL_TRY(mbl_block_again(&pass, i));
        if (!model->blocks[i].last)
            MBL_TRY(feed_forward_backward(&pass, i, MBL_SIDE_CONTEXT));
        MBL_TRY(feed_forward_backward(&pass, i, MBL_SIDE_IMAGE));
        MBL_TRY(attention_backward(&pass, i, sink->full || i > lowest));
    }
    return sink->full ? input_backward(&pass, input) : MBL_OK;
}
