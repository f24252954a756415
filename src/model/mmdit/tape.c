/* Tapes: the memory of a forward and backward pass, counted first, taken once, carved. What backward needs is
 * kept for every block, or made again in one block's room; the rest is shared by all blocks. */
#include "base/mem.h"
#include "model/mmdit/internal.h"

#include <string.h>

typedef struct {
    mbl_arena_t arena;
    mbl_mmdit_tape_t *tape;
    size_t ct, st;         /* bytes of a value and of a statistic */
    mbl_block_acts_t once; /* what blocks share */
} carve_t;

static void *take(carve_t *c, size_t size, size_t columns, size_t rows) {
    size_t values;
    if (!mbl_mul(c->tape->max_n, rows, &values) || !mbl_mul(values, columns, &values))
        values = (size_t)-1;
    return mbl_arena_take(&c->arena, values, size);
}

/* What the gradient of a side needs beyond its streams: inputs of linears, for these have gradients of their
 * own, and columns of X A'. */
typedef struct {
    bool there, net; /* the block has this side; it has a feed-forward net */
    bool input[MBL_LINEARS];
    size_t lora[MBL_LINEARS];
} needs_t;

static needs_t needs_of(const mbl_mmdit_tape_t *tape, size_t layer, int side) {
    const mbl_block_t *block = &tape->model->blocks[layer];
    needs_t needs = {.there = side != MBL_SIDE_DUAL || block->dual};
    for (int l = 0; l < MBL_LINEARS && needs.there; l++) {
        const mbl_linear_t *linear = &block->side[side].linear[l];
        const size_t sites = tape->lora && linear->n ? tape->lora->site[linear->id].m : 0;
        needs.lora[l] = tape->kind == MBL_TAPE_NONE ? 0 : sites * (sites ? tape->lora->config.rank : 0);
        needs.input[l] = tape->kind == MBL_TAPE_FULL || needs.lora[l] > 0;
    }
    needs.net = needs.there && block->side[side].linear[MBL_LINEAR_FF1].n > 0;
    return needs;
}

/* What all blocks before `layers` need together. */
static needs_t needs_before(const mbl_mmdit_tape_t *tape, size_t layers, int side) {
    needs_t all = {0};
    for (size_t i = 0; i < layers; i++) {
        const needs_t needs = needs_of(tape, i, side);
        all.there |= needs.there;
        all.net |= needs.net;
        for (int l = 0; l < MBL_LINEARS; l++) {
            all.input[l] |= needs.input[l];
            all.lora[l] = needs.lora[l] > all.lora[l] ? needs.lora[l] : all.lora[l];
        }
    }
    return all;
}

/* Takes memory for one activation, or points at the one that all blocks share. */
#define KEEP(cond, field, size, columns)                                                                     \
    acts->field = (cond) ? take(c, (size), (columns), tokens) : shared->side[side].field

static void carve_lora(carve_t *c, const needs_t *needs, mbl_side_acts_t *acts, int side) {
    const mbl_block_acts_t *shared = &c->once;
    size_t tokens = mbl_side_tokens(c->tape, side);
    for (int l = 0; l < MBL_LINEARS && c->tape->lora; l++)
        KEEP(needs->lora[l] > 0, lora[l], c->ct, needs->lora[l]);
}

/* All but the input. */
static void carve_side(carve_t *c, const needs_t *needs, mbl_side_acts_t *acts, int side) {
    const mbl_mmdit_tape_t *tape = c->tape;
    const mbl_mmdit_t *m = tape->model;
    const mbl_block_acts_t *shared = &c->once;
    size_t tokens = mbl_side_tokens(tape, side), d = m->width, heads = m->config.num_attention_heads;
    bool grad = tape->kind != MBL_TAPE_NONE, full = tape->kind == MBL_TAPE_FULL;
    bool stream = side != MBL_SIDE_DUAL, net = needs->net;
    KEEP(needs->input[MBL_LINEAR_QKV], n_a, c->ct, d);
    KEEP(grad && stream, mean_a, c->st, 1);
    KEEP(grad && stream, rstd_a, c->st, 1);
    KEEP(grad, qkv, c->ct, 3 * d);
    KEEP(grad && m->config.qk_norm, rstd_q, c->st, heads);
    KEEP(grad && m->config.qk_norm, rstd_k, c->st, heads);
    KEEP(grad, attended, c->ct, d);
    KEEP(full, h_a, c->ct, d);
    KEEP(grad && net, mid, c->ct, d);
    KEEP(net && needs->input[MBL_LINEAR_FF1], n_m, c->ct, d);
    KEEP(grad && net, mean_m, c->st, 1);
    KEEP(grad && net, rstd_m, c->st, 1);
    KEEP(grad && net, pre, c->ct, 4 * d);
    KEEP(net && needs->input[MBL_LINEAR_FF2], post, c->ct, 4 * d);
    KEEP(full && net, h_m, c->ct, d);
    carve_lora(c, needs, acts, side);
    tokens = side == MBL_SIDE_IMAGE ? tape->tokens[0] + tape->tokens[1] : tape->tokens[0];
    bool own = grad && side != MBL_SIDE_CONTEXT; /* the two sides of the joint attention share q and k */
    KEEP(own, q, c->ct, d);
    KEEP(own, k, c->ct, d);
    KEEP(own, lse, c->st, heads);
}

