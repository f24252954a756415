/* What a call costs on the cuda backend, after the kernels in gpu/: each function here follows the file it
 * names, and tests/emulation/test_cost_model.c compares the launches with real ones.
 *
 * Bytes are counted kernel by kernel: a kernel reads each of its operands once and writes each once, as far
 * as its blocks share what they read through the L2 cache. They do where rows are read once by construction;
 * for keys and values of attention, where those of the heads at work at one time (about 8 MB) fit; and for
 * products, see reread(). Arithmetic outside products is counted by the operations written down per element,
 * transcendental functions as one. */
#include "ops/cost_model.h"

#include <string.h>

/* The smallest second-level cache of the GPUs that marble plan knows (A100: 40 MB), half of which is left to
 * what a product keeps. */
static const double cache = 20e6;

static double elements(const mbl_tensor_t *t) {
    return t ? (double)mbl_tensor_count(t) : 0;
}
static double bytes_of(const mbl_tensor_t *t) {
    return t ? (double)mbl_tensor_count(t) * (double)mbl_dtype_size(t->dtype) : 0;
}
static size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

/* gpu/elem.h: whether 16 bytes at a time are possible. */
static bool wide(const mbl_tensor_t *t) {
    if (!t)
        return true;
    size_t size = mbl_dtype_size(t->dtype);
    bool yes = (uintptr_t)t->data % 16 == 0 && t->dim[t->ndim - 1] * size % 16 == 0;
    for (int i = 0; i + 1 < t->ndim; i++)
        yes = yes && t->stride[i] * size % 16 == 0;
    return yes;
}

static mbl_unit_t real_unit(mbl_dtype_t dtype) {
    return dtype == MBL_F64 ? MBL_UNIT_F64 : MBL_UNIT_F32;
}
static mbl_unit_t product_unit(mbl_dtype_t dtype) {
    return dtype == MBL_BF16 ? MBL_UNIT_TENSOR : real_unit(dtype);
}

/* ---- the least ---- */

/* Of what is only used in part: written tokens of heads, columns of qkv, rows of a table. */
static double touched(mbl_op_t op, const mbl_operand_t *operand, const void *args, const mbl_tensor_t *t) {
    const bool norm = op == MBL_OP_qk_norm, norm_bwd = op == MBL_OP_qk_norm_bwd;
    const mbl_tensor_t *qkv = norm       ? ((const mbl_qk_norm_args_t *)args)->qkv
                              : norm_bwd ? ((const mbl_qk_norm_bwd_args_t *)args)->qkv
                                         : NULL;
    if (qkv && t->ndim == 4)
        return bytes_of(qkv) / 3;
    if (t == qkv || operand->role == MBL_PART) /* q and k of q, k and v */
        return bytes_of(qkv) * 2 / 3;
    if (op == MBL_OP_embed && (t == ((const mbl_embed_args_t *)args)->table)) {
        const mbl_tensor_t *y = ((const mbl_embed_args_t *)args)->y;
        return bytes_of(y) < bytes_of(t) ? bytes_of(y) : bytes_of(t);
    }
    if (op == MBL_OP_embed && t == ((const mbl_embed_args_t *)args)->position)
        return bytes_of(((const mbl_embed_args_t *)args)->y) /
               (double)((const mbl_embed_args_t *)args)->y->dim[0];
    return bytes_of(t);
}

static double least(mbl_op_t op, const void *args) {
    double sum = 0;
    size_t n;
    const mbl_operand_t *operand = mbl_op_operands(op, &n);
    for (size_t i = 0; i < n; i++) {
        const mbl_tensor_t *t = *(const mbl_tensor_t *const *)((const char *)args + operand[i].offset);
        if (t && t->space == MBL_DEVICE)
            sum +=
                touched(op, &operand[i], args, t) * (mbl_op_role(op, &operand[i], args) == MBL_INOUT ? 2 : 1);
    }
    return sum;
}

/* ---- products: gpu/matmul.c ---- */

