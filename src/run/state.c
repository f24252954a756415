/* The state of a training run and its checkpoints. */
#include "run/state.h"

#include "base/mem.h"
#include "base/file.h"
#include "io/ckpt_writer.h"
#include "run/gather.h"
#include "run/identity.h"
#include "run/resume.h"
#include "run/rundir.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static void free_snapshot(mbl_snapshot_t *s);

void mbl_state_free(mbl_state_t *state) {
    free_snapshot(state->snapshot);
    mbl_ckpt_team_close(state->team);
    mbl_update_free(&state->update);
    mbl_lora_free(state->lora);
    mbl_free(state->made_by);
    mbl_free(state->made_with);
    memset(state, 0, sizeof *state);
}

/* The vectors of a checkpoint: whole ones, then the optimizer's, of which every rank has a shard. */
enum { CURRENT, OLD, EMA, N_WHOLE, MOST_VECTORS = N_WHOLE + MBL_OPTIMIZER_STATES };
static const char *const names[N_WHOLE] = {"adapter/current", "adapter/old", "adapter/ema"};

static size_t n_vectors(const mbl_state_t *state) {
    return N_WHOLE + state->update.optimizer.n;
}

/* Counters and small arrays, written and read through one list; older checkpoints lack some after the first
 * four. */
enum { N_SMALL = 16, N_ALWAYS = 4, N_ALARM_COUNTERS = 2 * MBL_ALARM_ROOM + 2 };
typedef struct {
    double alpha_mean[MBL_MAX_REWARDS];
    int64_t seen[MBL_MAX_REWARDS], skipped[MBL_MAX_REWARDS], counters[5];
    double cached_norm[MBL_MAX_REWARDS];
    int64_t cached_age;
    int64_t alarm_counters[N_ALARM_COUNTERS], alarm_flat[MBL_MAX_REWARDS];
    double x0_norm;
    double multiplier[MBL_MAX_REWARDS], level[MBL_MAX_REWARDS], spread[MBL_MAX_REWARDS];
    int64_t level_seen[MBL_MAX_REWARDS];
    int64_t unscored[MBL_MAX_REWARDS], fallen[MBL_MAX_REWARDS];
    double first[2 * MBL_MAX_REWARDS]; /* mean and deviation of each */
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
    items[9] = (mbl_ckpt_item_t){"constraint/multiplier", MBL_F64, k, small->multiplier};
    items[10] = (mbl_ckpt_item_t){"constraint/level", MBL_F64, k, small->level};
    items[11] = (mbl_ckpt_item_t){"constraint/spread", MBL_F64, k, small->spread};
    items[12] = (mbl_ckpt_item_t){"constraint/seen", MBL_I64, k, small->level_seen};
    items[13] = (mbl_ckpt_item_t){"alarms/unscored", MBL_I64, k, small->unscored};
    items[14] = (mbl_ckpt_item_t){"alarms/fallen", MBL_I64, k, small->fallen};
    items[15] = (mbl_ckpt_item_t){"alarms/first_scores", MBL_F64, 2 * k, small->first};
}

static void pack_alarms(const mbl_alarm_state_t *alarms, small_t *small) {
    for (size_t i = 0; i < MBL_ALARM_ROOM; i++) {
        small->alarm_counters[i] = (int64_t)alarms->count[i];
        small->alarm_counters[MBL_ALARM_ROOM + i] = (int64_t)alarms->run[i];
    }
    small->alarm_counters[2 * MBL_ALARM_ROOM] = (int64_t)alarms->unsolved;
    small->alarm_counters[2 * MBL_ALARM_ROOM + 1] = (int64_t)alarms->x0_steps;
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++) {
        small->alarm_flat[k] = (int64_t)alarms->flat[k];
        small->unscored[k] = (int64_t)alarms->unscored[k];
        small->fallen[k] = (int64_t)alarms->fallen[k];
        small->first[2 * k] = alarms->first[k].mean;
        small->first[2 * k + 1] = alarms->first[k].deviation;
    }
    small->x0_norm = alarms->x0_norm;
}

