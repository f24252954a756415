/* Own matrix products, every kernel that this processor can run: against f64 for 1 to 64 rows, odd columns,
 * K from nothing to several parts, transposes, accumulation, activations, f32 and bf16, with unaligned rows
 * whose surroundings and scratch are NaN and infinity; and rows whose bits depend on nothing but their own
 * numbers. */
#include "ops/cpu/gemm.h"
#include "base/mem.h"
#include "base/rng.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const kernels[] = {"portable", "avx2"};
enum { KERNELS = sizeof kernels / sizeof *kernels, MARGIN = 5 };

/* A tensor within more memory: rows `gap` numbers longer, an odd number of numbers before and behind; what
 * does not belong to it is NaN and infinity by turns. */
typedef struct {
    mbl_tensor_t view;
    unsigned char *memory, *before; /* all of it, and as it was */
    size_t bytes;
} block_t;

static double get(const mbl_tensor_t *t, size_t i, size_t j) {
    size_t at = i * t->stride[0] + j;
    return (double)(t->dtype == MBL_BF16 ? mbl_bf16_to_f32(((const uint16_t *)t->data)[at])
                                         : ((const float *)t->data)[at]);
}

static void put(const mbl_tensor_t *t, size_t i, size_t j, float x) {
    size_t at = i * t->stride[0] + j;
    if (t->dtype == MBL_BF16)
        ((uint16_t *)t->data)[at] = mbl_bf16_from_f32(x);
    else
        ((float *)t->data)[at] = x;
}

static block_t block_new(mbl_dtype_t dtype, size_t rows, size_t columns, uint64_t sample) {
    block_t b = {.bytes = mbl_dtype_size(dtype) * (rows * (columns + MARGIN) + 2 * MARGIN)};
    const size_t count = b.bytes / mbl_dtype_size(dtype);
    b.memory = malloc(b.bytes);
    b.before = malloc(b.bytes);
    assert_true(b.memory && b.before);
    mbl_tensor_t all = MBL_TENSOR_2(b.memory, dtype, 1, count);
    for (size_t i = 0; i < count; i++)
        put(&all, 0, i, i % 2 ? NAN : INFINITY);
    b.view = MBL_TENSOR_2(b.memory + MARGIN * mbl_dtype_size(dtype), dtype, rows, columns);
    b.view.stride[0] = columns + MARGIN;
    mbl_rng_t rng = mbl_rng(11, MBL_RNG_NOISE, 0, sample);
    float pair[2] = {0};
    for (size_t i = 0; i < rows * columns; i++) {
        if (i % 2 == 0)
            mbl_rng_normal2(&rng, pair);
        put(&b.view, i / columns, i % columns, pair[i % 2]);
    }
    memcpy(b.before, b.memory, b.bytes);
    return b;
}

static void block_free(block_t *b) {
    free(b->memory);
    free(b->before);
}

static void block_reset(block_t *b) {
    memcpy(b->memory, b->before, b->bytes);
}

/* Nothing but the tensor itself has changed. */
static void assert_margins_kept(const block_t *b, const char *kernel) {
    const size_t size = mbl_dtype_size(b->view.dtype), first = MARGIN * size, row = b->view.stride[0] * size;
    for (size_t i = 0; i < b->bytes; i++) {
        bool inside =
            i >= first && (i - first) / row < b->view.dim[0] && (i - first) % row < b->view.dim[1] * size;
        if (!inside && b->memory[i] != b->before[i])
            fail_msg("%s: byte %zu beside y [%zu, %zu] was written", kernel, i, b->view.dim[0],
                     b->view.dim[1]);
    }
}

/* With scratch memory of exactly the size asked for, which starts as NaN. */
static void run(const mbl_gemm_kernel_t *kernel, const mbl_matmul_args_t *args, int threads) {
    size_t bytes;
    assert_int_equal(mbl_gemm_bytes(kernel, args, threads, &bytes), MBL_OK);
    void *work = aligned_alloc(64, bytes ? bytes : 64);
    assert_non_null(work);
    memset(work, 0xff, bytes);
    mbl_gemm_run(kernel, args, threads, work);
    free(work);
}

