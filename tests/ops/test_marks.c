/* Marks in a device's queue, and what a profile counts between them.
 * ctest-backends: fake cuda */
#include "ops_harness.h"

#include "base/log.h"

enum { MANY = 2 * MBL_OPS_PROFILED + 88, COUNT = 64 };

static mbl_ops_t *open_ops(void) {
    mbl_ops_t *ops = NULL;
    need_backend();
    OK(mbl_ops_open(test_backend(), 1, &ops));
    return ops;
}

/* Time does not run backwards, and the whole is not less than its parts. */
static void marks_are_in_order(void **state) {
    mbl_ops_t *ops = open_ops();
    mbl_tensor_t x;
    double first, second, both;
    (void)state;
    OK(mbl_tensor_new(ops, MBL_F32, &x, 1, (size_t)COUNT));
    OK(mbl_tensor_zero(ops, &x));
    for (size_t i = 0; i < 3; i++) {
        OK(mbl_ops_mark(ops, i));
        for (int j = 0; j < 20; j++)
            OK(MBL_OP(ops, axpby, .y = &x, .x = &x, .a = 1, .b = 1));
    }
    OK(mbl_ops_between(ops, 0, 1, &first));
    OK(mbl_ops_between(ops, 1, 2, &second));
    OK(mbl_ops_between(ops, 0, 2, &both));
    assert_true(first > 0 && second > 0 && first < 60 && second < 60);
    assert_true(fabs(first + second - both) < 1e-5 + 1e-3 * both); /* a GPU's clock: half a microsecond */
    mbl_tensor_free(ops, &x);
    mbl_ops_close(ops);
}

static void a_mark_too_far_is_refused(void **state) {
    mbl_ops_t *ops = open_ops();
    double seconds = -1;
    (void)state;
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(mbl_ops_mark(ops, MBL_OPS_ALL_MARKS), MBL_ERR_ARG);
    assert_int_equal(mbl_ops_between(ops, 0, MBL_OPS_ALL_MARKS, &seconds), MBL_ERR_ARG);
    assert_true(seconds == -1);
    mbl_ops_close(ops);
}

/* More calls than there are marks, none of them lost; calls without a profile take no time. */
static void a_profile_counts_every_call(void **state) {
    mbl_ops_t *ops = open_ops();
    mbl_tensor_t x;
    (void)state;
    OK(mbl_tensor_new(ops, MBL_F32, &x, 1, (size_t)COUNT));
    OK(mbl_tensor_zero(ops, &x));
    OK(MBL_OP(ops, axpby, .y = &x, .x = &x, .a = 1, .b = 1));
    assert_true(ops->stats[MBL_OP_axpby].seconds == 0);
    ops->profile = true;
    for (int i = 0; i < MANY; i++)
        OK(MBL_OP(ops, axpby, .y = &x, .x = &x, .a = 1, .b = 1));
    ops->profile = false;
    OK(MBL_OP(ops, axpby, .y = &x, .x = &x, .a = 1, .b = 1));
    const double before = ops->stats[MBL_OP_axpby].seconds;
    assert_int_equal(ops->n_profiled, MANY % MBL_OPS_PROFILED);
    OK(mbl_ops_profiled(ops));
    assert_int_equal(ops->n_profiled, 0);
    assert_int_equal(ops->stats[MBL_OP_axpby].calls, MANY + 2);
    assert_true(before > 0 && ops->stats[MBL_OP_axpby].seconds > before);
    mbl_tensor_free(ops, &x);
    mbl_ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(marks_are_in_order),
                                       cmocka_unit_test(a_mark_too_far_is_refused),
                                       cmocka_unit_test(a_profile_counts_every_call)};
    return cmocka_run_group_tests_name("marks", tests, NULL, NULL);
}
