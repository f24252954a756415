/* What every command that generates or trains needs, opened once from the configuration: compute backend,
 * model, scorers, prompt sets with their conditions. */
#ifndef MBL_TRAIN_ENGINE_H
#define MBL_TRAIN_ENGINE_H

#include "base/cpus.h"
#include "rl/types.h"
#include "config/config.h"
#include "run/prompt_set.h"

typedef struct {
    const mbl_config_t *config;
    mbl_comm_t *comm;
    mbl_ops_t *ops;
    mbl_pipeline_t *pipeline;
    mbl_scorer_pool_t *pool;
    mbl_prompt_set_t train, test;
    mbl_conditions_t negative; /* of eval.negative; n 0: evaluations are without guidance */
    mbl_prompt_cache_t *cache; /* that they read from; or NULL */
    size_t k;                  /* rewards */
    mbl_threads_t threads;     /* of this rank, and why so many */
} mbl_engine_t;

/* Threads of this rank: config->threads, OMP_NUM_THREADS, or its share of the CPUs that it may use.
 * Collective. */
mbl_status_t mbl_engine_threads(const mbl_config_t *config, mbl_comm_t *comm, mbl_threads_t *out);
/* Type of matrix products on the engine's device. */
mbl_dtype_t mbl_engine_dtype(const mbl_engine_t *engine);
/* How text encoders are used, by the configuration. */
mbl_text_options_t mbl_engine_text(const mbl_config_t *config);

/* Opens the compute backend alone, for an engine whose config and comm are set, and attaches it to comm.
 * Collective. */
mbl_status_t mbl_engine_device(mbl_engine_t *engine);

/* How many threads score, of `threads` that a rank has: one, beside passes of the model that take them all;
 * where those are on a device, all but the one that feeds it. Scores do not depend on it. */
size_t mbl_engine_scorer_threads(mbl_space_t space, int threads);
/* Opens the scorer pool; the device is open. */
mbl_status_t mbl_engine_scorers(mbl_engine_t *engine);

/* The schedule of sigmas of rollouts, and (rollout false) that of evaluations, whose timesteps are never
 * integers. */
mbl_sigma_schedule_t mbl_engine_schedule(const mbl_config_t *config, bool rollout);
/* Images of the configuration's size from here on, decoded as it says; ERR_CONFIG names its keys. */
mbl_status_t mbl_engine_resize(const mbl_config_t *config, mbl_pipeline_t *pipeline);
/* Encodes the negative prompt, where evaluations have guidance and mbl_engine_open has not been called. */
mbl_status_t mbl_engine_encode_negative(mbl_engine_t *engine);
/* The guidance of evaluations, by the configuration. */
mbl_guidance_t mbl_engine_guidance(const mbl_config_t *config, const mbl_conditions_t *negative);
/* That all ranks have the same prompts (and, with a pipeline, the same transformer). Collective. */
mbl_status_t mbl_engine_same_prompts(const mbl_engine_t *engine);

/* Opens everything of `marble train` and `marble eval`; the engine keeps config and comm. Close with
 * mbl_engine_close. */
mbl_status_t mbl_engine_open(const mbl_config_t *config, mbl_comm_t *comm, mbl_engine_t *out);
void mbl_engine_close(mbl_engine_t *engine);

#endif