static double act_of(double x, mbl_act_t act) {
    const double z = x * (1 + 0.044715 * x * x) * sqrt(2 / acos(-1));
    return act == MBL_ACT_NONE        ? x
           : act == MBL_ACT_GELU_TANH ? x / 2 * (1 + tanh(z))
           : act == MBL_ACT_GELU_ERF  ? x / 2 * (1 + erf(x / sqrt(2)))
                                      : x / (1 + exp(act == MBL_ACT_SILU ? -x : -1.702 * x));
}

/* By central differences in f64. */
static double slope_of(double x, mbl_act_t act) {
    const double h = 1e-5;
    return (act_of(x + h, act) - act_of(x - h, act)) / (2 * h);
}

typedef struct {
    size_t m, k, n;
    mbl_dtype_t ct, yt;
    bool transpose_a, transpose_b, accumulate, bias, pre, through;
    mbl_act_t act;
    int threads;
} case_t;

static void check_value(const char *kernel, const char *what, const case_t *c, size_t i, size_t j, double got,
                        double want, double allowed) {
    if (fabs(got - want) <= allowed)
        return;
    fail_msg("%s %s: %s -> %s %zux%zux%zu ta %d tb %d acc %d bias %d act %d, %d threads, at %zu,%zu: %.9g, "
             "expected %.9g within %.3g",
             kernel, what, mbl_dtype_name(c->ct), mbl_dtype_name(c->yt), c->m, c->k, c->n, c->transpose_a,
             c->transpose_b, c->accumulate, c->bias, (int)c->act, c->threads, i, j, got, want, allowed);
}

/* A matrix as doubles, row after row; by columns when `transpose`. Free with free(). */
static double *values_of(const mbl_tensor_t *t, bool transpose) {
    double *out = calloc(t->dim[0] * t->dim[1] + 1, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < t->dim[0]; i++)
        for (size_t j = 0; j < t->dim[1]; j++)
            out[transpose ? j * t->dim[0] + i : i * t->dim[1] + j] = get(t, i, j);
    return out;
}

/* Allowed are K + 3 roundings of the sum (twice the unit roundoff each), an activation's approximation, and
 * the rounding of the result. */
