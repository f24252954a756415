/* The shape of a run, from its configuration and the files of its model that hold sizes. */
#include "plan/plan.h"

#include "base/mem.h"
#include "model/text/prompt.h"
#include "run/micro_batch.h"
#include "run/stage.h"
#include "run/state.h"

#include <string.h>

mbl_status_t mbl_plan_read_model(const char *path, size_t side, mbl_plan_shape_t *out) {
    json_t *model;
    MBL_TRY(mbl_dit_config_read(path, &model));
    mbl_status_t status = side ? mbl_dit_config_resize(model, side) : MBL_OK;
    if (status == MBL_OK)
        status = mbl_dit_config_sizes(path, model, &out->sizes);
    if (status == MBL_OK)
        out->model = model;
    else
        json_decref(model);
    return status;
}

void mbl_plan_shape_free(mbl_plan_shape_t *shape) {
    json_decref(shape->model);
    shape->model = NULL;
}

static mbl_status_t read_sizes(const mbl_config_t *config, mbl_plan_shape_t *out) {
    const char *folder = config->model.path;
    char *model = mbl_format("%s/transformer/config.json", folder);
    mbl_status_t status = model ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    if (status == MBL_OK)
        status = mbl_plan_read_model(model, 0, out);
    if (status == MBL_OK)
        status = mbl_text_count_tokens(folder, config->prompts.max_tokens, &out->tokens);
    mbl_free(model);
    return status;
}

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* How many prompts are encoded; those of a file are counted in it. */
static mbl_status_t count_prompts(const mbl_config_t *config, size_t *out) {
    *out = 0;
    for (int split = 0; split < 2; split++) {
        mbl_prompts_t prompts;
        MBL_TRY(mbl_prompt_set_load(config, split, &prompts));
        *out += prompts.count;
        mbl_prompts_free(&prompts);
    }
    return MBL_OK;
}

/* As the run will, with a model that holds nothing. */
static mbl_status_t fit_micro_batches(const mbl_config_t *config, mbl_plan_shape_t *s) {
    mbl_ops_t *ops = NULL;
    mbl_pipeline_t *pipeline = NULL;
    mbl_lora_t *lora = NULL;
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_cost_model_open(&ops), done);
    MBL_TRY_GOTO(mbl_pipeline_blank(ops, s->dtype, s->model, s->tokens, &pipeline), done);
    MBL_TRY_GOTO(mbl_lora_new(mbl_pipeline_model(pipeline), &s->lora, &lora), done);
    MBL_TRY_GOTO(mbl_micro_batch_fit(config, pipeline, lora, MBL_TAPE_NONE, "rollout.micro_batch",
                                     s->rollout_batch, s->images, &s->rollout_batch),
                 done);
    status = mbl_micro_batch_fit(config, pipeline, lora, MBL_TAPE_LORA, "train.micro_batch", s->train_batch,
                                 s->images, &s->train_batch);
done:
    mbl_lora_free(lora);
    mbl_pipeline_close(pipeline);
    if (ops)
        mbl_ops_close(ops);
    return status;
}

mbl_status_t mbl_plan_shape(const mbl_config_t *config, size_t ranks, mbl_plan_shape_t *out) {
    size_t groups = (config->prompts.groups + ranks - 1) / ranks; /* of the rank that has most */
    size_t timesteps = (size_t)(config->train.timestep_fraction * (double)config->rollout.steps + 1e-9);
    mbl_plan_shape_t shape = {.dtype = config->precision == MBL_CONFIG_PRECISION_F32 ? MBL_F32 : MBL_BF16,
                              .images = groups * config->prompts.group_size,
                              .ranks = ranks,
                              .rollout_steps = config->rollout.steps,
                              .solver = config->rollout.solver,
                              .merge = config->rollout.merge == MBL_CONFIG_MERGE_AUTO,
                              .timesteps = timesteps > 0 ? timesteps : 1,
                              .inner_epochs = config->train.inner_epochs,
                              .updates = config->train.updates_per_epoch,
                              .kl = config->train.kl > 0,
                              .kl_apart = config->train.kl > 0 && config->balance.kl == MBL_CONFIG_KL_APART};
    shape.rollout_batch = least(config->rollout.micro_batch, shape.images);
    shape.train_batch = least(config->train.micro_batch, shape.images);
    MBL_TRY(count_prompts(config, &shape.prompts));
    MBL_TRY(mbl_stage_most_parts(config, &shape.rewards));
    MBL_TRY(mbl_state_lora(config, &shape.lora));
    mbl_status_t status = read_sizes(config, &shape);
    if (status == MBL_OK && config->limits.micro_batch_bytes > 0)
        status = fit_micro_batches(config, &shape);
    if (status == MBL_OK)
        *out = shape;
    else
        mbl_plan_shape_free(&shape);
    return status;
}
