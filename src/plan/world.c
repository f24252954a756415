/* What a rank holds and runs in an epoch, for counting. */
#include "plan/world.h"

#include "base/mem.h"

/* Device memory taken since the last call. */
static size_t lap(const mbl_plan_world_t *w, size_t *before) {
    size_t now = w->live ? w->live(w->ops) : 0, taken = now - *before;
    *before = now;
    return taken;
}

static mbl_status_t make_conditions(mbl_plan_world_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    w->conditions.n = s->prompts;
    MBL_TRY(mbl_tensor_new(w->ops, s->dtype, &w->conditions.context, 3, s->prompts, s->tokens,
                           s->model.joint_attention_dim));
    return mbl_tensor_new(w->ops, s->dtype, &w->conditions.pooled, 2, s->prompts,
                          s->model.pooled_projection_dim);
}

static mbl_status_t make_adapters(mbl_plan_world_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    const mbl_mmdit_t *model = mbl_pipeline_model(w->pipeline);
    MBL_TRY(mbl_lora_new(model, &s->lora, &w->lora));
    size_t count = mbl_shard_count(mbl_lora_size(w->lora), (int)s->ranks);
    MBL_TRY(mbl_policy_new(w->ops, model, w->lora, count * s->ranks, 0, &w->policy));
    w->policy.old_is_current = false; /* as after the first step */
    return mbl_optimizer_new(w->ops, count, &w->optimizer);
}

static mbl_status_t make_gradients(mbl_plan_world_t *w) {
    size_t k = w->shape->rewards, count = w->optimizer.count;
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F64, &w->sets, 2, k + 1, count * w->shape->ranks));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F64, &w->shard, 2, k + 2, count));
    return mbl_tensor_new(w->ops, MBL_F64, &w->direction, 1, count);
}

static mbl_status_t make_host(mbl_plan_world_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    w->most = s->rollout_batch > s->train_batch ? s->rollout_batch : s->train_batch;
    MBL_ALLOC(w->a, s->rewards * w->most);
    MBL_ALLOC(w->prompt, w->most);
    MBL_ALLOC(w->sample, w->most);
    for (size_t i = 0; i < w->most; i++)
        w->sample[i] = (int64_t)i;
    return MBL_OK;
}

static mbl_status_t open_parts(mbl_plan_world_t *w, mbl_plan_memory_t *memory) {
    const mbl_plan_shape_t *s = w->shape;
    size_t side = s->model.sample_size, before = 0;
    MBL_TRY(make_host(w));
    MBL_TRY(mbl_pipeline_blank(w->ops, s->dtype, &s->model, s->tokens, &w->pipeline));
    memory->weights = lap(w, &before);
    MBL_TRY(make_conditions(w));
    memory->prompts = lap(w, &before);
    MBL_TRY(make_adapters(w));
    memory->adapters = lap(w, &before);
    MBL_TRY(mbl_sampler_plan(s->solver, s->rollout_steps, 3, &w->plan));
    MBL_TRY(mbl_sampler_new(w->pipeline, w->lora, s->rollout_batch, &w->sampler));
    if (s->merge)
        MBL_TRY(mbl_merge_new(w->pipeline, &w->policy.in_old, 3, &w->merge));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &w->x0, 4, s->pictures > w->most ? s->pictures : w->most,
                           s->model.in_channels, side, side));
    memory->rollout = lap(w, &before);
    MBL_TRY(make_gradients(w));
    memory->gradients = lap(w, &before);
    MBL_TRY(mbl_gradient_new(w->pipeline, w->lora, s->train_batch, s->rewards, &w->gradient));
    memory->train = lap(w, &before);
    MBL_TRY(mbl_sampler_new(w->pipeline, w->lora, s->rollout_batch, &w->evaluator));
    memory->evaluation = lap(w, &before);
    return MBL_OK;
}

void mbl_plan_world_close(mbl_plan_world_t *w) {
    if (w->ops) {
        mbl_sampler_free(w->evaluator);
        mbl_gradient_free(w->gradient);
        mbl_sampler_free(w->sampler);
        mbl_merge_free(w->merge);
        mbl_tensor_t *all[] = {&w->x0, &w->sets, &w->shard, &w->direction};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            mbl_tensor_free(w->ops, all[i]);
        mbl_optimizer_free(&w->optimizer);
        mbl_policy_free(&w->policy);
        mbl_lora_free(w->lora);
        if (w->pipeline)
            mbl_conditions_free(w->pipeline, &w->conditions);
        mbl_pipeline_close(w->pipeline);
    }
    mbl_free(w->a);
    mbl_free(w->prompt);
    mbl_free(w->sample);
}

