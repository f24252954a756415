/* comm: one conformance body for every transport, deadlines, launch detection, shard arithmetic. Every rank
 * runs the same tests in the same order. With MARBLE_TEST_BACKEND the transport for that device's memory too,
 * which the bodies' host memory passes through the device for.   ctest-ranks: 1 2 4   ctest-backends: cuda */
#include "support.h"
#include "base/clock.h"
#include "base/mem.h"
#include "comm/list.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    mbl_comm_t *self, *mpi; /* mpi is NULL when nobody launched us */
    mbl_comm_t *nccl;       /* beside mpi; NULL without a device */
    mbl_ops_t *ops;         /* the device */
} transports_t;

/* Runs a body on every transport; what it allocates must be gone afterwards. */
#define ON_EVERY_TRANSPORT(body)                                                                             \
    static void body(void **state) {                                                                         \
        transports_t *all = *state;                                                                          \
        size_t live = mbl_mem_live();                                                                        \
        body##_on(all->self);                                                                                \
        if (all->mpi)                                                                                        \
            body##_on(all->mpi);                                                                             \
        if (all->nccl)                                                                                       \
            body##_on(all->nccl);                                                                            \
        assert_int_equal(mbl_mem_live(), live);                                                              \
    }

#define assert_ok(expr) assert_int_equal((expr), MBL_OK)

static const size_t sizes[] = {0, 1, 2, 3, 15, 17, 1000, 1001, 40001, 300007};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

/* Small whole numbers, different on every rank and at every place: their sums are exact in every type. */
static int value(int rank, size_t i) {
    return (int)((i * 7 + (size_t)rank * 13) % 11) - 3;
}

static double sum_of_values(int size, size_t i) {
    double sum = 0;
    for (int r = 0; r < size; r++)
        sum += value(r, i);
    return sum;
}

static void allreduce_sums_on(mbl_comm_t *comm) {
    for (int k = 0; k < N_SIZES; k++) {
        size_t n = sizes[k];
        float *f = mbl_calloc(n + 1, sizeof *f);
        double *d = mbl_calloc(n + 1, sizeof *d);
        int64_t *i64 = mbl_calloc(n + 1, sizeof *i64);
        for (size_t i = 0; i < n; i++)
            d[i] = f[i] = (float)(i64[i] = value(comm->rank, i));
        f[n] = 77, d[n] = 77, i64[n] = 77; /* nothing is written behind the end */
        assert_ok(mbl_comm_allreduce(comm, f, n, MBL_COMM_F32, MBL_COMM_SUM));
        assert_ok(mbl_comm_allreduce(comm, d, n, MBL_COMM_F64, MBL_COMM_SUM));
        assert_ok(mbl_comm_allreduce(comm, i64, n, MBL_COMM_I64, MBL_COMM_SUM));
        for (size_t i = 0; i < n; i++) {
            double want = sum_of_values(comm->size, i);
            if (f[i] != (float)want || d[i] != want || (double)i64[i] != want)
                fail_msg("n %zu, at %zu: %g %g %lld, want %g", n, i, (double)f[i], d[i], (long long)i64[i],
                         want);
        }
        assert_true(f[n] == 77 && d[n] == 77 && i64[n] == 77);
        mbl_free(f), mbl_free(d), mbl_free(i64);
    }
}
ON_EVERY_TRANSPORT(allreduce_sums)

static void allreduce_extremes_on(mbl_comm_t *comm) {
    double d[2] = {comm->rank + 0.5, -comm->rank};
    assert_ok(mbl_comm_allreduce(comm, d, 2, MBL_COMM_F64, MBL_COMM_MAX));
    assert_near(d[0], comm->size - 0.5, 0);
    assert_near(d[1], 0, 0);
    uint8_t u[2] = {(uint8_t)(200 + comm->rank), (uint8_t)(9 - comm->rank)};
    assert_ok(mbl_comm_allreduce(comm, u, 2, MBL_COMM_U8, MBL_COMM_MIN));
    assert_int_equal(u[0], 200);
    assert_int_equal(u[1], 10 - comm->size);
    float f = (float)(comm->rank == comm->size - 1 ? -3 : 4);
    assert_ok(mbl_comm_allreduce(comm, &f, 1, MBL_COMM_F32, MBL_COMM_MIN));
    assert_near(f, -3, 0);
}
ON_EVERY_TRANSPORT(allreduce_extremes)

