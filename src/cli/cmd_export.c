/* marble export: adapters for diffusers and PEFT, and merged models. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "export/export.h"

#include <string.h>

static const char about[] =
    "Writes the adapter of a training checkpoint for others to load, as one file for diffusers, as a\n"
    "folder for PEFT, or merged into a copy of its base model:\n"
    "    marble export runs/run/checkpoints/latest.h5 --lora pytorch_lora_weights.safetensors\n"
    "    marble export runs/run/checkpoints/latest.h5 --peft adapter --merged model\n"
    "    marble sample --model model --prompt 'three blue circles' --out images\n"
    "Folders get a model card: README.md with the configuration and the rewards before and after, and a\n"
    "chart of the rewards' weights. What exists stays: a file that is there, or a folder with something in\n"
    "it, is refused without --force; the base model's own folder always is.";

int mbl_cmd_export(int argc, char **argv) {
    static const char *const adapters[] = {"ema", "current", "old", NULL};
    static const char *const precisions[] = {"f32", "bf16", NULL};
    const char *precision = "f32";
    mbl_export_options_t o = {.adapter = "ema"};
    bool helped = false, quiet = false;
    mbl_arg_texts_t rest = {NULL, 0};
    const mbl_arg_t args[] = {
        {"lora", MBL_ARG_TEXT, &o.lora, "FILE", "a .safetensors file for pipe.load_lora_weights of diffusers",
         0, 0, 0, NULL},
        {"peft", MBL_ARG_TEXT, &o.peft, "DIR", "an adapter folder for PeftModel.from_pretrained", 0, 0, 0,
         NULL},
        {"merged", MBL_ARG_TEXT, &o.merged, "DIR", "a model folder with the adapter in its weights", 0, 0, 0,
         NULL},
        {"card", MBL_ARG_TEXT, &o.card, "DIR", "a model card for what --lora writes", 0, 0, 0, NULL},
        {"force", MBL_ARG_FLAG, &o.force, NULL,
         "replace the file of --lora, write into folders that are not empty (files of the same names are "
         "replaced; "
         "--merged also removes the weights that lie in the model's parts)",
         0, 0, 0, NULL},
        {"adapter", MBL_ARG_CHOICE, &o.adapter, "NAME",
         "the average of weights that runs report, the weights, or those that drew the last images", 0, 0, 0,
         adapters},
        {"precision", MBL_ARG_CHOICE, &precision, "NAME", "of merged weights; adapters are f32", 0, 0, 0,
         precisions},
        {"model", MBL_ARG_TEXT, &o.model, "DIR", "the base model, where it is no longer where the run had it",
         0, 0, 0, NULL},
        MBL_ARG_QUIET(&quiet)};
    const mbl_args_t spec = {"export", "FILE.h5", about, args, sizeof args / sizeof *args, 1, 1};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    mbl_log_set_quiet(quiet);
    o.checkpoint = rest.items[0];
    o.bf16 = strcmp(precision, "bf16") == 0;
    status = mbl_export(&o);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
