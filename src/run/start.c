/* Starting from a LoRA. */
#include "run/start.h"

#include "base/mem.h"
#include "config/table.h"
#include "model/lora_file.h"

#include <stdio.h>
#include <string.h>

/* ---- layout ---- */

/* Whether a kind of linear, "attn.to_q", is among the targets, which may be longer or shorter names of it. */
static bool is_target(const mbl_config_strings_t *targets, const char *kind) {
    for (size_t i = 0; i < targets->count; i++) {
        const char *target = targets->items[i];
        size_t n = strlen(target), m = strlen(kind), shorter = n < m ? n : m;
        const char *longer = n < m ? kind : target, *at = longer + (n < m ? m - n : n - m);
        if (strcmp(at, n < m ? target : kind) == 0 && (n == m || (shorter > 0 && at[-1] == '.')))
            return true;
    }
    return false;
}

static mbl_status_t check_given(const mbl_config_t *config, const mbl_lora_config_t *file) {
    const char *from = config->model.lora.from;
    char where[256];
    if (mbl_config_line(config, "model.lora.rank") != 0 && config->model.lora.rank < file->rank)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: %zu, while model.lora.from %s has rank %zu; expected at least so much, or no rank, "
            "which takes the file's",
            mbl_config_where(config, "model.lora.rank", where, sizeof where), config->model.lora.rank, from,
            file->rank);
    for (size_t i = 0; i < file->n_targets && mbl_config_line(config, "model.lora.targets") != 0; i++)
        if (!is_target(&config->model.lora.targets, file->targets[i]))
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "%s: without %s, which model.lora.from %s adapts; expected it among them, or no "
                            "targets, which takes the file's",
                            mbl_config_where(config, "model.lora.targets", where, sizeof where),
                            file->targets[i], from);
    return MBL_OK;
}

static void log_layout(const mbl_config_t *config, const mbl_config_t *now) {
    static const char *const keys[] = {"model.lora.rank", "model.lora.alpha", "model.lora.targets"};
    char taken[200] = "";
    for (size_t i = 0; i < 3; i++)
        if (mbl_config_line(config, keys[i]) == 0)
            snprintf(taken + strlen(taken), sizeof taken - strlen(taken), "%s%s", taken[0] ? ", " : "",
                     keys[i] + strlen("model.lora."));
    MBL_RECORD("model.lora.from: %s: an adapter of rank %zu, alpha %g, on %zu kinds of linears (%s%s)",
               now->model.lora.from, now->model.lora.rank, now->model.lora.alpha,
               now->model.lora.targets.count, taken[0] ? taken : "all as the configuration says",
               taken[0] ? ": the file's" : "");
}

mbl_status_t mbl_start_layout(const mbl_config_t *config, const mbl_dit_t *model, mbl_start_t *out) {
    MBL_TRY(mbl_lora_read_config(model, config->model.lora.from, &out->lora));
    MBL_TRY(check_given(config, &out->lora));
    out->config = *config;
    if (mbl_config_line(config, "model.lora.rank") == 0)
        out->config.model.lora.rank = out->lora.rank;
    if (mbl_config_line(config, "model.lora.alpha") == 0)
        out->config.model.lora.alpha =
            out->lora.alpha / (double)out->lora.rank * (double)out->config.model.lora.rank;
    if (mbl_config_line(config, "model.lora.targets") == 0) {
        for (size_t i = 0; i < out->lora.n_targets; i++)
            out->targets[i] = out->lora.targets[i];
        out->config.model.lora.targets = (mbl_config_strings_t){out->targets, out->lora.n_targets};
    }
    log_layout(config, &out->config);
    return MBL_OK;
}

/* ---- values ---- */

/* A unit, row of A and column of B, that is all zero would stay so: it takes the row of a fresh adapter. */
static void wake(const mbl_lora_pair_t *pair, const float *fresh, float *values) {
    size_t rank = pair->a->dim[0], in = pair->a->dim[1], rows = pair->b->dim[0];
    for (size_t r = 0; r < rank; r++) {
        float *a = values + pair->a->offset + r * in;
        const float *b = values + pair->b->offset + r;
        bool zero = true;
        for (size_t i = 0; i < in && zero; i++)
            zero = a[i] == 0;
        for (size_t i = 0; i < rows && zero; i++)
            zero = b[i * rank] == 0;
        if (zero)
            memcpy(a, fresh + pair->a->offset + r * in, in * sizeof *a);
    }
}

static mbl_status_t read_values(const mbl_state_t *state, float *fresh, float *values) {
    const mbl_config_t *config = state->engine->config;
    MBL_TRY(mbl_lora_read(state->lora, config->model.lora.from, values));
    mbl_lora_init(state->lora, config->seed, fresh);
    for (size_t i = 0; i < mbl_lora_pair_count(state->lora); i++) {
        mbl_lora_pair_t pair = mbl_lora_pair(state->lora, i);
        wake(&pair, fresh, values);
    }
    return MBL_OK;
}

mbl_status_t mbl_start_values(mbl_state_t *state) {
    mbl_comm_t *comm = state->engine->comm;
    size_t room = state->update.policy.room;
    float *values = mbl_calloc(room, sizeof *values), *fresh = mbl_calloc(room, sizeof *fresh);
    mbl_status_t status =
        values && fresh ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for an adapter of %zu numbers", room);
    if (status == MBL_OK && comm->rank == 0)
        status = read_values(state, fresh, values);
    status = mbl_comm_agree(comm, status);
    if (status == MBL_OK)
        status = mbl_comm_bcast(comm, values, room * sizeof *values, 0);
    if (status == MBL_OK)
        status = mbl_policy_start(&state->update.policy, values);
    mbl_free(values);
    mbl_free(fresh);
    return status;
}