static void unpack_alarms(mbl_alarm_state_t *alarms, const small_t *small) {
    for (size_t i = 0; i < MBL_ALARM_ROOM; i++) {
        alarms->count[i] = (uint64_t)small->alarm_counters[i];
        alarms->run[i] = (uint64_t)small->alarm_counters[MBL_ALARM_ROOM + i];
    }
    alarms->unsolved = (uint64_t)small->alarm_counters[2 * MBL_ALARM_ROOM];
    alarms->x0_steps = (uint64_t)small->alarm_counters[2 * MBL_ALARM_ROOM + 1];
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++) {
        alarms->flat[k] = (uint64_t)small->alarm_flat[k];
        alarms->unscored[k] = (uint64_t)small->unscored[k];
        alarms->fallen[k] = (uint64_t)small->fallen[k];
        alarms->first[k].mean = small->first[2 * k];
        alarms->first[k].deviation = small->first[2 * k + 1];
    }
    alarms->x0_norm = small->x0_norm;
}

static void pack(const mbl_state_t *state, small_t *small) {
    memset(small, 0, sizeof *small);
    for (size_t k = 0; k < state->engine->k; k++) {
        small->alpha_mean[k] = state->update.balance.alpha_mean[k];
        small->seen[k] = state->update.balance.seen[k];
        small->skipped[k] = (int64_t)state->skipped[k];
        small->cached_norm[k] = state->update.cache.norm[k];
        small->multiplier[k] = state->constraint.multiplier[k];
        small->level[k] = state->constraint.level[k];
        small->spread[k] = state->constraint.spread[k];
        small->level_seen[k] = state->constraint.seen[k];
    }
    small->cached_age = (int64_t)state->update.cache.age;
    pack_alarms(&state->alarms, small);
    const int64_t counters[5] = {(int64_t)state->step, (int64_t)state->epoch,
                                 (int64_t)state->update.optimizer.steps, (int64_t)state->empty_steps,
                                 state->update.policy.old_is_current};
    memcpy(small->counters, counters, sizeof counters);
}

static void unpack(mbl_state_t *state, const small_t *small) {
    for (size_t k = 0; k < state->engine->k; k++) {
        state->update.balance.alpha_mean[k] = small->alpha_mean[k];
        state->update.balance.seen[k] = small->seen[k] != 0;
        state->skipped[k] = (uint64_t)small->skipped[k];
        state->update.cache.norm[k] = small->cached_norm[k];
        state->constraint.multiplier[k] = small->multiplier[k];
        state->constraint.level[k] = small->level[k];
        state->constraint.spread[k] = small->spread[k];
        state->constraint.seen[k] = small->level_seen[k] != 0;
    }
    state->update.cache.age = (uint64_t)small->cached_age;
    unpack_alarms(&state->alarms, small);
    state->step = (uint64_t)small->counters[0];
    state->epoch = (uint64_t)small->counters[1];
    state->update.optimizer.steps = (uint64_t)small->counters[2];
    state->empty_steps = (uint64_t)small->counters[3];
}

/* The rewards' names in order, joined by spaces: alpha and counters are stored by position. */
static mbl_status_t reward_names(const mbl_config_t *config, char **out) {
    size_t size = 1;
    for (size_t k = 0; k < config->rewards.count; k++)
        size += strlen(config->rewards.items[k].name) + 1;
    char *at;
    MBL_ALLOC(*out, size);
    at = *out;
    for (size_t k = 0; k < config->rewards.count; k++)
        at += snprintf(at, size - (size_t)(at - *out), "%s%s", k ? " " : "", config->rewards.items[k].name);
    return MBL_OK;
}

