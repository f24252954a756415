/* Conformance of a backend: every operation in f32 and bf16 against the same operation in f64 on the cpu
 * backend, from the same numbers; with strided rows; with optional operands left out; the same bits (for
 * matmul: to rounding) for one thread and two, and for a sample alone and among others. MARBLE_TEST_BACKEND
 * names another backend.   ctest-backends: fake cuda */
#include "ops_harness.h"

#include <stdio.h>

typedef struct {
    size_t n, t, d, heads, k;
} shape_t;
static const shape_t shapes[] = {{3, 5, 24, 2, 1}, {2, 16, 128, 4, 5}, {3, 7, 37, 1, 9}, {1, 70, 66, 3, 21}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void op_layer_norm(run_t *r, shape_t s) {
    mbl_layer_norm_args_t a = {.eps = 1e-6};
    a.y = operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d);
    a.mean = r->leave_out ? NULL : operand2(r, OUT | BATCH, STAT, s.n, s.t);
    a.rstd = r->leave_out ? NULL : operand2(r, OUT | BATCH, STAT, s.n, s.t);
    a.x = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    a.scale = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.shift = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    OK(mbl_op_layer_norm(r->ops, &a));
}

static void op_layer_norm_bwd(run_t *r, shape_t s) {
    mbl_layer_norm_bwd_args_t a = {0};
    a.dx = operand3(r, ADD | BATCH, COMPUTE, s.n, s.t, s.d);
    a.dscale = r->leave_out ? NULL : operand2(r, ADD | BATCH | ROWS, STAT, s.n, s.d);
    a.dshift = r->leave_out ? NULL : operand2(r, ADD | BATCH | ROWS, STAT, s.n, s.d);
    a.dy = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    a.x = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    a.mean = operand2(r, BATCH, STAT, s.n, s.t);
    a.rstd = operand2(r, BATCH | POSITIVE, STAT, s.n, s.t);
    a.scale = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    OK(mbl_op_layer_norm_bwd(r->ops, &a));
}

static void op_layer_norm_affine(run_t *r, shape_t s) {
    mbl_layer_norm_affine_args_t a = {.eps = 1e-5};
    a.y = operand2(r, OUT | BATCH, COMPUTE, s.n, s.d);
    a.x = operand2(r, BATCH, COMPUTE, s.n, s.d);
    a.weight = operand1(r, IN, COMPUTE, s.d);
    a.bias = r->leave_out ? NULL : operand1(r, IN, COMPUTE, s.d); /* an RMS norm without */
    OK(mbl_op_layer_norm_affine(r->ops, &a));
}

/* Windows of one pixel, of three by three, and those over an enlarged image, added to what is there. */
static void op_conv2d(run_t *r, shape_t s) {
    for (size_t i = 0; i < 3; i++) {
        size_t k = i ? 3 : 1, up = i == 2 ? 2 : 1, height = (s.t + 1) / 2, width = 3, outputs = 8 * s.heads;
        mbl_conv2d_args_t a = {.pad = k / 2, .up = up, .accumulate = i == 2};
        a.y = operand4(r, (i == 2 ? ADD : OUT) | BATCH, COMPUTE, s.n, height * up, width * up, outputs);
        a.x = operand4(r, BATCH, COMPUTE, s.n, height, width, s.d);
        a.weight = operand4(r, IN, COMPUTE, outputs, k, k, s.d);
        a.bias = r->leave_out ? NULL : operand1(r, IN, COMPUTE, outputs);
        OK(mbl_op_conv2d(r->ops, &a));
    }
}

/* Groups that hold whole vectors, and groups of one or two channels. */
static void op_group_norm(run_t *r, shape_t s) {
    const size_t groups[2] = {s.heads, s.d % 2 ? s.d : s.d / 2};
    for (int i = 0; i < 2; i++) {
        mbl_group_norm_args_t a = {.groups = groups[i], .eps = 1e-6, .silu = !r->leave_out};
        a.x = operand3(r, (r->leave_out ? ADD : IN) | BATCH, COMPUTE, s.n, s.t, s.d);
        a.y = r->leave_out ? a.x : operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d); /* in place, or not */
        a.weight = operand1(r, IN, COMPUTE, s.d);
        a.bias = operand1(r, IN, COMPUTE, s.d);
        OK(mbl_op_group_norm(r->ops, &a));
    }
}

