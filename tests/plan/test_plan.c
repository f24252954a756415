/* Tests of the cost model's counts and of plans: by formulas, and the limits that SD3.5 Medium's shape is
 * held to. tests/emulation/test_cost_model.c holds the counts against real launches. */
#include "support.h"

#include "base/mem.h"
#include "model/safetensors.h"
#include "ops/roofline.h"
#include "plan/plan.h"

#include <string.h>

#define assert_ok(expr) assert_int_equal((expr), MBL_OK)

/* One call of matmul [m,k] x [n,k]' counted. */
static mbl_cost_t product(mbl_dtype_t dtype, size_t m, size_t n, size_t k, bool accumulate, mbl_act_t act) {
    mbl_ops_t *ops;
    mbl_tensor_t y, a, b;
    size_t items;
    assert_ok(mbl_cost_model_open(&ops));
    assert_ok(mbl_tensor_new(ops, dtype, &y, 2, m, n));
    assert_ok(mbl_tensor_new(ops, dtype, &a, 2, m, k));
    assert_ok(mbl_tensor_new(ops, dtype, &b, 2, n, k));
    (void)mbl_cost_model_take(ops, &items);
    assert_ok(MBL_OP(ops, matmul, .y = &y, .a = &a, .b = &b, .transpose_b = true, .accumulate = accumulate,
                     .act = act));
    const mbl_cost_item_t *item = mbl_cost_model_take(ops, &items);
    assert_int_equal(items, 1);
    assert_int_equal(item->row, MBL_OP_matmul);
    assert_int_equal(item->calls, 1);
    mbl_cost_t cost = item->cost;
    mbl_tensor_free(ops, &y);
    mbl_tensor_free(ops, &a);
    mbl_tensor_free(ops, &b);
    assert_int_equal(mbl_cost_model_live(ops), 0);
    mbl_ops_close(ops);
    return cost;
}

/* A training pass's gelu: added to what y holds and kept beside it, and its slope on the way back, each the
 * product's own. */