/* A copy of the state on its way to disk; it stays as it is until its write has ended. */
struct mbl_snapshot {
    mbl_ckpt_writer_t *writer; /* rank 0; with a team every rank */
    float *vectors;            /* gathered: rank 0 [vectors, padded], others [padded] */
    float *shards; /* with a team: vectors [N_WHOLE, padded] on rank 0 only, and here [n, count] */
    mbl_ckpt_part_t parts[MBL_OPTIMIZER_STATES];
    char names[MBL_OPTIMIZER_STATES][MBL_OPTIMIZER_NAME];
    small_t small;
    char folder[512], step[32], branch[32], *rewards, *config, *prompts;
    const mbl_config_t *described; /* by `config` */
    size_t best[MBL_MAX_REWARDS];  /* steps kept for their scores */
    mbl_ckpt_item_t items[MOST_VECTORS + N_SMALL];
    mbl_ckpt_attr_t attrs[11];
    size_t n_attrs;
};

static void free_snapshot(mbl_snapshot_t *s) {
    if (!s)
        return;
    mbl_ckpt_writer_close(s->writer);
    mbl_free(s->vectors);
    mbl_free(s->shards);
    mbl_free(s->rewards);
    mbl_free(s->config);
    mbl_free(s->prompts);
    mbl_free(s);
}

/* Room for this rank's moments and where they belong in the whole. */
static mbl_status_t make_parts(const mbl_state_t *state, mbl_snapshot_t *s) {
    const mbl_comm_t *comm = state->engine->comm;
    size_t size = state->update.policy.size, count = state->update.optimizer.count, first, last;
    MBL_ALLOC(s->shards, state->update.optimizer.n * count);
    mbl_lora_range(state->lora, (size_t)comm->rank, &first, &last);
    for (size_t i = 0; i < state->update.optimizer.n; i++)
        s->parts[i] = (mbl_ckpt_part_t){s->names[i], size, first, last - first, s->shards + i * count};
    return MBL_OK;
}

/* What products are computed in; `auto` decides by the device. */
static const char *precision_of(const mbl_engine_t *engine) {
    return mbl_engine_dtype(engine) == MBL_BF16 ? "bf16" : "f32";
}

static mbl_status_t make_snapshot(mbl_state_t *state, const char *out_dir) {
    mbl_snapshot_t *s;
    bool first = state->engine->comm->rank == 0, together = state->team != NULL;
    MBL_ALLOC(s, 1);
    state->snapshot = s; /* freed with the state, whole or not */
    if (first || !together)
        MBL_ALLOC(s->vectors, (!first ? 1 : together ? N_WHOLE : n_vectors(state)) * state->update.padded);
    for (size_t i = 0; i < state->update.optimizer.n; i++)
        mbl_optimizer_dataset(&state->update.optimizer, i, s->names[i]);
    if (together)
        MBL_TRY(make_parts(state, s));
    MBL_TRY(mbl_rundir_join(out_dir, "checkpoints", s->folder, sizeof s->folder));
    if (!first)
        return together ? mbl_ckpt_writer_open(&s->writer) : MBL_OK;
    MBL_TRY(reward_names(state->engine->config, &s->rewards));
    MBL_TRY(mbl_prompt_sets_describe(state->engine->config, &state->engine->train, &state->engine->test,
                                     &s->prompts));
    for (size_t i = 0; i < n_vectors(state); i++)
        s->items[i] = (mbl_ckpt_item_t){
            i < N_WHOLE ? names[i] : s->names[i - N_WHOLE], MBL_F32, state->update.policy.size,
            together && i >= N_WHOLE ? NULL : s->vectors + i * state->update.padded};
    small_items(&s->small, state->engine->k, s->items + n_vectors(state));
    const mbl_ckpt_attr_t attrs[] = {{"kind", "train"},
                                     {"step", s->step},
                                     {"config", NULL}, /* describe_config */
                                     {"prompts", s->prompts},
                                     {"rewards", s->rewards},
                                     {"precision", precision_of(state->engine)},
                                     {"model_digest", mbl_pipeline_digest(state->engine->pipeline)},
                                     {"made_by", state->made_by},
                                     {"made_with", state->made_with}};
    s->n_attrs = sizeof attrs / sizeof *attrs;
    memcpy(s->attrs, attrs, sizeof attrs);
    if (state->run)
        s->attrs[s->n_attrs++] = (mbl_ckpt_attr_t){MBL_CKPT_RUN_KEY, state->run};
    snprintf(s->branch, sizeof s->branch, "%zu", state->branch);
    if (state->run && state->branch > 0)
        s->attrs[s->n_attrs++] = (mbl_ckpt_attr_t){MBL_CKPT_BRANCH_KEY, s->branch};
    return mbl_ckpt_writer_open(&s->writer);
}

