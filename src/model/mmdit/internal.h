/* What the files of the MM-DiT share: where every weight lies, what a tape holds, and the views that the
 * passes make of both. Nothing here is for callers outside src/model. */
#ifndef MBL_MODEL_MMDIT_INTERNAL_H
#define MBL_MODEL_MMDIT_INTERNAL_H

#include "model/lora_layout.h"
#include "model/mmdit/mmdit.h"

enum { MBL_TIME_FREQUENCIES = 256 };
#define MBL_MMDIT_EPS 1e-6

/* n linears of one input side by side: weight [n out, in] and bias [n out] at these places of the flat
 * vector. n = 0: absent. `id`: the group of the
 * list of linears (dit.h), which indexes mbl_lora_t.site; MBL_NO_SITE: never adapted. */
#define MBL_NO_SITE ((size_t)-1)
typedef struct {
    size_t weight, bias, in, out, n, id;
} mbl_linear_t;

/* A block has an image side, a context side, and with dual attention a second attention over the image. */
enum { MBL_SIDE_IMAGE, MBL_SIDE_CONTEXT, MBL_SIDE_DUAL, MBL_SIDES };
enum { MBL_LINEAR_QKV, MBL_LINEAR_OUT, MBL_LINEAR_FF1, MBL_LINEAR_FF2, MBL_LINEARS };
typedef struct {
    mbl_linear_t linear[MBL_LINEARS];
    size_t norm_q, norm_k; /* in the flat vector */
    /* columns of the modulation [N,M]: a for attention, m for the feed-forward net */
    size_t shift_a, scale_a, gate_a, shift_m, scale_m, gate_m;
} mbl_side_t;
typedef struct {
    mbl_side_t side[MBL_SIDES];
    bool dual, last; /* last: the context ends here */
} mbl_block_t;

enum { MBL_MMDIT_DUAL, MBL_MMDIT_PLAIN }; /* kinds of block */

typedef struct {
    mbl_dit_t base;
    mbl_mmdit_config_t config;
    size_t width;
    mbl_linear_t patch, time1, time2, text1, text2, context, modulation, out;
    size_t position, shift_out, scale_out;
    mbl_block_t *blocks;
} mbl_mmdit_t;

static inline const mbl_mmdit_t *mbl_mmdit_of(const mbl_dit_t *model) {
    return (const mbl_mmdit_t *)model;
}

/* Fills params, linears and blocks from config; needs base and config set. Frees with the model. */
mbl_status_t mbl_mmdit_layout(mbl_mmdit_t *model);
mbl_dit_sizes_t mbl_mmdit_sizes(const mbl_mmdit_config_t *config);

/* The slots of the table (dit_family.h) that have files of their own. */
mbl_status_t mbl_mmdit_tape_new(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                                mbl_tape_t **out);
void mbl_mmdit_tape_free(mbl_tape_t *tape);
mbl_status_t mbl_mmdit_tape_count(const mbl_dit_t *model, const mbl_lora_t *lora,
                                  const mbl_tape_shape_t *shape, size_t *bytes);
mbl_status_t mbl_mmdit_forward(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                               mbl_tape_t *tape, const mbl_tensor_t *v);
mbl_status_t mbl_mmdit_backward(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                                mbl_tape_t *tape, const mbl_tensor_t *dv, const mbl_gradient_sink_t *sink);

/* ---- tape ---- */

/* Activations of a side of a block; n* are normalised, *_a for attention, *_m for the feed-forward net. */
typedef struct {
    void *in, *n_a, *mean_a, *rstd_a, *qkv, *rstd_q, *rstd_k, *q, *k, *lse, *attended, *h_a;
    void *mid, *n_m, *mean_m, *rstd_m, *pre, *post, *h_m;
    void *lora[MBL_LINEARS]; /* X A' of each linear */
} mbl_side_acts_t;
typedef struct {
    mbl_side_acts_t side[MBL_SIDES];
} mbl_block_acts_t;

typedef struct {
    mbl_tape_t base;
    const mbl_mmdit_t *model;
    const mbl_lora_t *lora;
    mbl_tape_kind_t kind;
    size_t max_n, height, width, tokens[2]; /* image, context */
    size_t again;                           /* of the blocks before this one only the inputs are kept */
    void *memory;
    size_t n; /* samples of the last forward; 0: none yet */
    bool adapted;
    uint64_t version; /* of the weights `position` was cut from */
    bool position_ready;
    void *position, *patches, *time_in, *time_pre, *time_post, *text_pre, *text_post, *condition, *silu,
        *modulation;
    mbl_block_acts_t *acts; /* [layers + 1]: the last holds the input of norm_out (in, n_a, mean_a, rstd_a) */
    void *out_tokens;
    /* backward */
    void *d_stream[2], *d_h[MBL_SIDES], *d_attended[2], *d_wide, *d_norm, *d_q, *d_k, *d_lora;
    void *d_tokens, *d_modulation, *d_modulation_ct, *d_silu, *d_time;
} mbl_mmdit_tape_t;

