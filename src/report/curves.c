/* The curves of the page: rewards, weights, cosines, losses by step. */
#include "report/html.h"
#include "report/page.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { SMALL = 240, LARGE = 480 }; /* places that a curve is shortened to */

typedef struct {
    FILE *out;
    const mbl_run_data_t *data;
    double *room; /* for the places and values of a chart's curves */
    double x0, x1;
} curves_t;

/* A curve in the i-th piece of the room, shortened. */
static mbl_svg_series_t curve(const curves_t *c, size_t i, const double *y, bool smooth, size_t most) {
    size_t n = c->data->n;
    double *x = c->room + 2 * i * n, *value = x + n;
    memcpy(x, mbl_run_column(c->data, MBL_RUN_STEP), n * sizeof *x);
    if (smooth)
        mbl_svg_smooth(y, n, value);
    else
        memcpy(value, y, n * sizeof *value);
    size_t left = mbl_svg_shorten(x, value, n, most);
    return (mbl_svg_series_t){.x = x, .y = value, .n = left, .style = MBL_SVG_LINE};
}

static bool any(const double *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (isfinite(y[i]))
            return true;
    return false;
}

/* ---- rewards ---- */

/* Evaluations of reward k behind the room of the curves. */
static mbl_svg_series_t evaluations(const curves_t *c, size_t k) {
    size_t n = json_array_size(c->data->evals);
    double *x = c->room + 2 * (c->data->k + 2) * c->data->n, *y = x + n, *half = y + n;
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)json_integer_value(json_object_get(json_array_get(c->data->evals, i), "step"));
        y[i] = mbl_run_eval(c->data, i, k, "mean");
        half[i] = mbl_run_eval(c->data, i, k, "ci95");
    }
    return (mbl_svg_series_t){.x = x, .y = y, .half = half, .n = n, .style = MBL_SVG_DOTS};
}

static void write_rewards(const curves_t *c) {
    mbl_page_section(
        c->out, "Rewards in training",
        "Faint: the mean score of each step's images, from ever new prompts. Solid: the same, smoothed. "
        "Dots: the held-out prompts with their 95 % intervals.");
    fputs("<div class=\"grid\">\n", c->out);
    for (size_t k = 0; k < c->data->k; k++) {
        const double *y = mbl_run_reward(c->data, k, MBL_RUN_MEAN);
        mbl_svg_series_t series[] = {curve(c, 0, y, false, SMALL), curve(c, 1, y, true, SMALL),
                                     evaluations(c, k)};
        series[0].style = MBL_SVG_FAINT;
        for (size_t i = 0; i < 3; i++)
            series[i].color = k;
        fputs("<div class=\"card\"><h3>", c->out);
        mbl_html_text(c->out, c->data->names[k]);
        fputs("</h3>", c->out);
        mbl_svg_chart_t chart = {.title = c->data->names[k],
                                 .width = 340,
                                 .height = 190,
                                 .x0 = c->x0,
                                 .x1 = c->x1,
                                 .y0 = NAN,
                                 .y1 = NAN};
        mbl_svg_chart(c->out, &chart, series, 3);
        fputs("</div>\n", c->out);
    }
    fputs("</div></section>\n", c->out);
}

/* ---- weights, cosines ---- */

static void write_alpha(const curves_t *c, mbl_svg_series_t *series) {
    size_t n = 0;
    bool solved = false;
    for (size_t k = 0; k < c->data->k; k++) {
        const double *y = mbl_run_reward(c->data, k, MBL_RUN_ALPHA);
        solved |= any(y, c->data->n);
        series[n] = curve(c, n, y, false, LARGE);
        series[n].name = c->data->names[k];
        series[n++].color = k;
    }
    if (!solved)
        return;
    mbl_page_section(c->out, "Weights",
                     "Alpha, the share that each reward's unit gradient has in a step. They sum to one, "
                     "except under weighted_sum and gdpo, where they are the weights as given.");
    fputs("<div class=\"card\">", c->out);
    mbl_page_legend(c->out, c->data);
    mbl_svg_chart_t chart = {.title = "alpha of every reward by step",
                             .width = 1040,
                             .height = 260,
                             .x0 = c->x0,
                             .x1 = c->x1,
                             .y0 = 0,
                             .y1 = 1,
                             .stacked = true};
    mbl_svg_chart(c->out, &chart, series, n);
    fputs("</div></section>\n", c->out);
}

