/* The state of a training run and its checkpoints. */
#include "train/state.h"

#include "base/mem.h"
#include "io/checkpoint.h"
#include "train/gather.h"
#include "train/rundir.h"

#include <stdlib.h>
#include <string.h>

static mbl_status_t lora_config(const mbl_config_t *config, mbl_lora_config_t *out) {
    memset(out, 0, sizeof *out);
    out->rank = config->model.lora.rank;
    out->alpha = config->model.lora.alpha;
    out->n_targets = config->model.lora.targets.count;
    if (out->n_targets > MBL_LORA_MAX_TARGETS)
        return MBL_FAIL(MBL_ERR_CONFIG, "model.lora.targets: %zu given, at most %d", out->n_targets,
                        MBL_LORA_MAX_TARGETS);
    for (size_t i = 0; i < out->n_targets; i++)
        snprintf(out->targets[i], sizeof out->targets[i], "%s", config->model.lora.targets.items[i]);
    return MBL_OK;
}

mbl_status_t mbl_state_new(mbl_engine_t *engine, mbl_state_t *out) {
    mbl_status_t status;
    mbl_lora_config_t lora;
    mbl_state_t state = {.engine = engine};
    const mbl_mmdit_t *model = mbl_pipeline_model(engine->pipeline);
    MBL_TRY(lora_config(engine->config, &lora));
    MBL_TRY(mbl_lora_new(model, &lora, &state.lora));
    size_t count = mbl_shard_count(mbl_lora_size(state.lora), engine->comm->size);
    state.padded = count * (size_t)engine->comm->size;
    MBL_TRY_GOTO(
        mbl_policy_new(engine->ops, model, state.lora, state.padded, engine->config->seed, &state.policy),
        failed);
    MBL_TRY_GOTO(mbl_optimizer_new(engine->ops, count, &state.optimizer), failed);
    *out = state;
    return MBL_OK;
failed:
    mbl_state_free(&state);
    return status;
}

void mbl_state_free(mbl_state_t *state) {
    mbl_policy_free(&state->policy);
    mbl_optimizer_free(&state->optimizer);
    mbl_lora_free(state->lora);
    memset(state, 0, sizeof *state);
}

enum { CURRENT, OLD, EMA, M, V, N_VECTORS };
static const char *const names[N_VECTORS] = {"adapter/current", "adapter/old", "adapter/ema", "optimizer/m",
                                             "optimizer/v"};

/* Counters and small arrays, written and read through one list; older checkpoints lack some after the first
 * four. */
enum { N_SMALL = 9, N_ALWAYS = 4, N_ALARM_COUNTERS = 2 * MBL_ALARM_ROOM + 2 };
typedef struct {
    double alpha_mean[MBL_MAX_REWARDS];
    int64_t seen[MBL_MAX_REWARDS], skipped[MBL_MAX_REWARDS], counters[5];
    double cached_norm[MBL_MAX_REWARDS];
    int64_t cached_age;
    int64_t alarm_counters[N_ALARM_COUNTERS], alarm_flat[MBL_MAX_REWARDS];
    double x0_norm;
} small_t;

static void small_items(small_t *small, size_t k, mbl_ckpt_item_t *items) {
    items[0] = (mbl_ckpt_item_t){"balance/alpha_mean", MBL_F64, k, small->alpha_mean};
    items[1] = (mbl_ckpt_item_t){"balance/seen", MBL_I64, k, small->seen};
    items[2] = (mbl_ckpt_item_t){"rewards/skipped_steps", MBL_I64, k, small->skipped};
    items[3] = (mbl_ckpt_item_t){"counters", MBL_I64, 5, small->counters};
    items[4] = (mbl_ckpt_item_t){"balance/cached_norm", MBL_F64, k, small->cached_norm};
    items[5] = (mbl_ckpt_item_t){"balance/cached_age", MBL_I64, 1, &small->cached_age};
    items[6] = (mbl_ckpt_item_t){"alarms/counters", MBL_I64, N_ALARM_COUNTERS, small->alarm_counters};
    items[7] = (mbl_ckpt_item_t){"alarms/flat", MBL_I64, k, small->alarm_flat};
    items[8] = (mbl_ckpt_item_t){"alarms/x0_norm", MBL_F64, 1, &small->x0_norm};
}

