/* Operations in f64 against their definitions written out plainly, or against known values: what the
 * conformance suite compares everything else with must itself be right.   ctest-backends: fake cuda
 * ctest-isas: portable avx2 */
#include "ops_harness.h"

#include "ops/checksum.h"

enum { N = 37, T = 5, H = 3, HEAD = 6, D = H * HEAD };

static mbl_ops_t *ops;

static int open_backend(void **state) {
    (void)state;
    return mbl_ops_open(test_backend(), 2, &ops) == MBL_OK ? 0 : -1;
}
static int close_backend(void **state) {
    (void)state;
    mbl_ops_close(ops);
    return 0;
}
#define RUN                                                                                                  \
    { .ops = ops, .ct = MBL_F64, .only = -1 }

static double *all(const mbl_tensor_t *t) {
    return numbers(ops, t, t);
}

static void expect_numbers(const mbl_tensor_t *t, const double *want, double tolerance) {
    double *found = all(t);
    for (size_t i = 0; i < mbl_tensor_count(t); i++)
        if (!(fabs(found[i] - want[i]) <= tolerance * (1 + fabs(want[i]))))
            fail_msg("element %zu: %.15g, expected %.15g", i, found[i], want[i]);
    free(found);
}

static void layer_norm(void **state) {
    (void)state;
    run_t r = RUN;
    mbl_layer_norm_args_t a = {.eps = 1e-2};
    a.y = operand3(&r, OUT, COMPUTE, N, T, D);
    a.x = operand3(&r, IN, COMPUTE, N, T, D);
    a.scale = operand2(&r, IN, COMPUTE, N, D);
    a.shift = operand2(&r, IN, COMPUTE, N, D);
    OK(mbl_op_layer_norm(ops, &a));
    double *x = all(a.x), *scale = all(a.scale), *shift = all(a.shift), want[N * T * D];
    for (int row = 0; row < N * T; row++) {
        double mean = 0, variance = 0;
        for (int j = 0; j < D; j++)
            mean += x[row * D + j] / D;
        for (int j = 0; j < D; j++)
            variance += pow(x[row * D + j] - mean, 2) / D;
        for (int j = 0; j < D; j++)
            want[row * D + j] =
                (x[row * D + j] - mean) / sqrt(variance + 1e-2) * (1 + scale[row / T * D + j]) +
                shift[row / T * D + j];
    }
    expect_numbers(a.y, want, 1e-13);
    free(x), free(scale), free(shift);
    release(&r);
}

static void qk_norm(void **state) {
    (void)state;
    run_t r = RUN;
    mbl_qk_norm_args_t a = {.eps = 1e-2};
    a.q = operand4(&r, OUT, COMPUTE, N, H, T, HEAD);
    a.k = operand4(&r, OUT, COMPUTE, N, H, T, HEAD);
    a.qkv = operand3(&r, IN, COMPUTE, N, T, 3 * D);
    a.weight_q = operand1(&r, IN, COMPUTE, HEAD);
    a.weight_k = operand1(&r, IN, COMPUTE, HEAD);
    OK(mbl_op_qk_norm(ops, &a));
    const mbl_tensor_t *out[2] = {a.q, a.k};
    double *x = all(a.qkv), *weight[2] = {all(a.weight_q), all(a.weight_k)}, want[N * T * D];
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < N * H * T; i++) {
            int n = i / (H * T), h = i / T % H, t = i % T;
            const double *from = x + (n * T + t) * 3 * D + part * D + h * HEAD;
            double square = 0;
            for (int j = 0; j < HEAD; j++)
                square += from[j] * from[j] / HEAD;
            for (int j = 0; j < HEAD; j++)
                want[i * HEAD + j] = from[j] / sqrt(square + 1e-2) * weight[part][j];
        }
        expect_numbers(out[part], want, 1e-13);
        free(weight[part]);
    }
    free(x);
    release(&r);
}

