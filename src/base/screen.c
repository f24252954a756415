/* Drawing at the lower edge of a terminal. */
#include "base/screen.h"

#include "base/clock.h"
#include "base/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_S 0.1 /* no more often, or slow connections lag behind */

/* ---- pieces ---- */

char *mbl_screen_bar(const mbl_log_look_t *look, double share, size_t width, char *out) {
    static const char *const parts[] = {"",       "\u258f", "\u258e", "\u258d",
                                        "\u258c", "\u258b", "\u258a", "\u2589"};
    double full = (share > 0 ? share < 1 ? share : 1 : 0) * (double)width;
    size_t whole = (size_t)full, eighth = (size_t)((full - (double)whole) * 8), used = 0;
    char *to = out;
    for (; used < whole; used++)
        to += sprintf(to, "%s", look->utf8 ? "\u2588" : "#");
    if (look->utf8 && used < width && eighth > 0) {
        to += sprintf(to, "%s", parts[eighth]);
        used++;
    }
    for (; used < width; used++)
        to += sprintf(to, "%s", look->utf8 ? "\u00b7" : ".");
    *to = 0;
    return out;
}

char *mbl_screen_spark(const mbl_log_look_t *look, const double *values, size_t n, char *out) {
    static const char *const high[] = {"\u2581", "\u2582", "\u2583", "\u2584",
                                       "\u2585", "\u2586", "\u2587", "\u2588"};
    static const char *const plain[] = {"_", "_", ".", ".", "-", "-", "=", "^"};
    double least = INFINITY, most = -INFINITY;
    char *to = out;
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i])) {
            least = fmin(least, values[i]);
            most = fmax(most, values[i]);
        }
    for (size_t i = 0; i < n; i++) {
        double share = most > least ? (values[i] - least) / (most - least) : 0.5;
        if (!isfinite(values[i]))
            to += sprintf(to, " ");
        else
            to += sprintf(to, "%s", (look->utf8 ? high : plain)[(size_t)fmin(7, floor(share * 8))]);
    }
    *to = 0;
    return out;
}

/* ---- the terminal ---- */

static void look_at(void *self, mbl_log_look_t *out) {
    const mbl_screen_t *screen = self;
    struct winsize size;
    *out = screen->given;
    if (isatty(STDERR_FILENO) && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 &&
        size.ws_row > 0) {
        out->columns = size.ws_col;
        out->rows = size.ws_row;
    }
}

static void put(const char *text, size_t size) {
    while (size > 0) {
        ssize_t n = write(STDERR_FILENO, text, size);
        if (n <= 0)
            return;
        text += n;
        size -= (size_t)n;
    }
}

/* One line cut to `most` columns, sequences that set colours passed on; returns the columns it takes. */
static size_t cut_line(const char *line, size_t length, size_t most, FILE *out) {
    size_t columns = 0;
    bool coloured = false;
    for (size_t at = 0; at < length;) {
        uint32_t c;
        size_t used =
            line[at] == '\033' ? strcspn(line + at, "m") + 1 : mbl_utf8_decode(line + at, length - at, &c);
        bool sequence = line[at] == '\033';
        size_t width = sequence ? 0 : mbl_unicode_width(c);
        if (columns + width > most)
            break;
        if (sequence || c >= 0x20)
            fwrite(line + at, 1, used, out);
        columns += width;
        coloured |= sequence;
        at += used;
    }
    fputs(coloured ? "\033[0m\033[K\n" : "\033[K\n", out);
    return columns;
}

/* Rows that the lines shown take now: the terminal breaks those that have become too long for it. */
static size_t rows_shown(const mbl_screen_t *screen, size_t columns) {
    size_t rows = 0;
    for (size_t i = 0; i < screen->n; i++)
        rows += screen->columns[i] > columns ? (screen->columns[i] + columns - 1) / columns : 1;
    return rows;
}

static void write_phase(const mbl_screen_t *screen, const mbl_log_look_t *look, char *out, size_t size) {
    char bar[256], count[64] = "";
    size_t used = strlen(screen->phase) + 2, width;
    if (screen->total > 0)
        used += (size_t)snprintf(count, sizeof count, "  %zu/%zu", screen->done, screen->total);
    width = look->columns > used + 2 ? look->columns - used - 2 : 0;
    width = width < 40 ? width : 40;
    if (screen->total == 0 || width < 4)
        snprintf(out, size, "%s%s%s", screen->phase, screen->total ? "" : " ...", count);
    else
        snprintf(
            out, size, "%s  %s%s", screen->phase,
            mbl_screen_bar(look, ((double)screen->done + screen->within) / (double)screen->total, width, bar),
            count);
}

