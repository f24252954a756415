/* Measures what the health alarms look at. */
#include "train/watch.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

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

/* FNV-1a by words: a single wrong bit changes it. */
static uint64_t checksum(uint64_t hash, const void *data, size_t bytes) {
    const unsigned char *from = data;
    for (size_t i = 0; i + sizeof(uint32_t) <= bytes; i += sizeof(uint32_t)) {
        uint32_t word;
        memcpy(&word, from + i, sizeof word);
        hash = (hash ^ word) * 0x100000001b3u;
    }
    return hash;
}

static mbl_status_t checksum_of(const mbl_policy_t *policy, uint64_t *out) {
    const mbl_tensor_t *vectors[] = {&policy->current, &policy->old};
    uint64_t hash = 0xcbf29ce484222325u;
    float *host;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(host, policy->current.dim[0]);
    for (int i = 0; i < 2 && status == MBL_OK; i++) {
        status = mbl_tensor_download(policy->ops, vectors[i], host);
        hash = checksum(hash, host, policy->room * sizeof *host);
    }
    mbl_free(host);
    *out = hash;
    return status;
}

mbl_status_t mbl_watch_replicas(mbl_comm_t *comm, const mbl_policy_t *policy, bool *same) {
    uint64_t hash = 0;
    mbl_status_t status = checksum_of(policy, &hash);
    MBL_TRY(mbl_comm_agree(comm, status));
    return mbl_comm_same(comm, &hash, 1, same);
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
