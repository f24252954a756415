/* An optimizer step: its parts called one by one are the whole, a stop before the weights move changes
 * nothing, a step without a direction moves nothing, and the released method trains on rows of its own. */
#include "gradient_case.h"

#include "comm/comm.h"
#include "rl/update.h"

typedef struct {
    case_t c;
    mbl_comm_t *comm;
    mbl_update_t update;
    mbl_reward_stats_t stats[MBL_MAX_REWARDS];
} fixture_t;

static void open_fixture(fixture_t *w, size_t parts, bool reference) {
    open_case(&w->c, MBL_F32);
    assert_ok(mbl_comm_open("self", 0, &w->comm));
    memset(&w->update, 0, sizeof w->update);
    assert_ok(mbl_update_new(w->comm, w->c.tiny.ops, w->c.tiny.model, w->c.tiny.lora, 3, &w->update));
    tiny_set_adapter(&w->c.tiny, &w->update.policy.in_old, 2, 0.2); /* as if it lagged behind */
    w->update.policy.old_is_current = false;
    mbl_update_room_t room = {.parts = parts,
                              .micro_batch = 5,
                              .rows = w->c.args.timesteps * N,
                              .reference = reference ? &w->c.batch : NULL};
    assert_ok(mbl_update_prepare(&w->update, w->c.tiny.pipeline, &room));
    for (size_t i = 0; i < N; i++)
        w->c.sample[i] = (int64_t)i;
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++)
        w->stats[k] = (mbl_reward_stats_t){.valid = N, .advantage_std = 1};
}

static void close_fixture(fixture_t *w) {
    mbl_update_free(&w->update);
    mbl_comm_close(w->comm);
    close_case(&w->c);
}

static mbl_update_options_t options_of(const fixture_t *w, mbl_method_t method) {
    mbl_update_options_t options = {.gradient = w->c.args,
                                    .balance = {.method = method, .rho = 0.7},
                                    .stats = w->stats,
                                    .step = 1,
                                    .refresh_every = 1,
                                    .gram_fraction = 1,
                                    .optimizer = {1e-2, 0.9, 0.999, 1e-8, 1e-4, 1},
                                    .ema = 0.9};
    options.gradient.parts = K + mbl_method_has_objective(method);
    return options;
}

/* Weights, moments and EMA. */
static float *values_of(const fixture_t *w) {
    const mbl_update_t *u = &w->update;
    const mbl_tensor_t *all[] = {&u->policy.current, &u->policy.ema, &u->optimizer.state[0],
                                 &u->optimizer.state[1]};
    float *out = mbl_calloc(4 * u->padded, sizeof *out);
    for (size_t i = 0; i < 4; i++)
        assert_ok(mbl_tensor_download(u->ops, all[i], out + i * u->padded));
    return out;
}

static void parts_are_the_step(void **state) {
    fixture_t whole, parts;
    mbl_update_result_t a, b;
    mbl_update_step_t step;
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    (void)state;
    open_fixture(&whole, R, false);
    open_fixture(&parts, R, false);
    mbl_update_options_t options = options_of(&whole, MBL_METHOD_MARBLE);
    assert_ok(mbl_update_step(&whole.update, &options, &a));
    options = options_of(&parts, MBL_METHOD_MARBLE);
    options.diagnose = true; /* a step that solves on all rows has its cosines for nothing */
    mbl_update_begin(&parts.update, &options, &b, &step);
    step.refresh = true;
    assert_ok(mbl_update_form(&parts.update, &step, gram));
    assert_ok(mbl_update_solve(&parts.update, &step, gram, NULL));
    assert_ok(mbl_update_combine(&parts.update, &step));
    assert_ok(mbl_update_apply(&parts.update, &step));
    float *x = values_of(&whole), *y = values_of(&parts);
    assert_memory_equal(x, y, 4 * whole.update.padded * sizeof *x);
    assert_memory_equal(&whole.update.balance, &parts.update.balance, sizeof whole.update.balance);
    assert_memory_equal(&whole.update.cache.norm, &parts.update.cache.norm, sizeof whole.update.cache.norm);
    assert_memory_equal(a.cos_step, b.cos_step, sizeof a.cos_step);
    assert_true(a.cosines && a.refreshed && a.balanced && a.finite && a.norm > 0 && a.loss > 0 && a.kl > 0);
    assert_near(a.norm, b.norm, 0);
    assert_near(a.loss, b.loss, 0);
    assert_int_equal(whole.update.optimizer.steps, 1);
    assert_int_equal(whole.update.cache.age, 1);
    assert_near(a.balance.alpha[UNSCORED], 0, 0);
    double most = 0;
    for (size_t k = 0; k < K; k++)
        most = fmax(most, fabs(a.cos_step[k]));
    assert_true(most > 0.1 && most <= 1);
    mbl_free(x);
    mbl_free(y);
    close_fixture(&whole);
    close_fixture(&parts);
}

