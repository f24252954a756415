/* The host touches device memory, or a kernel touches what is not mapped: says so. The first ends the process
 * as on any system, the second the launch. */
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct sigaction before[2];
static const int caught[2] = {SIGSEGV, SIGBUS};

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    char where[MBL_EMU_TEXT], me[MBL_EMU_TEXT], text[3 * MBL_EMU_TEXT];
    if (mbl_emu_active) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, number);
        mbl_emu_where(me);
        if (!mbl_emu_shared_describe(info->si_addr, where))
            mbl_emu_describe(info->si_addr, where);
        mbl_emu_report("%s: illegal address: it touches %s", me, where);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        mbl_emu_stop(cudaErrorIllegalAddress);
    }
    if (mbl_emu_device_of(info->si_addr) >= 0) {
        mbl_emu_describe(info->si_addr, where);
        int n = snprintf(text, sizeof text,
                         "emulation: the host touches %s; expected a copy by cudaMemcpyAsync\n", where);
        if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
            abort();
    }
    sigaction(number, &before[number == SIGBUS],
              NULL); /* the instruction faults again, as if we were not here */
}

void mbl_emu_faults_open(void) {
    enum { STACK = 128 * 1024 };
    stack_t stack = {.ss_size = STACK}, old;
    if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE)) {
        stack.ss_sp = malloc(STACK); /* for the life of the process */
        if (!stack.ss_sp || sigaltstack(&stack, NULL) != 0)
            return;
    }
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; i++)
        sigaction(caught[i], &action, &before[i]);
}
