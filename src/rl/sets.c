/* The sets of a step and their Gram matrix. */
#include "rl/sets.h"

#include <math.h>
#include <string.h>

mbl_sets_t mbl_sets(size_t parts, const mbl_masks_t *masks, bool kl) {
    mbl_sets_t sets = {.parts = parts, .masks = masks ? masks->count : 1, .kl = kl};
    if (masks)
        memcpy(sets.of, masks->of, parts * sizeof *sets.of);
    return sets;
}

size_t mbl_sets_count(const mbl_sets_t *sets) {
    return sets->parts + sets->masks + sets->kl;
}

double mbl_sets_common(const mbl_sets_t *sets, const double *gram, size_t k, size_t j) {
    size_t m = mbl_sets_count(sets);
    return sets->of[k] == MBL_NO_MASK ? 0 : gram[(sets->parts + sets->of[k]) * m + j];
}

double mbl_sets_inner(const mbl_sets_t *sets, const double *gram, size_t i, size_t j) {
    size_t m = mbl_sets_count(sets);
    double inner = gram[i * m + j] + mbl_sets_common(sets, gram, i, j) + mbl_sets_common(sets, gram, j, i);
    if (sets->of[j] != MBL_NO_MASK)
        inner += mbl_sets_common(sets, gram, i, sets->parts + sets->of[j]);
    return inner;
}

void mbl_sets_cosines(const mbl_sets_t *sets, const double *gram, size_t parts, double *out) {
    for (size_t i = 0; i < parts; i++)
        for (size_t j = 0; j < parts; j++) {
            double inner = mbl_sets_inner(sets, gram, i, j);
            double squares = mbl_sets_inner(sets, gram, i, i) * mbl_sets_inner(sets, gram, j, j);
            double cosine = squares > 0 && isfinite(squares) ? inner / sqrt(squares) : NAN;
            out[i * parts + j] = fmax(-1, fmin(1, cosine));
            if (isnan(cosine))
                out[i * parts + j] = NAN;
        }
}

void mbl_sets_scale(const mbl_sets_t *sets, const double *share, double kl_share, double *gram) {
    size_t m = mbl_sets_count(sets);
    double by[MBL_SETS_MAX];
    for (size_t j = 0; j < m; j++) {
        size_t mask = j < sets->parts ? sets->of[j] : j - sets->parts;
        double part = mask < sets->masks ? share[mask] : mask == MBL_NO_MASK ? 0 : kl_share;
        by[j] = part > 0 ? part : 1;
    }
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++)
            gram[i * m + j] /= by[i] * by[j];
}

void mbl_sets_spread(const mbl_sets_t *sets, const bool *once, double *coefficient) {
    double *common = coefficient + sets->parts, n = 0;
    bool any = false;
    memset(common, 0, (sets->masks + sets->kl) * sizeof *common);
    for (size_t k = 0; k < sets->parts; k++) {
        any |= coefficient[k] != 0;
        n += once && once[k];
    }
    for (size_t k = 0; k < sets->parts && any; k++)
        if (sets->of[k] != MBL_NO_MASK)
            common[sets->of[k]] += !once ? coefficient[k] : once[k] ? 1 / n : 0;
    if (sets->kl && any)
        common[sets->masks] = 1;
}
