/* The check backend finds planted bugs: an output element left alone, an input written to, a read of what was
 * never written; and leaves correct calls and their results alone. */
#include "ops_harness.h"
#include "ops/check.h"
#include "ops/list.h"

#include <math.h>

enum { N = 3, T = 4, D = 17 };

static mbl_status_t act_forgets_last(mbl_ops_t *ops, const mbl_act_args_t *args) {
    size_t last = mbl_tensor_count(args->y) - 1;
    float kept = ((float *)args->y->data)[last];
    MBL_TRY(mbl_ops_cpu.act(ops, args));
    ((float *)args->y->data)[last] = kept;
    return MBL_OK;
}

static mbl_status_t gate_writes_h(mbl_ops_t *ops, const mbl_gate_args_t *args) {
    MBL_TRY(mbl_ops_cpu.gate(ops, args));
    ((float *)args->h->data)[5] += 1;
    return MBL_OK;
}

/* Writes rows as if they were dense: with strided rows some elements are missed. */
static mbl_status_t convert_ignores_strides(mbl_ops_t *ops, const mbl_convert_args_t *args) {
    mbl_tensor_t dst = *args->dst;
    dst.stride[0] = dst.dim[1];
    return mbl_ops_cpu.convert(ops, &(mbl_convert_args_t){.dst = &dst, .src = args->src});
}

static void expect_failure(mbl_status_t status, const char *op, const char *operand) {
    assert_int_equal(status, MBL_ERR_INTERNAL);
    assert_non_null(strstr(mbl_fail_message(), op));
    assert_non_null(strstr(mbl_fail_message(), operand));
}

static run_t open_with(const mbl_ops_table_t *table) {
    run_t r = {.ct = MBL_F32, .only = -1};
    OK(mbl_check_open(table, 1, &r.ops));
    return r;
}

static void shut(run_t *r) {
    release(r);
    mbl_ops_close(r->ops);
}

static void unwritten_output(void **state) {
    (void)state;
    mbl_ops_table_t table = mbl_ops_cpu;
    table.act = act_forgets_last;
    run_t r = open_with(&table);
    mbl_act_args_t a = {.act = MBL_ACT_SILU};
    a.y = operand2(&r, OUT, COMPUTE, N, D);
    a.x = operand2(&r, IN, COMPUTE, N, D);
    expect_failure(mbl_op_act(r.ops, &a), "act", "50 of 51 of y");
    shut(&r);
}

static void unwritten_strided_output(void **state) {
    (void)state;
    mbl_ops_table_t table = mbl_ops_cpu;
    table.convert = convert_ignores_strides;
    run_t r = open_with(&table);
    r.strided = true;
    mbl_convert_args_t a = {.dst = operand2(&r, OUT | ROWS, GRAD64, N, D),
                            .src = operand2(&r, IN, COMPUTE, N, D)};
    expect_failure(mbl_op_convert(r.ops, &a), "convert", "dst");
    shut(&r);
}

static void written_input(void **state) {
    (void)state;
    mbl_ops_table_t table = mbl_ops_cpu;
    table.gate = gate_writes_h;
    run_t r = open_with(&table);
    mbl_gate_args_t a = {0};
    a.y = operand3(&r, OUT, COMPUTE, N, T, D);
    a.x = operand3(&r, IN, COMPUTE, N, T, D);
    a.gate = operand2(&r, IN, COMPUTE, N, D);
    a.h = operand3(&r, IN, COMPUTE, N, T, D);
    expect_failure(mbl_op_gate(r.ops, &a), "gate", "input h");
    shut(&r);
}

/* For each type, read as an input and as an operand that is added to; what is written whole may be poisoned.
 */
