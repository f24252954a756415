/* Signals and the time limit. A signal handler can reach nothing but process-wide state, hence the statics.
 */
#include "train/stop.h"

#include "base/clock.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile int stop_asked;
static double stop_at;

static void on_signal(int signal_number) {
    (void)signal_number;
    if (stop_asked)
        _exit(1); /* the last checkpoint is intact: files appear by rename only */
    stop_asked = 1;
}

static void set_action(void (*action)(int)) {
    struct sigaction what = {.sa_handler = action, .sa_flags = SA_RESTART};
    sigemptyset(&what.sa_mask);
    sigaction(SIGINT, &what, NULL);
    sigaction(SIGTERM, &what, NULL);
    sigaction(SIGUSR1, &what,
              NULL); /* mpirun passes this one on and waits; at the others it kills its ranks */
}

const volatile int *mbl_stop_catch(double seconds) {
    stop_asked = 0;
    stop_at = seconds > 0 ? mbl_now() + seconds : 0;
    set_action(on_signal);
    return &stop_asked;
}

int mbl_stop_check(void) {
    if (stop_at > 0 && mbl_now() >= stop_at)
        stop_asked = 1;
    return stop_asked;
}

void mbl_stop_release(void) {
    set_action(SIG_DFL);
}