/* Published values: torch.nn.functional.gelu (tanh and exact), silu, and x sigmoid(1.702 x), at -1 and 2. */
static void activations(void **state) {
    (void)state;
    const double x[2] = {-1, 2};
    const double want[5][2] = {{-1, 2},
                               {-0.15880800939172324, 1.954597694087775},
                               {-0.15865525393145707, 1.9544997361036416},
                               {-0.2689414213699951, 1.7615941559557649},
                               {-0.1542042340671787, 1.9356586231442083}};
    for (mbl_act_t act = MBL_ACT_NONE; act <= MBL_ACT_QUICK_GELU; act++) {
        double in[2] = {x[0], x[1]}, out[2] = {0};
        run_t r = RUN;
        const mbl_tensor_t *tx = operand1(&r, IN, COMPUTE, 2), *ty = operand1(&r, OUT, COMPUTE, 2);
        OK(mbl_tensor_upload(ops, tx, in));
        OK(mbl_op_act(ops, &(mbl_act_args_t){ty, tx, act}));
        OK(mbl_tensor_download(ops, ty, out));
        assert_near(out[0], want[act][0], 1e-14);
        assert_near(out[1], want[act][1], 1e-14);
        release(&r);
    }
}

/* Far out, where exp overflows, activations and slopes are 0, x or 1, and NaN stays NaN; in every type. */
static void activations_far_out(void **state) {
    (void)state;
    const mbl_dtype_t types[3] = {MBL_F32, MBL_BF16, MBL_F64};
    for (int type = 0; type < 3; type++)
        for (mbl_act_t act = MBL_ACT_GELU_TANH; act <= MBL_ACT_QUICK_GELU; act++) {
            run_t r = {.ops = ops, .ct = types[type], .only = -1};
            const mbl_tensor_t *x = operand1(&r, IN, COMPUTE, 3), *y = operand1(&r, OUT, COMPUTE, 3);
            const mbl_tensor_t *one = operand1(&r, IN, COMPUTE, 3);
            char host[3 * 8], ones[3 * 8];
            const double far[3] = {-1024, 1024, NAN};
            for (size_t i = 0; i < 3; i++) {
                write_number(host, r.ct, i, far[i]);
                write_number(ones, r.ct, i, 1);
            }
            OK(mbl_tensor_upload(ops, x, host));
            OK(mbl_tensor_upload(ops, one, ones));
            OK(mbl_op_act(ops, &(mbl_act_args_t){y, x, act}));
            double *value = all(y);
            assert_near(value[0], 0, 1e-30);
            assert_near(value[1], 1024, 0);
            assert_true(isnan(value[2]));
            OK(mbl_op_act_bwd(ops, &(mbl_act_bwd_args_t){y, one, x, act}));
            double *slope = all(y);
            assert_near(slope[0], 0, 1e-30);
            assert_near(slope[1], 1, 0);
            assert_true(isnan(slope[2]));
            free(value), free(slope);
            release(&r);
        }
}

/* Two orders within a token, from the image x = 100 channel + 10 row + column. */
static void patches(void **state) {
    (void)state;
    run_t r = RUN;
    double image[2 * 4 * 6];
    for (int i = 0; i < 2 * 4 * 6; i++)
        image[i] = i / 24 * 100 + i / 6 % 4 * 10 + i % 6;
    const mbl_tensor_t *x = operand4(&r, IN, COMPUTE, 1, 2, 4, 6),
                       *back = operand4(&r, OUT, COMPUTE, 1, 2, 4, 6);
    const mbl_tensor_t *tokens = operand3(&r, OUT, COMPUTE, 1, 6, 8);
    OK(mbl_tensor_upload(ops, x, image));
    const double token4[2][8] = {{22, 23, 32, 33, 122, 123, 132, 133}, {22, 122, 23, 123, 32, 132, 33, 133}};
    for (mbl_patch_order_t order = MBL_PATCH_CPQ; order <= MBL_PATCH_PQC; order++) {
        OK(mbl_op_patchify(ops, &(mbl_patchify_args_t){tokens, x, 2, order}));
        double *found = all(tokens);
        for (int i = 0; i < 8; i++)
            assert_near(found[4 * 8 + i], token4[order][i], 0);
        free(found);
        OK(mbl_op_unpatchify(ops, &(mbl_unpatchify_args_t){back, tokens, 2, order}));
        expect_numbers(back, image, 0);
    }
    release(&r);
}

