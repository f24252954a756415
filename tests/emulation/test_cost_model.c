/* The cost model against the cuda backend: the same passes of a small model run on both, the real one
 * emulated with every launch counted at the border to CUDA. Launches must be equal operation by operation,
 * copies and clears in all, and the device memory to the byte. */
#include "matmul_wrap.h"
#include "shape_case.h"

#include "gpu/emulation/emulator.h"
#include "ops/list.h"

#include <cuda_runtime_api.h>

static struct { size_t launches, clears, copies; } seen;
static size_t of_op[MBL_OP_COUNT];

cudaError_t __real_mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream);
cudaError_t __wrap_mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream);
cudaError_t __wrap_mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream) {
    seen.launches++;
    if (MBL_EMULATION_CHECKS && !launch->run_quick)
        fail_msg("kernel %s has no quick copy", launch->name);
    return __real_mbl_emu_launch(launch, stream);
}

WRAPPED(cublasLtMatmul, MATMUL_PARAMETERS) {
    seen.launches++;
    return __real_cublasLtMatmul(MATMUL_ARGUMENTS);
}

cudaError_t __real_cudaMemsetAsync(void *ptr, int value, size_t bytes, cudaStream_t stream);
cudaError_t __wrap_cudaMemsetAsync(void *ptr, int value, size_t bytes, cudaStream_t stream);
cudaError_t __wrap_cudaMemsetAsync(void *ptr, int value, size_t bytes, cudaStream_t stream) {
    seen.clears++;
    return __real_cudaMemsetAsync(ptr, value, bytes, stream);
}

cudaError_t __real_cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                                   cudaStream_t stream);
cudaError_t __wrap_cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                                   cudaStream_t stream);
cudaError_t __wrap_cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                                   cudaStream_t stream) {
    seen.copies++;
    return __real_cudaMemcpyAsync(dst, src, bytes, kind, stream);
}

/* The cuda backend's table with every operation's launches added up. */
#define SPY(name, need)                                                                                      \
    static mbl_status_t spy_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                        \
        size_t before = seen.launches;                                                                       \
        mbl_status_t status = mbl_ops_cuda.name(ops, args);                                                  \
        of_op[MBL_OP_##name] += seen.launches - before;                                                      \
        return status;                                                                                       \
    }
MBL_OPS_LIST(SPY)
#undef SPY

static mbl_ops_table_t spy_table(void) {
    mbl_ops_table_t table = mbl_ops_cuda;
#define SPY(name, need) table.name = spy_##name;
    MBL_OPS_LIST(SPY)
#undef SPY
    return table;
}

/* Free with mbl_plan_shape_free. */
static mbl_plan_shape_t shape_of(const mmdit_case_t *c, mbl_dtype_t dtype, size_t rewards) {
    const mbl_plan_shape_t run = {.dtype = dtype,
                                  .lora = {.rank = 2, .alpha = 4},
                                  .prompts = 3,
                                  .rewards = rewards,
                                  .images = 5,
                                  .ranks = 2,
                                  .rollout_batch = 4,
                                  .rollout_steps = 3,
                                  .solver = MBL_SOLVER_DPM2,
                                  .train_batch = 3,
                                  .timesteps = 2,
                                  .inner_epochs = 1,
                                  .updates = 1,
                                  .kl = true};
    return shape_of_case(c, run);
}

