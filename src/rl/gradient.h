/* The gradients of an optimizer step: the NFT loss (DiffusionNFT, arXiv 2509.16117) over (sample, timestep)
 * rows, as the sets of sets.h, from two backward passes whatever R is (README.md here), or as one set
 * sum_r c_r g_r for weights c known beforehand (or with weights of their own for the common parts), from one.
 * The KL term kl * mean |v - v_ref|^2 either rides in the common parts, so that every reward's objective
 * carries it (over the samples that the reward applies to), or is apart: a last set of its own, from one more
 * backward pass, and once in the one set. */
#ifndef MBL_RL_GRADIENT_H
#define MBL_RL_GRADIENT_H

#include "rl/sets.h"

#include <signal.h>

typedef struct mbl_gradient mbl_gradient_t;

/* Buffers for micro-batches of up to micro_batch rows and up to `parts` reward parts; the first `again`
 * blocks of the model are made again in backward passes (model/dit.h). */
mbl_status_t mbl_gradient_new(mbl_pipeline_t *pipeline, const mbl_lora_t *lora, size_t micro_batch,
                              size_t parts, size_t again, mbl_gradient_t **out);
void mbl_gradient_free(mbl_gradient_t *gradient);
size_t mbl_gradient_bytes(const mbl_gradient_t *gradient);

typedef struct {
    const mbl_batch_t *batch;
    const mbl_conditions_t *conditions;
    const mbl_adapter_t *current, *old;
    /* The two hold the same values: old's forward pass, and h where it vanishes, are skipped. */
    bool old_is_current;
    const mbl_sampler_plan_t *plan; /* training timesteps are the rollout's sigmas */
    size_t timesteps;               /* of each sample, shuffled per sample: floor(fraction * steps) */
    /* This update uses the timesteps slice, slice + slices, ... of the shuffled order. */
    size_t slice, slices;
    uint64_t seed;
    uint32_t step; /* epoch * inner_epochs + inner epoch: the key of noise and order */
    double beta, clip, kl;
    const float *a;           /* [R,n] host: the reward parts' factors (advantage.h) */
    size_t parts;             /* R */
    const mbl_masks_t *masks; /* of the R parts; NULL: all apply to all samples */
    bool kl_apart;
    /* [timesteps, n] rows that the KL term is taken of, each standing for kl_scale rows. NULL: all, and 1 */
    const uint8_t *kl_rows;
    double kl_scale;
    const double *c;      /* [R]: one set; NULL: all sets */
    const double *common; /* [M] with c: what the common parts weigh in the set. NULL: as in sum_r c_r g_r */
    /* [timesteps, n] which part of the step a row (timestep position, sample) belongs to; only rows of `part`
     * are run. NULL: all rows are. */
    const uint8_t *part_of;
    uint8_t part;
    bool add;                          /* to what stands in the sets, instead of overwriting it */
    const volatile sig_atomic_t *stop; /* nonzero: ERR_STOPPED before the next operation; or NULL */
    /* Called once in a run of all sets that does not fail before: the first `n` are done, while the last one
     * is not yet. NULL: nobody wants to know. */
    mbl_status_t (*ready)(void *context, size_t n);
    void *context;
} mbl_gradient_args_t;

typedef struct {
    /* This rank's share of the loss: of the mean of policy_k over the rewards that apply to any sample,
     * without the KL term. The sum over ranks is the loss. */
    double loss;
    double kl; /* this rank's share of mean |v - v_ref|^2, not weighted (0 when kl is off) */
    size_t rows;
} mbl_gradient_stats_t;

/* How many sets a run with these arguments forms: those of sets.h, or one. */
size_t mbl_gradient_sets(const mbl_gradient_args_t *args);

/* sets f64 [mbl_gradient_sets, stride], overwritten unless `add`: this rank's share of the gradients, already
 * divided by the global number of rows (of all parts: the sets, losses and KL of the parts add up to those of
 * the whole). Local. */
mbl_status_t mbl_gradient_run(mbl_gradient_t *gradient, const mbl_gradient_args_t *args,
                              const mbl_tensor_t *sets, mbl_gradient_stats_t *stats);

#endif
