/* Adapters of a run (current, old, EMA) and the sharded optimizer that moves them.
 * ctest-ranks: 1 2 4   ctest-backends: fake cuda */
#include "mmdit_case.h"
#include "ranks.h"

#include "base/rng.h"
#include "rl/optimizer.h"
#include "rl/policy.h"

#include <jansson.h>

enum { N = 1003, STEPS = 5 };

static double random_normal(uint32_t stream, size_t i) {
    mbl_rng_t rng = mbl_rng(17, MBL_RNG_STUDY, stream, i);
    float pair[2];
    mbl_rng_normal2(&rng, pair);
    return (double)pair[0];
}

/* A communicator and a backend that know each other. */
static void open_alone(mbl_comm_t **self, mbl_ops_t **ops) {
    assert_ok(mbl_ops_open(test_backend(), 1, ops));
    assert_ok(mbl_comm_open("self", 0, self));
    assert_ok(mbl_comm_attach(*self, *ops));
}

static void close_alone(mbl_comm_t *self, mbl_ops_t *ops) {
    mbl_comm_close(self);
    mbl_ops_close(ops);
}

/* ---- AdamW ---- */

/* STEPS of AdamW over the ranks of comm; out [N] the weights at the end. */
static void train(mbl_comm_t *comm, mbl_ops_t *ops, float *out) {
    static const mbl_optimizer_options_t options = {0.01, 0.9, 0.999, 1e-8, 0.02, 1.0};
    size_t count = mbl_shard_count(N, comm->size), padded = count * (size_t)comm->size;
    mbl_tensor_t weights, gradient;
    mbl_optimizer_t optimizer;
    assert_ok(mbl_tensor_new(ops, MBL_F32, &weights, 1, padded));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &gradient, 1, count));
    assert_ok(mbl_optimizer_new(ops, &mbl_optimizer_adamw, count, &optimizer));
    float *start = host_of(ops, &weights);
    for (size_t i = 0; i < N; i++)
        start[i] = (float)random_normal(99, i);
    push_host(ops, &weights, start);
    for (uint32_t step = 0; step < STEPS; step++) {
        double norm = 0;
        for (size_t i = 0; i < N; i++)
            norm += pow(random_normal(step, i), 2);
        double *g = host_of(ops, &gradient);
        for (size_t i = 0, first = count * (size_t)comm->rank; i < count; i++)
            g[i] = first + i < N ? random_normal(step, first + i) : 0;
        push_host(ops, &gradient, g);
        assert_ok(mbl_optimizer_step(comm, &optimizer, &options, &gradient, sqrt(norm), &weights));
    }
    assert_int_equal(optimizer.steps, STEPS);
    float *end = host_of(ops, &weights);
    memcpy(out, end, N * sizeof *out);
    for (size_t i = N; i < padded; i++)
        assert_near(end[i], 0, 0); /* padding stays */
    mbl_free(end);
    mbl_optimizer_free(&optimizer);
    mbl_tensor_free(ops, &weights);
    mbl_tensor_free(ops, &gradient);
}

static void shards_equal_the_whole(void **state) {
    mbl_comm_t *comm = *state, *self;
    mbl_ops_t *ops;
    float sharded[N], whole[N];
    open_alone(&self, &ops);
    assert_ok(mbl_comm_attach(comm, ops));
    train(comm, ops, sharded);
    assert_ok(mbl_comm_attach(comm, NULL));
    train(self, ops, whole);
    assert_memory_equal(sharded, whole, sizeof whole);
    assert_true(fabs((double)whole[0] - random_normal(99, 0)) > 1e-3); /* it moved */
    close_alone(self, ops);
}

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static void fill(mbl_ops_t *ops, const mbl_tensor_t *t, const json_t *values) {
    void *host = host_of(ops, t);
    for (size_t i = 0; i < t->dim[0]; i++)
        put_value(host, t->dtype, i, json_number_value(json_array_get(values, i)));
    push_host(ops, t, host);
}

