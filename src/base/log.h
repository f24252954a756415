/* The log: one line per call, to stderr and (when opened) to DIR/log.txt. The only process-wide state of the
 * program. */
#ifndef MBL_BASE_LOG_H
#define MBL_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum { MBL_LOG_DEBUG, MBL_LOG_INFO, MBL_LOG_WARN, MBL_LOG_ERROR, MBL_LOG_OFF } mbl_log_level_t;

/* Sets who speaks: below rank 0 only warnings and errors are printed, prefixed with the rank. */
void mbl_log_set_rank(int rank, int size);
void mbl_log_set_level(mbl_log_level_t level);
int mbl_log_rank(void);

/* Also appends every line to `path` (NULL closes), beginning with those from before it was opened. */
mbl_status_t mbl_log_open(const char *path);
/* Prints `text`, lines such as a table, on standard output, and logs every line to the file. */
void mbl_log_print(const char *text);

/* ---- a terminal with something at its lower edge (base/screen.h) ---- */

typedef struct {
    size_t columns, rows;
    bool color, utf8;
} mbl_log_look_t;
/* Called with the log's lock held. */
typedef struct {
    void (*look)(void *self, mbl_log_look_t *out);
    void (*erase)(void *self); /* before a line is printed, and */
    void (*draw)(void *self);  /* again behind it */
    void (*table)(void *self, const char *text);
    void (*progress)(void *self, const char *phase, size_t done, size_t total);
    void (*within)(void *self, double units);
    void *self;
} mbl_log_screen_t;
void mbl_log_set_screen(const mbl_log_screen_t *screen); /* NULL: none any more */
/* False where there is none. */
bool mbl_log_look(mbl_log_look_t *out);
/* Lines to stand there from now on; NULL: none. Nothing without a screen. */
void mbl_log_table(const char *text);
/* How far the phase under way is, in units of its own (total 0: nobody knows); NULL: none is. Cheap, from any
 * thread; nothing without a screen. */
void mbl_log_progress(const char *phase, size_t done, size_t total);
/* How many units, or parts of them, are done beyond those. */
void mbl_log_progress_within(double units);
/* Below warnings, nothing is printed and nothing stands there: the file has it all the same. */
void mbl_log_set_quiet(bool quiet);

/* At level info, what the table of a screen shows: printed only where there is none. */
void mbl_log_shown(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* printf format, no newline. Thread-safe. */
void mbl_log_at(mbl_log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same at level info, for what a run's log cannot do without (what it is made by and from): the file
 * takes it whatever the level is. */
void mbl_log_record(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define MBL_RECORD(...) mbl_log_record(__VA_ARGS__)
#define MBL_DEBUG(...) mbl_log_at(MBL_LOG_DEBUG, __VA_ARGS__)
#define MBL_INFO(...) mbl_log_at(MBL_LOG_INFO, __VA_ARGS__)
#define MBL_WARN(...) mbl_log_at(MBL_LOG_WARN, __VA_ARGS__)
#define MBL_ERROR(...) mbl_log_at(MBL_LOG_ERROR, __VA_ARGS__)

#endif
