/* The operations of an image decoder as it chains them, against torch (golden/make_decoder.py): a residual
 * block of group norm, silu and convolution beside a shortcut of one pixel, and a convolution over an
 * enlarged image; weights and images brought from torch's order by patchify.   ctest-backends: fake cuda
 */
#include "mirror.h"

#include <jansson.h>
#include <math.h>

static mbl_ops_t *ops;
static json_t *golden;

static int open_ops(void **state) {
    (void)state;
    golden = json_load_file(MBL_SOURCE_DIR "/tests/golden/decoder.json", 0, NULL);
    return golden && mbl_ops_open(test_backend(), 2, &ops) == MBL_OK ? 0 : -1;
}

static int close_ops(void **state) {
    (void)state;
    mbl_ops_close(ops);
    json_decref(golden);
    return 0;
}

static size_t number(const char *name, size_t i) {
    json_t *value = json_object_get(golden, name);
    return (size_t)json_integer_value(json_is_array(value) ? json_array_get(value, i) : value);
}

static mbl_tensor_t read_tensor(const char *name, mbl_dtype_t dtype, size_t a, size_t b, size_t c, size_t d) {
    json_t *list = json_object_get(golden, name);
    mbl_tensor_t t = mirror_new(ops, dtype, 4, a, b, c, d);
    assert_int_equal(json_array_size(list), a * b * c * d);
    for (size_t i = 0; i < a * b * c * d; i++)
        mirror_put(&t, i, json_number_value(json_array_get(list, i)));
    mirror_push(&t);
    return t;
}

/* [a,b,c,d] as stored becomes [a,c,d,b]: channels last. */
static mbl_tensor_t read_turned(const char *name, mbl_dtype_t dtype, size_t a, size_t b, size_t c, size_t d,
                                bool weight) {
    mbl_tensor_t stored = read_tensor(name, dtype, a, b, c, d), t = mirror_new(ops, dtype, 4, a, c, d, b);
    mbl_tensor_t tokens = mbl_tensor_reshape(&t, 3, a, weight ? (size_t)1 : c * d, weight ? c * d * b : b);
    assert_int_equal(MBL_OP(ops, patchify, .tokens = &tokens, .image = &stored, .patch = weight ? c : 1,
                            .order = MBL_PATCH_PQC),
                     MBL_OK);
    mirror_free(&stored);
    return t;
}

/* y [N,H,W,C] against torch's [N,C,H,W], relative to the largest number. */
static void expect(const mbl_tensor_t *y, const char *name, double tolerance) {
    json_t *list = json_object_get(golden, name);
    size_t channels = y->dim[3], pixels = y->dim[1] * y->dim[2], count = mbl_tensor_count(y);
    double largest = 0;
    mirror_pull(y);
    assert_int_equal(json_array_size(list), count);
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(json_number_value(json_array_get(list, i))));
    for (size_t i = 0; i < count; i++) {
        size_t n = i / channels / pixels, pixel = i / channels % pixels, c = i % channels;
        double want = json_number_value(json_array_get(list, (n * channels + c) * pixels + pixel));
        if (!(fabs(mirror_get(y, i) - want) <= tolerance * largest))
            fail_msg("%s in %s, sample %zu, pixel %zu, channel %zu: %.9g, torch has %.9g", name,
                     mbl_dtype_name(y->dtype), n, pixel, c, mirror_get(y, i), want);
    }
}

