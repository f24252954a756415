/* Weights of the steps between two solves. */
#include "rl/amortise.h"

#include "rl/objective.h"

#include <string.h>

void mbl_amortise_keep(mbl_amortise_t *cache, const mbl_balance_step_t *solved, const bool *tried,
                       const mbl_balance_state_t *state, size_t k) {
    cache->age = 0;
    for (size_t i = 0; i < k; i++)
        if (solved->used[i])
            cache->norm[i] = solved->length[i];
        else if (tried[i])
            cache->norm[i] = MBL_AMORTISE_UNUSABLE;
        else if (!(cache->norm[i] > 0 && state->seen[i]))
            cache->norm[i] = 0;
}

bool mbl_amortise_due(const mbl_amortise_t *cache, size_t every, const bool *valid, size_t k) {
    bool usable = false, unknown = false;
    for (size_t i = 0; i < k; i++) {
        usable |= valid[i] && cache->norm[i] > 0;
        unknown |= valid[i] && cache->norm[i] == 0;
    }
    return cache->age == 0 || cache->age >= every || !usable || unknown;
}

/* The share of an objective. Shares that are not solved for are known without an average, which over steps
 * with and without some rewards would not keep their proportions. */
static double share_of(const mbl_balance_options_t *options, const mbl_objectives_t *objectives, size_t o,
                       double alpha_mean) {
    if (mbl_method_is(options->method, MBL_METHOD_WEIGHTS))
        return objectives->weight[o];
    return mbl_method_solves(options->method) ? alpha_mean : 1;
}

/* Priorities enter the QP as 1 / w (qp.h); the other methods put them into alpha. */
static double priority_of(const mbl_balance_options_t *options, const mbl_objectives_t *objectives,
                          size_t o) {
    return mbl_method_is(options->method, MBL_METHOD_PRIORITIES) ? objectives->weight[o] : 1;
}

/* Means and sums over the n objectives that the coefficients need. */
typedef struct {
    double share[MBL_MAX_REWARDS], length[MBL_MAX_REWARDS]; /* [n] */
    double share_sum, mean_length, mean_priority;
} objective_sums_t;

static void sum_objectives(const mbl_balance_options_t *options, const mbl_objectives_t *objectives,
                           const mbl_balance_state_t *state, const mbl_balance_step_t *step, size_t k,
                           objective_sums_t *out) {
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < k; i++)
        if (step->used[i]) {
            out->share[objectives->of[i]] += state->alpha_mean[i];
            out->length[objectives->of[i]] = step->norm[i];
        }
    for (size_t o = 0; o < objectives->n; o++) {
        out->share[o] = share_of(options, objectives, o, out->share[o]);
        out->share_sum += out->share[o];
        out->mean_length += out->length[o] / (double)objectives->n;
        out->mean_priority += priority_of(options, objectives, o) / (double)objectives->n;
    }
}

mbl_status_t mbl_amortise_step(const mbl_balance_options_t *options, const mbl_balance_state_t *state,
                               const mbl_amortise_t *cache, const bool *valid, size_t k,
                               mbl_balance_step_t *out) {
    mbl_balance_step_t step;
    mbl_objectives_t objectives;
    objective_sums_t sums;
    memset(&step, 0, sizeof step);
    for (size_t i = 0; i < k; i++) {
        step.norm[i] = step.length[i] = cache->norm[i] > 0 ? cache->norm[i] : 0;
        step.used[i] = valid[i] && cache->norm[i] > 0 && (!options->active || options->active[i]);
        step.n_used += step.used[i];
    }
    MBL_TRY(mbl_objectives(options, step.used, k, &objectives));
    sum_objectives(options, &objectives, state, &step, k, &sums);
    for (size_t i = 0; i < k && sums.share_sum > 0; i++) {
        size_t o = objectives.of[i];
        if (!step.used[i])
            continue;
        step.alpha[i] = step.alpha_mean[i] = sums.share[o] / sums.share_sum / objectives.size[o];
        step.coefficient[i] = sums.mean_length * step.alpha[i] * sums.mean_priority /
                              (priority_of(options, &objectives, o) * sums.length[o]);
    }
    mbl_sets_t one = mbl_sets(k, NULL, false);
    mbl_sets_spread(options->sets ? options->sets : &one,
                    options->common == MBL_COMMON_TOGETHER ? NULL : step.used, step.coefficient);
    *out = step;
    return MBL_OK;
}
