/* What the commands that take a run.yaml share. */
#include "cli/run_args.h"

#include "base/log.h"
#include "base/mem.h"
#include "run/identity.h"
#include "run/same_config.h"

#include <stdio.h>
#include <string.h>

enum { DEADLINE_S = 1800 }; /* of one collective until limits.deadline is known and has been agreed on */

/* The first line of a run's log. */
static mbl_status_t log_program(const mbl_comm_t *comm) {
    char *program;
    MBL_TRY(mbl_identity_program(comm, &program));
    MBL_RECORD("%s", program);
    mbl_free(program);
    return MBL_OK;
}

mbl_status_t mbl_run_open(const char *yaml, const mbl_arg_texts_t *sets,
                          mbl_status_t (*check)(const mbl_config_t *config, size_t ranks), mbl_run_t *out) {
    mbl_run_t run = {NULL, NULL};
    MBL_TRY(mbl_comm_open("auto", DEADLINE_S, &run.comm));
    mbl_log_set_rank(run.comm->rank, run.comm->size);
    mbl_status_t status = mbl_config_load(yaml, sets->items, sets->count, &run.config);
    if (status == MBL_OK) {
        mbl_log_set_level(run.config->log.level);
        status = log_program(run.comm);
    }
    if (status == MBL_OK) {
        status = check(run.config, (size_t)run.comm->size);
    }
    status = mbl_comm_agree(run.comm, status);
    if (status == MBL_OK)
        status = mbl_same_config(run.comm, run.config, yaml);
    if (status != MBL_OK) {
        mbl_config_free(run.config);
        mbl_comm_close(run.comm);
        return status;
    }
    run.comm->deadline_s = run.config->limits.deadline;
    *out = run;
    return MBL_OK;
}

int mbl_run_close(mbl_run_t *run, mbl_status_t status) {
    int code = mbl_status_exit_code(mbl_comm_settle(run->comm, status)), failed_rank = run->comm->failed_rank;
    mbl_config_free(run->config);
    /* Only the rank with the broken device may say so: its node is the one to avoid. */
    if (status == MBL_ERR_DEVICE && failed_rank >= 0 && failed_rank != run->comm->rank)
        code = 1;
    mbl_comm_close(run->comm);
    return code;
}

/* The folder that RUN.yaml lies in, where that is a run's own; false when it is none. */
static bool folder_of_run(const char *yaml, char *room, size_t size) {
    const char *slash = strrchr(yaml, '/'), *name = slash ? slash + 1 : yaml;
    size_t step;
    if (strcmp(name, "run.yaml") != 0)
        return false;
    snprintf(room, size, "%.*s", slash > yaml ? (int)(slash - yaml) : 1, slash ? yaml : ".");
    return mbl_rundir_holds(room, &step);
}

mbl_rundir_options_t mbl_run_folder(const char *yaml, const char *out, const char *resume, bool overwrite,
                                    char *room, size_t size) {
    mbl_rundir_options_t options = {
        .path = out ? out : room, .resume = resume, .overwrite = overwrite, .yaml = yaml};
    if (out || folder_of_run(yaml, room, size))
        return options;
    const char *name = strrchr(yaml, '/') ? strrchr(yaml, '/') + 1 : yaml;
    const char *dot = strrchr(name, '.');
    snprintf(room, size, "runs/%.*s", dot && dot > name ? (int)(dot - name) : (int)strlen(name), name);
    options.by_default = true;
    return options;
}