static void op_gate_norm(run_t *r, shape_t s) {
    mbl_gate_norm_args_t a = {.eps = 1e-6};
    a.y = operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d);
    a.z = operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d);
    a.mean = r->leave_out ? NULL : operand2(r, OUT | BATCH, STAT, s.n, s.t);
    a.rstd = r->leave_out ? NULL : operand2(r, OUT | BATCH, STAT, s.n, s.t);
    a.x = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    a.gate = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.h = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    a.scale = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.shift = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.gate2 = r->leave_out ? NULL : operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.h2 = r->leave_out ? NULL : operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    OK(mbl_op_gate_norm(r->ops, &a));
}

/* T tokens written at 2 of T + 3: the others are kept, and so are the columns of v. */
static void op_qk_norm(run_t *r, shape_t s) {
    mbl_qk_norm_args_t a = {.first = 2, .eps = 1e-6};
    size_t d = s.d / s.heads;
    a.q = operand4(r, ADD | BATCH, COMPUTE, s.n, s.heads, s.t + 3, d);
    a.k = operand4(r, ADD | BATCH, COMPUTE, s.n, s.heads, s.t + 3, d);
    a.qkv = operand3(r, BATCH | ROWS, COMPUTE, s.n, s.t, 3 * s.heads * d);
    a.weight_q = r->leave_out ? NULL : operand1(r, IN, COMPUTE, d);
    a.weight_k = r->leave_out ? NULL : operand1(r, IN, COMPUTE, d);
    a.rstd_q = r->leave_out ? NULL : operand3(r, OUT | BATCH, STAT, s.n, s.t, s.heads);
    a.rstd_k = r->leave_out ? NULL : operand3(r, OUT | BATCH, STAT, s.n, s.t, s.heads);
    OK(mbl_op_qk_norm(r->ops, &a));
}

static void op_qk_norm_bwd(run_t *r, shape_t s) {
    mbl_qk_norm_bwd_args_t a = {.first = 1};
    size_t d = s.d / s.heads;
    a.dqkv = operand3(r, ADD | BATCH | ROWS, COMPUTE, s.n, s.t, 3 * s.heads * d);
    a.dq = operand4(r, BATCH, COMPUTE, s.n, s.heads, s.t + 2, d);
    a.dk = operand4(r, BATCH, COMPUTE, s.n, s.heads, s.t + 2, d);
    a.qkv = operand3(r, BATCH | ROWS, COMPUTE, s.n, s.t, 3 * s.heads * d);
    if (!r->leave_out) {
        a.rstd_q = operand3(r, BATCH | POSITIVE, STAT, s.n, s.t, s.heads);
        a.rstd_k = operand3(r, BATCH | POSITIVE, STAT, s.n, s.t, s.heads);
        a.weight_q = operand1(r, IN, COMPUTE, d);
        a.weight_k = operand1(r, IN, COMPUTE, d);
        a.dweight_q = operand1(r, ADD, STAT, d);
        a.dweight_k = operand1(r, ADD, STAT, d);
    }
    OK(mbl_op_qk_norm_bwd(r->ops, &a));
}

static void op_act(run_t *r, shape_t s) {
    for (mbl_act_t act = MBL_ACT_NONE; act <= MBL_ACT_QUICK_GELU; act++) {
        mbl_act_args_t a = {.act = act};
        a.y = operand2(r, OUT | BATCH, COMPUTE, s.n, s.t * s.d);
        a.x = operand2(r, BATCH, COMPUTE, s.n, s.t * s.d);
        OK(mbl_op_act(r->ops, &a));
    }
}

static void op_act_bwd(run_t *r, shape_t s) {
    for (mbl_act_t act = MBL_ACT_NONE; act <= MBL_ACT_QUICK_GELU; act++) {
        mbl_act_bwd_args_t a = {.act = act};
        a.dx = operand2(r, OUT | BATCH, COMPUTE, s.n, s.t * s.d);
        a.dy = operand2(r, BATCH, COMPUTE, s.n, s.t * s.d);
        a.x = operand2(r, BATCH, COMPUTE, s.n, s.t * s.d);
        OK(mbl_op_act_bwd(r->ops, &a));
    }
}

