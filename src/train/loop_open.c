/* What a training run holds: opened, and closed again. */
#include "train/loop_internal.h"

#include "base/mem.h"
#include "base/share.h"
#include "run/micro_batch.h"
#include "run/resume.h"

/* This rank's share of an epoch's images. */
static mbl_status_t make_batch(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    size_t c, height, width, high, wide, size = config->prompts.group_size, k = t->engine.k;
    MBL_TRY(mbl_scores_new(t->comm, config->prompts.groups * size, k, &t->scores));
    mbl_scores_view(t->comm, &t->scores, &t->batch);
    size_t n = t->batch.n, n_global = t->batch.n_global;
    t->groups = mbl_share_groups((mbl_share_t){t->batch.first, n}, size).n;
    mbl_pipeline_latent(t->engine.pipeline, &c, &height, &width);
    mbl_pipeline_image_size(t->engine.pipeline, &high, &wide);
    MBL_TRY(mbl_tensor_new(t->engine.ops, MBL_F32, &t->batch.x0, 4, n, c, height, width));
    MBL_ALLOC(t->prompt, n);
    MBL_ALLOC(t->scratch, t->engine.train.prompts.count);
    MBL_ALLOC(t->needed, t->groups + MBL_MERGE_PROMPTS);
    MBL_TRY(mbl_embeds_room(t->engine.train.embeds, t->groups + MBL_MERGE_PROMPTS));
    MBL_ALLOC(t->sample, n);
    if (t->engine.train.prompts.n_sources > 0)
        MBL_ALLOC(t->by_source, 2 * t->engine.train.prompts.n_sources * k);
    MBL_ALLOC(t->batch.rgb, n * high * wide * 3);
    MBL_ALLOC(t->views.images, n);
    MBL_ALLOC(t->views.prompts, n);
    MBL_ALLOC(t->a, t->most_parts * n);
    MBL_ALLOC(t->valid, t->most_parts * n);
    MBL_ALLOC(t->sum, n_global);
    t->batch.group_size = size;
    t->batch.prompt = t->prompt;
    t->batch.sample = t->sample;
    return MBL_OK;
}

/* The rollout has a part of the memory that is left (its passes take little), training what is left then. */
static mbl_status_t fit_micro_batches(mbl_train_t *t, size_t left, mbl_update_room_t *room) {
    enum { PART = 4, SAMPLERS = 2 }; /* the rollout's and the evaluation's */
    const mbl_config_t *config = t->config;
    const size_t shown = mbl_share(config->eval.prompts, (size_t)t->comm->size, 0).n;
    const size_t most = t->batch.n > shown ? t->batch.n : shown;
    mbl_passes_t passes = {.pipeline = t->engine.pipeline, .lora = t->state.lora, .copies = SAMPLERS};
    mbl_fit_t sampled, trained;
    passes.kind = MBL_TAPE_NONE;
    passes.there = most;
    passes.left = left == SIZE_MAX ? SIZE_MAX : left / PART;
    MBL_TRY(mbl_micro_batch_fit(config, &passes, &sampled));
    passes.kind = MBL_TAPE_LORA;
    passes.there = t->batch.n;
    passes.copies = 1;
    passes.left = left == SIZE_MAX ? SIZE_MAX : left - SAMPLERS * sampled.bytes;
    MBL_TRY(mbl_micro_batch_fit(config, &passes, &trained));
    t->sampled_at_once = sampled.rows;
    room->at_once = trained.rows;
    room->again = trained.again;
    return MBL_OK;
}

static mbl_update_room_t room_of(const mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    bool reference = mbl_method_is(t->stage.method, MBL_METHOD_MICRO_BATCHES);
    bool halves = config->balance.alpha_halves > 0 || config->balance.shrink != MBL_SHRINK_OFF;
    size_t rows = mbl_train_timesteps(config) * t->batch.n;
    bool by_part = config->balance.gram_fraction < 1 || halves || reference;
    return (mbl_update_room_t){.parts = t->most_parts,
                               .masks = t->most_parts, /* scores that fail make masks of their own */
                               .kl_apart = config->train.kl > 0 && config->balance.kl == MBL_CONFIG_KL_APART,
                               .micro_batch = mbl_micro_batch_unit(config),
                               .rows = by_part ? rows : 0,
                               .kl_rows = config->train.kl_fraction < 1 ? rows : 0,
                               .halves = halves,
                               .reference = reference ? &t->batch : NULL};
}

