/* Finite differences in f64: every backward operation against central differences of its forward one, the
 * DiffusionNFT seeds against those of the two losses with frozen weights, and the products of matmul's
 * backward pass. MARBLE_TEST_BACKEND names another backend.   ctest-backends: fake cuda */
#include "ops_harness.h"

#include <stdio.h>

enum { N = 2, T = 3, H = 2, HEAD = 5, D = H * HEAD };
#define STEP 1e-5
#define TOLERANCE 2e-8

static mbl_ops_t *ops;

static int open_backend(void **state) {
    (void)state;
    return mbl_ops_open(test_backend(), 1, &ops) == MBL_OK ? 0 : -1;
}
static int close_backend(void **state) {
    (void)state;
    mbl_ops_close(ops);
    return 0;
}

/* What a forward call computes: fills the outputs of `problem` from its inputs. */
typedef void (*forward_fn)(void *problem);

static double dot(const mbl_tensor_t *a, const mbl_tensor_t *b) {
    double *x = numbers(ops, a, a), *y = numbers(ops, b, b), sum = 0;
    for (size_t i = 0; i < mbl_tensor_count(a); i++)
        sum += x[i] * y[i];
    free(x);
    free(y);
    return sum;
}

/* d/dx of sum_j <out_j, weight_j>, by central differences, against `gradient`. */
static void check_gradient(const char *what, forward_fn forward, void *problem, const mbl_tensor_t *x,
                           const mbl_tensor_t *gradient, int outs, const mbl_tensor_t *const out[],
                           const mbl_tensor_t *const weight[]) {
    size_t count = mbl_tensor_count(x);
    double *value = numbers(ops, x, x), *found = numbers(ops, gradient, gradient);
    double *expected = calloc(count, sizeof *expected);
    for (size_t i = 0; i < count; i++) {
        double kept = value[i];
        for (int side = 1; side >= -1; side -= 2) {
            value[i] = kept + side * STEP;
            OK(mbl_tensor_upload(ops, x, value));
            forward(problem);
            for (int j = 0; j < outs; j++)
                expected[i] += side * dot(out[j], weight[j]) / (2 * STEP);
        }
        value[i] = kept;
    }
    OK(mbl_tensor_upload(ops, x, value));
    forward(problem);
    double error = relative_error_f64(found, expected, count);
    if (!(error <= TOLERANCE))
        fail_msg("%s: relative error %.3g (first: %.9g, by differences %.9g)", what, error, found[0],
                 expected[0]);
    free(value);
    free(found);
    free(expected);
}

static const mbl_tensor_t *zeros(run_t *r, const mbl_tensor_t *like) {
    const mbl_tensor_t *t =
        operand(r, IN, COMPUTE, like->ndim, like->dim[0], like->dim[1], like->dim[2], like->dim[3]);
    OK(mbl_tensor_zero(r->ops, t));
    return t;
}
#define RUN                                                                                                  \
    { .ops = ops, .ct = MBL_F64, .only = -1 }

static void forward_layer_norm(void *p) {
    OK(mbl_op_layer_norm(ops, p));
}

static void layer_norm(void **state) {
    (void)state;
    run_t r = RUN;
    mbl_layer_norm_args_t f = {.eps = 1e-3};
    f.y = operand3(&r, OUT, COMPUTE, N, T, D);
    f.mean = operand2(&r, OUT, STAT, N, T);
    f.rstd = operand2(&r, OUT, STAT, N, T);
    f.x = operand3(&r, IN, COMPUTE, N, T, D);
    f.scale = operand2(&r, IN, COMPUTE, N, D);
    f.shift = operand2(&r, IN, COMPUTE, N, D);
    mbl_layer_norm_bwd_args_t b = {.x = f.x, .mean = f.mean, .rstd = f.rstd, .scale = f.scale};
    b.dy = operand3(&r, IN, COMPUTE, N, T, D);
    b.dx = zeros(&r, f.x);
    b.dscale = zeros(&r, f.scale);
    b.dshift = zeros(&r, f.shift);
    forward_layer_norm(&f);
    OK(mbl_op_layer_norm_bwd(ops, &b));
    check_gradient("layer_norm dx", forward_layer_norm, &f, f.x, b.dx, 1, &f.y, &b.dy);
    check_gradient("layer_norm dscale", forward_layer_norm, &f, f.scale, b.dscale, 1, &f.y, &b.dy);
    check_gradient("layer_norm dshift", forward_layer_norm, &f, f.shift, b.dshift, 1, &f.y, &b.dy);
    release(&r);
}

