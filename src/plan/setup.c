/* What a rank holds and runs in an epoch, for counting. */
#include "plan/setup.h"

#include "base/mem.h"
#include "rl/gram_part.h"

#include <string.h>

/* Device memory taken since the last call. */
static size_t lap(const mbl_plan_setup_t *w, size_t *before) {
    size_t now = w->live ? w->live(w->ops) : 0, taken = now - *before;
    *before = now;
    return taken;
}

static mbl_status_t make_adapters(mbl_plan_setup_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    const mbl_dit_t *model = mbl_pipeline_model(w->pipeline);
    MBL_TRY(mbl_lora_new_sharded(model, &s->lora, s->ranks, &w->lora));
    mbl_plan_comm(s->ranks, &w->comm);
    MBL_TRY(mbl_update_new(&w->comm.host, w->ops, model, w->lora, 0, &w->update));
    w->update.policy.old_is_current = false; /* as after the first step */
    return MBL_OK;
}

static mbl_update_room_t room_of(const mbl_plan_shape_t *s) {
    return (mbl_update_room_t){.parts = s->rewards,
                               .masks = s->rewards,
                               .kl_apart = s->kl_apart,
                               .micro_batch = s->train_batch,
                               .again = s->again};
}

static mbl_status_t make_host(mbl_plan_setup_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    w->most = s->rollout_batch > s->train_batch ? s->rollout_batch : s->train_batch;
    MBL_ALLOC(w->a, s->rewards * w->most);
    MBL_ALLOC(w->prompt, w->most);
    MBL_ALLOC(w->sample, w->most);
    MBL_ALLOC(w->no_rows, w->most);
    memset(w->no_rows, MBL_PART_REST, w->most);
    for (size_t i = 0; i < w->most; i++)
        w->sample[i] = (int64_t)i;
    return MBL_OK;
}

/* All whose size no micro-batch changes. */
static mbl_status_t open_fixed(mbl_plan_setup_t *w, size_t *before, mbl_plan_memory_t *memory) {
    const mbl_plan_shape_t *s = w->shape;
    const mbl_sigma_schedule_t schedule = {.shift = 3}; /* any: it costs the same */
    const mbl_update_room_t room = room_of(s);
    MBL_TRY(mbl_pipeline_blank(w->ops, s->dtype, s->model, s->tokens, &w->pipeline));
    memory->weights = lap(w, before);
    MBL_TRY(mbl_pipeline_conditions(w->pipeline, s->prompts, &w->conditions));
    memory->prompts = lap(w, before);
    MBL_TRY(make_adapters(w));
    memory->adapters = lap(w, before);
    if (s->merge)
        MBL_TRY(mbl_merge_new(w->pipeline, &w->update.policy.in_old, &schedule, &w->merge));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &w->x0, 4, s->images > w->most ? s->images : w->most,
                           s->sizes.channels, s->sizes.side, s->sizes.side));
    memory->rollout = lap(w, before);
    MBL_TRY(mbl_update_prepare_sets(&w->update, &room));
    memory->gradients = lap(w, before);
    return MBL_OK;
}

static mbl_status_t open_parts(mbl_plan_setup_t *w, mbl_plan_memory_t *memory) {
    const mbl_plan_shape_t *s = w->shape;
    const mbl_update_room_t room = room_of(s);
    const mbl_sigma_schedule_t schedule = {.shift = 3};
    mbl_guidance_t guidance = s->guidance;
    size_t before = 0;
    MBL_TRY(make_host(w));
    MBL_TRY(open_fixed(w, &before, memory));
    MBL_TRY(mbl_sampler_plan(s->solver, s->rollout_steps, &schedule, &w->plan));
    MBL_TRY(mbl_sampler_new(w->pipeline, w->lora, s->rollout_batch, &w->sampler));
    memory->rollout += lap(w, &before);
    MBL_TRY(mbl_update_prepare_passes(&w->update, w->pipeline, &room));
    memory->train = lap(w, &before);
    if (s->guidance.scale > 1)
        MBL_TRY(mbl_pipeline_conditions(w->pipeline, 1, &w->negative));
    guidance.negative = &w->negative;
    MBL_TRY(mbl_sampler_new(w->pipeline, w->lora, s->eval_batch ? s->eval_batch : s->rollout_batch,
                            &w->evaluator));
    MBL_TRY(mbl_sampler_guide(w->evaluator, &guidance));
    memory->evaluation = lap(w, &before);
    return MBL_OK;
}

void mbl_plan_setup_close(mbl_plan_setup_t *w) {
    if (w->ops) {
        mbl_sampler_free(w->evaluator);
        mbl_sampler_free(w->sampler);
        mbl_merge_free(w->merge);
        mbl_tensor_free(w->ops, &w->x0);
        mbl_update_free(&w->update);
        mbl_lora_free(w->lora);
        mbl_conditions_free(w->ops, &w->conditions);
        mbl_conditions_free(w->ops, &w->negative);
        mbl_pipeline_close(w->pipeline);
    }
    mbl_free(w->a);
    mbl_free(w->prompt);
    mbl_free(w->sample);
    mbl_free(w->no_rows);
}

