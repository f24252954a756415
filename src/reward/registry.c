/* The scorers there are, by name. */
#include "reward/scorers.h"

#include <math.h>
#include <string.h>

#define LISTED(name) &mbl_scorer_##name,
static const mbl_scorer_t *const scorers[] = {MBL_SCORER_LIST(LISTED)};
#undef LISTED
enum { SCORERS = sizeof scorers / sizeof *scorers };

const mbl_scorer_t *mbl_scorer_at(size_t i) {
    return i < SCORERS ? scorers[i] : NULL;
}

const mbl_scorer_t *mbl_scorer_find(const char *name) {
    for (size_t i = 0; i < SCORERS; i++)
        if (strcmp(scorers[i]->name, name) == 0)
            return scorers[i];
    return NULL;
}

const mbl_scorer_key_t *mbl_scorer_key(const mbl_scorer_t *scorer, const char *name) {
    for (const mbl_scorer_key_t *key = scorer->keys; key && key->name; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

void mbl_reward_range(const mbl_reward_spec_t *spec, double *low, double *high) {
    const mbl_scorer_t *scorer = mbl_scorer_find(spec->type);
    *low = !isnan(spec->low) ? spec->low : scorer ? scorer->low : -INFINITY;
    *high = !isnan(spec->high) ? spec->high : scorer ? scorer->high : INFINITY;
}

size_t mbl_scores_outside(const mbl_reward_spec_t *spec, const mbl_score_t *scores, size_t n, size_t stride) {
    double low, high;
    mbl_reward_range(spec, &low, &high);
    double slack = isfinite(high - low) ? 1e-6 * (high - low) : 0;
    size_t outside = 0;
    for (size_t i = 0; i < n; i++) {
        const mbl_score_t *score = &scores[i * stride];
        outside +=
            score->state == MBL_SCORE_VALID && (score->value < low - slack || score->value > high + slack);
    }
    return outside;
}