/* What a product reads beyond a and b once: nothing where one of them stays in the cache; else one is taken
 * in panels that do, and the other goes by once for each. cublasLt's own order is not known; this is a good
 * one. */
static double reread(double a, double b) {
    if (a <= cache || b <= cache)
        return 0;
    double by_a = b * (a / cache - 1), by_b = a * (b / cache - 1);
    return by_a < by_b ? by_a : by_b;
}

/* A multiprocessor has a tile of 128 x 256 at one time: cublasLt's largest from Ampere on, which large
 * products get. */
static void tiles_of(size_t rows, size_t columns, mbl_cost_t *out) {
    enum { ROWS = 128, COLUMNS = 256 };
    out->blocks = ceil_div(rows, ROWS) * ceil_div(columns, COLUMNS);
    out->at_once = 1;
}

static void matmul(const mbl_matmul_args_t *x, mbl_cost_t *out) {
    double m = (double)x->y->dim[0], n = (double)x->y->dim[1];
    double inner = (double)x->a->dim[!x->transpose_a];
    bool same = x->a->dtype == x->y->dtype && x->a->dtype != MBL_F64;
    bool linear = x->act == MBL_ACT_NONE && (!x->bias || same);
    bool fused = x->act == MBL_ACT_GELU_TANH && same && x->a->dtype == MBL_BF16 && wide(x->a) && wide(x->b) &&
                 wide(x->y) && wide(x->bias) && wide(x->pre) && wide(x->through) && !(x->through && x->bias);
    out->flops[product_unit(x->a->dtype)] = 2 * m * n * inner;
    tiles_of(x->y->dim[0], x->y->dim[1], out);
    out->bytes += reread(bytes_of(x->a), bytes_of(x->b));
    if (linear)
        return;
    out->flops[real_unit(x->y->dtype)] = 12 * m * n;
    if (fused)
        return;
    /* what cublasLt leaves is read and written once more */
    out->launches = 2;
    out->bytes += 2 * bytes_of(x->y);
}

/* gpu/conv.cu: bands of windows laid out, written and read again, and a product for each. */
static void conv2d(const mbl_conv2d_args_t *x, mbl_cost_t *out) {
    enum { BAND = 32 << 20, BAND_ROWS = 128 };
    const mbl_tensor_t *w = x->weight;
    size_t outputs = w->dim[0], length = w->dim[1] * w->dim[2] * w->dim[3];
    size_t rows = mbl_tensor_count(x->y) / outputs, row_bytes = length * mbl_dtype_size(w->dtype);
    bool pixels = length == w->dim[3] && x->up == 1, apart = w->dtype == MBL_F64 && x->bias;
    size_t band = BAND / row_bytes / BAND_ROWS * BAND_ROWS;
    band = band < BAND_ROWS ? BAND_ROWS : band;
    band = pixels || band > rows ? rows : band;
    size_t bands = ceil_div(rows, band);
    out->launches = bands * (pixels ? 1 : 2) + (apart ? bands : 0);
    out->flops[product_unit(w->dtype)] += 2 * (double)rows * (double)outputs * (double)length;
    if (apart)
        out->bytes += 2 * bytes_of(x->y);
    if (pixels) {
        out->bytes += reread(bytes_of(x->x), bytes_of(w));
        return;
    }
    out->work = band * row_bytes;
    out->bytes += 2 * (double)rows * (double)row_bytes + (double)(bands - 1) * bytes_of(w);
}

/* ---- norms: gpu/norm.cu, norm_bwd.cu, qk_norm.cu ---- */

enum { CHUNK = 32 };

