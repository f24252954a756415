/* Tests of estimates: of calls and messages by formulas written out, and what a step's messages are. */
#include "support.h"

#include "plan/estimate.h"

static mbl_cost_t cost_of_product(size_t m, size_t n, size_t k) {
    mbl_ops_t *ops;
    mbl_tensor_t y, a, b;
    size_t items;
    assert_int_equal(mbl_cost_model_open(&ops), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_BF16, &y, 2, m, n), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_BF16, &a, 2, m, k), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_BF16, &b, 2, n, k), MBL_OK);
    (void)mbl_cost_model_take(ops, &items);
    assert_int_equal(MBL_OP(ops, matmul, .y = &y, .a = &a, .b = &b, .transpose_b = true), MBL_OK);
    const mbl_cost_t cost = mbl_cost_model_take(ops, &items)->cost;
    mbl_ops_close(ops);
    return cost;
}

/* Nine images of 1024 tokens by 1536 columns are 72 x 6 tiles: 3.27 rounds of 132, of which the fourth is
 * not full. Eleven images fill four rounds to the last tile. */
static void tails_are_of_whole_rounds(void **state) {
    const mbl_gpu_t *h100 = mbl_gpu_find("h100");
    double kernels, tail;
    (void)state;
    mbl_cost_t cost = cost_of_product(9 * 1024, 1536, 1536);
    assert_int_equal(cost.blocks, 72 * 6);
    mbl_plan_estimate_call(h100, MBL_OP_matmul, &cost, &kernels, &tail);
    const double seconds = 2.0 * 9216 * 1536 * 1536 / (0.85 * 989e12);
    assert_near(kernels, seconds, 1e-9 * seconds);
    assert_near(tail, seconds * (4 * 132 / 432.0 - 1), 1e-9 * seconds);
    cost = cost_of_product(11 * 1024, 1536, 1536);
    mbl_plan_estimate_call(h100, MBL_OP_matmul, &cost, &kernels, &tail);
    assert_near(tail, 0, 1e-12);
    cost = cost_of_product(9, 1536, 1536); /* less than a round, and bound by the weights' bytes */
    mbl_plan_estimate_call(h100, MBL_OP_matmul, &cost, &kernels, &tail);
    assert_near(kernels, cost.bytes / (0.85 * 3.35e12), 1e-9 * kernels);
    assert_near(tail, 0, 0);
}

/* An estimate of attention is slower than one of a product with the same arithmetic, the most on Hopper. */
static void attention_has_a_share_of_its_own(void **state) {
    const mbl_cost_t cost = {.flops = {1e12}, .launches = 1};
    static const struct {
        const char *gpu;
        double rate;
    } cases[] = {{"a100", 0.6 * 312e12}, {"h100", 0.35 * 989e12}, {"b200", 0.35 * 989e12 / 132 * 148}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double kernels, tail;
        mbl_plan_estimate_call(mbl_gpu_find(cases[i].gpu), MBL_OP_attention, &cost, &kernels, &tail);
        assert_near(kernels, 1e12 / cases[i].rate, 1e-9 * kernels);
    }
}

static void messages_by_hosts(void **state) {
    const mbl_gpu_t *h100 = mbl_gpu_find("h100"), *a100 = mbl_gpu_find("a100");
    (void)state;
    assert_near(mbl_plan_message(h100, 1, 1e9, true), 0, 0);
    assert_near(mbl_plan_message(h100, 8, 1e9, true), 1e9 * 7 / 8 / (0.82 * 450e9) + 7 * 3.4e-6, 1e-12);
    /* two hosts: eight adapters of 50 GB/s, two of fifteen steps between them */
    assert_near(mbl_plan_message(h100, 16, 1e9, true),
                1e9 * 15 / 16 / (0.82 * 400e9) + 14 * 3.4e-6 + 2 * 14e-6, 1e-12);
    assert_near(mbl_plan_message(a100, 512, 1e9, true),
                1e9 * 511 / 512 / (0.82 * 200e9) + 448 * 3.4e-6 + 64 * 14e-6, 1e-12);
    assert_near(mbl_plan_message(h100, 64, 8, false), 2 * (3 * 0.6e-6 + 3 * 5e-6), 1e-9);
}

/* A step's messages are those of its own code: sums of the reward sets, which begin before the last backward
 * pass, of the rest, and the weights that come back; numbers besides. An estimate is no less than the bound,
 * and sums up. */
static void a_step_and_its_messages(void **state) {
    enum { RANKS = 8, REWARDS = 5, RANK = 32 };
    mbl_plan_shape_t shape = {.dtype = MBL_BF16,
                              .lora = {.rank = RANK, .alpha = RANK},
                              .tokens = 205,
                              .prompts = 2,
                              .rewards = REWARDS,
                              .images = 18,
                              .ranks = RANKS,
                              .rollout_batch = 9,
                              .rollout_steps = 3,
                              .solver = MBL_SOLVER_DPM2,
                              .train_batch = 9,
                              .timesteps = 2,
                              .inner_epochs = 1,
                              .updates = 1,
                              .kl = true};
    mbl_plan_t plan;
    size_t large = 0, sums[2] = {0}, gathered = 0;
    (void)state;
    assert_int_equal(mbl_plan_read_model(MBL_SOURCE_DIR "/deploy/examples/sd3.5-medium.json", 64, &shape),
                     MBL_OK);
    assert_int_equal(mbl_plan(&shape, &plan), MBL_OK);
    for (size_t i = 0; i < plan.messages; i++) {
        const mbl_plan_message_t *m = &plan.message[i];
        large += m->large;
        if (m->large && m->hidden)
            sums[0] += m->bytes;
        else if (m->large && m->bytes > sums[1])
            sums[1] = m->bytes;
    }
    for (size_t i = 0; i < plan.messages; i++)
        if (plan.message[i].large && plan.message[i].bytes < sums[1])
            gathered = plan.message[i].bytes;
    assert_int_equal(large, 3);
    assert_true(plan.messages > large);
    assert_int_equal(sums[0], REWARDS * sums[1]);                   /* one common part */
    assert_true(sums[1] >= 8 * 18776064 && sums[1] < 9 * 18776064); /* the adapter's numbers in f64, */
    assert_int_equal(gathered, sums[1] / 2);                        /* and its weights in f32 */
    for (size_t i = 0; mbl_gpu_at(i); i++) {
        mbl_plan_estimate_t e;
        mbl_plan_estimate(mbl_gpu_at(i), &shape, &plan, &e);
        assert_near(e.seconds, e.kernels + e.tails + e.gaps + e.exposed, 1e-12);
        assert_true(e.kernels > e.bound && e.bound > 0 && e.tails > 0 && e.gaps > 0);
        assert_true(0 < e.exposed && e.exposed < e.messages);
    }
    mbl_plan_free(&plan);
    mbl_plan_shape_free(&shape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tails_are_of_whole_rounds), cmocka_unit_test(attention_has_a_share_of_its_own),
        cmocka_unit_test(messages_by_hosts), cmocka_unit_test(a_step_and_its_messages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