/* ---- one pass over the model ---- */

typedef struct {
    mbl_ops_t *ops;
    const mbl_mmdit_t *model;
    const mbl_adapter_t *adapter;
    mbl_mmdit_tape_t *tape;
    const mbl_gradient_sink_t *sink;
    size_t n;
} mbl_pass_t;

static inline size_t mbl_side_tokens(const mbl_mmdit_tape_t *tape, int side) {
    return tape->tokens[side == MBL_SIDE_CONTEXT];
}

/* Contiguous activations over tape memory, ct: [N,tokens,columns] and [rows,columns]. */
static inline mbl_tensor_t mbl_pass_rows(const mbl_pass_t *p, void *data, size_t tokens, size_t columns) {
    return mbl_tensor_of(data, p->model->base.dtype, p->ops->table->space, 3, p->n, tokens, columns);
}
static inline mbl_tensor_t mbl_pass_matrix(const mbl_pass_t *p, void *data, size_t rows, size_t columns) {
    return mbl_tensor_of(data, p->model->base.dtype, p->ops->table->space, 2, rows, columns);
}
/* The values of `tokens` tokens in qkv (or their gradient in dqkv), beside queries and keys: [N,tokens,D]. */
static inline mbl_tensor_t mbl_pass_values(const mbl_pass_t *p, void *qkv, size_t tokens) {
    mbl_tensor_t all = mbl_pass_rows(p, qkv, tokens, 3 * p->model->width);
    return mbl_tensor_columns(&all, 2 * p->model->width, p->model->width);
}
/* Statistics, st: [N,tokens]. */
static inline mbl_tensor_t mbl_pass_stat(const mbl_pass_t *p, void *data, size_t tokens) {
    return mbl_tensor_of(data, mbl_dtype_stat(p->model->base.dtype), p->ops->table->space, 2, p->n, tokens);
}
/* D columns of the modulation [N,M] (or of its gradient, st). */
static inline mbl_tensor_t mbl_pass_modulation(const mbl_pass_t *p, size_t column) {
    mbl_tensor_t all = mbl_pass_matrix(p, p->tape->modulation, p->n, p->model->modulation.out);
    return mbl_tensor_columns(&all, column, p->model->width);
}
static inline mbl_tensor_t mbl_pass_d_modulation(const mbl_pass_t *p, size_t column) {
    mbl_tensor_t all = mbl_tensor_of(p->tape->d_modulation, mbl_dtype_stat(p->model->base.dtype),
                                     p->ops->table->space, 2, p->n, p->model->modulation.out);
    return mbl_tensor_columns(&all, column, p->model->width);
}

/* Whether this pass multiplies by merged weights. */
static inline bool mbl_pass_merged(const mbl_pass_t *p) {
    return p->adapter && p->adapter->merged.data && p->tape->kind == MBL_TAPE_NONE;
}
/* The adapted site of a linear in this pass, NULL when there is none. */
const mbl_lora_site_t *mbl_pass_site(const mbl_pass_t *p, const mbl_linear_t *linear);

/* The normalised inputs of block `layer` from its inputs (those of the block before, where that is left out:
 * without gradient all blocks have one place for them); a block from these to those of the next one. */
mbl_status_t mbl_block_begin(const mbl_pass_t *p, size_t layer);
mbl_status_t mbl_block_forward(const mbl_pass_t *p, size_t layer);
/* Before the backward pass of a block of which only the inputs were kept: what the forward pass had made of
 * them, to the bit, but for what no gradient needs. */
mbl_status_t mbl_block_again(const mbl_pass_t *p, size_t layer);

/* y [N tokens, n out] = x W' + b + LoRA, x [N tokens, in], both ct; `hidden` receives s X A' where the linear
 * is adapted. */
mbl_status_t mbl_linear_forward(const mbl_pass_t *p, const mbl_linear_t *linear, void *y, void *x,
                                size_t tokens, void *hidden);
/* The same through gelu, for one linear (n = 1). pre [N tokens, out] takes what it is applied to, or is y
 * itself: then it is not kept. */
mbl_status_t mbl_linear_forward_gelu(const mbl_pass_t *p, const mbl_linear_t *linear, void *y, void *pre,
                                     void *x, size_t tokens, void *hidden);
/* Gradients of the linear's weights and adapters into the sink, and dx = dy W (+ LoRA) (dx NULL: not wanted).
 * pre (or NULL): x is gelu(pre), and dx is meant before it, so dx gelu'(pre). */
mbl_status_t mbl_linear_backward(const mbl_pass_t *p, const mbl_linear_t *linear, void *dx, void *dy, void *x,
                                 size_t tokens, void *hidden, void *pre);

#endif