static void forward_qk_norm(void *p) {
    OK(mbl_op_qk_norm(ops, p));
}

static void check_qk_norm(bool weights) {
    run_t r = RUN;
    mbl_qk_norm_args_t f = {.first = 1, .eps = 1e-3};
    mbl_qk_norm_bwd_args_t b = {.first = 1};
    f.q = operand4(&r, ADD, COMPUTE, N, H, T + 2, HEAD);
    f.k = operand4(&r, ADD, COMPUTE, N, H, T + 2, HEAD);
    b.qkv = f.qkv = operand3(&r, IN, COMPUTE, N, T, 3 * D);
    b.dq = operand4(&r, IN, COMPUTE, N, H, T + 2, HEAD);
    b.dk = operand4(&r, IN, COMPUTE, N, H, T + 2, HEAD);
    b.dqkv = zeros(&r, f.qkv); /* of v, which is no function of theirs */
    if (weights) {
        b.weight_q = f.weight_q = operand1(&r, IN, COMPUTE, HEAD);
        b.weight_k = f.weight_k = operand1(&r, IN, COMPUTE, HEAD);
        b.rstd_q = f.rstd_q = operand3(&r, OUT, STAT, N, T, H);
        b.rstd_k = f.rstd_k = operand3(&r, OUT, STAT, N, T, H);
        b.dweight_q = zeros(&r, f.weight_q);
        b.dweight_k = zeros(&r, f.weight_k);
    }
    forward_qk_norm(&f);
    OK(mbl_op_qk_norm_bwd(ops, &b));
    const mbl_tensor_t *out[2] = {f.q, f.k}, *weight[2] = {b.dq, b.dk};
    check_gradient("qk_norm dqkv", forward_qk_norm, &f, f.qkv, b.dqkv, 2, out, weight);
    if (weights) {
        check_gradient("qk_norm dweight_q", forward_qk_norm, &f, f.weight_q, b.dweight_q, 2, out, weight);
        check_gradient("qk_norm dweight_k", forward_qk_norm, &f, f.weight_k, b.dweight_k, 2, out, weight);
    }
    release(&r);
}

static void qk_norm(void **state) {
    (void)state;
    check_qk_norm(true);
    check_qk_norm(false);
}

static void forward_attention(void *p) {
    OK(mbl_op_attention(ops, p));
}

static void attention(void **state) {
    (void)state;
    for (size_t split = 0; split < 2; split++) {
        run_t r = RUN;
        mbl_attention_args_t f = {.scale = 0.4};
        size_t all = 7, first = split ? 4 : all;
        f.q = operand4(&r, IN, COMPUTE, N, H, all, HEAD);
        f.k = operand4(&r, IN, COMPUTE, N, H, all, HEAD);
        f.v1 = operand3(&r, IN | ROWS, COMPUTE, N, first, D);
        f.v2 = split ? operand3(&r, IN | ROWS, COMPUTE, N, all - first, D) : NULL;
        f.lse = operand3(&r, OUT, STAT, N, H, all);
        f.out1 = operand3(&r, OUT, COMPUTE, N, first, D);
        f.out2 = split ? operand3(&r, OUT, COMPUTE, N, all - first, D) : NULL;
        mbl_attention_bwd_args_t b = {.out1 = f.out1, .out2 = f.out2, .lse = f.lse, .scale = f.scale};
        b.q = f.q, b.k = f.k, b.v1 = f.v1, b.v2 = f.v2;
        b.dout1 = operand3(&r, IN, COMPUTE, N, first, D);
        b.dout2 = split ? operand3(&r, IN, COMPUTE, N, all - first, D) : NULL;
        b.dq = operand4(&r, OUT, COMPUTE, N, H, all, HEAD);
        b.dk = operand4(&r, OUT, COMPUTE, N, H, all, HEAD);
        b.dv1 = operand3(&r, OUT, COMPUTE, N, first, D);
        b.dv2 = split ? operand3(&r, OUT, COMPUTE, N, all - first, D) : NULL;
        forward_attention(&f);
        OK(mbl_op_attention_bwd(ops, &b));
        const mbl_tensor_t *out[2] = {f.out1, f.out2}, *weight[2] = {b.dout1, b.dout2};
        check_gradient("attention dq", forward_attention, &f, f.q, b.dq, split ? 2 : 1, out, weight);
        check_gradient("attention dk", forward_attention, &f, f.k, b.dk, split ? 2 : 1, out, weight);
        check_gradient("attention dv1", forward_attention, &f, f.v1, b.dv1, split ? 2 : 1, out, weight);
        if (split)
            check_gradient("attention dv2", forward_attention, &f, f.v2, b.dv2, 2, out, weight);
        release(&r);
    }
}

