/* Log lines and failure messages. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static struct {
    pthread_mutex_t lock;
    FILE *file;
    int rank, size;
    mbl_log_level_t level;
} the_log = {PTHREAD_MUTEX_INITIALIZER, NULL, 0, 1, MBL_LOG_INFO};

static _Thread_local char fail_message[1024];
static _Thread_local int fail_quiet;

const char *mbl_status_name(mbl_status_t status) {
    static const char *const names[] = {
#define NAME(code, text) #code,
        MBL_STATUS_LIST(NAME)
#undef NAME
    };
    return (unsigned)status < MBL_STATUS_COUNT ? names[status] : "unknown";
}

const char *mbl_status_text(mbl_status_t status) {
    static const char *const texts[] = {
#define TEXT(code, text) text,
        MBL_STATUS_LIST(TEXT)
#undef TEXT
    };
    return (unsigned)status < MBL_STATUS_COUNT ? texts[status] : "unknown";
}

int mbl_status_exit_code(mbl_status_t status) {
    switch (status) {
    case MBL_OK:
        return 0;
    case MBL_ERR_USAGE:
    case MBL_ERR_CONFIG:
        return 2;
    case MBL_ERR_DEVICE:
        return 71; /* EX_OSERR: another machine may do better; Slurm scripts avoid this one from then on */
    case MBL_ERR_STOPPED:
        return 75; /* EX_TEMPFAIL of sysexits.h: Slurm scripts resubmit on it */
    default:
        return 1;
    }
}

void mbl_log_set_rank(int rank, int size) {
    the_log.rank = rank;
    the_log.size = size;
}

void mbl_log_set_level(mbl_log_level_t level) {
    the_log.level = level;
}

int mbl_log_rank(void) {
    return the_log.rank;
}

mbl_status_t mbl_log_open(const char *path) {
    FILE *file = NULL;
    if (path) {
        file = fopen(path, "a");
        if (!file)
            return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened for the log", path);
    }
    pthread_mutex_lock(&the_log.lock);
    if (the_log.file)
        fclose(the_log.file);
    the_log.file = file;
    pthread_mutex_unlock(&the_log.lock);
    return MBL_OK;
}

static void log_line(mbl_log_level_t level, const char *text) {
    static const char *const labels[] = {"debug: ", "", "warning: ", "error: ", ""};
    char where[32] = "", stamp[32];
    time_t now = time(NULL);
    struct tm parts;
    if (level < the_log.level || (the_log.rank != 0 && level < MBL_LOG_WARN))
        return;
    if (the_log.size > 1 && level >= MBL_LOG_WARN)
        snprintf(where, sizeof where, "[rank %d] ", the_log.rank);
    localtime_r(&now, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &parts);
    pthread_mutex_lock(&the_log.lock);
    fprintf(stderr, "%s%s%s%s\n", level >= MBL_LOG_WARN ? "marble: " : "", where, labels[level], text);
    if (the_log.file) {
        fprintf(the_log.file, "%s %s%s%s\n", stamp, where, labels[level], text);
        fflush(the_log.file);
    }
    pthread_mutex_unlock(&the_log.lock);
}

void mbl_log_at(mbl_log_level_t level, const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_line(level, text);
}

mbl_status_t mbl_fail_at(const char *file, int line, mbl_status_t status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(fail_message, sizeof fail_message, format, args);
    va_end(args);
    if (fail_quiet > 0)
        return status;
    int users_own = status == MBL_ERR_CONFIG || status == MBL_ERR_USAGE || status == MBL_ERR_ALARM;
    if (!users_own || the_log.rank == 0)
        log_line(MBL_LOG_ERROR, fail_message);
    if (!users_own)
        mbl_log_at(MBL_LOG_DEBUG, "  %s at %s:%d", mbl_status_name(status), file, line);
    return status;
}

const char *mbl_fail_message(void) {
    return fail_message;
}

void mbl_fail_quiet(int on) {
    fail_quiet += on ? 1 : -1;
}
