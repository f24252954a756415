/* Tests that run as one rank, and under mpirun as several: every rank runs the same tests in the same order,
 * and only rank 0 prints. */
#ifndef MBL_TESTS_RANKS_H
#define MBL_TESTS_RANKS_H

#include "support.h"

#include "comm/comm.h"

#include <stdio.h>

/* NULL when it cannot be opened. Close with mbl_comm_close. A test that fails on one rank leaves the others
 * waiting, so the deadline is short. */
static inline mbl_comm_t *open_ranks(void) {
    mbl_comm_t *comm;
    if (mbl_comm_open("auto", 60, &comm) != MBL_OK)
        return NULL;
    if (comm->rank > 0 && !freopen("/dev/null", "w", stdout))
        return NULL;
    return comm;
}

static inline int close_ranks(mbl_comm_t *comm, int failed) {
    mbl_comm_close(comm);
    return failed;
}

/* What main returns: the group `tests` with *comm open. */
#define RUN_ON_RANKS(comm, tests)                                                                            \
    ((*(comm) = open_ranks()) ? close_ranks(*(comm), cmocka_run_group_tests(tests, NULL, NULL)) : 1)

/* Whether `n` numbers have the same bits on every rank. Collective. */
static inline bool same_on_all_ranks(mbl_comm_t *comm, const double *values, size_t n) {
    double ends[2];
    for (size_t i = 0; i < n; i++) {
        ends[0] = values[i];
        ends[1] = -values[i];
        if (mbl_comm_allreduce(comm, ends, 2, MBL_COMM_F64, MBL_COMM_MAX) != MBL_OK || ends[0] != -ends[1])
            return false;
    }
    return true;
}

#endif
