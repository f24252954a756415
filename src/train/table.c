/* The live table of training. */
#include "train/table.h"

#include "base/clock.h"
#include "base/screen.h"
#include "base/unicode.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the course of the rewards ---- */

/* Two neighbours become one: the course of any number of steps has room. */
static void halve(mbl_train_table_t *t, size_t k) {
    for (size_t i = 0; i < MBL_TABLE_COURSE / 2; i++) {
        double a = t->course[k][2 * i], b = t->course[k][2 * i + 1];
        t->course[k][i] = isnan(a) ? b : isnan(b) ? a : (a + b) / 2;
    }
}

static void next_cell(mbl_train_table_t *t, size_t k_all) {
    if (t->filled == MBL_TABLE_COURSE) {
        for (size_t k = 0; k < k_all; k++)
            halve(t, k);
        t->filled /= 2;
        t->every *= 2;
    }
    for (size_t k = 0; k < k_all; k++) {
        t->course[k][t->filled] = NAN;
        t->taken[k] = 0;
    }
    t->filled++;
    t->steps = 0;
}

static void add_step(mbl_train_table_t *t, const mbl_reward_stats_t *stats, size_t k_all) {
    if (t->every == 0)
        t->every = 1;
    if (t->filled == 0 || t->steps >= t->every)
        next_cell(t, k_all);
    t->steps++;
    for (size_t k = 0; k < k_all; k++) {
        double *cell = &t->course[k][t->filled - 1];
        if (stats[k].valid == 0)
            continue;
        *cell = t->taken[k] == 0 ? stats[k].mean
                                 : (*cell * (double)t->taken[k] + stats[k].mean) / (double)(t->taken[k] + 1);
        t->taken[k]++;
    }
}

void mbl_table_evaluated(mbl_train_table_t *t, const mbl_event_eval_t *e, size_t k) {
    if (!e->change)
        return;
    memcpy(t->now, e->scores, k * sizeof *t->now);
    memcpy(t->change, e->change, k * sizeof *t->change);
    t->evaluated = true;
}

/* ---- the text ---- */

typedef struct {
    mbl_log_look_t look;
    char text[MBL_SCREEN_TEXT];
    size_t used;
    size_t name;  /* columns of the rewards' names */
    bool more[5]; /* which of base, alpha, cos, step, trend there is room for */
} page_t;