static void reduce_scatter_on(mbl_comm_t *comm) {
    for (int k = 0; k < N_SIZES; k++)
        for (int in_place = 0; in_place < 2; in_place++) {
            size_t n = sizes[k], first = (size_t)comm->rank * n;
            double *in = mbl_calloc(n * (size_t)comm->size + 1, sizeof *in);
            double *out = mbl_calloc(n + 1, sizeof *out);
            for (size_t i = 0; i < n * (size_t)comm->size; i++)
                in[i] = value(comm->rank, i);
            out[n] = 77;
            double *to = in_place ? in + first : out;
            assert_ok(mbl_comm_reduce_scatter(comm, in, to, n, MBL_COMM_F64));
            for (size_t i = 0; i < n; i++)
                if (to[i] != sum_of_values(comm->size, first + i))
                    fail_msg("n %zu, rank %d, at %zu: %g, want %g", n, comm->rank, i, to[i],
                             sum_of_values(comm->size, first + i));
            assert_near(out[n], 77, 0);
            mbl_free(in), mbl_free(out);
        }
}
ON_EVERY_TRANSPORT(reduce_scatter)

static void bcast_and_allgather_on(mbl_comm_t *comm) {
    for (int k = 0; k < N_SIZES; k++) {
        size_t n = sizes[k], all = n * (size_t)comm->size;
        uint8_t *data = mbl_calloc(n + 1, 1), *out = mbl_calloc(all + 1, 1);
        for (int root = 0; root < comm->size; root++) {
            for (size_t i = 0; i < n; i++)
                data[i] = (uint8_t)(comm->rank == root ? value(root, i) : 99);
            data[n] = 77;
            assert_ok(mbl_comm_bcast(comm, data, n, root));
            for (size_t i = 0; i < n; i++)
                if (data[i] != (uint8_t)value(root, i))
                    fail_msg("bcast of %zu from %d, at %zu: %d, want %d", n, root, i, data[i],
                             (uint8_t)value(root, i));
            assert_int_equal(data[n], 77);
        }
        for (int in_place = 0; in_place < 2; in_place++) {
            memset(out, 99, all + 1);
            uint8_t *in = in_place ? out + (size_t)comm->rank * n : data;
            for (size_t i = 0; i < n; i++)
                in[i] = (uint8_t)value(comm->rank, i);
            assert_ok(mbl_comm_allgather(comm, in, out, n));
            for (size_t i = 0; i < all; i++)
                if (out[i] != (uint8_t)value((int)(i / n), i % n))
                    fail_msg("allgather of %zu, at %zu: %d, want %d", n, i, out[i],
                             (uint8_t)value((int)(i / n), i % n));
            assert_int_equal(out[all], 99);
        }
        mbl_free(data), mbl_free(out);
    }
}
ON_EVERY_TRANSPORT(bcast_and_allgather)

/* The same bodies with messages cut into parts of 1000 bytes (where a part costs a wait for the device,
 * larger and fewer ones): what happens to counts beyond INT_MAX. */
static void chunks_on(mbl_comm_t *comm) {
    size_t usual = comm->chunk_bytes;
    comm->chunk_bytes = comm->table->space == MBL_DEVICE ? 120000 : 1000;
    allreduce_sums_on(comm);
    reduce_scatter_on(comm);
    bcast_and_allgather_on(comm);
    comm->chunk_bytes = usual;
}
ON_EVERY_TRANSPORT(chunks)

