/* marble inspect DIR, of a run: how far it is, who works on it, and every reward before and now. */
#include "base/grid.h"
#include "base/log.h"
#include "cli/inspect/inspect.h"
#include "run/about.h"
#include "run/rundir.h"

#include <stdlib.h>

/* A killed run is one that can go on, like a stopped one. */
static const char *const state_words[] = {"finished", "stopped", "stopped", "working", "locked"};

static const json_t *rewards_of(const mbl_run_about_t *about, size_t line) {
    const json_t *eval = json_array_get(about->evals, line);
    return eval ? mbl_rundir_rewards(eval) : NULL;
}

static void number_cell(mbl_grid_t *grid, const json_t *value, const char *format) {
    if (json_is_number(value))
        mbl_grid_cell(grid, format, json_number_value(value));
    else
        mbl_grid_cell(grid, "-");
}

static mbl_status_t print_rewards(const mbl_run_about_t *about) {
    static const char *const head[] = {"reward", "before", "now", "change", "95 % +-", "alpha"};
    size_t n = json_array_size(about->evals);
    const json_t *last = rewards_of(about, n - 1), *value;
    const char *name;
    mbl_grid_t *grid;
    if (!last)
        return MBL_OK;
    const json_t *alpha = about->last ? mbl_rundir_alpha(about->last, true) : NULL;
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    json_object_foreach((json_t *)(uintptr_t)last, name, value) {
        if (!json_is_object(value))
            continue;
        mbl_grid_cell(grid, "%s", name);
        number_cell(grid, json_object_get(json_object_get(rewards_of(about, 0), name), "mean"), "%.4f");
        number_cell(grid, json_object_get(value, "mean"), "%.4f");
        number_cell(grid, json_object_get(value, "change"), "%+.4f");
        number_cell(grid, json_object_get(value, "change_ci95"), "%.4f");
        number_cell(grid, json_object_get(alpha, name), "%.3f");
    }
    printf("\non the held-out prompts, before (step %lld) and now (step %lld):\n\n",
           json_integer_value(json_object_get(json_array_get(about->evals, 0), "step")),
           json_integer_value(json_object_get(json_array_get(about->evals, n - 1), "step")));
    mbl_status_t status = mbl_grid_print(grid, false, stdout);
    mbl_grid_free(grid);
    return status;
}

static mbl_status_t print_run(const mbl_run_about_t *about) {
    printf("%s: run %s, step %zu", about->path, *about->run ? about->run : "without an id", about->step);
    if (about->steps)
        printf(" of %zu", about->steps);
    if (about->state == MBL_RUN_WORKING)
        printf("; %s works on it\n", about->holder);
    else if (about->state == MBL_RUN_LOCKED)
        printf("; locked by %s, which may or may not still run\n", about->holder);
    else
        printf("; %s\n", state_words[about->state]);
    if (about->checkpoints)
        printf("checkpoints: %zu, the newest of step %zu\n", about->checkpoints, about->last_checkpoint);
    else
        printf("checkpoints: none\n");
    MBL_TRY(print_rewards(about));
    if ((about->state == MBL_RUN_STOPPED || about->state == MBL_RUN_KILLED) && about->checkpoints)
        printf("\nto go on: marble %s %s/run.yaml --resume auto\n", about->pretrains ? "pretrain" : "train",
               about->path);
    return MBL_OK;
}

static mbl_status_t print_json(const mbl_run_about_t *about) {
    const json_t *eval = json_array_get(about->evals, json_array_size(about->evals) - 1);
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:O?, s:O?, s:O?}", "path", about->path, "run",
                  about->run, "state", state_words[about->state], "step", (json_int_t)about->step, "steps",
                  (json_int_t)about->steps, "checkpoints", (json_int_t)about->checkpoints, "last_checkpoint",
                  (json_int_t)about->last_checkpoint, "metrics", about->last, "first_eval",
                  json_array_get(about->evals, 0), "last_eval", eval);
    char *text = root ? json_dumps(root, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its JSON", about->path);
    puts(text);
    free(text);
    return MBL_OK;
}

mbl_status_t mbl_inspect_run(const char *path, bool json) {
    mbl_run_about_t about;
    mbl_status_t status = mbl_run_about(path, &about);
    if (status == MBL_OK)
        status = json ? print_json(&about) : print_run(&about);
    mbl_run_about_free(&about);
    return status;
}
