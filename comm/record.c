/* The flight record. */
#include "comm/record.h"
#include "base/clock.h"
#include "base/log.h"

static mbl_comm_event_t *event(mbl_comm_t *comm, uint64_t number) {
    return &comm->record[number % MBL_COMM_RECORD];
}

mbl_comm_event_t *mbl_record_begin(mbl_comm_t *comm, const char *op, mbl_space_t space, mbl_comm_type_t type,
                                   size_t bytes) {
    mbl_comm_event_t *e = event(comm, comm->calls++);
    *e = (mbl_comm_event_t){.op = op,
                            .type = type,
                            .space = space,
                            .bytes = bytes,
                            .step = comm->step,
                            .start = mbl_now(),
                            .state = MBL_COMM_WAITS};
    return e;
}

static const char *type_name(mbl_comm_type_t type) {
    static const char *const names[] = {"f32", "f64", "u8", "i64"};
    return (unsigned)type <= MBL_COMM_I64 ? names[type] : "?";
}

/* One line an event, oldest first. */
static void print(mbl_comm_t *comm) {
    static const char *const states[] = {"waits", "done", "failed"};
    uint64_t first = comm->calls > MBL_COMM_RECORD ? comm->calls - MBL_COMM_RECORD : 0;
    MBL_WARN("the last %d of %llu collectives of rank %d over %s:", (int)(comm->calls - first),
             (unsigned long long)comm->calls, comm->rank, comm->device ? "mpi and nccl" : comm->table->name);
    for (uint64_t i = first; i < comm->calls; i++) {
        const mbl_comm_event_t *e = event(comm, i);
        MBL_WARN("  #%llu step %llu %s of %zu bytes (%s, %s) %s, %.3f s", (unsigned long long)i + 1,
                 (unsigned long long)e->step, e->op, e->bytes, type_name(e->type),
                 e->space == MBL_HOST ? "host" : "device", states[e->state],
                 e->state == MBL_COMM_WAITS ? mbl_now() - e->start : e->seconds);
    }
}

mbl_status_t mbl_record_end(mbl_comm_t *comm, mbl_comm_event_t *e, mbl_status_t status) {
    e->seconds = mbl_now() - e->start;
    e->state = status == MBL_OK ? MBL_COMM_DONE : MBL_COMM_FAILED;
    comm->seconds += e->seconds;
    if (status == MBL_OK)
        comm->bytes += e->bytes;
    if ((status == MBL_ERR_COMM || status == MBL_ERR_DEADLINE) && !comm->reported) {
        comm->reported = true;
        print(comm);
    }
    return status;
}
