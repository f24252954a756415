/* What the files of the RL loop share: the run, the step under way, and the parts of a step. */
#ifndef MBL_TRAIN_LOOP_INTERNAL_H
#define MBL_TRAIN_LOOP_INTERNAL_H

#include "rl/merge.h"
#include "rl/pick.h"
#include "rl/rollout.h"
#include "rl/scores.h"
#include "run/control.h"
#include "run/stage.h"
#include "run/start.h"
#include "run/traffic.h"
#include "train/recheck.h"
#include "train/report.h"
#include "train/table.h"
#include "train/watch.h"

#include <signal.h>

typedef struct {
    const mbl_config_t *config;
    mbl_comm_t *comm;
    const char *out_dir;
    const volatile sig_atomic_t *stop;
    mbl_engine_t engine;
    mbl_state_t state;
    mbl_rundir_t rundir;
    mbl_events_t events;
    mbl_control_t *control;              /* NULL: nobody asks */
    mbl_control_request_t asked;         /* and not done yet: checkpoint, evaluate, stop */
    char settings[4 * MBL_CONTROL_TEXT]; /* that hold from the next step on, as its event has them */
    size_t n_settings, settings_size;
    mbl_config_t **configs; /* made on the way by settings; freed at the end, since views of them live on */
    size_t n_configs;
    mbl_start_t start; /* of model.lora.from, where it is given */
    mbl_config_t kept; /* with definitions of the checkpoint, where `config` is that; shallow */
    mbl_stage_t stage; /* of the coming step */
    size_t most_parts; /* of any stage: R */
    mbl_sampler_plan_t plan, eval_plan;
    mbl_sampler_t *sampler;
    size_t sampled_at_once; /* images */
    mbl_merge_t *merge;     /* of the rollout policy into the rollout's weights; NULL: never */
    bool merged;            /* in the last epoch */
    mbl_evaluator_t *evaluator;
    mbl_batch_t batch;
    mbl_rollout_views_t views;
    uint32_t *prompt, *scratch;
    mbl_pick_counts_t counts;
    uint32_t *needed; /* prompts of an epoch and of merge, once each */
    int64_t *sample;
    mbl_scores_t scores;           /* of all ranks; batch.scores lie in it */
    size_t groups;                 /* that have an image here, if only one */
    float *a;                      /* [R, n] */
    float *sum;                    /* [n_global] staging of advantages */
    uint8_t *valid;                /* [R, n] whether a sample counts for a part */
    mbl_masks_t masks;             /* of the epoch, over those */
    bool monitor[MBL_MAX_REWARDS]; /* only scored */
    double min_valid[MBL_MAX_REWARDS];
    size_t group[MBL_MAX_REWARDS];             /* objective of a reward */
    mbl_reward_stats_t stats[MBL_MAX_REWARDS]; /* of the epoch's scores */
    double *by_source; /* [2, sources, K] of the epoch: mean scores, and images; NULL without sources */
    mbl_update_result_t update;                             /* of the last step */
    double min[MBL_MAX_REWARDS], pressure[MBL_MAX_REWARDS]; /* of constrained rewards, else NAN */
    mbl_constraint_state_t constraint;                      /* as it will be after the epoch */
    mbl_watch_t watch;
    mbl_recheck_t recheck;
    mbl_run_traffic_t traffic;   /* of the epoch */
    mbl_alarm_findings_t alarms; /* the first that were found, at this step (0: none yet) */
    uint64_t alarm_step;
    mbl_eval_score_t base[MBL_MAX_REWARDS];
    mbl_timing_t timing;
    mbl_train_table_t table;
    mbl_ranks_t ranks; /* of the last step */
} mbl_train_t;

/* The run's own observers into t->events, then those of `more` (NULL: none). */
mbl_status_t mbl_train_observe(mbl_train_t *t, const mbl_events_t *more);
/* A checkpoint, now. Collective. */
mbl_status_t mbl_train_save(mbl_train_t *t, bool wait);
/* report.html in the run's folder, by rank 0. One that cannot be written costs a warning. */
void mbl_train_write_report(const mbl_train_t *t);
/* Waits for the last checkpoint's write where this step will be saved too. Local. */
void mbl_train_await_write(mbl_train_t *t);
/* Scores of an adapter (NULL: the base model) and, where there is one, their difference to the base model's;
 * shown to the observers. Collective. */
mbl_status_t mbl_train_evaluate(mbl_train_t *t, const mbl_adapter_t *adapter, uint64_t step, bool sheet,
                                mbl_eval_score_t *scores, mbl_eval_score_t *change);

/* Between two steps: takes what was asked, and settings at once. Collective. */
mbl_status_t mbl_train_read_control(mbl_train_t *t, double wait);
/* Between two epochs: does what was asked, waits while the run is paused. ERR_STOPPED where it is to stop.
 * Collective. */
mbl_status_t mbl_train_follow_control(mbl_train_t *t);

/* Engine, fresh state and buffers of a run; *t is zeroed but for config, comm, out_dir and stop. Closing is
 * right after a failure too. */
mbl_status_t mbl_train_open(mbl_train_t *t);
void mbl_train_close(mbl_train_t *t);
/* Once a checkpoint is loaded, if there is one: where the configuration does not set them, the run draws by
 * its schedule and balances as it did. Logs what balance.common: auto means. */
mbl_status_t mbl_train_keep_definitions(mbl_train_t *t);
/* What the rewards' keys say that the loop looks at. */
void mbl_train_take_rewards(mbl_train_t *t);

/* The stage of the coming step; *entered: it is another than that of the step before. */
mbl_status_t mbl_train_enter_stage(mbl_train_t *t, bool *entered);

/* Advantages of the images for the stage under way. Collective. */
mbl_status_t mbl_train_advantages(mbl_train_t *t);

/* Timesteps of each sample that are trained on. */
size_t mbl_train_timesteps(const mbl_config_t *config);
/* One optimizer step, whose result is in t->update: slice `slice` of inner epoch `inner`. Fails with
 * ERR_STOPPED, the state as it was, where *stop says so (NULL: never). Collective. */
mbl_status_t mbl_train_update(mbl_train_t *t, size_t inner, size_t slice, const volatile sig_atomic_t *stop);

#endif
