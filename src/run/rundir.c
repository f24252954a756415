/* The folder of a run. */
#include "run/rundir.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/checkpoint.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

mbl_status_t mbl_rundir_join(const char *path, const char *name, char *out, size_t size) {
    int n = snprintf(out, size, "%s/%s", path, name);
    if (n < 0 || (size_t)n >= size)
        return MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", path);
    return MBL_OK;
}

static mbl_status_t make_folders(const char *path) {
    static const char *const names[] = {"checkpoints", "samples"};
    char folder[512];
    for (int i = 0; i < 2; i++) {
        MBL_TRY(mbl_rundir_join(path, names[i], folder, sizeof folder));
        MBL_TRY(mbl_folder_make(folder));
    }
    MBL_TRY(mbl_rundir_join(path, "log.txt", folder, sizeof folder));
    return mbl_log_open(folder);
}

mbl_status_t mbl_rundir_make(mbl_comm_t *comm, const char *path) {
    return mbl_comm_agree(comm, comm->rank == 0 ? make_folders(path) : MBL_OK);
}

static mbl_status_t open_logs(const char *path, const mbl_config_t *config, size_t step, mbl_rundir_t *out) {
    char file[512];
    MBL_TRY(mbl_rundir_join(path, "run.yaml", file, sizeof file));
    MBL_TRY(mbl_config_write(config, file));
    MBL_TRY(mbl_rundir_join(path, "metrics.jsonl", file, sizeof file));
    MBL_TRY(mbl_jsonl_open(file, step ? (long)step : -1, &out->metrics));
    MBL_TRY(mbl_rundir_join(path, "eval.jsonl", file, sizeof file));
    MBL_TRY(mbl_jsonl_open(file, step ? (long)step : -1, &out->evals));
    if (config->log.advantages_every == 0)
        return MBL_OK;
    MBL_TRY(mbl_rundir_join(path, "advantages.jsonl", file, sizeof file));
    return mbl_jsonl_open(file, step ? (long)step : -1, &out->advantages);
}

mbl_status_t mbl_rundir_open(mbl_comm_t *comm, const char *path, const mbl_config_t *config, size_t step,
                             mbl_rundir_t *out) {
    mbl_rundir_t rundir = {.path = path};
    mbl_status_t status =
        mbl_comm_agree(comm, comm->rank == 0 ? open_logs(path, config, step, &rundir) : MBL_OK);
    if (status != MBL_OK) {
        mbl_rundir_close(&rundir);
        return status;
    }
    *out = rundir;
    return MBL_OK;
}

void mbl_rundir_close(mbl_rundir_t *rundir) {
    mbl_jsonl_close(rundir->metrics);
    mbl_jsonl_close(rundir->evals);
    mbl_jsonl_close(rundir->advantages);
    (void)mbl_log_open(NULL);
    memset(rundir, 0, sizeof *rundir);
}

bool mbl_rundir_of(const char *checkpoint, char *out) {
    static const char parent[] = "checkpoints";
    if (!realpath(checkpoint, out))
        return false;
    *strrchr(out, '/') = 0;
    char *slash = strrchr(out, '/');
    if (!slash || slash == out || strcmp(slash + 1, parent) != 0)
        return false;
    *slash = 0;
    return true;
}

mbl_status_t mbl_rundir_lines(const char *checkpoint, const char *name, size_t step, json_t **out) {
    char folder[PATH_MAX], path[PATH_MAX + 32] = ""; /* the empty path is no file */
    if (mbl_rundir_of(checkpoint, folder))
        snprintf(path, sizeof path, "%s/%s", folder, name);
    return mbl_jsonl_read(path, step, out);
}

static mbl_status_t find_checkpoint(const char *path, const char *resume, char *out, size_t size) {
    char folder[512];
    bool found;
    out[0] = 0;
    if (!resume)
        return MBL_OK;
    if (strcmp(resume, "auto") != 0) {
        int n = snprintf(out, size, "%s", resume);
        return n >= 0 && (size_t)n < size ? MBL_OK
                                          : MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", resume);
    }
    MBL_TRY(mbl_rundir_join(path, "checkpoints", folder, sizeof folder));
    MBL_TRY(mbl_ckpt_latest(folder, out, size, &found));
    if (!found) {
        MBL_INFO("%s holds no checkpoint: starting afresh", folder);
        out[0] = 0;
    }
    return MBL_OK;
}

