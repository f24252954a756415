/* Group norm against its definition in f64: every type, with silu and without, in place, groups of one
 * channel up to all, channels that do not fill vectors, token counts beside the kernels' spans, values far
 * from zero; and what is refused.   ctest-backends: fake cuda */
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
    size_t n, t, d, groups;
} size4_t;

/* Channel j is normal about 0.25 (j % 5) + offset. */
static mbl_tensor_t random_tensor(mbl_dtype_t dtype, size_t n, size_t t, size_t d, double offset,
                                  uint64_t sample) {
    mbl_tensor_t x = mirror_new(ops, dtype, 3, n, t, d, 0);
    mbl_rng_t rng = mbl_rng(11, MBL_RNG_NOISE, 0, sample);
    float pair[2];
    for (size_t i = 0; i < n * t * d; i++) {
        mbl_rng_normal2(&rng, pair);
        mirror_put(&x, i, (double)pair[0] + 0.25 * (double)(i % d % 5) + offset);
    }
    mirror_push(&x);
    return x;
}

static void moments(const mbl_tensor_t *x, size4_t s, size_t n, size_t g, double *mean, double *rstd) {
    size_t per = s.d / s.groups, count = s.t * per;
    double sum = 0, square = 0;
    for (size_t i = 0; i < count; i++)
        sum += mirror_get(x, (n * s.t + i / per) * s.d + g * per + i % per);
    *mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        square += pow(mirror_get(x, (n * s.t + i / per) * s.d + g * per + i % per) - *mean, 2);
    *rstd = 1 / sqrt(square / (double)count + 1e-6);
}

/* Allowed: roundings of x - mean relative to the mean, of the few steps after it, and of y itself. */
static void compare(const mbl_tensor_t *y, const mbl_tensor_t *x, const mbl_tensor_t *weight,
                    const mbl_tensor_t *bias, size4_t s, bool silu) {
    double unit = x->dtype == MBL_F64 ? 0x1p-53 : 0x1p-24;
    double out_unit = x->dtype == MBL_BF16 ? 0x1p-8 : unit;
    for (size_t n = 0; n < s.n; n++)
        for (size_t g = 0; g < s.groups; g++) {
            double mean, rstd;
            moments(x, s, n, g, &mean, &rstd);
            for (size_t i = 0; i < s.t * (s.d / s.groups); i++) {
                size_t j = g * (s.d / s.groups) + i % (s.d / s.groups);
                size_t at = (n * s.t + i / (s.d / s.groups)) * s.d + j;
                double w = mirror_get(weight, j), normal = (mirror_get(x, at) - mean) * rstd;
                double want = normal * w + mirror_get(bias, j), got = mirror_get(y, at);
                double size = fabs(w) * (fabs(normal) + fabs(mean) * rstd) + fabs(want);
                if (silu)
                    want /= 1 + exp(-want);
                double allowed = 32 * unit * (1 + size) + out_unit * fabs(want);
                if (!(fabs(got - want) <= allowed))
                    fail_msg("%s [%zu,%zu,%zu] in %zu groups, silu %d, at %zu,%zu: %.9g, expected %.9g "
                             "within %.3g",
                             mbl_dtype_name(x->dtype), s.n, s.t, s.d, s.groups, silu, at / s.d, j, got, want,
                             allowed);
            }
        }
}

static void check(mbl_dtype_t dtype, size4_t s, double offset) {
    mbl_tensor_t x = random_tensor(dtype, s.n, s.t, s.d, offset, 1),
                 kept = random_tensor(dtype, s.n, s.t, s.d, offset, 1),
                 y = random_tensor(dtype, s.n, s.t, s.d, 0, 2), w3 = random_tensor(dtype, 1, 1, s.d, 0, 3),
                 b3 = random_tensor(dtype, 1, 1, s.d, 0, 4);
    mbl_tensor_t weight = mbl_tensor_reshape(&w3, 1, s.d), bias = mbl_tensor_reshape(&b3, 1, s.d);
    for (int silu = 0; silu < 2; silu++) {
        assert_int_equal(MBL_OP(ops, group_norm, .y = &y, .x = &x, .weight = &weight, .bias = &bias,
                                .groups = s.groups, .eps = 1e-6, .silu = silu),
                         MBL_OK);
        mirror_pull(&y);
        compare(&y, &kept, &weight, &bias, s, silu);
    }
    /* the last samples alone, in place */
    mbl_tensor_t last = mbl_tensor_rows(&x, s.n - 1, 1), last_kept = mbl_tensor_rows(&kept, s.n - 1, 1);
    assert_int_equal(MBL_OP(ops, group_norm, .y = &last, .x = &last, .weight = &weight, .bias = &bias,
                            .groups = s.groups, .eps = 1e-6, .silu = true),
                     MBL_OK);
    mirror_pull(&x);
    compare(&last, &last_kept, &weight, &bias, (size4_t){1, s.t, s.d, s.groups}, true);
    for (size_t i = 0; i < (s.n - 1) * s.t * s.d; i++)
        assert_near(mirror_get(&x, i), mirror_get(&kept, i), 0);
    mirror_free(&x), mirror_free(&kept), mirror_free(&y), mirror_free(&w3), mirror_free(&b3);
}

static const mbl_dtype_t types[] = {MBL_F32, MBL_BF16, MBL_F64};

static void every_grouping(void **state) {
    (void)state;
    static const size4_t sizes[] = {{2, 1, 3, 1},     {3, 7, 16, 4},     {2, 67, 32, 32}, {2, 100, 64, 32},
                                    {2, 33, 128, 32}, {1, 130, 512, 32}, {1, 64, 30, 5},  {2, 31, 24, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int type = 0; type < 3; type++)
            check(types[type], sizes[i], 0);
}

/* A deviation of 1 about 1,000: differences of squares would leave nothing of it in f32. */
static void far_from_zero(void **state) {
    (void)state;
    check(MBL_F32, (size4_t){2, 300, 16, 2}, 1000);
    check(MBL_F64, (size4_t){1, 300, 16, 4}, 1e6);
}

static void refused(void **state) {
    (void)state;
    mbl_tensor_t x = random_tensor(MBL_F32, 1, 4, 12, 0, 1), w3 = random_tensor(MBL_F32, 1, 1, 12, 0, 2),
                 weight = mbl_tensor_reshape(&w3, 1, (size_t)12), few = mbl_tensor_columns(&weight, 0, 4);
    mbl_group_norm_args_t a = {.y = &x, .x = &x, .weight = &weight, .bias = &weight, .groups = 5};
    mbl_fail_quiet(1);
    assert_int_equal(mbl_op_group_norm(ops, &a), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "12 channels do not divide into 5 groups"));
    a.groups = 0;
    assert_int_equal(mbl_op_group_norm(ops, &a), MBL_ERR_ARG);
    a.groups = 4;
    a.bias = &few;
    assert_int_equal(mbl_op_group_norm(ops, &a), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "group_norm: bias"));
    mbl_fail_quiet(0);
    mirror_free(&x), mirror_free(&w3);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_grouping), cmocka_unit_test(far_from_zero),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, open_ops, close_ops);
}
