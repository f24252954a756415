/* Collectives on data that does not lie where the transport takes it: part by part into a buffer that does,
 * the collective there, and back. Parts are as long on every rank, and each element's sum does not depend on
 * them. */
#include "comm/space.h"
#include "base/log.h"

typedef unsigned char byte_t;

/* Whether the transport takes the data as it lies. A single rank has nothing to exchange: its data is only
 * copied, see alone(). */
static bool direct(const mbl_comm_t *comm, mbl_space_t space) {
    return space == comm->table->space;
}

static bool alone(const mbl_comm_t *comm) {
    return comm->size == 1 && comm->table->space == MBL_HOST;
}

mbl_comm_t *mbl_space_comm(mbl_comm_t *comm, mbl_space_t space) {
    return space == MBL_DEVICE && comm->device ? comm->device : comm;
}

static mbl_status_t attached(const mbl_comm_t *comm) {
    MBL_REQUIRE(comm->ops,
                "comm: %s takes memory on the %s only, and no backend was attached to move it there",
                comm->table->name, comm->table->space == MBL_HOST ? "host" : "device");
    return MBL_OK;
}

static mbl_status_t copy(mbl_comm_t *comm, void *dst, mbl_space_t to, const void *src, mbl_space_t from,
                         size_t bytes) {
    MBL_TRY(attached(comm));
    return dst == src ? MBL_OK : comm->ops->table->copy(comm->ops, dst, to, src, from, bytes);
}

void mbl_space_release(mbl_comm_t *comm) {
    if (comm->stage && comm->table->space == MBL_HOST)
        mbl_host_free(comm->ops, comm->stage);
    else if (comm->stage)
        comm->ops->table->free(comm->ops, comm->stage);
    comm->stage = NULL;
    comm->stage_bytes = 0;
}

/* Room for parts of at most chunk_bytes of `blocks` blocks of `count` elements each; *n elements of every
 * block fit at once. */
static mbl_status_t room(mbl_comm_t *comm, size_t blocks, size_t count, size_t size, size_t *n) {
    size_t most = comm->chunk_bytes / size / blocks, fit = count < most ? count : most > 0 ? most : 1;
    MBL_TRY(attached(comm));
    *n = fit;
    if (fit * blocks * size <= comm->stage_bytes)
        return MBL_OK;
    if (!comm->stage && comm->rank == 0 && comm->table->space == MBL_HOST)
        MBL_INFO("%s moves device memory between ranks through the host%s%s", comm->table->name,
                 comm->why_staged ? ": " : "", comm->why_staged ? comm->why_staged : "");
    mbl_space_release(comm);
    MBL_TRY(comm->table->space == MBL_HOST
                ? mbl_host_new(comm->ops, fit * blocks * size, &comm->stage)
                : comm->ops->table->alloc(comm->ops, fit * blocks * size, &comm->stage));
    comm->stage_bytes = fit * blocks * size;
    return MBL_OK;
}

mbl_status_t mbl_space_bcast(mbl_comm_t *comm, mbl_space_t space, void *data, size_t bytes, int root) {
    comm = mbl_space_comm(comm, space);
    const mbl_comm_table_t *table = comm->table;
    size_t n;
    if (direct(comm, space))
        return table->bcast(comm, data, bytes, root);
    if (alone(comm))
        return MBL_OK;
    MBL_TRY(room(comm, 1, bytes, 1, &n));
    for (size_t first = 0, m; first < bytes; first += m) {
        byte_t *at = (byte_t *)data + first;
        m = bytes - first < n ? bytes - first : n;
        if (comm->rank == root)
            MBL_TRY(copy(comm, comm->stage, table->space, at, space, m));
        MBL_TRY(table->bcast(comm, comm->stage, m, root));
        if (comm->rank != root)
            MBL_TRY(copy(comm, at, space, comm->stage, table->space, m));
    }
    return MBL_OK;
}

mbl_status_t mbl_space_allreduce(mbl_comm_t *comm, mbl_space_t space, void *data, size_t count,
                                 mbl_comm_type_t type, mbl_comm_op_t op) {
    comm = mbl_space_comm(comm, space);
    const mbl_comm_table_t *table = comm->table;
    size_t n, size = mbl_comm_type_size(type);
    if (direct(comm, space))
        return table->allreduce(comm, data, count, type, op);
    if (alone(comm))
        return MBL_OK;
    MBL_TRY(room(comm, 1, count, size, &n));
    for (size_t first = 0, m; first < count; first += m) {
        byte_t *at = (byte_t *)data + first * size;
        m = count - first < n ? count - first : n;
        MBL_TRY(copy(comm, comm->stage, table->space, at, space, m * size));
        MBL_TRY(table->allreduce(comm, comm->stage, m, type, op));
        MBL_TRY(copy(comm, at, space, comm->stage, table->space, m * size));
    }
    return MBL_OK;
}

mbl_status_t mbl_space_reduce_scatter(mbl_comm_t *comm, mbl_space_t space, const void *in, void *out,
                                      size_t count, mbl_comm_type_t type) {
    comm = mbl_space_comm(comm, space);
    const mbl_comm_table_t *table = comm->table;
    size_t n, size = mbl_comm_type_size(type), ranks = (size_t)comm->size;
    if (direct(comm, space))
        return table->reduce_scatter(comm, in, out, count, type);
    if (alone(comm))
        return copy(comm, out, space, in, space, count * size);
    MBL_TRY(room(comm, ranks, count, size, &n));
    for (size_t first = 0, m; first < count; first += m) {
        m = count - first < n ? count - first : n;
        byte_t *stage = comm->stage, *own = stage + (size_t)comm->rank * m * size;
        for (size_t r = 0; r < ranks; r++)
            MBL_TRY(copy(comm, stage + r * m * size, table->space,
                         (const byte_t *)in + (r * count + first) * size, space, m * size));
        MBL_TRY(table->reduce_scatter(comm, stage, own, m, type));
        MBL_TRY(copy(comm, (byte_t *)out + first * size, space, own, table->space, m * size));
    }
    return MBL_OK;
}

mbl_status_t mbl_space_allgather(mbl_comm_t *comm, mbl_space_t space, const void *in, void *out,
                                 size_t bytes) {
    comm = mbl_space_comm(comm, space);
    const mbl_comm_table_t *table = comm->table;
    size_t n, ranks = (size_t)comm->size;
    if (direct(comm, space))
        return table->allgather(comm, in, out, bytes);
    if (alone(comm))
        return copy(comm, out, space, in, space, bytes);
    MBL_TRY(room(comm, ranks, bytes, 1, &n));
    for (size_t first = 0, m; first < bytes; first += m) {
        m = bytes - first < n ? bytes - first : n;
        byte_t *stage = comm->stage, *own = stage + (size_t)comm->rank * m;
        MBL_TRY(copy(comm, own, table->space, (const byte_t *)in + first, space, m));
        MBL_TRY(table->allgather(comm, own, stage, m));
        for (size_t r = 0; r < ranks; r++)
            MBL_TRY(copy(comm, (byte_t *)out + r * bytes + first, space, stage + r * m, table->space, m));
    }
    return MBL_OK;
}
