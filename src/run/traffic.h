/* What rewards that are scored elsewhere cost in an epoch: added up over ranks, and their part of a line of
 * metrics.jsonl. */
#ifndef MBL_RUN_TRAFFIC_H
#define MBL_RUN_TRAFFIC_H

#include "config/config.h"
#include "rl/types.h"

typedef struct {
    bool any, served[MBL_MAX_REWARDS];
    mbl_traffic_t by[MBL_MAX_REWARDS]; /* sums over ranks */
    int ranks;
} mbl_run_traffic_t;

/* Forgets what was counted before an epoch. Local. */
void mbl_run_traffic_begin(mbl_scorer_pool_t *pool, mbl_run_traffic_t *traffic);
/* After the scores are there. Collective where there are such rewards. */
mbl_status_t mbl_run_traffic_end(mbl_comm_t *comm, mbl_scorer_pool_t *pool, size_t k,
                                 mbl_run_traffic_t *traffic);
/* Which replicas are set aside, on all ranks: part of mbl_run_traffic_end. Collective where ranks share
 * replicas. */
mbl_status_t mbl_run_traffic_decide(mbl_comm_t *comm, mbl_scorer_pool_t *pool);
/* "remote" of a line: an object by reward; nothing where there are none. */
void mbl_run_traffic_put(const mbl_config_t *config, const mbl_run_traffic_t *traffic, json_t *line);

#endif
