/* Rollout: samples every image of a rank's batch with the rollout policy and has it scored while the next
 * micro-batch is sampled. */
#ifndef MBL_RL_ROLLOUT_H
#define MBL_RL_ROLLOUT_H

#include "model/embeds.h"
#include "rl/types.h"

#include <signal.h>

typedef struct {
    mbl_pipeline_t *pipeline;
    mbl_sampler_t *sampler;
    const mbl_sampler_plan_t *plan;
    const mbl_adapter_t *adapter;
    mbl_embeds_t *embeds; /* of the prompt set; what a micro-batch needs is brought to the device */
    const mbl_prompts_t *prompts;
    mbl_scorer_pool_t *pool;
    size_t micro_batch;
    uint64_t seed;
    uint32_t purpose, step; /* of the noise: MBL_RNG_NOISE and the epoch, or MBL_RNG_EVAL */
    bool broken_fails; /* images whose latents are not finite count as failed (an evaluation's; a training
                   step finds them in its loss); false: they are scored as they look */
    const volatile sig_atomic_t *stop; /* nonzero: end with ERR_STOPPED before the next operation; or NULL */
} mbl_rollout_t;

/* Views the scorers read while they work; [n] each, kept by the caller until mbl_scorer_pool_wait has
 * returned. */
typedef struct {
    mbl_image_t *images;
    const mbl_prompt_t **prompts;
} mbl_rollout_views_t;

/* Fills batch->x0, batch->rgb and, once mbl_scorer_pool_wait has returned, batch->scores. Local. */
mbl_status_t mbl_rollout(const mbl_rollout_t *rollout, mbl_batch_t *batch, mbl_rollout_views_t *views);

#endif