static void op_act_in_place(run_t *r, shape_t s) {
    mbl_act_args_t a = {.act = MBL_ACT_SILU};
    a.y = a.x = operand2(r, ADD | BATCH, COMPUTE, s.n, s.t * s.d);
    OK(mbl_op_act(r->ops, &a));
    mbl_act_bwd_args_t b = {.act = MBL_ACT_GELU_TANH};
    b.dx = b.dy = operand2(r, ADD | BATCH, COMPUTE, s.n, s.d);
    b.x = operand2(r, BATCH, COMPUTE, s.n, s.d);
    OK(mbl_op_act_bwd(r->ops, &b));
}

static void op_gate(run_t *r, shape_t s) {
    mbl_gate_args_t a = {0};
    a.x = operand3(r, (r->leave_out ? ADD : IN) | BATCH, COMPUTE, s.n, s.t, s.d);
    a.y = r->leave_out ? a.x : operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d); /* in place, or not */
    a.gate = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.h = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    OK(mbl_op_gate(r->ops, &a));
}

static void op_gate_bwd(run_t *r, shape_t s) {
    mbl_gate_bwd_args_t a = {0};
    a.dh = operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d);
    a.dgate = r->leave_out ? NULL : operand2(r, ADD | BATCH | ROWS, STAT, s.n, s.d);
    a.dy = operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    a.gate = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.h = r->leave_out ? NULL : operand3(r, BATCH, COMPUTE, s.n, s.t, s.d);
    OK(mbl_op_gate_bwd(r->ops, &a));
}

static void op_patches(run_t *r, shape_t s) {
    for (mbl_patch_order_t order = MBL_PATCH_CPQ; order <= MBL_PATCH_PQC; order++) {
        size_t c = s.d % 5 + 1, p = 2;
        mbl_patchify_args_t a = {.patch = p, .order = order};
        a.tokens = operand3(r, OUT | BATCH, COMPUTE, s.n, s.t * 3, c * p * p);
        a.image = operand4(r, BATCH, STAT, s.n, c, s.t * p, 3 * p);
        OK(mbl_op_patchify(r->ops, &a));
        mbl_unpatchify_args_t b = {.patch = p, .order = order};
        b.image = operand4(r, OUT | BATCH, STAT, s.n, c, s.t * p, 3 * p);
        b.tokens = a.tokens;
        OK(mbl_op_unpatchify(r->ops, &b));
    }
}

static void op_timestep(run_t *r, shape_t s) {
    mbl_timestep_args_t a = {.factor = 4};
    a.y = operand2(r, OUT | BATCH, COMPUTE, s.n, 2 * s.d);
    a.t = operand1(r, BATCH | POSITIVE, STAT, s.n);
    OK(mbl_op_timestep(r->ops, &a));
}

static void op_embed(run_t *r, shape_t s) {
    enum { V = 11 };
    mbl_embed_args_t a = {0};
    mbl_tensor_t ids, cut;
    int32_t host[512];
    for (size_t i = 0; i < s.n * s.t; i++)
        host[i] = (int32_t)(i * i % V);
    OK(mbl_tensor_new(r->ops, MBL_I32, &ids, 2, s.n, s.t));
    OK(mbl_tensor_upload(r->ops, &ids, host));
    cut = r->only >= 0 ? mbl_tensor_rows(&ids, (size_t)r->only, 1) : ids;
    a.y = operand3(r, OUT | BATCH, COMPUTE, s.n, s.t, s.d);
    a.table = operand2(r, IN, COMPUTE, V, s.d);
    a.ids = &cut;
    a.position = r->leave_out ? NULL : operand2(r, IN, COMPUTE, s.t + 2, s.d);
    mbl_status_t status = mbl_op_embed(r->ops, &a);
    mbl_tensor_free(r->ops, &ids);
    OK(status);
}

static void op_add_rows(run_t *r, shape_t s) {
    mbl_add_rows_args_t a = {0};
    a.y = operand3(r, ADD | BATCH, COMPUTE, s.n, s.t, s.d);
    a.rows = operand2(r, IN, COMPUTE, s.t, s.d);
    OK(mbl_op_add_rows(r->ops, &a));
}

static void op_convert(run_t *r, shape_t s) {
    const kind_t kinds[3] = {COMPUTE, STAT, GRAD64};
    for (int i = 0; i < 9; i++) {
        mbl_convert_args_t a = {0};
        a.dst = operand3(r, OUT | BATCH | (r->leave_out ? 0 : ROWS), kinds[i / 3], s.n, s.t, s.d);
        a.src = operand3(r, BATCH | ROWS, kinds[i % 3], s.n, s.t, s.d);
        OK(mbl_op_convert(r->ops, &a));
    }
}

