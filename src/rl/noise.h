/* How much of what a step says of its rewards is noise, from two disjoint halves of its prompt groups, and
 * what to make of that. Pure numbers, local.
 *
 * Let A and B be a reward part summed over either half, which have the shares p and q = 1 - p of the rows of
 * its mask. A / p and B / q estimate the same mean, so pq |A/p - B/q|^2 is an unbiased estimate of the
 * variance of A + B (of |noise|^2, its trace), and what is left of |A + B|^2 one of the square of the mean.
 */
#ifndef MBL_RL_NOISE_H
#define MBL_RL_NOISE_H

#include "rl/sets.h"

/* What a solve's alpha is shrunk towards. */
typedef enum { MBL_SHRINK_OFF, MBL_SHRINK_EQUAL, MBL_SHRINK_AVERAGE } mbl_shrink_t;

/* The signal-to-noise ratio (|a|^2 - noise) / noise of each of the k reward parts a_k, from the Gram matrices
 * of the sets of both halves together and of either; share [M]: the first half's of the rows of each mask.
 * About 0 (below, by chance) where the halves have nothing in common; NAN where a half has no such row or a_k
 * is not finite or 0. */
void mbl_noise_ratio(const mbl_sets_t *sets, const double *whole, const double *first, const double *second,
                     const double *share, size_t k, double *ratio);

/* Shrinks alpha [k] towards a target by what its halves disagree (a positive-part James-Stein estimate): with
 * v = pq |alpha_first - alpha_second|^2, the variance of alpha, and d = alpha - target,
 *     alpha <- target + max(0, 1 - v / |d|^2) d
 * over the used rewards; share: p. All four sum to 1 over those, so alpha does. Returns the factor: 1 leaves
 * alpha as it is, 0 is the target. */
double mbl_noise_shrink(const double *first, const double *second, double share, const double *target,
                        const bool *used, size_t k, double *alpha);

#endif
