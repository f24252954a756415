/* The flight record: the last collectives of a rank with their state. Private to comm. */
#ifndef MBL_COMM_RECORD_H
#define MBL_COMM_RECORD_H

#include "comm/comm.h"

/* Notes that a collective begins; `space` is its data's. The event is valid until as many others began as the
 * record holds. */
mbl_comm_event_t *mbl_record_begin(mbl_comm_t *comm, const char *op, mbl_space_t space, mbl_comm_type_t type,
                                   size_t bytes);
/* Notes how it ended: adds its time and, where it worked, its bytes. Prints the record at the first that a
 * peer or the network spoiled. Returns the status. */
mbl_status_t mbl_record_end(mbl_comm_t *comm, mbl_comm_event_t *event, mbl_status_t status);

#endif
