/* Collectives on tensors: shapes, types and memory spaces checked, then as for plain memory; and the
 * transport for memory of a device beside one for the host. */
#include "base/mem.h"
#include "comm/list.h"
#include "comm/space.h"
#include "comm/record.h"

static mbl_status_t type_of(const char *what, const mbl_tensor_t *in, const mbl_tensor_t *out,
                            mbl_comm_type_t *type) {
    static const struct {
        mbl_dtype_t dtype;
        mbl_comm_type_t type;
    } known[] = {
        {MBL_F32, MBL_COMM_F32}, {MBL_F64, MBL_COMM_F64}, {MBL_I64, MBL_COMM_I64}, {MBL_U8, MBL_COMM_U8}};
    char from[MBL_TENSOR_TEXT], to[MBL_TENSOR_TEXT];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (in->ndim > 0 && out->ndim > 0 && in->dtype == known[i].dtype && out->dtype == in->dtype &&
            out->space == in->space && in->stride[in->ndim - 1] == 1 && out->stride[out->ndim - 1] == 1) {
            *type = known[i].type;
            return MBL_OK;
        }
    return MBL_FAIL(
        MBL_ERR_ARG,
        "comm: %s from %s to %s; expected contiguous tensors in one memory space, of one type that "
        "has sums",
        what, mbl_tensor_text(in, from), mbl_tensor_text(out, to));
}

/* Rows of a tensor of one or two dimensions, and elements of each. */
static size_t rows_of(const mbl_tensor_t *t) {
    return t->ndim == 2 ? t->dim[0] : 1;
}

static void *row(const mbl_tensor_t *t, size_t r) {
    return (char *)t->data + (t->ndim == 2 ? r * t->stride[0] * mbl_dtype_size(t->dtype) : 0);
}

/* `whole` has the rows of `part`, `size` times as long. */
static mbl_status_t lengths(const mbl_comm_t *comm, const char *what, const mbl_tensor_t *whole,
                            const mbl_tensor_t *part) {
    size_t n = part->dim[part->ndim - 1], all = 0;
    char from[MBL_TENSOR_TEXT], to[MBL_TENSOR_TEXT];
    MBL_REQUIRE(part->ndim <= 2 && part->ndim == whole->ndim && rows_of(whole) == rows_of(part) &&
                    mbl_mul(n, (size_t)comm->size, &all) && all == whole->dim[whole->ndim - 1],
                "comm: %s of %s and shards %s on %d ranks", what, mbl_tensor_text(whole, from),
                mbl_tensor_text(part, to), comm->size);
    return MBL_OK;
}

/* ---- devices ---- */

mbl_status_t mbl_comm_open_companion(mbl_comm_t *base, const mbl_comm_table_t *table, mbl_ops_t *ops,
                                     mbl_comm_t **out) {
    mbl_comm_t *comm = mbl_calloc(1, sizeof *comm);
    mbl_status_t status = comm ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for a communicator");
    MBL_TRY_GOTO(mbl_comm_agree(base, status), failed);
    comm->table = table;
    comm->base = base;
    comm->ops = ops;
    comm->rank = base->rank;
    comm->size = base->size;
    comm->failed_rank = -1;
    comm->local_rank = base->local_rank;
    comm->local_size = base->local_size;
    comm->host = base->host;
    comm->deadline_s = base->deadline_s;
    comm->chunk_bytes = base->chunk_bytes;
    MBL_TRY_GOTO(table->open(comm), failed);
    *out = comm;
    return MBL_OK;
failed:
    mbl_free(comm);
    return status;
}

/* NCCL where every rank can use it. */
static mbl_status_t open_device(mbl_comm_t *comm) {
    const char *why = "the device has no streams";
    int64_t usable = comm->ops->table->stream && mbl_comm_nccl.available(&why), all = usable;
    MBL_TRY(mbl_comm_allreduce(comm, &all, 1, MBL_COMM_I64, MBL_COMM_MIN));
    comm->why_staged = usable ? "another rank cannot use NCCL" : why;
    return all ? mbl_comm_open_companion(comm, &mbl_comm_nccl, comm->ops, &comm->device) : MBL_OK;
}

mbl_status_t mbl_comm_attach(mbl_comm_t *comm, mbl_ops_t *ops) {
    MBL_REQUIRE(comm, "comm: attach without a communicator");
    mbl_comm_close(comm->device);
    comm->device = NULL;
    mbl_space_release(comm);
    if (comm->base) /* a `device`: its backend stays until it is closed */
        return MBL_OK;
    comm->ops = ops;
    return ops && ops->table->space == MBL_DEVICE && comm->size > 1 ? open_device(comm) : MBL_OK;
}

