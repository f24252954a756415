/* The public face of the communicator: choosing a transport, and wrappers that check arguments, time the call
 * and count bytes, so that the transports do not have to. */
#include "comm/comm.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/list.h"
#include "comm/space.h"
#include "comm/record.h"

#include <string.h>

enum { CHUNK_BYTES = 64 << 20 };

size_t mbl_comm_type_size(mbl_comm_type_t type) {
    switch (type) {
    case MBL_COMM_F32:
        return 4;
    case MBL_COMM_F64:
    case MBL_COMM_I64:
        return 8;
    case MBL_COMM_U8:
        break;
    }
    return 1;
}

/* The table called `name`, with "auto" resolved from how this process was launched. */
static mbl_status_t find_table(const char *name, const mbl_comm_table_t **out) {
    static const mbl_comm_table_t *const tables[] = {
#define TABLE(name) &mbl_comm_##name,
        MBL_COMM_LIST(TABLE)
#undef TABLE
    };
    bool can_join;
    int launched = mbl_comm_launched(NULL, &can_join);
    if (!strcmp(name, "auto")) {
        if (!can_join)
            return MBL_FAIL(
                MBL_ERR_COMM,
                "srun started %d tasks but gave them no way to find each other: use srun --mpi=pmix "
                "(srun --mpi=list shows what this cluster has), or mpirun",
                launched);
        name = launched > 1 ? "mpi" : "self";
    }
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (strcmp(tables[i]->name, name) != 0)
            continue;
        const char *why_not = "";
        if (!tables[i]->available(&why_not))
            return MBL_FAIL(MBL_ERR_UNSUPPORTED, "comm: %s cannot be used: %s", name, why_not);
        *out = tables[i];
        return MBL_OK;
    }
    return MBL_FAIL(MBL_ERR_ARG, "comm: no transport is called \"%s\"; there are auto, self and mpi", name);
}

mbl_status_t mbl_comm_open(const char *name, double deadline_s, mbl_comm_t **out) {
    MBL_REQUIRE(name && out, "comm: open needs a name and a place for the result");
    MBL_REQUIRE(deadline_s >= 0 && deadline_s < 1e9, "comm: a deadline of %g s; expected 0 (none) or more",
                deadline_s);
    const mbl_comm_table_t *table = NULL;
    MBL_TRY(find_table(name, &table));
    mbl_comm_t *comm;
    MBL_ALLOC(comm, 1);
    comm->table = table;
    comm->failed_rank = -1;
    comm->deadline_s = deadline_s;
    comm->chunk_bytes = CHUNK_BYTES;
    mbl_status_t status = table->open(comm);
    if (status != MBL_OK) {
        mbl_free(comm);
        return status;
    }
    *out = comm;
    return MBL_OK;
}

void mbl_comm_close(mbl_comm_t *comm) {
    if (!comm)
        return;
    (void)mbl_comm_attach(comm, NULL);
    comm->table->close(comm);
    mbl_free(comm);
}

/* count elements of `type` in bytes, for `blocks` blocks of them; an error when that is no size. */
static mbl_status_t payload(const char *what, size_t count, mbl_comm_type_t type, int blocks, size_t *bytes) {
    MBL_REQUIRE((unsigned)type <= MBL_COMM_I64, "comm: %s of unknown type %d", what, (int)type);
    size_t total = 0;
    if (!mbl_mul(count, mbl_comm_type_size(type), &total) || !mbl_mul(total, (size_t)blocks, &total))
        return MBL_FAIL(MBL_ERR_ARG, "comm: %s of %zu elements on %d ranks overflows", what, count, blocks);
    *bytes = total;
    return MBL_OK;
}

mbl_status_t mbl_comm_barrier(mbl_comm_t *comm) {
    MBL_REQUIRE(comm, "comm: barrier without a communicator");
    mbl_comm_event_t *e = mbl_record_begin(comm, "barrier", MBL_HOST, MBL_COMM_U8, 0);
    return mbl_record_end(comm, e, comm->table->barrier(comm));
}

mbl_status_t mbl_comm_bcast(mbl_comm_t *comm, void *data, size_t bytes, int root) {
    MBL_REQUIRE(comm && (data || !bytes), "comm: bcast without a communicator or data");
    MBL_REQUIRE(root >= 0 && root < comm->size, "comm: bcast from rank %d; expected 0 to %d", root,
                comm->size - 1);
    if (!bytes)
        return MBL_OK;
    mbl_comm_event_t *e =
        mbl_record_begin(comm, "bcast", MBL_HOST, MBL_COMM_U8, comm->rank == root ? bytes : 0);
    return mbl_record_end(comm, e, mbl_space_bcast(comm, MBL_HOST, data, bytes, root));
}

mbl_status_t mbl_comm_allreduce(mbl_comm_t *comm, void *data, size_t count, mbl_comm_type_t type,
                                mbl_comm_op_t op) {
    MBL_REQUIRE(comm && (data || !count), "comm: allreduce without a communicator or data");
    MBL_REQUIRE((unsigned)op <= MBL_COMM_MIN, "comm: allreduce with unknown operation %d", (int)op);
    size_t bytes = 0;
    MBL_TRY(payload("allreduce", count, type, 1, &bytes));
    if (!count)
        return MBL_OK;
    mbl_comm_event_t *e = mbl_record_begin(comm, "allreduce", MBL_HOST, type, bytes);
    return mbl_record_end(comm, e, mbl_space_allreduce(comm, MBL_HOST, data, count, type, op));
}

