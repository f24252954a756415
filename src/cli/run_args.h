/* What the commands that take a run.yaml share: --set, --out, --resume, the configuration and the
 * communicator. */
#ifndef MBL_CLI_RUN_ARGS_H
#define MBL_CLI_RUN_ARGS_H

#include "cli/args.h"
#include "comm/comm.h"
#include "run/rundir.h"

/* An opened run: its configuration and its ranks. */
typedef struct {
    mbl_config_t *config;
    mbl_comm_t *comm;
} mbl_run_t;

/* Opens the communicator (which finds out the rank, so that only rank 0 talks), then loads the configuration
 * and checks it with `check`; ranks with different ones are refused. Close with mbl_run_close. */
mbl_status_t mbl_run_open(const char *yaml, const mbl_arg_texts_t *sets,
                          mbl_status_t (*check)(const mbl_config_t *config, size_t ranks), mbl_run_t *out);
/* Ends the job where `status` is this rank's alone (mbl_comm_settle). Returns the exit code. */
int mbl_run_close(mbl_run_t *run, mbl_status_t status);

/* The run's folder, as the options say: --out; without it the folder of RUN.yaml where that is the run.yaml
 * of a run, else runs/NAME for NAME.yaml. `room` [at least 512] may be what `path` points at. */
mbl_rundir_options_t mbl_run_folder(const char *yaml, const char *out, const char *resume, bool overwrite,
                                    char *room, size_t size);

#endif
