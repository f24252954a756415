/* Tensors: sizes, views, bf16 rounding; backends by name; what the wrappers refuse; failing allocations. */
#include "base/mem.h"
#include "base/memory_left.h"
#include "ops/ops.h"
#include "support.h"

#include <math.h>
#include <string.h>

static void sizes_and_names(void **state) {
    (void)state;
    static const struct {
        mbl_dtype_t dtype, stat;
        size_t size;
        const char *name;
    } want[] = {{MBL_F32, MBL_F32, 4, "f32"}, {MBL_BF16, MBL_F32, 2, "bf16"}, {MBL_F64, MBL_F64, 8, "f64"},
                {MBL_I32, MBL_F32, 4, "i32"}, {MBL_I64, MBL_F32, 8, "i64"},   {MBL_U8, MBL_F32, 1, "u8"}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_int_equal(mbl_dtype_size(want[i].dtype), want[i].size);
        assert_string_equal(mbl_dtype_name(want[i].dtype), want[i].name);
        assert_int_equal(mbl_dtype_stat(want[i].dtype), want[i].stat);
    }
    char text[MBL_TENSOR_TEXT];
    mbl_tensor_t t = mbl_tensor_of(text, MBL_BF16, MBL_HOST, 3, (size_t)4, (size_t)1, (size_t)17);
    assert_string_equal(mbl_tensor_text(&t, text), "[4,1,17] bf16");
    assert_string_equal(mbl_tensor_text(NULL, text), "NULL");
    t = mbl_tensor_of(text, MBL_F32, MBL_HOST, 4, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX);
    assert_true(strlen(mbl_tensor_text(&t, text)) < MBL_TENSOR_TEXT);
}

static void views_share_data(void **state) {
    (void)state;
    float data[24];
    mbl_tensor_t t = mbl_tensor_of(data, MBL_F32, MBL_HOST, 3, (size_t)2, (size_t)3, (size_t)4);
    assert_int_equal(mbl_tensor_count(&t), 24);
    assert_true(mbl_tensor_contiguous(&t));
    mbl_tensor_t flat = mbl_tensor_reshape(&t, 2, (size_t)6, (size_t)4);
    assert_int_equal(flat.stride[0], 4);
    mbl_tensor_t rows = mbl_tensor_rows(&flat, 2, 3);
    assert_ptr_equal(rows.data, data + 8);
    assert_int_equal(rows.dim[0], 3);
    assert_true(mbl_tensor_contiguous(&rows));
    mbl_tensor_t columns = mbl_tensor_columns(&rows, 1, 2);
    assert_ptr_equal(columns.data, data + 9);
    assert_false(mbl_tensor_contiguous(&columns));
    mbl_tensor_t one = mbl_tensor_rows(&columns, 0, 1);
    assert_true(mbl_tensor_contiguous(&one)); /* a single row has no gaps */
    assert_true(mbl_tensor_same_shape(&flat, &flat));
    assert_false(mbl_tensor_same_shape(&flat, &t));
    assert_false(mbl_tensor_same_shape(&rows, &columns));
}

static void impossible_views_are_empty(void **state) {
    (void)state;
    float data[24];
    mbl_fail_quiet(1);
    mbl_tensor_t t = MBL_TENSOR_2(data, MBL_F32, 4, 6);
    mbl_tensor_t columns = mbl_tensor_columns(&t, 0, 3);
    const mbl_tensor_t bad[] = {
        mbl_tensor_rows(&t, 3, 2),
        mbl_tensor_rows(&t, SIZE_MAX, 2),
        mbl_tensor_columns(&t, 6, 1),
        mbl_tensor_reshape(&t, 1, (size_t)23),
        mbl_tensor_reshape(&columns, 1, (size_t)12),
        mbl_tensor_reshape(&t, 5, (size_t)24, (size_t)1, (size_t)1, (size_t)1, (size_t)1),
        mbl_tensor_of(data, MBL_F32, MBL_HOST, 0),
    };
    mbl_fail_quiet(0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(bad[i].data);
        assert_int_equal(bad[i].ndim, 0);
        assert_int_equal(mbl_tensor_count(&bad[i]), 0);
    }
    assert_int_equal(mbl_tensor_rows(&t, 4, 0).dim[0], 0);
}

