/* V_k, the samples that reward k applies to and was scored on: the gradient of reward k is a mean over them,
 * common part included (as in MARBLE's released code). Reward parts with the same samples share a mask, and
 * with it the common part: g_k = a_k + c_m, m = of[k]. */
#ifndef MBL_RL_MASKS_H
#define MBL_RL_MASKS_H

#include "rl/types.h"

enum { MBL_MAX_PARTS = MBL_MAX_REWARDS + 1, MBL_NO_MASK = 255 };

_Static_assert((int)MBL_MAX_PARTS <= (int)MBL_NO_MASK, "a mask's number is a byte");

typedef struct {
    size_t parts;                 /* R */
    size_t count;                 /* M: distinct masks of the parts that apply to any sample */
    uint8_t of[MBL_MAX_PARTS];    /* [R] mask of a part; MBL_NO_MASK where it applies to no sample */
    uint8_t first[MBL_MAX_PARTS]; /* [M] the first part that has it */
    double weight[MBL_MAX_PARTS]; /* [M] of a sample in a mean over V, where one over all weighs 1: N / |V| */
    double samples[MBL_MAX_PARTS]; /* [M] |V|, of all ranks */
    const uint8_t *valid;          /* [R,n] whether a sample of this rank is in V_k; the caller's */
} mbl_masks_t;

/* From valid [parts,n], kept by the caller, to the masks of all ranks' n_global samples. The same on every
 * rank but for `valid`. Collective. */
mbl_status_t mbl_masks(mbl_comm_t *comm, const uint8_t *valid, size_t parts, size_t n, size_t n_global,
                       mbl_masks_t *out);

/* What sample i of this rank's n weighs in the mean of a part; `masks` NULL: every part applies to all. */
double mbl_masks_weight(const mbl_masks_t *masks, size_t part, size_t i, size_t n);

#endif
