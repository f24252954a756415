/* The state of a training run: made and freed. */
#include "run/state_internal.h"

#include "base/mem.h"
#include "run/identity.h"

#include <stdio.h>
#include <string.h>

const char *const mbl_state_names[MBL_STATE_WHOLE] = {"adapter/current", "adapter/old", "adapter/ema"};

mbl_status_t mbl_state_lora(const mbl_config_t *config, mbl_lora_config_t *out) {
    memset(out, 0, sizeof *out);
    out->rank = config->model.lora.rank;
    out->alpha = config->model.lora.alpha;
    out->n_targets = config->model.lora.targets.count;
    MBL_REQUIRE(out->n_targets <= MBL_LORA_MAX_TARGETS, "model.lora.targets: %zu", out->n_targets);
    for (size_t i = 0; i < out->n_targets; i++)
        snprintf(out->targets[i], sizeof out->targets[i], "%s", config->model.lora.targets.items[i]);
    return MBL_OK;
}

mbl_status_t mbl_state_new(mbl_engine_t *engine, mbl_state_t *out) {
    mbl_status_t status;
    mbl_lora_config_t lora;
    mbl_state_t state = {.engine = engine};
    const mbl_dit_t *model = mbl_pipeline_model(engine->pipeline);
    MBL_TRY(mbl_state_lora(engine->config, &lora));
    MBL_TRY(mbl_lora_new_sharded(model, &lora, (size_t)engine->comm->size, &state.lora));
    MBL_TRY_GOTO(
        mbl_update_new(engine->comm, engine->ops, model, state.lora, engine->config->seed, &state.update),
        failed);
    MBL_TRY_GOTO(mbl_identity_program(engine->comm, &state.made_by), failed);
    MBL_TRY_GOTO(mbl_identity_model(engine, state.update.policy.size, &state.made_with), failed);
    *out = state;
    return MBL_OK;
failed:
    mbl_state_free(&state);
    return status;
}

void mbl_state_free(mbl_state_t *state) {
    mbl_snapshot_free(state->snapshot);
    mbl_ckpt_team_close(state->team);
    mbl_update_free(&state->update);
    mbl_lora_free(state->lora);
    mbl_free(state->made_by);
    mbl_free(state->made_with);
    memset(state, 0, sizeof *state);
}

size_t mbl_state_bytes(const mbl_state_t *state) {
    enum { REST = 1 << 18 };
    return mbl_state_vectors(state) * state->update.policy.size * sizeof(float) + REST;
}