static void stale_read(void **state) {
    (void)state;
    const mbl_dtype_t types[3] = {MBL_F32, MBL_BF16, MBL_F64};
    for (int i = 0; i < 3; i++) {
        run_t r = open_with(&mbl_ops_cpu);
        r.ct = types[i];
        const mbl_tensor_t *x = operand2(&r, IN, COMPUTE, N, D), *y = operand2(&r, ADD, COMPUTE, N, D);
        mbl_tensor_t part = mbl_tensor_rows(x, 1, 1);
        mbl_check_poison(&part);
        expect_failure(mbl_op_axpby(r.ops, &(mbl_axpby_args_t){y, x, 1, 1}), "axpby",
                       "reads x, whose element 17");
        OK(mbl_op_axpby(r.ops, &(mbl_axpby_args_t){x, y, 2, 0})); /* x is written, and whole again */
        OK(mbl_op_axpby(r.ops, &(mbl_axpby_args_t){y, x, 1, 1}));
        mbl_check_poison(y);
        expect_failure(mbl_op_axpby(r.ops, &(mbl_axpby_args_t){y, x, 1, 1}), "axpby",
                       "reads y, whose element 0");
        shut(&r);
    }
}

/* NaN of other patterns is a result like any other; y may be x; a part of q may stay as it was. */
static void correct_calls_pass(void **state) {
    (void)state;
    run_t r = {.ct = MBL_F32, .only = -1};
    OK(mbl_ops_open("check", 2, &r.ops));
    const mbl_tensor_t *x = operand2(&r, ADD, COMPUTE, N, D);
    ((float *)x->data)[3] = NAN;
    OK(mbl_op_act(r.ops, &(mbl_act_args_t){x, x, MBL_ACT_SILU}));
    assert_true(isnan(((float *)x->data)[3]));
    float before = ((float *)x->data)[0];
    OK(mbl_op_axpby(r.ops, &(mbl_axpby_args_t){x, x, 1, 1}));
    assert_true(((float *)x->data)[0] == 2 * before);
    mbl_qk_norm_args_t q = {.first = 1};
    q.q = operand4(&r, ADD, COMPUTE, N, 1, T, D);
    q.k = operand4(&r, ADD, COMPUTE, N, 1, T, D);
    q.qkv = operand3(&r, IN, COMPUTE, N, 2, 3 * D);
    float kept = ((float *)q.k->data)[0];
    OK(mbl_op_qk_norm(r.ops, &q));
    assert_true(((float *)q.k->data)[0] == kept);
    assert_true(((float *)q.k->data)[D] == ((float *)q.qkv->data)[D]);
    shut(&r);
}

static void optional_slots_and_spaces(void **state) {
    (void)state;
    mbl_ops_table_t table = mbl_ops_cpu;
    table.gate_norm = NULL;
    run_t r = open_with(&table);
    assert_null(r.ops->table->gate_norm);
    shut(&r);
    table.space = MBL_DEVICE;
    mbl_ops_t *ops = NULL;
    assert_int_equal(mbl_check_open(&table, 1, &ops), MBL_ERR_UNSUPPORTED);
    assert_null(ops);
}

static bool says_yes(mbl_ops_t *ops) {
    (void)ops;
    return true;
}

static bool says_no(mbl_ops_t *ops) {
    (void)ops;
    return false;
}

/* Whether bf16 is native is the inner backend's answer, and no where it has none. */
static void bf16_is_the_inner_ones(void **state) {
    bool (*const slots[])(mbl_ops_t *) = {NULL, says_no, says_yes};
    (void)state;
    for (int i = 0; i < 3; i++) {
        mbl_ops_table_t table = mbl_ops_cpu;
        mbl_ops_t *ops;
        table.bf16_is_native = slots[i];
        OK(mbl_check_open(&table, 1, &ops));
        assert_int_equal(mbl_ops_bf16_is_native(ops), i == 2);
        mbl_ops_close(ops);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unwritten_output),      cmocka_unit_test(unwritten_strided_output),
        cmocka_unit_test(written_input),         cmocka_unit_test(stale_read),
        cmocka_unit_test(correct_calls_pass),    cmocka_unit_test(optional_slots_and_spaces),
        cmocka_unit_test(bf16_is_the_inner_ones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