/* Sum of launches per row of what was counted. */
static void counted_launches(mbl_ops_t *counting, size_t *out) {
    size_t n;
    const mbl_cost_item_t *item = mbl_cost_model_take(counting, &n);
    memset(out, 0, MBL_COST_ROWS * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[item[i].row] += item[i].cost.launches * (size_t)item[i].calls;
}

static void compare(mbl_ops_t *counting) {
    size_t counted[MBL_COST_ROWS];
    counted_launches(counting, counted);
    for (int op = 0; op < MBL_OP_COUNT; op++) {
        if (counted[op] != of_op[op])
            print_error("%s: %zu launches counted, %zu made\n", mbl_cost_row_name(op), counted[op],
                        of_op[op]);
        assert_int_equal(counted[op], of_op[op]);
    }
    assert_int_equal(counted[MBL_COST_ZERO], seen.clears);
    assert_int_equal(counted[MBL_COST_COPY] + counted[MBL_COST_UPLOAD] + counted[MBL_COST_DOWNLOAD],
                     seen.copies);
    memset(&seen, 0, sizeof seen);
    memset(of_op, 0, sizeof of_op);
}

static size_t device_memory(void) {
    size_t left, total;
    assert_int_equal(cudaMemGetInfo(&left, &total), cudaSuccess);
    return total - left;
}

/* All phases of an epoch on both. */
static void run_shape(const mbl_plan_shape_t *shape) {
    const mbl_ops_table_t *own;
    mbl_ops_table_t spies = spy_table();
    mbl_plan_setup_t real = {.shape = shape}, counting = {.shape = shape, .live = mbl_cost_model_live};
    mbl_plan_memory_t ignored, memory;
    assert_ok(mbl_ops_open("cuda", 1, &real.ops));
    assert_ok(mbl_cost_model_open(&counting.ops));
    own = real.ops->table;
    real.ops->table = &spies;
    memset(&seen, 0, sizeof seen);
    memset(of_op, 0, sizeof of_op);
    assert_ok(mbl_plan_setup_open(&real, &ignored));
    assert_ok(mbl_plan_setup_open(&counting, &memory));
    compare(counting.ops);
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_METHOD; phase++) {
        assert_ok(mbl_plan_setup_run(&real, phase));
        assert_ok(mbl_plan_setup_run(&counting, phase));
        assert_ok(real.ops->table->sync(real.ops));
        compare(counting.ops);
    }
    assert_int_equal(mbl_cost_model_peak(counting.ops), device_memory());
    mbl_ops_t *ops = real.ops, *counting_ops = counting.ops;
    mbl_plan_setup_close(&real);
    mbl_plan_setup_close(&counting);
    assert_int_equal(mbl_cost_model_live(counting_ops), 0);
    ops->table = own;
    mbl_ops_close(ops);
    mbl_ops_close(counting_ops);
}

static void test_two_attentions_bf16(void **state) {
    (void)state;
    mbl_plan_shape_t shape = shape_of(&mmdit_cases[0], MBL_BF16, 5);
    run_shape(&shape);
    mbl_plan_shape_free(&shape);
}

/* More than eight sets make more pairs of row groups; no head norm; no reference pass. */
static void test_many_rewards_f32(void **state) {
    (void)state;
    mbl_plan_shape_t shape = shape_of(&mmdit_cases[1], MBL_F32, 9);
    shape.kl = false;
    run_shape(&shape);
    mbl_plan_shape_free(&shape);
}

static void test_merged(void **state) {
    (void)state;
    mbl_plan_shape_t shape = shape_of(&mmdit_cases[0], MBL_BF16, 2);
    shape.merge = shape.merged = true;
    run_shape(&shape);
    mbl_plan_shape_free(&shape);
}