/* Sums whose rounding depends on the order must come out bit for bit alike, each time and on every rank. */
static void sums_repeat_on(mbl_comm_t *comm) {
    static const size_t lengths[] = {5, 1000, 100003};
    for (int k = 0; k < 3; k++) {
        size_t n = lengths[k], all = n * (size_t)comm->size;
        double *in = mbl_calloc(all, sizeof *in), *sum = mbl_calloc(all, sizeof *sum);
        double *first = mbl_calloc(all, sizeof *first), *block = mbl_calloc(2 * n, sizeof *block);
        for (size_t i = 0; i < all; i++)
            in[i] = 1.0 / (1 + (double)((i * 31 + (size_t)comm->rank * 17) % 97)) *
                    (value(comm->rank, i) > 2 ? -1e8 : 1);
        for (int round = 0, rounds = comm->table->space == MBL_DEVICE ? 10 : 50; round < rounds; round++) {
            if ((round + comm->rank) % 3 == 0)
                usleep(300); /* arrive in a different order */
            memcpy(sum, in, all * sizeof *sum);
            assert_ok(mbl_comm_allreduce(comm, sum, all, MBL_COMM_F64, MBL_COMM_SUM));
            assert_ok(mbl_comm_reduce_scatter(comm, in, block + (round > 0) * n, n, MBL_COMM_F64));
            if (round == 0)
                memcpy(first, sum, all * sizeof *sum);
            assert_memory_equal(sum, first, all * sizeof *sum);
            if (round > 0)
                assert_memory_equal(block, block + n, n * sizeof *block);
        }
        memcpy(sum, first, all * sizeof *sum);
        assert_ok(mbl_comm_bcast(comm, sum, all * sizeof *sum, 0));
        assert_memory_equal(sum, first, all * sizeof *sum);
        mbl_free(in), mbl_free(sum), mbl_free(first), mbl_free(block);
    }
}
ON_EVERY_TRANSPORT(sums_repeat)

static void agree_on(mbl_comm_t *comm) {
    int last = comm->size - 1;
    assert_int_equal(comm->failed_rank, -1);
    assert_int_equal(mbl_comm_agree(comm, MBL_OK), MBL_OK);
    assert_int_equal(comm->agreed, MBL_OK);
    assert_int_equal(comm->failed_rank, -1);
    for (int who = 0; who <= last; who++) {
        mbl_status_t mine = comm->rank == who ? MBL_ERR_IO : MBL_OK;
        mbl_fail_quiet(1);
        MBL_FAIL(MBL_OK, "nothing yet");
        mbl_fail_quiet(0);
        assert_int_equal(mbl_comm_agree(comm, mine), MBL_ERR_IO);
        assert_int_equal(comm->failed_rank, who);
        assert_int_equal(comm->agreed, MBL_ERR_IO);
        assert_int_equal(mbl_comm_settle(comm, MBL_ERR_IO), MBL_ERR_IO); /* all know of it */
        char want[64];
        snprintf(want, sizeof want, "rank %d failed", who);
        if (comm->rank != who)
            assert_non_null(strstr(mbl_fail_message(), want));
    }
    assert_int_equal(mbl_comm_agree(comm, MBL_ERR_CONFIG), MBL_ERR_CONFIG);
    assert_int_equal(comm->failed_rank, 0); /* the first of several, who has logged it for all */
    /* a wish to stop must not hide a failure */
    mbl_status_t mixed = comm->rank == 0 ? MBL_ERR_STOPPED : comm->rank == last ? MBL_ERR_ARG : MBL_OK;
    assert_int_equal(mbl_comm_agree(comm, mixed), last ? MBL_ERR_ARG : MBL_ERR_STOPPED);
    assert_int_equal(mbl_comm_agree(comm, comm->rank == last ? MBL_ERR_STOPPED : MBL_OK), MBL_ERR_STOPPED);
}
ON_EVERY_TRANSPORT(agree)

static void same_on(mbl_comm_t *comm) {
    const uint64_t large = 0xfedcba9876543210u, alike[] = {0, 2, large, UINT64_MAX};
    uint64_t other[] = {large, large, large};
    bool same = false;
    assert_ok(mbl_comm_same(comm, alike, 4, &same));
    assert_true(same);
    other[1] ^= comm->rank == comm->size - 1 ? (uint64_t)1 << 63 : 0;
    assert_ok(mbl_comm_same(comm, other, 3, &same));
    assert_int_equal(same, comm->size == 1);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_comm_same(comm, other, MBL_COMM_SAME + 1, &same), MBL_ERR_ARG);
    mbl_fail_quiet(0);
}
ON_EVERY_TRANSPORT(same)

static void counters_on(mbl_comm_t *comm) {
    uint64_t before = comm->bytes;
    double seconds = comm->seconds, start = mbl_now(), data[64] = {0}, out[256] = {0};
    assert_ok(mbl_comm_bcast(comm, data, 40, 0));
    assert_int_equal(comm->bytes - before, comm->rank == 0 ? 40 : 0);
    before = comm->bytes;
    assert_ok(mbl_comm_allreduce(comm, data, 10, MBL_COMM_F64, MBL_COMM_SUM));
    assert_ok(mbl_comm_allgather(comm, data, out, 17));
    assert_ok(mbl_comm_reduce_scatter(comm, out, data, 3, MBL_COMM_F32));
    assert_ok(mbl_comm_barrier(comm));
    assert_int_equal(comm->bytes - before, 80 + 17 + 12 * comm->size);
    assert_true(comm->seconds >= seconds && comm->seconds - seconds <= mbl_now() - start);
}
ON_EVERY_TRANSPORT(counters)

