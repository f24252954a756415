/* Schedules of sigmas, and what a solver makes of every step: a combination of x, the x0 prediction now and
 * the one before. */
#include "model/sampler.h"

#include <math.h>
#include <string.h>

/* Where `name` stands in a list that NULL ends; false when it does not. */
static bool find(const char *const *names, const char *name, int *out) {
    for (int i = 0; names[i]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

bool mbl_solver_find(const char *name, mbl_solver_t *out) {
    static const char *const names[] = {"euler", "dpm1", "dpm2", NULL};
    int found;
    if (!find(names, name, &found))
        return false;
    *out = (mbl_solver_t)found;
    return true;
}

/* ---- schedules ---- */

bool mbl_sigma_schedule_find(const char *name, mbl_sigma_schedule_kind_t *out) {
    static const char *const names[] = {"diffusers", "linear", NULL};
    int found;
    if (!find(names, name, &found))
        return false;
    *out = (mbl_sigma_schedule_kind_t)found;
    return true;
}

const char *mbl_sigma_schedule_text(mbl_sigma_schedule_kind_t kind) {
    return kind == MBL_SCHEDULE_LINEAR
               ? "sigmas = linspace(1, 1 / steps, steps), each shift * s / (1 + (shift - 1) * s), then 0"
               : "sigmas = linspace(1, shift / (999 + shift), steps), each shift * s / (1 + (shift - 1) * "
                 "s), "
                 "then 0 (FlowMatchEulerDiscreteScheduler)";
}

static double shifted(double shift, double s) {
    return shift * s / (1 + (shift - 1) * s);
}

enum { TRAINING_TIMESTEPS = 1000 }; /* of diffusers' scheduler: the model's time is 1000 sigma */

/* sigma[0] = 1 either way. */
static void fill_sigmas(const mbl_sigma_schedule_t *schedule, mbl_sampler_plan_t *plan) {
    size_t steps = plan->steps;
    double least = shifted(schedule->shift, 1.0 / TRAINING_TIMESTEPS);
    for (size_t i = 1; i < steps; i++) {
        double s = schedule->kind == MBL_SCHEDULE_LINEAR ? (double)(steps - i) / (double)steps
                                                         : 1 + (least - 1) * (double)i / (double)(steps - 1);
        plan->sigma[i] = shifted(schedule->shift, s);
    }
    plan->sigma[0] = 1;
    plan->sigma[steps] = 0;
}

/* Truncated as DiffusionNFT does: the f32 of diffusers' timesteps. */
static double time_of(const mbl_sigma_schedule_t *schedule, double sigma) {
    return schedule->integer_timesteps
               ? floor((double)(float)(TRAINING_TIMESTEPS * sigma)) / TRAINING_TIMESTEPS
               : sigma;
}

/* ---- steps ---- */

/* log(alpha / sigma) with alpha = 1 - sigma: minus infinity at sigma 1, infinity at 0. */
static double log_ratio(double sigma) {
    return log((1 - sigma) / sigma);
}

/* Step i from s = sigma[i] to u = sigma[i+1]. First order: alpha_u (1 - exp(-h)) = 1 - u/s, with which
 * DPM-Solver++ in x0 predictions is x' = (u/s) x + (1 - u/s) x0 = x + (u - s) v, Euler's step. Second order
 * (midpoint form): x0 becomes x0 + (h / 2 h0) (x0 - x0 before), h and h0 the steps in log_ratio now and
 * before. Where the step before began at sigma 1, h0 is infinite and the correction vanishes; the last step,
 * with h infinite, is first order. */
static void plan_step(mbl_sampler_plan_t *plan, size_t i) {
    double s = plan->sigma[i], u = plan->sigma[i + 1], keep = u / s, correction = 0;
    if (plan->solver == MBL_SOLVER_DPM2 && i > 0 && i + 1 < plan->steps) {
        double h = log_ratio(u) - log_ratio(s), h0 = log_ratio(s) - log_ratio(plan->sigma[i - 1]);
        correction = h / (2 * h0);
    }
    plan->step[i].x = keep;
    plan->step[i].x0 = (1 - keep) * (1 + correction);
    plan->step[i].x0_prev = -(1 - keep) * correction;
}

mbl_status_t mbl_sampler_plan(mbl_solver_t solver, size_t steps, const mbl_sigma_schedule_t *schedule,
                              mbl_sampler_plan_t *out) {
    if (steps < 1 || steps > MBL_SAMPLER_MAX_STEPS)
        return MBL_FAIL(MBL_ERR_CONFIG, "sampler: %zu steps; expected 1 to %d", steps, MBL_SAMPLER_MAX_STEPS);
    if (!(schedule->shift > 0) || isinf(schedule->shift))
        return MBL_FAIL(MBL_ERR_CONFIG, "sampler: a shift of %g; expected a positive number",
                        schedule->shift);
    memset(out, 0, sizeof *out);
    out->solver = solver;
    out->steps = steps;
    fill_sigmas(schedule, out);
    for (size_t i = 0; i < steps; i++) {
        out->time[i] = time_of(schedule, out->sigma[i]);
        plan_step(out, i);
    }
    return MBL_OK;
}
