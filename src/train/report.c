/* Metrics, progress and the closing table. */
#include "train/report.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *by_reward(const mbl_config_t *config, const double *values, size_t stride) {
    json_t *object = json_object();
    for (size_t k = 0; k < config->rewards.count; k++) {
        double value = *(const double *)(const void *)((const char *)values + k * stride);
        json_object_set_new(object, config->rewards.items[k].name, mbl_jsonl_real(value));
    }
    return object;
}

/* A field of the statistics of scores; null where there is none to make it of. */
static json_t *stats_by_reward(const mbl_config_t *config, const mbl_reward_stats_t *stats, size_t offset) {
    double values[MBL_MAX_REWARDS];
    for (size_t k = 0; k < config->rewards.count; k++)
        values[k] =
            stats[k].valid > 0 ? *(const double *)(const void *)((const char *)&stats[k] + offset) : NAN;
    return by_reward(config, values, sizeof *values);
}

static json_t *counts_by_reward(const mbl_config_t *config, const mbl_reward_stats_t *stats, size_t offset) {
    json_t *object = json_object();
    for (size_t k = 0; k < config->rewards.count; k++) {
        size_t value = *(const size_t *)(const void *)((const char *)&stats[k] + offset);
        json_object_set_new(object, config->rewards.items[k].name, json_integer((json_int_t)value));
    }
    return object;
}

/* Of the rewards with a min: how far below it they are (gap), and what that costs. */
static void put_constraints(json_t *line, const mbl_config_t *config, const mbl_event_step_t *r) {
    json_t *object = json_object();
    for (size_t k = 0; k < config->rewards.count; k++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[k];
        if (!isnan(spec->min))
            json_object_set_new(
                object, spec->name,
                json_pack(
                    "{s:f,s:f,s:o}", "multiplier", r->constraint->multiplier[k], "pressure", r->pressure[k],
                    "gap",
                    mbl_jsonl_real(r->constraint->seen[k] ? spec->min - r->constraint->level[k] : NAN)));
    }
    if (json_object_size(object) > 0)
        json_object_set(line, "constraint", object);
    json_decref(object);
}

/* What was asked of the run and holds from this step on. */
static void put_settings(json_t *line, const mbl_event_step_t *r) {
    const char *at = r->settings;
    if (r->n_settings == 0)
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_settings; i++, at += strlen(at) + 1)
        json_array_append_new(list, json_string(at));
    json_object_set_new(line, "control", list);
}

static json_t *alarm_counts(const mbl_alarm_state_t *alarms) {
    json_t *object = json_object();
    for (int i = 0; i < MBL_ALARMS; i++)
        json_object_set_new(object, mbl_alarm_name((mbl_alarm_t)i),
                            json_integer((json_int_t)alarms->count[i]));
    return object;
}

/* What either half of the rows says, and the variance of alpha that follows for a solve on so many rows. */
static void put_halves(json_t *line, const mbl_config_t *config, const mbl_event_step_t *r) {
    json_t *halves = json_object();
    double variance[MBL_MAX_REWARDS];
    for (size_t k = 0; k < config->rewards.count; k++) {
        double a = r->update->alpha_half[0][k], b = r->update->alpha_half[1][k];
        variance[k] = (a - b) * (a - b) / 2;
        json_object_set_new(halves, config->rewards.items[k].name, json_pack("[f,f]", a, b));
    }
    json_object_set_new(line, "alpha_halves", halves);
    json_object_set_new(line, "alpha_variance", by_reward(config, variance, sizeof *variance));
    json_object_set_new(line, "noise_ratio", by_reward(config, r->update->noise_ratio, sizeof *variance));
    if (config->balance.shrink != MBL_SHRINK_OFF)
        json_object_set_new(line, "shrunk", mbl_jsonl_real(r->update->shrunk));
}

/* What the gradients of the whole step say of each reward; null where that one, or the direction, is none. */
static void put_cosines(json_t *line, const mbl_config_t *config, const mbl_event_step_t *r) {
    const mbl_balance_step_t *b = &r->update->balance;
    const double *const found[] = {b->cos, b->cos_part, r->update->cos_step};
    static const char *const names[] = {"cos", "cos_part", "cos_step"};
    double norm[MBL_MAX_REWARDS], value[MBL_MAX_REWARDS];
    bool any = false, moved = r->update->norm > 0;
    for (size_t k = 0; k < config->rewards.count; k++) {
        norm[k] = r->stats[k].valid > 0 ? b->norm[k] : NAN;
        any |= b->measured[k] && r->active[k] && moved;
    }
    json_object_set_new(line, "grad_norm_by", by_reward(config, norm, sizeof *norm));
    for (size_t i = 0; i < sizeof found / sizeof *found; i++) {
        for (size_t k = 0; k < config->rewards.count; k++)
            value[k] = b->measured[k] && moved ? found[i][k] : NAN;
        json_object_set_new(line, names[i], by_reward(config, value, sizeof *value));
    }
    json_object_set_new(line, "cos_min", mbl_jsonl_real(any ? b->cos_min : NAN));
    json_object_set_new(line, "cos_part_min", mbl_jsonl_real(any ? b->cos_part_min : NAN));
    json_object_set_new(line, "cos_mean", mbl_jsonl_real(any ? b->cos_mean : NAN));
    json_object_set_new(line, "cos_var", mbl_jsonl_real(any ? b->cos_var : NAN));
}