void mbl_train_take_rewards(mbl_train_t *t) {
    for (size_t k = 0; k < t->engine.k; k++) {
        const mbl_reward_spec_t *spec = &t->config->rewards.items[k];
        t->min[k] = spec->min;
        t->min_valid[k] = spec->min_valid;
        t->monitor[k] = spec->use == MBL_REWARD_MONITOR;
    }
}

static mbl_status_t make_plans(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    const mbl_sigma_schedule_t rollout = mbl_engine_schedule(config, true),
                               eval = mbl_engine_schedule(config, false);
    MBL_TRY(mbl_sampler_plan(config->rollout.solver, config->rollout.steps, &rollout, &t->plan));
    return mbl_sampler_plan(config->eval.solver, config->eval.steps, &eval, &t->eval_plan);
}

/* Averages and lengths of gradients that are not balanced any longer say nothing of those that are. */
static mbl_status_t keep_balance(mbl_train_t *t) {
    const mbl_resume_balance_t *made = &t->state.made_balance;
    bool other;
    if (mbl_resume_keeps_common(t->config, made)) {
        t->kept = *t->config;
        t->kept.balance.common = made->word;
        t->config = t->engine.config = &t->kept;
    }
    MBL_TRY(mbl_resume_rebalances(t->config, made, t->state.step, &other));
    if (other)
        mbl_update_forget(&t->state.update);
    return MBL_OK;
}

static mbl_status_t keep_schedule(mbl_train_t *t) {
    if (!mbl_resume_keeps_schedule(t->config, t->state.made_schedule))
        return MBL_OK;
    t->kept = *t->config;
    t->kept.rollout.schedule = t->state.made_schedule;
    t->config = t->engine.config = &t->kept;
    const mbl_sigma_schedule_t schedule = mbl_engine_schedule(t->config, true);
    if (t->merge)
        MBL_TRY(mbl_merge_schedule(t->merge, &schedule));
    return make_plans(t);
}

mbl_status_t mbl_train_keep_definitions(mbl_train_t *t) {
    char common[256];
    const bool resumes = t->rundir.checkpoint[0] != 0;
    if (resumes)
        MBL_TRY(keep_balance(t));
    if (mbl_config_common_text(t->config, common, sizeof common))
        MBL_RECORD("balance.common: auto, which is %s", common);
    return resumes ? keep_schedule(t) : MBL_OK;
}

/* The adapter is laid out as that of model.lora.from. Local. */
static mbl_status_t take_layout(mbl_train_t *t) {
    MBL_TRY(mbl_start_layout(t->config, mbl_pipeline_model(t->engine.pipeline), &t->start));
    t->config = t->engine.config = &t->start.config;
    return MBL_OK;
}

/* All whose size no micro-batch changes. Local. */
static mbl_status_t open_state(mbl_train_t *t) {
    const mbl_config_t *config = t->config;
    const mbl_sigma_schedule_t schedule = mbl_engine_schedule(config, true);
    MBL_TRY(mbl_stage_at(config, 0, &t->stage));
    MBL_TRY(mbl_stage_most_parts(config, &t->most_parts));
    mbl_train_take_rewards(t);
    mbl_config_objectives(config, t->group);
    mbl_ops_part(t->engine.ops, "adapters and their moments", "a smaller model.lora.rank");
    MBL_TRY(mbl_state_new(&t->engine, &t->state));
    MBL_TRY(make_plans(t));
    mbl_ops_part(t->engine.ops, "an epoch's images", "a smaller prompts.groups or prompts.group_size");
    MBL_TRY(make_batch(t));
    MBL_TRY(mbl_ranks_new(t->comm, &t->ranks));
    MBL_TRY(mbl_pipeline_prepare_decoding(t->engine.pipeline, t->batch.n));
    mbl_ops_part(t->engine.ops, "a copy of the adapted weights", "rollout.merge: never");
    if (config->rollout.merge == MBL_CONFIG_MERGE_AUTO)
        MBL_TRY(mbl_merge_new(t->engine.pipeline, &t->state.update.policy.in_old, &schedule, &t->merge));
    MBL_RECORD("%s", t->state.made_with);
    const mbl_update_room_t room = room_of(t);
    mbl_ops_part(t->engine.ops, "gradient sets", "a smaller model.lora.rank or fewer rewards");
    return mbl_update_prepare_sets(&t->state.update, &room);
}