/* The table as far as the terminal is high enough for it, then the phase. */
static void write_lines(mbl_screen_t *screen, const mbl_log_look_t *look, FILE *out) {
    char phase[512];
    size_t room = look->rows > 2 ? look->rows - 2 : 0, lines = 0;
    screen->n = 0;
    for (const char *c = screen->table; *c; c++)
        lines += *c == '\n';
    for (const char *line = screen->table; *line && lines <= room && screen->n < MBL_SCREEN_LINES - 1;) {
        size_t length = strcspn(line, "\n");
        screen->columns[screen->n++] = cut_line(line, length, look->columns - 1, out);
        line += length + (line[length] == '\n');
    }
    if (screen->phase[0] || screen->table[0]) { /* below a table its line stays: nothing jumps */
        phase[0] = 0;
        if (screen->phase[0])
            write_phase(screen, look, phase, sizeof phase);
        screen->columns[screen->n++] = cut_line(phase, strlen(phase), look->columns - 1, out);
    }
}

/* Over what is shown, in one piece, so that nothing flickers. */
static void redraw(mbl_screen_t *screen, bool blank) {
    mbl_log_look_t look;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    look_at(screen, &look);
    size_t up = rows_shown(screen, look.columns);
    if (up > 0)
        fprintf(out, "\033[%zuA\r", up);
    if (blank || look.columns < 8)
        screen->n = 0;
    else
        write_lines(screen, &look, out);
    if (up > screen->n)
        fputs("\033[J", out);
    if (fclose(out) == 0)
        put(text, size);
    free(text);
    screen->drawn = mbl_now();
}

static void erase(void *self) {
    redraw(self, true);
}

static void draw(void *self) {
    redraw(self, false);
}

static void set_table(void *self, const char *text) {
    mbl_screen_t *screen = self;
    snprintf(screen->table, sizeof screen->table, "%s", text ? text : "");
    redraw(screen, false);
}

static void set_progress(void *self, const char *phase, size_t done, size_t total) {
    mbl_screen_t *screen = self;
    bool other = strcmp(screen->phase, phase ? phase : "") != 0;
    snprintf(screen->phase, sizeof screen->phase, "%s", phase ? phase : "");
    screen->done = done;
    screen->total = total;
    screen->within = 0;
    if (other || mbl_now() - screen->drawn >= REDRAW_S)
        redraw(screen, false);
}

static void set_within(void *self, double units) {
    mbl_screen_t *screen = self;
    screen->within = units;
    if (screen->phase[0] && mbl_now() - screen->drawn >= REDRAW_S)
        redraw(screen, false);
}

/* ---- opening ---- */

static bool says_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) /* the first that is set decides */
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

/* COLUMNSxROWS of MARBLE_TERMINAL into *look; false, and *look as it was, without. */
static bool read_size(mbl_log_look_t *look) {
    const char *given = getenv("MARBLE_TERMINAL");
    size_t columns, rows;
    if (!given || sscanf(given, "%zux%zu", &columns, &rows) != 2 || columns == 0 || rows == 0)
        return false;
    look->columns = columns;
    look->rows = rows;
    return true;
}

bool mbl_screen_there(void) {
    mbl_log_look_t look;
    return isatty(STDERR_FILENO) || read_size(&look);
}

bool mbl_screen_open(mbl_screen_t *screen) {
    const char *term = getenv("TERM"), *plain = getenv("NO_COLOR");
    mbl_log_look_t look = {.columns = 80, .rows = 24, .color = !(plain && *plain), .utf8 = says_utf8()};
    memset(screen, 0, sizeof *screen);
    if (mbl_log_rank() != 0 || !mbl_screen_there() || !term || !*term || strcmp(term, "dumb") == 0)
        return false;
    (void)read_size(&look);
    screen->given = look;
    screen->hooks = (mbl_log_screen_t){look_at, erase, draw, set_table, set_progress, set_within, screen};
    mbl_log_set_screen(&screen->hooks);
    return true;
}

void mbl_screen_close(mbl_screen_t *screen) {
    if (!screen->hooks.self)
        return;
    mbl_log_set_screen(NULL);
    redraw(screen, true);
    memset(screen, 0, sizeof *screen);
}
