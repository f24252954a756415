/* The scores of an epoch's images, of all ranks on every rank: a group may lie on several of them
 * (base/share.h), and comparing its images needs nothing but their scores. */
#ifndef MBL_RL_SCORES_H
#define MBL_RL_SCORES_H

#include "rl/types.h"

typedef struct {
    size_t images, k;    /* of all ranks; K */
    mbl_score_t *all;    /* [images,K] in the order of the images; each rank fills its share, batch->scores */
    mbl_score_t *blocks; /* [ranks, the most images of a rank, K] staging */
} mbl_scores_t;

/* Room for a table. Free with mbl_scores_free, after a failure too. Local. */
mbl_status_t mbl_scores_new(const mbl_comm_t *comm, size_t images, size_t k, mbl_scores_t *out);
void mbl_scores_free(mbl_scores_t *scores);

/* This rank's images in a table: sets first, n, n_global, all and scores of the batch. */
void mbl_scores_view(const mbl_comm_t *comm, mbl_scores_t *scores, mbl_batch_t *batch);

/* What every rank has filled in, on all of them. Collective (one allgather). */
mbl_status_t mbl_scores_exchange(mbl_comm_t *comm, mbl_scores_t *scores);

#endif
