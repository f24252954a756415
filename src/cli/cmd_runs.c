/* marble runs: the runs in folders, one a line. */
#include "base/clock.h"
#include "base/file.h"
#include "base/grid.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "run/about.h"
#include "run/rundir.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char about_text[] =
    "Lists the runs in every DIR (unless given: runs), or DIR itself where it is one: its state (running,\n"
    "locked by a process elsewhere, stopped, killed, finished), step, when it last wrote a line, and every\n"
    "reward on the held-out prompts with its change from the base model; + or - behind it where the 95 %\n"
    "interval of the change leaves zero out.\n"
    "    marble runs\n"
    "    marble runs /data/runs runs/look --json";

static const char *const state_words[] = {"finished", "stopped", "killed", "running", "locked"};

typedef struct {
    mbl_grid_t *grid; /* or */
    json_t *list;
    size_t found;
} listing_t;

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const json_t *last_rewards(const mbl_run_about_t *about) {
    const json_t *eval = json_array_get(about->evals, json_array_size(about->evals) - 1);
    return eval ? mbl_rundir_rewards(eval) : NULL;
}

/* ---- a row ---- */

static void add_reward(char *text, size_t size, const char *name, const json_t *score) {
    double mean = number(score, "mean"), change = number(score, "change"),
           half = number(score, "change_ci95");
    size_t used = strlen(text);
    if (!json_is_object(score) || isnan(mean))
        return;
    used += (size_t)snprintf(text + used, size - used, "%s%s %.3f", used ? "  " : "", name, mean);
    if (!isnan(change) && used < size)
        snprintf(text + used, size - used, " %+.3f%s", change,
                 change > half    ? "+"
                 : change < -half ? "-"
                                  : "");
}

static void add_row(mbl_grid_t *grid, const mbl_run_about_t *about, double age) {
    char rewards[2048] = "", duration[32] = "-";
    const char *name;
    json_t *score;
    json_object_foreach((json_t *)(uintptr_t)last_rewards(about), name, score) {
        if (strlen(rewards) + strlen(name) + 64 < sizeof rewards)
            add_reward(rewards, sizeof rewards, name, score);
    }
    mbl_grid_cell(grid, "%s", about->path);
    mbl_grid_cell(grid, "%s", state_words[about->state]);
    if (about->steps)
        mbl_grid_cell(grid, "%zu/%zu", about->step, about->steps);
    else
        mbl_grid_cell(grid, "%zu", about->step);
    mbl_grid_cell(grid, "%s", isnan(age) ? duration : mbl_duration(age, duration));
    mbl_grid_cell(grid, "%s", rewards[0] ? rewards : "-");
}

static json_t *as_json(const mbl_run_about_t *about, double age) {
    const json_t *rewards = last_rewards(about);
    json_t *one = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "path", about->path, "run", about->run, "state",
                            state_words[about->state], "step", (json_int_t)about->step, "steps",
                            (json_int_t)about->steps, "last_checkpoint", (json_int_t)about->last_checkpoint);
    json_object_set_new(one, "age_s", isnan(age) ? json_null() : json_real(round(age)));
    json_object_set_new(one, "holder", about->holder[0] ? json_string(about->holder) : json_null());
    json_object_set_new(one, "rewards", rewards ? json_deep_copy(rewards) : json_object());
    return one;
}

static mbl_status_t list_run(listing_t *listing, const char *path) {
    mbl_run_about_t about;
    mbl_status_t status = mbl_run_about(path, &about);
    double age = about.changed ? difftime(time(NULL), about.changed) : NAN;
    if (status == MBL_OK && listing->list)
        json_array_append_new(listing->list, as_json(&about, age));
    else if (status == MBL_OK)
        add_row(listing->grid, &about, age);
    listing->found++;
    mbl_run_about_free(&about);
    return status;
}

/* ---- folders ---- */

/* DIR itself, or every folder in it that holds a run. */
static mbl_status_t list_folder(listing_t *listing, const char *folder, bool given) {
    struct dirent **names;
    size_t step;
    mbl_status_t status = MBL_OK;
    if (mbl_rundir_holds(folder, &step))
        return list_run(listing, folder);
    if (!mbl_folder_exists(folder)) {
        if (given)
            return MBL_FAIL(MBL_ERR_USAGE, "runs: %s: there is no such folder", folder);
        return MBL_OK;
    }
    int n = scandir(folder, &names, NULL, alphasort);
    if (n < 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed", folder);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (status == MBL_OK && names[i]->d_name[0] != '.' &&
            (size_t)snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name) < sizeof path &&
            mbl_folder_exists(path) && mbl_rundir_holds(path, &step))
            status = list_run(listing, path);
        free(names[i]);
    }
    free(names);
    return status;
}

static mbl_status_t print_listing(const listing_t *listing) {
    if (!listing->list)
        return listing->found ? mbl_grid_print(listing->grid, false, stdout) : MBL_OK;
    char *text = json_dumps(listing->list, JSON_REAL_PRECISION(9) | JSON_INDENT(1));
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "runs: no memory for their JSON");
    puts(text);
    free(text);
    return MBL_OK;
}

static mbl_status_t list_all(const mbl_arg_texts_t *folders, bool json) {
    static const char *const head[] = {"run", "state", "step", "age", "rewards on held-out prompts"};
    listing_t listing = {.list = json ? json_array() : NULL};
    mbl_status_t status = mbl_grid_new(sizeof head / sizeof *head, sizeof head / sizeof *head, &listing.grid);
    for (size_t i = 0; status == MBL_OK && i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(listing.grid, "%s", head[i]);
    for (size_t i = 0; status == MBL_OK && i < folders->count; i++)
        status = list_folder(&listing, folders->items[i], true);
    if (status == MBL_OK && folders->count == 0)
        status = list_folder(&listing, "runs", false);
    if (status == MBL_OK && listing.found == 0)
        MBL_INFO("no runs in %s; marble train writes them there unless --out says otherwise",
                 folders->count ? folders->items[0] : "runs");
    if (status == MBL_OK)
        status = print_listing(&listing);
    mbl_grid_free(listing.grid);
    json_decref(listing.list);
    return status;
}

int mbl_cmd_runs(int argc, char **argv) {
    bool helped = false, json = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_arg_t args[] = {{"json", MBL_ARG_FLAG, &json, NULL, "one JSON array", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"runs", "[DIR...]", about_text, args, sizeof args / sizeof *args, 0, 4096};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = list_all(&rest, json);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