static void check_golden_case(mbl_comm_t *self, mbl_ops_t *ops, const json_t *golden, mbl_dtype_t dtype) {
    size_t n = json_array_size(json_object_get(golden, "start"));
    mbl_optimizer_options_t options = {.lr = number(golden, "lr"),
                                       .beta1 = number(golden, "beta1"),
                                       .beta2 = number(golden, "beta2"),
                                       .eps = number(golden, "eps"),
                                       .weight_decay = number(golden, "weight_decay")};
    mbl_tensor_t weights, gradient;
    mbl_optimizer_t optimizer;
    assert_ok(mbl_tensor_new(ops, MBL_F32, &weights, 1, n));
    assert_ok(mbl_tensor_new(ops, dtype, &gradient, 1, n));
    assert_ok(mbl_optimizer_new(ops, &mbl_optimizer_adamw, n, &optimizer));
    fill(ops, &weights, json_object_get(golden, "start"));
    for (size_t step = 0; step < json_array_size(json_object_get(golden, "weights")); step++) {
        const json_t *want = json_array_get(json_object_get(golden, "weights"), step);
        fill(ops, &gradient, json_array_get(json_object_get(golden, "gradients"), step));
        assert_ok(mbl_optimizer_step(self, &optimizer, &options, &gradient, 1e9, &weights));
        float *got = host_of(ops, &weights);
        for (size_t i = 0; i < n; i++)
            assert_near(got[i], json_number_value(json_array_get(want, i)), 1e-6);
        mbl_free(got);
    }
    mbl_optimizer_free(&optimizer);
    mbl_tensor_free(ops, &weights);
    mbl_tensor_free(ops, &gradient);
}

static void adamw_agrees_with_pytorch(void **state) {
    json_t *golden = json_load_file(MBL_SOURCE_DIR "/tests/golden/adamw.json", 0, NULL), *cases;
    mbl_comm_t *self;
    mbl_ops_t *ops;
    (void)state;
    assert_non_null(golden);
    open_alone(&self, &ops);
    cases = json_object_get(golden, "cases");
    assert_int_equal(json_array_size(cases), 2);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_golden_case(self, ops, json_array_get(cases, i), MBL_F32);
        check_golden_case(self, ops, json_array_get(cases, i), MBL_F64);
    }
    json_decref(golden);
    close_alone(self, ops);
}

/* One step with a gradient g, all of it `value`. */
static double step_of(mbl_comm_t *self, mbl_ops_t *ops, double value, double norm, double clip) {
    const mbl_optimizer_options_t options = {0.1, 0.9, 0.999, 1, 0, clip}; /* eps 1: the length matters */
    mbl_tensor_t weights, gradient;
    mbl_optimizer_t optimizer;
    assert_ok(mbl_tensor_new(ops, MBL_F32, &weights, 1, (size_t)16));
    assert_ok(mbl_tensor_new(ops, MBL_F64, &gradient, 1, (size_t)16));
    assert_ok(mbl_optimizer_new(ops, &mbl_optimizer_adamw, 16, &optimizer));
    double *g = host_of(ops, &gradient);
    for (size_t i = 0; i < 16; i++)
        g[i] = value;
    push_host(ops, &gradient, g);
    assert_ok(mbl_optimizer_step(self, &optimizer, &options, &gradient, norm, &weights));
    float *got = host_of(ops, &weights);
    double moved = -(double)got[3];
    mbl_free(got);
    mbl_optimizer_free(&optimizer);
    mbl_tensor_free(ops, &weights);
    mbl_tensor_free(ops, &gradient);
    return moved;
}

static void gradient_is_clipped_by_norm(void **state) {
    mbl_comm_t *self;
    mbl_ops_t *ops;
    (void)state;
    open_alone(&self, &ops);
    assert_near(step_of(self, ops, 2, 8, 1), 0.1 * 0.25 / 1.25, 1e-8);    /* 2 / 8 */
    assert_near(step_of(self, ops, 0.25, 1, 1), 0.1 * 0.25 / 1.25, 1e-8); /* just short enough */
    assert_near(step_of(self, ops, 2, 8, 0), 0.1 * 2 / 3, 1e-8);          /* no clipping */
    assert_near(step_of(self, ops, 2, 8, 100), 0.1 * 2 / 3, 1e-8);
    close_alone(self, ops);
}

/* ---- adapters ---- */

typedef struct {
    mbl_ops_t *ops;
    mbl_dit_t *model;
    mbl_lora_t *lora;
    size_t size, padded;
} model_t;

static int open_model(void **state) {
    static model_t m;
    mbl_lora_config_t config = {.rank = 2, .alpha = 4};
    assert_ok(mbl_ops_open(test_backend(), 1, &m.ops));
    m.model = case_model(m.ops, MBL_F32, &mmdit_cases[1]);
    assert_ok(mbl_lora_new(m.model, &config, &m.lora));
    m.size = mbl_lora_size(m.lora);
    m.padded = m.size + 21;
    *state = &m;
    return 0;
}

static int close_model(void **state) {
    model_t *m = *state;
    mbl_lora_free(m->lora);
    mbl_dit_close(m->model);
    mbl_ops_close(m->ops);
    return 0;
}

static mbl_policy_t new_policy(const model_t *m) {
    mbl_policy_t policy;
    assert_ok(mbl_policy_new(m->ops, m->model, m->lora, m->padded, 3, &policy));
    return policy;
}

