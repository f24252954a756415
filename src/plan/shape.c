/* The shape of a run, from its configuration and the files of its model that hold sizes. */
#include "plan/plan.h"

#include "base/mem.h"
#include "model/text/tokenizer.h"
#include "run/stage.h"
#include "run/state.h"

#include <string.h>

static mbl_status_t read_sizes(const char *folder, mbl_plan_shape_t *out) {
    mbl_tokenizer_t *tokenizer = NULL;
    char *model = mbl_format("%s/transformer/config.json", folder),
         *words = mbl_format("%s/tokenizer", folder);
    mbl_status_t status =
        model && words ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    if (status == MBL_OK)
        status = mbl_mmdit_config_read(model, &out->model);
    if (status == MBL_OK)
        status = mbl_tokenizer_open(words, &tokenizer);
    if (status == MBL_OK)
        out->tokens = mbl_tokenizer_max_length(tokenizer);
    mbl_tokenizer_close(tokenizer);
    mbl_free(model);
    mbl_free(words);
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

mbl_status_t mbl_plan_shape(const mbl_config_t *config, size_t ranks, mbl_plan_shape_t *out) {
    size_t groups = (config->prompts.groups + ranks - 1) / ranks; /* of the rank that has most */
    size_t timesteps = (size_t)(config->train.timestep_fraction * (double)config->rollout.steps + 1e-9);
    mbl_plan_shape_t shape = {.dtype = config->precision == MBL_CONFIG_PRECISION_F32 ? MBL_F32 : MBL_BF16,
                              .pictures = groups * config->prompts.group_size,
                              .ranks = ranks,
                              .rollout_steps = config->rollout.steps,
                              .solver = config->rollout.solver,
                              .merge = config->rollout.merge == MBL_CONFIG_MERGE_AUTO,
                              .timesteps = timesteps > 0 ? timesteps : 1,
                              .inner_epochs = config->train.inner_epochs,
                              .updates = config->train.updates_per_epoch,
                              .kl = config->train.kl > 0,
                              .kl_apart = config->train.kl > 0 && config->balance.kl == MBL_CONFIG_KL_APART};
    shape.rollout_batch = least(config->rollout.micro_batch, shape.pictures);
    shape.train_batch = least(config->train.micro_batch, shape.pictures);
    MBL_TRY(count_prompts(config, &shape.prompts));
    MBL_TRY(mbl_stage_most_parts(config, &shape.rewards));
    MBL_TRY(mbl_state_lora(config, &shape.lora));
    MBL_TRY(read_sizes(config->model.path, &shape));
    *out = shape;
    return MBL_OK;
}