static void forward_act(void *p) {
    OK(mbl_op_act(ops, p));
}

static void act(void **state) {
    (void)state;
    for (mbl_act_t act = MBL_ACT_NONE; act <= MBL_ACT_QUICK_GELU; act++) {
        run_t r = RUN;
        mbl_act_args_t f = {.act = act};
        f.y = operand1(&r, OUT, COMPUTE, 64);
        f.x = operand1(&r, IN, COMPUTE, 64);
        mbl_act_bwd_args_t b = {.x = f.x, .act = act};
        b.dy = operand1(&r, IN, COMPUTE, 64);
        b.dx = operand1(&r, OUT, COMPUTE, 64);
        OK(mbl_op_act_bwd(ops, &b));
        check_gradient("act dx", forward_act, &f, f.x, b.dx, 1, &f.y, &b.dy);
        release(&r);
    }
}

static void forward_gate(void *p) {
    OK(mbl_op_gate(ops, p));
}

static void gate(void **state) {
    (void)state;
    run_t r = RUN;
    mbl_gate_args_t f = {0};
    f.y = operand3(&r, OUT, COMPUTE, N, T, D);
    f.x = operand3(&r, IN, COMPUTE, N, T, D);
    f.gate = operand2(&r, IN, COMPUTE, N, D);
    f.h = operand3(&r, IN, COMPUTE, N, T, D);
    mbl_gate_bwd_args_t b = {.gate = f.gate, .h = f.h};
    b.dy = operand3(&r, IN, COMPUTE, N, T, D);
    b.dh = operand3(&r, OUT, COMPUTE, N, T, D);
    b.dgate = zeros(&r, f.gate);
    OK(mbl_op_gate_bwd(ops, &b));
    check_gradient("gate dh", forward_gate, &f, f.h, b.dh, 1, &f.y, &b.dy);
    check_gradient("gate dgate", forward_gate, &f, f.gate, b.dgate, 1, &f.y, &b.dy);
    release(&r);
}

static void forward_matmul(void *p) {
    OK(mbl_op_matmul(ops, p));
}

/* y = x w' + bias: dx = dy w, dw += dy' x, dbias += column sums of dy. */
static void matmul(void **state) {
    (void)state;
    run_t r = RUN;
    enum { M = 6, K = 5, OUTS = 7 };
    mbl_matmul_args_t f = {.transpose_b = true};
    f.y = operand2(&r, OUT, COMPUTE, M, OUTS);
    f.a = operand2(&r, IN, COMPUTE, M, K);
    f.b = operand2(&r, IN, COMPUTE, OUTS, K);
    f.bias = operand1(&r, IN, COMPUTE, OUTS);
    const mbl_tensor_t *dy = operand2(&r, IN, COMPUTE, M, OUTS);
    const mbl_tensor_t *dx = operand2(&r, OUT, COMPUTE, M, K), *dw = zeros(&r, f.b), *db = zeros(&r, f.bias);
    OK(mbl_op_matmul(ops, &(mbl_matmul_args_t){.y = dx, .a = dy, .b = f.b}));
    OK(mbl_op_matmul(
        ops, &(mbl_matmul_args_t){.y = dw, .a = dy, .b = f.a, .transpose_a = true, .accumulate = true}));
    OK(mbl_op_column_sum(ops, &(mbl_column_sum_args_t){.y = db, .x = dy}));
    check_gradient("matmul dx", forward_matmul, &f, f.a, dx, 1, &f.y, &dy);
    check_gradient("matmul dw", forward_matmul, &f, f.b, dw, 1, &f.y, &dy);
    check_gradient("matmul dbias", forward_matmul, &f, f.bias, db, 1, &f.y, &dy);
    release(&r);
}

