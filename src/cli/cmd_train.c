/* marble train: the RL loop. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "service/service.h"
#include "train/loop.h"

#include <string.h>

static const char about[] =
    "Fine-tunes the model of RUN.yaml on all its rewards at once. One process trains on this machine's\n"
    "cores; under mpirun or srun every rank takes a share of the prompts:\n"
    "    marble train run.yaml\n"
    "    mpirun -np 8 marble train run.yaml --set train.lr=1e-4 --out runs/second\n"
    "Progress goes to the terminal and to OUT/log.txt, figures to OUT/metrics.jsonl and OUT/eval.jsonl,\n"
    "images to OUT/samples. Ctrl-C, SIGTERM or SIGUSR1 writes a checkpoint and ends with exit code 75;\n"
    "--resume auto goes on from there. mpirun leaves its ranks no time at the first two but passes the\n"
    "third on: kill -USR1 $(pgrep -n mpirun)";

/* The run with its service beside it, which is asked over HTTP what the run's mailbox takes. */
static mbl_status_t train(const mbl_run_t *run, mbl_train_options_t *options) {
    mbl_events_t more = {.n = 0};
    mbl_service_t *service = NULL;
    mbl_status_t status = mbl_control_new(&options->control);
    if (status == MBL_OK)
        status = mbl_service_new(options->control, &service);
    if (status == MBL_OK)
        status = mbl_events_add(&more, &mbl_service_observer, service);
    options->observers = &more;
    status = mbl_comm_agree(run->comm, status);
    if (status == MBL_OK)
        status = mbl_train(run->config, run->comm, options);
    mbl_service_free(service);
    if (options->control)
        mbl_control_free(options->control);
    return status;
}

int mbl_cmd_train(int argc, char **argv) {
    static const char *const acceptable[] = {"prompts", NULL};
    const char *out = NULL, *resume = NULL, *accept = NULL, *help_config = NULL;
    char folder[512];
    bool helped = false, overwrite = false, quiet = false;
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE", "overrides a key of RUN.yaml, as in --set train.lr=1e-4",
         0, 0, 0, NULL},
        {"out", MBL_ARG_TEXT, &out, "DIR",
         "the run's folder; unless given runs/RUN, or where RUN.yaml is the run.yaml of a run, that run's", 0,
         0, 0, NULL},
        {"overwrite", MBL_ARG_FLAG, &overwrite, NULL,
         "a run that OUT holds is moved to OUT.1, and a new one begins", 0, 0, 0, NULL},
        {"resume", MBL_ARG_TEXT, &resume, "auto|FILE",
         "go on from OUT's newest good checkpoint, or from FILE", 0, 0, 0, NULL},
        {"accept", MBL_ARG_CHOICE, &accept, "WHAT",
         "go on from a checkpoint made with other prompts than the files hold now", 0, 0, 0, acceptable},
        MBL_ARG_QUIET(&quiet),
        {"help-config", MBL_ARG_OUT, &help_config, "[SECTION]",
         "every key of RUN.yaml, or those of a section: type, range, unit, default, meaning", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"train", "RUN.yaml", about, args, sizeof args / sizeof *args, 0, 1};
    mbl_run_t run;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    mbl_log_set_quiet(quiet);
    if (help_config) {
        status = mbl_config_help(strcmp(help_config, "-") == 0 ? NULL : help_config, stdout);
        if (status == MBL_OK)
            status = mbl_args_printed("train");
    } else if (rest.count == 0)
        status = MBL_FAIL(MBL_ERR_USAGE, "train: no RUN.yaml given; marble init writes one");
    int code = mbl_status_exit_code(status);
    if (!help_config && status == MBL_OK) {
        status = mbl_run_open(rest.items[0], &sets, mbl_config_check, &run);
        code = mbl_status_exit_code(status);
        mbl_train_options_t options = {
            .folder = mbl_run_folder(rest.items[0], out, resume, overwrite, folder, sizeof folder),
            .accept_prompts = accept != NULL};
        if (status == MBL_OK)
            code = mbl_run_close(&run, train(&run, &options));
    }
    mbl_free(rest.items);
    mbl_free(sets.items);
    return code;
}
