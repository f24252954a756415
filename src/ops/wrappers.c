/* mbl_op_X for every operation: what its operands must be, then the backend's slot (or the default where an
 * optional one is empty), counted and timed. */
#include "ops/ops.h"

#include <stdarg.h>

typedef enum { WHOLE, ROWS } layout_t; /* contiguous, or with strided rows */

static bool is_compute(mbl_dtype_t dtype) {
    return dtype == MBL_F32 || dtype == MBL_BF16 || dtype == MBL_F64;
}

static bool is_wide(mbl_dtype_t dtype) {
    return dtype == MBL_F32 || dtype == MBL_F64;
}

/* A tensor (or NULL, where that is allowed) must be of this type and shape. */
static mbl_status_t expect(const char *what, const mbl_tensor_t *t, mbl_dtype_t dtype, layout_t layout,
                           int ndim, ...) {
    if (!t)
        return MBL_OK;
    mbl_tensor_t want = {.dtype = dtype, .ndim = ndim};
    va_list dims;
    va_start(dims, ndim);
    for (int i = 0; i < ndim; i++)
        want.dim[i] = va_arg(dims, size_t);
    va_end(dims);
    char found[MBL_TENSOR_TEXT], right[MBL_TENSOR_TEXT];
    MBL_REQUIRE(t->dtype == dtype && mbl_tensor_same_shape(t, &want), "%s is %s, not %s", what,
                mbl_tensor_text(t, found), mbl_tensor_text(&want, right));
    MBL_REQUIRE(layout == ROWS || mbl_tensor_contiguous(t), "%s (%s) must be contiguous", what,
                mbl_tensor_text(t, found));
    return MBL_OK;
}

/* The tensor that the others are measured by: its rank and kind. */
static mbl_status_t anchor(const char *what, const mbl_tensor_t *t, int ndim, bool wide) {
    char found[MBL_TENSOR_TEXT];
    MBL_REQUIRE(t->ndim == ndim && (wide ? is_wide(t->dtype) : is_compute(t->dtype)),
                "%s is %s, not a tensor of %d dimensions in %s", what, mbl_tensor_text(t, found), ndim,
                wide ? "f32 or f64" : "f32, bf16 or f64");
    return MBL_OK;
}

static mbl_status_t both(const char *what, const void *a, const void *b) {
    MBL_REQUIRE(!a == !b, "%s: one is NULL and the other is not", what);
    return MBL_OK;
}

static mbl_status_t known_act(const char *what, mbl_act_t act) {
    MBL_REQUIRE((unsigned)act <= MBL_ACT_QUICK_GELU, "%s: activation %d is unknown", what, (int)act);
    return MBL_OK;
}