/* A forward and a backward pass for all weights, as in pretraining. */
static void pass_for_all_weights(mbl_ops_t *ops, const mmdit_case_t *c, mbl_dtype_t dtype) {
    enum { N = 2 };
    mbl_dit_t *model;
    mbl_tape_t *tape;
    mbl_tensor_t x, t, v, grad;
    mbl_conditions_t conditions;
    mbl_dtype_t st = mbl_dtype_stat(dtype);
    size_t channels = c->config.in_channels;
    assert_ok(blank_model(ops, dtype, &c->config, &model));
    assert_ok(mbl_tape_new(model, NULL, MBL_TAPE_FULL, N, c->height, c->width, c->tokens, &tape));
    assert_ok(mbl_tensor_new(ops, st, &x, 4, (size_t)N, channels, c->height, c->width));
    assert_ok(mbl_tensor_new(ops, st, &v, 4, (size_t)N, c->config.out_channels, c->height, c->width));
    assert_ok(mbl_tensor_new(ops, st, &t, 1, (size_t)N));
    assert_ok(mbl_conditions_new(model, N, c->tokens, &conditions));
    assert_ok(mbl_tensor_new(ops, st, &grad, 1, mbl_dit_weights(model)->dim[0]));
    const mbl_dit_input_t input = {.x = &x, .t = &t, .conditions = &conditions};
    const mbl_gradient_sink_t sink = {.full = &grad};
    assert_ok(mbl_dit_forward(model, NULL, &input, tape, &v));
    assert_ok(mbl_dit_backward(model, NULL, &input, tape, &v, &sink));
    assert_ok(ops->table->sync(ops));
    mbl_tensor_t *all[] = {&x, &t, &v, &grad};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(ops, all[i]);
    mbl_conditions_free(ops, &conditions);
    mbl_tape_free(tape);
    mbl_dit_close(model);
}

/* The calls of `run` on both, with as many launches. */
static void compare_calls(void (*run)(mbl_ops_t *ops, mbl_dtype_t dtype), mbl_dtype_t dtype) {
    mbl_ops_table_t spies = spy_table();
    mbl_ops_t *real, *counting;
    assert_ok(mbl_ops_open("cuda", 1, &real));
    assert_ok(mbl_cost_model_open(&counting));
    const mbl_ops_table_t *own = real->table;
    real->table = &spies;
    memset(&seen, 0, sizeof seen);
    memset(of_op, 0, sizeof of_op);
    run(real, dtype);
    run(counting, dtype);
    compare(counting);
    real->table = own;
    mbl_ops_close(real);
    mbl_ops_close(counting);
}

static void all_weights(mbl_ops_t *ops, mbl_dtype_t dtype) {
    pass_for_all_weights(ops, &mmdit_cases[0], dtype);
}

static void test_all_weights(void **state) {
    (void)state;
    const mbl_dtype_t dtypes[] = {MBL_BF16, MBL_F32, MBL_F64};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        compare_calls(all_weights, dtypes[i]);
}

/* Products with every combination of a bias, an activation, what y held, and what goes beside an activation,
 * in rows of whole pieces of 16 bytes and not. */
static void products(mbl_ops_t *ops, mbl_dtype_t dtype) {
    for (size_t n = 16; n <= 17; n++) {
        mbl_tensor_t y, other, a, b, bias;
        assert_ok(mbl_tensor_new(ops, dtype, &y, 2, (size_t)5, n));
        assert_ok(mbl_tensor_new(ops, dtype, &other, 2, (size_t)5, n));
        assert_ok(mbl_tensor_new(ops, dtype, &a, 2, (size_t)5, (size_t)24));
        assert_ok(mbl_tensor_new(ops, dtype, &b, 2, n, (size_t)24));
        assert_ok(mbl_tensor_new(ops, dtype, &bias, 1, n));
        for (int i = 0; i < 36; i++) {
            const mbl_act_t acts[] = {MBL_ACT_NONE, MBL_ACT_GELU_TANH, MBL_ACT_SILU}, act = acts[i / 4 % 3];
            if (act == MBL_ACT_NONE && i >= 12)
                continue;
            assert_ok(MBL_OP(ops, matmul, .y = &y, .a = &a, .b = &b, .bias = i % 2 ? &bias : NULL,
                             .pre = i / 12 == 1 ? &other : NULL, .through = i / 12 == 2 ? &other : NULL,
                             .transpose_b = true, .accumulate = i / 2 % 2, .act = act));
        }
        mbl_tensor_t *all[] = {&y, &other, &a, &b, &bias};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            mbl_tensor_free(ops, all[i]);
    }
}