mbl_status_t mbl_rundir_resume(mbl_comm_t *comm, const char *path, const char *resume, char *out,
                               size_t size) {
    MBL_TRY(mbl_comm_agree(comm, comm->rank == 0 ? find_checkpoint(path, resume, out, size) : MBL_OK));
    return mbl_comm_bcast(comm, out, size, 0);
}

/* The best step of one reward by the lines of eval.jsonl; false when there is none with a checkpoint. */
static bool best_step(const char *path, const json_t *lines, const char *reward, size_t *out) {
    double best = 0;
    bool found = false;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        const json_t *mean = json_object_get(json_object_get(line, reward), "mean");
        size_t step = (size_t)json_integer_value(json_object_get(line, "step"));
        char file[600];
        int length = snprintf(file, sizeof file, "%s/checkpoints/step-%06zu.h5", path, step);
        if (!json_is_number(mean) || length < 0 || (size_t)length >= sizeof file || !mbl_file_exists(file) ||
            (found && json_number_value(mean) <= best))
            continue;
        found = true;
        best = json_number_value(mean);
        *out = step;
    }
    return found;
}

mbl_status_t mbl_rundir_best(const char *path, const mbl_config_t *config, size_t step, size_t *steps,
                             size_t *n) {
    const mbl_config_strings_t *rewards = &config->checkpoint.keep.best;
    char file[600];
    json_t *lines;
    *n = 0;
    if (rewards->count == 0)
        return MBL_OK;
    MBL_TRY(mbl_rundir_join(path, "eval.jsonl", file, sizeof file));
    MBL_TRY(mbl_jsonl_read(file, step, &lines));
    for (size_t k = 0; k < rewards->count; k++)
        *n += best_step(path, lines, rewards->items[k], &steps[*n]);
    json_decref(lines);
    return MBL_OK;
}

mbl_status_t mbl_rundir_eval(mbl_rundir_t *rundir, size_t step, const mbl_config_t *config,
                             const mbl_eval_score_t *scores, const mbl_eval_score_t *change) {
    char line[1024] = "";
    if (!rundir->evals)
        return MBL_OK;
    json_t *object = json_pack("{s:I}", "step", (json_int_t)step);
    for (size_t k = 0, used = 0; k < config->rewards.count; k++) {
        json_t *one = json_pack("{s:f,s:f,s:I,s:I,s:I}", "mean", scores[k].mean, "ci95", scores[k].ci95, "n",
                                (json_int_t)scores[k].n, "na", (json_int_t)scores[k].na, "failed",
                                (json_int_t)scores[k].failed);
        if (change) {
            json_object_set_new(one, "change", mbl_jsonl_real(change[k].mean));
            json_object_set_new(one, "change_ci95", mbl_jsonl_real(change[k].ci95));
        }
        json_object_set_new(object, config->rewards.items[k].name, one);
        if (used < sizeof line)
            used += (size_t)snprintf(line + used, sizeof line - used, "  %s %.3f +-%.3f",
                                     config->rewards.items[k].name, scores[k].mean, scores[k].ci95);
    }
    MBL_INFO("eval at step %zu%s", step, line);
    return mbl_jsonl_write(rundir->evals, object);
}

mbl_status_t mbl_rundir_samples(mbl_rundir_t *rundir, size_t step, const mbl_evaluator_t *evaluator) {
    char name[64], path[512], title[128];
    mbl_image_t sheet;
    if (!rundir->evals)
        return MBL_OK;
    snprintf(name, sizeof name, "samples/step-%06zu.png", step);
    snprintf(title, sizeof title, "step %zu", step);
    MBL_TRY(mbl_rundir_join(rundir->path, name, path, sizeof path));
    MBL_TRY(mbl_evaluator_sheet(evaluator, 32, title, &sheet));
    mbl_status_t status = mbl_image_write_png(path, &sheet);
    mbl_image_free(&sheet);
    return status;
}
