/* What the files of the RL loop share: the run, the step under way, and the parts of a step. */
#ifndef MBL_TRAIN_LOOP_INTERNAL_H
#define MBL_TRAIN_LOOP_INTERNAL_H

#include "rl/gradient.h"
#include "rl/merge.h"
#include "rl/reference.h"
#include "rl/rollout.h"
#include "train/report.h"
#include "run/stage.h"
#include "train/watch.h"

enum { MBL_MAX_SETS = MBL_MAX_REWARDS + 2 };

typedef struct {
    const mbl_config_t *config;
    mbl_comm_t *comm;
    const char *out_dir;
    const volatile int *stop;
    mbl_engine_t engine;
    mbl_state_t state;
    mbl_rundir_t rundir;
    mbl_stage_t stage;         /* of the coming step */
    size_t most_parts;         /* of any stage: R */
    mbl_reference_t reference; /* of marble_reference only */
    mbl_sampler_plan_t plan, eval_plan;
    mbl_sampler_t *sampler;
    mbl_merge_t *merge; /* of the old adapter into the rollout's weights; NULL: never */
    bool merged;        /* in the last epoch */
    mbl_evaluator_t *evaluator;
    mbl_gradient_t *gradient;
    mbl_batch_t batch;
    mbl_rollout_views_t views;
    uint32_t *prompt, *scratch;
    int64_t *sample;
    size_t first_group;
    float *a;                      /* [R, n] */
    size_t group[MBL_MAX_REWARDS]; /* objective of a reward */
    uint8_t *part_of;              /* [timesteps, n] rows of a partial Gram matrix; NULL where it is whole */
    mbl_tensor_t sets, shard,
        direction;     /* f64 [R+1, padded], [R+2, count] (the last row: the step taken), [count] */
    mbl_tensor_t half; /* f64 [R+1, count] where alpha is compared between halves */
    double min[MBL_MAX_REWARDS], pressure[MBL_MAX_REWARDS]; /* of constrained rewards, else NAN */
    mbl_constraint_state_t constraint;                      /* as it will be after the epoch */
    mbl_watch_t watch;
    mbl_alarm_findings_t alarms; /* the first that were found, at this step (0: none yet) */
    uint64_t alarm_step;
    mbl_eval_score_t base[MBL_MAX_REWARDS];
    double mean_seconds; /* of an epoch, for the time left */
    double save_seconds; /* that training stood still for a checkpoint since the last step was reported */
} mbl_train_t;

/* The optimizer step under way. Its direction is D = sum_j coefficient_j shard_j over the first m rows of the
 * shard, plus the shard's last row where `rest`; or it stands in t->direction already where `formed`. */
typedef struct {
    mbl_gradient_args_t args;
    bool refresh, smoothed, halves, diagnose, rest, formed;
    size_t m;
    double c[MBL_MAX_REWARDS + 1], coefficient[MBL_MAX_SETS], norm;
    mbl_amortise_t cache; /* as it will be after the step */
} mbl_train_step_t;

/* Engine, fresh state and buffers of a run; *t is zeroed but for config, comm, out_dir and stop. Closing is
 * right after a failure too. */
mbl_status_t mbl_train_open(mbl_train_t *t);
void mbl_train_close(mbl_train_t *t);

/* The stage of the coming step; *entered: it is another than that of the step before. */
mbl_status_t mbl_train_enter_stage(mbl_train_t *t, bool *entered);

/* Advantages of the pictures for the stage under way. Collective. */
mbl_status_t mbl_train_advantages(mbl_train_t *t, mbl_step_report_t *report);

/* One optimizer step: slice `slice` of inner epoch `inner`. Fails with ERR_STOPPED, the state as it was,
 * where *stop says so (NULL: never). Collective. */
mbl_status_t mbl_train_update(mbl_train_t *t, size_t inner, size_t slice, const volatile int *stop,
                              mbl_step_report_t *report);
/* How AdamW is set. */
mbl_adamw_options_t mbl_train_adamw(const mbl_train_t *t);

/* Gradients and weights of one optimizer step. Collective. */
mbl_status_t mbl_train_direction(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report);
/* The same for marble_reference. */
mbl_status_t mbl_train_reference_direction(mbl_train_t *t, mbl_train_step_t *step, mbl_step_report_t *report);
mbl_balance_options_t mbl_train_balance_options(const mbl_train_t *t);
/* The gradients step->args ask for (all sets, or one with c), summed over ranks into `shard`, and their Gram
 * matrix. Collective. */
mbl_status_t mbl_train_form(mbl_train_t *t, const mbl_train_step_t *step, const mbl_tensor_t *shard,
                            double *gram, mbl_step_report_t *report);
/* All sets. */
mbl_status_t mbl_train_form_all(mbl_train_t *t, mbl_train_step_t *step, double *gram,
                                mbl_step_report_t *report);
/* D into t->direction. */
mbl_status_t mbl_train_combine(mbl_train_t *t, mbl_train_step_t *step, const mbl_balance_step_t *balance);

#endif
