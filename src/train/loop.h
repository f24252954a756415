/* The RL loop: `marble train`. */
#ifndef MBL_TRAIN_LOOP_H
#define MBL_TRAIN_LOOP_H

#include "run/control.h"
#include "run/events.h"
#include "run/rundir.h"

typedef struct {
    mbl_rundir_options_t folder;
    bool accept_prompts;           /* go on from a checkpoint that was made with other prompts */
    const mbl_events_t *observers; /* beside the run's own, behind them; NULL: none */
    mbl_control_t *control;        /* the mailbox that the run reads, on every rank; NULL: none */
} mbl_train_options_t;

/* Runs or resumes a training run. ERR_STOPPED after a signal or the time limit, with a checkpoint.
 * Collective. */
mbl_status_t mbl_train(const mbl_config_t *config, mbl_comm_t *comm, const mbl_train_options_t *options);

#endif
