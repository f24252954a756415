/* What a training step tells: a line of metrics.jsonl, a progress line, and the closing table of base against
 * trained. */
#ifndef MBL_TRAIN_REPORT_H
#define MBL_TRAIN_REPORT_H

#include "run/rundir.h"
#include "run/state.h"
#include "train/timing.h"

/* One optimizer step as it is reported. */
typedef struct {
    uint64_t step, epoch;
    size_t stage; /* from 0 */
    double lr, old_deviate;
    double samples; /* images of the epoch over its steps */
    const mbl_update_result_t *update;
    const mbl_reward_stats_t *stats;          /* [K] */
    const mbl_constraint_state_t *constraint; /* of this epoch, */
    const double *pressure;                   /* [K]; NAN for free rewards */
    double x0_norm;                           /* root mean square of the epoch's latents */
    mbl_step_seconds_t seconds;
    uint64_t bytes_comm;
} mbl_step_report_t;

/* A line of metrics.jsonl. Rank 0 (nothing elsewhere). */
mbl_status_t mbl_report_metrics(mbl_rundir_t *rundir, const mbl_state_t *state,
                                const mbl_step_report_t *report);
/* A line of advantages.jsonl: the coming step, every image's prompt, and per reward every image's advantage
 * A_ik, clamped to +-clip, with three decimals; null where the reward does not apply or has failed. a [K,n]
 * as from mbl_advantage. Collective. */
mbl_status_t mbl_report_advantages(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_state_t *state,
                                   const mbl_batch_t *batch, const float *a);
/* A progress line; seconds_left < 0 leaves the estimate out. */
void mbl_report_progress(const mbl_state_t *state, const mbl_step_report_t *report, double seconds_left);
/* The closing table on standard output and in the log: base, trained, paired difference with its 95 %
 * interval, per reward. Rank 0. */
mbl_status_t mbl_report_table(const mbl_config_t *config, const mbl_eval_score_t *base,
                              const mbl_eval_score_t *trained, const mbl_eval_score_t *difference);

#endif