/* Every kind of step: the update is as it was, and the next step goes as if nothing had been asked. */
static void a_stop_changes_nothing(void **state) {
    static const mbl_method_t methods[] = {MBL_METHOD_MARBLE, MBL_METHOD_WEIGHTED_SUM, MBL_METHOD_REFERENCE};
    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        fixture_t w;
        int stop = 1;
        mbl_update_result_t result;
        open_fixture(&w, R, methods[i] == MBL_METHOD_REFERENCE);
        mbl_update_options_t options = options_of(&w, methods[i]);
        if (methods[i] == MBL_METHOD_REFERENCE) {
            options.gradient.parts = R;
            for (size_t j = 0; j < K * N; j++)
                w.update.reference.unclipped[j] = 2 * 6 * w.c.a[j];
        }
        options.gradient.stop = &stop;
        w.update.balance.alpha_mean[0] = 0.25;
        mbl_balance_state_t balance = w.update.balance;
        float *x = values_of(&w);
        assert_int_equal(mbl_update_step(&w.update, &options, &result), MBL_ERR_STOPPED);
        float *y = values_of(&w);
        assert_memory_equal(x, y, 4 * w.update.padded * sizeof *x);
        assert_memory_equal(&balance, &w.update.balance, sizeof balance);
        assert_int_equal(w.update.cache.age, 0);
        assert_int_equal(w.update.optimizer.steps, 0);
        stop = 0;
        assert_ok(mbl_update_step(&w.update, &options, &result));
        assert_true(result.norm > 0);
        assert_int_equal(w.update.optimizer.steps, 1);
        mbl_free(x);
        mbl_free(y);
        close_fixture(&w);
    }
}

/* Without advantages no reward has a gradient of its own: nothing moves, and the next step solves again. */
static void without_a_direction(void **state) {
    fixture_t w;
    mbl_update_result_t result;
    (void)state;
    open_fixture(&w, R, false);
    memset(w.c.a, 0, sizeof w.c.a);
    mbl_update_options_t options = options_of(&w, MBL_METHOD_MARBLE);
    float *x = values_of(&w);
    assert_ok(mbl_update_step(&w.update, &options, &result));
    float *y = values_of(&w);
    assert_memory_equal(x, y, w.update.padded * sizeof *x);
    assert_near(result.norm, 0, 0);
    assert_int_equal(result.balance.n_used, 0);
    assert_int_equal(w.update.optimizer.steps, 0);
    assert_int_equal(w.update.cache.age, 0);
    mbl_free(x);
    mbl_free(y);
    close_fixture(&w);
}

/* A number that is none among the factors of one reward, with every method that takes a path of its own: the
 * step is left out, averages, cache, moments and EMA as they were; the next one is as if it had not been. */