typedef struct {
    mbl_matmul_args_t first, second;
} two_products_t;

static void forward_two_products(void *p) {
    two_products_t *x = p;
    OK(mbl_op_matmul(ops, &x->first));
    OK(mbl_op_matmul(ops, &x->second));
}

/* x = act(pre) with pre = u v' + b and y = x w': du is (dy w act'(pre)) v, by `through`. */
static void matmul_through_act(void **state) {
    (void)state;
    run_t r = RUN;
    enum { M = 4, K = 5, HIDDEN = 6, OUTS = 3 };
    for (mbl_act_t act = MBL_ACT_GELU_TANH; act <= MBL_ACT_QUICK_GELU; act++) {
        two_products_t f = {.first = {.transpose_b = true, .act = act}, .second = {.transpose_b = true}};
        f.first.y = operand2(&r, OUT, COMPUTE, M, HIDDEN);
        f.first.a = operand2(&r, IN, COMPUTE, M, K);
        f.first.b = operand2(&r, IN, COMPUTE, HIDDEN, K);
        f.first.bias = operand1(&r, IN, COMPUTE, HIDDEN);
        f.first.pre = operand2(&r, OUT, COMPUTE, M, HIDDEN);
        f.second.y = operand2(&r, OUT, COMPUTE, M, OUTS);
        f.second.a = f.first.y;
        f.second.b = operand2(&r, IN, COMPUTE, OUTS, HIDDEN);
        const mbl_tensor_t *dy = operand2(&r, IN, COMPUTE, M, OUTS);
        const mbl_tensor_t *dpre = operand2(&r, OUT, COMPUTE, M, HIDDEN);
        const mbl_tensor_t *du = operand2(&r, OUT, COMPUTE, M, K);
        forward_two_products(&f);
        OK(mbl_op_matmul(ops, &(mbl_matmul_args_t){
                                  .y = dpre, .a = dy, .b = f.second.b, .through = f.first.pre, .act = act}));
        OK(mbl_op_matmul(ops, &(mbl_matmul_args_t){.y = du, .a = dpre, .b = f.first.b}));
        check_gradient("matmul du through an activation", forward_two_products, &f, f.first.a, du, 1,
                       &f.second.y, &dy);
        release(&r);
    }
}

/* L+ and L- of one sample as src/rl/README.md writes them, with the weights w given or taken (w[i] = 0).
 */
typedef struct {
    double v[D], v_old[D], xt[D], x0[D], t, beta;
} sample_t;

static void losses(const sample_t *s, double w[2], double loss[2]) {
    for (int side = 0; side < 2; side++) {
        double absolute = 0, square = 0;
        for (int j = 0; j < D; j++) {
            double mixed = side == 0 ? (1 - s->beta) * s->v_old[j] + s->beta * s->v[j]
                                     : (1 + s->beta) * s->v_old[j] - s->beta * s->v[j];
            double residual = s->xt[j] - s->t * mixed - s->x0[j];
            absolute += fabs(residual) / D;
            square += residual * residual / D;
        }
        if (w[side] == 0)
            w[side] = fmax(absolute, 1e-5);
        loss[side] = square / w[side];
    }
}

static void copy_row(const mbl_tensor_t *t, size_t i, size_t n, double *out) {
    double *all = numbers(ops, t, t);
    memcpy(out, all + i * n, n * sizeof *out);
    free(all);
}

