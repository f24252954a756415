/* Log lines and failure messages. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { HELD_BYTES = 1 << 15 }; /* of lines from before there is a file */

static struct {
    pthread_mutex_t lock;
    FILE *file;
    int rank, size;
    mbl_log_level_t level;
    char held[HELD_BYTES];
    size_t held_bytes, lost; /* lost: lines that had no room */
    bool deaf[2];            /* standard output and standard error, once they took no line */
    const mbl_log_screen_t *screen;
    bool quiet;
} the_log = {.lock = PTHREAD_MUTEX_INITIALIZER, .size = 1, .level = MBL_LOG_INFO};

static _Thread_local char fail_message[1024];
static _Thread_local int fail_quiet;
static _Thread_local bool fail_left_out; /* the last one, for rank 0 to log */

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

/* What was said before there was a file, once. With the lock held. */
static void write_held(FILE *file) {
    fwrite(the_log.held, 1, the_log.held_bytes, file);
    if (the_log.lost)
        fprintf(file, "(%zu more lines from before this file was opened are lost)\n", the_log.lost);
    fflush(file);
    the_log.held_bytes = the_log.lost = 0;
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
    if (file)
        write_held(file);
    pthread_mutex_unlock(&the_log.lock);
    return MBL_OK;
}

/* A line into the file or, while there is none, into what is held for it. With the lock held. */
static void keep_line(const char *where, const char *label, const char *text, size_t length) {
    char stamp[32];
    time_t now = time(NULL);
    struct tm parts;
    localtime_r(&now, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &parts);
    if (the_log.file) {
        fprintf(the_log.file, "%s %s%s%.*s\n", stamp, where, label, (int)length, text);
        fflush(the_log.file);
        return;
    }
    size_t room = sizeof the_log.held - the_log.held_bytes;
    int n = snprintf(the_log.held + the_log.held_bytes, room, "%s %s%s%.*s\n", stamp, where, label,
                     (int)length, text);
    if (n >= 0 && (size_t)n < room)
        the_log.held_bytes += (size_t)n;
    else
        the_log.lost++;
}

/* A run outlives its terminal: noted once for either stream. With the lock held. */
static void note_deaf(int which, const char *name, int error) {
    char text[160];
    if (the_log.deaf[which])
        return;
    the_log.deaf[which] = true;
    snprintf(text, sizeof text, "%s takes no more lines (%s); they are in this file alone", name,
             strerror(error));
    keep_line("", "warning: ", text, strlen(text));
}

/* ---- what stands at the lower edge of the terminal ---- */

/* Around a line that is printed. With the lock held. */
static void make_room(void) {
    if (the_log.screen)
        the_log.screen->erase(the_log.screen->self);
}

static void draw_again(void) {
    if (the_log.screen)
        the_log.screen->draw(the_log.screen->self);
}

void mbl_log_set_screen(const mbl_log_screen_t *screen) {
    pthread_mutex_lock(&the_log.lock);
    the_log.screen = screen;
    pthread_mutex_unlock(&the_log.lock);
}

/* The screen, unless nobody wants to see progress. With the lock held. */
static const mbl_log_screen_t *screen_in_use(void) {
    return the_log.quiet || the_log.level > MBL_LOG_INFO ? NULL : the_log.screen;
}

bool mbl_log_look(mbl_log_look_t *out) {
    pthread_mutex_lock(&the_log.lock);
    const mbl_log_screen_t *screen = screen_in_use();
    if (screen)
        screen->look(screen->self, out);
    bool there = screen != NULL;
    pthread_mutex_unlock(&the_log.lock);
    return there;
}

void mbl_log_table(const char *text) {
    pthread_mutex_lock(&the_log.lock);
    const mbl_log_screen_t *screen = screen_in_use();
    if (screen)
        screen->table(screen->self, text);
    pthread_mutex_unlock(&the_log.lock);
}

void mbl_log_progress(const char *phase, size_t done, size_t total) {
    pthread_mutex_lock(&the_log.lock);
    const mbl_log_screen_t *screen = screen_in_use();
    if (screen)
        screen->progress(screen->self, phase, done, total);
    pthread_mutex_unlock(&the_log.lock);
}

void mbl_log_progress_within(double units) {
    pthread_mutex_lock(&the_log.lock);
    const mbl_log_screen_t *screen = screen_in_use();
    if (screen)
        screen->within(screen->self, units);
    pthread_mutex_unlock(&the_log.lock);
}

void mbl_log_set_quiet(bool quiet) {
    the_log.quiet = quiet;
}

/* ---- lines ---- */

void mbl_log_print(const char *text) {
    pthread_mutex_lock(&the_log.lock);
    make_room();
    if (fputs(text, stdout) == EOF || fflush(stdout) != 0) {
        note_deaf(0, "standard output", errno);
        (void)!freopen("/dev/null", "w", stdout);
    }
    while (*text) {
        size_t length = strcspn(text, "\n");
        keep_line("", "", text, length);
        text += length + (text[length] == '\n');
    }
    draw_again();
    pthread_mutex_unlock(&the_log.lock);
}

/* `record`: into the file whatever the level; `shown_anyway`: a screen shows it in its own way. */
static void log_line(mbl_log_level_t level, bool record, bool shown_anyway, const char *text) {
    static const char *const labels[] = {"debug: ", "", "warning: ", "error: ", ""};
    char where[32] = "";
    bool shown = level >= the_log.level;
    if ((!shown && !record) || (the_log.rank != 0 && level < MBL_LOG_WARN))
        return;
    if (the_log.size > 1 && level >= MBL_LOG_WARN)
        snprintf(where, sizeof where, "[rank %d] ", the_log.rank);
    pthread_mutex_lock(&the_log.lock);
    bool printed = shown && !(the_log.quiet && level < MBL_LOG_WARN) && !(shown_anyway && screen_in_use());
    if (printed)
        make_room();
    if (printed && fprintf(stderr, "%s%s%s%s\n", level >= MBL_LOG_WARN ? "marble: " : "", where,
                           labels[level], text) < 0)
        note_deaf(1, "standard error", errno);
    if (printed)
        draw_again();
    keep_line(where, labels[level], text, strlen(text));
    pthread_mutex_unlock(&the_log.lock);
}

void mbl_log_at(mbl_log_level_t level, const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_line(level, false, false, text);
}

void mbl_log_record(const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_line(MBL_LOG_INFO, true, false, text);
}

void mbl_log_shown(const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_line(MBL_LOG_INFO, false, true, text);
}

mbl_status_t mbl_fail_at(const char *file, int line, mbl_status_t status, const char *format, ...) {
    char text[sizeof fail_message]; /* the message before may be one of the arguments */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(fail_message, text, strlen(text) + 1);
    fail_left_out = false;
    if (fail_quiet > 0)
        return status;
    int users_own = status == MBL_ERR_CONFIG || status == MBL_ERR_USAGE || status == MBL_ERR_ALARM;
    fail_left_out = users_own && the_log.rank != 0;
    if (!fail_left_out)
        log_line(MBL_LOG_ERROR, false, false, fail_message);
    if (!users_own)
        mbl_log_at(MBL_LOG_DEBUG, "  %s at %s:%d", mbl_status_name(status), file, line);
    return status;
}

void mbl_fail_show(void) {
    if (fail_left_out)
        log_line(MBL_LOG_ERROR, false, false, fail_message);
    fail_left_out = false;
}

const char *mbl_fail_message(void) {
    return fail_message;
}

void mbl_fail_quiet(int on) {
    fail_quiet += on ? 1 : -1;
}

bool mbl_fail_is_quiet(void) {
    return fail_quiet > 0;
}