static void op_axpby(run_t *r, shape_t s) {
    const double b[3] = {0, 1, -0.25};
    for (int i = 0; i < 3; i++) {
        mbl_axpby_args_t a = {.a = 0.75, .b = b[i]};
        a.y = operand2(r, (b[i] == 0 ? OUT : ADD) | BATCH, COMPUTE, s.n, s.t * s.d);
        a.x = operand2(r, BATCH, COMPUTE, s.n, s.t * s.d);
        OK(mbl_op_axpby(r->ops, &a));
    }
}

static void op_column_sum(run_t *r, shape_t s) {
    mbl_column_sum_args_t a = {0};
    a.y = operand1(r, ADD, STAT, s.d);
    a.x = operand2(r, IN | ROWS, COMPUTE, s.n * s.t, s.d);
    OK(mbl_op_column_sum(r->ops, &a));
}

static void op_sample_grad(run_t *r, shape_t s) {
    const size_t p[2] = {9, s.d}, q[2] = {s.d, 5};
    for (int i = 0; i < 2; i++) {
        mbl_sample_grad_args_t a = {.factor = 0.5};
        mbl_tensor_t coefficient;
        float host[256];
        for (size_t j = 0; j < s.k * s.n; j++)
            host[j] = j % 7 == 3 ? 0 : 0.25f * (float)(j % 11) - 1;
        OK(mbl_tensor_new(r->ops, MBL_F32, &coefficient, 2, s.k, s.n));
        OK(mbl_tensor_upload(r->ops, &coefficient, host));
        a.acc = operand3(r, ADD, GRAD64, s.k, p[i], q[i]);
        a.a = operand3(r, IN | ROWS, COMPUTE, s.n, s.t, p[i]);
        a.b = operand3(r, IN | ROWS, COMPUTE, s.n, s.t, q[i]);
        a.coefficient = &coefficient;
        mbl_status_t status = mbl_op_sample_grad(r->ops, &a);
        mbl_tensor_free(r->ops, &coefficient);
        OK(status);
    }
}

static void op_nft(run_t *r, shape_t s) {
    mbl_nft_args_t a = {.beta = 0.3};
    size_t e = s.t * s.d;
    a.u = operand2(r, OUT | BATCH, STAT, s.n, e);
    a.loss_plus = operand1(r, OUT | BATCH, STAT, s.n);
    a.loss_minus = operand1(r, OUT | BATCH, STAT, s.n);
    a.v = operand2(r, BATCH, STAT, s.n, e);
    a.v_old = operand2(r, BATCH, STAT, s.n, e);
    a.xt = operand2(r, BATCH, STAT, s.n, e);
    a.x0 = operand2(r, BATCH, STAT, s.n, e);
    a.t = operand1(r, BATCH | POSITIVE, STAT, s.n);
    if (!r->leave_out) {
        a.h = operand2(r, OUT | BATCH, STAT, s.n, e);
        a.dkl = operand2(r, OUT | BATCH, STAT, s.n, e);
        a.kl = operand1(r, OUT | BATCH, STAT, s.n);
        a.v_ref = operand2(r, BATCH, STAT, s.n, e);
    }
    OK(mbl_op_nft(r->ops, &a));
}

static void op_rows_combine(run_t *r, shape_t s) {
    for (size_t terms = 1; terms <= MBL_ROWS_TERMS; terms++) {
        mbl_rows_combine_args_t a = {0};
        for (size_t j = 0; j < terms; j++) /* the last is also the result when optional ones are left out */
            a.x[j] = operand2(r, r->leave_out && j + 1 == terms ? ADD : IN, STAT, s.n, s.d);
        a.y = r->leave_out ? a.x[terms - 1] : operand2(r, OUT, STAT, s.n, s.d);
        a.coefficient = operand2(r, IN, STAT, terms, s.n);
        OK(mbl_op_rows_combine(r->ops, &a));
    }
}

static void op_normal(run_t *r, shape_t s) {
    mbl_normal_args_t a = {.seed = 5, .purpose = MBL_RNG_NOISE, .step = 3};
    const int64_t host[4] = {11, 1ll << 40, 0, 3};
    mbl_tensor_t sample, cut;
    OK(mbl_tensor_new(r->ops, MBL_I64, &sample, 1, (size_t)4));
    OK(mbl_tensor_upload(r->ops, &sample, host));
    cut = mbl_tensor_rows(&sample, r->only >= 0 ? (size_t)r->only : 0, r->only >= 0 ? 1 : s.n);
    a.y = operand2(r, OUT | BATCH, STAT, s.n, s.t * s.d);
    a.sample = &cut;
    mbl_status_t status = mbl_op_normal(r->ops, &a);
    mbl_tensor_free(r->ops, &sample);
    OK(status);
}