static void test_products(void **state) {
    (void)state;
    const mbl_dtype_t dtypes[] = {MBL_BF16, MBL_F32, MBL_F64};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        compare_calls(products, dtypes[i]);
}

/* Convolutions of one pixel, of windows in one band and in three, in place and not, and group norms of every
 * kind of piece: [channels, outputs, window, enlarged, groups]. */
static void decoder_pieces(mbl_ops_t *ops, mbl_dtype_t dtype) {
    static const size_t cases[][5] = {{16, 8, 1, 1, 1},   {16, 8, 3, 1, 4}, {16, 8, 3, 2, 8},
                                      {640, 3, 3, 1, 32}, {6, 4, 3, 1, 3},  {16, 4, 1, 2, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t channels = cases[i][0], outputs = cases[i][1], k = cases[i][2], up = cases[i][3];
        size_t height = channels > 600 ? 80 : 7, width = channels > 600 ? 40 : 5;
        mbl_tensor_t x, y, weight, bias, scale;
        assert_ok(mbl_tensor_new(ops, dtype, &x, 4, (size_t)2, height, width, channels));
        assert_ok(mbl_tensor_new(ops, dtype, &y, 4, (size_t)2, height * up, width * up, outputs));
        assert_ok(mbl_tensor_new(ops, dtype, &weight, 4, outputs, k, k, channels));
        assert_ok(mbl_tensor_new(ops, dtype, &bias, 1, outputs));
        assert_ok(mbl_tensor_new(ops, dtype, &scale, 1, channels));
        mbl_tensor_t tokens = mbl_tensor_reshape(&x, 3, (size_t)2, height * width, channels);
        assert_ok(MBL_OP(ops, group_norm, .y = &tokens, .x = &tokens, .weight = &scale, .bias = &scale,
                         .groups = cases[i][4], .eps = 1e-6, .silu = i % 2));
        for (int flags = 0; flags < 4; flags++)
            assert_ok(MBL_OP(ops, conv2d, .y = &y, .x = &x, .weight = &weight,
                             .bias = flags & 1 ? &bias : NULL, .pad = k / 2, .up = up,
                             .accumulate = flags & 2));
        assert_ok(ops->table->sync(ops));
        mbl_tensor_t *all[] = {&x, &y, &weight, &bias, &scale};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            mbl_tensor_free(ops, all[j]);
    }
}

static void test_decoder(void **state) {
    (void)state;
    const mbl_dtype_t dtypes[] = {MBL_BF16, MBL_F32, MBL_F64};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        compare_calls(decoder_pieces, dtypes[i]);
}

/* Vectors of one segment and of many. */
static void vectors(mbl_ops_t *ops, mbl_dtype_t dtype) {
    for (size_t n = 5; n < 3000000; n *= 700) {
        double sums[2];
        int64_t checksum;
        const mbl_tensor_t to = MBL_TENSOR_1(sums, MBL_F64, 2), sum = MBL_TENSOR_1(&checksum, MBL_I64, 1);
        mbl_tensor_t x, y;
        assert_ok(mbl_tensor_new(ops, dtype, &x, 1, n));
        assert_ok(mbl_tensor_new(ops, dtype, &y, 1, n));
        assert_ok(MBL_OP(ops, distance, .sums = &to, .x = &x, .y = &y));
        assert_ok(MBL_OP(ops, checksum, .sum = &sum, .x = &x));
        mbl_tensor_free(ops, &x);
        mbl_tensor_free(ops, &y);
    }
}

static void test_vectors(void **state) {
    (void)state;
    compare_calls(vectors, MBL_F32);
    compare_calls(vectors, MBL_F64);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_attentions_bf16),
                                       cmocka_unit_test(test_many_rewards_f32),
                                       cmocka_unit_test(test_merged),
                                       cmocka_unit_test(test_all_weights),
                                       cmocka_unit_test(test_products),
                                       cmocka_unit_test(test_vectors),
                                       cmocka_unit_test(test_decoder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