static void bad_arguments_on(mbl_comm_t *comm) {
    double x = 0;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_comm_bcast(comm, &x, 8, comm->size), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_bcast(comm, &x, 8, -1), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_allreduce(comm, NULL, 1, MBL_COMM_F64, MBL_COMM_SUM), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_allreduce(comm, &x, SIZE_MAX / 4, MBL_COMM_F64, MBL_COMM_SUM), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_allreduce(comm, &x, 1, (mbl_comm_type_t)9, MBL_COMM_SUM), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_allgather(comm, NULL, &x, 1), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_reduce_scatter(comm, &x, NULL, 1, MBL_COMM_F64), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_barrier(NULL), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    assert_ok(mbl_comm_allreduce(comm, NULL, 0, MBL_COMM_F64, MBL_COMM_SUM));
    assert_ok(mbl_comm_poll_error(comm));
}
ON_EVERY_TRANSPORT(bad_arguments)

static void open_survives_and_refuses(void **state) {
    mbl_comm_t *comm = NULL;
    size_t live = mbl_mem_live();
    mbl_fail_quiet(1);
    assert_int_equal(mbl_comm_open("carrier pigeon", 0, &comm), MBL_ERR_ARG);
    assert_int_equal(mbl_comm_open("self", -1, &comm), MBL_ERR_ARG);
    mbl_mem_fail_at(1);
    assert_int_equal(mbl_comm_open("self", 0, &comm), MBL_ERR_MEM);
    for (size_t n = 1; ((transports_t *)*state)->mpi && n <= 3; n++) {
        mbl_mem_fail_at(n); /* all before the first message, so the ranks stay in step */
        assert_int_equal(mbl_comm_open("mpi", 0, &comm), MBL_ERR_MEM);
    }
    mbl_mem_fail_at(0);
    mbl_fail_quiet(0);
    assert_null(comm);
    assert_int_equal(mbl_mem_live(), live);
    mbl_comm_close(NULL);
}

/* The record keeps the last collectives with what they were, and is on every communicator. */
static void record_keeps_the_last_on(mbl_comm_t *comm) {
    double sum[3] = {0};
    uint64_t first = comm->calls;
    for (size_t i = 0; i < MBL_COMM_RECORD + 3; i++) {
        comm->step = 100 + i;
        assert_ok(mbl_comm_allreduce(comm, sum, 1 + i % 3, MBL_COMM_F64, MBL_COMM_SUM));
    }
    assert_int_equal(comm->calls - first, MBL_COMM_RECORD + 3);
    for (size_t i = 3; i < MBL_COMM_RECORD + 3; i++) {
        const mbl_comm_event_t *e = &comm->record[(first + i) % MBL_COMM_RECORD];
        assert_string_equal(e->op, "allreduce");
        assert_int_equal(e->step, 100 + i);
        assert_int_equal(e->bytes, 8 * (1 + i % 3));
        assert_int_equal(e->type, MBL_COMM_F64);
        assert_int_equal(e->state, MBL_COMM_DONE);
        assert_true(e->seconds >= 0 && e->seconds < 60);
    }
    assert_false(comm->reported);
    comm->step = 0;
}
ON_EVERY_TRANSPORT(record_keeps_the_last)

/* Waiting for a late rank must not burn the core that rank may need. */
static void waiting_is_cheap(void **state) {
    mbl_comm_t *comm = ((transports_t *)*state)->mpi;
    if (!comm || comm->size == 1)
        skip();
    assert_ok(mbl_comm_barrier(comm));
    if (comm->rank == 0)
        usleep(400000);
    clock_t cpu = clock();
    assert_ok(mbl_comm_barrier(comm));
    double used = (double)(clock() - cpu) / CLOCKS_PER_SEC;
    if (used > 0.1)
        fail_msg("rank %d used %.3f s of CPU time to wait 0.4 s", comm->rank, used);
}

static const char *const launch_variables[] = {
    "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE",    "PMI_RANK", "PMIX_RANK",
    "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS",         "SLURM_PROCID"};
