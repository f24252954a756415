/* One rank of many without the others: collectives that move nothing, so that a plan can run the code of a
 * step on a rank's shapes. What is received is whatever stood there. */
#ifndef MBL_PLAN_COMM_H
#define MBL_PLAN_COMM_H

#include "comm/comm.h"

typedef struct {
    mbl_comm_t host, device; /* for memory of either */
} mbl_plan_comm_t;

/* Rank 0 of `ranks`. Nothing to close. Keep it where it is: the two refer to each other. */
void mbl_plan_comm(size_t ranks, mbl_plan_comm_t *out);

#endif
