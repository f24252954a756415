/* Groups in which a reward has failed so often that those it did score say little. */
#ifndef MBL_RL_MIN_VALID_H
#define MBL_RL_MIN_VALID_H

#include "rl/types.h"

/* Where fewer than min_valid[k] of a group's images that reward k applies to have a score, the others count
 * as failed too, in batch->all: do this once the scores of all ranks are there. min_valid [K]; 0: never.
 * Local. */
void mbl_min_valid(const double *min_valid, mbl_batch_t *batch);

#endif