static void test_kept(void) {
    enum { M = 100, N = 200, K = 304 };
    mbl_ops_t *ops;
    mbl_tensor_t y, a, b, bias, pre;
    size_t n;
    assert_ok(mbl_cost_model_open(&ops));
    assert_ok(mbl_tensor_new(ops, MBL_BF16, &y, 2, (size_t)M, (size_t)N));
    assert_ok(mbl_tensor_new(ops, MBL_BF16, &pre, 2, (size_t)M, (size_t)N));
    assert_ok(mbl_tensor_new(ops, MBL_BF16, &a, 2, (size_t)M, (size_t)K));
    assert_ok(mbl_tensor_new(ops, MBL_BF16, &b, 2, (size_t)N, (size_t)K));
    assert_ok(mbl_tensor_new(ops, MBL_BF16, &bias, 1, (size_t)N));
    (void)mbl_cost_model_take(ops, &n);
    mbl_matmul_args_t x = {.y = &y, .a = &a, .b = &b, .bias = &bias, .transpose_b = true, .accumulate = true};
    const double operands = 2.0 * (2 * M * N + M * K + N * K);
    x.act = MBL_ACT_GELU_TANH;
    x.pre = &pre;
    assert_ok(mbl_op_matmul(ops, &x));
    x.through = &pre;
    x.bias = x.pre = NULL;
    assert_ok(mbl_op_matmul(ops, &x));
    x.act = MBL_ACT_SILU;
    assert_ok(mbl_op_matmul(ops, &x));
    const mbl_cost_item_t *item = mbl_cost_model_take(ops, &n);
    assert_int_equal(n, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(item[i].cost.launches, 1);
        assert_near(item[i].cost.bytes, operands + 2.0 * M * N + (i == 0 ? 2.0 * N : 0), 0);
    }
    assert_int_equal(item[2].cost.launches, 2);
    assert_near(item[2].cost.bytes, operands + 2.0 * 3 * M * N, 0);
    mbl_tensor_t *all[] = {&y, &pre, &a, &b, &bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(ops, all[i]);
    mbl_ops_close(ops);
}

static void test_products(void **state) {
    (void)state;
    mbl_cost_t plain = product(MBL_BF16, 100, 200, 300, false, MBL_ACT_NONE);
    assert_near(plain.flops[MBL_UNIT_TENSOR], 2.0 * 100 * 200 * 300, 0);
    assert_near(plain.least, 2.0 * (100 * 200 + 100 * 300 + 200 * 300), 0);
    assert_near(plain.bytes, plain.least, 0);
    assert_int_equal(plain.launches, 1);
    mbl_cost_t added = product(MBL_F32, 100, 200, 300, true, MBL_ACT_NONE);
    assert_near(added.flops[MBL_UNIT_F32], 2.0 * 100 * 200 * 300, 0);
    assert_near(added.least, 4.0 * (2 * 100 * 200 + 100 * 300 + 200 * 300), 0);
    /* the activation reads and writes the product once more */
    mbl_cost_t two = product(MBL_BF16, 100, 200, 300, false, MBL_ACT_SILU);
    assert_int_equal(two.launches, 2);
    assert_near(two.bytes - two.least, 2.0 * 2 * 100 * 200, 0);
    assert_int_equal(two.work, 0);
    /* gelu in bf16 is the product's own, where rows are made of pieces of 16 bytes */
    mbl_cost_t one = product(MBL_BF16, 100, 200, 304, false, MBL_ACT_GELU_TANH);
    assert_int_equal(one.launches, 1);
    assert_near(one.bytes - one.least, 0, 0);
    assert_int_equal(product(MBL_BF16, 100, 200, 300, false, MBL_ACT_GELU_TANH).launches, 2);
    assert_int_equal(product(MBL_BF16, 100, 204, 304, false, MBL_ACT_GELU_TANH).launches, 2);
    assert_int_equal(product(MBL_F32, 100, 200, 304, false, MBL_ACT_GELU_TANH).launches, 2);
    test_kept();
    /* neither operand stays in the cache: 64 MB each, the other goes by in panels of 20 MB */
    mbl_cost_t large = product(MBL_F32, 4000, 4000, 4000, false, MBL_ACT_NONE);
    assert_near(large.bytes - large.least, 64e6 * (64.0 / 20 - 1), 1);
}

static void test_taking(void **state) {
    (void)state;
    mbl_ops_t *ops;
    mbl_tensor_t x, y;
    float host[6] = {1, 2, 3, 4, 5, 6};
    size_t n;
    assert_ok(mbl_cost_model_open(&ops));
    assert_ok(mbl_tensor_new(ops, MBL_F32, &x, 1, (size_t)6));
    assert_ok(mbl_tensor_new(ops, MBL_F32, &y, 1, (size_t)6));
    (void)mbl_cost_model_take(ops, &n);
    assert_int_equal(n, 1); /* both were cleared */
    assert_ok(mbl_tensor_upload(ops, &x, host));
    for (int i = 0; i < 3; i++)
        assert_ok(MBL_OP(ops, axpby, .y = &y, .x = &x, .a = 1, .b = i == 0 ? 0 : 1));
    assert_ok(mbl_tensor_download(ops, &y, host));
    assert_near(host[3], 0, 0);
    const mbl_cost_item_t *item = mbl_cost_model_take(ops, &n);
    assert_int_equal(n, 4); /* upload, axpby that does not read y and one that does, download */
    assert_near(item[1].cost.least, 2 * 24, 0);
    assert_near(item[2].cost.least, 3 * 24, 0);
    assert_int_equal(item[2].calls, 2);
    (void)mbl_cost_model_take(ops, &n);
    assert_int_equal(n, 0);
    mbl_tensor_free(ops, &x);
    mbl_tensor_free(ops, &y);
    mbl_ops_close(ops);
}

static void test_roofline(void **state) {
    (void)state;
    const mbl_gpu_t *h100 = mbl_gpu_find("h100");
    assert_non_null(h100);
    assert_null(mbl_gpu_find("v100"));
    const mbl_cost_t memory = {.flops = {989e6}, .bytes = 3.35e9, .launches = 2};
    assert_near(mbl_roofline(h100, &memory, 0), 1e-3, 1e-9);
    assert_near(mbl_roofline(h100, &memory, 1e-6), 1.002e-3, 1e-9);
    const mbl_cost_t arithmetic = {.flops = {0, 67e9, 34e9 / 2}, .bytes = 8};
    assert_near(mbl_roofline(h100, &arithmetic, 0), 1e-3, 1e-9);
}

/* SD3.5 Medium at 512 x 512: 1,024 image tokens and 205 of the prompt, nine images at once, five rewards.
 */
static mbl_plan_shape_t medium(void) {
    mbl_plan_shape_t shape = {.dtype = MBL_BF16,
                              .lora = {.rank = 32, .alpha = 64},
                              .tokens = 205,
                              .prompts = 100,
                              .rewards = 5,
                              .images = 144,
                              .ranks = 1,
                              .rollout_batch = 9,
                              .rollout_steps = 25,
                              .solver = MBL_SOLVER_DPM2,
                              .train_batch = 9,
                              .timesteps = 24,
                              .inner_epochs = 1,
                              .updates = 1,
                              .kl = true};
    assert_ok(mbl_plan_read_model(MBL_SOURCE_DIR "/deploy/examples/sd3.5-medium.json", 64, &shape));
    return shape;
}

static mbl_cost_t sum_of(const mbl_plan_count_t *count) {
    mbl_cost_t sum = {.launches = 0};
    for (size_t i = 0; i < count->n; i++) {
        const mbl_cost_item_t *item = &count->item[i];
        sum.bytes += (double)item->calls * item->cost.bytes;
        sum.least += (double)item->calls * item->cost.least;
        sum.launches += (size_t)item->calls * item->cost.launches;
        for (int unit = 0; unit < MBL_UNITS; unit++)
            sum.flops[unit] += (double)item->calls * item->cost.flops[unit];
    }
    return sum;
}

static void hold_to_limits(bool merged) {
    mbl_plan_shape_t shape = medium();
    mbl_plan_t plan;
    shape.merge = shape.merged = merged;
    assert_ok(mbl_plan(&shape, &plan));
    assert_int_equal(plan.block_kinds, 2);
    for (size_t i = 0; i < plan.block_kinds; i++) {
        const mbl_plan_launches_t *block = &plan.block[i];
        print_message("launches of a block with %s: %zu / %zu\n", block->kind->title, block->merged,
                      block->apart);
        assert_true(block->merged > 0 && block->merged <= 24);
        assert_true(block->apart > block->merged && block->apart <= 34);
    }
    assert_true(plan.block[0].merged > plan.block[1].merged); /* two attentions, then one */
    print_message("device memory: %.3f GB\n", (double)plan.memory.peak / 1e9);
    assert_true((double)plan.memory.peak <= 40e9);
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_PHASES; phase++) {
        mbl_cost_t sum = sum_of(&plan.phase[phase]);
        print_message("%s: %.3f of %.3f GB, %zu launches\n", mbl_plan_phase_names[phase], sum.bytes / 1e9,
                      sum.least / 1e9, sum.launches);
        assert_true(sum.bytes <= 1.3 * sum.least);
    }
    const mbl_plan_memory_t *m = &plan.memory;
    assert_int_equal(m->weights + m->prompts + m->adapters + m->gradients + m->rollout + m->train +
                         m->evaluation + m->scratch,
                     m->peak);
    assert_int_equal(plan.phase[MBL_PLAN_ROLLOUT].times, 16);
    assert_int_equal(plan.phase[MBL_PLAN_TRAIN].times, 16 * 24);
    mbl_plan_free(&plan);
    mbl_plan_shape_free(&shape);
}

