/* The RL loop: `marble train`. */
#ifndef MBL_TRAIN_LOOP_H
#define MBL_TRAIN_LOOP_H

#include "comm/comm.h"
#include "config/config.h"

/* Runs or resumes a training run in out_dir. resume: NULL (afresh), "auto" (the newest good checkpoint of
 * out_dir, or afresh) or a checkpoint file. ERR_STOPPED after a signal or the time limit, with a checkpoint.
 * Collective. */
mbl_status_t mbl_train(const mbl_config_t *config, mbl_comm_t *comm, const char *out_dir, const char *resume);

#endif
