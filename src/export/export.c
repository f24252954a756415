/* Adapters of a checkpoint as files that others load. */
#include "export/export.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/lora_file.h"
#include "export/card.h"
#include "export/target.h"
#include "run/resume.h"
#include "run/rundir.h"
#include "run/state.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const mbl_export_options_t *options;
    mbl_config_t *config;
    mbl_engine_t engine; /* ops, pipeline, config and comm alone */
    mbl_state_t state;
    float *values; /* the adapter, [padded] */
    size_t step;
} export_t;

static mbl_status_t check_targets(const export_t *e) {
    const mbl_export_options_t *o = e->options;
    const mbl_target_t targets[] = {{"--lora", o->lora, false, false},
                                    {"--peft", o->peft, true, false},
                                    {"--merged", o->merged, true, true},
                                    {"--card", o->card, true, false}};
    return mbl_target_check(targets, sizeof targets / sizeof *targets, e->config->model.path, o->checkpoint,
                            o->force);
}

static mbl_status_t open_all(export_t *e) {
    const mbl_export_options_t *o = e->options;
    MBL_TRY(mbl_resume_config(o->checkpoint, o->model, &e->config, &e->step));
    MBL_TRY(check_targets(e));
    e->engine.config = e->config;
    e->engine.k = e->config->rewards.count;
    MBL_TRY(mbl_comm_open("self", 0, &e->engine.comm));
    MBL_TRY(mbl_ops_open("cpu", (int)e->config->threads, &e->engine.ops));
    mbl_log_progress("loading the model", 0, 0);
    /* adapters are f32 whatever the weights are held in, and those take half the memory in bf16 */
    MBL_TRY(mbl_pipeline_open(e->engine.ops, o->merged ? MBL_F32 : MBL_BF16, e->config->model.path, NULL,
                              &e->engine.pipeline));
    MBL_TRY(mbl_state_new(&e->engine, &e->state));
    MBL_TRY(mbl_state_load_adapters(&e->state, o->checkpoint));
    MBL_ALLOC(e->values, e->state.update.padded);
    const mbl_tensor_t *from = o->adapter[0] == 'c'   ? &e->state.update.policy.current
                               : o->adapter[0] == 'o' ? &e->state.update.policy.old
                                                      : &e->state.update.policy.ema;
    MBL_TRY(mbl_tensor_download(e->engine.ops, from, e->values));
    mbl_lora_pack(e->state.lora, e->values);
    return MBL_OK;
}

static mbl_status_t write_card(const export_t *e, const char *folder, const char *how) {
    mbl_card_t card = {.config = e->config,
                       .checkpoint = e->options->checkpoint,
                       .adapter = e->options->adapter,
                       .digest = mbl_pipeline_digest(e->engine.pipeline),
                       .step = e->step,
                       .weights = mbl_lora_size(e->state.lora),
                       .how = how};
    return mbl_card_write(&card, folder);
}

static mbl_status_t write_peft(const export_t *e) {
    const char *folder = e->options->peft;
    MBL_TRY(mbl_lora_write_peft(e->state.lora, e->values, e->config->model.path, folder));
    return write_card(e, folder,
                      "```python\nfrom peft import PeftModel\npipe.transformer = "
                      "PeftModel.from_pretrained(pipe.transformer, \"THIS_FOLDER\")\n```\n");
}

static mbl_status_t save_transformer(const export_t *e, const mbl_dit_t *model, const mbl_tensor_t *flat,
                                     float *weights) {
    char path[1024];
    MBL_TRY(mbl_dit_get_weights(model, flat));
    MBL_TRY(mbl_tensor_download(e->engine.ops, flat, weights));
    MBL_TRY(mbl_lora_merge(e->state.lora, e->values, weights));
    MBL_TRY(mbl_rundir_join(e->options->merged, "transformer", path, sizeof path));
    return mbl_dit_save(model, weights, e->options->bf16 ? MBL_BF16 : MBL_F32, path);
}

static mbl_status_t write_merged_card(const export_t *e, const char *class_name) {
    char *how = mbl_format("The adapter is merged into the weights:\n\n```python\nfrom diffusers import "
                           "%s\ntransformer = %s.from_pretrained(\"THIS_FOLDER\", "
                           "subfolder=\"transformer\")\n```\n\n```sh\nmarble sample --model THIS_FOLDER "
                           "--prompt TEXT --out images\n```\n",
                           class_name, class_name);
    if (!how)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a model card", e->options->merged);
    mbl_status_t status = write_card(e, e->options->merged, how);
    mbl_free(how);
    return status;
}

