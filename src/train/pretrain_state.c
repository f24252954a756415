/* The state of a pretraining run. */
#include "train/pretrain_state.h"

#include "base/mem.h"
#include "io/checkpoint.h"
#include "run/gather.h"
#include "run/resume.h"
#include "run/rundir.h"

#include <stdlib.h>
#include <string.h>

static mbl_status_t fill(mbl_pretrain_state_t *state) {
    mbl_tensor_t own = mbl_tensor_rows(&state->master, 0, state->size);
    MBL_TRY(mbl_dit_get_weights(state->model, &own));
    return mbl_tensor_copy(state->ops, &state->ema, &state->master);
}

mbl_status_t mbl_pretrain_state_new(mbl_pretrain_state_t *out, mbl_ops_t *ops, mbl_dit_t *model,
                                    mbl_comm_t *comm) {
    mbl_status_t status;
    mbl_pretrain_state_t state = {.ops = ops, .model = model, .comm = comm};
    state.size = mbl_tensor_count(mbl_dit_weights(model));
    size_t count = mbl_shard_count(state.size, comm->size);
    state.padded = count * (size_t)comm->size;
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &state.master, 1, state.padded), failed);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &state.ema, 1, state.padded), failed);
    MBL_TRY_GOTO(mbl_optimizer_new(ops, &mbl_optimizer_adamw, count, &state.optimizer), failed);
    MBL_TRY_GOTO(fill(&state), failed);
    *out = state;
    return MBL_OK;
failed:
    mbl_pretrain_state_free(&state);
    return status;
}

void mbl_pretrain_state_free(mbl_pretrain_state_t *state) {
    if (!state->ops)
        return;
    mbl_tensor_free(state->ops, &state->master);
    mbl_tensor_free(state->ops, &state->ema);
    mbl_optimizer_free(&state->optimizer);
    memset(state, 0, sizeof *state);
}

mbl_status_t mbl_pretrain_state_use(mbl_pretrain_state_t *state, const mbl_tensor_t *weights) {
    mbl_tensor_t own = mbl_tensor_rows(weights, 0, state->size);
    return mbl_dit_set_weights(state->model, &own);
}

/* Then the optimizer's. */
enum { MASTER, EMA, N_WHOLE, MOST_VECTORS = N_WHOLE + MBL_OPTIMIZER_STATES };
static const char *const names[N_WHOLE] = {"weights/master", "weights/ema"};

static size_t n_vectors(const mbl_pretrain_state_t *state) {
    return N_WHOLE + state->optimizer.n;
}

/* Of vector i; `room` holds it where it is the optimizer's. */
static const char *name_of(const mbl_pretrain_state_t *state, size_t i, char *room) {
    return i < N_WHOLE ? names[i] : mbl_optimizer_dataset(&state->optimizer, i - N_WHOLE, room);
}

static mbl_status_t write_file(const mbl_pretrain_state_t *state, const mbl_config_t *config,
                               const char *out_dir, float *const *vector) {
    char folder[512], path[640], step[32], branch[32], *json;
    char room[MOST_VECTORS][MBL_OPTIMIZER_NAME];
    mbl_ckpt_item_t items[MOST_VECTORS];
    for (size_t i = 0; i < n_vectors(state); i++)
        items[i] = (mbl_ckpt_item_t){name_of(state, i, room[i]), MBL_F32, state->size, vector[i]};
    MBL_TRY(mbl_rundir_join(out_dir, "checkpoints", folder, sizeof folder));
    MBL_TRY(mbl_ckpt_path(folder, state->optimizer.steps, path, sizeof path));
    MBL_TRY(mbl_config_json(config, &json));
    snprintf(step, sizeof step, "%llu", (unsigned long long)state->optimizer.steps);
    snprintf(branch, sizeof branch, "%zu", state->branch);
    const mbl_ckpt_attr_t attrs[] = {{"kind", "pretrain"},
                                     {"step", step},
                                     {"config", json},
                                     {MBL_CKPT_RUN_KEY, state->run},
                                     {MBL_CKPT_BRANCH_KEY, branch}};
    mbl_status_t status = mbl_ckpt_write(path, items, n_vectors(state), attrs,
                                         3 + (state->run != NULL) + (state->run && state->branch > 0));
    mbl_free(json);
    MBL_TRY(status);
    mbl_ckpt_keep_t keep = {.last = config->checkpoint.keep.last, .every = config->checkpoint.keep.every};
    return mbl_ckpt_publish(folder, state->optimizer.steps, &keep);
}

