/* The state of a training run read from a checkpoint, after a look at whether it is this run's. */
#include "run/state_internal.h"

#include "base/mem.h"
#include "run/gather.h"
#include "run/resume.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static mbl_status_t check_base(const mbl_state_t *state, const char *path, const mbl_ckpt_t *ckpt) {
    const mbl_config_t *config = state->engine->config;
    const char *found = mbl_ckpt_attr(ckpt, "model_digest"),
               *want = mbl_pipeline_digest(state->engine->pipeline);
    if (found && strcmp(found, want) == 0)
        return MBL_OK;
    if (config->checkpoint.other_base == MBL_CONFIG_OTHER_BASE_ACCEPT) {
        MBL_WARN("%s: made on a base model with digest %s, goes on with %s, digest %s", path,
                 found ? found : "", config->model.path, want);
        return MBL_OK;
    }
    return MBL_FAIL(
        MBL_ERR_CONFIG,
        "%s: made on another base model: its model_digest is %s, that of model.path %s is %s; give the "
        "base it was made on, or --set checkpoint.other_base=accept",
        path, found ? found : "missing", config->model.path, want);
}

/* Everything but adapters needs the same rewards and prompts in their order too. */
static mbl_status_t check_identity(mbl_state_t *state, const char *path, const mbl_ckpt_t *ckpt,
                                   bool everything, bool accept_prompts) {
    const char *kind = mbl_ckpt_attr(ckpt, "kind"), *config = mbl_ckpt_attr(ckpt, "config");
    if (!kind || strcmp(kind, "train") != 0 || !config)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: a checkpoint of kind \"%s\"; expected one of marble train", path,
                        kind ? kind : "");
    MBL_TRY(check_base(state, path, ckpt));
    if (!everything)
        return MBL_OK;
    const mbl_engine_t *engine = state->engine;
    MBL_TRY(mbl_resume_check(engine->config, path, config));
    state->made_schedule = mbl_resume_schedule(config);
    const char *step = mbl_ckpt_attr(ckpt, "step");
    state->made_balance = mbl_resume_balance(config, step ? strtoull(step, NULL, 10) : 0);
    return mbl_prompt_sets_check(engine->config, &engine->train, &engine->test, ckpt, path, accept_prompts);
}

/* `auto` on another device may be another precision. The state is f32 either way, so the run goes on, and
 * says so. */
static void log_precision(const mbl_state_t *state, const char *path, const mbl_ckpt_t *ckpt) {
    const mbl_engine_t *engine = state->engine;
    const char *was = mbl_ckpt_attr(ckpt, "precision"), *is = mbl_state_precision(engine);
    if (!was || strcmp(was, is) == 0 || engine->comm->rank > 0)
        return;
    MBL_WARN("%s: was computed in %s, and the run goes on in %s (precision: %s, device %s), so its results "
             "will differ by "
             "more than rounding from those of a run that was not stopped; precision=%s keeps them",
             path, was, is, mbl_config_word("precision", engine->config->precision), engine->ops->table->name,
             was);
}

/* Weights and moments that are no numbers would spread. */
static mbl_status_t check_finite(const char *path, const char *name, const float *vector, size_t size) {
    unsigned bad = 0;
    for (size_t i = 0; i < size; i++)
        bad |= !(fabsf(vector[i]) <= FLT_MAX);
    for (size_t i = 0; bad && i < size; i++)
        if (!isfinite(vector[i]))
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: %s: element %zu is %g; expected a finite number", path, name,
                            i, (double)vector[i]);
    return MBL_OK;
}

/* The whole ones, or all. */
static mbl_status_t read_vectors(mbl_state_t *state, const char *path, mbl_ckpt_t *ckpt, bool all,
                                 float *vector) {
    const mbl_tensor_t *whole[] = {&state->update.policy.current, &state->update.policy.old,
                                   &state->update.policy.ema};
    const mbl_optimizer_t *optimizer = &state->update.optimizer;
    mbl_engine_t *engine = state->engine;
    size_t size = state->update.policy.size, first, last;
    mbl_lora_range(state->lora, (size_t)engine->comm->rank, &first, &last);
    char name[MBL_OPTIMIZER_NAME];
    for (size_t i = 0; i < MBL_STATE_WHOLE; i++) {
        MBL_TRY(mbl_ckpt_read(ckpt, mbl_state_names[i], MBL_F32, size, vector));
        MBL_TRY(check_finite(path, mbl_state_names[i], vector, size));
        mbl_lora_spread(state->lora, vector);
        MBL_TRY(mbl_upload_padded(engine->ops, vector, state->update.policy.room, whole[i]));
    }
    for (size_t i = 0; i < optimizer->n && all; i++) {
        MBL_TRY(mbl_ckpt_read(ckpt, mbl_optimizer_dataset(optimizer, i, name), MBL_F32, size, vector));
        MBL_TRY(check_finite(path, name, vector, size));
        MBL_TRY(mbl_upload_padded(engine->ops, vector + first, last - first, &optimizer->state[i]));
    }
    return MBL_OK;
}

static bool has_item(const mbl_ckpt_t *ckpt, const char *name) {
    mbl_ckpt_item_t item;
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, &item); i++)
        if (strcmp(item.name, name) == 0)
            return true;
    return false;
}

static mbl_status_t read_small(mbl_state_t *state, mbl_ckpt_t *ckpt) {
    mbl_state_numbers_t small;
    mbl_ckpt_item_t items[MBL_STATE_NUMBERS];
    memset(&small, 0, sizeof small);
    mbl_state_items(&small, state->engine->k, items);
    for (int i = 0; i < MBL_STATE_NUMBERS; i++)
        if (i < MBL_STATE_ALWAYS || has_item(ckpt, items[i].name))
            MBL_TRY(mbl_ckpt_read(ckpt, items[i].name, items[i].dtype, items[i].count,
                                  (void *)(uintptr_t)items[i].data));
    mbl_state_unpack(state, &small);
    return mbl_policy_loaded(&state->update.policy, small.counters[4] != 0);
}

static mbl_status_t load(mbl_state_t *state, const char *path, bool everything, bool accept_prompts) {
    mbl_ckpt_t *ckpt;
    float *vector = NULL;
    MBL_TRY(mbl_ckpt_open(path, &ckpt));
    mbl_status_t status;
    MBL_TRY_GOTO(check_identity(state, path, ckpt, everything, accept_prompts), done);
    MBL_ALLOC_GOTO(vector, state->update.policy.room, done);
    MBL_TRY_GOTO(read_vectors(state, path, ckpt, everything, vector), done);
    status = everything ? read_small(state, ckpt) : mbl_policy_loaded(&state->update.policy, false);
    if (everything && status == MBL_OK)
        log_precision(state, path, ckpt);
done:
    mbl_free(vector);
    mbl_ckpt_close(ckpt);
    return status;
}

mbl_status_t mbl_state_load(mbl_state_t *state, const char *path, bool accept_prompts) {
    if (!path[0])
        return MBL_OK;
    MBL_TRY(mbl_comm_agree(state->engine->comm, load(state, path, true, accept_prompts)));
    MBL_RECORD("resumed from %s at step %llu", path, (unsigned long long)state->step);
    return MBL_OK;
}

mbl_status_t mbl_state_load_adapters(mbl_state_t *state, const char *path) {
    return mbl_comm_agree(state->engine->comm, load(state, path, false, false));
}
