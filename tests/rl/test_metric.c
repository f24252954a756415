/* The Gram matrix in AdamW's metric: against a direct computation whatever the number of ranks, with the
 * scaling that AdamW then applies, and what it is for: the scaled direction is against no reward.
 * ctest-ranks: 1 2 4   ctest-backends: far cuda */
#include "ranks.h"

#include "base/mem.h"
#include "base/rng.h"
#include "rl/balance.h"
#include "rl/metric.h"

#include <math.h>
#include <string.h>

enum { M = 4, LENGTH = 192, K = 5 };

static mbl_comm_t *comm;

#define OK(call) assert_int_equal((call), MBL_OK)

static double normal(uint64_t seed, size_t row, size_t i) {
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_STUDY, (uint32_t)row, i);
    float pair[2];
    mbl_rng_normal2(&rng, pair);
    return (double)pair[0];
}

/* Sets of very different lengths, over moments of very different sizes, some still 0. */
static double set_value(size_t j, size_t i) {
    return pow(10, (double)j - 3) * (normal(1, j, i) + 0.3) * (i % 5 == 0 ? 1e-3 : 1);
}

static float moment(size_t i) {
    return i % 7 == 3 ? 0 : (float)pow(10, -8 + normal(2, 0, i) * 2);
}

typedef struct {
    mbl_ops_t *ops;
    mbl_optimizer_t optimizer;
    mbl_metric_t metric;
    mbl_tensor_t shard; /* [rows, count] */
    size_t count, first;
} world_t;

static world_t open_world(size_t rows, const double *sets, const float *v, size_t length, uint64_t steps) {
    world_t w = {.count = length / (size_t)comm->size};
    w.first = w.count * (size_t)comm->rank;
    assert_int_equal(w.count % 16, 0);
    OK(mbl_ops_open(test_backend(), 1, &w.ops));
    OK(mbl_comm_attach(comm, w.ops));
    OK(mbl_optimizer_new(w.ops, w.count, &w.optimizer));
    OK(mbl_metric_new(w.ops, rows + 1, w.count, &w.metric)); /* more room than is needed */
    OK(mbl_tensor_new(w.ops, MBL_F64, &w.shard, 2, rows, w.count));
    OK(mbl_tensor_upload(w.ops, &w.optimizer.v, v + w.first));
    w.optimizer.steps = steps;
    for (size_t j = 0; j < rows; j++) {
        mbl_tensor_t row = mbl_tensor_rows(&w.shard, j, 1);
        OK(mbl_tensor_upload(w.ops, &row, sets + j * length + w.first));
    }
    return w;
}

static void close_world(world_t *w) {
    mbl_tensor_free(w->ops, &w->shard);
    mbl_metric_free(&w->metric);
    mbl_optimizer_free(&w->optimizer);
    OK(mbl_comm_attach(comm, NULL));
    mbl_ops_close(w->ops);
}

static void plain_gram(const double *sets, size_t rows, size_t length, double *gram) {
    for (size_t j = 0; j < rows * rows; j++) {
        gram[j] = 0;
        for (size_t i = 0; i < length; i++)
            gram[j] += sets[j / rows * length + i] * sets[j % rows * length + i];
    }
}