enum { N_VARIABLES = sizeof launch_variables / sizeof launch_variables[0] };

/* The launch found with only these variables set ("NAME=value", NULL-terminated). */
static int launched_with(const char *const *settings, int *rank, bool *can_join) {
    char *saved[N_VARIABLES];
    for (int i = 0; i < N_VARIABLES; i++) {
        const char *value = getenv(launch_variables[i]);
        saved[i] = value ? strdup(value) : NULL;
        unsetenv(launch_variables[i]);
    }
    for (; *settings; settings++) {
        char name[64];
        const char *equals = strchr(*settings, '=');
        snprintf(name, sizeof name, "%.*s", (int)(equals - *settings), *settings);
        setenv(name, equals + 1, 1);
    }
    int size = mbl_comm_launched(rank, can_join);
    for (int i = 0; i < N_VARIABLES; i++) {
        if (saved[i])
            setenv(launch_variables[i], saved[i], 1);
        else
            unsetenv(launch_variables[i]);
        free(saved[i]);
    }
    return size;
}

static void launchers_are_recognised(void **state) {
    (void)state;
    static const struct {
        const char *settings[5];
        int size, rank;
        bool can_join;
    } cases[] = {
        {{NULL}, 1, 0, true},
        {{"OMPI_COMM_WORLD_SIZE=8", "OMPI_COMM_WORLD_RANK=3", "PMIX_RANK=3", NULL}, 8, 3, true},
        /* mpirun -np 1 inside a Slurm step counts for more than the step */
        {{"OMPI_COMM_WORLD_SIZE=1", "OMPI_COMM_WORLD_RANK=0", "SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID=1",
          NULL},
         1,
         0,
         true},
        {{"PMI_SIZE=4", "PMI_RANK=2", NULL}, 4, 2, true},
        {{"PMIX_RANK=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_PROCID=1", NULL}, 2, 1, true},
        {{"PMIX_RANK=1", NULL}, 2, 1, true},
        /* a batch script is one process, however many tasks its job may start */
        {{"SLURM_NTASKS=16", "SLURM_PROCID=0", NULL}, 1, 0, true},
        {{"SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID=2", NULL}, 4, 2, false},
        {{"OMPI_COMM_WORLD_SIZE=rubbish", NULL}, 1, 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rank = -1;
        bool can_join = !cases[i].can_join;
        int size = launched_with(cases[i].settings, &rank, &can_join);
        if (size != cases[i].size || rank != cases[i].rank || can_join != cases[i].can_join)
            fail_msg("case %zu: size %d rank %d join %d, want %d %d %d", i, size, rank, can_join,
                     cases[i].size, cases[i].rank, cases[i].can_join);
    }
}

static void shards_partition(void **state) {
    (void)state;
    static const size_t lengths[] = {0, 1, 15, 16, 17, 63, 64, 65, 1000, 4097, 1u << 20, SIZE_MAX / 2};
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++)
        for (int size = 1; size <= 70; size++) {
            size_t n = lengths[k], count = mbl_shard_count(n, size), next = 0;
            assert_int_equal(count % 16, 0);
            assert_true(count >= n / (size_t)size && count <= n / (size_t)size + 16);
            for (int rank = 0; rank < size; rank++) {
                size_t first = 1, last = 0;
                mbl_shard_range(n, size, rank, &first, &last);
                assert_int_equal(first, next); /* without gaps, and padding only behind the end */
                assert_true(last >= first && last - first <= count && (last == n || last - first == count));
                next = last;
            }
            assert_int_equal(next, n);
        }
}

/* Time of the reduction a step does, for the record. */
static void print_bandwidth(mbl_comm_t *comm) {
    size_t total = 1600000, count = mbl_shard_count(total, comm->size);
    double *in = mbl_calloc(count * (size_t)comm->size, sizeof *in), *out = mbl_calloc(count, sizeof *out);
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        assert_ok(mbl_comm_barrier(comm));
        double start = mbl_now();
        assert_ok(mbl_comm_reduce_scatter(comm, in, out, count, MBL_COMM_F64));
        double took = mbl_now() - start;
        best = took < best ? took : best;
    }
    if (comm->rank == 0)
        printf("reduce_scatter of %zu doubles on %d ranks: %.2f ms\n", total, comm->size, best * 1e3);
    mbl_free(in), mbl_free(out);
}