/* Moves current away as a step would. */
static void move(const model_t *m, mbl_policy_t *policy, uint32_t stream) {
    float *values = host_of(m->ops, &policy->current);
    for (size_t i = 0; i < m->size; i++)
        values[i] += (float)random_normal(stream, i);
    push_host(m->ops, &policy->current, values);
    assert_ok(mbl_policy_stepped(policy));
}

/* The first n numbers of a vector, to the bit. */
static void check_first(const model_t *m, const mbl_tensor_t *vector, const float *want, size_t n) {
    float *got = host_of(m->ops, vector);
    assert_memory_equal(got, want, n * sizeof *want);
    mbl_free(got);
}

static void take_first(const model_t *m, const mbl_tensor_t *vector, float *out, size_t n) {
    float *values = host_of(m->ops, vector);
    memcpy(out, values, n * sizeof *out);
    mbl_free(values);
}

/* The computing copy holds the values of the vector. */
static void check_copy(const model_t *m, const mbl_adapter_t *adapter, const mbl_tensor_t *values) {
    float *want = host_of(m->ops, values);
    check_first(m, &adapter->weights, want, m->size);
    mbl_free(want);
}

static void fresh_adapters_are_equal(void **state) {
    const model_t *m = *state;
    mbl_policy_t policy = new_policy(m);
    float *want = mbl_calloc(m->padded, sizeof *want);
    double deviation = 1;
    mbl_lora_init(m->lora, 3, want);
    check_first(m, &policy.current, want, m->padded); /* zero beyond the adapter */
    check_first(m, &policy.old, want, m->padded);
    check_first(m, &policy.ema, want, m->padded);
    check_copy(m, &policy.in_current, &policy.current);
    check_copy(m, &policy.in_old, &policy.current);
    check_copy(m, &policy.in_ema, &policy.current);
    assert_true(policy.old_is_current);
    assert_ok(mbl_policy_deviation(&policy, &deviation));
    assert_near(deviation, 0, 0);
    mbl_free(want);
    mbl_policy_free(&policy);
}

static void ema_follows_its_schedule(void **state) {
    const model_t *m = *state;
    mbl_policy_t policy = new_policy(m);
    static const struct {
        uint64_t step;
        double decay;
    } schedule[] = {{1, 2.0 / 11}, {2, 0.25}, {3, 4.0 / 13}, {44, 45.0 / 54}, {81, 0.9}, {2000, 0.9}};
    double want[3];
    float ema[3], current[3];
    take_first(m, &policy.ema, ema, 3);
    for (size_t i = 0; i < 3; i++)
        want[i] = ema[i];
    for (size_t s = 0; s < sizeof schedule / sizeof *schedule; s++) {
        double decay = schedule[s].decay;
        move(m, &policy, (uint32_t)s);
        assert_ok(mbl_policy_average(&policy, schedule[s].step, 0.9));
        take_first(m, &policy.ema, ema, 3);
        take_first(m, &policy.current, current, 3);
        for (size_t i = 0; i < 3; i++) {
            want[i] = decay * want[i] + (1 - decay) * (double)current[i];
            assert_near(ema[i], want[i], 1e-6);
        }
        check_copy(m, &policy.in_ema, &policy.ema);
    }
    mbl_policy_free(&policy);
}

/* Types 0, 1 and 2 of DiffusionNFT. */
static void hold_schedule(void **state) {
    (void)state;
    for (uint64_t step = 0; step < 5000; step += 499)
        assert_near(mbl_policy_hold(step, 0, 0, 0), 0, 0);
    assert_near(mbl_policy_hold(0, 0, 0.001, 0.5), 0, 0);
    assert_near(mbl_policy_hold(100, 0, 0.001, 0.5), 0.1, 1e-15);
    assert_near(mbl_policy_hold(500, 0, 0.001, 0.5), 0.5, 1e-15);
    assert_near(mbl_policy_hold(2000, 0, 0.001, 0.5), 0.5, 0);
    assert_near(mbl_policy_hold(10, 75, 0.0075, 0.999), 0, 0);
    assert_near(mbl_policy_hold(75, 75, 0.0075, 0.999), 0, 0);
    assert_near(mbl_policy_hold(100, 75, 0.0075, 0.999), 0.1875, 1e-15);
    assert_near(mbl_policy_hold(1000, 75, 0.0075, 0.999), 0.999, 0);
}

