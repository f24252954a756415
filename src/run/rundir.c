/* The folder of a run: opened for what a run writes, and closed. */
#include "run/rundir.h"

#include "base/log.h"
#include "base/mem.h"
#include "run/aside.h"
#include "run/branch.h"
#include "run/identity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

mbl_status_t mbl_rundir_join(const char *path, const char *name, char *out, size_t size) {
    int n = snprintf(out, size, "%s/%s", path, name);
    if (n < 0 || (size_t)n >= size)
        return MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", path);
    return MBL_OK;
}

static mbl_status_t open_lines(const mbl_rundir_t *rundir, const char *name, long last, mbl_jsonl_t **out) {
    char file[512];
    MBL_TRY(mbl_rundir_join(rundir->path, name, file, sizeof file));
    MBL_TRY(mbl_jsonl_open(file, last, out));
    mbl_jsonl_name_run(*out, rundir->run);
    return MBL_OK;
}

/* run.yaml, below which run it is, what it was begun with and what it is written by. */
static mbl_status_t write_yaml(const mbl_comm_t *comm, const mbl_rundir_t *rundir,
                               const mbl_config_t *config) {
    char file[512], text[MBL_RUN_HEAD], *program;
    mbl_run_head_t head;
    snprintf(head.id, sizeof head.id, "%s", rundir->run);
    snprintf(head.from, sizeof head.from, "%s", rundir->from);
    mbl_run_head_write(&head, text);
    MBL_TRY(mbl_rundir_join(rundir->path, "run.yaml", file, sizeof file));
    MBL_TRY(mbl_identity_program(comm, &program));
    char *note = mbl_format("%s%s", text, program);
    mbl_free(program);
    mbl_status_t status = note ? mbl_config_write(config, file, note)
                               : MBL_FAIL(MBL_ERR_MEM, "%s: no memory to write it", file);
    mbl_free(note);
    return status;
}

static mbl_status_t begin(const mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_config_t *config,
                          size_t step) {
    long last = step ? (long)step : -1;
    mbl_branches_t branches;
    MBL_TRY(mbl_aside(rundir->path, rundir->run, step, config->checkpoint.keep.last > 0));
    MBL_TRY(mbl_branches_read(rundir->path, &branches));
    rundir->branch = branches.n;
    mbl_branches_free(&branches);
    MBL_TRY(write_yaml(comm, rundir, config));
    MBL_TRY(open_lines(rundir, "metrics.jsonl", last, &rundir->metrics));
    MBL_TRY(open_lines(rundir, "eval.jsonl", last, &rundir->evals));
    MBL_TRY(open_lines(rundir, "gram.jsonl", last, &rundir->gram));
    return config->log.advantages_every ? open_lines(rundir, "advantages.jsonl", last, &rundir->advantages)
                                        : MBL_OK;
}

mbl_status_t mbl_rundir_begin(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_config_t *config,
                              size_t step) {
    return mbl_comm_agree(comm, comm->rank == 0 ? begin(comm, rundir, config, step) : MBL_OK);
}

void mbl_rundir_rewrite(mbl_rundir_t *rundir, const mbl_comm_t *comm, const mbl_config_t *config) {
    if (comm->rank != 0)
        return;
    mbl_fail_quiet(1);
    mbl_status_t status = write_yaml(comm, rundir, config);
    mbl_fail_quiet(0);
    if (status != MBL_OK)
        MBL_WARN("%s; the settings hold, but run.yaml in %s does not have them", mbl_fail_message(),
                 rundir->path);
}

bool mbl_rundir_forks(const mbl_rundir_t *rundir) {
    return rundir->checkpoint[0] && !rundir->goes_on;
}

void mbl_rundir_close(mbl_rundir_t *rundir) {
    mbl_jsonl_close(rundir->metrics);
    mbl_jsonl_close(rundir->evals);
    mbl_jsonl_close(rundir->gram);
    mbl_jsonl_close(rundir->advantages);
    mbl_tensorboard_close(rundir->tensorboard);
    (void)mbl_log_open(NULL);
    mbl_lock_release(rundir->lock);
    memset(rundir, 0, sizeof *rundir);
}

mbl_status_t mbl_rundir_held(const mbl_rundir_t *rundir) {
    return rundir->lock && mbl_lock_lost(rundir->lock) ? MBL_ERR_BUSY : MBL_OK;
}

mbl_status_t mbl_rundir_evaluated(mbl_comm_t *comm, const mbl_rundir_t *rundir, size_t step, bool *out) {
    int64_t last = -1;
    if (comm->rank == 0 && rundir->goes_on) {
        char file[512];
        MBL_TRY(mbl_rundir_join(rundir->path, "eval.jsonl", file, sizeof file));
        json_t *line = mbl_jsonl_last(file), *at = json_object_get(line, "step");
        last = json_is_integer(at) ? json_integer_value(at) : -1;
        json_decref(line);
    }
    MBL_TRY(mbl_comm_bcast(comm, &last, sizeof last, 0));
    *out = last >= 0 && (size_t)last == step;
    return MBL_OK;
}

void mbl_rundir_space(const mbl_rundir_t *rundir, const mbl_config_t *config, size_t bytes, size_t step,
                      size_t steps, size_t every) {
    struct statvfs disk;
    size_t left = steps > step ? steps - step : 0, writes = every ? (left + every - 1) / every : 1,
           stay = writes;
    if (config->checkpoint.keep.last > 0) {
        size_t regular = config->checkpoint.keep.every ? left / config->checkpoint.keep.every : 0;
        stay = config->checkpoint.keep.last + regular + config->checkpoint.keep.best.count;
        stay = stay < writes ? stay : writes;
    }
    double need = (double)(stay + 1) * (double)bytes; /* one more while it is written */
    if (!rundir->lock || left == 0 || statvfs(rundir->path, &disk) != 0)
        return;
    double have = (double)disk.f_bavail * (double)disk.f_frsize;
    if (need > have)
        MBL_WARN(
            "%s: up to %zu more checkpoints of %.3g MB will be kept, %.3g MB with the one being written, but "
            "the file system has only %.3g MB left; checkpoint.every and checkpoint.keep set how many there "
            "are",
            rundir->path, stay, (double)bytes / 1e6, need / 1e6, have / 1e6);
}
