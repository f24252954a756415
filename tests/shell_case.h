/* Commands as a user types them, in the folder of a test with runs. */
#ifndef MBL_TESTS_SHELL_CASE_H
#define MBL_TESTS_SHELL_CASE_H

#include "runs.h"

#include <stdarg.h>

/* A command of the shell in the test's folder, where $M is marble and $C a checkpoint of the run `run`; its
 * exit code. */
static inline int shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline int shell(const char *format, ...) {
    char words[2048], command[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    snprintf(command, sizeof command,
             "cd '%s' && export OMP_NUM_THREADS=1 M=%s/marble C=run/checkpoints/latest.h5 && %s", folder,
             MBL_BINARY_DIR, words);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif
