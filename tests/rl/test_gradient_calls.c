/* Calls of the gradient stage: what its noise belongs to, when the sets are final, stopping, bad arguments,
 * no memory.   ctest-backends: fake cuda
 *
 * ctest-wrap: mbl_dit_backward */
#include "gradient_case.h"

/* The noise and the order of timesteps belong to seed and step. */
static void noise_depends_on_the_step(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    double *a = new_rows(&c, R + 1), *b = new_rows(&c, R + 1);
    run(&c, a);
    c.args.step++;
    run(&c, b);
    assert_true(relative_error_f64(b, a, (R + 1) * c.tiny.size) > 0.01);
    c.args.step--;
    c.args.seed++;
    run(&c, b);
    assert_true(relative_error_f64(b, a, (R + 1) * c.tiny.size) > 0.01);
    mbl_free(a);
    mbl_free(b);
    close_case(&c);
}

static void stop_is_obeyed(void **state) {
    case_t c;
    int stop = 1;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats = {.loss = 77};
    (void)state;
    open_case(&c, MBL_F32);
    c.args.stop = &stop;
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, c.tiny.size));
    assert_int_equal(mbl_gradient_run(c.gradient, &c.args, &sets, &stats), MBL_ERR_STOPPED);
    assert_near(stats.loss, 77, 0);
    stop = 0;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &stats));
    assert_int_equal(stats.rows, 4 * N);
    mbl_tensor_free(c.tiny.ops, &sets);
    close_case(&c);
}

/* Where a stop is asked for: at the beginning of backward pass `stop_at`. */
static volatile sig_atomic_t asked_to_stop;
static size_t passes, stop_at;

mbl_status_t __real_mbl_dit_backward(mbl_dit_t *model, const mbl_adapter_t *adapter,
                                     const mbl_dit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *dv,
                                     const mbl_gradient_sink_t *sink);
mbl_status_t __wrap_mbl_dit_backward(mbl_dit_t *model, const mbl_adapter_t *adapter,
                                     const mbl_dit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *dv,
                                     const mbl_gradient_sink_t *sink);
mbl_status_t __wrap_mbl_dit_backward(mbl_dit_t *model, const mbl_adapter_t *adapter,
                                     const mbl_dit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *dv,
                                     const mbl_gradient_sink_t *sink) {
    asked_to_stop |= ++passes == stop_at;
    return __real_mbl_dit_backward(model, adapter, input, tape, dv, sink);
}

/* In the middle of a micro-batch; the next run gives the same numbers as if there had been none. */
static void stop_ends_a_pass(void **state) {
    case_t c;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats = {.loss = 77};
    (void)state;
    open_case(&c, MBL_F32);
    double *want = new_rows(&c, R + 1), *got = new_rows(&c, R + 1);
    stop_at = 0;
    run(&c, want);
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, c.tiny.size));
    c.args.stop = &asked_to_stop;
    for (stop_at = 1; stop_at <= 3; stop_at++) {
        passes = 0;
        asked_to_stop = 0;
        assert_int_equal(mbl_gradient_run(c.gradient, &c.args, &sets, &stats), MBL_ERR_STOPPED);
        assert_int_equal(passes, stop_at);
        assert_near(stats.loss, 77, 0);
    }
    stop_at = 0;
    asked_to_stop = 0;
    run(&c, got);
    assert_memory_equal(got, want, (R + 1) * c.tiny.size * sizeof *got);
    mbl_free(want);
    mbl_free(got);
    mbl_tensor_free(c.tiny.ops, &sets);
    close_case(&c);
}

/* What a listener to `ready` saw: how often, and the sets as they stood then. */
typedef struct {
    mbl_ops_t *ops;
    const mbl_tensor_t *sets;
    double *seen;
    size_t calls, n;
    mbl_status_t answer;
} listener_t;

static mbl_status_t listen(void *context, size_t n) {
    listener_t *l = context;
    l->calls++;
    l->n = n;
    assert_ok(mbl_tensor_download(l->ops, l->sets, l->seen));
    return l->answer;
}

/* The reward sets are final when `ready` is called, once, and the common part is not; also where this rank
 * has no row to run. What `ready` answers ends the run. */
