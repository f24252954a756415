/* What the gradients of a step are kept as, and what follows from their Gram matrix. The sets are, in this
 * order: the reward parts a_1..a_R, the common parts c_1..c_M of the masks (masks.h), and the KL term where
 * it is apart. The gradient of reward k is g_k = a_k + c_of[k]; a direction is sum_j coefficient_j set_j.
 * R = K, or K + 1 when the method has an objective of its own (weighted_sum) that is compared with the K
 * rewards. Pure numbers, local. */
#ifndef MBL_RL_SETS_H
#define MBL_RL_SETS_H

#include "rl/masks.h"

enum { MBL_SETS_MAX = 2 * MBL_MAX_PARTS + 1 };

typedef struct {
    size_t parts, masks; /* R, M */
    bool kl;             /* the last set is the KL term, which every direction has once */
    uint8_t of[MBL_MAX_PARTS];
} mbl_sets_t;

/* masks NULL: every part applies to all samples. */
mbl_sets_t mbl_sets(size_t parts, const mbl_masks_t *masks, bool kl);
/* How many there are: R + M + kl. */
size_t mbl_sets_count(const mbl_sets_t *sets);

/* What reward k has in common with others, c_of[k], against set j: <c_of[k], set_j> of the matrix; 0 for a
 * reward that applies to no sample. */
double mbl_sets_common(const mbl_sets_t *sets, const double *gram, size_t k, size_t j);
/* <g_i, g_j> */
double mbl_sets_inner(const mbl_sets_t *sets, const double *gram, size_t i, size_t j);

/* out [parts, parts]: the cosines of every two gradients g_i, g_j; NAN where either is none or not finite. */
void mbl_sets_cosines(const mbl_sets_t *sets, const double *gram, size_t parts, double *out);

/* Divides the sets of a part of a step's rows by the share of the rows of their mask that it has (share [M]),
 * the KL term by kl_share: gradients of the length that the whole step's would have. A share of 0 leaves the
 * set, which is 0, as it is. */
void mbl_sets_scale(const mbl_sets_t *sets, const double *share, double kl_share, double *gram);

/* Fills the coefficients behind the R of the reward parts so that the direction is sum_k coefficient_k g_k,
 * plus the KL term; or, where `once` [R] is given, sum_k coefficient_k a_k plus the mean of c_of[k] over the
 * parts k with once[k], plus the KL term. With no coefficient at all there is no direction: all stay 0. */
void mbl_sets_spread(const mbl_sets_t *sets, const bool *once, double *coefficient);

#endif
