/* method marble_reference: what MARBLE's released training code does (aim-uofa/MARBLE at 1bf9543, train.py
 * and pareto_balancer/), for side-by-side runs. It solves on one micro-batch at one timestep, uses that
 * solution for this micro-batch alone, and gives all other rows one objective whose advantage is sum_k
 * alphabar_k A_k. Everything here is local unless it says otherwise. */
#ifndef MBL_RL_REFERENCE_H
#define MBL_RL_REFERENCE_H

#include "rl/balance.h"

/* Before as many optimizer steps are done, every micro-batch solves for itself. */
enum { MBL_REFERENCE_WARMUP = 1 };

typedef struct {
    /* [K,n] A_k before clipping in the order of the caller's batch; NaN where the sample has no valid score
     * (advantage.h). The caller fills it */
    float *unclipped;
    mbl_batch_t
        batch;  /* the rows in the order in which they are trained, with x0, prompt and sample of its own */
    float *a;   /* [K + 1, n] their factors, and a row for those of the one objective */
    float *raw; /* [K,n] their A_k before clipping */
    uint8_t *valid;  /* [K + 1, n] mbl_masks_t.valid of the rows under way */
    size_t *micro;   /* [n] which micro-batch of the step a row belongs to; ascending */
    size_t n_micro;  /* of all ranks */
    size_t elements; /* of a latent */
    float *latents;  /* [2, n, elements] staging */
    size_t *from;    /* [n] row of the caller's batch that stands in a place; behind it [n] staging */
    uint32_t *order; /* [n_global] staging */
    uint32_t *prompt;
    int64_t *sample;
} mbl_reference_t;

/* Room for the batch's rows. Free with mbl_reference_free. */
mbl_status_t mbl_reference_new(mbl_ops_t *ops, const mbl_batch_t *batch, mbl_reference_t *out);
void mbl_reference_free(mbl_reference_t *reference, mbl_ops_t *ops);

/* Shuffles the samples of all ranks into micro-batches of micro_batch, keyed by (seed, step), and fills
 * batch, a and raw with this rank's rows in that order; a [K,n] are the factors in the order of *batch. (The
 * released code shuffles each rank's own rows; here a micro-batch holds the same samples on any number of
 * ranks.) */
mbl_status_t mbl_reference_mix(mbl_reference_t *reference, mbl_ops_t *ops, const mbl_batch_t *batch,
                               const float *a, uint64_t seed, uint32_t step, size_t micro_batch);

/* The masks of the K rewards in a micro-batch: the loss of reward k is a mean over its samples that have a
 * valid A_k, so each of them weighs rows / valid, and all other rows 0. Of MBL_REFERENCE_ALL rows with those
 * of the one objective behind them, which every row counts for. Collective. */
#define MBL_REFERENCE_ALL SIZE_MAX
mbl_status_t mbl_reference_masks(mbl_comm_t *comm, mbl_reference_t *reference, size_t n, size_t k,
                                 size_t micro, mbl_masks_t *out);

/* The factors (rl/advantage.h) [n] of the one objective: clamp(sum_k alphabar_k A_k / clip, -1, 1) / 2, where
 * A_k counts as 0 for a sample without a score, so its r is 1/2. */
void mbl_reference_factors(const float *raw, size_t n, size_t k, const double *alpha_mean, double clip,
                           float *factors);

/* alphabar <- rho alphabar + (1 - rho) alpha of every reward, alpha being 0 for one that took no part; the
 * first time alpha itself. Nothing is renormalised. */
void mbl_reference_smooth(double rho, const double *alpha, size_t k, mbl_balance_state_t *state);

/* A step without a solve: alphabar as the weights of *out, and which rewards have a valid score. */
void mbl_reference_kept(const mbl_balance_state_t *state, const mbl_reward_stats_t *stats, size_t k,
                        mbl_balance_step_t *out);

#endif