static void ready_comes_before_the_last_pass(void **state) {
    case_t c;
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats;
    uint8_t part_of[4 * N];
    (void)state;
    open_case(&c, MBL_F32);
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, c.tiny.size));
    listener_t l = {
        .ops = c.tiny.ops,
        .sets = &sets,
        .seen = new_rows(&c, R + 1),
    };
    c.args.ready = listen;
    c.args.context = &l;
    memset(part_of, 0, sizeof part_of);
    for (size_t i = 3 * N; i < 4 * N; i++)
        part_of[i] = 1; /* the last timestep is not asked for */
    for (int parts = 0; parts < 2; parts++) {
        c.args.part_of = parts ? part_of : NULL;
        l.calls = 0;
        assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &stats));
        assert_int_equal(l.calls, 1);
        assert_int_equal(l.n, R);
        double *final = host_of(c.tiny.ops, &sets);
        assert_memory_equal(l.seen, final, R * c.tiny.size * sizeof *l.seen);
        assert_true(relative_error_f64(l.seen + R * c.tiny.size, final + R * c.tiny.size, c.tiny.size) >
                    1e-3);
        mbl_free(final);
    }
    l.answer = MBL_ERR_COMM;
    assert_int_equal(mbl_gradient_run(c.gradient, &c.args, &sets, &stats), MBL_ERR_COMM);
    l.answer = MBL_OK;
    memset(part_of, 1, sizeof part_of);
    l.calls = 0;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &stats));
    assert_int_equal(l.calls, 1);
    assert_int_equal(stats.rows, 0);
    mbl_free(l.seen);
    mbl_tensor_free(c.tiny.ops, &sets);
    close_case(&c);
}

static mbl_status_t try(const case_t *c, const mbl_gradient_args_t *args, size_t rows, size_t length) {
    mbl_tensor_t sets;
    mbl_gradient_stats_t stats;
    assert_ok(mbl_tensor_new(c->tiny.ops, MBL_F64, &sets, 2, rows, length));
    mbl_status_t status = mbl_gradient_run(c->gradient, args, &sets, &stats);
    mbl_tensor_free(c->tiny.ops, &sets);
    return status;
}

/* Four micro-batches, and sixteen: the host waits for the losses, once, and not for any of them. */
static void waits_do_not_grow(void **state) {
    case_t c;
    uint64_t waits[2];
    (void)state;
    open_case(&c, MBL_F32);
    double *sets = new_rows(&c, R + 1);
    mbl_ops_t *ops = c.tiny.ops;
    run(&c, sets); /* what is made once */
    for (int i = 0; i < 2; i++) {
        mbl_tensor_t into;
        mbl_gradient_stats_t stats;
        c.args.timesteps = i == 0 ? 1 : 4;
        assert_ok(mbl_tensor_new(ops, MBL_F64, &into, 2, (size_t)R + 1, c.tiny.size));
        const uint64_t before = ops->waits;
        assert_ok(mbl_gradient_run(c.gradient, &c.args, &into, &stats));
        waits[i] = ops->waits - before;
        assert_int_equal(stats.rows, c.args.timesteps * N);
        mbl_tensor_free(ops, &into);
    }
    assert_int_equal(waits[0], ops->table->space == MBL_DEVICE);
    assert_int_equal(waits[1], waits[0]);
    mbl_free(sets);
    close_case(&c);
}

static void bad_arguments(void **state) {
    case_t c;
    double one[R + 1] = {1};
    (void)state;
    open_case(&c, MBL_F32);
    size_t size = c.tiny.size;
    mbl_gradient_args_t bad[6];
    for (size_t i = 0; i < 6; i++)
        bad[i] = c.args;
    bad[0].parts = R + 1;
    bad[1].parts = K - 1;
    bad[2].timesteps = 0;
    bad[3].timesteps = STEPS + 1;
    bad[4].slices = bad[4].slice = 5;
    bad[5].c = one; /* one set, and place for five */
    mbl_fail_quiet(1);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(try(&c, &bad[i], i == 1 ? K : R + 1 + (i == 0), size), MBL_ERR_ARG);
    assert_int_equal(try(&c, &c.args, R, size), MBL_ERR_ARG);
    assert_int_equal(try(&c, &c.args, R + 1, size - 1), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    assert_ok(try(&c, &c.args, R + 1, size));
    close_case(&c);
}

static void survives_without_memory(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    mbl_gradient_t *gradient = NULL;
    size_t live = mbl_mem_live(), n = 0;
    mbl_status_t status = MBL_ERR_MEM;
    mbl_fail_quiet(1);
    while (status != MBL_OK && n < 200) {
        mbl_mem_fail_at(++n);
        status = mbl_gradient_new(c.tiny.pipeline, c.tiny.lora, 3, R, 0, &gradient);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || (status == MBL_ERR_MEM && mbl_mem_live() == live));
    }
    mbl_fail_quiet(0);
    assert_in_range(n, times(20, 8), 199); /* a GPU's own memory does not count */
    assert_true(mbl_gradient_bytes(gradient) > 0);
    mbl_gradient_free(gradient);
    mbl_gradient_free(NULL);
    assert_int_equal(mbl_mem_live(), live);
    close_case(&c);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_depends_on_the_step),
        cmocka_unit_test(ready_comes_before_the_last_pass),
        cmocka_unit_test(stop_is_obeyed),
        cmocka_unit_test(waits_do_not_grow),
        cmocka_unit_test(stop_ends_a_pass),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(survives_without_memory),
    };
    return cmocka_run_group_tests_name("calls of gradient", tests, NULL, NULL);
}
