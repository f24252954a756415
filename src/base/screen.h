/* The lower edge of a terminal while a command works: a table and a bar for the phase under way, redrawn in
 * place; log lines scroll above (base/log.h calls it). Only where standard error is a terminal that moves its
 * cursor, or MARBLE_TERMINAL=COLUMNSxROWS says that one shows what it is given (under mpirun it is a pipe).
 */
#ifndef MBL_BASE_SCREEN_H
#define MBL_BASE_SCREEN_H

#include "base/log.h"

enum { MBL_SCREEN_TEXT = 1 << 14, MBL_SCREEN_LINES = 128 };

typedef struct {
    mbl_log_screen_t hooks;
    mbl_log_look_t given;             /* what the environment says */
    char table[MBL_SCREEN_TEXT];      /* lines, as they are to be shown */
    char phase[64];                   /* "" for none */
    size_t done, total, n;            /* n: lines shown */
    double within;                    /* units beyond `done` */
    size_t columns[MBL_SCREEN_LINES]; /* that each of them takes, for terminals that have become narrower */
    double drawn, began;              /* when */
} mbl_screen_t;

/* Whether standard error goes to a terminal: itself, or through a pipe of which MARBLE_TERMINAL says so. */
bool mbl_screen_there(void);
/* Shows what the log is given from here on; false where there is no such terminal, or TERM is dumb. */
bool mbl_screen_open(mbl_screen_t *screen);
/* Takes it off the terminal; fine when it was not opened. */
void mbl_screen_close(mbl_screen_t *screen);

/* The bar of `width` columns for a share of 0 to 1, into out [3 * width + 1]. */
char *mbl_screen_bar(const mbl_log_look_t *look, double share, size_t width, char *out);
/* The course of n values, NAN for none, one column each, into out [3 * n + 1]. */
char *mbl_screen_spark(const mbl_log_look_t *look, const double *values, size_t n, char *out);

#endif
