/* Crashes for want of memory below a limit. A signal handler can reach nothing but process-wide state, hence
 * the statics. */
#include "cli/memory_limit.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LITTLE_BYTES = 64 << 20 }; /* less than this left: libraries ask for as much at once */

static char message[320];
static size_t message_length;

static void on_crash(int signal_number) {
    void *room = mmap(NULL, LITTLE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        (void)!write(STDERR_FILENO, message, message_length);
        _exit(1);
    }
    raise(signal_number); /* the default again (SA_RESETHAND): not for want of memory */
}

static unsigned long long limit_of(int resource) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return 0;
    return (unsigned long long)limit.rlim_cur;
}

void mbl_memory_limit_watch(void) {
    static char room[1 << 16];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT};
    const stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    unsigned long long space = limit_of(RLIMIT_AS), data = limit_of(RLIMIT_DATA);
    struct sigaction what = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND | SA_NODEFER | SA_ONSTACK};
    if (!space && !data)
        return;
    bool of_space = space && (!data || space <= data);
    int n = snprintf(
        message, sizeof message,
        "marble: error: out of memory in a library: this process may have %llu KiB (ulimit %s) and less than "
        "%d MiB of it are left; expected a higher limit, or ulimit %s unlimited\n",
        (of_space ? space : data) / 1024, of_space ? "-v" : "-d", LITTLE_BYTES >> 20, of_space ? "-v" : "-d");
    message_length = n > 0 && (size_t)n < sizeof message ? (size_t)n : 0;
    sigaltstack(&stack, NULL);
    sigemptyset(&what.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &what, NULL);
}
