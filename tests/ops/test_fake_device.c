/* The fake device: what the host touches by itself faults; what goes through the backend gives cpu's bits;
 * tensors that only claim to be on the device are refused. */
#include "ops/ops.h"
#include "ops_harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 5, D = 16 };

/* The signal that ends a child which does this to the address, 0 when none does. */
static int signal_of(void (*touch)(void *), void *address) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        touch(address);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? SIGSEGV : 0; /* sanitizers exit */
}

static volatile float sink;

static void read_first(void *address) {
    sink = ((volatile float *)address)[0];
}

static void write_last(void *address) {
    ((volatile float *)address)[N * D - 1] = 1;
}

static void copy_out(void *address) {
    float host[N * D];
    memcpy(host, address, sizeof host);
    sink = host[1];
}

static void host_access_faults(void **state) {
    (void)state;
    mbl_ops_t *ops;
    mbl_tensor_t t;
    float host[N * D] = {1};
    OK(mbl_ops_open("fake", 1, &ops));
    OK(mbl_tensor_new(ops, MBL_F32, &t, 2, (size_t)N, (size_t)D));
    assert_int_equal(t.space, MBL_DEVICE);
    assert_int_equal((uintptr_t)t.data % 64, 0);
    void (*const touches[])(void *) = {read_first, write_last, copy_out};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(signal_of(touches[i], t.data), SIGSEGV);
        assert_int_equal(signal_of(touches[i], host), 0);
    }
    mbl_tensor_free(ops, &t);
    mbl_ops_close(ops);
}

static void bits_are_those_of_cpu(void **state) {
    static const char *const names[] = {"cpu", "fake"};
    double *got[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        run_t r = {.ct = MBL_F32, .only = -1};
        OK(mbl_ops_open(names[i], 1, &r.ops));
        const mbl_tensor_t *a = operand2(&r, IN, COMPUTE, N, D), *b = operand2(&r, IN, COMPUTE, N, D);
        const mbl_tensor_t *y = operand2(&r, OUT, COMPUTE, N, N);
        OK(MBL_OP(r.ops, matmul, .y = y, .a = a, .b = b, .transpose_b = true));
        OK(MBL_OP(r.ops, act, .y = y, .x = y, .act = MBL_ACT_SILU));
        got[i] = numbers(r.ops, y, y);
        assert_int_equal(r.ops->stats[MBL_OP_matmul].calls, 1);
        release(&r);
        mbl_ops_close(r.ops);
    }
    assert_memory_equal(got[0], got[1], N * N * sizeof(double));
    free(got[0]);
    free(got[1]);
}

static void false_spaces_are_refused(void **state) {
    (void)state;
    mbl_ops_t *ops;
    float host[D] = {0};
    mbl_tensor_t t, here = MBL_TENSOR_1(host, MBL_F32, D), lie = here;
    lie.space = MBL_DEVICE;
    OK(mbl_ops_open("fake", 1, &ops));
    OK(mbl_tensor_new(ops, MBL_F32, &t, 1, (size_t)D));
    mbl_fail_quiet(1);
    assert_int_equal(MBL_OP(ops, axpby, .y = &t, .x = &here, .a = 1), MBL_ERR_ARG);
    assert_int_equal(MBL_OP(ops, axpby, .y = &t, .x = &lie, .a = 1), MBL_ERR_INTERNAL);
    assert_non_null(strstr(mbl_fail_message(), "axpby: x"));
    assert_int_equal(mbl_tensor_upload(ops, &lie, host), MBL_ERR_ARG);
    lie = t;
    lie.space = MBL_HOST;
    assert_int_equal(mbl_tensor_download(ops, &lie, host), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    mbl_tensor_free(ops, &t);
    mbl_ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(host_access_faults),
                                       cmocka_unit_test(bits_are_those_of_cpu),
                                       cmocka_unit_test(false_spaces_are_refused)};
    return cmocka_run_group_tests_name("fake", tests, NULL, NULL);
}