/* ---- collectives ---- */

static mbl_status_t check_reduce_scatter(const mbl_comm_t *comm, const mbl_tensor_t *in,
                                         const mbl_tensor_t *out, mbl_comm_type_t *type) {
    MBL_REQUIRE(comm && in && out, "comm: reduce_scatter without a communicator or tensors");
    MBL_REQUIRE(!comm->pending, "comm: reduce_scatter while another has not been finished");
    MBL_TRY(type_of("reduce_scatter", in, out, type));
    return lengths(comm, "reduce_scatter", in, out);
}

static size_t payload(const mbl_tensor_t *t) {
    return mbl_tensor_count(t) * mbl_dtype_size(t->dtype);
}

/* Bytes from a row to the next one. */
static size_t step_of(const mbl_tensor_t *t) {
    return t->ndim == 2 ? t->stride[0] * mbl_dtype_size(t->dtype) : 0;
}

/* The communicator that can start a reduce_scatter of these rows; NULL: none. */
static mbl_comm_t *starter(mbl_comm_t *comm, const mbl_tensor_t *in) {
    mbl_comm_t *target = mbl_space_comm(comm, in->space);
    return target->table->space == in->space && target->table->reduce_scatter_start ? target : NULL;
}

static mbl_status_t start_rows(mbl_comm_t *target, const mbl_tensor_t *in, const mbl_tensor_t *out,
                               mbl_comm_type_t type) {
    return target->table->reduce_scatter_start(target, in->data, step_of(in), out->data, step_of(out),
                                               rows_of(in), out->dim[out->ndim - 1], type);
}

static mbl_status_t scatter_rows(mbl_comm_t *comm, const mbl_tensor_t *in, const mbl_tensor_t *out,
                                 mbl_comm_type_t type) {
    mbl_comm_t *target = starter(comm, in);
    if (target) {
        MBL_TRY(start_rows(target, in, out, type));
        return target->table->finish(target);
    }
    for (size_t r = 0; r < rows_of(in); r++)
        MBL_TRY(mbl_space_reduce_scatter(comm, in->space, row(in, r), row(out, r), out->dim[out->ndim - 1],
                                         type));
    return MBL_OK;
}

mbl_status_t mbl_comm_reduce_scatter_tensor(mbl_comm_t *comm, const mbl_tensor_t *in,
                                            const mbl_tensor_t *out) {
    mbl_comm_type_t type;
    MBL_TRY(check_reduce_scatter(comm, in, out, &type));
    mbl_comm_event_t *e = mbl_record_begin(comm, "reduce_scatter", in->space, type, payload(in));
    return mbl_record_end(comm, e, scatter_rows(comm, in, out, type));
}

mbl_status_t mbl_comm_reduce_scatter_begin(mbl_comm_t *comm, const mbl_tensor_t *in,
                                           const mbl_tensor_t *out) {
    mbl_comm_type_t type;
    MBL_TRY(check_reduce_scatter(comm, in, out, &type));
    mbl_comm_t *target = starter(comm, in);
    if (!target)
        return mbl_comm_reduce_scatter_tensor(comm, in, out);
    mbl_comm_event_t *e = mbl_record_begin(comm, "reduce_scatter", in->space, type, payload(in));
    const mbl_status_t status = start_rows(target, in, out, type);
    if (status != MBL_OK)
        return mbl_record_end(comm, e, status);
    comm->pending = e;
    comm->pending_on = target;
    return MBL_OK;
}

mbl_status_t mbl_comm_finish(mbl_comm_t *comm) {
    MBL_REQUIRE(comm, "comm: finish without a communicator");
    mbl_comm_event_t *e = comm->pending;
    if (!e)
        return MBL_OK;
    comm->pending = NULL;
    return mbl_record_end(comm, e, comm->pending_on->table->finish(comm->pending_on));
}

mbl_status_t mbl_comm_allgather_tensor(mbl_comm_t *comm, const mbl_tensor_t *in, const mbl_tensor_t *out) {
    mbl_comm_type_t type;
    MBL_REQUIRE(comm && in && out, "comm: allgather without a communicator or tensors");
    MBL_TRY(type_of("allgather", in, out, &type));
    MBL_REQUIRE(in->ndim == 1, "comm: allgather of %d dimensions", in->ndim);
    MBL_TRY(lengths(comm, "allgather", out, in));
    mbl_comm_event_t *e = mbl_record_begin(comm, "allgather", in->space, type, payload(in));
    return mbl_record_end(comm, e, mbl_space_allgather(comm, in->space, in->data, out->data, payload(in)));
}
