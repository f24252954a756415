/* Health alarms: what goes wrong silently in reinforcement learning of image models, found from the numbers
 * of a step. Pure functions of numbers: the same on every rank when the numbers are. */
#ifndef MBL_RL_ALARMS_H
#define MBL_RL_ALARMS_H

#include "rl/types.h"

/* Names are keys of the section `alarms` of run.yaml and of the object `alarms` in metrics.jsonl. New ones go
 * to the end: checkpoints count by position. */
#define MBL_ALARM_LIST(X)                                                                                    \
    X(old_equals_new)   /* the trained adapter is bit for bit the one that draws, step after step */         \
    X(old_drift)        /* the two are far apart: the images trained on are not the policy's own */          \
    X(no_variance)      /* nearly all prompt groups of a reward score alike: nothing to learn from */        \
    X(x0_norm_drift)    /* images became brighter or darker than at the start */                             \
    X(alpha_collapse)   /* one reward holds nearly all of alpha */                                           \
    X(alpha_stale)      /* alpha was solved for long ago */                                                  \
    X(non_finite)       /* loss or gradients are not finite */                                               \
    X(replica_mismatch) /* ranks hold different adapters */                                                  \
    X(scorer_failed)    /* a scorer gave no score too often */                                               \
    X(scorer_range)     /* a scorer answered outside of its declared range */                                \
    X(no_score)         /* a reward that is trained has no valid score at all */                             \
    X(reward_collapse)  /* a reward's mean has fallen far below that of the first step */                    \
    X(against_reward)   /* the direction works against a reward, or against its own part */

typedef enum {
#define MBL_ALARM_ENUM(name) MBL_ALARM_##name,
    MBL_ALARM_LIST(MBL_ALARM_ENUM)
#undef MBL_ALARM_ENUM
        MBL_ALARMS
} mbl_alarm_t;
enum { MBL_ALARM_ROOM = 32 }; /* of checkpoints */

/* Whether a step whose direction has this cosine works against that reward: below 0 by more than rounding. */
static inline bool mbl_is_against(double cosine) {
    return cosine < -1e-6;
}

typedef enum { MBL_ON_ALARM_WARN, MBL_ON_ALARM_STOP } mbl_on_alarm_t;
typedef enum { MBL_ALARM_ON, MBL_ALARM_OFF } mbl_alarm_switch_t;

/* The section `alarms` of the configuration, which states units and defaults. Counts of 0 switch an alarm
 * off. */
typedef struct {
    mbl_on_alarm_t on_alarm;
    /* steps in a row that no_variance, x0_norm_drift, alpha_collapse, no_score and reward_collapse last */
    size_t patience;
    size_t old_equals_new, alpha_stale, non_finite, replica_mismatch, against_reward;
    mbl_alarm_switch_t no_score;
    double old_drift, no_variance, x0_norm_drift, alpha_collapse, scorer_failed, scorer_range,
        reward_collapse;
} mbl_alarm_limits_t;

/* Kept over steps and in checkpoints. */
typedef struct {
    uint64_t count[MBL_ALARM_ROOM]; /* steps at which it was found */
    uint64_t run[MBL_ALARM_ROOM];   /* steps in a row up to now that look like it */
    uint64_t flat[MBL_MAX_REWARDS]; /* the same, of no_variance by reward */
    uint64_t unsolved;              /* steps since alpha was solved for */
    double x0_norm;                 /* of the first steps, summed over x0_steps of them */
    uint64_t x0_steps;
    uint64_t unscored[MBL_MAX_REWARDS], fallen[MBL_MAX_REWARDS]; /* as `flat`, of the last two alarms */
    struct {
        double mean, deviation; /* of the first step with enough scores of it; deviation 0: none yet */
    } first[MBL_MAX_REWARDS];
} mbl_alarm_state_t;

/* What a step knows of itself, over all ranks; K rewards. */
typedef struct {
    double old_deviate; /* |current - old| / |current| after the step */
    double x0_norm;     /* root mean square of the latents drawn */
    bool finite;        /* loss, KL and all gradients */
    bool moved;         /* the weights did */
    bool replicas_same; /* true where it was not looked at */
    bool solves;        /* the method solves for alpha, */
    bool solved;        /* did so in this step, */
    size_t used;        /* and these many rewards take part */
    size_t k;
    const bool *active;  /* [K] rewards that this step trains; NULL: all */
    const bool *monitor; /* [K] rewards that are only scored, and raise none; NULL: none */
    const double *alpha; /* [K] */
    /* [K] cosines of the direction with g_k and with a_k, NAN where not measured; NULL: none is */
    const double *cos, *cos_part;
    const mbl_reward_stats_t *stats; /* [K] */
    const size_t *outside;           /* [K] valid scores outside the scorer's range */
} mbl_alarm_numbers_t;

typedef struct {
    bool found[MBL_ALARMS];
    bool give_up;              /* non_finite has lasted as long as it may: the run ends */
    double value[MBL_ALARMS];  /* what was found: the largest, where it is of rewards */
    size_t reward[MBL_ALARMS]; /* of which reward, where it is of one */
} mbl_alarm_findings_t;

/* Looks for every alarm, counts in *state, and fills *out. */
void mbl_alarms_check(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *numbers,
                      mbl_alarm_state_t *state, mbl_alarm_findings_t *out);

const char *mbl_alarm_name(mbl_alarm_t alarm);
/* "old_equals_new: what was found; what to try" into out; `reward` is the name of the finding's reward.
 * Returns out. */
char *mbl_alarm_text(mbl_alarm_t alarm, const mbl_alarm_limits_t *limits,
                     const mbl_alarm_findings_t *findings, const char *reward, char *out, size_t size);

#endif
