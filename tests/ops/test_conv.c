/* Convolutions against their definition in f64: every type, windows of one pixel and more, padded or not,
 * enlarged, with a bias and added to what is there, channels that do not fill vectors, several samples, a
 * part of a batch; bands; weights as files store them; and what is refused.   ctest-backends: fake cuda
 * ctest-isas: avx2 */
#include "base/mem.h"
#include "base/rng.h"
#include "mirror.h"

#include <math.h>

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

typedef struct {
    size_t n, height, width, channels, outputs, kh, kw, pad, up;
} shape_t;

/* Quarters from -2 to 2: a sum of a few thousand products of two is exact in f32, in any order. */
static mbl_tensor_t random_tensor(mbl_dtype_t dtype, size_t a, size_t b, size_t c, size_t d,
                                  uint64_t sample) {
    mbl_tensor_t t = mirror_new(ops, dtype, 4, a, b, c, d);
    mbl_rng_t rng = mbl_rng(13, MBL_RNG_NOISE, 0, sample);
    float pair[2];
    for (size_t i = 0; i < a * b * c * d; i++) {
        mbl_rng_normal2(&rng, pair);
        mirror_put(&t, i, fmax(-2, fmin(2, round(4 * (double)pair[0]) / 4)));
    }
    mirror_push(&t);
    return t;
}

static size_t out_height(const shape_t *s) {
    return s->height * s->up + 2 * s->pad - s->kh + 1;
}
static size_t out_width(const shape_t *s) {
    return s->width * s->up + 2 * s->pad - s->kw + 1;
}

/* A number of the result by its definition, without bias and old value. The image is the n-th of x. */
static double direct(const shape_t *s, const mbl_tensor_t *x, const mbl_tensor_t *weight, size_t n,
                     size_t row, size_t column, size_t output) {
    double sum = 0;
    for (size_t i = 0; i < s->kh * s->kw; i++) {
        long at = (long)(row + i / s->kw) - (long)s->pad, beside = (long)(column + i % s->kw) - (long)s->pad;
        if (at < 0 || beside < 0 || at >= (long)(s->height * s->up) || beside >= (long)(s->width * s->up))
            continue;
        size_t pixel = (n * s->height + (size_t)at / s->up) * s->width + (size_t)beside / s->up;
        for (size_t c = 0; c < s->channels; c++)
            sum += mirror_get(x, pixel * s->channels + c) *
                   mirror_get(weight, (output * s->kh * s->kw + i) * s->channels + c);
    }
    return sum;
}

/* Runs a and compares every `stride`-th number of y: equal, in bf16 to the rounding of the result; there cuda
 * may round the sum once more before bias and old value come to it. */
static void compare(const shape_t *s, const mbl_conv2d_args_t *a, size_t stride) {
    size_t count = mbl_tensor_count(a->y), width = out_width(s), height = out_height(s);
    double *before = calloc(count, sizeof *before);
    assert_non_null(before);
    for (size_t i = 0; i < count; i++)
        before[i] = mirror_get(a->y, i);
    assert_int_equal(mbl_op_conv2d(ops, a), MBL_OK);
    mirror_pull(a->y);
    double unit = a->x->dtype == MBL_BF16 ? 0x1p-8 : 0;
    for (size_t i = 0; i < count; i += stride) {
        size_t o = i % s->outputs, column = i / s->outputs % width, row = i / s->outputs / width % height;
        double bias = a->bias ? mirror_get(a->bias, o) : 0, old = a->accumulate ? before[i] : 0;
        double sum = direct(s, a->x, a->weight, i / s->outputs / width / height, row, column, o);
        double want = sum + bias + old, got = mirror_get(a->y, i), allowed = unit * fabs(want);
        if ((a->bias || a->accumulate) && !strcmp(test_backend(), "cuda"))
            allowed += unit * (fabs(sum) + fabs(sum + old));
        if (!(fabs(got - want) <= allowed))
            fail_msg("%s %zux%zux%zux%zu -> %zu, window %zux%zu, pad %zu, up %zu, bias %d, accumulate %d, at "
                     "%zu,%zu,%zu: %.9g, expected %.9g within %.3g",
                     mbl_dtype_name(a->x->dtype), s->n, s->height, s->width, s->channels, s->outputs, s->kh,
                     s->kw, s->pad, s->up, a->bias != NULL, a->accumulate, row, column, o, got, want,
                     allowed);
    }
    free(before);
}