static void layer_norm_bwd(const mbl_layer_norm_bwd_args_t *x, mbl_cost_t *out) {
    enum { MOST_THREADS = 384 };
    const mbl_tensor_t *t = x->x;
    size_t size = mbl_dtype_size(t->dtype), st = mbl_dtype_size(mbl_dtype_stat(t->dtype));
    size_t chunks = ceil_div(t->dim[1], CHUNK), threads = ceil_div(ceil_div(t->dim[2] * size, 16), 32) * 32;
    bool one = wide(t) && wide(x->dx) && wide(x->dy) && wide(x->scale) && threads <= MOST_THREADS;
    if (!one) /* the row is read again once its sums are known, and by the columns' pass */
        out->bytes += bytes_of(t) * (x->dscale ? 4 : 2);
    out->launches = x->dscale ? (one ? 3 : 4) : 1;
    if (!x->dscale)
        return;
    out->work = t->dim[0] * chunks * 2 * t->dim[2] * st;
    out->bytes += 2.0 * (double)out->work;
}

static void qk_norm_bwd(const mbl_qk_norm_bwd_args_t *x, mbl_cost_t *out) {
    enum { TOKENS = 64 }; /* of a chunk */
    if (!x->dweight_q)
        return;
    size_t head = x->dq->dim[3];
    out->launches = 3;
    out->work = 2 * x->qkv->dim[0] * ceil_div(x->qkv->dim[1], TOKENS) * head * sizeof(double);
    out->bytes += 2.0 * (double)out->work + 4.0 / 3.0 * bytes_of(x->qkv);
}

/* gpu/group_norm.cu: pieces' sums, groups' statistics, the result. */
static void group_norm(const mbl_group_norm_args_t *x, mbl_cost_t *out) {
    const mbl_tensor_t *t = x->x;
    size_t per = t->dim[2] / x->groups, lanes = 16 / mbl_dtype_size(t->dtype);
    bool all = wide(t) && wide(x->y) && wide(x->weight) && wide(x->bias);
    size_t piece = all && per % lanes == 0 ? lanes : all && per % (lanes / 2) == 0 ? lanes / 2 : 1;
    size_t sums = t->dim[0] * (ceil_div(t->dim[1], CHUNK) * (t->dim[2] / piece) + x->groups) * 2;
    out->launches = 3;
    out->flops[real_unit(t->dtype)] += (x->silu ? 14 : 9) * elements(t);
    out->work = sums * mbl_dtype_size(mbl_dtype_stat(t->dtype));
    out->bytes += bytes_of(t) + 2.0 * (double)out->work;
}

static void gate_bwd(const mbl_gate_bwd_args_t *x, mbl_cost_t *out) {
    if (!x->dgate)
        return;
    out->launches = 2;
    out->work = x->dy->dim[0] * ceil_div(x->dy->dim[1], CHUNK) * x->dy->dim[2] *
                mbl_dtype_size(mbl_dtype_stat(x->dy->dtype));
    out->bytes += 2.0 * (double)out->work;
}

static void column_sum(const mbl_column_sum_args_t *x, mbl_cost_t *out) {
    enum { ROWS = 128 };
    out->launches = 2;
    out->work = ceil_div(x->x->dim[0], ROWS) * x->x->dim[1] * sizeof(double);
    out->bytes += 2.0 * (double)out->work;
}

/* ---- attention: gpu/attention*.cu ---- */

/* 2 T^2 d for each product of a head. */
static double attention_product(const mbl_tensor_t *q) {
    return 2 * elements(q) * (double)q->dim[2];
}

static bool on_tensor_cores(const mbl_tensor_t *q) {
    return q->dtype == MBL_BF16 && q->dim[3] <= 128;
}

/* A block has so many tokens of a head, and a multiprocessor two blocks. */
static void rows_of(const mbl_tensor_t *q, size_t tokens, mbl_cost_t *out) {
    out->blocks = q->dim[0] * q->dim[1] * ceil_div(q->dim[2], tokens);
    out->at_once = 2;
}

static void attention(const mbl_attention_args_t *x, mbl_cost_t *out) {
    mbl_dtype_t dtype = x->q->dtype;
    double share = x->causal ? 0.5 : 1, product = attention_product(x->q);
    bool tensor = on_tensor_cores(x->q) && x->scale > 0 && !x->bias;
    if (tensor)
        rows_of(x->q, 128, out);
    out->flops[tensor ? MBL_UNIT_TENSOR : real_unit(dtype)] += share * 2 * product;
    out->flops[real_unit(dtype)] += share * 4 * elements(x->q) / (double)x->q->dim[3] * (double)x->q->dim[2];
}