/* Shares of the direction, or null where no reward was usable and so nothing was shared out. */
static json_t *shares(const mbl_config_t *config, const mbl_event_step_t *r, const double *alpha) {
    double none[MBL_MAX_REWARDS];
    for (size_t k = 0; k < config->rewards.count; k++)
        none[k] = NAN;
    return by_reward(config, r->solves && r->update->balance.n_used == 0 ? none : alpha, sizeof *none);
}

static void put_balance(json_t *line, const mbl_config_t *config, const mbl_event_step_t *r) {
    json_object_set_new(line, "alpha", shares(config, r, r->update->balance.alpha));
    json_object_set_new(line, "alpha_ema", shares(config, r, r->update->balance.alpha_mean));
    json_object_set_new(line, "refreshed", json_boolean(r->update->refreshed));
    json_object_set_new(line, "rewards_used", json_integer((json_int_t)r->update->balance.n_used));
    if (r->update->refreshed) {
        json_object_set_new(line, "alpha_raw", shares(config, r, r->update->alpha_raw));
        json_object_set_new(line, "gram_share", mbl_jsonl_real(r->update->gram_share));
        if (config->balance.guard != MBL_CONFIG_GUARD_OFF)
            json_object_set_new(line, "guard_moved", mbl_jsonl_real(r->update->balance.moved));
        if (r->update->halves)
            put_halves(line, config, r);
        else if (config->balance.shrink != MBL_SHRINK_OFF) /* a half without rows or usable rewards */
            json_object_set_new(line, "shrunk", json_null());
    }
    if (r->update->cosines)
        put_cosines(line, config, r);
}

/* Which rewards the step trains, where some it only scores: their cosines say nothing of the balance. */
static void put_trained(json_t *line, const mbl_config_t *config, const mbl_event_step_t *r) {
    json_t *trained = json_object();
    bool all = true;
    for (size_t k = 0; k < config->rewards.count; k++) {
        json_object_set_new(trained, config->rewards.items[k].name, json_boolean(r->active[k]));
        all &= r->active[k];
    }
    if (!all)
        json_object_set(line, "trained", trained);
    json_decref(trained);
}

static void put_sources(json_t *line, const mbl_event_step_t *r) {
    const mbl_engine_t *engine = r->state->engine;
    const mbl_prompts_t *prompts = &engine->train.prompts;
    json_t *sources = r->by_source ? json_object() : NULL;
    for (size_t s = 0; sources && s < prompts->n_sources; s++)
        json_object_set_new(sources, prompts->sources[s].name,
                            by_reward(engine->config, r->by_source + s * engine->k, sizeof *r->by_source));
    if (sources)
        json_object_set_new(line, "reward_by_source", sources);
}

