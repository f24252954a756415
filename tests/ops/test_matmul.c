/* Matrix products against plain f64 loops: every type, transpose, activation and accumulation, with what an
 * activation is applied to kept and its slope taken, odd sizes, strided rows; and rows that depend on neither
 * the batch nor the number of threads.
 * ctest-backends: fake cuda
 * ctest-isas: portable avx2 */
#include "base/rng.h"
#include "mirror.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static mbl_ops_t *ops;

static int open_ops(void **state) {
    (void)state;
    return mbl_ops_open(test_backend(), 2, &ops) == MBL_OK ? 0 : -1;
}

static int close_ops(void **state) {
    (void)state;
    mbl_ops_close(ops);
    return 0;
}

static double get(const mbl_tensor_t *t, size_t i, size_t j) {
    return mirror_get(t, i * t->stride[0] + j);
}

static mbl_tensor_t random_tensor(mbl_dtype_t dtype, size_t rows, size_t columns, uint64_t sample) {
    mbl_tensor_t t = mirror_new(ops, dtype, 2, rows, columns, 0, 0);
    mbl_rng_t rng = mbl_rng(7, MBL_RNG_NOISE, 0, sample);
    float pair[2] = {0};
    for (size_t i = 0; i < rows * columns; i++) {
        if (i % 2 == 0)
            mbl_rng_normal2(&rng, pair);
        mirror_put(&t, i, (double)pair[i % 2]);
    }
    mirror_push(&t);
    return t;
}

static double act_of(double x, mbl_act_t act) {
    switch (act) {
    case MBL_ACT_GELU_TANH:
        return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * pow(x, 3))));
    case MBL_ACT_GELU_ERF:
        return x / 2 * (1 + erf(x / sqrt(2)));
    case MBL_ACT_SILU:
        return x / (1 + exp(-x));
    case MBL_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    default:
        return x;
    }
}

static double slope_of(double x, mbl_act_t act) {
    double c = sqrt(2 / acos(-1)), t = tanh(c * (x + 0.044715 * pow(x, 3))),
           rate = act == MBL_ACT_SILU ? 1 : 1.702, s = 1 / (1 + exp(-rate * x));
    switch (act) {
    case MBL_ACT_GELU_TANH:
        return (1 + t) / 2 + x / 2 * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
    case MBL_ACT_GELU_ERF:
        return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
    case MBL_ACT_SILU:
    case MBL_ACT_QUICK_GELU:
        return s + rate * x * s * (1 - s);
    default:
        return 1;
    }
}

static void off(const char *what, const mbl_matmul_args_t *x, size_t i, size_t j, double got, double want,
                double allowed) {
    if (fabs(got - want) <= allowed)
        return;
    fail_msg("%s: %s -> %s ta %d tb %d acc %d bias %d act %d pre %d through %d %zux%zux%zu at %zu,%zu: %.9g, "
             "expected %.9g within %.3g",
             what, mbl_dtype_name(x->a->dtype), mbl_dtype_name(x->y->dtype), x->transpose_a, x->transpose_b,
             x->accumulate, x->bias != NULL, (int)x->act, x->pre != NULL, x->through != NULL, x->y->dim[0],
             x->a->dim[!x->transpose_a], x->y->dim[1], i, j, got, want, allowed);
}

/* The product of two matrices, and of their numbers' sizes: [m, n] each, in f64. */
typedef struct {
    double *sum, *size;
} product_t;

static product_t product_of(const mbl_tensor_t *a, const mbl_tensor_t *b, bool ta, bool tb, size_t m,
                            size_t n) {
    const size_t k = a->dim[!ta];
    double *rows = mirror_values(a, ta), *columns = mirror_values(b, !tb);
    product_t p = {calloc(m * n, sizeof *p.sum), calloc(m * n, sizeof *p.size)};
    assert_true(p.sum && p.size);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t l = 0; l < k; l++) {
                const double term = rows[i * k + l] * columns[j * k + l];
                p.sum[i * n + j] += term;
                p.size[i * n + j] += fabs(term);
            }
    free(rows);
    free(columns);
    return p;
}

static void product_free(product_t *p) {
    free(p->sum);
    free(p->size);
}

/* Runs x and compares every element of y, and of pre. The allowed error is that of K + 2 roundings of the
 * products, in either order (twice the unit roundoff each, times what an activation can magnify), the
 * approximation of an activation, and the rounding of y itself. Beside pre and through, and on cuda before
 * any activation, a product may be rounded once more; on cuda before its bias is added too: cublasLt does so
 * on an H100 in bf16 (-1.70534897 - 0.318359375 gave -1.703125 - 0.318359375). */
