/* In how many steps of a run the direction worked against a reward: the line below the closing table. */
#include "train/report.h"

#include "base/log.h"
#include "io/jsonl.h"
#include "rl/alarms.h"

#include <stdint.h>
#include <stdio.h>

/* The steps that have such cosines, and those with one against a reward. */
typedef struct {
    size_t steps, against;
} count_t;

/* Of the rewards that the step of a line trained. */
static void count(const json_t *line, const char *key, count_t *out) {
    const char *name;
    json_t *value, *by = json_object_get(line, key);
    bool any = false, against = false;
    json_object_foreach(by, name, value) {
        if (!json_is_number(value) || !mbl_rundir_trained(line, name))
            continue;
        any = true;
        against |= mbl_is_against(json_number_value(value));
    }
    out->steps += any;
    out->against += against;
}

static double percent(const count_t *found) {
    return 100.0 * (double)found->against / (double)found->steps;
}

mbl_status_t mbl_report_against(const char *folder) {
    char path[1100], text[300];
    json_t *lines, *line;
    size_t at;
    count_t whole = {0}, part = {0};
    MBL_TRY(mbl_rundir_join(folder, "metrics.jsonl", path, sizeof path));
    MBL_TRY(mbl_jsonl_read(path, SIZE_MAX, &lines));
    json_array_foreach(lines, at, line) {
        count(line, "cos", &whole);
        count(line, "cos_part", &part);
    }
    json_decref(lines);
    if (whole.steps == 0 || part.steps == 0)
        return MBL_OK;
    snprintf(text, sizeof text,
             "against a reward: its gradient in %.1f %% of the %zu steps with cosines, what it alone adds in "
             "%.1f %%\n",
             percent(&whole), whole.steps, percent(&part));
    mbl_log_print(text);
    return MBL_OK;
}
