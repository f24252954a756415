/* Solvers of the probability-flow ODE for rectified flow (x_t = (1-t) x0 + t eps, v = eps - x0): euler, dpm1,
 * dpm2 (multistep DPM-Solver++ on x0 predictions with alpha = 1 - sigma; first and last step first order), on
 * SD3's shifted sigma schedule. */
#ifndef MBL_MODEL_SAMPLER_H
#define MBL_MODEL_SAMPLER_H

#include "model/pipeline.h"

#include <signal.h>

enum { MBL_SAMPLER_MAX_STEPS = 256 };

typedef enum { MBL_SOLVER_EULER, MBL_SOLVER_DPM1, MBL_SOLVER_DPM2 } mbl_solver_t;
/* false when there is no solver of that name. */
bool mbl_solver_find(const char *name, mbl_solver_t *out);

/* A schedule and, for every step, the coefficients of x, of the x0 prediction now, and of the one before. */
typedef struct {
    mbl_solver_t solver;
    size_t steps;
    double sigma[MBL_SAMPLER_MAX_STEPS + 1]; /* sigma[0] = 1 (shifted schedule), sigma[steps] = 0 */
    struct {
        double x, x0, x0_prev; /* next = x * x_t + x0 * x0hat + x0_prev * (x0hat of the step before); x0hat =
                                  x_t - sigma v */
    } step[MBL_SAMPLER_MAX_STEPS];
} mbl_sampler_plan_t;

/* Those sigmas in words, for whoever draws the same image with another program. */
#define MBL_SAMPLER_SCHEDULE                                                                                 \
    "sigmas = linspace(1, 1 / steps, steps), each shift * s / (1 + (shift - 1) * s), then 0"

/* sigma_i = shift s / (1 + (shift-1) s), s = 1 - i/steps. ERR_CONFIG for steps outside 1..256 or shift <= 0.
 */
mbl_status_t mbl_sampler_plan(mbl_solver_t solver, size_t steps, double shift, mbl_sampler_plan_t *out);

/* Buffers for up to max_n samples at once. */
typedef struct mbl_sampler mbl_sampler_t;
mbl_status_t mbl_sampler_new(mbl_pipeline_t *pipeline, const mbl_lora_t *lora, size_t max_n,
                             mbl_sampler_t **out);
void mbl_sampler_free(mbl_sampler_t *sampler);

/* Generates n images' latents x0 [n,C,H,W] f32 for conditions rows index[0..n-1]. Noise of sample i is the
 * stream (seed, purpose, step, sample[i]). stop (or NULL) is looked at between steps:
 * nonzero ends with ERR_STOPPED. */
typedef struct {
    const mbl_adapter_t *adapter; /* NULL: the base */
    const mbl_conditions_t *conditions;
    const uint32_t *index;
    const int64_t *sample;
    size_t n;
    uint64_t seed;
    uint32_t purpose, step;
    const volatile sig_atomic_t *stop;
} mbl_sample_request_t;
mbl_status_t mbl_sampler_run(mbl_sampler_t *sampler, const mbl_sampler_plan_t *plan,
                             const mbl_sample_request_t *request, const mbl_tensor_t *x0);

#endif
