/* Signals and the time limit. A signal handler can reach nothing but process-wide state, hence the statics.
 */
#include "run/stop.h"

#include "base/log.h"

#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const double same_signal_s = 0.5, soon_s = 1e-3;

static volatile sig_atomic_t stop_asked;
static volatile sig_atomic_t signalled;
static struct timespec first_signal;
static struct sigaction hangup_before; /* of whoever started us: nohup ignores it */

static double since_first_signal(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - first_signal.tv_sec) + 1e-9 * (double)(now.tv_nsec - first_signal.tv_nsec);
}

static void on_signal(int signal_number) {
    static const char last_words[] = "marble: stopped at once; the last checkpoint is intact\n";
    stop_asked = 1;
    if (signal_number != SIGINT && signal_number != SIGTERM && signal_number != SIGUSR1)
        return; /* nobody means the end at once by these, and the system repeats some of them */
    if (!signalled) {
        clock_gettime(CLOCK_MONOTONIC, &first_signal);
        signalled = 1;
    } else if (since_first_signal() > same_signal_s) {
        (void)!write(STDERR_FILENO, last_words, sizeof last_words - 1);
        _exit(1); /* files appear by rename only */
    }
}

/* The handler runs on a stack of its own: oneDNN's matrix products for AVX2 have the stack pointer in heap
 * memory for a while, and a signal's frame would be written over whatever lies below. Signals to the process
 * reach its first thread, which calls this. 64 KiB hold the frame and all registers, AMX tiles too. */
static void give_signals_a_stack(void) {
    static char room[1 << 16];
    const stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    sigaltstack(&stack, NULL);
}

static void set_action(void (*action)(int)) {
    /* mpirun passes SIGUSR1 and SIGUSR2 on and waits; at SIGINT and SIGTERM it kills its ranks. Batch systems
     * send SIGUSR2 too, and SIGXCPU at the limit of processor time. */
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGALRM};
    struct sigaction what = {.sa_handler = action, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigemptyset(&what.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &what, NULL);
}

/* The terminal is gone; under nohup that is to be nothing. */
static void catch_hangup(void) {
    struct sigaction what = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigemptyset(&what.sa_mask);
    sigaction(SIGHUP, NULL, &hangup_before);
    if (hangup_before.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &what, NULL);
}

static void set_timer(double seconds) {
    struct itimerval timer = {{0, 0}, {(time_t)seconds, (suseconds_t)(1e6 * (seconds - floor(seconds)))}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

const volatile sig_atomic_t *mbl_stop_catch(double seconds) {
    stop_asked = 0;
    signalled = 0;
    give_signals_a_stack();
    set_action(on_signal);
    catch_hangup();
    if (seconds > 0)
        set_timer(fmax(seconds, soon_s));
    return &stop_asked;
}

const volatile sig_atomic_t *mbl_stop_flag(void) {
    return &stop_asked;
}

int mbl_stop_check(void) {
    return stop_asked;
}

void mbl_stop_release(void) {
    set_timer(0);
    set_action(SIG_DFL);
    sigaction(SIGHUP, &hangup_before, NULL);
}

double mbl_stop_seconds(double limit, double margin) {
    const char *text = getenv("SLURM_JOB_END_TIME");
    char *rest;
    double end = text ? strtod(text, &rest) : 0;
    if (!text || rest == text || *rest || !(end > 0))
        return limit;
    double left = fmax(end - (double)time(NULL) - margin, soon_s);
    if (limit > 0 && limit <= left)
        return limit;
    double ends = end - (double)time(NULL);
    if (ends > 0)
        MBL_INFO("Slurm ends this job in %.0f s; a checkpoint and exit 75 come %.0f s before (limits.margin)",
                 ends, margin);
    else
        MBL_WARN("SLURM_JOB_END_TIME: %s, the end of this job, has passed; expected a later time, or no such "
                 "variable. A checkpoint and exit 75 come at once",
                 text);
    return left;
}
