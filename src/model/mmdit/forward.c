/* Forward pass of the MM-DiT: from inputs to the first block's streams, and from the last one's to the
 * velocity. */
#include "model/mmdit/internal.h"

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
    MBL_TRY(mbl_block_begin(&pass, 0));
    for (size_t i = 0; i < model->config.num_layers; i++)
        MBL_TRY(input->skip >> i & 1 ? mbl_block_begin(&pass, i + 1) : mbl_block_forward(&pass, i));
    MBL_TRY(output(&pass, v));
    tape->n = pass.n;
    tape->adapted = adapter != NULL;
    return MBL_OK;
}
