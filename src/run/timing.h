/* Where the time of an epoch goes: what its rollout took is shared evenly by its optimizer steps, so that
 * every line of metrics.jsonl is the cost of a step and the lines add up to the run. */
#ifndef MBL_RUN_TIMING_H
#define MBL_RUN_TIMING_H

#include "comm/comm.h"

/* Seconds of this rank's step by phase. */
typedef struct {
    double rollout, reward_wait, train, gram, qp, comm, checkpoint, total;
} mbl_step_seconds_t;

typedef struct {
    double start, comm; /* of what is under way */
    uint64_t bytes;     /* that had been sent by then */
    double saving;      /* that training stood still for a checkpoint since the last step was reported */
    double within;      /* ... after `start` */
    mbl_step_seconds_t share; /* of the rollout, for a step */
    double mean;              /* of a step's total, for the time left */
} mbl_timing_t;

/* An epoch begins; its rollout is over, which took so long, and `steps` steps follow. */
void mbl_timing_epoch(mbl_timing_t *timing, const mbl_comm_t *comm);
void mbl_timing_drawn(mbl_timing_t *timing, const mbl_comm_t *comm, double rollout, double reward_wait,
                      size_t steps);
/* Training stood still for a checkpoint for so long: between steps, or within one. */
void mbl_timing_saved(mbl_timing_t *timing, double seconds, bool within);
/* A step ends: the seconds that it does not know itself, into *seconds; returns the bytes it sent. */
uint64_t mbl_timing_step(mbl_timing_t *timing, const mbl_comm_t *comm, mbl_step_seconds_t *seconds);

#endif