static void pack_alarms(const mbl_alarm_state_t *alarms, small_t *small) {
    for (size_t i = 0; i < MBL_ALARM_ROOM; i++) {
        small->alarm_counters[i] = (int64_t)alarms->count[i];
        small->alarm_counters[MBL_ALARM_ROOM + i] = (int64_t)alarms->run[i];
    }
    small->alarm_counters[2 * MBL_ALARM_ROOM] = (int64_t)alarms->unsolved;
    small->alarm_counters[2 * MBL_ALARM_ROOM + 1] = (int64_t)alarms->x0_steps;
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++)
        small->alarm_flat[k] = (int64_t)alarms->flat[k];
    small->x0_norm = alarms->x0_norm;
}

static void unpack_alarms(mbl_alarm_state_t *alarms, const small_t *small) {
    for (size_t i = 0; i < MBL_ALARM_ROOM; i++) {
        alarms->count[i] = (uint64_t)small->alarm_counters[i];
        alarms->run[i] = (uint64_t)small->alarm_counters[MBL_ALARM_ROOM + i];
    }
    alarms->unsolved = (uint64_t)small->alarm_counters[2 * MBL_ALARM_ROOM];
    alarms->x0_steps = (uint64_t)small->alarm_counters[2 * MBL_ALARM_ROOM + 1];
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++)
        alarms->flat[k] = (uint64_t)small->alarm_flat[k];
    alarms->x0_norm = small->x0_norm;
}

static void pack(const mbl_state_t *state, small_t *small) {
    memset(small, 0, sizeof *small);
    for (size_t k = 0; k < state->engine->k; k++) {
        small->alpha_mean[k] = state->balance.alpha_mean[k];
        small->seen[k] = state->balance.seen[k];
        small->skipped[k] = (int64_t)state->skipped[k];
        small->cached_norm[k] = state->cache.norm[k];
    }
    small->cached_age = (int64_t)state->cache.age;
    pack_alarms(&state->alarms, small);
    const int64_t counters[5] = {(int64_t)state->step, (int64_t)state->epoch, (int64_t)state->optimizer.steps,
                                 (int64_t)state->empty_steps, state->policy.old_is_current};
    memcpy(small->counters, counters, sizeof counters);
}

static void unpack(mbl_state_t *state, const small_t *small) {
    for (size_t k = 0; k < state->engine->k; k++) {
        state->balance.alpha_mean[k] = small->alpha_mean[k];
        state->balance.seen[k] = small->seen[k] != 0;
        state->skipped[k] = (uint64_t)small->skipped[k];
        state->cache.norm[k] = small->cached_norm[k];
    }
    state->cache.age = (uint64_t)small->cached_age;
    unpack_alarms(&state->alarms, small);
    state->step = (uint64_t)small->counters[0];
    state->epoch = (uint64_t)small->counters[1];
    state->optimizer.steps = (uint64_t)small->counters[2];
    state->empty_steps = (uint64_t)small->counters[3];
}

/* The rewards' names in order, joined by spaces: alpha and counters are stored by position. */
static mbl_status_t reward_names(const mbl_config_t *config, char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (size_t k = 0; k < config->rewards.count; k++)
        used += (size_t)snprintf(out + (used < size ? used : size), used < size ? size - used : 0, "%s%s",
                                 k ? " " : "", config->rewards.items[k].name);
    return used < size ? MBL_OK : MBL_FAIL(MBL_ERR_CONFIG, "the names of the rewards are too long together");
}

static mbl_status_t write_file(const mbl_state_t *state, const char *out_dir, float *const *vector) {
    const mbl_config_t *config = state->engine->config;
    char folder[512], path[640], step[32], rewards[2048], *json;
    mbl_ckpt_item_t items[N_VECTORS + N_SMALL];
    small_t small;
    for (int i = 0; i < N_VECTORS; i++)
        items[i] = (mbl_ckpt_item_t){names[i], MBL_F32, state->policy.size, vector[i]};
    pack(state, &small);
    small_items(&small, state->engine->k, items + N_VECTORS);
    MBL_TRY(mbl_rundir_join(out_dir, "checkpoints", folder, sizeof folder));
    MBL_TRY(mbl_ckpt_path(folder, state->step, path, sizeof path));
    MBL_TRY(reward_names(config, rewards, sizeof rewards));
    MBL_TRY(mbl_config_json(config, &json));
    snprintf(step, sizeof step, "%llu", (unsigned long long)state->step);
    mbl_ckpt_attr_t attrs[] = {{"kind", "train"},
                               {"step", step},
                               {"config", json},
                               {"rewards", rewards},
                               {"model_digest", mbl_pipeline_digest(state->engine->pipeline)}};
    mbl_status_t status =
        mbl_ckpt_write(path, items, N_VECTORS + N_SMALL, attrs, sizeof attrs / sizeof *attrs);
    mbl_free(json);
    MBL_TRY(status);
    return mbl_ckpt_publish(folder, state->step, config->checkpoint.keep);
}

