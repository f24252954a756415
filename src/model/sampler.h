/* Solvers of the probability-flow ODE for rectified flow (x_t = (1-t) x0 + t eps, v = eps - x0): euler, dpm1,
 * dpm2 (multistep DPM-Solver++ on x0 predictions with alpha = 1 - sigma; first and last step first order), on
 * SD3's shifted sigma schedule, with or without guidance. */
#ifndef MBL_MODEL_SAMPLER_H
#define MBL_MODEL_SAMPLER_H

#include "model/pipeline.h"

#include <signal.h>

enum { MBL_SAMPLER_MAX_STEPS = 256 };

typedef enum { MBL_SOLVER_EULER, MBL_SOLVER_DPM1, MBL_SOLVER_DPM2 } mbl_solver_t;
/* false when there is no solver of that name. */
bool mbl_solver_find(const char *name, mbl_solver_t *out);

/* How sigmas are spaced. */
typedef enum {
    /* as diffusers' FlowMatchEulerDiscreteScheduler, DiffusionNFT and MARBLE do: the shift is applied twice,
       to the smallest of 1000 training timesteps, m = shifted(1/1000), and to linspace(1, m, steps) */
    MBL_SCHEDULE_DIFFUSERS,
    MBL_SCHEDULE_LINEAR /* shifted(linspace(1, 1/steps, steps)): what earlier versions did */
} mbl_sigma_schedule_kind_t;
typedef struct {
    mbl_sigma_schedule_kind_t kind;
    double shift;           /* shifted(s) = shift s / (1 + (shift - 1) s) */
    bool integer_timesteps; /* the model sees trunc(1000 sigma), as DiffusionNFT samples */
} mbl_sigma_schedule_t;
/* false when there is no schedule of that name. */
bool mbl_sigma_schedule_find(const char *name, mbl_sigma_schedule_kind_t *out);
/* The sigmas in words, for whoever draws the same image with another program. */
const char *mbl_sigma_schedule_text(mbl_sigma_schedule_kind_t kind);

/* A schedule and, for every step, the coefficients of x, of the x0 prediction now, and of the one before. */
typedef struct {
    mbl_solver_t solver;
    size_t steps;
    double sigma[MBL_SAMPLER_MAX_STEPS + 1]; /* sigma[0] = 1, sigma[steps] = 0 */
    double time[MBL_SAMPLER_MAX_STEPS];      /* what the model is given in sampling: sigma, or it truncated */
    struct {
        double x, x0, x0_prev; /* next = x * x_t + x0 * x0hat + x0_prev * (x0hat of the step before); x0hat =
                                  x_t - sigma v */
    } step[MBL_SAMPLER_MAX_STEPS];
} mbl_sampler_plan_t;

/* ERR_CONFIG for steps outside 1..256 or shift <= 0. */
mbl_status_t mbl_sampler_plan(mbl_solver_t solver, size_t steps, const mbl_sigma_schedule_t *schedule,
                              mbl_sampler_plan_t *out);

/* Buffers for up to max_n samples at once. */
typedef struct mbl_sampler mbl_sampler_t;
mbl_status_t mbl_sampler_new(mbl_pipeline_t *pipeline, const mbl_lora_t *lora, size_t max_n,
                             mbl_sampler_t **out);
void mbl_sampler_free(mbl_sampler_t *sampler);

/* Classifier-free guidance, v = u + scale (c - u) with u the velocity for the negative prompt, and skip-layer
 * guidance, as diffusers' StableDiffusion3Pipeline has them: in the steps i with start < i / steps < stop
 * skip_scale (c - s) is added, s being the velocity for the prompt without the blocks of `skip`. */
typedef struct {
    double scale;                     /* at most 1: no guidance */
    const mbl_conditions_t *negative; /* of one prompt; outlives the sampler */
    uint64_t skip;                    /* bit i: block i is left out; 0: no skip-layer guidance */
    double skip_scale, start, stop;
} mbl_guidance_t;
/* From now on `sampler` draws with guidance: both prompts in one pass of twice the rows, skip-layer guidance
 * in one more. Call it once, before the first run. ERR_CONFIG for blocks that the model does not have. */
mbl_status_t mbl_sampler_guide(mbl_sampler_t *sampler, const mbl_guidance_t *guidance);

/* Generates n images' latents x0 [n,C,H,W] f32 for conditions rows index[0..n-1]. Noise of sample i is the
 * stream (seed, purpose, step, sample[i]), or (noise) what x0 holds. stop (or NULL) is looked at between
 * steps: nonzero ends with ERR_STOPPED. */
typedef struct {
    const mbl_adapter_t *adapter; /* NULL: the base */
    const mbl_conditions_t *conditions;
    const uint32_t *index;
    const int64_t *sample;
    size_t n;
    uint64_t seed;
    uint32_t purpose, step;
    bool noise; /* x0 holds the noise that sampling starts from */
    const volatile sig_atomic_t *stop;
} mbl_sample_request_t;
mbl_status_t mbl_sampler_run(mbl_sampler_t *sampler, const mbl_sampler_plan_t *plan,
                             const mbl_sample_request_t *request, const mbl_tensor_t *x0);

#endif