static void write_cosines(const curves_t *c, mbl_svg_series_t *series) {
    size_t n = 0;
    for (size_t k = 0; k < c->data->k; k++) {
        const double *y = mbl_run_reward(c->data, k, MBL_RUN_COS);
        if (!any(y, c->data->n))
            continue;
        series[n] = curve(c, n, y, true, LARGE);
        series[n].name = c->data->names[k];
        series[n++].color = k;
    }
    if (n == 0)
        return;
    mbl_page_section(
        c->out, "Agreement",
        "Cosine of each step's direction with the gradient of every reward, smoothed; the faint line is "
        "the least of them in each step. Below zero a step works against that reward.");
    fputs("<div class=\"card\">", c->out);
    mbl_page_legend(c->out, c->data);
    series[n] = curve(c, n, mbl_run_column(c->data, MBL_RUN_COS_MIN), false, LARGE);
    series[n].color = 6;
    series[n].name = "least";
    series[n++].style = MBL_SVG_FAINT;
    mbl_svg_chart_t chart = {.title = "cosine of the step with every reward's gradient",
                             .width = 1040,
                             .height = 280,
                             .x0 = c->x0,
                             .x1 = c->x1,
                             .y0 = NAN,
                             .y1 = NAN,
                             .zero = true};
    mbl_svg_chart(c->out, &chart, series, n);
    fputs("</div></section>\n", c->out);
}

/* ---- the policy ---- */

static void write_training(const curves_t *c) {
    static const struct {
        size_t column;
        const char *title;
    } charts[] = {{MBL_RUN_LOSS, "loss, without the KL term"},
                  {MBL_RUN_KL, "KL: distance from the base model's velocity"},
                  {MBL_RUN_GRAD_NORM, "length of the direction"},
                  {MBL_RUN_OLD_LAG, "lag of the rollout policy"},
                  {MBL_RUN_LR, "learning rate"}};
    mbl_page_section(c->out, "Training", "What the optimizer saw, by step.");
    fputs("<div class=\"grid\">\n", c->out);
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        const double *y = mbl_run_column(c->data, charts[i].column);
        if (!any(y, c->data->n))
            continue;
        mbl_svg_series_t series = curve(c, 0, y, false, SMALL);
        mbl_svg_chart_t chart = {.title = charts[i].title,
                                 .width = 340,
                                 .height = 160,
                                 .x0 = c->x0,
                                 .x1 = c->x1,
                                 .y0 = NAN,
                                 .y1 = NAN};
        fprintf(c->out, "<div class=\"card\"><h3>%s</h3>", charts[i].title);
        mbl_svg_chart(c->out, &chart, &series, 1);
        fputs("</div>\n", c->out);
    }
    fputs("</div></section>\n", c->out);
}

mbl_status_t mbl_page_curves(FILE *out, const mbl_run_data_t *data) {
    curves_t c = {.out = out, .data = data};
    mbl_svg_series_t *series;
    size_t evals = json_array_size(data->evals);
    const double *steps = mbl_run_column(data, MBL_RUN_STEP);
    MBL_ALLOC(c.room, 2 * (data->k + 2) * data->n + 3 * (evals + 1));
    series = mbl_calloc(data->k + 2, sizeof *series);
    if (!series) {
        mbl_free(c.room);
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its curves", data->folder);
    }
    c.x0 = evals > 0 ? 0 : steps[0];
    c.x1 = steps[data->n - 1];
    write_rewards(&c);
    write_alpha(&c, series);
    write_cosines(&c, series);
    write_training(&c);
    mbl_free(series);
    mbl_free(c.room);
    return MBL_OK;
}
