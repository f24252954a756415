/* The head of the page: what the run was, what became of every reward. */
#include "report/html.h"
#include "report/page.h"

#include "base/clock.h"
#include "rl/alarms.h"
#include "run/evaluate.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

typedef enum { BETTER, WORSE, SAME, UNKNOWN } verdict_t;
static const char *const verdict_words[] = {"better", "worse", "no clear change", "no interval"};
static const char *const verdict_classes[] = {"better", "worse", "same", "same"};

/* Whether the interval of the paired difference leaves zero out, as the closing table says. */
static verdict_t judge(double change, double half) {
    return isnan(change) || isnan(half) ? UNKNOWN : change > half ? BETTER : change < -half ? WORSE : SAME;
}

void mbl_page_section(FILE *out, const char *title, const char *about) {
    fprintf(out, "<section><h2>%s</h2><p>%s</p>\n", title, about);
}

void mbl_page_legend(FILE *out, const mbl_run_data_t *data) {
    fputs("<div class=\"legend\">", out);
    for (size_t k = 0; k < data->k; k++) {
        fprintf(out, "<span class=\"c%zu\"><span class=\"dot\"></span><i>", k % 8);
        mbl_html_text(out, data->names[k]);
        fputs("</i></span>", out);
    }
    fputs("</div>\n", out);
}

/* ---- title and figures ---- */

static void tile(FILE *out, const char *about, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void tile(FILE *out, const char *about, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("<div class=\"card tile\"><b>", out);
    vfprintf(out, format, args);
    fprintf(out, "</b><span>%s</span></div>\n", about);
    va_end(args);
}

static void write_lede(FILE *out, const mbl_run_data_t *data) {
    static const char *const keys[] = {"balance.method", "model.path"};
    const char *steps = mbl_run_key(data, "train.steps"),
               *time = json_string_value(json_object_get(data->last, "time"));
    fprintf(out, "<p class=\"lede\">step %.0f", mbl_run_column(data, MBL_RUN_STEP)[data->n - 1]);
    if (steps) {
        fputs(" of ", out);
        mbl_html_text(out, steps);
    }
    fprintf(out, " &#183; %zu reward%s", data->k, data->k == 1 ? "" : "s");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = mbl_run_key(data, keys[i]), *slash = value ? strrchr(value, '/') : NULL;
        if (!value)
            continue;
        fputs(i == 0 ? " &#183; method " : " &#183; model ", out);
        mbl_html_text(out, slash && slash[1] ? slash + 1 : value);
    }
    if (time) {
        fputs(" &#183; ", out);
        mbl_html_text(out, time);
    }
    fputs("</p>\n", out);
}

/* Steps whose direction works against a reward's gradient, of those that train it (NULL: all); *measured:
 * those with cosines. */
static size_t steps_against(const mbl_run_data_t *data, const double *cosine, const double *trained,
                            size_t *measured) {
    size_t against = 0;
    *measured = 0;
    for (size_t i = 0; i < data->n; i++) {
        if (trained && !(trained[i] > 0))
            continue;
        *measured += isfinite(cosine[i]);
        against += mbl_is_against(cosine[i]);
    }
    return against;
}

static void write_tiles(FILE *out, const mbl_run_data_t *data) {
    size_t evals = json_array_size(data->evals), verdicts[4] = {0}, measured;
    char duration[32];
    fputs("<div class=\"tiles\">\n", out);
    for (size_t k = 0; evals > 1 && k < data->k; k++)
        verdicts[judge(mbl_run_eval(data, evals - 1, k, "change"),
                       mbl_run_eval(data, evals - 1, k, "change_ci95"))]++;
    if (evals > 1) {
        tile(out, "rewards better than the base model", "%zu of %zu", verdicts[BETTER], data->k);
        tile(out, "rewards worse", "%zu", verdicts[WORSE]);
    }
    size_t against = steps_against(data, mbl_run_column(data, MBL_RUN_COS_MIN), NULL, &measured);
    if (measured > 0)
        tile(out, "steps against a reward", "%zu of %zu", against, measured);
    tile(out, "images drawn", "%.0f", mbl_run_sum(data, mbl_run_column(data, MBL_RUN_IMAGES), false));
    tile(out, "in steps, without evaluations", "%s",
         mbl_duration(mbl_run_sum(data, mbl_run_column(data, MBL_RUN_TOTAL), false), duration));
    fputs("</div>\n", out);
}

/* ---- rewards before and after ---- */

