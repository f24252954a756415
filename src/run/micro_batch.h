/* How many images pass through the model at once, and of how many of its blocks only the inputs are kept:
 * what the configuration says, no more images than there are, and as few as the memory that is left and
 * limits.micro_batch_bytes ask for. No result depends on either beyond rounding. */
#ifndef MBL_RUN_MICRO_BATCH_H
#define MBL_RUN_MICRO_BATCH_H

#include "comm/comm.h"
#include "config/config.h"
#include "model/pipeline.h"

typedef struct {
    mbl_pipeline_t *pipeline;
    const mbl_lora_t *lora;
    /* Passes without gradients (MBL_TAPE_NONE: rollouts, by rollout.micro_batch), these and one with the
     * adapters' (MBL_TAPE_LORA), or one with all gradients (MBL_TAPE_FULL; both by train.micro_batch). */
    mbl_tape_kind_t kind;
    size_t there;  /* images */
    size_t copies; /* of the room for them; 0: one */
    size_t left;   /* bytes of memory; SIZE_MAX: not known, or as much as it takes */
} mbl_passes_t;

/* Images at once, at least 1; the blocks that backward passes make again (model/dit.h); bytes of one copy. */
typedef struct {
    size_t rows, again, bytes;
} mbl_fit_t;

/* The largest number of images that fit (where the key says auto, the smallest with as few micro-batches: 36
 * of which 34 fit are taken 18 at once), and by train.checkpoint_blocks: auto as few blocks made again as let
 * enough of them fit to fill a device. ERR_CONFIG, with the keys to change, where not even one image does.
 * Local; rank 0 logs where memory leaves less than what was asked for. */
mbl_status_t mbl_micro_batch_fit(const mbl_config_t *config, const mbl_passes_t *passes, mbl_fit_t *out);

/* Of memory that is left, what a run plans with; the rest is for what libraries take. */
#define MBL_MICRO_BATCH_SHARE 0.9

/* Agrees on `mine`, how all went so far, and then: what a rank may plan with of the memory that is left on
 * its device, or on its host among the ranks there; the least share of any rank. SIZE_MAX: not known.
 * Collective. */
mbl_status_t mbl_micro_batch_left(mbl_comm_t *comm, mbl_status_t mine, mbl_ops_t *ops, size_t *left);

/* Samples that belong together in a step (mbl_update_room_t): what train.micro_batch says, or those of one
 * prompt where it says auto, since results depend on it. */
size_t mbl_micro_batch_unit(const mbl_config_t *config);

#endif