static void check_case(const mbl_gemm_kernel_t *kernel, const case_t *c) {
    block_t a = block_new(c->ct, c->transpose_a ? c->k : c->m, c->transpose_a ? c->m : c->k, 1);
    block_t b = block_new(c->ct, c->transpose_b ? c->n : c->k, c->transpose_b ? c->k : c->n, 2);
    block_t y = block_new(c->yt, c->m, c->n, 3), bias = block_new(c->ct, 1, c->n, 4);
    block_t other = block_new(c->yt, c->m, c->n, 5);
    mbl_tensor_t bias_row = MBL_TENSOR_1(bias.view.data, c->ct, c->n);
    const mbl_matmul_args_t args = {.y = &y.view,
                                    .a = &a.view,
                                    .b = &b.view,
                                    .bias = c->bias ? &bias_row : NULL,
                                    .pre = c->pre ? &other.view : NULL,
                                    .through = c->through ? &other.view : NULL,
                                    .transpose_a = c->transpose_a,
                                    .transpose_b = c->transpose_b,
                                    .accumulate = c->accumulate,
                                    .act = c->act};
    double *start = values_of(&y.view, false), *rows = values_of(&a.view, c->transpose_a),
           *columns = values_of(&b.view, !c->transpose_b);
    run(kernel, &args, c->threads);
    const double out_unit = c->yt == MBL_BF16 ? 0x1p-8 : 0x1p-24;
    for (size_t i = 0; i < c->m * c->n; i++) {
        const size_t row = i / c->n, column = i % c->n;
        const double before = c->accumulate ? start[i] : 0, added = c->bias ? get(&bias.view, 0, column) : 0;
        double sum = before + added, size = fabs(before) + fabs(added);
        for (size_t l = 0; l < c->k; l++) {
            double term = rows[row * c->k + l] * columns[column * c->k + l];
            sum += term;
            size += fabs(term);
        }
        const double linear = 2 * (double)(c->k + 3) * 0x1p-24 * size;
        if (c->pre)
            check_value(kernel->name, "pre", c, row, column, get(&other.view, row, column), sum,
                        linear + out_unit * fabs(sum));
        const double x = c->through ? get(&other.view, row, column) : 0;
        const double want = c->through ? sum * slope_of(x, c->act) : act_of(sum, c->act);
        double allowed = (c->act ? 1.2 : 1) * linear + out_unit * fabs(want);
        if (c->act)
            allowed += 16 * 0x1p-24 * (1 + fabs(sum)) * (1 + x * x) + 1e-9 * fabs(sum);
        check_value(kernel->name, "y", c, row, column, get(&y.view, row, column), want, allowed);
    }
    assert_margins_kept(&y, kernel->name);
    if (c->pre)
        assert_margins_kept(&other, kernel->name);
    free(start);
    free(rows);
    free(columns);
    block_t *all[] = {&a, &b, &y, &bias, &other};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        block_free(all[i]);
}

/* One of the combinations of flags; every one comes by. */
static void set_flags(case_t *c, size_t i) {
    c->transpose_a = i & 1;
    c->transpose_b = i & 2;
    c->accumulate = i & 4;
    c->bias = i & 8;
    c->ct = i & 16 ? MBL_BF16 : MBL_F32;
    c->yt = i & 16 && i & 32 ? MBL_BF16 : MBL_F32;
    c->act = (mbl_act_t)(i / 64 % 5);
    c->pre = c->act && i / 320 % 3 == 1;
    c->through = c->act && i / 320 % 3 == 2;
    c->threads = (int)(1 + i % 4);
}
enum { FLAGS = 960 };

/* One to 64 rows, with odd columns and depths. */
static void every_number_of_rows(void **state) {
    static const size_t depth[] = {1, 2, 7, 16, 33}, columns[] = {1, 3, 8, 9, 16, 17, 24, 37};
    (void)state;
    for (int i = 0; i < KERNELS; i++) {
        const mbl_gemm_kernel_t *kernel = mbl_gemm_kernel(kernels[i]);
        size_t flags = 0;
        for (size_t m = 1; kernel && m <= 64; m++)
            for (int j = 0; j < 24; j++, flags += 41) {
                case_t c = {.m = m, .k = depth[(m + (size_t)j) % 5], .n = columns[(size_t)j % 8]};
                set_flags(&c, flags % FLAGS);
                check_case(kernel, &c);
            }
    }
}

static void every_flag(void **state) {
    static const size_t size[][3] = {{13, 19, 29}, {6, 1, 16}, {7, 0, 5}, {49, 5, 16}};
    (void)state;
    for (int i = 0; i < KERNELS; i++) {
        const mbl_gemm_kernel_t *kernel = mbl_gemm_kernel(kernels[i]);
        for (size_t flags = 0; kernel && flags < FLAGS; flags++)
            for (size_t s = 0; s < sizeof size / sizeof *size; s++) {
                case_t c = {.m = size[s][0], .k = size[s][1], .n = size[s][2]};
                set_flags(&c, flags);
                check_case(kernel, &c);
            }
    }
}