static void compare(const mbl_matmul_args_t *x, const product_t *p) {
    size_t m = x->y->dim[0], n = x->y->dim[1], k = x->a->dim[!x->transpose_a];
    double *before = mirror_values(x->y, false);
    assert_int_equal(mbl_op_matmul(ops, x), MBL_OK);
    mirror_pull(x->y);
    double sum_unit = x->a->dtype == MBL_F64 ? 0x1p-53 : 0x1p-24;
    double out_unit = x->y->dtype == MBL_F64 ? 0x1p-53 : x->y->dtype == MBL_F32 ? 0x1p-24 : 0x1p-8;
    if (x->pre)
        mirror_pull(x->pre);
    const bool cuda = !strcmp(test_backend(), "cuda");
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const double bias = x->bias ? get(x->bias, 0, j) : 0;
            const double first = (x->accumulate ? before[i * n + j] : 0) + bias;
            const double sum = first + p->sum[i * n + j], size = fabs(first) + p->size[i * n + j];
            double want = x->through ? sum * slope_of(get(x->through, i, j), x->act) : act_of(sum, x->act);
            double slope = x->act == MBL_ACT_NONE ? 1 : 1.2, linear = 2 * (double)(k + 2) * sum_unit * size;
            double act_error = x->act == MBL_ACT_NONE ? 0 : 16 * sum_unit * (1 + fabs(sum));
            if (x->through) /* the slope's cubic magnifies roundings */
                act_error *= 1 + pow(get(x->through, i, j), 2);
            if (x->bias && cuda)
                linear += out_unit * fabs(sum - bias);
            if (x->pre)
                off("pre", x, i, j, get(x->pre, i, j), sum, linear + out_unit * fabs(sum));
            if (x->act != MBL_ACT_NONE && (cuda || x->pre || x->through))
                linear += out_unit * fabs(sum);
            off("y", x, i, j, get(x->y, i, j), want, slope * linear + act_error + out_unit * fabs(want));
        }
    free(before);
}

/* All flags at one size. pad: every tensor is a view of the middle of wider rows. */
static void all_flags(mbl_dtype_t ct, mbl_dtype_t yt, size_t m, size_t k, size_t n, size_t pad) {
    for (int flags = 0; flags < 4; flags++) {
        bool ta = flags & 1, tb = flags & 2;
        mbl_tensor_t a = random_tensor(ct, ta ? k : m, (ta ? m : k) + pad, 1);
        mbl_tensor_t b = random_tensor(ct, tb ? n : k, (tb ? k : n) + pad, 2);
        mbl_tensor_t y = random_tensor(yt, m, n + pad, 3), copy = random_tensor(yt, m, n + pad, 3);
        mbl_tensor_t bias_row = random_tensor(ct, 1, n, 4), bias = mbl_tensor_reshape(&bias_row, 1, n);
        mbl_tensor_t av = mbl_tensor_columns(&a, pad / 2, a.dim[1] - pad);
        mbl_tensor_t bv = mbl_tensor_columns(&b, pad / 2, b.dim[1] - pad);
        mbl_tensor_t other = random_tensor(yt, m, n + pad, 5), same = random_tensor(yt, m, n + pad, 5);
        mbl_tensor_t yv = mbl_tensor_columns(&y, pad / 2, n), ov = mbl_tensor_columns(&other, pad / 2, n);
        mbl_matmul_args_t x = {.y = &yv, .a = &av, .b = &bv, .transpose_a = ta, .transpose_b = tb};
        product_t product = product_of(&av, &bv, ta, tb, m, n);
        for (int act = 0; act < 20; act++) {
            x.act = (mbl_act_t)(act % 5);
            x.bias = act / 5 % 2 ? NULL : &bias;
            x.accumulate = act >= 10;
            x.pre = x.through = NULL;
            if (act >= 10 && x.act != MBL_ACT_NONE && x.act != MBL_ACT_GELU_TANH) /* what a model does */
                continue;
            compare(&x, &product);
            if (x.act == MBL_ACT_NONE || (act >= 5 && x.act != MBL_ACT_GELU_TANH))
                continue;
            x.through = &ov;
            compare(&x, &product);
            x.through = NULL;
            x.pre = &ov;
            compare(&x, &product);
        }
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n + pad; j++)
                if (j < pad / 2 || j >= pad / 2 + n)
                    assert_near(get(&y, i, j) + get(&other, i, j), get(&copy, i, j) + get(&same, i, j),
                                0); /* beside the views: untouched */
        product_free(&product);
        mirror_free(&a);
        mirror_free(&b);
        mirror_free(&y);
        mirror_free(&copy);
        mirror_free(&other);
        mirror_free(&same);
        mirror_free(&bias_row);
    }
}