/* Three kernels: a number per query from out and dout; dk and dv; dq. The last two form the scores anew. */
static void attention_bwd(const mbl_attention_bwd_args_t *x, mbl_cost_t *out) {
    enum { ROUND = 128 };
    mbl_dtype_t dtype = x->q->dtype, st = mbl_dtype_stat(dtype);
    size_t heads = x->q->dim[0] * x->q->dim[1];
    double part = bytes_of(x->q), scores = elements(x->q) / (double)x->q->dim[3] * (double)x->q->dim[2];
    out->launches = 3;
    const bool tensor = on_tensor_cores(x->q) && x->scale > 0;
    if (tensor)
        rows_of(x->q, 64, out);
    out->flops[tensor ? MBL_UNIT_TENSOR : real_unit(dtype)] += 7 * attention_product(x->q);
    out->flops[real_unit(dtype)] += 2 * 6 * scores;
    out->work = 2 * heads * ceil_div(x->q->dim[2], ROUND) * ROUND * mbl_dtype_size(st);
    /* q, k, v and dout twice, dout once more beside out */
    out->bytes += 5 * part + 3.0 * (double)out->work;
}

/* ---- gpu/sample_grad.cu ---- */

static void sample_grad(const mbl_sample_grad_args_t *x, mbl_cost_t *out) {
    enum { SEGMENT = 512, SETS = 8, MOST_BYTES = 64 << 20 };
    size_t n = x->a->dim[0], t = x->a->dim[1], p = x->a->dim[2], q = x->b->dim[2];
    size_t k = x->coefficient->dim[0], segments = ceil_div(t, SEGMENT);
    size_t one = segments * p * q * mbl_dtype_size(mbl_dtype_stat(x->a->dtype));
    size_t most = MOST_BYTES / one > 1 ? MOST_BYTES / one : 1;
    most = most < n ? most : n;
    size_t rounds = ceil_div(n, most);
    double samples = (double)n, area = (double)p * (double)q;
    out->launches = 2 * rounds;
    out->work = most * one;
    out->flops[product_unit(x->a->dtype)] += 2 * samples * (double)t * area;
    out->flops[MBL_UNIT_F64] += 2 * samples * (double)k * area;
    /* the products are written, and read for every SETS sets; later rounds read and write the sets again */
    out->bytes += samples * (double)one * (1 + (double)ceil_div(k, SETS)) +
                  2.0 * (double)(rounds - 1) * (double)k * area * sizeof(double);
}

/* ---- method: gpu/nft.cu, gram.cu, vectors.cu ---- */

static void nft(const mbl_nft_args_t *x, mbl_cost_t *out) {
    enum { PIECE = 4096, SUMS = 5 };
    size_t n = x->v->dim[0];
    out->launches = 3;
    out->work = n * (ceil_div(x->v->dim[1], PIECE) * SUMS + 2) * sizeof(double);
    out->bytes += 4 * bytes_of(x->v) + 2.0 * (double)out->work; /* v, v_old, xt, x0 again for the seeds */
}

/* One pass over vectors, a block for every segment of them, and the sum of the segments' numbers. */
static void over_vectors(const mbl_tensor_t *t, size_t numbers, mbl_unit_t unit, double per_element,
                         mbl_cost_t *out) {
    enum { THREADS = 256, SEGMENTS = 512 };
    size_t step = THREADS * 16 / mbl_dtype_size(t->dtype);
    size_t length = ceil_div(ceil_div(t->dim[0], step), SEGMENTS) * step;
    out->launches = 2;
    out->flops[unit] = per_element * (double)t->dim[0];
    out->work = (ceil_div(t->dim[0], length) + 1) * numbers * sizeof(double);
    out->bytes += 2.0 * (double)out->work;
}

