/* The end of the page: what the run cost, its alarms, its configuration. */
#include "report/html.h"
#include "report/page.h"

#include "base/clock.h"
#include "base/version.h"

#include <math.h>
#include <string.h>

static const struct {
    size_t column;
    const char *name;
} phases[] = {{MBL_RUN_ROLLOUT, "rollout and scoring"},
              {MBL_RUN_TRAIN, "training"},
              {MBL_RUN_GRAM, "Gram matrix"},
              {MBL_RUN_QP, "quadratic program"},
              {MBL_RUN_CHECKPOINT, "checkpoints"}};
enum { PHASES = sizeof phases / sizeof *phases };

/* The wait for scores comes on top of the rollout. */
static double seconds_of(const mbl_run_data_t *data, size_t phase) {
    double sum = mbl_run_sum(data, mbl_run_column(data, phases[phase].column), false);
    if (phases[phase].column == MBL_RUN_ROLLOUT)
        sum += mbl_run_sum(data, mbl_run_column(data, MBL_RUN_REWARD_WAIT), false);
    return sum;
}

static void write_phases(FILE *out, const mbl_run_data_t *data) {
    double seconds[PHASES + 1], total = mbl_run_sum(data, mbl_run_column(data, MBL_RUN_TOTAL), false),
                                rest = total;
    char duration[32];
    for (size_t i = 0; i < PHASES; i++) {
        seconds[i] = seconds_of(data, i);
        rest -= seconds[i];
    }
    seconds[PHASES] = rest > 0 ? rest : 0;
    fputs("<h3>time of the steps</h3><div class=\"bar\">", out);
    for (size_t i = 0; total > 0 && i <= PHASES; i++)
        fprintf(out, "<i class=\"c%zu\" style=\"width:%.2f%%\"></i>", i < PHASES ? i : 6,
                100 * seconds[i] / total);
    fputs("</div><div class=\"legend\">", out);
    for (size_t i = 0; total > 0 && i <= PHASES; i++)
        fprintf(out, "<span class=\"c%zu\"><span class=\"dot\"></span><i>%s %s (%.1f %%)</i></span>",
                i < PHASES ? i : 6, i < PHASES ? phases[i].name : "rest", mbl_duration(seconds[i], duration),
                100 * seconds[i] / total);
    fputs("</div>", out);
}

void mbl_page_cost(FILE *out, const mbl_run_data_t *data) {
    double images = mbl_run_sum(data, mbl_run_column(data, MBL_RUN_IMAGES), false);
    double total = mbl_run_sum(data, mbl_run_column(data, MBL_RUN_TOTAL), false), scores = 0, failed = 0;
    double calls = mbl_run_sum(data, mbl_run_column(data, MBL_RUN_CALLS), true);
    char duration[32];
    for (size_t k = 0; k < data->k; k++) {
        scores += mbl_run_sum(data, mbl_run_reward(data, k, MBL_RUN_SCORED), true);
        failed += mbl_run_sum(data, mbl_run_reward(data, k, MBL_RUN_FAILED), true);
    }
    mbl_page_section(out, "Cost", "Of the training steps, on rank 0; evaluations come on top.");
    fputs("<div class=\"card\">", out);
    write_phases(out, data);
    fprintf(
        out,
        "<dl><dt>steps</dt><dd>%zu, %s each</dd><dt>images</dt><dd>%.0f, %.3g a second</dd><dt>scores</dt>"
        "<dd>%.0f, and %.0f that failed</dd>",
        data->n, mbl_duration(total / (double)data->n, duration), images, total > 0 ? images / total : 0,
        scores, failed);
    if (calls > 0)
        fprintf(out, "<dt>requests to reward servers</dt><dd>%.0f</dd>", calls);
    fputs("</dl></div></section>\n", out);
}

static void write_alarms(FILE *out, const mbl_run_data_t *data) {
    const char *name;
    json_t *count;
    size_t found = 0;
    json_object_foreach(json_object_get(data->last, "alarms"), name, count) {
        if (json_integer_value(count) == 0)
            continue;
        if (found++ == 0) {
            mbl_page_section(out, "Alarms", "In how many steps each was found.");
            fputs("<div class=\"card\"><dl>", out);
        }
        fputs("<dt>", out);
        mbl_html_text(out, name);
        fprintf(out, "</dt><dd>%lld steps</dd>", json_integer_value(count));
    }
    if (found)
        fputs("</dl></div></section>\n", out);
}

static void write_settings(FILE *out, const mbl_run_data_t *data) {
    static const char *const keys[] = {
        "seed",           "precision",      "model.path",         "model.lora.rank",
        "prompts.source", "prompts.groups", "prompts.group_size", "rollout.solver",
        "rollout.steps",  "train.steps",    "train.lr",           "train.beta",
        "train.kl",       "balance.method", "balance.floor",      "balance.refresh_every",
        "eval.prompts"};
    fputs("<dl>", out);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = mbl_run_key(data, keys[i]);
        if (!value)
            continue;
        fprintf(out, "<dt>%s</dt><dd>", keys[i]);
        mbl_html_text(out, value);
        fputs("</dd>", out);
    }
    fputs("</dl>", out);
}

void mbl_page_end(FILE *out, const mbl_run_data_t *data) {
    const char *run = json_string_value(json_object_get(data->last, "run"));
    write_alarms(out, data);
    if (*data->yaml) {
        mbl_page_section(out, "Configuration",
                         "The keys that most depends on, and the whole resolved run.yaml.");
        fputs("<div class=\"card\">", out);
        write_settings(out, data);
        fputs("<details><summary>run.yaml</summary><pre>", out);
        mbl_html_text(out, data->yaml);
        fputs("</pre></details></div></section>\n", out);
    }
    fputs("<footer>run ", out);
    mbl_html_text(out, run ? run : "without an id");
    fprintf(out,
            " &#183; made by marble %s%s%s from the run's own files; nothing is loaded from "
            "elsewhere.</footer>\n",
            mbl_version(), *mbl_commit() ? ", commit " : "", mbl_commit());
}
