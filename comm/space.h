/* The collectives on data in either memory space: handed to the transport as it is, or in parts through
 * memory of the transport's memory space. Private to comm. */
#ifndef MBL_COMM_SPACE_H
#define MBL_COMM_SPACE_H

#include "comm/comm.h"

mbl_status_t mbl_space_bcast(mbl_comm_t *comm, mbl_space_t space, void *data, size_t bytes, int root);
mbl_status_t mbl_space_allreduce(mbl_comm_t *comm, mbl_space_t space, void *data, size_t count,
                                 mbl_comm_type_t type, mbl_comm_op_t op);
mbl_status_t mbl_space_reduce_scatter(mbl_comm_t *comm, mbl_space_t space, const void *in, void *out,
                                      size_t count, mbl_comm_type_t type);
mbl_status_t mbl_space_allgather(mbl_comm_t *comm, mbl_space_t space, const void *in, void *out,
                                 size_t bytes);
/* The communicator that takes memory of this space: comm, or the one for devices beside it. */
mbl_comm_t *mbl_space_comm(mbl_comm_t *comm, mbl_space_t space);
/* Frees what was kept for that. Local. */
void mbl_space_release(mbl_comm_t *comm);

#endif
