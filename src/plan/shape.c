/* The shape of a run, from its configuration and the files of its model that hold sizes. */
#include "plan/plan.h"

#include "base/mem.h"
#include "base/share.h"
#include "model/text/prompt.h"
#include "plan/parts.h"
#include "plan/setup.h"
#include "rl/merge.h"
#include "run/evaluate.h"
#include "run/micro_batch.h"
#include "run/stage.h"
#include "run/start.h"
#include "run/state.h"

#include <math.h>
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
    mbl_free(shape->folder);
    shape->model = NULL;
    shape->folder = NULL;
}

/* Side of square latents of an image's area; 0: the model's own. */
static size_t side_of(const mbl_config_t *config, size_t scale) {
    const double area = (double)config->rollout.height * (double)config->rollout.width;
    return (size_t)(sqrt(area) / (double)scale + 0.5);
}

static mbl_status_t read_sizes(const mbl_config_t *config, mbl_plan_shape_t *out) {
    const char *folder = config->model.path;
    size_t scale;
    char *model = mbl_format("%s/transformer/config.json", folder);
    mbl_status_t status = model ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    if (status == MBL_OK)
        status = mbl_plan_scale(config, &scale);
    if (status == MBL_OK)
        status = mbl_plan_read_model(model, side_of(config, scale), out);
    if (status == MBL_OK)
        status = mbl_text_count_tokens(folder, config->prompts.max_tokens, &out->tokens);
    if (status == MBL_OK)
        status = mbl_plan_text_bytes(config, mbl_dtype_size(out->dtype), &out->text);
    if (status == MBL_OK)
        status = mbl_plan_read_vae(config, &out->vae);
    if (status == MBL_OK)
        status = mbl_plan_decoder_bytes(out, &out->decoder);
    if (status == MBL_OK && !(out->folder = mbl_strdup(folder)))
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", folder);
    mbl_free(model);
    return status;
}

/* How many encoded prompts are on the device at one time: an epoch's and those of a micro-batch of an
 * evaluation, or all; and how many of them a rank encodes. Those of a file are counted in it. */
static mbl_status_t count_prompts(const mbl_config_t *config, mbl_plan_shape_t *s) {
    size_t numbers = s->tokens * s->sizes.context_width + s->sizes.pooled_width, evaluated = s->evaluated;
    if (config->rollout.micro_batch != MBL_CONFIG_AUTO && config->rollout.micro_batch < evaluated)
        evaluated = config->rollout.micro_batch;
    const size_t images = config->prompts.groups * config->prompts.group_size;
    const size_t rows[] = {
        mbl_share_most_groups(images, s->ranks, config->prompts.group_size) + MBL_MERGE_PROMPTS, evaluated};
    size_t all = config->eval.guidance > 1; /* the negative one */
    for (int split = 0; split < 2; split++) {
        mbl_prompts_t prompts;
        MBL_TRY(mbl_prompt_set_load(config, split, &prompts));
        s->prompts += mbl_embeds_rows(prompts.count, numbers * mbl_dtype_size(s->dtype),
                                      config->prompts.device_bytes, rows[split]);
        all += prompts.count;
        mbl_prompts_free(&prompts);
    }
    s->encoded = s->text ? mbl_share(all, s->ranks, 0).n : 0; /* none has more */
    return MBL_OK;
}

enum { CONTEXT_BYTES = 500 << 20 }; /* about what CUDA itself takes of a device */

