/* The RL loop: `marble train`. */
#ifndef MBL_TRAIN_LOOP_H
#define MBL_TRAIN_LOOP_H

#include "comm/comm.h"
#include "config/config.h"

typedef struct {
    const char *out_dir;
    const char
        *resume; /* NULL (afresh), "auto" (the newest good checkpoint of out_dir, or afresh) or a file */
    bool accept_prompts; /* go on from a checkpoint that was made with other prompts */
} mbl_train_options_t;

/* Runs or resumes a training run. ERR_STOPPED after a signal or the time limit, with a checkpoint.
 * Collective. */
mbl_status_t mbl_train(const mbl_config_t *config, mbl_comm_t *comm, const mbl_train_options_t *options);

#endif
