/* The manual page of the program, and its completion for bash and zsh: what is around that of each command.
 */
#ifndef MBL_CLI_PAGES_H
#define MBL_CLI_PAGES_H

#include <stddef.h>

typedef struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} mbl_page_command_t;

/* marble.1, on standard output. */
void mbl_page_man(const mbl_page_command_t *commands, size_t n);
/* A script for "bash" or "zsh"; the exit code, 2 for another shell. */
int mbl_page_completion(const char *shell, const mbl_page_command_t *commands, size_t n);

#endif
