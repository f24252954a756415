/* Collectives on tensors, on the host and where the host cannot reach: whole, in small parts, in place; what
 * does not fit is refused.   ctest-ranks: 1 2 4   ctest-backends: cuda */
#include "ranks.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static mbl_comm_t *comm;

#define assert_ok(expr) assert_int_equal((expr), MBL_OK)
enum { GUARD = 5 };

/* Whole numbers, different on every rank and at every place: their sums are exact. */
static double value(int rank, size_t i) {
    return (double)((i * 7 + (size_t)rank * 13) % 11) - 3;
}

static double sum_of_values(size_t i) {
    double sum = 0;
    for (int r = 0; r < comm->size; r++)
        sum += value(r, i);
    return sum;
}

/* A vector of n elements with this rank's values and a few of 77 behind them, in the backend's memory space.
 */
static mbl_tensor_t vector(mbl_ops_t *ops, mbl_dtype_t dtype, size_t n) {
    mbl_tensor_t t;
    double *d = mbl_calloc(n + GUARD, sizeof *d);
    float *f = mbl_calloc(n + GUARD, sizeof *f);
    assert_true(d && f);
    for (size_t i = 0; i < n + GUARD; i++)
        f[i] = (float)(d[i] = i < n ? value(comm->rank, i) : 77);
    assert_ok(mbl_tensor_new(ops, dtype, &t, 1, n + GUARD));
    assert_ok(mbl_tensor_upload(ops, &t, dtype == MBL_F64 ? (void *)d : (void *)f));
    mbl_free(d);
    mbl_free(f);
    return t;
}

/* The first n elements are these of `want`, and what is behind them is untouched. */
static void expect(mbl_ops_t *ops, const mbl_tensor_t *t, const double *want, size_t n, const char *what) {
    double *d = mbl_calloc(n + GUARD, sizeof *d);
    assert_ok(mbl_tensor_download(ops, t, d));
    for (size_t i = n + GUARD; i-- > 0;) {
        double got = t->dtype == MBL_F64 ? d[i] : (double)((float *)(void *)d)[i];
        if (got != (i < n ? want[i] : 77))
            fail_msg("%s of %zu %s, rank %d of %d, at %zu: %g, want %g", what, n, mbl_dtype_name(t->dtype),
                     comm->rank, comm->size, i, got, i < n ? want[i] : 77);
    }
    mbl_free(d);
}

static void check_reduce_scatter(mbl_ops_t *ops, mbl_dtype_t dtype, size_t n, bool in_place) {
    size_t all = n * (size_t)comm->size, first = (size_t)comm->rank * n;
    mbl_tensor_t whole = vector(ops, dtype, all), part = vector(ops, dtype, n);
    mbl_tensor_t in = mbl_tensor_rows(&whole, 0, all), out = mbl_tensor_rows(&part, 0, n);
    double *want = mbl_calloc(all, sizeof *want);
    if (in_place)
        out = mbl_tensor_rows(&whole, first, n);
    assert_ok(mbl_comm_reduce_scatter_tensor(comm, &in, &out));
    for (size_t i = 0; i < all; i++) {
        bool own = i >= first && i < first + n;
        want[i] = in_place && own ? sum_of_values(i) : value(comm->rank, i);
    }
    expect(ops, &whole, want, all, "reduce_scatter's input");
    for (size_t i = 0; i < n; i++)
        want[i] = in_place ? value(comm->rank, i) : sum_of_values(first + i);
    expect(ops, &part, want, n, "reduce_scatter");
    mbl_free(want);
    mbl_tensor_free(ops, &whole);
    mbl_tensor_free(ops, &part);
}

static void check_allgather(mbl_ops_t *ops, mbl_dtype_t dtype, size_t n, bool in_place) {
    size_t all = n * (size_t)comm->size;
    mbl_tensor_t whole = vector(ops, dtype, all), part = vector(ops, dtype, n);
    mbl_tensor_t in = mbl_tensor_rows(&part, 0, n), out = mbl_tensor_rows(&whole, 0, all);
    double *want = mbl_calloc(all, sizeof *want);
    if (in_place)
        in = mbl_tensor_rows(&whole, (size_t)comm->rank * n, n);
    assert_ok(mbl_comm_allgather_tensor(comm, &in, &out));
    for (size_t i = 0; i < all; i++)
        want[i] = value((int)(i / n), in_place ? i : i % n);
    expect(ops, &whole, want, all, "allgather");
    mbl_free(want);
    mbl_tensor_free(ops, &whole);
    mbl_tensor_free(ops, &part);
}

/* The backends to try: the one the environment names, or those of every build. */
static size_t backends(const char **names) {
    names[0] = getenv("MARBLE_TEST_BACKEND");
    if (names[0])
        return 1;
    names[0] = "cpu";
    names[1] = "fake";
    return 2;
}