/* The inputs of a block's streams. */
static void carve_inputs(carve_t *c, mbl_block_acts_t *block) {
    const mbl_block_acts_t *shared = &c->once;
    for (int side = 0; side <= MBL_SIDE_CONTEXT; side++) {
        mbl_side_acts_t *acts = &block->side[side];
        size_t tokens = mbl_side_tokens(c->tape, side);
        KEEP(c->tape->kind != MBL_TAPE_NONE, in, c->ct, c->tape->model->width);
    }
}

/* Of the first blocks everything but the inputs is made again for the backward pass, in one block's room. */
static void carve_blocks(carve_t *c) {
    mbl_mmdit_tape_t *tape = c->tape;
    mbl_block_acts_t room = c->once;
    for (int side = 0; side < MBL_SIDES && tape->again > 0; side++) {
        const needs_t needs = needs_before(tape, tape->again, side);
        if (needs.there)
            carve_side(c, &needs, &room.side[side], side);
    }
    for (size_t i = 0; i < tape->model->config.num_layers; i++) {
        for (int side = 0; side < MBL_SIDES; side++) {
            const needs_t needs = needs_of(tape, i, side);
            if (i < tape->again)
                tape->acts[i].side[side] = room.side[side];
            else if (needs.there)
                carve_side(c, &needs, &tape->acts[i].side[side], side);
        }
        carve_inputs(c, &tape->acts[i]);
    }
}

/* One of everything, used by all blocks for what is not kept. */
static void carve_once(carve_t *c) {
    const mbl_mmdit_tape_t *tape = c->tape;
    const mbl_mmdit_t *m = tape->model;
    size_t d = m->width, heads = m->config.num_attention_heads;
    bool none = tape->kind == MBL_TAPE_NONE;
    for (int side = 0; side < MBL_SIDES; side++) {
        mbl_side_acts_t *acts = &c->once.side[side];
        size_t t = mbl_side_tokens(tape, side), all = side == MBL_SIDE_IMAGE ? t + tape->tokens[1] : t;
        void **each[] = {&acts->n_a, &acts->h_a, &acts->n_m,     &acts->h_m,
                         &acts->in,  &acts->mid, &acts->attended};
        for (size_t i = 0; i < sizeof each / sizeof *each; i++)
            if (none || i < 4)
                *each[i] = take(c, c->ct, d, t);
        acts->post = take(c, c->ct, 4 * d, t);
        acts->pre = acts->post;
        for (int l = 0; l < MBL_LINEARS && tape->lora; l++)
            acts->lora[l] = l && none ? acts->lora[0] : none ? take(c, c->ct, tape->lora->widest, t) : NULL;
        if (!none)
            continue;
        acts->qkv = take(c, c->ct, 3 * d, t);
        if (side == MBL_SIDE_CONTEXT)
            continue;
        acts->q = take(c, c->ct, d, all);
        acts->k = take(c, c->ct, d, all);
        acts->lse = take(c, c->st, heads, all);
    }
}

static void carve_ends(carve_t *c) {
    mbl_mmdit_tape_t *tape = c->tape;
    const mbl_mmdit_t *m = tape->model;
    size_t d = m->width, image = tape->tokens[0];
    tape->position = mbl_arena_take(&c->arena, image * d, c->ct);
    tape->patches = take(c, c->ct, m->patch.in, image);
    tape->time_in = take(c, c->ct, MBL_TIME_FREQUENCIES, 1);
    void **vectors[] = {&tape->time_pre,  &tape->time_post, &tape->text_pre,
                        &tape->text_post, &tape->condition, &tape->silu};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = take(c, c->ct, d, 1);
    tape->modulation = take(c, c->ct, m->modulation.out, 1);
    tape->out_tokens = take(c, c->st, m->out.out, image);
}

static void carve_backward(carve_t *c) {
    mbl_mmdit_tape_t *tape = c->tape;
    const mbl_mmdit_t *m = tape->model;
    size_t d = m->width, image = tape->tokens[0], all = image + tape->tokens[1];
    size_t most = tape->tokens[1] > image ? tape->tokens[1] : image;
    for (int side = 0; side < 2; side++) {
        tape->d_stream[side] = take(c, c->ct, d, tape->tokens[side]);
        tape->d_attended[side] = take(c, c->ct, d, tape->tokens[side]);
    }
    for (int side = 0; side < MBL_SIDES; side++)
        tape->d_h[side] = take(c, c->ct, d, mbl_side_tokens(tape, side));
    /* of a feed-forward net, or dqkv of both sides */
    tape->d_wide = take(c, c->ct, d, 4 * most > 3 * all ? 4 * most : 3 * all);
    tape->d_norm = take(c, c->ct, d, most);
    tape->d_q = take(c, c->ct, d, all);
    tape->d_k = take(c, c->ct, d, all);
    if (tape->lora)
        tape->d_lora = take(c, c->ct, tape->lora->widest, most);
    tape->d_tokens = take(c, c->ct, m->out.out, image);
    if (tape->kind != MBL_TAPE_FULL)
        return;
    tape->d_modulation = take(c, c->st, m->modulation.out, 1);
    tape->d_modulation_ct = take(c, c->ct, m->modulation.out, 1);
    tape->d_silu = take(c, c->ct, d, 1);
    tape->d_time = take(c, c->ct, d, 1);
}