static void check(mbl_dtype_t dtype, const shape_t *s) {
    size_t height = out_height(s), width = out_width(s);
    mbl_tensor_t x = random_tensor(dtype, s->n, s->height, s->width, s->channels, 1);
    mbl_tensor_t y = random_tensor(dtype, s->n, height, width, s->outputs, 2);
    mbl_tensor_t weight = random_tensor(dtype, s->outputs, s->kh, s->kw, s->channels, 3);
    mbl_tensor_t row = random_tensor(dtype, 1, 1, 1, s->outputs, 4);
    mbl_tensor_t bias = mbl_tensor_reshape(&row, 1, s->outputs);
    for (int flags = 0; flags < 4; flags++) {
        mbl_conv2d_args_t a = {.y = &y, .x = &x, .weight = &weight, .pad = s->pad, .up = s->up};
        a.bias = flags & 1 ? &bias : NULL;
        a.accumulate = flags & 2;
        compare(s, &a, 1);
    }
    if (s->n > 1) { /* the last sample by itself, where it lies: the same bits, and nothing beside it */
        size_t part = (s->n - 1) * height * width * s->outputs, count = part / (s->n - 1);
        double *whole = calloc(s->n * count, sizeof *whole);
        assert_non_null(whole);
        assert_int_equal(MBL_OP(ops, conv2d, .y = &y, .x = &x, .weight = &weight, .bias = &bias,
                                .pad = s->pad, .up = s->up),
                         MBL_OK);
        mirror_pull(&y);
        for (size_t i = 0; i < s->n * count; i++)
            whole[i] = mirror_get(&y, i);
        mbl_tensor_t last_x = mbl_tensor_rows(&x, s->n - 1, 1), last_y = mbl_tensor_rows(&y, s->n - 1, 1);
        assert_int_equal(mbl_tensor_zero(ops, &last_y), MBL_OK);
        assert_int_equal(MBL_OP(ops, conv2d, .y = &last_y, .x = &last_x, .weight = &weight, .bias = &bias,
                                .pad = s->pad, .up = s->up),
                         MBL_OK);
        mirror_pull(&y);
        for (size_t i = 0; i < s->n * count; i++)
            assert_near(mirror_get(&y, i), whole[i], 0);
        free(whole);
    }
    mirror_free(&x), mirror_free(&y), mirror_free(&weight), mirror_free(&row);
}

static const mbl_dtype_t types[] = {MBL_F32, MBL_BF16, MBL_F64};

