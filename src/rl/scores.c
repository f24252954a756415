/* Scores of all ranks' images. */
#include "rl/scores.h"

#include "base/mem.h"
#include "base/share.h"

#include <string.h>

static mbl_share_t share_of(const mbl_comm_t *comm, const mbl_scores_t *scores, int rank) {
    return mbl_share(scores->images, (size_t)comm->size, (size_t)rank);
}

mbl_status_t mbl_scores_new(const mbl_comm_t *comm, size_t images, size_t k, mbl_scores_t *out) {
    *out = (mbl_scores_t){.images = images, .k = k};
    MBL_ALLOC(out->all, images * k);
    if (comm->size > 1)
        MBL_ALLOC(out->blocks, (size_t)comm->size * share_of(comm, out, 0).n * k);
    return MBL_OK;
}

void mbl_scores_free(mbl_scores_t *scores) {
    mbl_free(scores->all);
    mbl_free(scores->blocks);
    *scores = (mbl_scores_t){.images = 0};
}

void mbl_scores_view(const mbl_comm_t *comm, mbl_scores_t *scores, mbl_batch_t *batch) {
    const mbl_share_t own = share_of(comm, scores, comm->rank);
    batch->first = own.first;
    batch->n = own.n;
    batch->n_global = scores->images;
    batch->k = scores->k;
    batch->all = scores->all;
    batch->scores = scores->all + own.first * scores->k;
}

/* Blocks of an allgather are alike: each is as long as the longest share, which is rank 0's. */
mbl_status_t mbl_scores_exchange(mbl_comm_t *comm, mbl_scores_t *scores) {
    if (comm->size == 1)
        return MBL_OK;
    const mbl_share_t own = share_of(comm, scores, comm->rank);
    const size_t most = share_of(comm, scores, 0).n * scores->k;
    mbl_score_t *mine = scores->blocks + (size_t)comm->rank * most;
    memcpy(mine, scores->all + own.first * scores->k, own.n * scores->k * sizeof *mine);
    MBL_TRY(mbl_comm_allgather(comm, mine, scores->blocks, most * sizeof *mine));
    for (int r = 0; r < comm->size; r++) {
        const mbl_share_t share = share_of(comm, scores, r);
        memcpy(scores->all + share.first * scores->k, scores->blocks + (size_t)r * most,
               share.n * scores->k * sizeof *mine);
    }
    return MBL_OK;
}