static void test_medium(void **state) {
    (void)state;
    hold_to_limits(false);
    hold_to_limits(true);
}

/* The arithmetic of a rollout step by hand: weights times tokens, and attention. */
static void test_arithmetic(void **state) {
    (void)state;
    mbl_plan_shape_t shape = medium();
    mbl_plan_t plan;
    shape.merge = shape.merged = true;
    shape.rollout_steps = 1;
    assert_ok(mbl_plan(&shape, &plan));
    mbl_cost_t sum = sum_of(&plan.phase[MBL_PLAN_ROLLOUT]);
    const double d = 1536, n = 9, image = 1024, text = 205, layers = 24, dual = 13;
    /* 4 d^2 of an attention, 8 d^2 of the net; the last block's context stops at k, v (and q) */
    double weights = image * d * d * (layers * 12 + dual * 4) + text * d * d * (layers * 12 - 9);
    double attention = 2 * d * (layers * (image + text) * (image + text) + dual * image * image);
    double ends = image * d * (64 + 64) + text * 4096 * d;
    double condition = 256 * d + d * d + 2048 * d + d * d;
    double modulation = d * d * (dual * 9 + (layers - dual) * 6 + (layers - 1) * 6 + 2 + 2);
    double all = 2 * n * (weights + attention + ends + condition + modulation);
    assert_near(sum.flops[MBL_UNIT_TENSOR] / all, 1, 1e-12);
    mbl_plan_free(&plan);
    mbl_plan_shape_free(&shape);
}

static void test_wrong_shapes(void **state) {
    (void)state;
    mbl_plan_t plan;
    mbl_plan_shape_t shape = medium();
    shape.rewards = 65;
    assert_int_equal(mbl_plan(&shape, &plan), MBL_ERR_ARG);
    mbl_plan_shape_free(&shape);
    const size_t sides[] = {63, 1024}; /* no whole patches; more than there are positions for */
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(
            mbl_plan_read_model(MBL_SOURCE_DIR "/deploy/examples/sd3.5-medium.json", sides[i], &shape),
            MBL_ERR_CONFIG);
        assert_non_null(strstr(mbl_fail_message(), "sd3.5-medium.json"));
    }
}

/* Prompts on the device: both sets where they are small, else an epoch's, those that merging is measured on,
 * and those of a micro-batch of an evaluation. */