static void what_is_not_finite_is_left_out(void **state) {
    static const mbl_method_t methods[] = {MBL_METHOD_MARBLE, MBL_METHOD_WEIGHTED_SUM, MBL_METHOD_REFERENCE};
    (void)state;
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        fixture_t w;
        mbl_update_result_t first, result;
        open_fixture(&w, R, methods[m] == MBL_METHOD_REFERENCE);
        mbl_update_options_t options = options_of(&w, methods[m]);
        assert_ok(mbl_update_step(&w.update, &options, &first));
        assert_true(first.finite && first.norm > 0);
        options.step = 2;
        float *x = values_of(&w);
        mbl_balance_state_t balance = w.update.balance;
        mbl_amortise_t cache = w.update.cache;
        for (size_t k = 0; k < R; k++)
            w.c.a[k * N + 1] = NAN;
        if (methods[m] == MBL_METHOD_REFERENCE)
            w.update.reference.unclipped[1] = NAN;
        assert_ok(mbl_update_step(&w.update, &options, &result));
        assert_false(result.finite);
        assert_true(isnan(result.norm) && isnan(result.balance.alpha[0]));
        assert_int_equal(result.balance.n_used, 0);
        float *y = values_of(&w);
        assert_memory_equal(x, y, 4 * w.update.padded * sizeof *x);
        assert_memory_equal(&balance, &w.update.balance, sizeof balance);
        assert_memory_equal(&cache, &w.update.cache, sizeof cache);
        assert_int_equal(w.update.optimizer.steps, 1);
        mbl_free(x);
        mbl_free(y);
        close_fixture(&w);
    }
}

/* Which rows the released method trains on: all of the batch, each with its own latent, prompt and factors,
 * in another order, which the caller's batch does not take. */
static void rows_are_mixed_apart(void **state) {
    fixture_t w;
    mbl_batch_t before;
    (void)state;
    open_fixture(&w, R, true);
    mbl_reference_t *r = &w.update.reference;
    before = w.c.batch;
    for (size_t j = 0; j < K * N; j++)
        r->unclipped[j] = (float)j;
    size_t size = r->elements, seen = 0, moved = 0;
    float *x0 = mbl_calloc(2 * N * size, sizeof *x0), *mixed = x0 + N * size;
    assert_ok(mbl_reference_mix(r, w.c.tiny.ops, &w.c.batch, w.c.a, 9, 4, 5));
    assert_ok(mbl_tensor_download(w.c.tiny.ops, &w.c.batch.x0, x0));
    assert_ok(mbl_tensor_download(w.c.tiny.ops, &r->batch.x0, mixed));
    assert_memory_equal(&before, &w.c.batch, sizeof before);
    assert_int_equal(r->n_micro, 3);
    for (size_t i = 0; i < N; i++) {
        size_t from = (size_t)r->batch.sample[i];
        assert_true(from < N);
        assert_int_equal(w.c.sample[from], from);
        seen |= (size_t)1 << from;
        moved += from != i;
        assert_int_equal(r->batch.prompt[i], w.c.prompt[from]);
        assert_int_equal(r->micro[i], i / 5);
        assert_memory_equal(mixed + i * size, x0 + from * size, size * sizeof *x0);
        for (size_t k = 0; k < K; k++) {
            assert_near(r->a[k * N + i], w.c.a[k * N + from], 0);
            assert_near(r->raw[k * N + i], (double)(k * N + from), 0);
        }
    }
    assert_int_equal(seen, ((size_t)1 << N) - 1);
    assert_true(moved > N / 2);
    mbl_free(x0);
    close_fixture(&w);
}

static mbl_status_t open_with(fixture_t *w, mbl_update_t *out) {
    mbl_update_room_t room = {
        .parts = R, .micro_batch = 5, .rows = 4 * N, .halves = true, .reference = &w->c.batch};
    MBL_TRY(mbl_update_new(w->comm, w->c.tiny.ops, w->c.tiny.model, w->c.tiny.lora, 3, out));
    return mbl_update_prepare(out, w->c.tiny.pipeline, &room);
}

static void any_allocation_may_fail(void **state) {
    fixture_t w;
    (void)state;
    open_fixture(&w, R, false);
    size_t live = mbl_mem_live(), failures = 0;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; failures++) {
        mbl_update_t update = {0};
        mbl_mem_fail_at(failures + 1);
        status = open_with(&w, &update);
        mbl_mem_fail_at(0);
        mbl_update_free(&update);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
    assert_true(failures > 20);
    close_fixture(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_step),      cmocka_unit_test(a_stop_changes_nothing),
        cmocka_unit_test(without_a_direction),     cmocka_unit_test(rows_are_mixed_apart),
        cmocka_unit_test(any_allocation_may_fail), cmocka_unit_test(what_is_not_finite_is_left_out),
    };
    need_backend();
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
