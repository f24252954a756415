/* Pretraining of a small base model on the signs world: flow matching with logit-normal t, AdamW, weight EMA,
 * data-parallel over ranks. */
#ifndef MBL_TRAIN_PRETRAIN_H
#define MBL_TRAIN_PRETRAIN_H

#include "comm/comm.h"
#include "run/rundir.h"

/* Trains and writes the model folder OUT/model and what a run writes (rundir.h). ERR_STOPPED after a signal,
 * with a checkpoint. Collective. */
mbl_status_t mbl_pretrain(const mbl_config_t *config, mbl_comm_t *comm, const mbl_rundir_options_t *folder);

#endif
