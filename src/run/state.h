/* Everything a training run carries from one epoch to the next, and its checkpoints. Randomness is a function
 * of the seed and the counters here, so this is all a bit-exact resume needs. */
#ifndef MBL_TRAIN_STATE_H
#define MBL_TRAIN_STATE_H

#include "io/ckpt_parallel.h"
#include "rl/alarms.h"
#include "rl/constraint.h"
#include "rl/update.h"
#include "run/engine.h"
#include "run/resume.h"

typedef struct mbl_snapshot mbl_snapshot_t;

typedef struct {
    mbl_engine_t *engine;
    mbl_lora_t *lora;
    mbl_update_t update; /* adapters, moments, averages, and room for steps where it is prepared */
    mbl_alarm_state_t alarms;
    mbl_constraint_state_t constraint;
    uint64_t step, epoch;
    uint64_t skipped[MBL_MAX_REWARDS]; /* steps a reward took no part in */
    uint64_t empty_steps;              /* steps without any usable reward: nothing was updated */
    char *made_by, *made_with;         /* what its checkpoints say of program and model; run/identity.h */
    mbl_sigma_schedule_kind_t made_schedule; /* by which the run of the loaded checkpoint drew, */
    mbl_resume_balance_t made_balance;       /* and how it balanced its last step */
    const char *run;                         /* the id of the run that saves; NULL: none is named */
    size_t branch;                           /* of that (branch.h); rank 0 */
    mbl_ckpt_team_t *team;    /* of ranks that write checkpoints together; NULL: rank 0 writes */
    mbl_snapshot_t *snapshot; /* what is being written; NULL until the first save */
} mbl_state_t;

/* The adapters a configuration asks for. */
mbl_status_t mbl_state_lora(const mbl_config_t *config, mbl_lora_config_t *out);
/* Fresh adapters, moments and counters. Free with mbl_state_free. */
mbl_status_t mbl_state_new(mbl_engine_t *engine, mbl_state_t *out);
void mbl_state_free(mbl_state_t *state);

/* Before the first save: who writes, by checkpoint.writer (rank 0 unless this is called). ERR_CONFIG where it
 * says parallel and that cannot be. Collective. */
mbl_status_t mbl_state_writers(mbl_state_t *state);
/* Checkpoint in out_dir/checkpoints, published as latest.h5: copies the state and writes the copy in a
 * thread (of rank 0, or of every rank), after waiting for the write before. `wait`: returns once it is
 * written, with its failure if it failed; else a failure is logged by the next mbl_state_saved or save, and
 * the checkpoint before stays the latest. Collective. */
mbl_status_t mbl_state_save(mbl_state_t *state, const char *out_dir, bool wait);
/* Logs a failure of the last write once it is known, or after waiting for it. Local. */
void mbl_state_saved(const mbl_state_t *state, bool wait);
/* From a checkpoint file; "" leaves the state fresh. Refuses a checkpoint of another kind, base model,
 * adapter layout, set of rewards or (unless accept_prompts) prompts. Collective. */
mbl_status_t mbl_state_load(mbl_state_t *state, const char *path, bool accept_prompts);
/* About how many bytes a checkpoint of it has. */
size_t mbl_state_bytes(const mbl_state_t *state);
/* Only the adapters of a checkpoint, for evaluation and sampling (any number of ranks). */
mbl_status_t mbl_state_load_adapters(mbl_state_t *state, const char *path);

#endif
