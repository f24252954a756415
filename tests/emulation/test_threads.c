/* The cuda backend asked by a thread of its own: CUDA begins every thread with device 0, and the work is for
 * the handle's device all the same. */
#include "support.h"

#include "ops/ops.h"

#include <cuda_runtime_api.h>

#include <pthread.h>
#include <stdlib.h>

#define OK(expr) assert_int_equal((expr), MBL_OK)
enum { N = 64, RANK = 3, ROUNDS = 4 };

typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t x, y, whole; /* [N] f32; y [1, N], whole [N, N] */
    void (*ask)(void *state);
    mbl_status_t status;
    size_t left;
} asked_t;

static mbl_status_t add(const asked_t *a) {
    return MBL_OP(a->ops, axpby, .y = &a->x, .x = &a->x, .a = 1, .b = 1);
}

static void one_operation(void *state) {
    asked_t *a = state;
    a->status = add(a);
}

static void a_product(void *state) {
    asked_t *a = state;
    const mbl_tensor_t row = mbl_tensor_reshape(&a->x, 2, (size_t)1, (size_t)N);
    a->status = MBL_OP(a->ops, matmul, .y = &a->y, .a = &row, .b = &a->whole);
}

static void clearing(void *state) {
    asked_t *a = state;
    a->status = mbl_tensor_zero(a->ops, &a->x);
}

static void a_copy(void *state) {
    asked_t *a = state;
    const mbl_tensor_t row = mbl_tensor_reshape(&a->x, 2, (size_t)1, (size_t)N);
    a->status = mbl_tensor_copy(a->ops, &a->y, &row);
}

static void a_mark(void *state) {
    asked_t *a = state;
    a->status = mbl_ops_mark(a->ops, 1);
}

/* Often enough to be captured and launched. */
static void recorded_parts(void *state) {
    asked_t *a = state;
    a->ops->record = true;
    for (int round = 0; round < ROUNDS && a->status == MBL_OK; round++) {
        a->status = mbl_ops_record_begin(a->ops);
        for (int i = 0; i < 6 && a->status == MBL_OK; i++)
            a->status = add(a);
        a->status = mbl_ops_record_end(a->ops, a->status);
    }
    a->ops->record = false;
}

static void memory_that_is_left(void *state) {
    asked_t *a = state;
    a->status = mbl_ops_memory_left(a->ops, &a->left);
}

static void *thread(void *context) {
    asked_t *a = context;
    a->ask(a);
    return NULL;
}

static void in_a_thread(asked_t *a, void (*ask)(void *state)) {
    pthread_t id;
    a->ask = ask;
    a->status = MBL_OK;
    assert_int_equal(pthread_create(&id, NULL, thread, a), 0);
    assert_int_equal(pthread_join(id, NULL), 0);
    OK(a->status);
    OK(a->ops->table->sync(a->ops));
}

static void expect_x(const asked_t *a, float expected) {
    float x[N];
    OK(mbl_tensor_download(a->ops, &a->x, x));
    for (int i = 0; i < N; i++)
        assert_true(x[i] == expected);
}

static void work_goes_to_the_handles_device(void **state) {
    asked_t a = {0};
    float ones[N];
    int device = -1;
    size_t left;
    (void)state;
    for (int i = 0; i < N; i++)
        ones[i] = 1;
    OK(mbl_ops_open("cuda", 1, &a.ops));
    assert_int_equal(cudaGetDevice(&device), cudaSuccess);
    assert_int_equal(device, RANK);
    OK(mbl_tensor_new(a.ops, MBL_F32, &a.x, 1, (size_t)N));
    OK(mbl_tensor_new(a.ops, MBL_F32, &a.y, 2, (size_t)1, (size_t)N));
    OK(mbl_tensor_new(a.ops, MBL_F32, &a.whole, 2, (size_t)N, (size_t)N));
    OK(mbl_tensor_upload(a.ops, &a.x, ones));
    in_a_thread(&a, one_operation);
    expect_x(&a, 2);
    in_a_thread(&a, recorded_parts); /* doubled 24 times */
    expect_x(&a, 2 * 16777216.0f);
    in_a_thread(&a, a_product);
    in_a_thread(&a, a_copy);
    in_a_thread(&a, a_mark);
    in_a_thread(&a, clearing);
    expect_x(&a, 0);
    in_a_thread(&a, memory_that_is_left);
    OK(mbl_ops_memory_left(a.ops, &left));
    assert_int_equal(a.left, left);
    mbl_tensor_free(a.ops, &a.x);
    mbl_tensor_free(a.ops, &a.y);
    mbl_tensor_free(a.ops, &a.whole);
    mbl_ops_close(a.ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(work_goes_to_the_handles_device)};
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "3", 1);
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
