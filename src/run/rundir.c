/* The folder of a run. */
#include "run/rundir.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/checkpoint.h"
#include "run/identity.h"

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

/* run.yaml, with what it was written by. */
static mbl_status_t write_yaml(const mbl_comm_t *comm, const mbl_config_t *config, const char *file) {
    char *program;
    MBL_TRY(mbl_identity_program(comm, &program));
    mbl_status_t status = mbl_config_write(config, file, program);
    mbl_free(program);
    return status;
}

static mbl_status_t open_logs(const mbl_comm_t *comm, const char *path, const mbl_config_t *config,
                              size_t step, mbl_rundir_t *out) {
    char file[512];
    MBL_TRY(mbl_rundir_join(path, "run.yaml", file, sizeof file));
    MBL_TRY(write_yaml(comm, config, file));
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
        mbl_comm_agree(comm, comm->rank == 0 ? open_logs(comm, path, config, step, &rundir) : MBL_OK);
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
    MBL_TRY(mbl_ckpt_latest(folder, NULL, out, size, &found));
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