/* The passes' activations, in the memory that is left. Local. */
static mbl_status_t open_passes(mbl_train_t *t, size_t left) {
    const mbl_config_t *config = t->config;
    mbl_update_room_t room = room_of(t);
    MBL_TRY(fit_micro_batches(t, left, &room));
    /* evaluations may have more at once; a rank without images has a sampler too */
    const size_t there = t->batch.n ? t->batch.n : 1,
                 drawn = t->sampled_at_once < there ? t->sampled_at_once : there;
    mbl_ops_part(t->engine.ops, "the rollout's activations", "a smaller rollout.micro_batch");
    MBL_TRY(mbl_sampler_new(t->engine.pipeline, t->state.lora, drawn, &t->sampler));
    mbl_ops_part(t->engine.ops, "the training's activations",
                 "a smaller train.micro_batch or train.checkpoint_blocks: all");
    MBL_TRY(mbl_update_prepare_passes(&t->state.update, t->engine.pipeline, &room));
    mbl_evaluator_options_t options = {.comm = t->comm,
                                       .pipeline = t->engine.pipeline,
                                       .lora = t->state.lora,
                                       .pool = t->engine.pool,
                                       .set = &t->engine.test,
                                       .k = t->engine.k,
                                       .images = config->eval.prompts,
                                       .micro_batch = t->sampled_at_once,
                                       .plan = &t->eval_plan,
                                       .guidance = mbl_engine_guidance(config, &t->engine.negative),
                                       .seed = config->eval.seed,
                                       .stop = t->stop};
    return mbl_evaluator_new(&options, &t->evaluator);
}

mbl_status_t mbl_train_open(mbl_train_t *t) {
    size_t left;
    const bool from = t->config->model.lora.from[0] != 0;
    MBL_TRY(mbl_engine_open(t->config, t->comm, &t->engine));
    if (from)
        MBL_TRY(mbl_comm_agree(t->comm, take_layout(t)));
    MBL_TRY(mbl_micro_batch_left(t->comm, open_state(t), t->engine.ops, &left));
    if (from)
        MBL_TRY(mbl_start_values(&t->state));
    return open_passes(t, left);
}

void mbl_train_close(mbl_train_t *t) {
    mbl_rundir_close(&t->rundir);
    mbl_evaluator_free(t->evaluator);
    mbl_sampler_free(t->sampler);
    mbl_merge_free(t->merge);
    if (t->engine.ops)
        mbl_tensor_free(t->engine.ops, &t->batch.x0);
    mbl_recheck_free(&t->recheck);
    mbl_ranks_free(&t->ranks);
    mbl_scores_free(&t->scores);
    mbl_free(t->batch.rgb);
    mbl_free(t->views.images);
    mbl_free(t->views.prompts);
    mbl_free(t->prompt);
    mbl_free(t->scratch);
    mbl_free(t->needed);
    mbl_free(t->sample);
    mbl_free(t->by_source);
    mbl_free(t->a);
    mbl_free(t->valid);
    mbl_free(t->sum);
    mbl_state_free(&t->state);
    mbl_engine_close(&t->engine);
    for (size_t i = 0; i < t->n_configs; i++)
        mbl_config_free(t->configs[i]);
    mbl_free(t->configs);
}
