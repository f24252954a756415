/* The state of a pretraining run: master weights, their average, AdamW moments; its checkpoints; the model it
 * leaves behind. */
#ifndef MBL_TRAIN_PRETRAIN_STATE_H
#define MBL_TRAIN_PRETRAIN_STATE_H

#include "rl/optimizer.h"
#include "config/config.h"

typedef struct {
    mbl_ops_t *ops;
    mbl_dit_t *model;
    mbl_comm_t *comm;
    size_t size, padded;      /* weights of the model; padded to ranks * shard */
    mbl_tensor_t master, ema; /* f32 [padded] */
    mbl_optimizer_t optimizer;
    const char *run;                         /* the id of the run that saves; NULL: none is named */
    size_t branch;                           /* of that (run/branch.h); rank 0 */
    mbl_sigma_schedule_kind_t made_schedule; /* by which the run of the loaded checkpoint drew */
} mbl_pretrain_state_t;

mbl_status_t mbl_pretrain_state_new(mbl_pretrain_state_t *state, mbl_ops_t *ops, mbl_dit_t *model,
                                    mbl_comm_t *comm);
void mbl_pretrain_state_free(mbl_pretrain_state_t *state);
/* Makes the model compute with `weights` (master or ema). */
mbl_status_t mbl_pretrain_state_use(mbl_pretrain_state_t *state, const mbl_tensor_t *weights);
/* Checkpoint of everything in out_dir/checkpoints. Collective. */
mbl_status_t mbl_pretrain_state_save(mbl_pretrain_state_t *state, const mbl_config_t *config,
                                     const char *out_dir);
/* About how many bytes a checkpoint of it has. */
size_t mbl_pretrain_state_bytes(const mbl_pretrain_state_t *state);
/* From a checkpoint file; "" leaves the state fresh. Collective. */
mbl_status_t mbl_pretrain_state_load(mbl_pretrain_state_t *state, const char *path);
/* The average as out_dir/model/transformer, in bf16. Collective. */
mbl_status_t mbl_pretrain_state_export(mbl_pretrain_state_t *state, const char *out_dir);

#endif