static void sums_and_gathers(void **state) {
    static const size_t lengths[] = {1, 3, 16, 1001, 40007};
    const char *names[2];
    (void)state;
    for (size_t b = 0, n = backends(names); b < n; b++) {
        mbl_ops_t *ops;
        size_t live = mbl_mem_live(), usual = comm->chunk_bytes;
        assert_ok(mbl_ops_open(names[b], 1, &ops));
        assert_ok(mbl_comm_attach(comm, ops));
        for (int c = 0; c < 2; c++) {
            comm->chunk_bytes = c ? 1000 : usual; /* in parts */
            for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
                for (int in_place = 0; in_place < 2; in_place++) {
                    check_reduce_scatter(ops, MBL_F64, lengths[k], in_place);
                    check_reduce_scatter(ops, MBL_F32, lengths[k], in_place);
                    check_allgather(ops, MBL_F32, lengths[k], in_place);
                    check_allgather(ops, MBL_F64, lengths[k], in_place);
                }
        }
        comm->chunk_bytes = usual;
        assert_ok(mbl_comm_attach(comm, NULL));
        mbl_ops_close(ops);
        assert_int_equal(mbl_mem_live(), live);
    }
}

/* Rows with gaps between them, each by itself, at once and begun before it is waited for. */
static void rows_are_summed_each(void **state) {
    enum { ROWS = 5, N = 3 };
    const size_t all = N * (size_t)comm->size, first = N * (size_t)comm->rank;
    const char *names[2];
    double *from = mbl_calloc(ROWS * (all + GUARD), sizeof *from), to[ROWS * (N + GUARD)];
    (void)state;
    assert_non_null(from);
    for (size_t i = 0; i < ROWS * (all + GUARD); i++)
        from[i] = value(comm->rank, i);
    for (size_t b = 0, n = backends(names); b < n; b++)
        for (int begun = 0; begun < 2; begun++) {
            mbl_ops_t *ops;
            mbl_tensor_t whole, part;
            assert_ok(mbl_ops_open(names[b], 1, &ops));
            assert_ok(mbl_comm_attach(comm, ops));
            assert_ok(mbl_tensor_new(ops, MBL_F64, &whole, 2, (size_t)ROWS, all + GUARD));
            assert_ok(mbl_tensor_new(ops, MBL_F64, &part, 2, (size_t)ROWS, (size_t)(N + GUARD)));
            assert_ok(mbl_tensor_upload(ops, &whole, from));
            const mbl_tensor_t in = mbl_tensor_columns(&whole, 0, all), out = mbl_tensor_columns(&part, 0, N);
            assert_ok(begun ? mbl_comm_reduce_scatter_begin(comm, &in, &out)
                            : mbl_comm_reduce_scatter_tensor(comm, &in, &out));
            assert_ok(mbl_comm_finish(comm));
            assert_ok(mbl_tensor_download(ops, &part, to));
            for (size_t r = 0; r < ROWS; r++)
                for (size_t i = 0; i < N + GUARD; i++)
                    assert_true(to[r * (N + GUARD) + i] ==
                                (i < N ? sum_of_values(r * (all + GUARD) + first + i) : 0));
            mbl_tensor_free(ops, &whole);
            mbl_tensor_free(ops, &part);
            assert_ok(mbl_comm_attach(comm, NULL));
            mbl_ops_close(ops);
        }
    mbl_free(from);
}

/* Payload counts once, however it travels. */
static void bytes_are_counted(void **state) {
    const char *names[2];
    (void)state;
    for (size_t b = 0, n = backends(names); b < n; b++) {
        mbl_ops_t *ops;
        assert_ok(mbl_ops_open(names[b], 1, &ops));
        assert_ok(mbl_comm_attach(comm, ops));
        uint64_t before = comm->bytes;
        check_reduce_scatter(ops, MBL_F64, 100, false);
        check_allgather(ops, MBL_F32, 100, false);
        assert_int_equal(comm->bytes - before, 800 * (size_t)comm->size + 400);
        assert_ok(mbl_comm_attach(comm, NULL));
        mbl_ops_close(ops);
    }
}

static void what_does_not_fit_is_refused(void **state) {
    mbl_ops_t *ops;
    float host[64] = {0};
    (void)state;
    size_t size = (size_t)comm->size;
    assert_ok(mbl_ops_open("fake", 1, &ops));
    mbl_tensor_t t = vector(ops, MBL_F32, 8 * size), here = MBL_TENSOR_1(host, MBL_F32, 8), shard, whole,
                 half;
    whole = mbl_tensor_rows(&t, 0, 8 * size);
    shard = mbl_tensor_rows(&t, 0, 8);
    half = mbl_tensor_rows(&t, 0, 4);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_comm_reduce_scatter_tensor(comm, &whole, &half), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_allgather_tensor(comm, &half, &whole), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_reduce_scatter_tensor(comm, &whole, &here), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_reduce_scatter_tensor(comm, NULL, &here), MBL_ERR_ARG);
    here.dtype = MBL_BF16;
    assert_int_equal(mbl_comm_allgather_tensor(comm, &here, &here), MBL_ERR_ARG);
    if (comm->size > 1) { /* nobody attached the backend */
        assert_int_equal(mbl_comm_allgather_tensor(comm, &shard, &whole), MBL_ERR_ARG);
        assert_non_null(strstr(mbl_fail_message(), "no backend was attached"));
    }
    mbl_fail_quiet(0);
    mbl_tensor_free(ops, &t);
    mbl_ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_gathers), cmocka_unit_test(rows_are_summed_each),
        cmocka_unit_test(bytes_are_counted), cmocka_unit_test(what_does_not_fit_is_refused)};
    return RUN_ON_RANKS(&comm, tests);
}