mbl_status_t mbl_plan_world_open(mbl_plan_world_t *world, mbl_plan_memory_t *memory) {
    mbl_status_t status = open_parts(world, memory);
    if (status != MBL_OK)
        mbl_plan_world_close(world);
    return status;
}

static mbl_status_t merge(mbl_plan_world_t *w) {
    double deviation;
    return w->merge ? mbl_merge_try(w->merge, &w->conditions, 0, 0, &deviation) : MBL_OK;
}

static mbl_status_t roll_out(mbl_plan_world_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    mbl_tensor_t x0 = mbl_tensor_rows(&w->x0, 0, s->rollout_batch);
    const mbl_sample_request_t request = {.adapter =
                                              s->merged ? mbl_merge_adapter(w->merge) : &w->policy.in_old,
                                          .conditions = &w->conditions,
                                          .index = w->prompt,
                                          .sample = w->sample,
                                          .n = s->rollout_batch};
    return mbl_sampler_run(w->sampler, &w->plan, &request, &x0);
}

static mbl_status_t train(mbl_plan_world_t *w) {
    const mbl_plan_shape_t *s = w->shape;
    const mbl_batch_t batch = {.n = s->train_batch,
                               .n_global = s->train_batch,
                               .group_size = 1,
                               .k = s->rewards,
                               .prompt = w->prompt,
                               .sample = w->sample,
                               .x0 = mbl_tensor_rows(&w->x0, 0, s->train_batch)};
    const mbl_gradient_args_t args = {.batch = &batch,
                                      .conditions = &w->conditions,
                                      .current = &w->policy.in_current,
                                      .old = &w->policy.in_old,
                                      .plan = &w->plan,
                                      .timesteps = 1,
                                      .slices = 1,
                                      .beta = 0.1,
                                      .clip = 5,
                                      .kl = s->kl ? 1e-4 : 0,
                                      .a = w->a,
                                      .parts = s->rewards,
                                      .add = true};
    mbl_gradient_stats_t stats;
    return mbl_gradient_run(w->gradient, &args, &w->sets, &stats);
}

/* As train/loop.c between the passes and the next rollout; messages between ranks apart. */
static mbl_status_t update(mbl_plan_world_t *w) {
    size_t m = w->shape->rewards + 1, count = w->optimizer.count;
    double gram[(MBL_MAX_REWARDS + 1) * (MBL_MAX_REWARDS + 1)], coefficient[MBL_MAX_REWARDS + 1];
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m), rows = mbl_tensor_rows(&w->shard, 0, m);
    mbl_tensor_t shard = mbl_tensor_rows(&w->policy.current, 0, count);
    for (size_t i = 0; i < m; i++)
        coefficient[i] = 1;
    MBL_TRY(mbl_tensor_zero(w->ops, &w->sets));
    MBL_TRY(MBL_OP(w->ops, gram, .gram = &host, .x = &rows));
    MBL_TRY(MBL_OP(w->ops, combine, .y = &w->direction, .x = &rows, .coefficient = coefficient));
    MBL_TRY(MBL_OP(w->ops, adamw, .w = &shard, .m = &w->optimizer.m, .v = &w->optimizer.v, .g = &w->direction,
                   .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .grad_scale = 1, .step = 1));
    MBL_TRY(mbl_policy_stepped(&w->policy));
    MBL_TRY(mbl_policy_average(&w->policy, 1, 0.9));
    return mbl_policy_follow(&w->policy, 0.5);
}

mbl_status_t mbl_plan_world_run(mbl_plan_world_t *world, mbl_plan_phase_t phase) {
    switch (phase) {
    case MBL_PLAN_MERGE:
        return merge(world);
    case MBL_PLAN_ROLLOUT:
        return roll_out(world);
    case MBL_PLAN_TRAIN:
        return train(world);
    default:
        return update(world);
    }
}
