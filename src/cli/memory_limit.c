/* Crashes for want of memory below a limit. A signal handler can reach nothing but process-wide state, hence
 * the statics. */
#include "cli/memory_limit.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LITTLE_BYTES = 128 << 20 }; /* less than this left: what malloc maps for a new thread's arena */

static char message[320];
static size_t message_length;
static unsigned long long space_kib; /* of address space; 0: no limit */

static void on_crash(int signal_number) {
    void *room = mmap(NULL, LITTLE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        (void)!write(STDERR_FILENO, message, message_length);
        _exit(1);
    }
    raise(signal_number); /* the default again (SA_RESETHAND): not for want of memory */
}

/* The most address space that this process has had, in KiB; 0 where the system does not say. */
static unsigned long long peak_kib(void) {
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmPeak: %llu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

void mbl_memory_limit_explain(void) {
    if (space_kib && peak_kib() + LITTLE_BYTES / 1024 >= space_kib)
        (void)!write(STDERR_FILENO, message, message_length);
}

static unsigned long long limit_of(int resource) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return 0;
    return (unsigned long long)limit.rlim_cur;
}

void mbl_memory_limit_watch(void) {
    static char room[1 << 16];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGTRAP}; /* the last is how GLib aborts */
    const stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    unsigned long long space = limit_of(RLIMIT_AS), data = limit_of(RLIMIT_DATA);
    struct sigaction what = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND | SA_NODEFER | SA_ONSTACK};
    if (!space && !data)
        return;
    bool of_space = space && (!data || space <= data);
    int n = snprintf(message, sizeof message,
                     "marble: error: out of memory, maybe in a library: this process may have %llu KiB "
                     "(ulimit %s) and came "
                     "within %d MiB of it; expected a higher limit, or ulimit %s unlimited\n",
                     (of_space ? space : data) / 1024, of_space ? "-v" : "-d", LITTLE_BYTES >> 20,
                     of_space ? "-v" : "-d");
    message_length = n > 0 && (size_t)n < sizeof message ? (size_t)n : 0;
    space_kib = space / 1024;
    sigaltstack(&stack, NULL);
    sigemptyset(&what.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &what, NULL);
}
