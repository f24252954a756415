/* The collectives on data in either place: handed to the transport as it is, or in parts through memory of
 * the transport's place. Private to comm. */
#ifndef MBL_COMM_PLACE_H
#define MBL_COMM_PLACE_H

#include "comm/comm.h"

mbl_status_t mbl_place_bcast(mbl_comm_t *comm, mbl_place_t place, void *data, size_t bytes, int root);
mbl_status_t mbl_place_allreduce(mbl_comm_t *comm, mbl_place_t place, void *data, size_t count,
                                 mbl_comm_type_t type, mbl_comm_op_t op);
mbl_status_t mbl_place_reduce_scatter(mbl_comm_t *comm, mbl_place_t place, const void *in, void *out,
                                      size_t count, mbl_comm_type_t type);
mbl_status_t mbl_place_allgather(mbl_comm_t *comm, mbl_place_t place, const void *in, void *out,
                                 size_t bytes);
/* The communicator that takes memory of this place: comm, or the one for devices beside it. */
mbl_comm_t *mbl_place_carrier(mbl_comm_t *comm, mbl_place_t place);
/* Frees what was kept for that. Local. */
void mbl_place_release(mbl_comm_t *comm);

#endif