static void check_nft_sample(const mbl_nft_args_t *f, size_t i) {
    sample_t s = {.beta = f->beta};
    double u[D], h[D], dkl[D], v_ref[D], w[2] = {0}, loss[2], plus, minus, kl, want_kl = 0;
    copy_row(f->v, i, D, s.v), copy_row(f->v_old, i, D, s.v_old), copy_row(f->xt, i, D, s.xt);
    copy_row(f->x0, i, D, s.x0), copy_row(f->t, i, 1, &s.t), copy_row(f->v_ref, i, D, v_ref);
    copy_row(f->u, i, D, u), copy_row(f->h, i, D, h), copy_row(f->dkl, i, D, dkl);
    copy_row(f->loss_plus, i, 1, &plus), copy_row(f->loss_minus, i, 1, &minus), copy_row(f->kl, i, 1, &kl);
    losses(&s, w, loss);
    assert_near(plus, loss[0], 1e-12 * loss[0]);
    assert_near(minus, loss[1], 1e-12 * loss[1]);
    for (int j = 0; j < D; j++) {
        double kept = s.v[j], up[2], down[2], d = kept - v_ref[j];
        s.v[j] = kept + 1e-4;
        losses(&s, w, up);
        s.v[j] = kept - 1e-4;
        losses(&s, w, down);
        s.v[j] = kept;
        double plus_slope = (up[0] - down[0]) / 2e-4, minus_slope = (up[1] - down[1]) / 2e-4;
        assert_near(u[j], plus_slope - minus_slope, 1e-9);
        assert_near(h[j], (plus_slope + minus_slope) / 2, 1e-9);
        assert_near(dkl[j], 2 * d / D, 1e-12);
        want_kl += d * d / D;
    }
    assert_near(kl, want_kl, 1e-12);
}

static void nft(void **state) {
    (void)state;
    run_t r = RUN;
    mbl_nft_args_t f = {.beta = 0.35};
    f.u = operand2(&r, OUT, STAT, N, D);
    f.h = operand2(&r, OUT, STAT, N, D);
    f.dkl = operand2(&r, OUT, STAT, N, D);
    f.loss_plus = operand1(&r, OUT, STAT, N);
    f.loss_minus = operand1(&r, OUT, STAT, N);
    f.kl = operand1(&r, OUT, STAT, N);
    f.v = operand2(&r, IN, STAT, N, D);
    f.v_old = operand2(&r, IN, STAT, N, D);
    f.v_ref = operand2(&r, IN, STAT, N, D);
    f.xt = operand2(&r, IN, STAT, N, D);
    f.x0 = operand2(&r, IN, STAT, N, D);
    f.t = operand1(&r, POSITIVE, STAT, N);
    OK(mbl_op_nft(ops, &f));
    for (size_t i = 0; i < N; i++)
        check_nft_sample(&f, i);
    /* just after old was copied from current there is no common part, and KL is zero against itself */
    f.v_old = f.v_ref = f.v;
    OK(mbl_op_nft(ops, &f));
    double *h = numbers(ops, f.h, f.h), *kl = numbers(ops, f.kl, f.kl);
    for (size_t i = 0; i < N * D; i++)
        assert_true(h[i] == 0);
    for (size_t i = 0; i < N; i++)
        assert_true(kl[i] == 0);
    free(h);
    free(kl);
    /* residuals below the floor: w stays 1e-5 */
    f.v_old = f.v, f.x0 = f.xt;
    OK(mbl_tensor_zero(ops, f.t));
    OK(mbl_op_nft(ops, &f));
    double *loss = numbers(ops, f.loss_plus, f.loss_plus);
    for (size_t i = 0; i < N; i++)
        assert_true(loss[i] == 0);
    free(loss);
    release(&r);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(layer_norm),
                                       cmocka_unit_test(qk_norm),
                                       cmocka_unit_test(act),
                                       cmocka_unit_test(gate),
                                       cmocka_unit_test(attention),
                                       cmocka_unit_test(matmul),
                                       cmocka_unit_test(matmul_through_act),
                                       cmocka_unit_test(nft)};
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
