/* Scores of an epoch by the source of their prompts. */
#ifndef MBL_TRAIN_BY_SOURCE_H
#define MBL_TRAIN_BY_SOURCE_H

#include "comm/comm.h"
#include "data/prompts.h"
#include "rl/types.h"

/* out [n_sources, K] = mean score of reward k over the images of all ranks whose prompts come from source s,
 * NAN where none of them has one; count [n_sources, K] is room for as many numbers. Nothing without sources.
 * Collective. */
mbl_status_t mbl_by_source(mbl_comm_t *comm, const mbl_prompts_t *prompts, const mbl_batch_t *batch,
                           double *count, double *out);

#endif