mbl_status_t mbl_pretrain_state_save(mbl_pretrain_state_t *state, const mbl_config_t *config,
                                     const char *out_dir) {
    float *vector[MOST_VECTORS], *all;
    mbl_status_t status;
    MBL_ALLOC(all, n_vectors(state) * state->padded);
    for (size_t i = 0; i < n_vectors(state); i++)
        vector[i] = all + i * state->padded;
    MBL_TRY_GOTO(mbl_tensor_download(state->ops, &state->master, vector[MASTER]), done);
    MBL_TRY_GOTO(mbl_tensor_download(state->ops, &state->ema, vector[EMA]), done);
    for (size_t i = 0; i < state->optimizer.n; i++)
        MBL_TRY_GOTO(
            mbl_gather_shards(state->comm, state->ops, &state->optimizer.state[i], vector[N_WHOLE + i]),
            done);
    if (state->comm->rank == 0)
        status = write_file(state, config, out_dir, vector);
    status = mbl_comm_agree(state->comm, status);
done:
    mbl_free(all);
    return status;
}

static mbl_status_t read_file(mbl_pretrain_state_t *state, const char *path, mbl_ckpt_t *ckpt,
                              float *vector) {
    const mbl_tensor_t *whole[] = {&state->master, &state->ema};
    char room[MBL_OPTIMIZER_NAME];
    const char *kind = mbl_ckpt_attr(ckpt, "kind"), *step = mbl_ckpt_attr(ckpt, "step");
    if (!kind || strcmp(kind, "pretrain") != 0 || !step)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: a checkpoint of kind \"%s\"; expected one of marble pretrain",
                        path, kind ? kind : "");
    const char *config = mbl_ckpt_attr(ckpt, "config");
    state->made_schedule = mbl_resume_schedule(config ? config : "{}");
    for (size_t i = 0; i < n_vectors(state); i++) {
        MBL_TRY(mbl_ckpt_read(ckpt, name_of(state, i, room), MBL_F32, state->size, vector));
        if (i < N_WHOLE)
            MBL_TRY(mbl_upload_padded(state->ops, vector, state->size, whole[i]));
        else
            MBL_TRY(mbl_scatter_shard(state->comm, state->ops, vector, state->size,
                                      &state->optimizer.state[i - N_WHOLE]));
    }
    state->optimizer.steps = strtoull(step, NULL, 10);
    return mbl_pretrain_state_use(state, &state->master);
}

mbl_status_t mbl_pretrain_state_load(mbl_pretrain_state_t *state, const char *path) {
    mbl_ckpt_t *ckpt;
    float *vector;
    if (!path[0])
        return MBL_OK;
    MBL_TRY(mbl_ckpt_open(path, &ckpt));
    vector = mbl_calloc(state->size, sizeof *vector);
    mbl_status_t status =
        vector ? read_file(state, path, ckpt, vector) : MBL_FAIL(MBL_ERR_MEM, "no memory to read %s", path);
    mbl_free(vector);
    mbl_ckpt_close(ckpt);
    if (status == MBL_OK)
        MBL_RECORD("resumed from %s at step %llu", path, (unsigned long long)state->optimizer.steps);
    return status;
}

static mbl_status_t export_model(const mbl_pretrain_state_t *state, const char *out_dir) {
    char folder[512];
    float *vector;
    mbl_status_t status = MBL_OK;
    MBL_TRY(mbl_rundir_join(out_dir, "model/transformer", folder, sizeof folder));
    MBL_ALLOC(vector, state->padded);
    MBL_TRY_GOTO(mbl_tensor_download(state->ops, &state->ema, vector), done);
    MBL_TRY_GOTO(mbl_dit_save(state->model, vector, MBL_BF16, folder), done);
    MBL_INFO("the model is in %s/model", out_dir);
done:
    mbl_free(vector);
    return status;
}

mbl_status_t mbl_pretrain_state_export(mbl_pretrain_state_t *state, const char *out_dir) {
    return mbl_comm_agree(state->comm, state->comm->rank == 0 ? export_model(state, out_dir) : MBL_OK);
}

size_t mbl_pretrain_state_bytes(const mbl_pretrain_state_t *state) {
    enum { REST = 1 << 16 };
    return n_vectors(state) * state->size * sizeof(float) + REST;
}
