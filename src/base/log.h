/* The log: one line per call, to stderr and (when opened) to DIR/log.txt. The only process-wide state of the
 * program. */
#ifndef MBL_BASE_LOG_H
#define MBL_BASE_LOG_H

#include "base/status.h"

typedef enum { MBL_LOG_DEBUG, MBL_LOG_INFO, MBL_LOG_WARN, MBL_LOG_ERROR, MBL_LOG_OFF } mbl_log_level_t;

/* Sets who speaks: below rank 0 only warnings and errors are printed, prefixed with the rank. */
void mbl_log_set_rank(int rank, int size);
void mbl_log_set_level(mbl_log_level_t level);
int mbl_log_rank(void);

/* Also appends every line to `path` (NULL closes), beginning with those from before it was opened. */
mbl_status_t mbl_log_open(const char *path);
/* Prints `text`, lines such as a table, on standard output, and logs every line to the file. */
void mbl_log_print(const char *text);

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
