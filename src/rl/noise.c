/* Noise of gradients and of alpha from two halves of a step. */
#include "rl/noise.h"

#include <math.h>

void mbl_noise_ratio(const mbl_sets_t *sets, const double *whole, const double *first, const double *second,
                     const double *share, size_t k, double *ratio) {
    size_t m = mbl_sets_count(sets);
    for (size_t i = 0; i < k; i++) {
        double p = sets->of[i] == MBL_NO_MASK ? 0 : share[sets->of[i]], q = 1 - p, at = 0;
        double a = first[i * m + i], b = second[i * m + i], square = whole[i * m + i];
        if (p > 0 && q > 0) /* pq |A/p - B/q|^2, with 2 <A, B> = |A + B|^2 - |A|^2 - |B|^2 */
            at = q / p * a + p / q * b - (square - a - b);
        ratio[i] = at > 0 && isfinite(at) ? (square - at) / at : NAN;
    }
}

double mbl_noise_shrink(const double *first, const double *second, double share, const double *target,
                        const bool *used, size_t k, double *alpha) {
    double variance = 0, distance = 0;
    for (size_t i = 0; i < k; i++) {
        if (!used[i])
            continue;
        variance += share * (1 - share) * (first[i] - second[i]) * (first[i] - second[i]);
        distance += (alpha[i] - target[i]) * (alpha[i] - target[i]);
    }
    double factor = variance < distance ? 1 - variance / distance : variance > 0 ? 0 : 1;
    for (size_t i = 0; i < k; i++)
        if (used[i])
            alpha[i] = target[i] + factor * (alpha[i] - target[i]);
    return factor;
}
