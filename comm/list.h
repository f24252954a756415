/* The one list of transports. A new one is a file that defines `mbl_comm_NAME` and a line here. */
#ifndef MBL_COMM_LIST_H
#define MBL_COMM_LIST_H

#include "comm/comm.h"

#define MBL_COMM_LIST(X)                                                                                     \
    X(self)                                                                                                  \
    X(mpi)

#define MBL_COMM_DECLARE(name) extern const mbl_comm_table_t mbl_comm_##name;
MBL_COMM_LIST(MBL_COMM_DECLARE)
#undef MBL_COMM_DECLARE

/* For memory of a device, opened beside one of them; `available` says whether this build has it. */
extern const mbl_comm_table_t mbl_comm_nccl;

#endif