static void every_window(void **state) {
    (void)state;
    static const shape_t shapes[] = {
        {1, 1, 1, 1, 1, 1, 1, 0, 1},     {2, 5, 7, 3, 16, 3, 3, 1, 1},  {3, 4, 3, 16, 32, 3, 3, 1, 1},
        {2, 3, 5, 32, 3, 3, 3, 1, 1},    {2, 6, 5, 32, 24, 1, 1, 0, 1}, {1, 2, 3, 512, 16, 3, 3, 1, 1},
        {1, 3, 2, 512, 512, 1, 1, 0, 1}, {2, 3, 4, 16, 32, 3, 3, 1, 2}, {2, 5, 3, 3, 5, 1, 1, 0, 2},
        {2, 6, 9, 8, 4, 3, 3, 0, 1},     {2, 4, 6, 5, 7, 2, 3, 1, 1},   {1, 4, 4, 4, 4, 5, 4, 3, 3},
        {3, 17, 19, 16, 8, 3, 3, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int type = 0; type < 3; type++)
            check(types[type], &shapes[i]);
}

/* More windows than the cuda backend lays out at once (32 MiB of them). */
static void many_windows(void **state) {
    (void)state;
    static const shape_t s = {2, 13, 80, 512, 3, 3, 3, 1, 1};
    mbl_tensor_t x = random_tensor(MBL_F32, s.n, s.height, s.width, s.channels, 1);
    mbl_tensor_t y = random_tensor(MBL_F32, s.n, s.height, s.width, s.outputs, 2);
    mbl_tensor_t weight = random_tensor(MBL_F32, s.outputs, s.kh, s.kw, s.channels, 3);
    const mbl_conv2d_args_t a = {.y = &y, .x = &x, .weight = &weight, .pad = 1, .up = 1, .accumulate = true};
    compare(&s, &a, 7);
    mirror_free(&x), mirror_free(&y), mirror_free(&weight);
}

/* Files store weights as [outputs, channels, rows, columns]; patchify brings them into the order here. */
static void weights_of_files(void **state) {
    (void)state;
    enum { O = 5, C = 3, K = 3 };
    mbl_tensor_t stored = random_tensor(MBL_F32, O, C, K, K, 1);
    mbl_tensor_t weight = random_tensor(MBL_F32, O, K, K, C, 2);
    mbl_tensor_t tokens = mbl_tensor_reshape(&weight, 3, (size_t)O, (size_t)1, (size_t)(K * K * C));
    assert_int_equal(
        MBL_OP(ops, patchify, .tokens = &tokens, .image = &stored, .patch = K, .order = MBL_PATCH_PQC),
        MBL_OK);
    mirror_pull(&weight);
    for (size_t i = 0; i < O * K * K * C; i++) {
        size_t c = i % C, at = i / C % (K * K), o = i / C / (K * K);
        assert_near(mirror_get(&weight, i), mirror_get(&stored, (o * C + c) * K * K + at), 0);
    }
    mirror_free(&stored), mirror_free(&weight);
}

static void expect_refused(mbl_conv2d_args_t a, const char *text) {
    assert_int_equal(mbl_op_conv2d(ops, &a), MBL_ERR_ARG);
    if (!strstr(mbl_fail_message(), text))
        fail_msg("\"%s\" does not say \"%s\"", mbl_fail_message(), text);
}

static void refused(void **state) {
    (void)state;
    mbl_tensor_t x = random_tensor(MBL_F32, 1, 4, 5, 2, 1), y = random_tensor(MBL_F32, 1, 4, 5, 3, 2),
                 weight = random_tensor(MBL_F32, 3, 3, 3, 2, 3),
                 other = random_tensor(MBL_F32, 3, 3, 3, 4, 4), row = random_tensor(MBL_BF16, 1, 1, 1, 3, 5),
                 bias = mbl_tensor_reshape(&row, 1, (size_t)3);
    const mbl_conv2d_args_t right = {.y = &y, .x = &x, .weight = &weight, .pad = 1, .up = 1};
    mbl_conv2d_args_t a = right;
    assert_int_equal(mbl_op_conv2d(ops, &a), MBL_OK);
    mbl_fail_quiet(1);
    a.pad = 0;
    expect_refused(a, "conv2d: y is [1,4,5,3] f32, not [1,2,3,3] f32");
    a.pad = 3;
    expect_refused(a, "conv2d: padding of 3 for a window of 3 x 3");
    a = right, a.up = 0;
    expect_refused(a, "conv2d: enlarged 0 times");
    a = right, a.weight = &other;
    expect_refused(a, "conv2d: weight");
    a = right, a.bias = &bias;
    expect_refused(a, "conv2d: bias");
    mbl_tensor_t low = mbl_tensor_reshape(&x, 4, (size_t)1, (size_t)1, (size_t)20, (size_t)2);
    a = right, a.x = &low, a.pad = 0;
    expect_refused(a, "conv2d: a window of 3 x 3 is larger than 1 x 20");
    mbl_fail_quiet(0);
    mirror_free(&x), mirror_free(&y), mirror_free(&weight), mirror_free(&other), mirror_free(&row);
}

static mbl_status_t one_call(const char *backend, mbl_dtype_t dtype, size_t up) {
    mbl_ops_t *own;
    mbl_tensor_t x = {.data = NULL}, y = {.data = NULL}, weight = {.data = NULL};
    MBL_TRY(mbl_ops_open(backend, 1, &own));
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_tensor_new(own, dtype, &x, 4, (size_t)2, (size_t)3, (size_t)4, (size_t)5), done);
    MBL_TRY_GOTO(mbl_tensor_new(own, dtype, &y, 4, (size_t)2, 3 * up, 4 * up, (size_t)6), done);
    MBL_TRY_GOTO(mbl_tensor_new(own, dtype, &weight, 4, (size_t)6, (size_t)3, (size_t)3, (size_t)5), done);
    for (int i = 0; i < 2; i++) /* anew, and as one that is kept */
        MBL_TRY_GOTO(MBL_OP(own, conv2d, .y = &y, .x = &x, .weight = &weight, .pad = 1, .up = up), done);
done:
    mbl_tensor_free(own, &x);
    mbl_tensor_free(own, &y);
    mbl_tensor_free(own, &weight);
    mbl_ops_close(own);
    return status;
}

static void survives_failing_memory(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        size_t live = mbl_mem_live(), n = 1;
        for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
            mbl_mem_fail_at(n);
            status = one_call(test_backend(), i % 2 ? MBL_BF16 : MBL_F32, 1 + i / 2);
            mbl_mem_fail_at(0);
            assert_true(status == MBL_OK || status == MBL_ERR_MEM);
            assert_int_equal(mbl_mem_live(), live);
        }
        assert_in_range(n, 3, 100);
    }
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_window), cmocka_unit_test(many_windows),
                                       cmocka_unit_test(weights_of_files), cmocka_unit_test(refused),
                                       cmocka_unit_test(survives_failing_memory)};
    return cmocka_run_group_tests(tests, open_ops, close_ops);
}
