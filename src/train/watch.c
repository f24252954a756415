/* Measures what the health alarms look at. */
#include "train/watch.h"

#include <math.h>

enum { LOG_EVERY = 100 };

/* Sum of squares of this rank's latents. */
static mbl_status_t latent_squares(mbl_ops_t *ops, const mbl_batch_t *batch, double *out) {
    mbl_tensor_t row = mbl_tensor_reshape(&batch->x0, 2, (size_t)1, mbl_tensor_count(&batch->x0));
    mbl_tensor_t host = MBL_TENSOR_2(out, MBL_F64, 1, 1);
    return MBL_OP(ops, gram, .gram = &host, .x = &row);
}

mbl_status_t mbl_watch_epoch(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_config_t *config,
                             const mbl_batch_t *batch, mbl_watch_t *out) {
    double sums[MBL_MAX_REWARDS + 1] = {0};
    size_t k = batch->k, elements = mbl_tensor_count(&batch->x0) / batch->n;
    for (size_t j = 0; j < k; j++)
        sums[j] = (double)mbl_scores_outside(&config->rewards.items[j], batch->scores + j, batch->n, k);
    MBL_TRY(latent_squares(ops, batch, &sums[k]));
    MBL_TRY(mbl_comm_allreduce(comm, sums, k + 1, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t j = 0; j < k; j++)
        out->outside[j] = (size_t)sums[j];
    out->x0_norm = sqrt(sums[k] / (double)(batch->n_global * elements));
    return MBL_OK;
}

/* Both adapters' checksums, made where they lie. */
static mbl_status_t checksums(const mbl_policy_t *policy, uint64_t out[2]) {
    const mbl_tensor_t *vectors[] = {&policy->current, &policy->old};
    for (int i = 0; i < 2; i++) {
        const mbl_tensor_t own = mbl_tensor_rows(vectors[i], 0, policy->room),
                           sum = MBL_TENSOR_1(&out[i], MBL_I64, 1);
        MBL_TRY(MBL_OP(policy->ops, checksum, .sum = &sum, .x = &own));
    }
    return MBL_OK;
}

mbl_status_t mbl_watch_replicas(mbl_comm_t *comm, const mbl_policy_t *policy, bool *same) {
    uint64_t sums[2] = {0};
    mbl_status_t status = checksums(policy, sums);
    MBL_TRY(mbl_comm_agree(comm, status));
    return mbl_comm_same(comm, sums, 2, same);
}

static void text_of(const mbl_config_t *config, const mbl_alarm_findings_t *findings, mbl_alarm_t alarm,
                    char *out, size_t size) {
    const mbl_reward_spec_t *spec = &config->rewards.items[findings->reward[alarm]];
    char name[200];
    double low, high;
    mbl_reward_range(spec, &low, &high);
    if (alarm == MBL_ALARM_scorer_range)
        snprintf(name, sizeof name, "%s (range %g to %g)", spec->name, low, high);
    else
        snprintf(name, sizeof name, "%s", spec->name);
    mbl_alarm_text(alarm, &config->alarms, findings, name, out, size);
}

void mbl_watch_log(const mbl_config_t *config, const mbl_alarm_state_t *state,
                   const mbl_alarm_findings_t *findings, uint64_t step) {
    char text[600];
    for (int i = 0; i < MBL_ALARMS; i++) {
        if (!findings->found[i] || state->count[i] % LOG_EVERY != 1)
            continue;
        text_of(config, findings, (mbl_alarm_t)i, text, sizeof text);
        MBL_WARN("step %llu: alarm %s (%llu steps so far)", (unsigned long long)step, text,
                 (unsigned long long)state->count[i]);
    }
}

mbl_status_t mbl_watch_verdict(mbl_comm_t *comm, const mbl_config_t *config,
                               const mbl_alarm_findings_t *findings, uint64_t step) {
    char text[600];
    mbl_status_t status = MBL_OK;
    bool stops = config->alarms.on_alarm == MBL_ON_ALARM_STOP;
    if (!stops && !findings->give_up)
        return MBL_OK;
    for (int i = 0; i < MBL_ALARMS && status == MBL_OK; i++) {
        if (!findings->found[i] || (findings->give_up && i != MBL_ALARM_non_finite))
            continue;
        text_of(config, findings, (mbl_alarm_t)i, text, sizeof text);
        status =
            MBL_FAIL(MBL_ERR_ALARM, "step %llu: alarm %s; stopped, as %s", (unsigned long long)step, text,
                     findings->give_up ? "alarms.non_finite allows no more" : "alarms.on_alarm is stop");
    }
    return mbl_comm_agree(comm, status);
}
