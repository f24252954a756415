/* What TensorBoard is shown of a run (DIR/tensorboard), where log.tensorboard asks for it. */
#ifndef MBL_TRAIN_TENSORBOARD_H
#define MBL_TRAIN_TENSORBOARD_H

#include "train/report.h"

/* A file for the steps behind `step`, with the configuration in it. Rank 0. */
mbl_status_t mbl_train_board_open(mbl_rundir_t *rundir, uint64_t step);
/* Histograms of the advantages, every tenth epoch. Collective. */
mbl_status_t mbl_train_board_advantages(mbl_comm_t *comm, mbl_rundir_t *rundir,
                                        const mbl_event_images_t *images);
/* The numbers of a line of metrics.jsonl; those of an evaluation and its sheet. Rank 0 (nothing elsewhere).
 */
mbl_status_t mbl_train_board_step(mbl_rundir_t *rundir, const mbl_event_step_t *step);
mbl_status_t mbl_train_board_eval(mbl_rundir_t *rundir, const mbl_event_eval_t *e,
                                  const mbl_config_t *config);

#endif
