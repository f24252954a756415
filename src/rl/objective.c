/* Rewards to objectives. */
#include "rl/objective.h"

#include <math.h>
#include <string.h>

/* The objective of an earlier reward in use that shares the group of reward i; `none` without one. */
static size_t find_mate(const mbl_balance_options_t *options, const bool *used, const size_t *of, size_t i,
                        size_t none) {
    for (size_t j = 0; options->group && j < i; j++)
        if (used[j] && options->group[j] == options->group[i])
            return of[j];
    return none;
}

mbl_status_t mbl_objectives(const mbl_balance_options_t *options, const bool *used, size_t k,
                            mbl_objectives_t *out) {
    bool all_of_group = mbl_method_is(options->method, MBL_METHOD_MICRO_BATCHES);
    size_t in_use[MBL_MAX_REWARDS] = {0};
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < k; i++) {
        double weight = options->weights ? options->weights[i] : 1;
        if (!used[i])
            continue;
        if (!(weight > 0 && isfinite(weight)))
            return MBL_FAIL(
                MBL_ERR_ARG,
                "balance: reward %zu has weight %g; expected a positive number (to leave a reward "
                "out, take it off the list)",
                i, weight);
        size_t o = out->of[i] = find_mate(options, used, out->of, i, out->n);
        out->n += o == out->n;
        out->weight[o] += weight;
        out->size[o]++;
        in_use[o]++;
    }
    for (size_t o = 0; o < out->n; o++)
        out->weight[o] /= (double)in_use[o];
    for (size_t i = 0; i < k && options->group && all_of_group; i++)
        for (size_t j = 0; !used[i] && j < k; j++)
            if (used[j] && options->group[j] == options->group[i]) {
                out->size[out->of[j]]++;
                break;
            }
    return MBL_OK;
}

void mbl_objectives_gram(const mbl_objectives_t *objectives, const double *rewards, const bool *used,
                         size_t k, double *out) {
    size_t n = objectives->n;
    memset(out, 0, n * n * sizeof *out);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++) {
            size_t o = objectives->of[i], p = objectives->of[j];
            if (used[i] && used[j])
                out[o * n + p] += rewards[i * k + j] / (objectives->size[o] * objectives->size[p]);
        }
}
