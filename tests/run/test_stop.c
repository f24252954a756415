/* src/run/stop: the first signal asks, the second ends, one that comes twice at once is one; limits. */
#include "support.h"
#include "base/clock.h"
#include "ops/ops.h"
#include "run/stop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The exit code of a child that takes two signals `pause_ms` apart and then ends with 75. */
static int two_signals(int first, int second, unsigned pause_ms) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        const volatile sig_atomic_t *asked = mbl_stop_catch(0);
        if (!freopen("/dev/null", "w", stderr) || *asked || mbl_stop_check())
            _exit(90);
        raise(first);
        if (!*asked || !mbl_stop_check())
            _exit(91);
        usleep(1000 * pause_ms);
        raise(second);
        _exit(75);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void signals_ask_then_end(void **state) {
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(two_signals(signals[i], signals[(i + 1) % 3], 700), 1);
        assert_int_equal(two_signals(signals[i], signals[i], 0), 75);
    }
}

/* Of a terminal that closes, a limit of processor time, a batch system: they ask, and coming again and again
 * (the system sends SIGXCPU every second) ends nothing; one of the others still does. */
static void other_signals_only_ask(void **state) {
    static const int signals[] = {SIGHUP, SIGXCPU, SIGUSR2};
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(two_signals(signals[i], signals[i], 600), 75);
        assert_int_equal(two_signals(signals[i], SIGTERM, 600), 75);
    }
}

static void nohup_is_respected(void **state) {
    (void)state;
    signal(SIGHUP, SIG_IGN);
    const volatile sig_atomic_t *asked = mbl_stop_catch(0);
    raise(SIGHUP);
    assert_int_equal(*asked, 0);
    mbl_stop_release();
    assert_true(signal(SIGHUP, SIG_DFL) == SIG_IGN);
    asked = mbl_stop_catch(0);
    raise(SIGHUP);
    assert_int_equal(*asked, 1);
    mbl_stop_release();
    assert_true(signal(SIGHUP, SIG_DFL) == SIG_DFL);
}

static void a_limit_asks_and_does_not_count_as_a_signal(void **state) {
    (void)state;
    const volatile sig_atomic_t *asked = mbl_stop_catch(0.05);
    assert_int_equal(*asked, 0);
    for (double end = mbl_now() + 5; !*asked && mbl_now() < end;)
        usleep(1000);
    assert_int_equal(mbl_stop_check(), 1);
    usleep(600000);
    raise(SIGTERM); /* the first signal: this process goes on */
    mbl_stop_release();
    assert_int_equal(*mbl_stop_catch(0), 0);
    mbl_stop_release();
    assert_int_equal(two_signals(SIGALRM, SIGTERM, 700), 75);
}

static void the_end_of_a_slurm_job_is_a_limit(void **state) {
    char end[64];
    (void)state;
    unsetenv("SLURM_JOB_END_TIME");
    assert_near(mbl_stop_seconds(0, 60), 0, 0);
    assert_near(mbl_stop_seconds(30, 60), 30, 0);
    snprintf(end, sizeof end, "%lld", (long long)time(NULL) + 1000);
    setenv("SLURM_JOB_END_TIME", end, 1);
    assert_near(mbl_stop_seconds(0, 60), 940, 2);
    assert_near(mbl_stop_seconds(2000, 0), 1000, 2);
    assert_near(mbl_stop_seconds(30, 60), 30, 0);
    assert_near(mbl_stop_seconds(0, 5000), 1e-3, 1e-12); /* too late already: at once */
    setenv("SLURM_JOB_END_TIME", "soon", 1);
    assert_near(mbl_stop_seconds(0, 60), 0, 0);
    unsetenv("SLURM_JOB_END_TIME");
}

/* Thousands of signals in the middle of products, whose kernels may have the stack pointer in the heap:
 * nothing there is overwritten, and the products stay what they are. */
static void products_are_not_disturbed(void **state) {
    enum { M = 96, N = 64, K = 512 };
    const struct itimerval often = {{0, 100}, {0, 100}};
    float *a = malloc(M * K * sizeof *a), *b = malloc(K * N * sizeof *b);
    float *y = malloc(M * N * sizeof *y), *want = malloc(M * N * sizeof *want);
    mbl_ops_t *ops;
    (void)state;
    for (size_t i = 0; i < M * K; i++)
        a[i] = (float)(i % 17) - 8;
    for (size_t i = 0; i < K * N; i++)
        b[i] = (float)(i % 13) - 6;
    assert_int_equal(mbl_ops_open("cpu", 1, &ops), MBL_OK);
    mbl_tensor_t at = mbl_tensor_of(a, MBL_F32, MBL_HOST, 2, (size_t)M, (size_t)K);
    mbl_tensor_t bt = mbl_tensor_of(b, MBL_F32, MBL_HOST, 2, (size_t)K, (size_t)N);
    mbl_tensor_t yt = mbl_tensor_of(y, MBL_F32, MBL_HOST, 2, (size_t)M, (size_t)N);
    const mbl_matmul_args_t product = {.a = &at, .b = &bt, .y = &yt};
    assert_int_equal(mbl_op_matmul(ops, &product), MBL_OK);
    memcpy(want, y, M * N * sizeof *y);
    mbl_stop_catch(0);
    setitimer(ITIMER_REAL, &often, NULL);
    for (double end = mbl_now() + 1; mbl_now() < end;) {
        assert_int_equal(mbl_op_matmul(ops, &product), MBL_OK);
        assert_memory_equal(y, want, M * N * sizeof *y);
    }
    assert_int_equal(mbl_stop_check(), 1);
    mbl_stop_release();
    mbl_ops_close(ops);
    free(a);
    free(b);
    free(y);
    free(want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_ask_then_end),
        cmocka_unit_test(other_signals_only_ask),
        cmocka_unit_test(nohup_is_respected),
        cmocka_unit_test(a_limit_asks_and_does_not_count_as_a_signal),
        cmocka_unit_test(the_end_of_a_slurm_job_is_a_limit),
        cmocka_unit_test(products_are_not_disturbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