static void test_prompts(void **state) {
    static const char text[] = "model: {path: " MBL_SOURCE_DIR "/deploy/examples/signs-base}\n"
                               "rewards: [{name: ocr}]\neval: {prompts: 16}\nrollout: {micro_batch: 6}\n"
                               "prompts: {groups: 8, train_count: 40, test_count: 20}\n";
    static const struct {
        const char *set;
        size_t ranks, prompts;
    } cases[] = {{"prompts.device_bytes=1 GiB", 2, 60},
                 {"prompts.device_bytes=0", 2, 4 + 4 + 6},
                 {"prompts.device_bytes=0", 1, 8 + 4 + 6},
                 {"rollout.micro_batch=48", 4, 60}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_config_t *config;
        mbl_plan_shape_t shape;
        assert_ok(mbl_config_parse(text, strlen(text), "run.yaml", &cases[i].set, 1, &config));
        assert_ok(mbl_plan_shape(config, cases[i].ranks, 80e9, &shape));
        assert_int_equal(shape.prompts, cases[i].prompts);
        mbl_plan_shape_free(&shape);
        mbl_config_free(config);
    }
}

/* Evaluations with guidance take two rows of an image, and the negative prompt; without room for more rows
 * they make half as many images at once. */
static void test_guided_evaluation(void **state) {
    static const char text[] =
        "model: {path: " MBL_SOURCE_DIR "/deploy/examples/signs-base}\n"
        "rewards: [{name: ocr}]\nprompts: {groups: 8, train_count: 40, test_count: 20}\n";
    static const struct {
        const char *set[3];
        size_t at_once;
    } cases[] = {{{"eval.guidance=1", "rollout.micro_batch=6", "eval.prompts=16"}, 6},
                 {{"eval.guidance=4.5", "rollout.micro_batch=6", "eval.prompts=16"}, 3},
                 {{"eval.guidance=1", "rollout.micro_batch=6", "eval.prompts=4"}, 4},
                 {{"eval.guidance=4.5", "rollout.micro_batch=12", "eval.prompts=16"}, 6}};
    size_t bytes[4];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_config_t *config;
        mbl_plan_shape_t shape;
        mbl_plan_t plan;
        assert_ok(mbl_config_parse(text, strlen(text), "run.yaml", cases[i].set, 3, &config));
        assert_ok(mbl_plan_shape(config, 1, 80e9, &shape));
        assert_int_equal(shape.eval_batch, cases[i].at_once);
        assert_ok(mbl_plan(&shape, &plan));
        bytes[i] = plan.memory.evaluation;
        mbl_plan_free(&plan);
        mbl_plan_shape_free(&shape);
        mbl_config_free(config);
    }
    assert_true(bytes[2] < bytes[0]);
    /* six rows in both; what is guided has the model's two velocities of an image besides */
    assert_true(5 * bytes[1] < 6 * bytes[0] && 5 * bytes[3] > 9 * bytes[0]);
}

/* The rank that a run begun with model.lora.from has. */
static void test_rank_of_a_file(void **state) {
    static const char text[] =
        "model: {path: " MBL_SOURCE_DIR "/deploy/examples/signs-base, lora: {from: %s}}\n"
        "rewards: [{name: ocr}]\nprompts: {train_count: 40, test_count: 20}\n";
    enum { RANK = 3 };
    static float values[RANK * 256];
    char folder[64], path[128], yaml[512];
    mbl_config_t *config;
    mbl_plan_shape_t shape;
    const mbl_dit_sizes_t *sizes = &shape.sizes;
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/lora.safetensors", folder);
    snprintf(yaml, sizeof yaml, text, path);
    assert_ok(
        mbl_plan_read_model(MBL_SOURCE_DIR "/deploy/examples/signs-base/transformer/config.json", 0, &shape));
    const size_t width = sizes->width;
    const mbl_st_tensor_t tensors[] = {
        {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight", MBL_F32, 2, {RANK, width}, values},
        {"transformer.transformer_blocks.0.attn.to_q.lora_B.weight", MBL_F32, 2, {width, RANK}, values}};
    assert_true(width <= 256);
    mbl_plan_shape_free(&shape);
    assert_ok(mbl_st_write(path, tensors, 2, NULL));
    assert_ok(mbl_config_parse(yaml, strlen(yaml), "run.yaml", NULL, 0, &config));
    assert_ok(mbl_plan_shape(config, 1, 80e9, &shape));
    assert_int_equal(shape.lora.rank, RANK);
    assert_int_equal(shape.lora.n_targets, 1);
    mbl_plan_shape_free(&shape);
    mbl_config_free(config);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),      cmocka_unit_test(test_taking),
        cmocka_unit_test(test_roofline),      cmocka_unit_test(test_medium),
        cmocka_unit_test(test_arithmetic),    cmocka_unit_test(test_wrong_shapes),
        cmocka_unit_test(test_prompts),       cmocka_unit_test(test_guided_evaluation),
        cmocka_unit_test(test_rank_of_a_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