static mbl_status_t write_merged(const export_t *e) {
    const mbl_dit_t *model = mbl_pipeline_model(e->engine.pipeline);
    const char *folder = e->options->merged;
    mbl_tensor_t flat;
    float *weights;
    size_t n = mbl_dit_weights(model)->dim[0];
    mbl_log_progress("merging and writing the model", 0, 0);
    MBL_TRY(mbl_target_copy_base(e->config->model.path, folder));
    MBL_ALLOC(weights, n);
    mbl_status_t status = mbl_tensor_new(e->engine.ops, MBL_F32, &flat, 1, n);
    if (status == MBL_OK) {
        status = save_transformer(e, model, &flat, weights);
        mbl_tensor_free(e->engine.ops, &flat);
    }
    mbl_free(weights);
    MBL_TRY(status);
    MBL_TRY(mbl_target_finish(e->config->model.path, folder));
    return write_merged_card(e, mbl_dit_class(model));
}

/* How to load the file of --lora from the folder of its card: a JSON string is a string of Python too. */
static mbl_status_t write_lora_card(const export_t *e) {
    const char *lora = e->options->lora, *folder = e->options->card;
    const char *slash = lora ? strrchr(lora, '/') : NULL, *name = slash ? slash + 1 : lora;
    char *at = NULL;
    if (!lora)
        return write_card(
            e, folder,
            "`marble export CHECKPOINT --lora FILE` writes the adapter for diffusers, `--peft FOLDER` for "
            "PEFT.\n");
    if (slash)
        at = mbl_format("%.*s", slash == lora ? 1 : (int)(slash - lora), lora);
    const char *where = mbl_target_same(at ? at : ".", folder) ? "THIS_FOLDER" : at ? at : ".";
    json_t *strings[2] = {json_string(where), json_string(name)};
    char *quoted[2] = {json_dumps(strings[0], JSON_ENCODE_ANY), json_dumps(strings[1], JSON_ENCODE_ANY)};
    char *how =
        quoted[0] && quoted[1]
            ? mbl_format("```python\npipe.load_lora_weights(%s, weight_name=%s)\n```\n", quoted[0], quoted[1])
            : NULL;
    mbl_status_t status =
        how ? write_card(e, folder, how)
            : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for it, or a name that is not UTF-8", lora);
    for (int i = 0; i < 2; i++) {
        json_decref(strings[i]);
        free(quoted[i]);
    }
    mbl_free(how);
    mbl_free(at);
    return status;
}

static mbl_status_t write_all(export_t *e) {
    const mbl_export_options_t *o = e->options;
    if (o->card) /* the file of --lora may go into it */
        MBL_TRY(mbl_folder_make(o->card));
    if (o->lora) {
        MBL_TRY(mbl_lora_write(e->state.lora, e->values, o->lora));
        MBL_INFO("%s: adapter %s of step %zu, for diffusers", o->lora, o->adapter, e->step);
    }
    if (o->card) {
        MBL_TRY(write_lora_card(e));
        MBL_INFO("%s: a model card", o->card);
    }
    if (o->peft) {
        MBL_TRY(write_peft(e));
        MBL_INFO("%s: the same for PEFT, with a model card", o->peft);
    }
    if (o->merged) {
        MBL_TRY(write_merged(e));
        MBL_INFO("%s: the model with it in its weights, %s, with a model card", o->merged,
                 o->bf16 ? "bf16" : "f32");
    }
    return MBL_OK;
}

mbl_status_t mbl_export(const mbl_export_options_t *options) {
    export_t e = {.options = options};
    if (!options->lora && !options->peft && !options->merged && !options->card)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "export: nothing to write; give --lora FILE, --peft DIR or --merged DIR");
    mbl_status_t status = open_all(&e);
    if (status == MBL_OK)
        status = write_all(&e);
    mbl_log_progress(NULL, 0, 0);
    mbl_comm_t *comm = e.engine.comm;
    mbl_free(e.values);
    mbl_state_free(&e.state);
    mbl_engine_close(&e.engine);
    mbl_config_free(e.config);
    mbl_comm_close(comm);
    return status;
}
