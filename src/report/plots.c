/* Charts of a run as PNG files. */
#include "report/plots.h"

#include "report/html.h"

#include "base/mem.h"
#include "data/chart.h"
#include "run/rundir.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { PLACES = 600 }; /* of a curve: what 800 pixels show */

typedef struct {
    double *x, *y, *half; /* [n]; [lines, n] */
    size_t n, lines;
    mbl_chart_line_t line[MBL_CHART_MAX_LINES];
} plot_t;

static mbl_status_t make_plot(size_t n, size_t lines, plot_t *out) {
    *out = (plot_t){.n = n};
    MBL_ALLOC(out->x, n * (1 + 2 * lines));
    out->y = out->x + n;
    out->half = out->y + n * lines;
    return MBL_OK;
}

static mbl_status_t put_plot(const plot_t *plot, const char *title, const char *folder, const char *name) {
    char path[PATH_MAX];
    mbl_image_t image;
    if (plot->lines == 0 || plot->n == 0)
        return MBL_OK;
    MBL_TRY(mbl_rundir_join(folder, name, path, sizeof path));
    MBL_TRY(mbl_chart_draw(title, plot->x, plot->n, plot->line, plot->lines, &image));
    mbl_status_t status = mbl_image_write_png(path, &image);
    mbl_image_free(&image);
    return status;
}

/* Change from the base model, in scores, by evaluation. */
static mbl_status_t plot_rewards(const mbl_run_data_t *data, const char *folder) {
    size_t n = json_array_size(data->evals);
    plot_t plot;
    if (n < 2)
        return MBL_OK;
    MBL_TRY(make_plot(n, data->k, &plot));
    for (size_t i = 0; i < n; i++)
        plot.x[i] = (double)json_integer_value(json_object_get(json_array_get(data->evals, i), "step"));
    for (size_t k = 0; k < data->k && k < MBL_CHART_MAX_LINES; k++) {
        double *y = plot.y + k * n, *half = plot.half + k * n;
        for (size_t i = 0; i < n; i++) {
            y[i] = mbl_run_eval(data, i, k, "change");
            half[i] = mbl_run_eval(data, i, k, "change_ci95");
        }
        if (isnan(y[0]) && plot.x[0] == 0)
            y[0] = 0; /* the base model itself */
        plot.line[plot.lines++] = (mbl_chart_line_t){.name = data->names[k], .y = y, .half = half};
    }
    mbl_status_t status = put_plot(&plot, "change on held-out prompts by optimizer step, 95 % intervals",
                                   folder, "rewards.png");
    mbl_free(plot.x);
    return status;
}

/* A column of every reward by step. */
static mbl_status_t plot_column(const mbl_run_data_t *data, size_t column, bool smooth, const char *title,
                                const char *folder, const char *name) {
    size_t n = data->n, left = n;
    mbl_status_t status = MBL_OK;
    plot_t plot;
    double *x;
    MBL_TRY(make_plot(n, data->k, &plot));
    MBL_ALLOC_GOTO(x, n, fail);
    for (size_t k = 0; k < data->k && k < MBL_CHART_MAX_LINES; k++) {
        double *y = plot.y + k * n;
        const double *from = mbl_run_reward(data, k, column);
        bool any = false;
        for (size_t i = 0; i < n; i++)
            any |= isfinite(from[i]);
        if (!any)
            continue;
        if (smooth)
            mbl_svg_smooth(from, n, y);
        else
            memcpy(y, from, n * sizeof *y);
        memcpy(x, mbl_run_column(data, MBL_RUN_STEP), n * sizeof *x);
        left = mbl_svg_shorten(x, y, n, PLACES);
        plot.line[plot.lines++] = (mbl_chart_line_t){.name = data->names[k], .y = y};
    }
    memcpy(plot.x, x, left * sizeof *x);
    plot.n = left;
    mbl_free(x);
    status = put_plot(&plot, title, folder, name);
fail:
    mbl_free(plot.x);
    return status;
}

mbl_status_t mbl_plots_write(const mbl_run_data_t *data, const char *folder) {
    MBL_TRY(plot_rewards(data, folder));
    MBL_TRY(plot_column(data, MBL_RUN_ALPHA, false, "alpha by optimizer step", folder, "alpha.png"));
    return plot_column(data, MBL_RUN_COS, true, "cosine of the step with every reward's gradient, smoothed",
                       folder, "cosines.png");
}