/* As the run will (train/loop_open.c), in what is left of `memory`. */
static mbl_status_t fit(const mbl_config_t *config, const mbl_plan_setup_t *w, double memory,
                        mbl_plan_shape_t *s) {
    enum { PART = 4, SAMPLERS = 2 };
    const double left =
        MBL_MICRO_BATCH_SHARE * (memory - (double)(w->live(w->ops) + s->decoder) - CONTEXT_BYTES);
    mbl_passes_t passes = {.pipeline = w->pipeline, .lora = w->lora, .copies = SAMPLERS};
    mbl_fit_t sampled, trained;
    passes.there = s->images > s->evaluated ? s->images : s->evaluated;
    passes.left = left > 0 ? (size_t)left / PART : 0;
    MBL_TRY(mbl_micro_batch_fit(config, &passes, &sampled));
    passes.kind = MBL_TAPE_LORA;
    passes.there = s->images;
    passes.copies = 1;
    passes.left = left > 0 ? (size_t)left - SAMPLERS * sampled.bytes : 0;
    MBL_TRY(mbl_micro_batch_fit(config, &passes, &trained));
    s->rollout_batch = sampled.rows < s->images ? sampled.rows : s->images;
    s->eval_batch = mbl_evaluator_rows(&s->guidance, sampled.rows, s->evaluated);
    s->train_batch = trained.rows;
    s->again = trained.again;
    return MBL_OK;
}

static mbl_status_t fit_micro_batches(const mbl_config_t *config, double memory, mbl_plan_shape_t *s) {
    mbl_plan_setup_t w = {.shape = s, .live = mbl_cost_model_live};
    s->rollout_batch = s->train_batch = s->eval_batch = 1;
    MBL_TRY(mbl_cost_model_open(&w.ops));
    mbl_ops_t *ops = w.ops;
    mbl_status_t status = mbl_plan_setup_fixed(&w);
    if (status == MBL_OK) {
        status = fit(config, &w, memory, s);
        mbl_plan_setup_close(&w);
    }
    mbl_ops_close(ops);
    return status;
}

/* The adapter is laid out as that of model.lora.from, as in the run. */
static mbl_status_t take_layout(const mbl_config_t *config, mbl_plan_shape_t *s) {
    mbl_ops_t *ops;
    mbl_dit_t *model = NULL;
    mbl_start_t start;
    MBL_TRY(mbl_cost_model_open(&ops));
    mbl_status_t status = mbl_dit_blank(ops, s->dtype, s->model, &model);
    if (status == MBL_OK)
        status = mbl_start_layout(config, model, &start);
    if (status == MBL_OK)
        status = mbl_state_lora(&start.config, &s->lora);
    mbl_dit_close(model);
    mbl_ops_close(ops);
    return status;
}

mbl_status_t mbl_plan_shape(const mbl_config_t *config, size_t ranks, double memory, mbl_plan_shape_t *out) {
    const size_t images = config->prompts.groups * config->prompts.group_size;
    size_t timesteps = (size_t)(config->train.timestep_fraction * (double)config->rollout.steps + 1e-9);
    mbl_plan_shape_t shape = {.dtype = config->precision == MBL_CONFIG_PRECISION_F32 ? MBL_F32 : MBL_BF16,
                              .images = mbl_share(images, ranks, 0).n, /* none has more */
                              .all_images = images,
                              .ranks = ranks,
                              .evaluated = mbl_share(config->eval.prompts, ranks, 0).n,
                              .guidance = mbl_engine_guidance(config, NULL),
                              .rollout_steps = config->rollout.steps,
                              .solver = config->rollout.solver,
                              .merge = config->rollout.merge == MBL_CONFIG_MERGE_AUTO,
                              .decode_bytes = config->rollout.decode_bytes,
                              .decode_tile = config->rollout.decode_tile,
                              .text_options = mbl_engine_text(config),
                              .timesteps = timesteps > 0 ? timesteps : 1,
                              .inner_epochs = config->train.inner_epochs,
                              .updates = config->train.updates_per_epoch,
                              .kl = config->train.kl > 0,
                              .kl_apart = config->train.kl > 0 && config->balance.kl == MBL_CONFIG_KL_APART};
    MBL_TRY(mbl_stage_most_parts(config, &shape.rewards));
    MBL_TRY(mbl_state_lora(config, &shape.lora));
    mbl_status_t status = read_sizes(config, &shape);
    if (status == MBL_OK && config->model.lora.from[0])
        status = take_layout(config, &shape);
    if (status == MBL_OK)
        status = count_prompts(config, &shape);
    if (status == MBL_OK)
        status = fit_micro_batches(config, memory, &shape);
    if (status == MBL_OK)
        *out = shape;
    else
        mbl_plan_shape_free(&shape);
    return status;
}
