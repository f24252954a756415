/* What happens in a training run, and a table of observers that it is shown to: metrics, terminal, alarms,
 * checkpoints, evaluations, and whatever else a caller adds. An event is a view of what the run holds, valid
 * during the call. Every rank calls its observers in the order they were added, at the same points of the
 * run, so an observer may communicate; a failure of one ends the run. */
#ifndef MBL_RUN_EVENTS_H
#define MBL_RUN_EVENTS_H

#include "run/evaluate.h"
#include "run/ranks.h"
#include "run/state.h"
#include "run/timing.h"
#include "run/traffic.h"

/* The run is about to do its first step, its folder and state being there. */
typedef struct {
    const char *folder;
    const mbl_config_t *config;
    int rank, ranks;
} mbl_event_begin_t;

/* The images of an epoch are scored; its first optimizer step comes next. */
typedef struct {
    const mbl_state_t *state;
    const mbl_batch_t *batch;
    const mbl_reward_stats_t *stats; /* [K] */
    const float *a;                  /* [R,n] factors, as from mbl_advantage */
} mbl_event_images_t;

/* An optimizer step is done. */
typedef struct {
    const mbl_state_t *state;
    uint64_t step, epoch;
    size_t stage;       /* from 0 */
    const bool *active; /* [K] rewards that it trains: neither monitors nor outside its stage */
    double lr, old_deviate;
    double samples; /* images of the epoch over its steps */
    const mbl_update_result_t *update;
    const mbl_reward_stats_t *stats;          /* [K] */
    const double *by_source;                  /* [sources of the prompts, K] mean scores; NULL without them */
    const mbl_constraint_state_t *constraint; /* of this epoch, */
    const double *pressure;                   /* [K]; NAN for free rewards */
    double x0_norm;                           /* root mean square of the epoch's latents */
    const size_t *outside;                    /* [K] valid scores outside the range of their scorer */
    const double *recheck;            /* [K] largest difference of scores asked for again; NULL: not now */
    const mbl_run_traffic_t *traffic; /* of the epoch */
    bool solves;                      /* the method solves for alpha */
    mbl_step_seconds_t seconds;
    const mbl_ranks_t *ranks;
    double seconds_left;  /* of the run, from its mean step */
    const char *settings; /* that hold from this step on (control.h), n_settings texts "KEY=VALUE" */
    size_t n_settings;
    uint64_t bytes_comm;
} mbl_event_step_t;

/* An epoch is over: steps before + 1 to now. The state is whole, as checkpoints keep it. */
typedef struct {
    uint64_t before, now;
    bool last;                 /* of the run */
    bool checkpoint, evaluate; /* asked for (control.h) */
} mbl_event_epoch_t;

/* An evaluation of the adapter, or at step 0 of the base model. */
typedef struct {
    uint64_t step;
    const mbl_prompt_set_t *set;
    const mbl_eval_score_t *scores; /* [K] */
    const mbl_eval_score_t *change; /* [K] from the base model, image by image; NULL for the base model */
    const mbl_evaluator_t *evaluator;
    bool sheet; /* of samples is due */
} mbl_event_eval_t;

/* The run has done all its steps. */
typedef struct {
    const mbl_eval_score_t *base, *trained, *change; /* [K] */
} mbl_event_end_t;

/* What the run is busy with. STARTING is before the first of the others; PAUSED is asked for (control.h). */
typedef enum {
    MBL_PHASE_STARTING,
    MBL_PHASE_ROLLOUT,
    MBL_PHASE_SCORING, /* waiting for scores: most of scoring goes on beside the rollout */
    MBL_PHASE_TRAINING,
    MBL_PHASE_EVALUATION,
    MBL_PHASE_CHECKPOINT,
    MBL_PHASE_PAUSED,
    MBL_PHASE_DONE
} mbl_phase_t;

/* Slots that are NULL do not want to know. `self` is the observer's own. */
typedef struct {
    const char *name;
    mbl_status_t (*begin)(void *self, const mbl_event_begin_t *event);
    mbl_status_t (*images)(void *self, const mbl_event_images_t *event);
    mbl_status_t (*step)(void *self, const mbl_event_step_t *event);
    mbl_status_t (*epoch)(void *self, const mbl_event_epoch_t *event);
    mbl_status_t (*evaluated)(void *self, const mbl_event_eval_t *event);
    mbl_status_t (*end)(void *self, const mbl_event_end_t *event);
    void (*phase)(void *self, mbl_phase_t phase); /* as it begins; local, and cheap */
} mbl_observer_t;

enum { MBL_EVENTS_MOST = 16 };

typedef struct {
    struct {
        const mbl_observer_t *observer;
        void *self;
    } items[MBL_EVENTS_MOST];
    size_t n;
} mbl_events_t;

/* Behind those that are there. ERR_ARG when the table is full. */
mbl_status_t mbl_events_add(mbl_events_t *events, const mbl_observer_t *observer, void *self);

mbl_status_t mbl_events_begin(const mbl_events_t *events, const mbl_event_begin_t *event);
mbl_status_t mbl_events_images(const mbl_events_t *events, const mbl_event_images_t *event);
mbl_status_t mbl_events_step(const mbl_events_t *events, const mbl_event_step_t *event);
mbl_status_t mbl_events_epoch(const mbl_events_t *events, const mbl_event_epoch_t *event);
mbl_status_t mbl_events_evaluated(const mbl_events_t *events, const mbl_event_eval_t *event);
mbl_status_t mbl_events_end(const mbl_events_t *events, const mbl_event_end_t *event);
void mbl_events_phase(const mbl_events_t *events, mbl_phase_t phase);

#endif