static void old_follows_current(void **state) {
    const model_t *m = *state;
    mbl_policy_t policy = new_policy(m);
    float before[5], current[5], after[5];
    take_first(m, &policy.old, before, 5);
    move(m, &policy, 1);
    take_first(m, &policy.current, current, 5);
    assert_false(policy.old_is_current);
    check_copy(m, &policy.in_current, &policy.current);
    check_first(m, &policy.old, before, 5);
    assert_ok(mbl_policy_follow(&policy, 0.75));
    take_first(m, &policy.old, after, 5);
    for (size_t i = 0; i < 5; i++)
        assert_near(after[i], 0.75 * (double)before[i] + 0.25 * (double)current[i], 1e-6);
    check_first(m, &policy.current, current, 5);
    assert_false(policy.old_is_current);
    check_copy(m, &policy.in_old, &policy.old);
    assert_ok(mbl_policy_follow(&policy, 0));
    assert_true(policy.old_is_current);
    float *whole = host_of(m->ops, &policy.current);
    check_first(m, &policy.old, whole, m->padded);
    mbl_free(whole);
    check_copy(m, &policy.in_old, &policy.current);
    move(m, &policy, 2);
    assert_false(policy.old_is_current);
    assert_ok(mbl_policy_loaded(&policy, true)); /* the caller knows */
    assert_true(policy.old_is_current);
    mbl_policy_free(&policy);
}

static void deviation_is_relative(void **state) {
    const model_t *m = *state;
    mbl_policy_t policy = new_policy(m);
    double deviation, squares[2] = {0};
    move(m, &policy, 1);
    float *current = host_of(m->ops, &policy.current), *old = host_of(m->ops, &policy.old);
    for (size_t i = 0; i < m->size; i++) {
        double now = current[i], was = old[i];
        squares[0] += (now - was) * (now - was);
        squares[1] += now * now;
    }
    old[m->size] = 1000; /* beyond the adapter: does not count */
    push_host(m->ops, &policy.old, old);
    mbl_free(current);
    assert_ok(mbl_policy_deviation(&policy, &deviation)); /* scratch memory is made once */
    const uint64_t waits = m->ops->waits;
    assert_ok(mbl_policy_deviation(&policy, &deviation));
    assert_near(deviation, sqrt(squares[0] / squares[1]), 1e-12);
    assert_int_equal(m->ops->waits - waits,
                     m->ops->table->space == MBL_DEVICE); /* two numbers, not two adapters */
    assert_ok(mbl_tensor_zero(m->ops, &policy.current));
    assert_ok(mbl_tensor_zero(m->ops, &policy.old));
    assert_ok(mbl_policy_deviation(&policy, &deviation));
    assert_near(deviation, 0, 0);
    mbl_policy_free(&policy);
}

static void survives_without_memory(void **state) {
    const model_t *m = *state;
    mbl_policy_t policy = {0};
    mbl_optimizer_t optimizer = {0};
    size_t live = mbl_mem_live(), n = 0;
    mbl_status_t status = MBL_ERR_MEM;
    mbl_fail_quiet(1);
    while (status != MBL_OK && n < 100) {
        mbl_mem_fail_at(++n);
        status = mbl_policy_new(m->ops, m->model, m->lora, m->padded, 3, &policy);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        if (status != MBL_OK)
            assert_int_equal(mbl_mem_live(), live);
    }
    bool gpu = strcmp(test_backend(), "cuda") == 0; /* its memory is not counted here */
    assert_in_range(n, gpu ? 2 : 10, 99);
    mbl_policy_free(&policy);
    for (size_t i = 1; i <= 2 && !gpu; i++) {
        mbl_mem_fail_at(i);
        assert_int_equal(mbl_optimizer_new(m->ops, &mbl_optimizer_adamw, 32, &optimizer), MBL_ERR_MEM);
        mbl_mem_fail_at(0);
    }
    mbl_fail_quiet(0);
    assert_int_equal(mbl_mem_live(), live);
    assert_int_equal(mbl_policy_new(m->ops, m->model, m->lora, m->size - 1, 3, &policy), MBL_ERR_ARG);
}

int main(void) {
    need_backend();
    mbl_comm_t *comm = open_ranks();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(shards_equal_the_whole, comm),
        cmocka_unit_test(adamw_agrees_with_pytorch),
        cmocka_unit_test(gradient_is_clipped_by_norm),
        cmocka_unit_test(hold_schedule),
        cmocka_unit_test_setup_teardown(fresh_adapters_are_equal, open_model, close_model),
        cmocka_unit_test_setup_teardown(ema_follows_its_schedule, open_model, close_model),
        cmocka_unit_test_setup_teardown(old_follows_current, open_model, close_model),
        cmocka_unit_test_setup_teardown(deviation_is_relative, open_model, close_model),
        cmocka_unit_test_setup_teardown(survives_without_memory, open_model, close_model),
    };
    if (!comm)
        return 1;
    int failed = cmocka_run_group_tests_name("policy", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