/* The change with its interval, on an axis of this reward alone with zero in its middle. */
static void write_interval(FILE *out, double change, double half, size_t color) {
    enum { WIDTH = 150, MIDDLE = 75, REACH = 68 };
    double most = fabs(change) + (isfinite(half) ? half : 0), scale = most > 0 ? REACH / most : 0;
    if (isnan(change))
        return;
    fprintf(out,
            "<svg class=\"mini c%zu\" viewBox=\"0 0 %d 22\" aria-hidden=\"true\"><path class=\"grid zero\" "
            "d=\"M%d 2V20\"/>",
            color % 8, WIDTH, MIDDLE);
    if (isfinite(half))
        fprintf(out, "<path class=\"line\" d=\"M%.1f 11H%.1f\"/>", MIDDLE + scale * (change - half),
                MIDDLE + scale * (change + half));
    fprintf(out, "<circle cx=\"%.1f\" cy=\"11\" r=\"5\"/></svg>", MIDDLE + scale * change);
}

static void mean_cell(FILE *out, double mean, double half, const char *format) {
    fputs("<td>", out);
    if (isnan(mean))
        fputs("-", out);
    else
        fprintf(out, format, mean);
    if (!isnan(mean) && !isnan(half))
        fprintf(out, " <small>&#177; %.4f</small>", half);
    fputs("</td>", out);
}

static double mean_of(const double *values, size_t n) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i])) {
            sum += values[i];
            count++;
        }
    return count > 0 ? sum / count : NAN;
}

static void write_row(FILE *out, const mbl_run_data_t *data, size_t k, bool *few) {
    size_t last = json_array_size(data->evals) - 1, measured;
    double change = mbl_run_eval(data, last, k, "change"), half = mbl_run_eval(data, last, k, "change_ci95");
    double prompts = mbl_run_eval(data, last, k, "prompts");
    verdict_t verdict = judge(change, half);
    bool marked = prompts < MBL_EVAL_FEW && !isnan(half);
    *few |= marked;
    fprintf(out, "<tr><td><span class=\"c%zu\"><span class=\"dot\"></span></span>", k % 8);
    mbl_html_text(out, data->names[k]);
    fputs("</td>", out);
    mean_cell(out, mbl_run_eval(data, 0, k, "mean"), mbl_run_eval(data, 0, k, "ci95"), "%.4f");
    mean_cell(out, mbl_run_eval(data, last, k, "mean"), mbl_run_eval(data, last, k, "ci95"), "%.4f");
    mean_cell(out, change, half, "%+.4f");
    fputs("<td>", out);
    write_interval(out, change, half, k);
    fprintf(out, "</td><td class=\"%s\">%s%s</td>", verdict_classes[verdict], verdict_words[verdict],
            marked ? "*" : "");
    mean_cell(out, mean_of(mbl_run_reward(data, k, MBL_RUN_ALPHA), data->n), NAN, "%.3f");
    mean_cell(out, mean_of(mbl_run_reward(data, k, MBL_RUN_COS), data->n), NAN, "%+.3f");
    size_t against = steps_against(data, mbl_run_reward(data, k, MBL_RUN_COS),
                                   mbl_run_reward(data, k, MBL_RUN_TRAINED), &measured);
    if (measured > 0)
        fprintf(out, "<td>%zu</td></tr>\n", against);
    else
        fputs("<td>-</td></tr>\n", out);
}

void mbl_page_summary(FILE *out, const mbl_run_data_t *data) {
    size_t evals = json_array_size(data->evals);
    bool few = false;
    fputs("<h1>", out);
    mbl_html_text(out, data->title);
    fputs("</h1>\n", out);
    write_lede(out, data);
    write_tiles(out, data);
    if (evals == 0)
        return;
    mbl_page_section(
        out, "Rewards on held-out prompts",
        "Means over the same prompts from the same noise, with 95 % intervals; the change is measured "
        "image by image. The line in each row is the change and its interval, zero in the middle, each "
        "reward on its own scale.");
    fprintf(out,
            "<div class=\"card scroll\"><table><thead><tr><th>reward</th><th>step %lld</th><th>step %lld</th>"
            "<th>change</th><th></th><th></th><th>alpha</th><th>cosine</th><th>steps "
            "against</th></tr></thead><tbody>\n",
            json_integer_value(json_object_get(json_array_get(data->evals, 0), "step")),
            json_integer_value(json_object_get(json_array_get(data->evals, evals - 1), "step")));
    for (size_t k = 0; k < data->k; k++)
        write_row(out, data, k, &few);
    fputs("</tbody></table></div>\n", out);
    if (few)
        fprintf(out, "<p>* from fewer than %d prompts: such an interval says little</p>", MBL_EVAL_FEW);
    fputs("</section>\n", out);
}