static void bf16_rounds_to_even(void **state) {
    (void)state;
    assert_int_equal(mbl_bf16_from_f32(1.0f), 0x3f80);
    assert_int_equal(mbl_bf16_from_f32(1.00390625f), 0x3f80);  /* half way, to even: down */
    assert_int_equal(mbl_bf16_from_f32(1.01171875f), 0x3f82);  /* half way, to even: up */
    assert_int_equal(mbl_bf16_from_f32(1.003906310f), 0x3f81); /* above half way */
    assert_int_equal(mbl_bf16_from_f32(3.4e38f), 0x7f80);      /* rounds to infinity */
    assert_int_equal(mbl_bf16_from_f32(-INFINITY), 0xff80);
    assert_true(isnan(mbl_bf16_to_f32(mbl_bf16_from_f32(NAN))));
    for (uint32_t i = 0; i < 0x7f80; i++)
        assert_int_equal(mbl_bf16_from_f32(mbl_bf16_to_f32((uint16_t)i)), i);
}

static void backends_open_by_name(void **state) {
    (void)state;
    mbl_ops_t *ops = NULL;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_ops_open("abacus", 1, &ops), MBL_ERR_CONFIG);
    mbl_fail_quiet(0);
    assert_non_null(strstr(mbl_fail_message(), "'abacus'"));
    assert_non_null(strstr(mbl_fail_message(), " cpu"));
    assert_null(ops);
    assert_int_equal(mbl_ops_open("auto", 0, &ops), MBL_OK);
    assert_true(ops->threads >= 1);
    mbl_ops_close(ops);
    mbl_ops_close(NULL);
}

static void memory_of_a_backend(void **state) {
    (void)state;
    mbl_ops_t *ops;
    mbl_tensor_t a, b, big;
    float host[12], back[12] = {0};
    for (int i = 0; i < 12; i++)
        host[i] = (float)i;
    size_t live = mbl_mem_live();
    assert_int_equal(mbl_ops_open("cpu", 1, &ops), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &a, 2, (size_t)3, (size_t)4), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &b, 2, (size_t)3, (size_t)4), MBL_OK);
    assert_int_equal((uintptr_t)a.data % 64, 0);
    assert_int_equal(mbl_tensor_upload(ops, &a, host), MBL_OK);
    assert_int_equal(mbl_tensor_copy(ops, &b, &a), MBL_OK);
    assert_int_equal(mbl_tensor_zero(ops, &a), MBL_OK);
    assert_int_equal(mbl_tensor_download(ops, &b, back), MBL_OK);
    assert_memory_equal(host, back, sizeof host);
    assert_int_equal(mbl_tensor_download(ops, &a, back), MBL_OK);
    assert_near(back[11], 0, 0);
    mbl_fail_quiet(1);
    mbl_tensor_t half = mbl_tensor_columns(&b, 0, 2);
    assert_int_equal(mbl_tensor_upload(ops, &half, host), MBL_ERR_ARG);
    assert_int_equal(mbl_tensor_copy(ops, &half, &half), MBL_ERR_ARG);
    assert_int_equal(mbl_tensor_new(ops, MBL_F32, &big, 2, SIZE_MAX / 2, (size_t)4), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    mbl_tensor_free(ops, &a);
    mbl_tensor_free(ops, &a);
    mbl_tensor_free(ops, &b);
    mbl_tensor_free(ops, NULL);
    assert_null(a.data);
    mbl_ops_close(ops);
    assert_int_equal(mbl_mem_live(), live);
}

