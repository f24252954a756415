/* Weights of the steps between two solves. */
#include "rl/amortise.h"

#include <string.h>

void mbl_amortise_keep(mbl_amortise_t *cache, const mbl_balance_step_t *solved, size_t k) {
    memset(cache, 0, sizeof *cache);
    for (size_t i = 0; i < k; i++)
        cache->norm[i] = solved->used[i] ? solved->norm[i] : 0;
}

bool mbl_amortise_due(const mbl_amortise_t *cache, size_t every, const bool *valid, size_t k) {
    bool usable = false;
    for (size_t i = 0; i < k; i++)
        usable |= valid[i] && cache->norm[i] > 0;
    return cache->age == 0 || cache->age >= every || !usable;
}

/* The share of a reward in the average. Shares that are not solved for are known without one: an average over
 * steps with and without some rewards would not keep their proportions. */
static double share_of(const mbl_balance_options_t *options, const mbl_balance_state_t *state, size_t i) {
    if (options->method == MBL_METHOD_FIXED)
        return options->weights ? options->weights[i] : 1;
    return options->method == MBL_METHOD_EQUAL ? 1 : state->alpha_mean[i];
}

/* Priorities enter the QP as 1 / w (qp.h); the other methods put them into alpha. */
static double priority_of(const mbl_balance_options_t *options, size_t i) {
    return options->method == MBL_METHOD_MARBLE && options->weights ? options->weights[i] : 1;
}

void mbl_amortise_step(const mbl_balance_options_t *options, const mbl_balance_state_t *state,
                       const mbl_amortise_t *cache, const bool *valid, size_t k, mbl_balance_step_t *out) {
    mbl_balance_step_t step;
    double sum = 0, norms = 0, priorities = 0;
    memset(&step, 0, sizeof step);
    for (size_t i = 0; i < k; i++) {
        step.norm[i] = cache->norm[i];
        step.used[i] = valid[i] && cache->norm[i] > 0;
        if (!step.used[i])
            continue;
        step.n_used++;
        sum += share_of(options, state, i);
        norms += cache->norm[i];
        priorities += priority_of(options, i);
    }
    for (size_t i = 0; i < k && sum > 0; i++) {
        double n = (double)step.n_used;
        if (!step.used[i])
            continue;
        step.alpha[i] = step.alpha_mean[i] = share_of(options, state, i) / sum;
        step.coefficient[i] =
            norms / n * step.alpha[i] * (priorities / n) / (priority_of(options, i) * cache->norm[i]);
        step.coefficient[k] += step.coefficient[i];
    }
    *out = step;
}
