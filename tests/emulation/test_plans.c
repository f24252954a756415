/* Which of cublasLt's algorithms a product runs by: the same with gelu whether its input is kept or not; one
 * that was chosen for other rows only where it takes these, and what the log says where it does not. The
 * calls in between write into an algorithm which question it is the answer to. */
#include "matmul_wrap.h"
#include "support.h"

#include "base/log.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OK(expr) assert_int_equal((expr), MBL_OK)
enum { M = 72, N = 48, K = 32, MOST = 64 };

static struct {
    cublasLtMatmulDesc_t desc[MOST];
    uint32_t epilogue[MOST];
    int described, questions, refuse; /* refuse: so many checks to come */
    uint64_t ran_by;                  /* the question's epilogue; of the last product */
} seen;

static uint32_t epilogue_of(cublasLtMatmulDesc_t desc) {
    for (int i = seen.described; i-- > 0;) /* the last of that address */
        if (seen.desc[i] == desc)
            return seen.epilogue[i];
    return 0;
}

WRAPPED(cublasLtMatmulDescSetAttribute, ATTRIBUTE_PARAMETERS) {
    if (attribute == CUBLASLT_MATMUL_DESC_EPILOGUE) {
        assert_true(seen.described < MOST);
        seen.desc[seen.described] = desc;
        memcpy(&seen.epilogue[seen.described++], value, sizeof *seen.epilogue);
    }
    return __real_cublasLtMatmulDescSetAttribute(ATTRIBUTE_ARGUMENTS);
}

WRAPPED(cublasLtMatmulAlgoGetHeuristic, HEURISTIC_PARAMETERS) {
    cublasStatus_t status = __real_cublasLtMatmulAlgoGetHeuristic(HEURISTIC_ARGUMENTS);
    seen.questions++;
    if (status == CUBLAS_STATUS_SUCCESS)
        results->algo.data[1] = epilogue_of(desc);
    return status;
}

WRAPPED(cublasLtMatmulAlgoCheck, CHECK_PARAMETERS) {
    if (seen.refuse > 0) {
        seen.refuse--;
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return __real_cublasLtMatmulAlgoCheck(CHECK_ARGUMENTS);
}

WRAPPED(cublasLtMatmul, MATMUL_PARAMETERS) {
    seen.ran_by = algo->data[1];
    return __real_cublasLtMatmul(MATMUL_ARGUMENTS);
}

/* y = gelu(a b' + bias), or without gelu; from the same numbers every time. */
typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t a, b, bias, y, pre;
} product_t;

static void open_product(product_t *p) {
    uint16_t numbers[M * N];
    memset(&seen, 0, sizeof seen);
    for (size_t i = 0; i < M * N; i++)
        numbers[i] = mbl_bf16_from_f32((float)((int)(i * 37 % 101) - 50) / 64);
    OK(mbl_ops_open("cuda", 1, &p->ops));
    OK(mbl_tensor_new(p->ops, MBL_BF16, &p->a, 2, (size_t)M, (size_t)K));
    OK(mbl_tensor_new(p->ops, MBL_BF16, &p->b, 2, (size_t)N, (size_t)K));
    OK(mbl_tensor_new(p->ops, MBL_BF16, &p->bias, 1, (size_t)N));
    OK(mbl_tensor_new(p->ops, MBL_BF16, &p->y, 2, (size_t)M, (size_t)N));
    OK(mbl_tensor_new(p->ops, MBL_BF16, &p->pre, 2, (size_t)M, (size_t)N));
    OK(mbl_tensor_upload(p->ops, &p->a, numbers));
    OK(mbl_tensor_upload(p->ops, &p->b, numbers + 100));
    OK(mbl_tensor_upload(p->ops, &p->bias, numbers + 200));
}

static void close_product(product_t *p) {
    mbl_tensor_t *all[] = {&p->a, &p->b, &p->bias, &p->y, &p->pre};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(p->ops, all[i]);
    mbl_ops_close(p->ops);
}

static void run(product_t *p, bool keep, mbl_act_t act, uint16_t *out) {
    OK(mbl_tensor_zero(p->ops, &p->y));
    OK(MBL_OP(p->ops, matmul, .y = &p->y, .a = &p->a, .b = &p->b, .bias = &p->bias,
              .pre = keep ? &p->pre : NULL, .transpose_b = true, .act = act));
    OK(mbl_tensor_download(p->ops, &p->y, out));
}

static void gelu_with_and_without_its_input_is_one_algorithm(void **state) {
    product_t p;
    uint16_t kept[M * N], not_kept[M * N];
    (void)state;
    open_product(&p);
    run(&p, false, MBL_ACT_GELU_TANH, not_kept);
    assert_int_equal(seen.ran_by, CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
    run(&p, true, MBL_ACT_GELU_TANH, kept);
    assert_int_equal(seen.ran_by, CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
    assert_int_equal(seen.questions, 2);
    assert_memory_equal(kept, not_kept, sizeof kept);
    close_product(&p);
}

/* An algorithm that needs the kept input: gelu's own is asked for instead. */
static void gelu_goes_on_by_its_own_where_it_must(void **state) {
    product_t p;
    uint16_t out[M * N];
    (void)state;
    open_product(&p);
    seen.refuse = 1;
    run(&p, false, MBL_ACT_GELU_TANH, out);
    assert_int_equal(seen.ran_by, CUBLASLT_EPILOGUE_GELU_BIAS);
    close_product(&p);
}

/* Once, however many shapes; the product is right all the same. */
static void rows_that_decide_are_reported(void **state) {
    char path[] = "plans-XXXXXX", *text;
    product_t p;
    uint16_t usual[M * N], out[M * N];
    int file = mkstemp(path), lines = 0;
    (void)state;
    assert_true(file >= 0);
    close(file);
    open_product(&p);
    run(&p, false, MBL_ACT_NONE, usual);
    close_product(&p);
    OK(mbl_log_open(path));
    open_product(&p);
    seen.refuse = 1;
    run(&p, false, MBL_ACT_NONE, out);
    assert_memory_equal(out, usual, sizeof out);
    assert_int_equal(seen.questions, 2); /* for 4096 rows, for 72 */
    seen.refuse = 2;
    run(&p, false, MBL_ACT_GELU_TANH, out);
    close_product(&p);
    OK(mbl_log_open(NULL));
    text = read_whole(path, NULL);
    for (char *at = text; (at = strstr(at, "does not take 72 rows")); at++)
        lines++;
    assert_int_equal(lines, 1);
    free(text);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gelu_with_and_without_its_input_is_one_algorithm),
                                       cmocka_unit_test(gelu_goes_on_by_its_own_where_it_must),
                                       cmocka_unit_test(rows_that_decide_are_reported)};
    return cmocka_run_group_tests_name("plans", tests, NULL, NULL);
}