mbl_status_t mbl_comm_reduce_scatter(mbl_comm_t *comm, const void *in, void *out, size_t count,
                                     mbl_comm_type_t type) {
    MBL_REQUIRE(comm && ((in && out) || !count), "comm: reduce_scatter without a communicator or data");
    size_t bytes = 0;
    MBL_TRY(payload("reduce_scatter", count, type, comm->size, &bytes));
    if (!count)
        return MBL_OK;
    mbl_comm_event_t *e = mbl_record_begin(comm, "reduce_scatter", MBL_HOST, type, bytes);
    return mbl_record_end(comm, e, mbl_space_reduce_scatter(comm, MBL_HOST, in, out, count, type));
}

mbl_status_t mbl_comm_allgather(mbl_comm_t *comm, const void *in, void *out, size_t bytes) {
    MBL_REQUIRE(comm && ((in && out) || !bytes), "comm: allgather without a communicator or data");
    size_t total = 0;
    MBL_TRY(payload("allgather", bytes, MBL_COMM_U8, comm->size, &total));
    if (!bytes)
        return MBL_OK;
    mbl_comm_event_t *e = mbl_record_begin(comm, "allgather", MBL_HOST, MBL_COMM_U8, bytes);
    return mbl_record_end(comm, e, mbl_space_allgather(comm, MBL_HOST, in, out, bytes));
}

mbl_status_t mbl_comm_poll_error(mbl_comm_t *comm) {
    MBL_REQUIRE(comm, "comm: poll_error without a communicator");
    MBL_TRY(comm->table->poll_error(comm));
    return comm->device ? comm->device->table->poll_error(comm->device) : MBL_OK;
}

void mbl_comm_abort(mbl_comm_t *comm, int exit_code) {
    if (comm)
        comm->table->abort(comm, exit_code);
}

mbl_status_t mbl_comm_agree(mbl_comm_t *comm, mbl_status_t mine) {
    MBL_REQUIRE(comm, "comm: agree without a communicator");
    /* Stopping on request must not hide a real failure of another rank, so it ranks lowest. */
    int64_t gravity = mine == MBL_OK ? 0 : mine == MBL_ERR_STOPPED ? 1 : (int64_t)mine + 1;
    int64_t word = gravity << 32 | (INT32_MAX - comm->rank);
    MBL_TRY(mbl_comm_allreduce(comm, &word, 1, MBL_COMM_I64, MBL_COMM_MAX));
    gravity = word >> 32;
    int first = INT32_MAX - (int)(word & INT32_MAX);
    mbl_status_t all = gravity == 0 ? MBL_OK : gravity == 1 ? MBL_ERR_STOPPED : (mbl_status_t)(gravity - 1);
    comm->agreed = all;
    if (gravity > 1)
        comm->failed_rank = first;
    if (mine == MBL_OK && all != MBL_OK && all != MBL_ERR_STOPPED) {
        mbl_fail_quiet(1); /* the rank that failed logs why */
        MBL_FAIL(all, "rank %d failed: %s", first, mbl_status_text(all));
        mbl_fail_quiet(0);
    } else if (mine != MBL_OK && (mine != all || comm->rank == first)) {
        mbl_fail_show();
    }
    return all;
}

mbl_status_t mbl_comm_same(mbl_comm_t *comm, const uint64_t *values, size_t n, bool *same) {
    int64_t ends[2 * MBL_COMM_SAME]; /* largest of the values, and of their negatives */
    MBL_REQUIRE(n <= MBL_COMM_SAME, "comm: %zu values to compare; at most %d", n, MBL_COMM_SAME);
    for (size_t i = 0; i < n; i++) {
        ends[2 * i] = (int64_t)(values[i] >> 1); /* 63 bits: the negative exists */
        ends[2 * i + 1] = -ends[2 * i];
    }
    MBL_TRY(mbl_comm_allreduce(comm, ends, 2 * n, MBL_COMM_I64, MBL_COMM_MAX));
    *same = true;
    for (size_t i = 0; i < n; i++)
        *same &= ends[2 * i] == -ends[2 * i + 1];
    return MBL_OK;
}

mbl_status_t mbl_comm_settle(mbl_comm_t *comm, mbl_status_t mine) {
    MBL_REQUIRE(comm, "comm: settle without a communicator");
    if (mine == MBL_OK || mine == comm->agreed || comm->size == 1)
        return mine;
    mbl_fail_show();
    MBL_ERROR("rank %d ends alone: %s; the job ends with it", comm->rank, mbl_status_text(mine));
    mbl_comm_abort(comm, mbl_status_exit_code(mine));
    return mine;
}

mbl_status_t mbl_comm_second(mbl_comm_t *comm, const void **native) {
    MBL_REQUIRE(comm && native, "comm: a second communicator without a first");
    mbl_fail_quiet(1);
    mbl_status_t status = comm->table->second
                              ? comm->table->second(comm, native)
                              : MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s has one rank only", comm->table->name);
    mbl_fail_quiet(0);
    return status;
}

size_t mbl_shard_count(size_t n, int size) {
    size_t ranks = size > 1 ? (size_t)size : 1;
    size_t count = n / ranks + (n % ranks != 0);
    size_t rest = count % 16;
    return rest ? count + (16 - rest) : count;
}

void mbl_shard_range(size_t n, int size, int rank, size_t *first, size_t *last) {
    size_t count = mbl_shard_count(n, size);
    size_t before = (size_t)rank;
    /* rank * count may pass n (padding), and for huge n even SIZE_MAX */
    *first = count == 0 || before > n / count ? n : before * count;
    *last = n - *first < count ? n : *first + count;
}
