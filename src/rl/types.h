/* What the stages of a step pass to each other. A stage includes this, not another stage. */
#ifndef MBL_RL_TYPES_H
#define MBL_RL_TYPES_H

#include "comm/comm.h"
#include "model/sampler.h"
#include "reward/reward.h"
#include "rl/qp.h"

/* K: of a run, and so of every table of it. The quadratic program and masks set it. */
enum { MBL_MAX_REWARDS = MBL_QP_MAX };

/* One rank's share of an epoch's rollout (base/share.h): consecutive images; the group of the first and that
 * of the last may lie on other ranks too. K rewards, C x H x W latents. */
typedef struct {
    size_t n;        /* samples here, */
    size_t first;    /* which are first .. first + n - 1 of */
    size_t n_global; /* those of all ranks, groups of */
    size_t group_size, k;
    const uint32_t *prompt; /* [n] index into the prompt set */
    const int64_t *sample;  /* [n] index of the sample among n_global; all randomness is keyed by it */
    mbl_tensor_t x0;        /* [n,C,H,W] f32 */
    mbl_score_t *scores;    /* [n,K]: rows first .. first + n - 1 of */
    mbl_score_t *all;       /* [n_global,K] those of all ranks (rl/scores.h); NULL: they are not compared */
    uint8_t *rgb;           /* [n,H',W',3] the decoded images */
} mbl_batch_t;

/* Statistics of one reward over all ranks' samples of an epoch. */
typedef struct {
    double mean, std;     /* of the scores, over valid samples; 0 without any */
    double advantage_std; /* likewise, of A_ik before clipping */
    size_t valid, na, failed;
    size_t groups;      /* groups with at least two valid samples, */
    size_t flat_groups; /* and those of them without variance */
} mbl_reward_stats_t;

#endif