mbl_status_t mbl_state_save(mbl_state_t *state, const char *out_dir) {
    const mbl_tensor_t *whole[] = {&state->policy.current, &state->policy.old, &state->policy.ema};
    float *vector[N_VECTORS], *all;
    mbl_status_t status;
    MBL_ALLOC(all, N_VECTORS * state->padded);
    for (int i = 0; i < N_VECTORS; i++)
        vector[i] = all + (size_t)i * state->padded;
    for (int i = 0; i < M; i++)
        MBL_TRY_GOTO(mbl_tensor_download(state->engine->ops, whole[i], vector[i]), done);
    MBL_TRY_GOTO(mbl_gather_shards(state->engine->comm, state->engine->ops, &state->optimizer.m, vector[M]),
                 done);
    MBL_TRY_GOTO(mbl_gather_shards(state->engine->comm, state->engine->ops, &state->optimizer.v, vector[V]),
                 done);
    status = mbl_comm_agree(state->engine->comm,
                            state->engine->comm->rank == 0 ? write_file(state, out_dir, vector) : MBL_OK);
done:
    mbl_free(all);
    return status;
}

static mbl_status_t check_identity(const mbl_state_t *state, const char *path, const mbl_ckpt_t *ckpt,
                                   bool rewards_too) {
    static const char *const keys[] = {"kind", "model_digest", "rewards"};
    char rewards[2048];
    MBL_TRY(reward_names(state->engine->config, rewards, sizeof rewards));
    const char *want[] = {"train", mbl_pipeline_digest(state->engine->pipeline), rewards};
    for (int i = 0; i < (rewards_too ? 3 : 2); i++) {
        const char *found = mbl_ckpt_attr(ckpt, keys[i]);
        if (!found || strcmp(found, want[i]) != 0)
            return MBL_FAIL(MBL_ERR_CONFIG, "%s: its %s is \"%s\", this run's is \"%s\"", path, keys[i],
                            found ? found : "", want[i]);
    }
    return MBL_OK;
}

static mbl_status_t read_vectors(mbl_state_t *state, mbl_ckpt_t *ckpt, int n, float *vector) {
    const mbl_tensor_t *whole[] = {&state->policy.current, &state->policy.old, &state->policy.ema};
    const mbl_tensor_t *shard[] = {&state->optimizer.m, &state->optimizer.v};
    size_t size = state->policy.size;
    for (int i = 0; i < n; i++) {
        MBL_TRY(mbl_ckpt_read(ckpt, names[i], MBL_F32, size, vector));
        if (i < M)
            MBL_TRY(mbl_upload_padded(state->engine->ops, vector, size, whole[i]));
        else
            MBL_TRY(mbl_scatter_shard(state->engine->comm, state->engine->ops, vector, size, shard[i - M]));
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
    small_t small;
    mbl_ckpt_item_t items[N_SMALL];
    memset(&small, 0, sizeof small);
    small_items(&small, state->engine->k, items);
    for (int i = 0; i < N_SMALL; i++)
        if (i < N_ALWAYS || has_item(ckpt, items[i].name))
            MBL_TRY(mbl_ckpt_read(ckpt, items[i].name, items[i].dtype, items[i].count,
                                  (void *)(uintptr_t)items[i].data));
    unpack(state, &small);
    return mbl_policy_loaded(&state->policy, small.counters[4] != 0);
}

static mbl_status_t load(mbl_state_t *state, const char *path, bool everything) {
    mbl_ckpt_t *ckpt;
    float *vector = NULL;
    MBL_TRY(mbl_ckpt_open(path, &ckpt));
    mbl_status_t status;
    MBL_TRY_GOTO(check_identity(state, path, ckpt, everything), done);
    MBL_ALLOC_GOTO(vector, state->policy.size, done);
    MBL_TRY_GOTO(read_vectors(state, ckpt, everything ? N_VECTORS : M, vector), done);
    status = everything ? read_small(state, ckpt) : mbl_policy_loaded(&state->policy, false);
done:
    mbl_free(vector);
    mbl_ckpt_close(ckpt);
    return status;
}

mbl_status_t mbl_state_load(mbl_state_t *state, const char *path) {
    if (!path[0])
        return MBL_OK;
    MBL_TRY(mbl_comm_agree(state->engine->comm, load(state, path, true)));
    MBL_INFO("resumed from %s at step %llu", path, (unsigned long long)state->step);
    return MBL_OK;
}

mbl_status_t mbl_state_load_adapters(mbl_state_t *state, const char *path) {
    return mbl_comm_agree(state->engine->comm, load(state, path, false));
}