static void distance(const mbl_distance_args_t *x, mbl_cost_t *out) {
    over_vectors(x->x, 2, MBL_UNIT_F64, 5, out);
}

static void checksum(const mbl_checksum_args_t *x, mbl_cost_t *out) {
    over_vectors(x->x, 1, MBL_UNIT_F32, 8, out);
}

static void gram(const mbl_gram_args_t *x, mbl_cost_t *out) {
    enum { GROUP = 8, THREADS = 128, SEGMENTS = 512 };
    const mbl_tensor_t *t = x->x;
    size_t k = t->dim[0], step = THREADS * 16 / mbl_dtype_size(t->dtype);
    size_t length = ceil_div(ceil_div(t->dim[1], step), SEGMENTS) * step, groups = ceil_div(k, GROUP);
    size_t segments = ceil_div(t->dim[1], length);
    out->launches = groups > 1 ? 3 : 2;
    out->flops[MBL_UNIT_F64] = (double)k * (double)(k + 1) * (double)t->dim[1];
    size_t rows = ceil_div(k, 16) * 16; /* scratch is taken for so many */
    out->work = (segments + 1) * rows * rows * sizeof(double);
    /* a pair of row groups reads both */
    out->bytes +=
        (double)(groups - 1) * bytes_of(t) + 2.0 * (double)((segments + 1) * k * k * sizeof(double));
}

/* ---- all of them ---- */

/* Operations per element of `of`, for those where that is all there is to say. */
static void simple(mbl_cost_t *out, const mbl_tensor_t *of, double per_element) {
    out->flops[real_unit(of->dtype)] += per_element * elements(of);
}

static void add_special(mbl_op_t op, const void *args, mbl_cost_t *out) {
#define CASE(name)                                                                                           \
    case MBL_OP_##name:                                                                                      \
        name(args, out);                                                                                     \
        break;
    switch (op) {
        CASE(matmul)
        CASE(layer_norm_bwd)
        CASE(qk_norm_bwd)
        CASE(gate_bwd)
        CASE(conv2d)
        CASE(group_norm)
        CASE(column_sum)
        CASE(attention)
        CASE(attention_bwd)
        CASE(sample_grad)
        CASE(nft)
        CASE(gram)
        CASE(distance)
        CASE(checksum)
    default:
        break;
    }
#undef CASE
}

static void add_simple(mbl_op_t op, const void *args, mbl_cost_t *out) {
#define CASE(name, operand, per_element)                                                                     \
    case MBL_OP_##name:                                                                                      \
        simple(out, ((const mbl_##name##_args_t *)args)->operand, (per_element));                            \
        break;
    switch (op) {
        CASE(layer_norm, x, 9)
        CASE(layer_norm_bwd, x, 16)
        CASE(layer_norm_affine, x, 9)
        CASE(qk_norm, qkv, 4 * 2 / 3.0) /* of q and k */
        CASE(qk_norm_bwd, qkv, 8 * 2 / 3.0)
        CASE(act, x, 10)
        CASE(act_bwd, x, 18)
        CASE(gate, x, 2)
        CASE(gate_bwd, dy, 3)
        CASE(gate_norm, x, (((const mbl_gate_norm_args_t *)args)->h2 ? 13 : 11))
        CASE(timestep, y, 4)
        CASE(embed, y, 1)
        CASE(add_rows, y, 1)
        CASE(axpby, y, 3)
        CASE(column_sum, x, 1)
        CASE(to_bytes, x, 5)
        CASE(nft, v, 30)
        CASE(rows_combine, y, 5)
        CASE(normal, y, 40)
        CASE(combine, x, 2)
        CASE(adamw, w, 14)
    default:
        break;
    }
#undef CASE
}

void mbl_cost_of(mbl_op_t op, const void *args, mbl_cost_t *out) {
    memset(out, 0, sizeof *out);
    out->launches = 1;
    out->least = least(op, args);
    out->bytes = out->least;
    add_special(op, args, out);
    add_simple(op, args, out);
}
