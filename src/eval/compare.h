/* Statistics of scored images: means, paired differences and win rates with bootstrap intervals, and one
 * z-score over all rewards. Pure functions of score tables; nothing here draws or scores.
 *
 * Intervals: 95 % percentile bootstrap over prompts. A resample draws as many prompts as have an image that
 * counts, with replacement, and a prompt brings all its images (seeds and repeats) along, since those are
 * not independent (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; Efron and
 * Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Resample r draws from the stream (seed,
 * MBL_RNG_STUDY, 0, r): an answer depends on the table alone. */
#ifndef MBL_TRAIN_COMPARE_H
#define MBL_TRAIN_COMPARE_H

#include "reward/reward.h"

/* What the score tables [images, k] of one call have in common. */
typedef struct {
    size_t images, k, prompts;
    const uint32_t *prompt; /* [images], below prompts: which prompt an image shows */
    size_t resamples;
    uint64_t seed;
} mbl_compare_t;

typedef struct {
    double value, low, high; /* NAN: no image counts; low and high too with fewer than two prompts */
    size_t prompts;          /* that it is from */
} mbl_interval_t;

typedef struct {
    mbl_interval_t mean;
    size_t n, na, failed; /* images */
} mbl_compare_score_t;

typedef struct {
    mbl_interval_t difference, win_rate; /* win_rate in [0, 1]: won + tied / 2, of n */
    size_t n, won, tied, lost;           /* images valid in both */
} mbl_compare_pair_t;

/* Mean and standard deviation of each reward over the valid images of several tables: what z-scores are
 * taken with, (score - mean) / deviation. A reward without spread has deviation 0, and its z-scores are 0;
 * one without scores has NAN for both. */
void mbl_compare_scale(size_t images, size_t k, const mbl_score_t *const *tables, size_t n, double *mean,
                       double *deviation);

/* The mean of each reward, out [k + 1]; out[k] is the composite: the mean over the rewards of their mean
 * z-score, so that every reward counts alike however many images it applies to (n: images with at least
 * one valid score). mean and deviation [k] from mbl_compare_scale. ERR_MEM. */
mbl_status_t mbl_compare_scores(const mbl_compare_t *compare, const mbl_score_t *scores, const double *mean,
                                const double *deviation, mbl_compare_score_t *out);

/* b against a, image by image: out [k + 1] is the mean of b - a over images valid in both, and how
 * often b is the better one. out[k]: the composite likewise, over z-scores; an image is won by the mean of
 * its rewards' z-scores. ERR_MEM. */
mbl_status_t mbl_compare_pair(const mbl_compare_t *compare, const mbl_score_t *a, const mbl_score_t *b,
                              const double *deviation, mbl_compare_pair_t *out);

#endif