/* The vectors into the snapshot: rank 0's; with a team every rank's moments stay with it, else the other
 * ranks take part in gathering them. */
static mbl_status_t copy_vectors(const mbl_state_t *state) {
    const mbl_engine_t *engine = state->engine;
    const mbl_tensor_t *whole[] = {&state->update.policy.current, &state->update.policy.old,
                                   &state->update.policy.ema};
    const mbl_tensor_t *shard = state->update.optimizer.state;
    size_t padded = state->update.padded, count = state->update.optimizer.count;
    mbl_snapshot_t *s = state->snapshot;
    bool first = engine->comm->rank == 0;
    for (size_t i = 0; i < N_WHOLE && first; i++) {
        MBL_TRY(mbl_tensor_download(engine->ops, whole[i], s->vectors + i * padded));
        mbl_lora_pack(state->lora, s->vectors + i * padded);
    }
    for (size_t i = 0; i < state->update.optimizer.n; i++) {
        if (state->team) {
            MBL_TRY(mbl_tensor_download(engine->ops, &shard[i], s->shards + i * count));
            continue;
        }
        float *gathered = s->vectors + (first ? (N_WHOLE + i) * padded : 0);
        MBL_TRY(mbl_gather_shards(engine->comm, engine->ops, &shard[i], gathered));
        mbl_lora_pack(state->lora, gathered);
    }
    return MBL_OK;
}

/* The configuration as it is now: settings may have changed it since the last checkpoint (control.h). */
static mbl_status_t describe_config(const mbl_state_t *state, mbl_snapshot_t *s) {
    char *text;
    if (s->described == state->engine->config)
        return MBL_OK;
    MBL_TRY(mbl_config_json(state->engine->config, &text));
    mbl_free(s->config);
    s->config = text;
    s->described = state->engine->config;
    for (size_t i = 0; i < sizeof s->attrs / sizeof *s->attrs; i++)
        if (s->attrs[i].key && strcmp(s->attrs[i].key, "config") == 0)
            s->attrs[i].value = text;
    return MBL_OK;
}

/* What the writer of this rank is given. */
static mbl_status_t make_job(const mbl_state_t *state, const char *out_dir, mbl_ckpt_job_t *job) {
    mbl_snapshot_t *s = state->snapshot;
    const mbl_config_t *config = state->engine->config;
    *job = (mbl_ckpt_job_t){.folder = s->folder, .step = (size_t)state->step, .team = state->team};
    job->parts = s->parts;
    job->n_parts = state->update.optimizer.n;
    if (state->engine->comm->rank > 0)
        return MBL_OK;
    job->items = s->items;
    job->n = n_vectors(state) + N_SMALL;
    job->attrs = s->attrs;
    job->n_attrs = s->n_attrs;
    job->keep.last = config->checkpoint.keep.last;
    job->keep.every = config->checkpoint.keep.every;
    job->keep.also = s->best;
    MBL_TRY(mbl_rundir_best(out_dir, config, (size_t)state->step, s->best, &job->keep.n_also));
    MBL_TRY(describe_config(state, s));
    pack(state, &s->small);
    snprintf(s->step, sizeof s->step, "%llu", (unsigned long long)state->step);
    return MBL_OK;
}