mbl_status_t mbl_plan_setup_open(mbl_plan_setup_t *setup, mbl_plan_memory_t *memory) {
    mbl_status_t status = open_parts(setup, memory);
    if (status != MBL_OK)
        mbl_plan_setup_close(setup);
    return status;
}

mbl_status_t mbl_plan_setup_fixed(mbl_plan_setup_t *setup) {
    mbl_plan_memory_t memory;
    size_t before = 0;
    mbl_status_t status = make_host(setup);
    if (status == MBL_OK)
        status = open_fixed(setup, &before, &memory);
    if (status != MBL_OK)
        mbl_plan_setup_close(setup);
    return status;
}

static mbl_status_t merge(mbl_plan_setup_t *w) {
    double deviation;
    return w->merge ? mbl_merge_try(w->merge, &w->conditions, 0, 0, &deviation) : MBL_OK;
}

static mbl_status_t roll_out(mbl_plan_setup_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    mbl_tensor_t x0 = mbl_tensor_rows(&w->x0, 0, s->rollout_batch);
    const mbl_sample_request_t request = {.adapter = s->merged ? mbl_merge_adapter(w->merge)
                                                               : &w->update.policy.in_old,
                                          .conditions = &w->conditions,
                                          .index = w->prompt,
                                          .sample = w->sample,
                                          .n = s->rollout_batch};
    return mbl_sampler_run(w->sampler, &w->plan, &request, &x0);
}

static mbl_batch_t batch_of(const mbl_plan_setup_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    return (mbl_batch_t){.n = s->train_batch,
                         .n_global = s->train_batch,
                         .group_size = 1,
                         .k = s->rewards,
                         .prompt = w->prompt,
                         .sample = w->sample,
                         .x0 = mbl_tensor_rows(&w->x0, 0, s->train_batch)};
}

static mbl_update_options_t options_of(const mbl_plan_setup_t *w, const mbl_batch_t *batch) {
    const mbl_plan_shape_t *s = w->shape;
    return (mbl_update_options_t){.gradient = {.batch = batch,
                                               .conditions = &w->conditions,
                                               .plan = &w->plan,
                                               .timesteps = 1,
                                               .slices = 1,
                                               .beta = 0.1,
                                               .clip = 5,
                                               .kl = s->kl ? 1e-4 : 0,
                                               .kl_apart = s->kl_apart,
                                               .a = w->a,
                                               .parts = s->rewards},
                                  .step = 1,
                                  .diagnose = true, /* as where a step solves on all rows */
                                  .optimizer = {1e-4, 0.9, 0.999, 1e-8, 0, 1},
                                  .ema = 0.9};
}

static mbl_status_t train(mbl_plan_setup_t *w) {
    const mbl_batch_t batch = batch_of(w);
    const mbl_update_options_t options = options_of(w, &batch);
    mbl_update_result_t result;
    mbl_update_step_t step;
    mbl_gradient_stats_t stats;
    mbl_update_begin(&w->update, &options, &result, &step);
    step.args.add = true;
    mbl_tensor_t sets = mbl_tensor_rows(&w->update.sets, 0, mbl_gradient_sets(&step.args));
    return mbl_gradient_run(w->update.gradient, &step.args, &sets, &stats);
}

/* What a step does beside its micro-batches: it is formed of no rows, and its direction is the sum of all
 * sets. Messages between ranks apart. */
static mbl_status_t update(mbl_plan_setup_t *w) {
    const mbl_batch_t batch = batch_of(w);
    const mbl_update_options_t options = options_of(w, &batch);
    mbl_update_result_t result;
    mbl_update_step_t step;
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    mbl_update_begin(&w->update, &options, &result, &step);
    step.args.part_of = w->no_rows;
    step.args.part = MBL_PART_GRAM;
    MBL_TRY(mbl_update_form(&w->update, &step, gram));
    for (size_t i = 0; i < step.m; i++)
        step.coefficient[i] = 1;
    step.norm = 1;
    MBL_TRY(mbl_update_combine(&w->update, &step));
    MBL_TRY(mbl_update_apply(&w->update, &step));
    return mbl_policy_follow(&w->update.policy, 0.5);
}

mbl_status_t mbl_plan_setup_run(mbl_plan_setup_t *setup, mbl_plan_phase_t phase) {
    switch (phase) {
    case MBL_PLAN_MERGE:
        return merge(setup);
    case MBL_PLAN_ROLLOUT:
        return roll_out(setup);
    case MBL_PLAN_TRAIN:
        return train(setup);
    default:
        return update(setup);
    }
}