#define EXPECT(op, field, dtype, layout, ...)                                                                \
    MBL_TRY(expect(#op ": " #field, a->field, (dtype), (layout), __VA_ARGS__))
#define ANCHOR(op, field, ndim) MBL_TRY(anchor(#op ": " #field, a->field, (ndim), false))
#define ANCHOR_WIDE(op, field, ndim) MBL_TRY(anchor(#op ": " #field, a->field, (ndim), true))
#define BOTH(op, one, two) MBL_TRY(both(#op ": " #one " and " #two, a->one, a->two))

static mbl_status_t check_matmul(const mbl_matmul_args_t *a) {
    ANCHOR(matmul, a, 2);
    ANCHOR(matmul, b, 2);
    ANCHOR(matmul, y, 2);
    mbl_dtype_t ct = a->a->dtype, st = mbl_dtype_stat(ct);
    size_t m = a->a->dim[a->transpose_a], k = a->a->dim[!a->transpose_a], n = a->b->dim[!a->transpose_b];
    EXPECT(matmul, b, ct, ROWS, 2, a->transpose_b ? n : k, a->transpose_b ? k : n);
    EXPECT(matmul, y, a->y->dtype == st ? st : ct, ROWS, 2, m, n);
    EXPECT(matmul, bias, ct, WHOLE, 1, n);
    MBL_TRY(known_act("matmul", a->act));
    EXPECT(matmul, pre, a->y->dtype, ROWS, 2, m, n);
    EXPECT(matmul, through, a->y->dtype, ROWS, 2, m, n);
    MBL_REQUIRE(!a->pre || !a->through, "matmul: pre and through are both given; expected one at most");
    MBL_REQUIRE((!a->pre && !a->through) || a->act != MBL_ACT_NONE,
                "matmul: %s is given without an activation", a->pre ? "pre" : "through");
    return MBL_OK;
}

static mbl_status_t check_layer_norm(const mbl_layer_norm_args_t *a) {
    ANCHOR(layer_norm, x, 3);
    mbl_dtype_t ct = a->x->dtype, st = mbl_dtype_stat(ct);
    size_t n = a->x->dim[0], t = a->x->dim[1], d = a->x->dim[2];
    EXPECT(layer_norm, x, ct, WHOLE, 3, n, t, d);
    EXPECT(layer_norm, y, ct, WHOLE, 3, n, t, d);
    EXPECT(layer_norm, scale, ct, ROWS, 2, n, d);
    EXPECT(layer_norm, shift, ct, ROWS, 2, n, d);
    EXPECT(layer_norm, mean, st, WHOLE, 2, n, t);
    EXPECT(layer_norm, rstd, st, WHOLE, 2, n, t);
    BOTH(layer_norm, mean, rstd);
    return MBL_OK;
}

static mbl_status_t check_layer_norm_bwd(const mbl_layer_norm_bwd_args_t *a) {
    ANCHOR(layer_norm_bwd, x, 3);
    mbl_dtype_t ct = a->x->dtype, st = mbl_dtype_stat(ct);
    size_t n = a->x->dim[0], t = a->x->dim[1], d = a->x->dim[2];
    EXPECT(layer_norm_bwd, x, ct, WHOLE, 3, n, t, d);
    EXPECT(layer_norm_bwd, dx, ct, WHOLE, 3, n, t, d);
    EXPECT(layer_norm_bwd, dy, ct, WHOLE, 3, n, t, d);
    EXPECT(layer_norm_bwd, scale, ct, ROWS, 2, n, d);
    EXPECT(layer_norm_bwd, dscale, st, ROWS, 2, n, d);
    EXPECT(layer_norm_bwd, dshift, st, ROWS, 2, n, d);
    EXPECT(layer_norm_bwd, mean, st, WHOLE, 2, n, t);
    EXPECT(layer_norm_bwd, rstd, st, WHOLE, 2, n, t);
    BOTH(layer_norm_bwd, dscale, dshift);
    return MBL_OK;
}

static mbl_status_t check_layer_norm_affine(const mbl_layer_norm_affine_args_t *a) {
    ANCHOR(layer_norm_affine, x, 2);
    mbl_dtype_t ct = a->x->dtype;
    size_t r = a->x->dim[0], d = a->x->dim[1];
    EXPECT(layer_norm_affine, x, ct, WHOLE, 2, r, d);
    EXPECT(layer_norm_affine, y, ct, WHOLE, 2, r, d);
    EXPECT(layer_norm_affine, weight, ct, WHOLE, 1, d);
    EXPECT(layer_norm_affine, bias, ct, WHOLE, 1, d);
    return MBL_OK;
}

/* Rows may be strided, but samples lie one behind the other: columns of whole rows. */
static mbl_status_t expect_columns(const char *what, const mbl_tensor_t *t) {
    char found[MBL_TENSOR_TEXT];
    MBL_REQUIRE(t->stride[0] == t->dim[1] * t->stride[1],
                "%s (%s): samples are %zu apart; expected %zu rows of %zu", what, mbl_tensor_text(t, found),
                t->stride[0], t->dim[1], t->stride[1]);
    return MBL_OK;
}

static mbl_status_t check_qk_norm(const mbl_qk_norm_args_t *a) {
    ANCHOR(qk_norm, q, 4);
    ANCHOR(qk_norm, qkv, 3);
    mbl_dtype_t ct = a->q->dtype, st = mbl_dtype_stat(ct);
    size_t n = a->q->dim[0], h = a->q->dim[1], all = a->q->dim[2], d = a->q->dim[3], t = a->qkv->dim[1];
    EXPECT(qk_norm, q, ct, WHOLE, 4, n, h, all, d);
    EXPECT(qk_norm, k, ct, WHOLE, 4, n, h, all, d);
    EXPECT(qk_norm, qkv, ct, ROWS, 3, n, t, 3 * h * d);
    MBL_TRY(expect_columns("qk_norm: qkv", a->qkv));
    EXPECT(qk_norm, weight_q, ct, WHOLE, 1, d);
    EXPECT(qk_norm, weight_k, ct, WHOLE, 1, d);
    EXPECT(qk_norm, rstd_q, st, WHOLE, 3, n, t, h);
    EXPECT(qk_norm, rstd_k, st, WHOLE, 3, n, t, h);
    BOTH(qk_norm, weight_q, weight_k);
    BOTH(qk_norm, rstd_q, rstd_k);
    MBL_REQUIRE(a->first <= all && t <= all - a->first, "qk_norm: tokens %zu..%zu of %zu", a->first,
                a->first + t, all);
    return MBL_OK;
}

static mbl_status_t check_qk_norm_bwd(const mbl_qk_norm_bwd_args_t *a) {
    ANCHOR(qk_norm_bwd, dq, 4);
    ANCHOR(qk_norm_bwd, qkv, 3);
    mbl_dtype_t ct = a->dq->dtype, st = mbl_dtype_stat(ct);
    size_t n = a->dq->dim[0], h = a->dq->dim[1], all = a->dq->dim[2], d = a->dq->dim[3], t = a->qkv->dim[1];
    EXPECT(qk_norm_bwd, dq, ct, WHOLE, 4, n, h, all, d);
    EXPECT(qk_norm_bwd, dk, ct, WHOLE, 4, n, h, all, d);
    EXPECT(qk_norm_bwd, qkv, ct, ROWS, 3, n, t, 3 * h * d);
    EXPECT(qk_norm_bwd, dqkv, ct, ROWS, 3, n, t, 3 * h * d);
    MBL_TRY(expect_columns("qk_norm_bwd: qkv", a->qkv));
    MBL_TRY(expect_columns("qk_norm_bwd: dqkv", a->dqkv));
    EXPECT(qk_norm_bwd, weight_q, ct, WHOLE, 1, d);
    EXPECT(qk_norm_bwd, weight_k, ct, WHOLE, 1, d);
    EXPECT(qk_norm_bwd, dweight_q, st, WHOLE, 1, d);
    EXPECT(qk_norm_bwd, dweight_k, st, WHOLE, 1, d);
    EXPECT(qk_norm_bwd, rstd_q, st, WHOLE, 3, n, t, h);
    EXPECT(qk_norm_bwd, rstd_k, st, WHOLE, 3, n, t, h);
    BOTH(qk_norm_bwd, weight_q, weight_k);
    BOTH(qk_norm_bwd, dweight_q, dweight_k);
    BOTH(qk_norm_bwd, rstd_q, rstd_k);
    MBL_REQUIRE(!a->weight_q || a->rstd_q, "qk_norm_bwd: with weights it needs rstd_q and rstd_k");
    MBL_REQUIRE(!a->dweight_q || a->weight_q, "qk_norm_bwd: gradients of weights that are NULL");
    MBL_REQUIRE(a->first <= all && t <= all - a->first, "qk_norm_bwd: tokens %zu..%zu of %zu", a->first,
                a->first + t, all);
    return MBL_OK;
}

/* out1 [N,T1,D] and out2 [N,T-T1,D], which is NULL exactly when T1 = T. */
static mbl_status_t check_token_split(const char *op, const mbl_tensor_t *q, const mbl_tensor_t *out1,
                                      const mbl_tensor_t *out2) {
    size_t n = q->dim[0], t = q->dim[2], d = q->dim[1] * q->dim[3];
    char text[MBL_TENSOR_TEXT];
    MBL_REQUIRE(out1->ndim == 3 && out1->dim[1] <= t && (out1->dim[1] < t) == (out2 != NULL),
                "%s: the first output takes %s of %zu tokens, and there is %s second one", op,
                mbl_tensor_text(out1, text), t, out2 ? "a" : "no");
    size_t t1 = out1->dim[1];
    MBL_TRY(expect(op, out1, q->dtype, WHOLE, 3, n, t1, d));
    return expect(op, out2, q->dtype, WHOLE, 3, n, t - t1, d);
}

/* v1 and v2 cut as out1 is, with rows of one stride. */
static mbl_status_t check_values(const char *op, const mbl_tensor_t *q, const mbl_tensor_t *out1,
                                 const mbl_tensor_t *v1, const mbl_tensor_t *v2) {
    size_t n = q->dim[0], t = q->dim[2], t1 = out1->dim[1], d = q->dim[1] * q->dim[3];
    MBL_REQUIRE((t1 < t) == (v2 != NULL),
                "%s: %zu of %zu tokens in the first part, and there is %s second one", op, t1, t,
                v2 ? "a" : "no");
    MBL_TRY(expect(op, v1, q->dtype, ROWS, 3, n, t1, d));
    MBL_TRY(expect_columns(op, v1));
    if (!v2)
        return MBL_OK;
    MBL_TRY(expect(op, v2, q->dtype, ROWS, 3, n, t - t1, d));
    MBL_TRY(expect_columns(op, v2));
    MBL_REQUIRE(v1->stride[1] == v2->stride[1], "%s: rows are %zu and %zu apart; expected one stride", op,
                v1->stride[1], v2->stride[1]);
    return MBL_OK;
}

static mbl_status_t check_attention(const mbl_attention_args_t *a) {
    ANCHOR(attention, q, 4);
    mbl_dtype_t ct = a->q->dtype;
    size_t n = a->q->dim[0], h = a->q->dim[1], t = a->q->dim[2], d = a->q->dim[3];
    EXPECT(attention, q, ct, WHOLE, 4, n, h, t, d);
    EXPECT(attention, k, ct, WHOLE, 4, n, h, t, d);
    EXPECT(attention, lse, mbl_dtype_stat(ct), WHOLE, 3, n, h, t);
    EXPECT(attention, bias, mbl_dtype_stat(ct), WHOLE, 2, h, 2 * t - 1);
    MBL_TRY(check_token_split("attention: out1, out2", a->q, a->out1, a->out2));
    return check_values("attention: v1, v2", a->q, a->out1, a->v1, a->v2);
}

static mbl_status_t check_attention_bwd(const mbl_attention_bwd_args_t *a) {
    ANCHOR(attention_bwd, q, 4);
    mbl_dtype_t ct = a->q->dtype;
    size_t n = a->q->dim[0], h = a->q->dim[1], t = a->q->dim[2], d = a->q->dim[3];
    EXPECT(attention_bwd, q, ct, WHOLE, 4, n, h, t, d);
    EXPECT(attention_bwd, k, ct, WHOLE, 4, n, h, t, d);
    EXPECT(attention_bwd, dq, ct, WHOLE, 4, n, h, t, d);
    EXPECT(attention_bwd, dk, ct, WHOLE, 4, n, h, t, d);
    EXPECT(attention_bwd, lse, mbl_dtype_stat(ct), WHOLE, 3, n, h, t);
    MBL_TRY(check_token_split("attention_bwd: out1, out2", a->q, a->out1, a->out2));
    MBL_REQUIRE(a->dout1->ndim == 3 && a->dout1->dim[1] == a->out1->dim[1],
                "attention_bwd: dout1 and out1 differ in tokens");
    MBL_TRY(check_token_split("attention_bwd: dout1, dout2", a->q, a->dout1, a->dout2));
    MBL_TRY(check_values("attention_bwd: v1, v2", a->q, a->out1, a->v1, a->v2));
    return check_values("attention_bwd: dv1, dv2", a->q, a->out1, a->dv1, a->dv2);
}

/* y like x, both contiguous, any shape. */
static mbl_status_t check_like(const char *what, const mbl_tensor_t *y, const mbl_tensor_t *x) {
    char found[MBL_TENSOR_TEXT], right[MBL_TENSOR_TEXT];
    MBL_REQUIRE(is_compute(x->dtype) && y->dtype == x->dtype && mbl_tensor_same_shape(y, x) &&
                    mbl_tensor_contiguous(x) && mbl_tensor_contiguous(y),
                "%s: %s and %s, not two contiguous tensors of one shape and type", what,
                mbl_tensor_text(y, found), mbl_tensor_text(x, right));
    return MBL_OK;
}

static mbl_status_t check_act(const mbl_act_args_t *a) {
    MBL_TRY(known_act("act", a->act));
    return check_like("act: y and x", a->y, a->x);
}

static mbl_status_t check_act_bwd(const mbl_act_bwd_args_t *a) {
    MBL_TRY(known_act("act_bwd", a->act));
    MBL_TRY(check_like("act_bwd: dy and x", a->dy, a->x));
    return check_like("act_bwd: dx and x", a->dx, a->x);
}

static mbl_status_t check_gate(const mbl_gate_args_t *a) {
    ANCHOR(gate, x, 3);
    mbl_dtype_t ct = a->x->dtype;
    size_t n = a->x->dim[0], t = a->x->dim[1], d = a->x->dim[2];
    EXPECT(gate, x, ct, WHOLE, 3, n, t, d);
    EXPECT(gate, y, ct, WHOLE, 3, n, t, d);
    EXPECT(gate, h, ct, WHOLE, 3, n, t, d);
    EXPECT(gate, gate, ct, ROWS, 2, n, d);
    return MBL_OK;
}

static mbl_status_t check_gate_bwd(const mbl_gate_bwd_args_t *a) {
    ANCHOR(gate_bwd, dy, 3);
    mbl_dtype_t ct = a->dy->dtype;
    size_t n = a->dy->dim[0], t = a->dy->dim[1], d = a->dy->dim[2];
    EXPECT(gate_bwd, dy, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_bwd, dh, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_bwd, h, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_bwd, gate, ct, ROWS, 2, n, d);
    EXPECT(gate_bwd, dgate, mbl_dtype_stat(ct), ROWS, 2, n, d);
    MBL_REQUIRE(!a->dgate || a->h, "gate_bwd: dgate needs h");
    return MBL_OK;
}

static mbl_status_t check_image(const char *op, const mbl_tensor_t *tokens, const mbl_tensor_t *image,
                                size_t patch) {
    MBL_TRY(anchor(op, image, 4, false));
    MBL_TRY(anchor(op, tokens, 3, false));
    size_t n = image->dim[0], c = image->dim[1], h = image->dim[2], w = image->dim[3];
    MBL_REQUIRE(patch > 0 && h % patch == 0 && w % patch == 0,
                "%s: images of %zu x %zu do not divide into patches of %zu", op, h, w, patch);
    MBL_TRY(expect(op, image, image->dtype, WHOLE, 4, n, c, h, w));
    return expect(op, tokens, tokens->dtype, WHOLE, 3, n, h / patch * (w / patch), c * patch * patch);
}

static mbl_status_t check_patchify(const mbl_patchify_args_t *a) {
    return check_image("patchify: tokens, image", a->tokens, a->image, a->patch);
}

static mbl_status_t check_unpatchify(const mbl_unpatchify_args_t *a) {
    return check_image("unpatchify: tokens, image", a->tokens, a->image, a->patch);
}

static mbl_status_t check_timestep(const mbl_timestep_args_t *a) {
    ANCHOR(timestep, y, 2);
    size_t n = a->y->dim[0], f = a->y->dim[1];
    MBL_REQUIRE(f % 2 == 0, "timestep: width %zu is odd", f);
    EXPECT(timestep, y, a->y->dtype, WHOLE, 2, n, f);
    EXPECT(timestep, t, mbl_dtype_stat(a->y->dtype), WHOLE, 1, n);
    return MBL_OK;
}

static mbl_status_t check_embed(const mbl_embed_args_t *a) {
    ANCHOR(embed, y, 3);
    mbl_dtype_t ct = a->y->dtype;
    size_t n = a->y->dim[0], t = a->y->dim[1], d = a->y->dim[2];
    EXPECT(embed, y, ct, WHOLE, 3, n, t, d);
    EXPECT(embed, table, ct, WHOLE, 2, a->table->dim[0], d);
    EXPECT(embed, ids, MBL_I32, WHOLE, 2, n, t);
    if (a->position)
        EXPECT(embed, position, ct, WHOLE, 2, a->position->dim[0] < t ? t : a->position->dim[0], d);
    return MBL_OK;
}

static mbl_status_t check_add_rows(const mbl_add_rows_args_t *a) {
    ANCHOR(add_rows, y, 3);
    EXPECT(add_rows, y, a->y->dtype, WHOLE, 3, a->y->dim[0], a->y->dim[1], a->y->dim[2]);
    EXPECT(add_rows, rows, a->y->dtype, WHOLE, 2, a->y->dim[1], a->y->dim[2]);
    return MBL_OK;
}

static mbl_status_t check_convert(const mbl_convert_args_t *a) {
    char to[MBL_TENSOR_TEXT], from[MBL_TENSOR_TEXT];
    MBL_REQUIRE(is_compute(a->dst->dtype) && is_compute(a->src->dtype) &&
                    mbl_tensor_same_shape(a->dst, a->src),
                "convert: %s from %s", mbl_tensor_text(a->dst, to), mbl_tensor_text(a->src, from));
    return MBL_OK;
}

static mbl_status_t check_axpby(const mbl_axpby_args_t *a) {
    return check_like("axpby: y and x", a->y, a->x);
}

static mbl_status_t check_column_sum(const mbl_column_sum_args_t *a) {
    ANCHOR(column_sum, x, 2);
    EXPECT(column_sum, y, mbl_dtype_stat(a->x->dtype), WHOLE, 1, a->x->dim[1]);
    return MBL_OK;
}

static mbl_status_t check_sample_grad(const mbl_sample_grad_args_t *a) {
    ANCHOR(sample_grad, a, 3);
    ANCHOR(sample_grad, b, 3);
    ANCHOR_WIDE(sample_grad, coefficient, 2);
    size_t n = a->a->dim[0], t = a->a->dim[1], p = a->a->dim[2], q = a->b->dim[2];
    size_t k = a->coefficient->dim[0];
    EXPECT(sample_grad, b, a->a->dtype, ROWS, 3, n, t, q);
    EXPECT(sample_grad, coefficient, MBL_F32, WHOLE, 2, k, n);
    EXPECT(sample_grad, acc, MBL_F64, ROWS, 3, k, p, q);
    MBL_REQUIRE(a->acc->stride[1] == q, "sample_grad: rows of acc are %zu apart, not %zu", a->acc->stride[1],
                q);
    return MBL_OK;
}

static mbl_status_t check_nft(const mbl_nft_args_t *a) {
    ANCHOR_WIDE(nft, v, 2);
    mbl_dtype_t dtype = a->v->dtype;
    size_t n = a->v->dim[0], e = a->v->dim[1];
    EXPECT(nft, v, dtype, WHOLE, 2, n, e);
    EXPECT(nft, v_old, dtype, WHOLE, 2, n, e);
    EXPECT(nft, v_ref, dtype, WHOLE, 2, n, e);
    EXPECT(nft, xt, dtype, WHOLE, 2, n, e);
    EXPECT(nft, x0, dtype, WHOLE, 2, n, e);
    EXPECT(nft, u, dtype, WHOLE, 2, n, e);
    EXPECT(nft, h, dtype, WHOLE, 2, n, e);
    EXPECT(nft, dkl, dtype, WHOLE, 2, n, e);
    EXPECT(nft, t, dtype, WHOLE, 1, n);
    EXPECT(nft, loss_plus, dtype, WHOLE, 1, n);
    EXPECT(nft, loss_minus, dtype, WHOLE, 1, n);
    EXPECT(nft, kl, dtype, WHOLE, 1, n);
    BOTH(nft, dkl, v_ref);
    BOTH(nft, dkl, kl);
    return MBL_OK;
}

static mbl_status_t check_rows_combine(const mbl_rows_combine_args_t *a) {
    ANCHOR_WIDE(rows_combine, y, 2);
    mbl_dtype_t dtype = a->y->dtype;
    size_t n = a->y->dim[0], e = a->y->dim[1], terms = 0;
    EXPECT(rows_combine, y, dtype, WHOLE, 2, n, e);
    while (terms < MBL_ROWS_TERMS && a->x[terms]) {
        EXPECT(rows_combine, x[terms], dtype, WHOLE, 2, n, e);
        terms++;
    }
    EXPECT(rows_combine, coefficient, dtype, WHOLE, 2, terms, n);
    return MBL_OK;
}

static mbl_status_t check_normal(const mbl_normal_args_t *a) {
    ANCHOR_WIDE(normal, y, 2);
    EXPECT(normal, y, a->y->dtype, WHOLE, 2, a->y->dim[0], a->y->dim[1]);
    EXPECT(normal, sample, MBL_I64, WHOLE, 1, a->y->dim[0]);
    return MBL_OK;
}

static mbl_status_t check_gram(const mbl_gram_args_t *a) {
    ANCHOR_WIDE(gram, x, 2);
    EXPECT(gram, gram, MBL_F64, WHOLE, 2, a->x->dim[0], a->x->dim[0]);
    return MBL_OK;
}

static mbl_status_t check_distance(const mbl_distance_args_t *a) {
    ANCHOR_WIDE(distance, x, 1);
    EXPECT(distance, x, a->x->dtype, WHOLE, 1, a->x->dim[0]);
    EXPECT(distance, y, a->x->dtype, WHOLE, 1, a->x->dim[0]);
    EXPECT(distance, sums, MBL_F64, WHOLE, 1, (size_t)2);
    return MBL_OK;
}

static mbl_status_t check_checksum(const mbl_checksum_args_t *a) {
    ANCHOR_WIDE(checksum, x, 1);
    EXPECT(checksum, x, a->x->dtype, WHOLE, 1, a->x->dim[0]);
    EXPECT(checksum, sum, MBL_I64, WHOLE, 1, (size_t)1);
    return MBL_OK;
}

static mbl_status_t check_combine(const mbl_combine_args_t *a) {
    ANCHOR_WIDE(combine, x, 2);
    EXPECT(combine, y, a->x->dtype, WHOLE, 1, a->x->dim[1]);
    MBL_REQUIRE(a->coefficient, "combine: coefficient is NULL");
    return MBL_OK;
}

static mbl_status_t check_adamw(const mbl_adamw_args_t *a) {
    ANCHOR_WIDE(adamw, w, 1);
    ANCHOR_WIDE(adamw, g, 1);
    mbl_dtype_t dtype = a->w->dtype;
    size_t n = a->w->dim[0];
    EXPECT(adamw, w, dtype, WHOLE, 1, n);
    EXPECT(adamw, m, dtype, WHOLE, 1, n);
    EXPECT(adamw, v, dtype, WHOLE, 1, n);
    EXPECT(adamw, g, a->g->dtype, WHOLE, 1, n);
    MBL_REQUIRE(a->step >= 1, "adamw: steps count from 1");
    return MBL_OK;
}

static mbl_status_t check_conv2d(const mbl_conv2d_args_t *a) {
    ANCHOR(conv2d, x, 4);
    ANCHOR(conv2d, weight, 4);
    mbl_dtype_t ct = a->x->dtype;
    size_t n = a->x->dim[0], c = a->x->dim[3], o = a->weight->dim[0], kh = a->weight->dim[1],
           kw = a->weight->dim[2];
    MBL_REQUIRE(a->up >= 1, "conv2d: enlarged 0 times");
    MBL_REQUIRE(a->pad < kh && a->pad < kw, "conv2d: padding of %zu for a window of %zu x %zu", a->pad, kh,
                kw);
    size_t h = a->x->dim[1] * a->up + 2 * a->pad, w = a->x->dim[2] * a->up + 2 * a->pad;
    MBL_REQUIRE(kh <= h && kw <= w, "conv2d: a window of %zu x %zu is larger than %zu x %zu", kh, kw, h, w);
    EXPECT(conv2d, x, ct, WHOLE, 4, n, a->x->dim[1], a->x->dim[2], c);
    EXPECT(conv2d, weight, ct, WHOLE, 4, o, kh, kw, c);
    EXPECT(conv2d, y, ct, WHOLE, 4, n, h - kh + 1, w - kw + 1, o);
    EXPECT(conv2d, bias, ct, WHOLE, 1, o);
    return MBL_OK;
}

static mbl_status_t check_group_norm(const mbl_group_norm_args_t *a) {
    ANCHOR(group_norm, x, 3);
    mbl_dtype_t ct = a->x->dtype;
    size_t n = a->x->dim[0], t = a->x->dim[1], d = a->x->dim[2];
    EXPECT(group_norm, x, ct, WHOLE, 3, n, t, d);
    EXPECT(group_norm, y, ct, WHOLE, 3, n, t, d);
    EXPECT(group_norm, weight, ct, WHOLE, 1, d);
    EXPECT(group_norm, bias, ct, WHOLE, 1, d);
    MBL_REQUIRE(a->groups > 0 && d % a->groups == 0, "group_norm: %zu channels do not divide into %zu groups",
                d, a->groups);
    return MBL_OK;
}

static mbl_status_t check_gate_norm(const mbl_gate_norm_args_t *a) {
    ANCHOR(gate_norm, x, 3);
    mbl_dtype_t ct = a->x->dtype, st = mbl_dtype_stat(ct);
    size_t n = a->x->dim[0], t = a->x->dim[1], d = a->x->dim[2];
    EXPECT(gate_norm, x, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_norm, y, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_norm, z, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_norm, h, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_norm, gate, ct, ROWS, 2, n, d);
    EXPECT(gate_norm, h2, ct, WHOLE, 3, n, t, d);
    EXPECT(gate_norm, gate2, ct, ROWS, 2, n, d);
    EXPECT(gate_norm, scale, ct, ROWS, 2, n, d);
    EXPECT(gate_norm, shift, ct, ROWS, 2, n, d);
    EXPECT(gate_norm, mean, st, WHOLE, 2, n, t);
    EXPECT(gate_norm, rstd, st, WHOLE, 2, n, t);
    BOTH(gate_norm, mean, rstd);
    BOTH(gate_norm, gate2, h2);
    return MBL_OK;
}

static mbl_status_t check_to_bytes(const mbl_to_bytes_args_t *a) {
    ANCHOR(to_bytes, x, 2);
    EXPECT(to_bytes, x, a->x->dtype, WHOLE, 2, a->x->dim[0], a->x->dim[1]);
    EXPECT(to_bytes, y, MBL_U8, WHOLE, 2, a->x->dim[0], a->x->dim[1]);
    EXPECT(to_bytes, broken, MBL_I32, WHOLE, 1, a->x->dim[0]);
    return MBL_OK;
}

/* The default of gate_norm: its parts. */
static mbl_status_t default_gate_norm(mbl_ops_t *ops, const mbl_gate_norm_args_t *a) {
    const mbl_gate_args_t gate = {a->y, a->x, a->gate, a->h};
    MBL_TRY(ops->table->gate(ops, &gate));
    if (a->h2) {
        const mbl_gate_args_t second = {a->y, a->y, a->gate2, a->h2};
        MBL_TRY(ops->table->gate(ops, &second));
    }
    const mbl_layer_norm_args_t norm = {a->z, a->mean, a->rstd, a->y, a->scale, a->shift, a->eps};
    return ops->table->layer_norm(ops, &norm);
}

/* What holds for every operand of every operation. */
static mbl_status_t check_operands(mbl_ops_t *ops, mbl_op_t op, const void *args) {
    size_t n;
    char text[MBL_TENSOR_TEXT];
    const mbl_operand_t *operand = mbl_op_operands(op, &n);
    for (size_t i = 0; i < n; i++) {
        const mbl_tensor_t *t = *(const mbl_tensor_t *const *)((const char *)args + operand[i].offset);
        if (!t && operand[i].optional)
            continue;
        MBL_REQUIRE(t && t->data && t->ndim >= 1 && t->ndim <= MBL_MAX_DIMS, "%s: %s is %s", mbl_op_name(op),
                    operand[i].name, t && !t->data ? "without data" : mbl_tensor_text(t, text));
        MBL_REQUIRE(mbl_tensor_count(t) > 0 && t->stride[t->ndim - 1] == 1,
                    "%s: %s (%s) must hold something and have dense rows", mbl_op_name(op), operand[i].name,
                    mbl_tensor_text(t, text));
        mbl_space_t space = mbl_op_to_host(op) && operand[i].role == MBL_OUT ? MBL_HOST : ops->table->space;
        MBL_REQUIRE(t->space == space, "%s: %s is %s the device", mbl_op_name(op), operand[i].name,
                    space == MBL_HOST ? "on" : "not on");
    }
    return MBL_OK;
}

/* While profiling every call stands between two marks of its own; without room for another one it waits. */
static mbl_status_t mark_start(mbl_ops_t *ops) {
    if (ops->n_profiled == MBL_OPS_PROFILED)
        MBL_TRY(mbl_ops_profiled(ops));
    return mbl_ops_mark(ops, MBL_OPS_MARKS + 2 * ops->n_profiled);
}

static mbl_status_t count_call(mbl_ops_t *ops, mbl_op_t op) {
    ops->stats[op].calls++;
    if (!ops->profile)
        return MBL_OK;
    MBL_TRY(mbl_ops_mark(ops, MBL_OPS_MARKS + 2 * ops->n_profiled + 1));
    ops->profiled[ops->n_profiled++] = op;
    return MBL_OK;
}

#define SLOT_REQUIRED(name) MBL_TRY(ops->table->name(ops, args));
#define SLOT_OPTIONAL(name)                                                                                  \
    MBL_TRY(ops->table->name ? ops->table->name(ops, args) : default_##name(ops, args));
#define WRAPPER(name, need)                                                                                  \
    mbl_status_t mbl_op_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                            \
        MBL_TRY(mbl_ops_go_on(ops));                                                                         \
        MBL_TRY(check_operands(ops, MBL_OP_##name, args));                                                   \
        MBL_TRY(check_##name(args));                                                                         \
        if (ops->profile)                                                                                    \
            MBL_TRY(mark_start(ops));                                                                        \
        SLOT_##need(name) return count_call(ops, MBL_OP_##name);                                             \
    }
MBL_OPS_LIST(WRAPPER)