/* More samples than are taken at a time, some of them with coefficient 0 throughout. */
static void sample_grad(void **state) {
    (void)state;
    enum { K = 6, P = 19, Q = 70, TOKENS = 67 };
    run_t r = RUN;
    mbl_tensor_t coefficient;
    float c[K * N];
    for (int k = 0; k < K; k++)
        for (int n = 0; n < N; n++)
            c[k * N + n] = n % 5 == 2 ? 0 : (float)((k * 31 + n * 7) % 23) / 8 - 1;
    OK(mbl_tensor_new(ops, MBL_F32, &coefficient, 2, (size_t)K, (size_t)N));
    OK(mbl_tensor_upload(ops, &coefficient, c));
    mbl_sample_grad_args_t a = {.coefficient = &coefficient, .factor = 0.75};
    a.acc = operand3(&r, ADD, GRAD64, K, P, Q);
    a.a = operand3(&r, IN, COMPUTE, N, TOKENS, P);
    a.b = operand3(&r, IN, COMPUTE, N, TOKENS, Q);
    double *want = all(a.acc), *x = all(a.a), *y = all(a.b);
    for (int n = 0; n < N; n++)
        for (int p = 0; p < P; p++)
            for (int q = 0; q < Q; q++) {
                double sum = 0;
                for (int t = 0; t < TOKENS; t++)
                    sum += x[(n * TOKENS + t) * P + p] * y[(n * TOKENS + t) * Q + q];
                for (int k = 0; k < K; k++)
                    want[(k * P + p) * Q + q] += 0.75 * (double)c[k * N + n] * sum;
            }
    OK(mbl_op_sample_grad(ops, &a));
    expect_numbers(a.acc, want, 1e-11);
    free(want), free(x), free(y);
    mbl_tensor_free(ops, &coefficient);
    release(&r);
}

/* A row of zeros and ones has a Gram matrix that is exact. */
static void gram_and_combine(void **state) {
    (void)state;
    enum { K = 6, LENGTH = 40001 };
    run_t r = RUN;
    const mbl_tensor_t *x = operand2(&r, IN, GRAD64, K, LENGTH), *y = operand1(&r, OUT, GRAD64, LENGTH);
    double *host = calloc(K * LENGTH, sizeof *host), gram[K * K], want[K * K] = {0};
    double coefficient[K] = {1, 0, -2, 0.5, 0, 3};
    assert_non_null(host);
    for (int k = 0; k < K; k++)
        for (int i = 0; i < LENGTH; i++)
            host[k * LENGTH + i] = i % (k + 2) == 0;
    for (int k = 0; k < K * K; k++)
        for (int i = 0; i < LENGTH; i++)
            want[k] += host[k / K * LENGTH + i] * host[k % K * LENGTH + i];
    OK(mbl_tensor_upload(ops, x, host));
    mbl_tensor_t g = MBL_TENSOR_2(gram, MBL_F64, K, K);
    OK(mbl_op_gram(ops, &(mbl_gram_args_t){&g, x}));
    for (int k = 0; k < K * K; k++)
        assert_near(gram[k], want[k], 0);
    host[4 * LENGTH] = NAN; /* a row with coefficient 0 is not read */
    OK(mbl_tensor_upload(ops, x, host));
    OK(mbl_op_combine(ops, &(mbl_combine_args_t){y, x, coefficient}));
    double *found = all(y);
    for (int i = 0; i < LENGTH; i++)
        assert_near(found[i], 1.0 * (i % 2 == 0) - 2 * (i % 4 == 0) + 0.5 * (i % 5 == 0) + 3 * (i % 7 == 0),
                    0);
    free(found), free(host);
    release(&r);
}