/* The Gram matrix lands on the host, and from there in an operand like the others. The longest rows are
 * longer than what one pass over their segments takes: 64 of 512 columns on the cpu, 512 of 128 on cuda. */
static void op_gram(run_t *r, shape_t s) {
    double host[32 * 32];
    mbl_tensor_t gram = MBL_TENSOR_2(host, MBL_F64, s.k, s.k);
    mbl_gram_args_t a = {.gram = &gram};
    const mbl_tensor_t *result = operand2(r, OUT, GRAD64, s.k, s.k);
    a.x = operand2(r, IN | ROWS, STAT, s.k, 16 * s.t * s.d + 3);
    OK(mbl_op_gram(r->ops, &a));
    for (size_t i = 0; i < s.k; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(host[i * s.k + j] == host[j * s.k + i]);
    OK(mbl_tensor_upload(r->ops, result, host));
}

/* As the Gram matrix; the longest vectors have more pieces than one. */
static void op_distance(run_t *r, shape_t s) {
    double host[2];
    mbl_tensor_t sums = MBL_TENSOR_1(host, MBL_F64, 2);
    mbl_distance_args_t a = {.sums = &sums};
    const mbl_tensor_t *result = operand1(r, OUT, GRAD64, 2);
    a.x = operand1(r, IN, STAT, 32 * s.t * s.d + 3);
    a.y = operand1(r, IN, STAT, 32 * s.t * s.d + 3);
    OK(mbl_op_distance(r->ops, &a));
    OK(mbl_tensor_upload(r->ops, result, host));
}

static void op_combine(run_t *r, shape_t s) {
    double coefficient[32];
    for (size_t k = 0; k < s.k; k++)
        coefficient[k] = k % 5 == 4 ? 0 : (double)k - 2.5;
    mbl_combine_args_t a = {.coefficient = coefficient};
    a.y = operand1(r, OUT, STAT, 8 * s.t * s.d + 3);
    a.x = operand2(r, IN | ROWS, STAT, s.k, 8 * s.t * s.d + 3);
    OK(mbl_op_combine(r->ops, &a));
}

static void op_adamw(run_t *r, shape_t s) {
    for (int i = 0; i < 2; i++) {
        mbl_adamw_args_t a = {.lr = 0.01,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8,
                              .weight_decay = 0.1,
                              .grad_scale = 0.5,
                              .step = 3};
        a.w = operand1(r, ADD, STAT, s.t * s.d);
        a.m = operand1(r, ADD, STAT, s.t * s.d);
        a.v = operand1(r, ADD | POSITIVE, STAT, s.t * s.d);
        a.g = operand1(r, IN, i ? GRAD64 : STAT, s.t * s.d);
        OK(mbl_op_adamw(r->ops, &a));
    }
}

/* A product added to y through gelu, with what gelu is applied to, and the way back. */
static void matmul_through_gelu(run_t *r, shape_t s) {
    mbl_matmul_args_t a = {.accumulate = true, .act = MBL_ACT_GELU_TANH};
    a.y = operand2(r, ADD | ROWS | BATCH, COMPUTE, s.n, s.t);
    a.a = operand2(r, BATCH | ROWS, COMPUTE, s.n, s.d);
    a.b = operand2(r, ROWS, COMPUTE, s.d, s.t);
    a.bias = r->leave_out ? NULL : operand1(r, IN, COMPUTE, s.t);
    a.pre = operand2(r, OUT | ROWS | BATCH, COMPUTE, s.n, s.t);
    OK(mbl_op_matmul(r->ops, &a));
    mbl_matmul_args_t back = {.accumulate = !r->leave_out, .act = MBL_ACT_GELU_TANH};
    back.y = operand2(r, (r->leave_out ? OUT : ADD) | ROWS | BATCH, COMPUTE, s.n, s.t);
    back.a = a.a, back.b = a.b;
    back.through = operand2(r, ROWS | BATCH, COMPUTE, s.n, s.t);
    OK(mbl_op_matmul(r->ops, &back));
}

/* Every transposition, with a bias and an activation, or adding to a wide result. A row is a sample. */
static void op_matmul(run_t *r, shape_t s) {
    for (int i = 0; i < 8; i++) {
        bool ta = i & 1 && r->only < 0, tb = i & 2, add = i & 4;
        mbl_matmul_args_t a = {.transpose_a = ta, .transpose_b = tb, .accumulate = add};
        size_t m = s.n, k = s.d, n = s.t;
        a.y = operand2(r, (add ? ADD : OUT) | ROWS | (i & 1 ? 0 : BATCH), add ? STAT : COMPUTE, m, n);
        a.a = ta ? operand2(r, ROWS, COMPUTE, k, m) : operand2(r, BATCH | ROWS, COMPUTE, m, k);
        a.b = tb ? operand2(r, ROWS, COMPUTE, n, k) : operand2(r, ROWS, COMPUTE, k, n);
        a.bias = add || r->leave_out ? NULL : operand1(r, IN, COMPUTE, n);
        a.act = add || r->leave_out ? MBL_ACT_NONE : MBL_ACT_GELU_TANH;
        if (i & 1 && r->only >= 0) /* the samples of a transposed operand are its columns */
            continue;
        OK(mbl_op_matmul(r->ops, &a));
    }
    matmul_through_gelu(r, s);
}

static void op_attention(run_t *r, shape_t s) {
    for (int i = 0; i < 4; i++) {
        size_t d = s.d / s.heads, first = r->leave_out ? s.t : s.t - 2;
        mbl_attention_args_t a = {.scale = 0.3, .causal = i & 1};
        a.bias = i & 2 ? operand2(r, IN, STAT, s.heads, 2 * s.t - 1) : NULL;
        a.q = operand4(r, BATCH, COMPUTE, s.n, s.heads, s.t, d);
        a.k = operand4(r, BATCH, COMPUTE, s.n, s.heads, s.t, d);
        a.v1 = operand3(r, BATCH | ROWS, COMPUTE, s.n, first, s.heads * d);
        a.v2 = r->leave_out ? NULL : operand3(r, BATCH | ROWS, COMPUTE, s.n, 2, s.heads * d);
        a.out1 = operand3(r, OUT | BATCH, COMPUTE, s.n, first, s.heads * d);
        a.out2 = r->leave_out ? NULL : operand3(r, OUT | BATCH, COMPUTE, s.n, 2, s.heads * d);
        a.lse = r->leave_out ? NULL : operand3(r, OUT | BATCH, STAT, s.n, s.heads, s.t);
        OK(mbl_op_attention(r->ops, &a));
    }
}

static void op_attention_bwd(run_t *r, shape_t s) {
    size_t d = s.d / s.heads, first = r->leave_out ? s.t : s.t - 2;
    mbl_attention_args_t f = {.scale = 0.3};
    f.q = operand4(r, BATCH, COMPUTE, s.n, s.heads, s.t, d);
    f.k = operand4(r, BATCH, COMPUTE, s.n, s.heads, s.t, d);
    f.v1 = operand3(r, BATCH | ROWS, COMPUTE, s.n, first, s.heads * d);
    f.v2 = r->leave_out ? NULL : operand3(r, BATCH | ROWS, COMPUTE, s.n, 2, s.heads * d);
    f.out1 = operand3(r, OUT | BATCH, COMPUTE, s.n, first, s.heads * d);
    f.out2 = r->leave_out ? NULL : operand3(r, OUT | BATCH, COMPUTE, s.n, 2, s.heads * d);
    f.lse = operand3(r, OUT | BATCH, STAT, s.n, s.heads, s.t);
    OK(mbl_op_attention(r->ops, &f));
    mbl_attention_bwd_args_t a = {.out1 = f.out1, .out2 = f.out2, .lse = f.lse, .scale = f.scale};
    a.q = f.q, a.k = f.k, a.v1 = f.v1, a.v2 = f.v2;
    a.dout1 = operand3(r, BATCH, COMPUTE, s.n, first, s.heads * d);
    a.dout2 = r->leave_out ? NULL : operand3(r, BATCH, COMPUTE, s.n, 2, s.heads * d);
    a.dq = operand4(r, OUT | BATCH, COMPUTE, s.n, s.heads, s.t, d);
    a.dk = operand4(r, OUT | BATCH, COMPUTE, s.n, s.heads, s.t, d);
    a.dv1 = operand3(r, OUT | BATCH | ROWS, COMPUTE, s.n, first, s.heads * d);
    a.dv2 = r->leave_out ? NULL : operand3(r, OUT | BATCH | ROWS, COMPUTE, s.n, 2, s.heads * d);
    OK(mbl_op_attention_bwd(r->ops, &a));
}

typedef struct {
    const char *name;
    void (*call)(run_t *, shape_t);
    bool typed;      /* has a bf16 form */
    double worst[2]; /* relative error allowed in f32 and bf16 */
    bool rounds;     /* the order of sums may depend on threads and on the row count: bits may differ */
} case_t;
#define F32_TOLERANCE 1.5e-6
#define BF16_TOLERANCE 4e-3
#define TYPED(name)                                                                                          \
    { #name, op_##name, true, {F32_TOLERANCE, BF16_TOLERANCE }, false }
#define WIDE(name)                                                                                           \
    { #name, op_##name, false, {F32_TOLERANCE, 0 }, false }
/* clang-format off */
static const case_t cases[] = {
    {"matmul", op_matmul, true, {F32_TOLERANCE, BF16_TOLERANCE}, true},
    {"attention", op_attention, true, {F32_TOLERANCE, 6e-3}, false},
    {"attention_bwd", op_attention_bwd, true, {3e-6, 2e-2}, false},
    TYPED(layer_norm), TYPED(layer_norm_bwd), TYPED(layer_norm_affine), TYPED(conv2d), TYPED(group_norm), TYPED(gate_norm),
 TYPED(qk_norm),
    TYPED(qk_norm_bwd), TYPED(act), TYPED(act_bwd), TYPED(act_in_place), TYPED(gate), TYPED(gate_bwd),
    TYPED(patches), TYPED(timestep), TYPED(embed), TYPED(add_rows), TYPED(convert), TYPED(axpby),
    TYPED(column_sum), TYPED(sample_grad), WIDE(nft), WIDE(rows_combine), WIDE(normal), WIDE(gram),
    WIDE(distance), WIDE(combine), WIDE(adamw)};
/* clang-format on */
enum { CASES = sizeof cases / sizeof cases[0] };

typedef struct {
    mbl_ops_t *reference, *one, *two; /* cpu in f64; the backend with one thread and with two */
    bool slow;                        /* an emulated GPU: half of the repetitions */
} backends_t;

static double error_of(const run_t *run, const run_t *want, int i) {
    double *a = numbers(run->ops, &run->base[i], &run->view[i]);
    double *b = numbers(want->ops, &want->base[i], &want->view[i]);
    double error = relative_error_f64(a, b, mbl_tensor_count(&run->view[i]));
    free(a);
    free(b);
    return error;
}

/* Every output near the reference; nothing else touched, gaps included. */
static void check_values(const char *what, const run_t *run, const run_t *want, double tolerance) {
    for (int i = 0; i < run->n; i++) {
        double error = error_of(run, want, i);
        double allowed = run->flags[i] & (OUT | ADD) ? tolerance : 0;
        if (!(error <= allowed))
            fail_msg("%s, operand %d: relative error %.3g, at most %.3g allowed", what, i, error, allowed);
    }
}

static bool agree(const double *x, const double *y, size_t count, double tolerance) {
    return tolerance > 0 ? relative_error_f64(x, y, count) <= tolerance
                         : memcmp(x, y, count * sizeof *x) == 0;
}

static void check_threads(const char *what, const run_t *a, const run_t *b, double tolerance) {
    for (int i = 0; i < a->n; i++) {
        double *x = numbers(a->ops, &a->base[i], &a->base[i]), *y = numbers(b->ops, &b->base[i], &b->base[i]);
        bool same = agree(x, y, memory_count(&a->base[i]), tolerance);
        free(x);
        free(y);
        if (!same)
            fail_msg("%s, operand %d: two threads give another result than one", what, i);
    }
}

/* The rows of sample `only` of a call on all samples against a call on that sample alone. */
static void check_alone(const char *what, const run_t *all, const run_t *alone, double tolerance) {
    for (int i = 0; i < all->n; i++) {
        if (!(all->flags[i] & BATCH) || !(all->flags[i] & (OUT | ADD)))
            continue;
        mbl_tensor_t row = mbl_tensor_rows(&all->view[i], (size_t)alone->only, 1);
        double *x = numbers(all->ops, &all->base[i], &row);
        double *y = numbers(alone->ops, &alone->base[i], &alone->view[i]);
        bool same = agree(y, x, mbl_tensor_count(&row), tolerance);
        free(x);
        free(y);
        if (!same)
            fail_msg("%s, operand %d: sample %d alone gives another result than among others", what, i,
                     alone->only);
    }
}

/* The gaps of strided operands still hold what fill() put there. */
static void check_gaps(const char *what, run_t *run) {
    for (int i = 0; run->strided && i < run->n; i++) {
        if (!(run->flags[i] & ROWS) || !(run->flags[i] & (OUT | ADD)))
            continue;
        double *now = numbers(run->ops, &run->base[i], &run->base[i]);
        fill(run, &run->base[i], i, run->flags[i]);
        double *before = numbers(run->ops, &run->base[i], &run->base[i]);
        size_t width = run->base[i].dim[run->base[i].ndim - 1], bad = 0;
        for (size_t j = 0; j < memory_count(&run->base[i]); j++)
            bad += (j % width < GAP || j % width >= width - GAP) && now[j] != before[j];
        free(now);
        free(before);
        if (bad)
            fail_msg("%s, operand %d: %zu numbers between rows were written", what, i, bad);
    }
}

/* Two threads against one, and every sample alone against all. */
static void check_again(const char *what, const backends_t *b, const case_t *c, shape_t s, const run_t *run) {
    const double tolerance = c->rounds ? c->worst[run->ct == MBL_BF16] : 0;
    run_t two = *run, alone = *run;
    two.n = alone.n = 0;
    two.ops = b->two;
    c->call(&two, s);
    check_threads(what, run, &two, tolerance);
    release(&two);
    for (size_t n = 0; n < s.n; n++) {
        alone.only = (int)n;
        c->call(&alone, s);
        check_alone(what, run, &alone, tolerance);
        release(&alone);
    }
}

static void check_case(const backends_t *b, const case_t *c, shape_t s, mbl_dtype_t ct, bool strided,
                       bool leave_out) {
    char what[128];
    snprintf(what, sizeof what, "%s %s [%zu,%zu,%zu]%s%s", c->name, mbl_dtype_name(ct), s.n, s.t, s.d,
             strided ? " strided" : "", leave_out ? " without optional operands" : "");
    run_t want = {.ops = b->reference, .ct = MBL_F64, .strided = strided, .only = -1, .leave_out = leave_out};
    run_t run = want;
    run.ops = b->one;
    run.ct = ct;
    c->call(&want, s);
    c->call(&run, s);
    check_values(what, &run, &want, c->worst[ct == MBL_BF16]);
    if (!b->slow || strided == leave_out)
        check_again(what, b, c, s, &run);
    check_gaps(what, &run);
    release(&want);
    release(&run);
}

static void backend_conforms(const char *name) {
    backends_t b = {.slow = !strcmp(name, "cuda")};
    OK(mbl_ops_open("cpu", 1, &b.reference));
    OK(mbl_ops_open(name, 1, &b.one));
    OK(mbl_ops_open(name, 2, &b.two));
    for (int c = 0; c < CASES; c++)
        for (int s = 0; s < SHAPES; s++)
            for (int variant = 0; variant < 4; variant++) {
                check_case(&b, &cases[c], shapes[s], MBL_F32, variant & 1, variant & 2);
                if (cases[c].typed)
                    check_case(&b, &cases[c], shapes[s], MBL_BF16, variant & 1, variant & 2);
            }
    mbl_ops_close(b.reference);
    mbl_ops_close(b.one);
    mbl_ops_close(b.two);
}

static void cpu_conforms(void **state) {
    (void)state;
    backend_conforms("cpu");
}

static void check_conforms(void **state) {
    (void)state;
    backend_conforms("check");
}

static void named_backend_conforms(void **state) {
    (void)state;
    backend_conforms(getenv("MARBLE_TEST_BACKEND"));
}

int main(void) {
    need_backend();
    const struct CMUnitTest here[] = {cmocka_unit_test(cpu_conforms), cmocka_unit_test(check_conforms)};
    const struct CMUnitTest named[] = {cmocka_unit_test(named_backend_conforms)};
    return getenv("MARBLE_TEST_BACKEND") ? cmocka_run_group_tests(named, NULL, NULL)
                                         : cmocka_run_group_tests(here, NULL, NULL);
}
