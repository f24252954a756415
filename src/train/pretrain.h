/* Pretraining of a small base model on the signs world: flow matching with logit-normal t, AdamW, weight EMA,
 * data-parallel over ranks. */
#ifndef MBL_TRAIN_PRETRAIN_H
#define MBL_TRAIN_PRETRAIN_H

#include "comm/comm.h"
#include "config/config.h"

/* Trains and writes the model folder out_dir/model, out_dir/metrics.jsonl, eval.jsonl, samples/ and
 * checkpoints/. resume: NULL (start afresh), "auto" (from the newest good checkpoint of out_dir, or afresh)
 * or a checkpoint file. ERR_STOPPED after a signal, with a checkpoint. Collective. */
mbl_status_t mbl_pretrain(const mbl_config_t *config, mbl_comm_t *comm, const char *out_dir,
                          const char *resume);

#endif
