/* The exact Gram matrix over ranks (README.md here): < sum_ranks g_k , sum_ranks g_l >, which the sum of
 * the ranks' own matrices is not. */
#ifndef MBL_RL_GRAM_H
#define MBL_RL_GRAM_H

#include "rl/types.h"

/* One such matrix. sets [M, size * count] f64: this rank's shares; shard [M, count] f64 is set to this rank's
 * shard of the sums. On tensors of a device, comm is attached to ops. */
typedef struct {
    mbl_comm_t *comm;
    mbl_ops_t *ops;
    const mbl_tensor_t *sets, *shard;
    size_t begun;        /* sets whose sum began while the others were formed */
    bool met;            /* the ranks met for that, */
    mbl_status_t agreed; /* with this result */
} mbl_gram_sum_t;

/* As mbl_gradient_args_t.ready, with an mbl_gram_sum_t for its context: the first n sets are final here.
 * Ranks agree whether they are everywhere, and their sum begins, overlapping the passes that form the rest
 * where the transport can. Collective. */
mbl_status_t mbl_gram_ready(void *sum, size_t n);
/* `mine` is how forming the sets ended here; the same for all ranks is returned. Collective, after every
 * forming. */
mbl_status_t mbl_gram_formed(mbl_gram_sum_t *sum, mbl_status_t mine);
/* The sums of all sets in the shard, and gram [M*M] on the host: the exact matrix, the same on every rank.
 * Collective. */
mbl_status_t mbl_gram_finish(mbl_gram_sum_t *sum, double *gram);

/* All of it for sets that are formed. Collective. */
mbl_status_t mbl_gram(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_tensor_t *sets, const mbl_tensor_t *shard,
                      double *gram);

#endif