json_t *mbl_report_line(const mbl_event_step_t *r) {
    const mbl_config_t *config = r->state->engine->config;
    const mbl_step_seconds_t *s = &r->seconds;
    char date[32];
    json_t *line = json_pack("{s:I,s:I,s:o,s:o,s:f,s:o,s:o,s:o}", "step", (json_int_t)r->step, "epoch",
                             (json_int_t)r->epoch + 1, "loss", mbl_jsonl_real(r->update->loss), "kl",
                             mbl_jsonl_real(r->update->kl), "lr", r->lr, "grad_norm",
                             mbl_jsonl_real(r->update->norm), "old_lag", mbl_jsonl_real(r->old_deviate),
                             "samples_per_s", mbl_jsonl_real(s->total > 0 ? r->samples / s->total : NAN));
    if (config->stages.count > 0)
        json_object_set_new(line, "stage", json_integer((json_int_t)r->stage + 1));
    json_object_set_new(line, "reward",
                        stats_by_reward(config, r->stats, offsetof(mbl_reward_stats_t, mean)));
    put_sources(line, r);
    put_trained(line, config, r);
    json_object_set_new(line, "advantage_std",
                        stats_by_reward(config, r->stats, offsetof(mbl_reward_stats_t, advantage_std)));
    json_object_set_new(line, "valid",
                        counts_by_reward(config, r->stats, offsetof(mbl_reward_stats_t, valid)));
    json_object_set_new(line, "na", counts_by_reward(config, r->stats, offsetof(mbl_reward_stats_t, na)));
    json_object_set_new(line, "failed",
                        counts_by_reward(config, r->stats, offsetof(mbl_reward_stats_t, failed)));
    json_object_set_new(line, "flat_groups",
                        counts_by_reward(config, r->stats, offsetof(mbl_reward_stats_t, flat_groups)));
    if (r->update->balanced)
        put_balance(line, config, r);
    put_constraints(line, config, r);
    put_settings(line, r);
    mbl_run_traffic_put(config, r->traffic, line);
    if (r->recheck)
        json_object_set_new(line, "recheck", by_reward(config, r->recheck, sizeof *r->recheck));
    json_object_set_new(line, "x0_norm", mbl_jsonl_real(r->x0_norm * r->x0_norm));
    json_object_set_new(line, "alarms", alarm_counts(&r->state->alarms));
    json_object_set_new(line, "time", json_string(mbl_date(date)));
    json_object_set_new(line, "seconds",
                        json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "rollout", s->rollout, "reward_wait",
                                  s->reward_wait, "train", s->train, "gram", s->gram, "qp", s->qp, "comm",
                                  s->comm, "checkpoint", s->checkpoint, "total", s->total));
    json_object_set_new(line, "bytes_comm", json_integer((json_int_t)r->bytes_comm));
    mbl_ranks_put(r->ranks, line);
    return line;
}

mbl_status_t mbl_report_metrics(mbl_rundir_t *rundir, const mbl_event_step_t *step) {
    return rundir->metrics ? mbl_jsonl_write(rundir->metrics, mbl_report_line(step)) : MBL_OK;
}

static json_t *rounded(double value) {
    return mbl_jsonl_real(round(1e4 * value) / 1e4);
}

mbl_status_t mbl_report_gram(mbl_rundir_t *rundir, const mbl_event_step_t *r) {
    const mbl_config_t *config = r->state->engine->config;
    size_t n = config->rewards.count;
    if (!rundir->gram || !r->update->paired || !r->update->finite)
        return MBL_OK;
    json_t *names = json_array(), *norms = json_array(), *cosines = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *row = json_array();
        json_array_append_new(names, json_string(config->rewards.items[i].name));
        json_array_append_new(norms, mbl_jsonl_real(r->update->balance.norm[i]));
        for (size_t j = 0; j < n; j++)
            json_array_append_new(row, rounded(r->update->cos_pair[i * n + j]));
        json_array_append_new(cosines, row);
    }
    return mbl_jsonl_write(rundir->gram, json_pack("{s:I,s:o,s:o,s:o}", "step", (json_int_t)r->step,
                                                   "rewards", names, "norm", norms, "cos", cosines));
}

enum { NO_ADVANTAGE = 2 }; /* a_ik is in [-1/2, 1/2] */

/* This rank's images into table [1 + K, n_global], the rows: prompt, then a_ik or NO_ADVANTAGE. */
static void put_advantages(const mbl_batch_t *batch, const float *a, double *table) {
    for (size_t i = 0; i < batch->n; i++) {
        double *column = table + batch->sample[i];
        column[0] = batch->prompt[i];
        for (size_t k = 0; k < batch->k; k++)
            column[(k + 1) * batch->n_global] = batch->scores[i * batch->k + k].state == MBL_SCORE_VALID
                                                    ? (double)a[k * batch->n + i]
                                                    : NO_ADVANTAGE;
    }
}

static json_t *advantages_line(const mbl_state_t *state, const mbl_batch_t *batch, const double *table) {
    const mbl_config_t *config = state->engine->config;
    size_t n = batch->n_global;
    json_t *line = json_pack("{s:I}", "step", (json_int_t)state->step + 1), *prompts = json_array();
    json_t *by = json_object();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(prompts, json_integer((json_int_t)table[i]));
    for (size_t k = 0; k < batch->k; k++) {
        json_t *column = json_array();
        for (size_t i = 0; i < n; i++) {
            double a = table[(k + 1) * n + i], advantage = round(2000 * config->train.clip * a) / 1000;
            json_array_append_new(column, a == NO_ADVANTAGE ? json_null() : json_real(advantage));
        }
        json_object_set_new(by, config->rewards.items[k].name, column);
    }
    json_object_set_new(line, "prompt", prompts);
    json_object_set_new(line, "advantage", by);
    return line;
}