static void check(mbl_dtype_t dtype, double tolerance) {
    const size_t n = number("shape", 0), channels = number("shape", 1), height = number("shape", 2),
                 width = number("shape", 3), outputs = number("outputs", 0);
    mbl_tensor_t x = read_turned("x", dtype, n, channels, height, width, false);
    mbl_tensor_t conv3 = read_turned("conv3", dtype, outputs, channels, 3, 3, true);
    mbl_tensor_t conv1 = read_turned("conv1", dtype, outputs, channels, 1, 1, true);
    mbl_tensor_t rows[4] = {
        read_tensor("weight", dtype, 1, 1, 1, channels), read_tensor("bias", dtype, 1, 1, 1, channels),
        read_tensor("bias3", dtype, 1, 1, 1, outputs), read_tensor("bias1", dtype, 1, 1, 1, outputs)};
    mbl_tensor_t row[4];
    for (int i = 0; i < 4; i++)
        row[i] = mbl_tensor_reshape(&rows[i], 1, rows[i].dim[3]);
    mbl_tensor_t hidden = mirror_new(ops, dtype, 4, n, height, width, channels);
    mbl_tensor_t block = mirror_new(ops, dtype, 4, n, height, width, outputs);
    mbl_tensor_t large = mirror_new(ops, dtype, 4, n, 2 * height, 2 * width, outputs);
    mbl_tensor_t from = mbl_tensor_reshape(&x, 3, n, height * width, channels);
    mbl_tensor_t to = mbl_tensor_reshape(&hidden, 3, n, height * width, channels);

    assert_int_equal(MBL_OP(ops, group_norm, .y = &to, .x = &from, .weight = &row[0], .bias = &row[1],
                            .groups = number("groups", 0),
                            .eps = json_real_value(json_object_get(golden, "eps")), .silu = true),
                     MBL_OK);
    expect(&hidden, "hidden", tolerance);
    assert_int_equal(MBL_OP(ops, conv2d, .y = &block, .x = &x, .weight = &conv1, .bias = &row[3], .up = 1),
                     MBL_OK);
    assert_int_equal(MBL_OP(ops, conv2d, .y = &block, .x = &hidden, .weight = &conv3, .bias = &row[2],
                            .pad = 1, .up = 1, .accumulate = true),
                     MBL_OK);
    expect(&block, "block", tolerance);
    assert_int_equal(
        MBL_OP(ops, conv2d, .y = &large, .x = &x, .weight = &conv3, .bias = &row[2], .pad = 1, .up = 2),
        MBL_OK);
    expect(&large, "large", tolerance);
    mbl_tensor_t *all[] = {&x,     &conv3,   &conv1,   &hidden,  &block,
                           &large, &rows[0], &rows[1], &rows[2], &rows[3]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mirror_free(all[i]);
}

static void agrees_with_torch(void **state) {
    (void)state;
    check(MBL_F64, 1e-13);
    check(MBL_F32, 1e-6);
    check(MBL_BF16, 1e-2);
}

/* Values on and between the edges of bytes, and what is not finite, which marks its sample alone. */
static void pixels_become_bytes(void **state) {
    (void)state;
    static const mbl_dtype_t types[] = {MBL_F32, MBL_BF16, MBL_F64};
    static const struct {
        double x;
        int byte;
    } exact[] = {{-1, 0},    {1, 255},   {0, 128}, {-3, 0},         {7, 255},
                 {0.5, 191}, {-0.5, 64}, {NAN, 0}, {INFINITY, 255}, {-INFINITY, 0}};
    enum { SAMPLES = 3, EACH = 9001, FINITE = 7, ALL = sizeof exact / sizeof *exact };
    for (int t = 0; t < 3; t++) {
        mbl_tensor_t x = mirror_new(ops, types[t], 4, 1, 1, SAMPLES, EACH), rows, y, broken;
        static uint8_t bytes[SAMPLES * EACH];
        int32_t found[SAMPLES];
        assert_int_equal(mbl_tensor_new(ops, MBL_U8, &y, 2, (size_t)SAMPLES, (size_t)EACH), MBL_OK);
        assert_int_equal(mbl_tensor_new(ops, MBL_I32, &broken, 1, (size_t)SAMPLES), MBL_OK);
        for (size_t i = 0; i < SAMPLES * EACH; i++)
            mirror_put(&x, i, sin(0.37 * (double)i) * 1.2);
        for (size_t i = 0; i < FINITE; i++)
            mirror_put(&x, EACH + i, exact[i].x);
        for (size_t i = FINITE; i < ALL; i++)
            mirror_put(&x, 2 * EACH + 8990 + i - FINITE, exact[i].x);
        mirror_push(&x);
        rows = mbl_tensor_reshape(&x, 2, (size_t)SAMPLES, (size_t)EACH);
        assert_int_equal(MBL_OP(ops, to_bytes, .y = &y, .broken = &broken, .x = &rows), MBL_OK);
        assert_int_equal(mbl_tensor_download(ops, &y, bytes), MBL_OK);
        assert_int_equal(mbl_tensor_download(ops, &broken, found), MBL_OK);
        assert_true(found[0] == 0 && found[1] == 0 && found[2] == 1);
        for (size_t i = 0; i < ALL; i++)
            assert_int_equal(bytes[i < FINITE ? EACH + i : 2 * EACH + 8990 + i - FINITE], exact[i].byte);
        for (size_t i = 0; i < EACH; i++) {
            float share = (float)(mirror_get(&x, i) * 0.5 + 0.5);
            share = share < 0 ? 0 : share > 1 ? 1 : share;
            assert_int_equal(bytes[i], (int)nearbyintf(share * 255));
        }
        mbl_tensor_t wrong = mbl_tensor_reshape(&y, 1, (size_t)(SAMPLES * EACH));
        assert_int_equal(MBL_OP(ops, to_bytes, .y = &wrong, .broken = &broken, .x = &rows), MBL_ERR_ARG);
        mirror_free(&x);
        mbl_tensor_free(ops, &y);
        mbl_tensor_free(ops, &broken);
    }
}

/* Samples that begin and end anywhere in a word: each has its own mark, for its first pixel and its last. */
static void small_samples_become_bytes(void **state) {
    (void)state;
    enum { SAMPLES = 5, MOST = 9 };
    for (size_t each = 1; each <= MOST; each++)
        for (size_t skipped = 0; skipped < 2; skipped++)
            for (size_t last = 0; last < 2; last++) {
                const size_t n = SAMPLES - skipped;
                mbl_tensor_t x = mirror_new(ops, MBL_F32, 4, 1, 1, SAMPLES, each), rows, y, broken;
                uint8_t bytes[SAMPLES * MOST];
                int32_t found[SAMPLES];
                assert_int_equal(mbl_tensor_new(ops, MBL_U8, &y, 2, (size_t)SAMPLES, each), MBL_OK);
                assert_int_equal(mbl_tensor_new(ops, MBL_I32, &broken, 1, n), MBL_OK);
                for (size_t i = 0; i < SAMPLES * each; i++)
                    mirror_put(&x, i, (double)(i % 3) - 1);
                mirror_put(&x, 2 * each + (last ? each - 1 : 0), NAN);
                mirror_push(&x);
                rows = mbl_tensor_reshape(&x, 2, (size_t)SAMPLES, each);
                const mbl_tensor_t from = mbl_tensor_rows(&rows, skipped, n),
                                   to = mbl_tensor_rows(&y, skipped, n);
                assert_int_equal(MBL_OP(ops, to_bytes, .y = &to, .broken = &broken, .x = &from), MBL_OK);
                assert_int_equal(mbl_tensor_download(ops, &to, bytes), MBL_OK);
                assert_int_equal(mbl_tensor_download(ops, &broken, found), MBL_OK);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(found[i], i + skipped == 2);
                for (size_t i = 0; i < n * each; i++) {
                    static const uint8_t expected[3] = {0, 128, 255};
                    const double pixel = mirror_get(&x, skipped * each + i);
                    assert_int_equal(bytes[i], isnan(pixel) ? 0 : expected[(skipped * each + i) % 3]);
                }
                mirror_free(&x);
                mbl_tensor_free(ops, &y);
                mbl_tensor_free(ops, &broken);
            }
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_torch),
                                       cmocka_unit_test(pixels_become_bytes),
                                       cmocka_unit_test(small_samples_become_bytes)};
    return cmocka_run_group_tests(tests, open_ops, close_ops);
}