/* Vectors of every length about a piece's: the sum over words, and one bit anywhere changes it. */
static void checksums(void **state) {
    (void)state;
    static const size_t lengths[] = {1, 2, 5, 1023, 4097, 300001};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        const size_t n = lengths[l];
        mbl_tensor_t x;
        int64_t found = 0, flipped = 0;
        const mbl_tensor_t sum = MBL_TENSOR_1(&found, MBL_I64, 1), again = MBL_TENSOR_1(&flipped, MBL_I64, 1);
        uint32_t *host = calloc(n, sizeof *host);
        uint64_t want = 0;
        assert_non_null(host);
        OK(mbl_tensor_new(ops, MBL_F32, &x, 1, n));
        for (size_t i = 0; i < n; i++) {
            host[i] = (uint32_t)(i * 2654435761u);
            want += mbl_checksum_word(i, host[i]);
        }
        OK(mbl_tensor_upload(ops, &x, host));
        OK(mbl_op_checksum(ops, &(mbl_checksum_args_t){&sum, &x}));
        assert_true(found == (int64_t)want);
        host[n / 2] ^= 1u << (n % 32);
        OK(mbl_tensor_upload(ops, &x, host));
        OK(mbl_op_checksum(ops, &(mbl_checksum_args_t){&again, &x}));
        assert_true(flipped != found);
        if (n > 4) { /* from an address that is no multiple of 16 bytes */
            const mbl_tensor_t tail = mbl_tensor_rows(&x, 1, n - 1);
            for (size_t i = want = 0; i < n - 1; i++)
                want += mbl_checksum_word(i, host[i + 1]);
            OK(mbl_op_checksum(ops, &(mbl_checksum_args_t){&sum, &tail}));
            assert_true(found == (int64_t)want);
        }
        free(host);
        mbl_tensor_free(ops, &x);
    }
}

/* Two steps written out from Loshchilov and Hutter, algorithm 2. */
static void adamw(void **state) {
    (void)state;
    run_t r = RUN;
    const mbl_tensor_t *w = operand1(&r, ADD, COMPUTE, 1), *m = operand1(&r, ADD, COMPUTE, 1);
    const mbl_tensor_t *v = operand1(&r, ADD, COMPUTE, 1), *g = operand1(&r, IN, COMPUTE, 1);
    double wv = 2, mv = 0, vv = 0, grad[2] = {0.8, -0.4};
    OK(mbl_tensor_upload(ops, w, &wv));
    OK(mbl_tensor_zero(ops, m));
    OK(mbl_tensor_zero(ops, v));
    for (int step = 1; step <= 2; step++) {
        double found;
        OK(mbl_tensor_upload(ops, g, &grad[step - 1]));
        OK(mbl_op_adamw(ops,
                        &(mbl_adamw_args_t){w, m, v, g, 0.1, 0.9, 0.99, 1e-3, 0.05, 0.5, (uint64_t)step}));
        double scaled = 0.5 * grad[step - 1];
        mv = 0.9 * mv + 0.1 * scaled;
        vv = 0.99 * vv + 0.01 * scaled * scaled;
        double mhat = mv / (1 - pow(0.9, step)), vhat = vv / (1 - pow(0.99, step));
        wv -= 0.1 * (mhat / (sqrt(vhat) + 1e-3) + 0.05 * wv);
        OK(mbl_tensor_download(ops, w, &found));
        assert_near(found, wv, 1e-14);
    }
    release(&r);
}

static void timestep_and_embed(void **state) {
    (void)state;
    run_t r = RUN;
    mbl_timestep_args_t a = {.factor = 1000};
    double t[2] = {0, 0.25};
    a.y = operand2(&r, OUT, COMPUTE, 2, 4);
    a.t = operand1(&r, IN, STAT, 2);
    OK(mbl_tensor_upload(ops, a.t, t));
    OK(mbl_op_timestep(ops, &a));
    const double want[8] = {1, 1, 0, 0, cos(250), cos(2.5), sin(250), sin(2.5)};
    expect_numbers(a.y, want, 1e-13);
    mbl_tensor_t ids;
    int32_t id[3] = {2, 0, 1};
    OK(mbl_tensor_new(ops, MBL_I32, &ids, 2, (size_t)1, (size_t)3));
    OK(mbl_tensor_upload(ops, &ids, id));
    const mbl_tensor_t *table = operand2(&r, IN, COMPUTE, 3, D), *position = operand2(&r, IN, COMPUTE, 4, D);
    const mbl_tensor_t *y = operand3(&r, OUT, COMPUTE, 1, 3, D);
    OK(mbl_op_embed(ops, &(mbl_embed_args_t){y, table, &ids, position}));
    double *rows = all(table), *places = all(position), sum[3 * D];
    for (int i = 0; i < 3 * D; i++)
        sum[i] = rows[id[i / D] * D + i % D] + places[i];
    expect_numbers(y, sum, 0);
    const int32_t wrong[2] = {3, -1};
    for (int i = 0; i < 2; i++) {
        id[1] = wrong[i];
        OK(mbl_tensor_upload(ops, &ids, id));
        mbl_status_t status = mbl_op_embed(ops, &(mbl_embed_args_t){y, table, &ids, position});
        assert_int_equal(status == MBL_OK ? ops->table->sync(ops) : status, MBL_ERR_ARG);
    }
    free(rows), free(places);
    mbl_tensor_free(ops, &ids);
    release(&r);
}