static void add(page_t *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(page_t *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(p->text + p->used, sizeof p->text - p->used, format, args);
    va_end(args);
    if (n > 0)
        p->used += (size_t)n < sizeof p->text - p->used ? (size_t)n : sizeof p->text - p->used - 1;
}

static const char *paint(const page_t *p, const char *sequence) {
    return p->look.color ? sequence : "";
}

static size_t columns_of(const char *text) {
    size_t columns = 0;
    uint32_t c;
    for (size_t left = strlen(text), used; left > 0; left -= used, text += used) {
        used = mbl_utf8_decode(text, left, &c);
        columns += mbl_unicode_width(c);
    }
    return columns;
}

static void add_name(page_t *p, const char *name) {
    size_t columns = columns_of(name);
    add(p, " %s%*s", name, (int)(p->name > columns ? p->name - columns : 0), "");
}

static void add_number(page_t *p, double value, const char *format) {
    char text[32] = "-";
    if (isfinite(value))
        snprintf(text, sizeof text, format, value);
    add(p, " %8s", text);
}

enum { BASE, ALPHA, COSINE, STEP, TREND };

/* Narrow terminals lose the columns that say least about a reward. */
static void choose_columns(page_t *p) {
    static const struct {
        int column;
        size_t width;
    } order[] = {{ALPHA, 9}, {COSINE, 9}, {STEP, 9}, {BASE, 9}, {TREND, MBL_TABLE_COURSE + 2}};
    size_t used = p->name + 1 + 2 * 9 + 1;
    for (size_t i = 0; i < sizeof order / sizeof *order && used + order[i].width <= p->look.columns; i++) {
        p->more[order[i].column] = true;
        used += order[i].width;
    }
}

static void add_head(page_t *p) {
    static const char *const names[] = {"base", "alpha", "cos", "step", "course"};
    add(p, "%s", paint(p, "\033[1m"));
    add_name(p, "reward");
    if (p->more[BASE])
        add(p, " %8s", names[BASE]);
    add(p, " %8s %8s", "now", "change");
    if (p->more[ALPHA])
        add(p, " %8s", names[ALPHA]);
    if (p->more[COSINE])
        add(p, " %8s", names[COSINE]);
    if (p->more[STEP])
        add(p, " %8s", names[STEP]);
    if (p->more[TREND])
        add(p, "  %s", names[TREND]);
    add(p, "%s\n", paint(p, "\033[0m"));
}

/* Green or red where the interval of the change leaves zero out. */
static const char *change_colour(const page_t *p, const mbl_eval_score_t *change) {
    return !p->look.color || isnan(change->ci95) ? ""
           : change->mean > change->ci95         ? "\033[32m"
           : change->mean < -change->ci95        ? "\033[31m"
                                                 : "";
}

static void add_row(page_t *p, const mbl_train_table_t *t, const mbl_event_step_t *r, size_t k,
                    const mbl_eval_score_t *base) {
    const mbl_balance_step_t *balance = &r->update->balance;
    const char *name = r->state->engine->config->rewards.items[k].name;
    bool shared = r->update->balanced && (!r->solves || balance->n_used > 0);
    char course[3 * MBL_TABLE_COURSE + 1];
    add_name(p, name);
    if (p->more[BASE])
        add_number(p, base[k].n > 0 ? base[k].mean : NAN, "%.3f");
    add_number(p, t->evaluated && t->now[k].n > 0 ? t->now[k].mean : NAN, "%.3f");
    add(p, "%s", t->evaluated ? change_colour(p, &t->change[k]) : "");
    add_number(p, t->evaluated && t->change[k].n > 0 ? t->change[k].mean : NAN, "%+.3f");
    add(p, "%s", paint(p, "\033[0m"));
    if (p->more[ALPHA])
        add_number(p, shared ? balance->alpha[k] : NAN, "%.2f");
    if (p->more[COSINE])
        add_number(p, shared && r->update->cosines && balance->measured[k] ? balance->cos[k] : NAN, "%+.2f");
    if (p->more[STEP])
        add_number(p, r->stats[k].valid > 0 ? r->stats[k].mean : NAN, "%.3f");
    if (p->more[TREND])
        add(p, "  %s", mbl_screen_spark(&p->look, t->course[k], t->filled, course));
    add(p, "\n");
}

static void add_run(page_t *p, const mbl_event_step_t *r) {
    const mbl_config_t *config = r->state->engine->config;
    char bar[128], left[32];
    size_t width = p->look.columns > 100 ? 24 : 12;
    add(p, " step %llu/%zu  %s  %.2g s a step  %.3g images/s", (unsigned long long)r->step,
        config->train.steps,
        mbl_screen_bar(&p->look, (double)r->step / (double)config->train.steps, width, bar), r->seconds.total,
        r->seconds.total > 0 ? r->samples / r->seconds.total : 0);
    if (r->seconds_left >= 0)
        add(p, "  %s left", mbl_duration(r->seconds_left, left));
    add(p, "\n");
}

void mbl_table_step(mbl_train_table_t *t, const mbl_event_step_t *r, const mbl_eval_score_t *base) {
    const mbl_config_t *config = r->state->engine->config;
    size_t k_all = config->rewards.count, shown = k_all;
    page_t p = {.name = 6};
    add_step(t, r->stats, k_all);
    if (!mbl_log_look(&p.look))
        return;
    for (size_t k = 0; k < k_all; k++) {
        size_t columns = columns_of(config->rewards.items[k].name);
        p.name = columns > p.name ? columns : p.name;
    }
    p.name = p.name > p.look.columns / 3 ? p.look.columns / 3 : p.name;
    choose_columns(&p);
    size_t rest = 5; /* head, run, phase, the line that a message scrolls in, the cursor's */
    if (p.look.rows < rest + k_all)
        shown = p.look.rows > rest + 2 ? p.look.rows - rest - 1 : 0;
    if (shown > 0)
        add_head(&p);
    for (size_t k = 0; k < shown; k++)
        add_row(&p, t, r, k, base);
    if (shown > 0 && shown < k_all)
        add(&p, " +%zu more\n", k_all - shown);
    add_run(&p, r);
    mbl_log_table(p.text);
}
