/* Collectives on tensors: shapes, types and places checked, then as for plain memory. */
#include "base/clock.h"
#include "base/mem.h"
#include "comm/place.h"

static mbl_status_t type_of(const char *what, const mbl_tensor_t *in, const mbl_tensor_t *out,
                            mbl_comm_type_t *type) {
    static const struct {
        mbl_dtype_t dtype;
        mbl_comm_type_t type;
    } known[] = {
        {MBL_F32, MBL_COMM_F32}, {MBL_F64, MBL_COMM_F64}, {MBL_I64, MBL_COMM_I64}, {MBL_U8, MBL_COMM_U8}};
    char from[MBL_TENSOR_TEXT], to[MBL_TENSOR_TEXT];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (in->dtype == known[i].dtype && out->dtype == in->dtype && out->place == in->place &&
            mbl_tensor_contiguous(in) && mbl_tensor_contiguous(out)) {
            *type = known[i].type;
            return MBL_OK;
        }
    return MBL_FAIL(
        MBL_ERR_ARG,
        "comm: %s from %s to %s; right would be contiguous tensors in one place, of one type that "
        "has sums",
        what, mbl_tensor_text(in, from), mbl_tensor_text(out, to));
}

/* `whole` is `size` times as long as `part`. */
static mbl_status_t lengths(const mbl_comm_t *comm, const char *what, const mbl_tensor_t *whole,
                            const mbl_tensor_t *part) {
    size_t n = mbl_tensor_count(part), all = 0;
    MBL_REQUIRE(mbl_mul(n, (size_t)comm->size, &all) && all == mbl_tensor_count(whole),
                "comm: %s of %zu elements and shards of %zu on %d ranks", what, mbl_tensor_count(whole), n,
                comm->size);
    return MBL_OK;
}

mbl_status_t mbl_comm_attach(mbl_comm_t *comm, mbl_ops_t *ops) {
    MBL_REQUIRE(comm, "comm: attach without a communicator");
    mbl_place_release(comm);
    comm->ops = ops;
    return MBL_OK;
}

mbl_status_t mbl_comm_reduce_scatter_tensor(mbl_comm_t *comm, const mbl_tensor_t *in,
                                            const mbl_tensor_t *out) {
    mbl_comm_type_t type;
    MBL_REQUIRE(comm && in && out, "comm: reduce_scatter without a communicator or tensors");
    MBL_TRY(type_of("reduce_scatter", in, out, &type));
    MBL_TRY(lengths(comm, "reduce_scatter", in, out));
    size_t count = mbl_tensor_count(out);
    double start = mbl_now();
    mbl_status_t status = mbl_place_reduce_scatter(comm, in->place, in->data, out->data, count, type);
    return mbl_comm_account(comm, start, mbl_tensor_count(in) * mbl_comm_type_size(type), status);
}

mbl_status_t mbl_comm_allgather_tensor(mbl_comm_t *comm, const mbl_tensor_t *in, const mbl_tensor_t *out) {
    mbl_comm_type_t type;
    MBL_REQUIRE(comm && in && out, "comm: allgather without a communicator or tensors");
    MBL_TRY(type_of("allgather", in, out, &type));
    MBL_TRY(lengths(comm, "allgather", out, in));
    size_t bytes = mbl_tensor_count(in) * mbl_comm_type_size(type);
    double start = mbl_now();
    mbl_status_t status = mbl_place_allgather(comm, in->place, in->data, out->data, bytes);
    return mbl_comm_account(comm, start, bytes, status);
}