/* Row i of noise is the stream of its sample: on the host to the bit, elsewhere to the rounding of another
 * logarithm, sine and cosine; in f64 the same numbers as in f32. */
static void normal(void **state) {
    (void)state;
    enum { LENGTH = 33 };
    const int64_t id[2] = {5, 1ll << 35};
    mbl_tensor_t sample;
    OK(mbl_tensor_new(ops, MBL_I64, &sample, 1, (size_t)2));
    OK(mbl_tensor_upload(ops, &sample, id));
    for (int wide = 0; wide < 2; wide++) {
        run_t r = {.ops = ops, .ct = wide ? MBL_F64 : MBL_F32, .only = -1};
        const mbl_tensor_t *y = operand2(&r, OUT, COMPUTE, 2, LENGTH);
        OK(mbl_op_normal(ops, &(mbl_normal_args_t){y, &sample, 9, MBL_RNG_EVAL, 4}));
        double *found = all(y);
        for (int i = 0; i < 2; i++) {
            float want[LENGTH];
            mbl_rng_t rng = mbl_rng(9, MBL_RNG_EVAL, 4, (uint64_t)id[i]);
            mbl_rng_normal(&rng, want, LENGTH);
            for (int j = 0; j < LENGTH; j++)
                assert_near(found[i * LENGTH + j], (double)want[j],
                            ops->table->space == MBL_HOST ? 0 : 1e-6 * (1 + fabs((double)want[j])));
        }
        free(found);
        release(&r);
    }
    mbl_tensor_free(ops, &sample);
}

/* The fused slot gives the bits of its two halves, in every type. */
static void gate_norm_is_its_halves(void **state) {
    (void)state;
    const mbl_dtype_t types[3] = {MBL_F32, MBL_BF16, MBL_F64};
    for (int type = 0; type < 3; type++) {
        run_t r = {.ops = ops, .ct = types[type], .only = -1};
        const mbl_tensor_t *x = operand3(&r, IN, COMPUTE, N, T, D), *h = operand3(&r, IN, COMPUTE, N, T, D);
        const mbl_tensor_t *gate = operand2(&r, IN, COMPUTE, N, D), *scale = operand2(&r, IN, COMPUTE, N, D);
        const mbl_tensor_t *shift = operand2(&r, IN, COMPUTE, N, D);
        const mbl_tensor_t *y[2], *z[2];
        for (int i = 0; i < 2; i++) {
            y[i] = operand3(&r, OUT, COMPUTE, N, T, D);
            z[i] = operand3(&r, OUT, COMPUTE, N, T, D);
        }
        OK(mbl_op_gate_norm(ops, &(mbl_gate_norm_args_t){y[0], z[0], NULL, NULL, x, gate, h, scale, shift,
                                                         1e-6, NULL, NULL}));
        OK(mbl_op_gate(ops, &(mbl_gate_args_t){y[1], x, gate, h}));
        OK(mbl_op_layer_norm(ops, &(mbl_layer_norm_args_t){z[1], NULL, NULL, y[1], scale, shift, 1e-6}));
        double *a = all(y[0]), *c = all(z[0]);
        expect_numbers(y[1], a, 0);
        expect_numbers(z[1], c, 0);
        free(a), free(c);
        release(&r);
    }
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(layer_norm),
                                       cmocka_unit_test(qk_norm),
                                       cmocka_unit_test(activations),
                                       cmocka_unit_test(activations_far_out),
                                       cmocka_unit_test(patches),
                                       cmocka_unit_test(sample_grad),
                                       cmocka_unit_test(gram_and_combine),
                                       cmocka_unit_test(checksums),
                                       cmocka_unit_test(adamw),
                                       cmocka_unit_test(timestep_and_embed),
                                       cmocka_unit_test(normal),
                                       cmocka_unit_test(gate_norm_is_its_halves)};
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