/* The input of norm_out, in the place of one more block. */
static void carve_last(carve_t *c, mbl_side_acts_t *acts) {
    const int side = MBL_SIDE_IMAGE;
    const mbl_block_acts_t *shared = &c->once;
    size_t tokens = c->tape->tokens[0], d = c->tape->model->width;
    bool grad = c->tape->kind != MBL_TAPE_NONE;
    KEEP(grad, in, c->ct, d);
    KEEP(c->tape->kind == MBL_TAPE_FULL, n_a, c->ct, d);
    KEEP(grad, mean_a, c->st, 1);
    KEEP(grad, rstd_a, c->st, 1);
}

static size_t carve(mbl_mmdit_tape_t *tape, void *memory, size_t bytes) {
    const mbl_mmdit_t *m = tape->model;
    carve_t c = {.arena = {.base = memory, .size = bytes},
                 .tape = tape,
                 .ct = mbl_dtype_size(m->base.dtype),
                 .st = mbl_dtype_size(mbl_dtype_stat(m->base.dtype))};
    carve_once(&c);
    carve_ends(&c);
    carve_blocks(&c);
    carve_last(&c, &tape->acts[m->config.num_layers].side[MBL_SIDE_IMAGE]);
    if (tape->kind != MBL_TAPE_NONE)
        carve_backward(&c);
    return c.arena.used;
}

static mbl_status_t check_shape(const mbl_mmdit_t *m, const mbl_tape_shape_t *shape) {
    size_t patch = m->config.patch_size, max = m->config.pos_embed_max_size;
    size_t height = shape->height, width = shape->width;
    MBL_REQUIRE(shape->max_n > 0 && shape->context_tokens > 0,
                "tape_new: at least one sample and one context token");
    MBL_REQUIRE(height > 0 && width > 0 && height % patch == 0 && width % patch == 0,
                "tape_new: images of %zu x %zu cannot be cut into patches of %zu", height, width, patch);
    MBL_REQUIRE(height / patch <= max && width / patch <= max,
                "tape_new: images of %zu x %zu have more patches than pos_embed_max_size %zu a side", height,
                width, max);
    return MBL_OK;
}

static mbl_mmdit_tape_t tape_of(const mbl_mmdit_t *model, const mbl_lora_t *lora,
                                const mbl_tape_shape_t *shape) {
    const size_t patch = model->config.patch_size, layers = model->config.num_layers;
    const size_t again = shape->again < layers ? shape->again : layers;
    return (mbl_mmdit_tape_t){
        .base = {.model = &model->base},
        .model = model,
        .lora = lora,
        .kind = shape->kind,
        .max_n = shape->max_n,
        .height = shape->height,
        .width = shape->width,
        .tokens = {shape->height / patch * (shape->width / patch), shape->context_tokens},
        .again = shape->kind == MBL_TAPE_NONE ? 0 : again};
}

mbl_status_t mbl_mmdit_tape_count(const mbl_dit_t *model, const mbl_lora_t *lora,
                                  const mbl_tape_shape_t *shape, size_t *bytes) {
    const mbl_mmdit_t *m = mbl_mmdit_of(model);
    MBL_TRY(check_shape(m, shape));
    mbl_mmdit_tape_t tape = tape_of(m, lora, shape);
    MBL_ALLOC(tape.acts, m->config.num_layers + 1);
    *bytes = carve(&tape, NULL, 0);
    mbl_free(tape.acts);
    return MBL_OK;
}

mbl_status_t mbl_mmdit_tape_new(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                                mbl_tape_t **out) {
    const mbl_mmdit_t *m = mbl_mmdit_of(model);
    MBL_TRY(check_shape(m, shape));
    mbl_mmdit_tape_t *tape;
    mbl_status_t status;
    MBL_ALLOC(tape, 1);
    *tape = tape_of(m, lora, shape);
    MBL_ALLOC_GOTO(tape->acts, m->config.num_layers + 1, fail);
    tape->base.bytes = carve(tape, NULL, 0);
    MBL_TRY_GOTO(model->ops->table->alloc(model->ops, tape->base.bytes, &tape->memory), fail);
    carve(tape, tape->memory, tape->base.bytes);
    *out = &tape->base;
    return MBL_OK;
fail:
    mbl_mmdit_tape_free(&tape->base);
    return status;
}

void mbl_mmdit_tape_free(mbl_tape_t *base) {
    mbl_mmdit_tape_t *tape = (mbl_mmdit_tape_t *)base;
    mbl_ops_t *ops = base->model->ops;
    if (tape->memory)
        ops->table->free(ops, tape->memory);
    mbl_free(tape->acts);
    mbl_free(tape);
}
