/* How every rank fares: where its time of a step went and its memory, side by side, so that one that the
 * others wait for stands out. */
#ifndef MBL_RUN_RANKS_H
#define MBL_RUN_RANKS_H

#include "run/timing.h"

#include <jansson.h>

/* Of a rank: seconds of the step, `comm` (waiting for other ranks among it) being part of the others; peak
 * memory of its process in bytes. */
typedef struct {
    double rollout, train, comm, memory;
} mbl_rank_load_t;

typedef struct {
    int n;
    mbl_rank_load_t *of; /* [n] the same on every rank */
} mbl_ranks_t;

/* Free with mbl_ranks_free, after a failure too. */
mbl_status_t mbl_ranks_new(const mbl_comm_t *comm, mbl_ranks_t *out);
void mbl_ranks_free(mbl_ranks_t *ranks);
/* After a step, from this rank's seconds. Collective. */
mbl_status_t mbl_ranks_measure(mbl_comm_t *comm, const mbl_step_seconds_t *seconds, mbl_ranks_t *ranks);
/* "ranks" of a line of metrics.jsonl: a list by rank for each of the above. */
void mbl_ranks_put(const mbl_ranks_t *ranks, json_t *line);

#endif
