/* marble pretrain: a small base model of the signs world. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "train/pretrain.h"

static const char about[] =
    "Trains a fresh base model by flow matching on images of the signs example, with the keys of the\n"
    "section pretrain. The model ends up in OUT/model, a folder that `model.path` of a run can name:\n"
    "    marble pretrain deploy/examples/pretrain.yaml --out runs/pretrain\n"
    "Ctrl-C, SIGTERM or SIGUSR1 (the one mpirun passes on) writes a checkpoint and ends with exit code\n"
    "75; --resume auto goes on from there.";

int mbl_cmd_pretrain(int argc, char **argv) {
    const char *out = NULL, *resume = NULL;
    char folder[512];
    bool helped = false, overwrite = false, quiet = false;
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE",
         "overrides a key of RUN.yaml, as in --set pretrain.steps=500", 0, 0, 0, NULL},
        {"out", MBL_ARG_TEXT, &out, "DIR",
         "the run's folder; unless given runs/RUN, or where RUN.yaml is the run.yaml of a run, that run's", 0,
         0, 0, NULL},
        {"overwrite", MBL_ARG_FLAG, &overwrite, NULL,
         "a run that OUT holds is moved to OUT.1, and a new one begins", 0, 0, 0, NULL},
        {"resume", MBL_ARG_TEXT, &resume, "auto|FILE",
         "go on from OUT's newest good checkpoint, or from FILE", 0, 0, 0, NULL},
        MBL_ARG_QUIET(&quiet)};
    const mbl_args_t spec = {"pretrain", "RUN.yaml", about, args, sizeof args / sizeof *args, 1, 1};
    mbl_run_t run;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    mbl_log_set_quiet(quiet);
    status = mbl_run_open(rest.items[0], &sets, mbl_config_check_pretrain, &run);
    int code = mbl_status_exit_code(status);
    mbl_rundir_options_t options =
        mbl_run_folder(rest.items[0], out, resume, overwrite, folder, sizeof folder);
    if (status == MBL_OK)
        code = mbl_run_close(&run, mbl_pretrain(run.config, run.comm, &options));
    mbl_free(rest.items);
    mbl_free(sets.items);
    return code;
}
