/* Measures what the health alarms look at, and lets them speak: the hands of alarms.h. */
#ifndef MBL_TRAIN_WATCH_H
#define MBL_TRAIN_WATCH_H

#include "rl/policy.h"
#include "rl/alarms.h"
#include "config/config.h"

/* The images of an epoch, over all ranks. */
typedef struct {
    double x0_norm;                  /* root mean square of the latents */
    size_t outside[MBL_MAX_REWARDS]; /* valid scores outside the range that the scorer declares */
} mbl_watch_t;

/* Collective (one all-reduce of K + 1 numbers). */
mbl_status_t mbl_watch_epoch(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_config_t *config,
                             const mbl_batch_t *batch, mbl_watch_t *out);

/* Whether all ranks hold the same bits in the trained and the rollout policy: a 64-bit checksum, smallest
 * against largest. Collective (one all-reduce of two numbers). */
mbl_status_t mbl_watch_replicas(mbl_comm_t *comm, const mbl_policy_t *policy, bool *same);

/* Logs what was found (rank 0): at the first and then at every hundredth step of an alarm. */
void mbl_watch_log(const mbl_config_t *config, const mbl_alarm_state_t *state,
                   const mbl_alarm_findings_t *findings, uint64_t step);

/* The failure that ends a run whose alarms.on_alarm is stop, for the first alarm found, or any run that gives
 * up on steps that are not finite; MBL_OK without one.
 * Call it with the findings of every rank (they agree). Collective. */
mbl_status_t mbl_watch_verdict(mbl_comm_t *comm, const mbl_config_t *config,
                               const mbl_alarm_findings_t *findings, uint64_t step);

#endif