/* What a wrapper says about wrong operands. */
/* What is more than the host has is refused, not promised: with the part, what is missing and the key. */
static void too_much_names_its_part(void **state) {
    (void)state;
    mbl_ops_t *ops;
    mbl_tensor_t t;
    const size_t most = mbl_memory_most("");
    assert_true(most < SIZE_MAX / 2);
    assert_int_equal(mbl_ops_open("cpu", 1, &ops), MBL_OK);
    mbl_ops_part(ops, "a part", "its.key");
    mbl_fail_quiet(1);
    assert_int_equal(mbl_tensor_new(ops, MBL_U8, &t, 1, most + ((size_t)8 << 30)), MBL_ERR_MEM);
    mbl_fail_quiet(0);
    for (const char *const *word = (const char *const[]){"no memory for a part: ", " GiB are missing",
                                                         "; expected more, or its.key", NULL};
         *word; word++)
        if (!strstr(mbl_fail_message(), *word))
            fail_msg("no '%s' in: %s", *word, mbl_fail_message());
    mbl_ops_close(ops);
}

static void wrappers_refuse(void **state) {
    (void)state;
    mbl_ops_t *ops;
    float data[64] = {0};
    assert_int_equal(mbl_ops_open("cpu", 1, &ops), MBL_OK);
    mbl_tensor_t a = MBL_TENSOR_2(data, MBL_F32, 4, 8), b = MBL_TENSOR_2(data, MBL_F32, 8, 2);
    mbl_tensor_t y = MBL_TENSOR_2(data, MBL_F32, 4, 2), half = MBL_TENSOR_2(data, MBL_BF16, 4, 2);
    mbl_tensor_t bias = MBL_TENSOR_1(data, MBL_F32, 2), device = a, none = {.data = NULL};
    mbl_tensor_t empty = MBL_TENSOR_2(data, MBL_F32, 0, 8);
    device.space = MBL_DEVICE;
    const struct {
        mbl_matmul_args_t args;
        const char *says;
    } bad[] = {
        {{.y = &y, .a = &a, .b = &b, .transpose_b = true}, "matmul: b is [8,2] f32, not [8,8] f32"},
        {{.y = &b, .a = &a, .b = &b}, "matmul: y is [8,2] f32, not [4,2] f32"},
        {{.y = &half, .a = &a, .b = &b}, "matmul: y is [4,2] bf16, not [4,2] f32"},
        {{.y = &y, .a = &a, .b = &b, .bias = &y}, "matmul: bias is [4,2] f32, not [2] f32"},
        {{.y = &y, .a = &a, .b = &b, .pre = &a, .act = MBL_ACT_SILU}, "matmul: pre is [4,8] f32, not [4,2]"},
        {{.y = &y, .a = &a, .b = &b, .through = &half, .act = MBL_ACT_SILU}, "matmul: through is [4,2] bf16"},
        {{.y = &y, .a = &a, .b = &b, .pre = &y, .through = &y, .act = MBL_ACT_SILU}, "expected one at most"},
        {{.y = &y, .a = &a, .b = &b, .through = &y}, "matmul: through is given without an activation"},
        {{.y = &y, .a = &a, .b = &b, .act = (mbl_act_t)17}, "activation 17 is unknown"},
        {{.y = &y, .a = &a}, "matmul: b is NULL"},
        {{.y = &y, .a = &none, .b = &b}, "matmul: a is without data"},
        {{.y = &y, .a = &empty, .b = &b}, "matmul: a ([0,8] f32) must hold something"},
        {{.y = &y, .a = &device, .b = &b}, "matmul: a is on the device"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mbl_fail_quiet(1);
        assert_int_equal(mbl_op_matmul(ops, &bad[i].args), MBL_ERR_ARG);
        mbl_fail_quiet(0);
        if (!strstr(mbl_fail_message(), bad[i].says))
            fail_msg("'%s' does not say '%s'", mbl_fail_message(), bad[i].says);
    }
    assert_int_equal(ops->stats[MBL_OP_matmul].calls, 0);
    ops->profile = true;
    assert_int_equal(MBL_OP(ops, matmul, .y = &y, .a = &a, .b = &b, .bias = &bias), MBL_OK);
    assert_int_equal(ops->stats[MBL_OP_matmul].calls, 1);
    assert_int_equal(mbl_ops_profiled(ops), MBL_OK);
    assert_true(ops->stats[MBL_OP_matmul].seconds > 0);
    mbl_ops_close(ops);
}

static void operands_are_described(void **state) {
    (void)state;
    size_t n;
    for (int op = 0; op < MBL_OP_COUNT; op++) {
        const mbl_operand_t *operand = mbl_op_operands((mbl_op_t)op, &n);
        assert_true(n >= 2);
        size_t outputs = 0;
        for (size_t i = 0; i < n; i++) {
            outputs += operand[i].role != MBL_IN;
            assert_int_equal(operand[i].offset % sizeof(void *), 0);
        }
        assert_true(outputs >= 1);
    }
    assert_string_equal(mbl_op_name(MBL_OP_attention_bwd), "attention_bwd");
    const mbl_operand_t *y = mbl_op_operands(MBL_OP_matmul, &n);
    assert_string_equal(y->name, "y");
    assert_int_equal(mbl_op_role(MBL_OP_matmul, y, &(mbl_matmul_args_t){.accumulate = false}), MBL_OUT);
    assert_int_equal(mbl_op_role(MBL_OP_matmul, y, &(mbl_matmul_args_t){.accumulate = true}), MBL_INOUT);
}

/* One product and one attention, with the n-th allocation failing: an error or a result, and no leak. */
static mbl_status_t some_work(float *out) {
    float data[96] = {1};
    mbl_ops_t *ops;
    MBL_TRY(mbl_ops_open("cpu", 1, &ops));
    mbl_tensor_t a = MBL_TENSOR_2(data, MBL_F32, 8, 8), y = MBL_TENSOR_2(out, MBL_F32, 8, 8), t;
    mbl_status_t status = mbl_tensor_new(ops, MBL_F32, &t, 4, (size_t)1, (size_t)2, (size_t)4, (size_t)8);
    if (status == MBL_OK) {
        mbl_tensor_t o = mbl_tensor_of(out, MBL_F32, MBL_HOST, 3, (size_t)1, (size_t)4, (size_t)16);
        mbl_tensor_t v = mbl_tensor_of(t.data, MBL_F32, MBL_HOST, 3, (size_t)1, (size_t)4, (size_t)16);
        status = MBL_OP(ops, matmul, .y = &y, .a = &a, .b = &a);
        if (status == MBL_OK)
            status = MBL_OP(ops, attention, .out1 = &o, .q = &t, .k = &t, .v1 = &v, .scale = 1);
        mbl_tensor_free(ops, &t);
    }
    mbl_ops_close(ops);
    return status;
}

static void allocations_may_fail(void **state) {
    (void)state;
    float out[64];
    size_t live = mbl_mem_live(), failures = 0;
    for (size_t n = 1; n < 64; n++) {
        mbl_fail_quiet(1);
        mbl_mem_fail_at(n);
        mbl_status_t status = some_work(out);
        mbl_mem_fail_at(0);
        mbl_fail_quiet(0);
        assert_int_equal(mbl_mem_live(), live);
        if (status == MBL_OK)
            break;
        assert_int_equal(status, MBL_ERR_MEM);
        failures++;
    }
    assert_true(failures >= 5); /* handle, backend, products, tensor, scratch */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_names),
        cmocka_unit_test(views_share_data),
        cmocka_unit_test(impossible_views_are_empty),
        cmocka_unit_test(bf16_rounds_to_even),
        cmocka_unit_test(backends_open_by_name),
        cmocka_unit_test(memory_of_a_backend),
        cmocka_unit_test(too_much_names_its_part),
        cmocka_unit_test(wrappers_refuse),
        cmocka_unit_test(operands_are_described),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
