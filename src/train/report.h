/* What a training step reports: a line of metrics.jsonl, a progress line, and the closing table of base
 * against trained. */
#ifndef MBL_TRAIN_REPORT_H
#define MBL_TRAIN_REPORT_H

#include "run/events.h"
#include "run/rundir.h"

/* The numbers of a step, as a line of metrics.jsonl has them; NULL without memory. Release with json_decref.
 */
json_t *mbl_report_line(const mbl_event_step_t *step);
/* A line of metrics.jsonl. Rank 0 (nothing elsewhere). */
mbl_status_t mbl_report_metrics(mbl_rundir_t *rundir, const mbl_event_step_t *step);
/* A line of gram.jsonl where the step compared the rewards' gradients: {"step", "rewards": names, "norm":
 * their lengths, "cos": the cosines of every two, with four decimals}. Rank 0 (nothing elsewhere). */
mbl_status_t mbl_report_gram(mbl_rundir_t *rundir, const mbl_event_step_t *step);
/* A line of advantages.jsonl: the coming step, every image's prompt, and per reward every image's advantage
 * A_ik, clamped to +-clip, with three decimals; null where the reward does not apply or has failed. a [K,n]
 * as from mbl_advantage. Collective. */
mbl_status_t mbl_report_advantages(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_event_images_t *images);
/* A progress line; step->seconds_left < 0 leaves the estimate out. */
void mbl_report_progress(const mbl_event_step_t *step);
/* The closing table on standard output and in the log: base, trained, paired difference with its 95 %
 * interval, per reward. Rank 0. */
mbl_status_t mbl_report_table(const mbl_config_t *config, const mbl_eval_score_t *base,
                              const mbl_eval_score_t *trained, const mbl_eval_score_t *difference);
/* Below it: in which share of the steps of FOLDER/metrics.jsonl the direction worked against a reward's
 * gradient, and against a reward's own part; nothing where no step has cosines. Rank 0. */
mbl_status_t mbl_report_against(const char *folder);

#endif
