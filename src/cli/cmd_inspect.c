/* marble inspect: what is in a checkpoint, a run's folder or a model. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/inspect/inspect.h"
#include "run/rundir.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static mbl_status_t inspect(const char *path, const char *attribute, const char *prompts, bool json) {
    struct stat about;
    if (stat(path, &about) != 0)
        return MBL_FAIL(MBL_ERR_USAGE, "%s: cannot be opened: %s", path, strerror(errno));
    if (prompts)
        return mbl_inspect_prompts(path, prompts, json);
    size_t step;
    if (S_ISDIR(about.st_mode) && mbl_rundir_holds(path, &step)) {
        if (attribute)
            return MBL_FAIL(MBL_ERR_USAGE,
                            "%s: --attribute is for checkpoints; expected one of %s/checkpoints", path, path);
        return mbl_inspect_run(path, json);
    }
    if (S_ISDIR(about.st_mode) || ends_with(path, ".safetensors") ||
        ends_with(path, ".safetensors.index.json")) {
        if (attribute)
            return MBL_FAIL(MBL_ERR_USAGE, "%s: --attribute is for checkpoints; --json shows all of a model",
                            path);
        return mbl_inspect_model(path, json);
    }
    return mbl_inspect_checkpoint(path, attribute, json);
}

static mbl_status_t mend(const char *path, const char *other) {
    bool repaired;
    if (other)
        return MBL_FAIL(MBL_ERR_USAGE, "inspect: --repair and --diff; expected one of them");
    MBL_TRY(mbl_ckpt_repair(path, &repaired));
    MBL_INFO("%s: %s", path,
             repaired ? "has its trailer again: every dataset and attribute in it is whole by its own digest"
                      : "is whole; there is nothing to repair");
    return MBL_OK;
}

int mbl_cmd_inspect(int argc, char **argv) {
    bool json = false, repair = false, helped = false;
    const char *attribute = NULL, *other = NULL, *prompts = NULL;
    const mbl_arg_t args[] = {
        {"json", MBL_ARG_FLAG, &json, NULL, "one JSON object", 0, 0, 0, NULL},
        {"attribute", MBL_ARG_TEXT, &attribute, "KEY",
         "only the value of this attribute of a checkpoint; \"config\" is the run.yaml it was made with", 0,
         0, 0, NULL},
        {"prompts", MBL_ARG_TEXT, &prompts, "FILE",
         "which prompts of FILE (.txt, .jsonl) have more tokens than the text encoders of the model read", 0,
         0, 0, NULL},
        {"repair", MBL_ARG_FLAG, &repair, NULL,
         "first write again what marks the end of a checkpoint, which other programs cut off, if every "
         "dataset and attribute in "
         "it is whole by its own digest",
         0, 0, 0, NULL},
        {"diff", MBL_ARG_TEXT, &other, "A.h5",
         "what PATH, a checkpoint too, has otherwise than A: keys of the configuration, datasets and how far "
         "apart they are",
         0, 0, 0, NULL}};
    const mbl_args_t spec = {
        "inspect",
        "PATH",
        "Says what is in a checkpoint (FILE.h5), after verifying all of it; how far a run is (its folder)\n"
        "and what its rewards were before and are now; or what is in a model: a diffusers folder, one part\n"
        "of it, or a .safetensors file.",
        args,
        sizeof args / sizeof *args,
        1,
        1};
    mbl_arg_texts_t rest;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    if (repair)
        status = mend(rest.items[0], other);
    if (status == MBL_OK)
        status = other ? mbl_inspect_diff(other, rest.items[0], json)
                       : inspect(rest.items[0], attribute, prompts, json);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
