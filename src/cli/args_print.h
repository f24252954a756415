/* A table of options in the forms that people and shells read, all from the same rows. */
#ifndef MBL_CLI_ARGS_PRINT_H
#define MBL_CLI_ARGS_PRINT_H

#include "cli/args.h"

void mbl_args_print_help(const mbl_args_t *spec);
void mbl_args_print_man(const mbl_args_t *spec); /* marble-COMMAND.1 */
/* The part of one command in a script of completion (pages.h). */
void mbl_args_print_bash(const mbl_args_t *spec);
void mbl_args_print_zsh(const mbl_args_t *spec);

/* The beginning and an end of a manual page. */
void mbl_man_head(const char *page, const char *summary);
void mbl_man_exit(void);

#endif