static mbl_status_t last_write(const mbl_state_t *state, bool wait) {
    const mbl_snapshot_t *s = state->snapshot;
    return s && s->writer ? mbl_ckpt_writer_result(s->writer, wait) : MBL_OK;
}

static void log_lost(mbl_status_t status) {
    if (status != MBL_OK)
        MBL_ERROR("the checkpoint before that one stays the latest; training goes on and the next is written "
                  "when it is "
                  "due");
}

void mbl_state_saved(const mbl_state_t *state, bool wait) {
    log_lost(last_write(state, wait));
}

mbl_status_t mbl_state_writers(mbl_state_t *state) {
    const mbl_config_t *config = state->engine->config;
    char where[256], reason[600];
    if (config->checkpoint.writer == MBL_CONFIG_WRITER_GATHER)
        return MBL_OK;
    mbl_status_t status = mbl_ckpt_team_open(state->engine->comm, &state->team);
    if (status != MBL_ERR_UNSUPPORTED)
        return status;
    snprintf(reason, sizeof reason, "%s", mbl_fail_message());
    return MBL_FAIL(MBL_ERR_CONFIG, "%s: parallel is not possible: %s; expected gather",
                    mbl_config_where(config, "checkpoint.writer", where, sizeof where), reason);
}

mbl_status_t mbl_state_save(mbl_state_t *state, const char *out_dir, bool wait) {
    mbl_comm_t *comm = state->engine->comm;
    mbl_status_t status = state->snapshot ? MBL_OK : make_snapshot(state, out_dir);
    MBL_TRY(mbl_comm_agree(comm, status));
    log_lost(last_write(state, true));
    mbl_ckpt_job_t job;
    MBL_TRY(copy_vectors(state));
    status = make_job(state, out_dir, &job);
    if (state->team)
        status =
            mbl_comm_agree(comm, status); /* a rank whose writer does not start would hold up the others */
    if (status == MBL_OK && state->snapshot->writer)
        status = mbl_ckpt_writer_start(state->snapshot->writer, &job);
    if (status == MBL_OK && wait)
        status = last_write(state, true);
    return mbl_comm_agree(comm, status);
}

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
static mbl_status_t check_identity(const mbl_state_t *state, const char *path, const mbl_ckpt_t *ckpt,
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
    return mbl_prompt_sets_check(engine->config, &engine->train, &engine->test, ckpt, path, accept_prompts);
}

/* `auto` on another device may be another precision. The state is f32 either way, so the run goes on, and
 * says so. */
static void log_precision(const mbl_state_t *state, const char *path, const mbl_ckpt_t *ckpt) {
    const mbl_engine_t *engine = state->engine;
    const char *was = mbl_ckpt_attr(ckpt, "precision"), *is = precision_of(engine);
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
    for (size_t i = 0; i < N_WHOLE; i++) {
        MBL_TRY(mbl_ckpt_read(ckpt, names[i], MBL_F32, size, vector));
        MBL_TRY(check_finite(path, names[i], vector, size));
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
    small_t small;
    mbl_ckpt_item_t items[N_SMALL];
    memset(&small, 0, sizeof small);
    small_items(&small, state->engine->k, items);
    for (int i = 0; i < N_SMALL; i++)
        if (i < N_ALWAYS || has_item(ckpt, items[i].name))
            MBL_TRY(mbl_ckpt_read(ckpt, items[i].name, items[i].dtype, items[i].count,
                                  (void *)(uintptr_t)items[i].data));
    unpack(state, &small);
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

size_t mbl_state_bytes(const mbl_state_t *state) {
    enum { REST = 1 << 18 };
    return n_vectors(state) * state->update.policy.size * sizeof(float) + REST;
}