/* K in several parts, columns in several chunks, rows in several tasks. */
static void long_sums_and_many_columns(void **state) {
    static const size_t size[][3] = {
        {5, 385, 17}, {50, 1000, 33}, {3, 800, 1100}, {101, 770, 530}, {2, 3, 5000}};
    (void)state;
    for (int i = 0; i < KERNELS; i++) {
        const mbl_gemm_kernel_t *kernel = mbl_gemm_kernel(kernels[i]);
        for (size_t s = 0; kernel && s < sizeof size / sizeof *size; s++)
            for (size_t flags = 0; flags < FLAGS; flags += 119) {
                case_t c = {.m = size[s][0], .k = size[s][1], .n = size[s][2]};
                set_flags(&c, flags);
                check_case(kernel, &c);
            }
    }
}

static void rows_are_alike(const mbl_gemm_kernel_t *kernel, const case_t *c) {
    block_t a = block_new(c->ct, c->transpose_a ? c->k : c->m, c->transpose_a ? c->m : c->k, 1);
    block_t b = block_new(c->ct, c->transpose_b ? c->n : c->k, c->transpose_b ? c->k : c->n, 2);
    block_t whole = block_new(c->yt, c->m, c->n, 3), some = block_new(c->yt, c->m, c->n, 3);
    mbl_matmul_args_t args = {.y = &whole.view,
                              .a = &a.view,
                              .b = &b.view,
                              .transpose_a = c->transpose_a,
                              .transpose_b = c->transpose_b,
                              .accumulate = c->accumulate,
                              .act = c->act};
    run(kernel, &args, 1);
    for (size_t i = 0; i < 24; i++) {
        const size_t count[] = {1, 2, 5, 6, 7, 12, 47, 48, 49, c->m};
        const size_t rows = count[i % 10] < c->m ? count[i % 10] : c->m, first = i * 7 % (c->m - rows + 1);
        mbl_tensor_t y = mbl_tensor_rows(&some.view, first, rows);
        mbl_tensor_t part =
            c->transpose_a ? mbl_tensor_columns(&a.view, first, rows) : mbl_tensor_rows(&a.view, first, rows);
        block_reset(&some);
        args.y = &y;
        args.a = &part;
        run(kernel, &args, (int)(1 + i % 4));
        for (size_t r = 0; r < rows; r++)
            if (memcmp((char *)y.data + r * y.stride[0] * mbl_dtype_size(c->yt),
                       (char *)whole.view.data + (first + r) * y.stride[0] * mbl_dtype_size(c->yt),
                       c->n * mbl_dtype_size(c->yt)) != 0)
                fail_msg("%s: row %zu of %zu from %zu on, %d threads: other bits than among %zu rows (K %zu, "
                         "N %zu, ta %d)",
                         kernel->name, r, rows, first, (int)(1 + i % 4), c->m, c->k, c->n, c->transpose_a);
    }
    block_t *all[] = {&a, &b, &whole, &some};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        block_free(all[i]);
}

/* Bits of a row: the same alone, among others, at any place, on one to four threads. */
static void rows_depend_on_their_own_numbers(void **state) {
    static const size_t size[][2] = {{1, 17}, {16, 128}, {128, 16}, {385, 40}, {1000, 9}, {128, 384}};
    (void)state;
    for (int i = 0; i < KERNELS; i++) {
        const mbl_gemm_kernel_t *kernel = mbl_gemm_kernel(kernels[i]);
        for (size_t s = 0; kernel && s < sizeof size / sizeof *size; s++)
            for (size_t flags = 0; flags < 8; flags++) {
                case_t c = {.m = 157, .k = size[s][0], .n = size[s][1]};
                set_flags(&c, flags | (flags & 1 ? 48 : 0) | (flags & 2 ? 64 : 0));
                rows_are_alike(kernel, &c);
            }
    }
}

