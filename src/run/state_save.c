/* Checkpoints of the state of a training run: copied, then written in a thread. */
#include "run/state_internal.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/ckpt_writer.h"
#include "run/gather.h"
#include "run/rundir.h"

#include <stdio.h>
#include <string.h>

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
    float *shards; /* with a team: vectors [MBL_STATE_WHOLE, padded] on rank 0 only, and here [n, count] */
    mbl_ckpt_part_t parts[MBL_OPTIMIZER_STATES];
    char names[MBL_OPTIMIZER_STATES][MBL_OPTIMIZER_NAME];
    mbl_state_numbers_t small;
    char folder[512], step[32], branch[32], *rewards, *config, *prompts;
    const mbl_config_t *described; /* by `config` */
    size_t best[MBL_MAX_REWARDS];  /* steps kept for their scores */
    mbl_ckpt_item_t items[MBL_STATE_VECTORS + MBL_STATE_NUMBERS];
    mbl_ckpt_attr_t attrs[11];
    size_t n_attrs;
};

void mbl_snapshot_free(mbl_snapshot_t *s) {
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

static mbl_status_t make_snapshot(mbl_state_t *state, const char *out_dir) {
    mbl_snapshot_t *s;
    bool first = state->engine->comm->rank == 0, together = state->team != NULL;
    MBL_ALLOC(s, 1);
    state->snapshot = s; /* freed with the state, whole or not */
    if (first || !together)
        MBL_ALLOC(s->vectors, (!first     ? 1
                               : together ? MBL_STATE_WHOLE
                                          : mbl_state_vectors(state)) *
                                  state->update.padded);
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
    for (size_t i = 0; i < mbl_state_vectors(state); i++)
        s->items[i] = (mbl_ckpt_item_t){
            i < MBL_STATE_WHOLE ? mbl_state_names[i] : s->names[i - MBL_STATE_WHOLE], MBL_F32,
            state->update.policy.size,
            together && i >= MBL_STATE_WHOLE ? NULL : s->vectors + i * state->update.padded};
    mbl_state_items(&s->small, state->engine->k, s->items + mbl_state_vectors(state));
    const mbl_ckpt_attr_t attrs[] = {{"kind", "train"},
                                     {"step", s->step},
                                     {"config", NULL}, /* describe_config */
                                     {"prompts", s->prompts},
                                     {"rewards", s->rewards},
                                     {"precision", mbl_state_precision(state->engine)},
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
    for (size_t i = 0; i < MBL_STATE_WHOLE && first; i++) {
        MBL_TRY(mbl_tensor_download(engine->ops, whole[i], s->vectors + i * padded));
        mbl_lora_pack(state->lora, s->vectors + i * padded);
    }
    for (size_t i = 0; i < state->update.optimizer.n; i++) {
        if (state->team) {
            MBL_TRY(mbl_tensor_download(engine->ops, &shard[i], s->shards + i * count));
            continue;
        }
        float *gathered = s->vectors + (first ? (MBL_STATE_WHOLE + i) * padded : 0);
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
    job->n = mbl_state_vectors(state) + MBL_STATE_NUMBERS;
    job->attrs = s->attrs;
    job->n_attrs = s->n_attrs;
    job->keep.last = config->checkpoint.keep.last;
    job->keep.every = config->checkpoint.keep.every;
    job->keep.also = s->best;
    MBL_TRY(mbl_rundir_best(out_dir, config, (size_t)state->step, s->best, &job->keep.n_also));
    MBL_TRY(describe_config(state, s));
    mbl_state_pack(state, &s->small);
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