/* <x_j, x_l>_P number by number, P = 1 / (sqrt(vhat) + eps) from the formula in metric.h. */
static void equals_a_direct_computation(void **state) {
    static double sets[M * LENGTH];
    static const double mean[M] = {2, 0, 0.5, 0.03};
    static float v[LENGTH];
    static const struct {
        double clip;
        uint64_t steps;
        bool broken; /* set 1 is not finite */
    } cases[] = {{0, 0, false}, {0, 9, false}, {0.01, 0, false}, {0.01, 700, true}};
    (void)state;
    for (size_t t = 0; t < sizeof cases / sizeof *cases; t++) {
        mbl_adamw_options_t options = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .grad_clip = cases[t].clip};
        double plain[M * M], gram[M * M], want[M * M] = {0}, size[M], square = 0;
        double correction = 1 - pow(0.99, (double)(cases[t].steps + 1));
        for (size_t i = 0; i < LENGTH; i++) {
            double d = 0;
            v[i] = moment(i);
            for (size_t j = 0; j < M; j++)
                d += mean[j] * (sets[j * LENGTH + i] = set_value(j, i));
            square += d * d;
        }
        double norm = sqrt(square), clip = cases[t].clip > 0 ? cases[t].clip / norm : 1;
        assert_true(clip <= 1);
        for (size_t i = 0; i < LENGTH; i++) {
            double d = 0;
            for (size_t j = 0; j < M; j++)
                d += mean[j] * sets[j * LENGTH + i];
            double p = 1 / (sqrt((0.99 * (double)v[i] + 0.01 * clip * clip * d * d) / correction) + 1e-6);
            for (size_t j = 0; j < M * M; j++)
                want[j] += p * sets[j / M * LENGTH + i] * sets[j % M * LENGTH + i];
        }
        for (size_t i = 0; cases[t].broken && i < LENGTH; i += 50)
            sets[LENGTH + i] = i % 100 ? INFINITY : NAN;
        plain_gram(sets, M, LENGTH, plain);
        world_t w = open_world(M, sets, v, LENGTH, cases[t].steps);
        OK(mbl_metric_gram(comm, &w.metric, &w.optimizer, &options, &w.shard, plain, mean, norm, gram));
        for (size_t j = 0; j < M; j++)
            size[j] = sqrt(want[j * M + j]);
        for (size_t j = 0; j < M * M; j++) {
            if (cases[t].broken && (j / M == 1 || j % M == 1)) {
                assert_true(isnan(gram[j]));
                gram[j] = 0;
                continue;
            }
            assert_near(gram[j], want[j], 1e-12 * size[j / M] * size[j % M]);
            assert_near(gram[j], gram[j % M * M + j / M], 0); /* symmetric to the bit */
        }
        assert_true(same_on_all_ranks(comm, gram, M * M));
        mbl_tensor_t fewer = mbl_tensor_columns(&w.shard, 0, w.count / 2);
        mbl_fail_quiet(1);
        assert_int_equal(
            mbl_metric_gram(comm, &w.metric, &w.optimizer, &options, &fewer, plain, mean, norm, gram),
            MBL_ERR_ARG);
        mbl_fail_quiet(0);
        close_world(&w);
    }
}

/* The step AdamW takes along d, without momentum and weight decay, is lr P d with the P that was predicted
 * for the mean direction d: at the first step too, where vhat is d^2. */
static void is_what_adamw_does(void **state) {
    static double d[LENGTH], scale[LENGTH];
    static float v[LENGTH], now[LENGTH];
    (void)state;
    for (uint64_t steps = 0; steps <= 40; steps += 20) {
        mbl_adamw_options_t options = {.lr = 1, .beta2 = 0.999, .eps = 1e-8, .grad_clip = 0.5};
        double square = 0;
        mbl_tensor_t weights;
        for (size_t i = 0; i < LENGTH; i++) {
            d[i] = set_value(2, i);
            square += d[i] * d[i];
            v[i] = steps == 0 ? 0 : moment(i);
        }
        world_t w = open_world(1, d, v, LENGTH, steps);
        mbl_tensor_t direction = mbl_tensor_reshape(&w.shard, 1, w.count);
        OK(mbl_tensor_new(w.ops, MBL_F32, &weights, 1, (size_t)LENGTH));
        mbl_metric_scale(&options, steps, v, d, sqrt(square), LENGTH, scale);
        OK(mbl_optimizer_step(comm, &w.optimizer, &options, &direction, sqrt(square), &weights));
        OK(mbl_tensor_download(w.ops, &weights, now));
        for (size_t i = 0; i < LENGTH; i++) {
            double want = -scale[i] * scale[i] * mbl_grad_scale(&options, sqrt(square)) * d[i];
            assert_near(now[i], want, 1e-5 * fabs(want));
        }
        mbl_tensor_free(w.ops, &weights);
        close_world(&w);
    }
}

/* Cosines of the step AdamW takes (no momentum, no decay) with the gradients, after marble's solve in the
 * metric or plain. sets [k + 1, LENGTH], the last of them 0. */