mbl_status_t mbl_report_advantages(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_event_images_t *images) {
    const mbl_batch_t *batch = images->batch;
    double *table;
    size_t size = (batch->k + 1) * batch->n_global;
    MBL_ALLOC(table, size);
    put_advantages(batch, images->a, table);
    mbl_status_t status = mbl_comm_allreduce(comm, table, size, MBL_COMM_F64, MBL_COMM_SUM);
    if (status == MBL_OK && rundir->advantages)
        status = mbl_jsonl_write(rundir->advantages, advantages_line(images->state, batch, table));
    mbl_free(table);
    return status;
}

void mbl_report_progress(const mbl_event_step_t *r) {
    const mbl_config_t *config = r->state->engine->config;
    char rewards[512] = "", balance[512] = "", left[40] = "", duration[32], stage[64] = "";
    size_t used = 0, size = 0;
    bool balanced = r->update->balanced && r->update->finite && (!r->solves || r->update->balance.n_used > 0);
    for (size_t k = 0; k < config->rewards.count; k++) {
        const char *name = config->rewards.items[k].name;
        if (used < sizeof rewards && r->stats[k].valid > 0)
            used +=
                (size_t)snprintf(rewards + used, sizeof rewards - used, "  %s %.3f", name, r->stats[k].mean);
        else if (used < sizeof rewards)
            used += (size_t)snprintf(rewards + used, sizeof rewards - used, "  %s -", name);
        if (balanced && size < sizeof balance)
            size += (size_t)snprintf(balance + size, sizeof balance - size, "%s%.2f", k ? " " : "  | alpha ",
                                     r->update->balance.alpha[k]);
    }
    if (balanced && r->update->cosines && size < sizeof balance)
        snprintf(balance + size, sizeof balance - size, "  min cos %+.2f, own part %+.2f",
                 r->update->balance.cos_min, r->update->balance.cos_part_min);
    if (!r->update->finite)
        snprintf(balance, sizeof balance, "  | left out: not finite");
    if (r->seconds_left >= 0)
        snprintf(left, sizeof left, "  left %s", mbl_duration(r->seconds_left, duration));
    if (config->stages.count > 0)
        snprintf(stage, sizeof stage, "  stage %zu/%zu", r->stage + 1, config->stages.count);
    mbl_log_shown("step %llu/%zu%s%s%s  | %.1f s%s", (unsigned long long)r->step, config->train.steps, stage,
                  rewards, balance, r->seconds.total, left);
}

/* A mean in its column, "-" without one. */
static void write_mean(FILE *out, int width, const char *format, double mean) {
    char text[32] = "-";
    if (!isnan(mean))
        snprintf(text, sizeof text, format, mean);
    fprintf(out, " %*s", width, text);
}

/* Whether the interval of the paired difference leaves zero out; one prompt has no interval. */
static const char *verdict(const mbl_eval_score_t *difference) {
    return isnan(difference->ci95)                ? "no interval"
           : difference->mean > difference->ci95  ? "better"
           : difference->mean < -difference->ci95 ? "worse"
                                                  : "no clear change";
}

static void write_table(FILE *out, const mbl_config_t *config, const mbl_eval_score_t *base,
                        const mbl_eval_score_t *trained, const mbl_eval_score_t *difference) {
    bool few = false;
    fprintf(out, "\n%-12s %8s %9s   %-22s %8s\n", "reward", "base", "trained", "difference (95 %)", "images");
    for (size_t k = 0; k < config->rewards.count; k++) {
        const mbl_eval_score_t *d = &difference[k];
        char interval[32] = "";
        bool marked = !isnan(d->ci95) && d->prompts < MBL_EVAL_FEW;
        if (!isnan(d->ci95))
            snprintf(interval, sizeof interval, "+- %.4f%s", d->ci95, marked ? "*" : "");
        few |= marked;
        fprintf(out, "%-12s", config->rewards.items[k].name);
        write_mean(out, 8, "%.4f", base[k].mean);
        write_mean(out, 9, "%.4f", trained[k].mean);
        write_mean(out, 9, "%+.4f", d->mean);
        fprintf(out, " %-13s %8zu   %s\n", interval, d->n, verdict(d));
    }
    if (few)
        fprintf(out, "* from fewer than %d prompts: such an interval says little\n", MBL_EVAL_FEW);
}

mbl_status_t mbl_report_table(const mbl_config_t *config, const mbl_eval_score_t *base,
                              const mbl_eval_score_t *trained, const mbl_eval_score_t *difference) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the closing table");
    write_table(out, config, base, trained, difference);
    bool good = fclose(out) == 0;
    if (good)
        mbl_log_print(text);
    free(text);
    return good ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for the closing table");
}