static void speed(void **state) {
    mbl_comm_t *comm = ((transports_t *)*state)->mpi;
    if (!comm)
        skip();
    print_bandwidth(comm);
}

/* `test_comm misbehave HOW` (tests/check_dead_rank.sh): the last rank stops, dies or is late while the others
 * are inside a sum with a deadline of 1 s. They must notice in time and end the job with code 7. One that
 * fails alone, or exits as if all were well, ends the job itself before that: with code 71 and 1. */
static int misbehave(const char *how, mbl_comm_t *comm) {
    double sum[1000] = {0};
    comm->deadline_s = 1;
    if (mbl_comm_barrier(comm) != MBL_OK)
        return 3;
    if (comm->rank == comm->size - 1) {
        if (!strcmp(how, "stops"))
            raise(SIGSTOP);
        else if (!strcmp(how, "dies"))
            raise(SIGKILL);
        else if (!strcmp(how, "fails"))
            mbl_comm_settle(comm, MBL_FAIL(MBL_ERR_DEVICE, "this rank's device is gone"));
        else if (!strcmp(how, "exits"))
            exit(0);
        else
            sleep(60);
        return 4;
    }
    double start = mbl_now();
    mbl_status_t status = mbl_comm_allreduce(comm, sum, 1000, MBL_COMM_F64, MBL_COMM_SUM);
    double took = mbl_now() - start;
    if (status != MBL_ERR_DEADLINE || mbl_comm_poll_error(comm) != MBL_ERR_DEADLINE) {
        fprintf(stderr, "rank %d: the sum returned %s\n", comm->rank, mbl_status_name(status));
        return 5;
    }
    /* further calls fail at once instead of waiting again, and closing does not hang either */
    start = mbl_now();
    if (mbl_comm_barrier(comm) == MBL_OK || mbl_now() - start > 0.2 || took < 1 || took > 1.5) {
        fprintf(stderr, "rank %d noticed after %.3f s, barrier in %.3f s\n", comm->rank, took,
                mbl_now() - start);
        return 6;
    }
    mbl_comm_abort(comm, 7);
    return 8;
}

int main(int argc, char **argv) {
    static transports_t all;
    void *state = &all;
    int launched = mbl_comm_launched(NULL, NULL), failed;
    if (mbl_comm_open("self", 0, &all.self) != MBL_OK)
        return 1;
    if (getenv("OMPI_COMM_WORLD_SIZE") && mbl_comm_open("mpi", 60, &all.mpi) != MBL_OK)
        return 1;
    if (all.mpi && all.mpi->size != launched)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(allreduce_sums, state),
        cmocka_unit_test_prestate(allreduce_extremes, state),
        cmocka_unit_test_prestate(reduce_scatter, state),
        cmocka_unit_test_prestate(bcast_and_allgather, state),
        cmocka_unit_test_prestate(chunks, state),
        cmocka_unit_test_prestate(sums_repeat, state),
        cmocka_unit_test_prestate(agree, state),
        cmocka_unit_test_prestate(same, state),
        cmocka_unit_test_prestate(counters, state),
        cmocka_unit_test_prestate(bad_arguments, state),
        cmocka_unit_test_prestate(record_keeps_the_last, state),
        cmocka_unit_test_prestate(open_survives_and_refuses, state),
        cmocka_unit_test_prestate(waiting_is_cheap, state),
        cmocka_unit_test(launchers_are_recognised),
        cmocka_unit_test(shards_partition),
        cmocka_unit_test_prestate(speed, state),
    };
    const char *device = getenv("MARBLE_TEST_BACKEND");
    if (device && all.mpi &&
        (mbl_ops_open(device, 1, &all.ops) != MBL_OK ||
         mbl_comm_open_companion(all.mpi, &mbl_comm_nccl, all.ops, &all.nccl) != MBL_OK))
        return 1;
    if (argc == 3 && !strcmp(argv[1], "misbehave") && all.mpi)
        _exit(misbehave(argv[2], all.nccl ? all.nccl : all.mpi));
    if (all.mpi && all.mpi->rank > 0 && !freopen("/dev/null", "w", stdout))
        return 1;
    failed = cmocka_run_group_tests_name("comm", tests, NULL, NULL);
    mbl_comm_close(all.nccl);
    mbl_ops_close(all.ops);
    mbl_comm_close(all.mpi);
    mbl_comm_close(all.self);
    return failed;
}