static double least_cosine_of_step(const double *sets, size_t k, const float *v, bool in_metric) {
    mbl_adamw_options_t options = {.lr = 1, .beta2 = 0.999, .eps = 1e-8, .grad_clip = 1};
    mbl_balance_options_t marble = {.method = MBL_METHOD_MARBLE, .rho = 0.7},
                          equal = {.method = MBL_METHOD_EQUAL, .rho = 0.7};
    double plain[(K + 1) * (K + 1)], gram[(K + 1) * (K + 1)], least = 1, length = 0;
    static float moved[LENGTH];
    mbl_balance_state_t state = {0}, other = {0};
    mbl_balance_step_t mean, step;
    mbl_tensor_t weights, direction;
    world_t w = open_world(k + 1, sets, v, LENGTH, 5000);
    plain_gram(sets, k + 1, LENGTH, plain);
    OK(mbl_balance(comm, &equal, plain, k, &other, &mean));
    OK(mbl_metric_gram(comm, &w.metric, &w.optimizer, &options, &w.shard, plain, mean.coefficient,
                       mean.direction_norm, gram));
    OK(mbl_balance(comm, &marble, in_metric ? gram : plain, k, &state, &step));
    mbl_balance_measure(plain, k, &step);
    OK(mbl_tensor_new(w.ops, MBL_F32, &weights, 1, (size_t)LENGTH));
    OK(mbl_tensor_new(w.ops, MBL_F64, &direction, 1, w.count));
    OK(MBL_OP(w.ops, combine, .y = &direction, .x = &w.shard, .coefficient = step.coefficient));
    OK(mbl_optimizer_step(comm, &w.optimizer, &options, &direction, step.direction_norm, &weights));
    OK(mbl_tensor_download(w.ops, &weights, moved));
    for (size_t i = 0; i < LENGTH; i++)
        length += (double)moved[i] * (double)moved[i];
    for (size_t j = 0; j < k; j++) {
        double along = 0;
        for (size_t i = 0; i < LENGTH; i++)
            along -= (double)moved[i] * sets[j * LENGTH + i];
        least = fmin(least, along / sqrt(length * plain[j * (k + 1) + j]));
    }
    mbl_tensor_free(w.ops, &weights);
    mbl_tensor_free(w.ops, &direction);
    close_world(&w);
    return least;
}

/* g_1 = (1, 0), g_2 = (-0.6, 0.8), moments of the first weight 100 times smaller in the root: the plain
 * direction (0.2, 0.4) scaled is (20, 0.4), which is against g_2; in the metric none is gone against. */
static void the_scaled_direction_is_against_no_reward_by_hand(void **state) {
    static double sets[3 * LENGTH];
    static float v[LENGTH];
    (void)state;
    sets[0] = 1e-3;
    sets[LENGTH] = -0.6e-3;
    sets[LENGTH + 1] = 0.8e-3;
    v[0] = 1e-4F;
    v[1] = 1;
    double plain = least_cosine_of_step(sets, 2, v, false), metric = least_cosine_of_step(sets, 2, v, true);
    assert_near(plain, (-12 + 0.32) / sqrt(400.16), 1e-4);
    assert_true(metric > 0);
}

/* Gradients short beside the moments, so that what a step adds to vhat is what was predicted. */
static void the_scaled_direction_is_against_no_reward(void **state) {
    static double sets[(K + 1) * LENGTH];
    static float v[LENGTH];
    size_t against = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        for (size_t i = 0; i < LENGTH; i++) {
            v[i] = (float)pow(10, -6 + 2 * normal(seed, 50, i));
            for (size_t j = 0; j < K; j++) /* in conflict, with 5 directions in 192 still some common one */
                sets[j * LENGTH + i] =
                    1e-6 * ((double)j + 1) *
                    (normal(seed, j, i) - 0.9 * normal(seed, (j + 1) % K, i) + 0.3 * normal(seed, 20, i));
        }
        double metric = least_cosine_of_step(sets, K, v, true);
        if (!(metric > 0))
            fail_msg("seed %d: least cosine %g in the metric", (int)seed, metric);
        against += least_cosine_of_step(sets, K, v, false) < 0;
    }
    if (against < 10)
        fail_msg("%zu of 30 plain solves are against a reward: too few to tell", against);
}

static void every_allocation_may_fail(void **state) {
    mbl_ops_t *ops;
    mbl_status_t status = MBL_ERR_MEM;
    size_t failed = 0;
    (void)state;
    OK(mbl_ops_open(test_backend(), 1, &ops));
    mbl_fail_quiet(1);
    for (size_t live = mbl_mem_live(); status != MBL_OK; failed++) {
        mbl_metric_t metric = {0};
        mbl_mem_fail_at(failed + 1);
        status = mbl_metric_new(ops, 3, 32, &metric);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        mbl_metric_free(&metric);
        assert_int_equal(mbl_mem_live(), live);
    }
    mbl_fail_quiet(0);
    assert_true(failed >= 3);
    mbl_ops_close(ops);
}

int main(void) {
    need_backend();
    comm = open_ranks();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_a_direct_computation),
        cmocka_unit_test(is_what_adamw_does),
        cmocka_unit_test(the_scaled_direction_is_against_no_reward_by_hand),
        cmocka_unit_test(the_scaled_direction_is_against_no_reward),
        cmocka_unit_test(every_allocation_may_fail),
    };
    if (!comm)
        return 1;
    int failed = cmocka_run_group_tests_name("metric", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