/* NaN and infinity stay in their rows of a and columns of b. */
static void nothing_spreads(void **state) {
    enum { M = 20, K = 9, N = 21, ROW = 8, COLUMN = 19 };
    (void)state;
    for (int i = 0; i < KERNELS; i++) {
        const mbl_gemm_kernel_t *kernel = mbl_gemm_kernel(kernels[i]);
        if (!kernel)
            continue;
        for (int type = 0; type < 2; type++) {
            const mbl_dtype_t dtype = type ? MBL_BF16 : MBL_F32;
            block_t a = block_new(dtype, M, K, 1), b = block_new(dtype, N, K, 2),
                    y = block_new(dtype, M, N, 3);
            put(&a.view, ROW, 4, NAN);
            put(&b.view, COLUMN, 2, INFINITY);
            const mbl_matmul_args_t args = {.y = &y.view, .a = &a.view, .b = &b.view, .transpose_b = true};
            run(kernel, &args, 2);
            for (size_t r = 0; r < M; r++)
                for (size_t j = 0; j < N; j++) {
                    const double found = get(&y.view, r, j);
                    assert_int_equal(isnan(found) != 0, r == ROW);
                    assert_int_equal(isinf(found) != 0, r != ROW && j == COLUMN);
                }
            block_free(&a);
            block_free(&b);
            block_free(&y);
        }
    }
}

/* A result in bf16 is the result in f32, rounded as elsewhere: ties, NaN with any payload, overflow. */
static void bf16_is_f32_rounded(void **state) {
    static const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x7f7fffff, 0xff7fffff, 0x7f800000,
                                    0x7f800001, 0xffc12345, 0x00000001, 0x80008000, 0x00007fff, 0x7fffffff};
    enum { N = sizeof bits / sizeof *bits };
    (void)state;
    for (int i = 0; i < KERNELS; i++) {
        const mbl_gemm_kernel_t *kernel = mbl_gemm_kernel(kernels[i]);
        for (size_t n = 1; kernel && n <= N; n++) {
            float b[N], one = 1, wide[N];
            uint16_t narrow[N];
            memcpy(b, bits, sizeof b);
            mbl_tensor_t a = MBL_TENSOR_2(&one, MBL_F32, 1, 1), bt = MBL_TENSOR_2(b, MBL_F32, 1, n);
            mbl_tensor_t y = MBL_TENSOR_2(wide, MBL_F32, 1, n), y16 = MBL_TENSOR_2(narrow, MBL_BF16, 1, n);
            run(kernel, &(const mbl_matmul_args_t){.y = &y, .a = &a, .b = &bt}, 1);
            run(kernel, &(const mbl_matmul_args_t){.y = &y16, .a = &a, .b = &bt}, 1);
            for (size_t j = 0; j < n; j++)
                if (narrow[j] != mbl_bf16_from_f32(wide[j]))
                    fail_msg("%s: %a rounds to %#x, expected %#x", kernel->name, (double)wide[j], narrow[j],
                             mbl_bf16_from_f32(wide[j]));
        }
    }
}

static void too_large_is_refused(void **state) {
    float x = 0;
    size_t bytes = 1;
    (void)state;
    mbl_tensor_t a = MBL_TENSOR_2(&x, MBL_F32, 4, SIZE_MAX / 16),
                 b = MBL_TENSOR_2(&x, MBL_F32, SIZE_MAX / 16, 64), y = MBL_TENSOR_2(&x, MBL_F32, 4, 64);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_gemm_bytes(mbl_gemm_kernel("portable"),
                                    &(const mbl_matmul_args_t){.y = &y, .a = &a, .b = &b}, 2, &bytes),
                     MBL_ERR_ARG);
    mbl_fail_quiet(0);
    assert_int_equal(bytes, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_rows),
        cmocka_unit_test(every_flag),
        cmocka_unit_test(long_sums_and_many_columns),
        cmocka_unit_test(rows_depend_on_their_own_numbers),
        cmocka_unit_test(nothing_spreads),
        cmocka_unit_test(bf16_is_f32_rounded),
        cmocka_unit_test(too_large_is_refused),
    };
    return cmocka_run_group_tests_name("own matrix products", tests, NULL, NULL);
}
