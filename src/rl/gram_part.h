/* Which rows of an optimizer step its Gram matrix is formed from when that is a fraction of them
 * (balance.gram_fraction), and which its KL term is taken of (train.kl_fraction). */
#ifndef MBL_RL_GRAM_PART_H
#define MBL_RL_GRAM_PART_H

#include "rl/types.h"

enum { MBL_PART_GRAM = 0, MBL_PART_REST = 1, MBL_PART_HALF = 2 };

typedef struct {
    double fraction;    /* (0, 1] of the rows */
    size_t micro_batch; /* rows trained on at once */
    size_t timesteps, slice, slices;
    bool halves; /* the chosen rows in halves of other images: MBL_PART_GRAM and MBL_PART_HALF */
    uint64_t seed;
    uint32_t step; /* these as in mbl_gradient_args_t */
} mbl_gram_part_t;

/* Units are chunks of consecutive samples (whole prompt groups) at one position of their timestep orders. A
 * chunk may lie on several ranks: each then takes its own samples of it. Chunks are as large as a
 * micro-batch, or smaller while fewer than four units would be chosen. The nearest whole number of units is
 * chosen, at least one, and every chunk gives as many as any other, or one more. The choice depends on seed,
 * step, slice and the global index of the samples, not on the number of ranks.
 *
 * part_of [timesteps, n] is set to MBL_PART_GRAM or MBL_PART_REST. With `halves` every other chunk is
 * MBL_PART_HALF instead, so that no image is in both halves (four chunks at least where there are as many
 * groups). Returns the share of all ranks' rows that was chosen; 1 where that
 * is all of them. Local. */
double mbl_gram_part(const mbl_gram_part_t *options, const mbl_batch_t *batch, uint8_t *part_of);

/* Another such choice, without halves: rows [timesteps, n] is 1 where the KL term is taken. Every row of the
 * slice is as likely as any other, so the term is unbiased with what is returned for the weight of a row: 1
 * over those odds. Local. */
double mbl_kl_part(const mbl_gram_part_t *options, const mbl_batch_t *batch, uint8_t *rows);

#endif