static void every_flag(mbl_dtype_t ct, mbl_dtype_t yt) {
    static const size_t size[][3] = {{1, 1, 1},    {3, 17, 1},   {1, 3, 17},  {17, 1, 3},
                                     {17, 17, 17}, {3, 1, 1},    {33, 64, 7}, {64, 32, 48},
                                     {2, 300, 16}, {130, 5, 80}, {70, 16, 96}};
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++) {
        all_flags(ct, yt, size[i][0], size[i][1], size[i][2], 0);
        all_flags(ct, yt, size[i][0], size[i][1], size[i][2], 5);
    }
}

static void products_f32(void **state) {
    (void)state;
    every_flag(MBL_F32, MBL_F32);
}
static void products_bf16(void **state) {
    (void)state;
    every_flag(MBL_BF16, MBL_BF16);
}
static void products_bf16_to_f32(void **state) {
    (void)state;
    every_flag(MBL_BF16, MBL_F32);
}
static void products_f64(void **state) {
    (void)state;
    every_flag(MBL_F64, MBL_F64);
}

static void product_with(int threads, const mbl_tensor_t *y, const mbl_tensor_t *a, const mbl_tensor_t *b,
                         bool transpose_a, bool transpose_b, mbl_act_t act) {
    mbl_ops_t *other;
    assert_int_equal(mbl_ops_open(test_backend(), threads, &other), MBL_OK);
    assert_int_equal(MBL_OP(other, matmul, .y = y, .a = a, .b = b, .transpose_a = transpose_a,
                            .transpose_b = transpose_b, .act = act),
                     MBL_OK);
    assert_int_equal(other->table->sync(other), MBL_OK); /* ops uses it next */
    mbl_ops_close(other);
    mirror_pull(y);
}

static void assert_same_bits(const mbl_tensor_t *a, const mbl_tensor_t *b, size_t rows, const char *what) {
    size_t n = a->dim[1], different = 0, size = mbl_dtype_size(a->dtype);
    const char *x = mirror_at(a->data), *y = mirror_at(b->data);
    for (size_t i = 0; i < rows * n; i++)
        different += memcmp(x + i * size, y + i * size, size) != 0;
    if (different)
        fail_msg("%s: %zu of %zu numbers differ", what, different, rows * n);
}

/* NaN in every type. */
static void spoil(const mbl_tensor_t *t) {
    mirror_t *m = mirror_of(t->data);
    memset(m->host, 0xff, m->bytes);
    mirror_push(t);
}

/* A sample's 64 rows give the same bits alone, in a batch of 24 and of 48, with one thread and with two. */
static void rows_do_not_depend_on_the_batch(void **state) {
    (void)state;
    static const size_t size[][2] = {{128, 384}, {128, 128}, {128, 512}, {512, 128},
                                     {128, 16},  {16, 128},  {48, 128}};
    static const size_t batch[] = {1, SANITIZED ? 3 : 24, SANITIZED ? 5 : 48};
    const size_t rows = 64 * batch[2];
    for (int type = 0; type < 2; type++)
        for (size_t s = 0; s < sizeof size / sizeof size[0]; s++)
            for (int tb = 0; tb < 2; tb++) {
                size_t k = size[s][0], n = size[s][1];
                mbl_dtype_t ct = type ? MBL_BF16 : MBL_F32;
                mbl_tensor_t a = random_tensor(ct, rows, k, 1),
                             b = random_tensor(ct, tb ? n : k, tb ? k : n, 2);
                mbl_tensor_t whole = mirror_new(ops, ct, 2, rows, n, 0, 0),
                             part = mirror_new(ops, ct, 2, rows, n, 0, 0);
                spoil(&whole);
                product_with(1, &whole, &a, &b, false, tb, MBL_ACT_GELU_TANH);
                for (int i = 0; i < 6; i++) {
                    mbl_tensor_t few = mbl_tensor_rows(&a, 0, batch[i % 3] * 64);
                    mbl_tensor_t out = mbl_tensor_rows(&part, 0, batch[i % 3] * 64);
                    spoil(&part);
                    product_with(1 + i / 3, &out, &few, &b, false, tb, MBL_ACT_GELU_TANH);
                    assert_same_bits(&out, &whole, out.dim[0], mbl_dtype_name(ct));
                }
                mirror_free(&a);
                mirror_free(&b);
                mirror_free(&whole);
                mirror_free(&part);
            }
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_f32),
        cmocka_unit_test(products_bf16),
        cmocka_unit_test(products_bf16_to_f32),
        cmocka_unit_test(products_f64),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
    };
    return cmocka_run_group_tests(tests, open_ops, close_ops);
}
