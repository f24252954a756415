/* Tapes: the memory of a forward and backward pass, counted first, taken once, carved. What backward needs is
 * kept for every block; the rest is shared by all blocks. */
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

/* What a linear's input must be kept for: its own gradient. */
static bool kept_input(const mbl_mmdit_tape_t *tape, const mbl_linear_t *linear) {
    if (tape->kind == MBL_TAPE_FULL)
        return true;
    return tape->kind == MBL_TAPE_LORA && tape->lora && linear->n && tape->lora->site[linear->id].m > 0;
}

/* Takes memory for one activation, or points at the shared one. */
#define KEEP(cond, field, size, columns)                                                                     \
    acts->field = (cond) ? take(c, (size), (columns), tokens) : c->once.side[side].field

static void carve_lora(carve_t *c, const mbl_side_t *s, mbl_side_acts_t *acts, int side) {
    size_t tokens = mbl_side_tokens(c->tape, side);
    for (int l = 0; l < MBL_LINEARS && c->tape->lora; l++) {
        size_t m = s->linear[l].n ? c->tape->lora->site[s->linear[l].id].m : 0;
        KEEP(c->tape->kind != MBL_TAPE_NONE && m, lora[l], c->ct, m * c->tape->lora->config.rank);
    }
}

static void carve_side(carve_t *c, const mbl_side_t *s, mbl_side_acts_t *acts, int side) {
    const mbl_mmdit_tape_t *tape = c->tape;
    const mbl_mmdit_t *m = tape->model;
    size_t tokens = mbl_side_tokens(tape, side), d = m->width, heads = m->config.num_attention_heads;
    bool grad = tape->kind != MBL_TAPE_NONE, full = tape->kind == MBL_TAPE_FULL;
    bool stream = side != MBL_SIDE_DUAL, net = s->linear[MBL_LINEAR_FF1].n > 0;
    KEEP(grad && stream, in, c->ct, d);
    KEEP(kept_input(tape, &s->linear[MBL_LINEAR_QKV]), n_a, c->ct, d);
    KEEP(grad && stream, mean_a, c->st, 1);
    KEEP(grad && stream, rstd_a, c->st, 1);
    KEEP(grad, qkv, c->ct, 3 * d);
    KEEP(grad && m->config.qk_norm, rstd_q, c->st, heads);
    KEEP(grad && m->config.qk_norm, rstd_k, c->st, heads);
    KEEP(grad, attended, c->ct, d);
    KEEP(full, h_a, c->ct, d);
    KEEP(grad && net, mid, c->ct, d);
    KEEP(net && kept_input(tape, &s->linear[MBL_LINEAR_FF1]), n_m, c->ct, d);
    KEEP(grad && net, mean_m, c->st, 1);
    KEEP(grad && net, rstd_m, c->st, 1);
    KEEP(grad && net, pre, c->ct, 4 * d);
    KEEP(net && kept_input(tape, &s->linear[MBL_LINEAR_FF2]), post, c->ct, 4 * d);
    KEEP(full && net, h_m, c->ct, d);
    carve_lora(c, s, acts, side);
    tokens = side == MBL_SIDE_IMAGE ? tape->tokens[0] + tape->tokens[1] : tape->tokens[0];
    bool own = grad && side != MBL_SIDE_CONTEXT; /* the two sides of the joint attention share q, k, v */
    KEEP(own, q, c->ct, d);
    KEEP(own, k, c->ct, d);
    KEEP(own, v, c->ct, d);
    KEEP(own, lse, c->st, heads);
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
        void **head[] = {&acts->q, &acts->k, &acts->v};
        for (size_t i = 0; i < 3; i++)
            *head[i] = take(c, c->ct, d, all);
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
    tape->d_wide = take(c, c->ct, 4 * d, most);
    tape->d_norm = take(c, c->ct, d, most);
    tape->d_q = take(c, c->ct, d, all);
    tape->d_k = take(c, c->ct, d, all);
    tape->d_v = take(c, c->ct, d, all);
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
    for (size_t i = 0; i < m->config.num_layers; i++)
        for (int side = 0; side < MBL_SIDES; side++)
            if (side != MBL_SIDE_DUAL || m->blocks[i].dual)
                carve_side(&c, &m->blocks[i].side[side], &tape->acts[i].side[side], side);
    carve_last(&c, &tape->acts[m->config.num_layers].side[MBL_SIDE_IMAGE]);
    if (tape->kind != MBL_TAPE_NONE)
        carve_backward(&c);
    return c.arena.used;
}

static mbl_status_t check_shape(const mbl_mmdit_t *m, size_t max_n, size_t height, size_t width,
                                size_t context_tokens) {
    size_t patch = m->config.patch_size, max = m->config.pos_embed_max_size;
    MBL_REQUIRE(max_n > 0 && context_tokens > 0, "tape_new: at least one sample and one context token");
    MBL_REQUIRE(height > 0 && width > 0 && height % patch == 0 && width % patch == 0,
                "tape_new: images of %zu x %zu cannot be cut into patches of %zu", height, width, patch);
    MBL_REQUIRE(height / patch <= max && width / patch <= max,
                "tape_new: images of %zu x %zu have more patches than pos_embed_max_size %zu a side", height,
                width, max);
    return MBL_OK;
}

static mbl_mmdit_tape_t shape_of(const mbl_mmdit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind,
                                 size_t max_n, size_t height, size_t width, size_t context_tokens) {
    size_t patch = model->config.patch_size;
    return (mbl_mmdit_tape_t){.base = {.model = &model->base},
                              .model = model,
                              .lora = lora,
                              .kind = kind,
                              .max_n = max_n,
                              .height = height,
                              .width = width,
                              .tokens = {height / patch * (width / patch), context_tokens}};
}

mbl_status_t mbl_mmdit_tape_count(const mbl_dit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind,
                                  size_t max_n, size_t height, size_t width, size_t context_tokens,
                                  size_t *bytes) {
    const mbl_mmdit_t *m = mbl_mmdit_of(model);
    MBL_TRY(check_shape(m, max_n, height, width, context_tokens));
    mbl_mmdit_tape_t tape = shape_of(m, lora, kind, max_n, height, width, context_tokens);
    MBL_ALLOC(tape.acts, m->config.num_layers + 1);
    *bytes = carve(&tape, NULL, 0);
    mbl_free(tape.acts);
    return MBL_OK;
}

mbl_status_t mbl_mmdit_tape_new(const mbl_dit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind,
                                size_t max_n, size_t height, size_t width, size_t context_tokens,
                                mbl_tape_t **out) {
    const mbl_mmdit_t *m = mbl_mmdit_of(model);
    MBL_TRY(check_shape(m, max_n, height, width, context_tokens));
    mbl_mmdit_tape_t *tape;
    mbl_status_t status;
    MBL_ALLOC(tape, 1);
    *tape = shape_of(m, lora, kind, max_n, height, width, context_tokens);
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
