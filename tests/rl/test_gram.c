/* The exact Gram matrix: of the ranks' summed gradients, not the sum of the ranks' matrices.
 * ctest-ranks: 1 2 4   ctest-backends: fake cuda */
#include "mirror.h"
#include "ranks.h"

#include "base/mem.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "rl/gram.h"

#include <math.h>
#include <string.h>

enum { M = 6 };

/* Element i of set k of a rank: sets of very different lengths, and a large part that cancels over ranks. */
static double value(int rank, int size, size_t k, size_t i) {
    mbl_rng_t rng = mbl_rng(1, MBL_RNG_STUDY, (uint32_t)(k * 64 + (size_t)rank), i);
    float pair[2];
    mbl_rng_normal2(&rng, pair);
    double cancels = size % 2 == 0 ? (rank % 2 ? -3.0 : 3.0) * sin((double)(i + 5 * k)) : 0;
    return pow(10, (double)k - 3) * ((double)pair[0] + cancels);
}

static double summed(int size, size_t k, size_t i) {
    double sum = 0;
    for (int r = 0; r < size; r++)
        sum += value(r, size, k, i);
    return sum;
}

static mbl_ops_t *open_ops(mbl_comm_t *comm) {
    mbl_ops_t *ops;
    assert_int_equal(mbl_ops_open(test_backend(), 1, &ops), MBL_OK);
    assert_int_equal(mbl_comm_attach(comm, ops), MBL_OK);
    return ops;
}

static void close_ops(mbl_comm_t *comm, mbl_ops_t *ops) {
    assert_int_equal(mbl_comm_attach(comm, NULL), MBL_OK);
    mbl_ops_close(ops);
}

/* sets [M, size * count], shard [M, count], both cut out of larger tensors. */
typedef struct {
    mbl_tensor_t all_sets, all_shard, sets, shard;
    double gram[M * M];
} case_t;

static void make_case(mbl_comm_t *comm, mbl_ops_t *ops, size_t count, case_t *c) {
    size_t length = count * (size_t)comm->size;
    c->all_sets = mirror_new(ops, MBL_F64, 2, (size_t)M + 2, length, 0, 0);
    c->all_shard = mirror_new(ops, MBL_F64, 2, (size_t)M + 1, count, 0, 0);
    c->sets = mbl_tensor_rows(&c->all_sets, 1, M);
    c->shard = mbl_tensor_rows(&c->all_shard, 0, M);
    for (size_t k = 0; k < M; k++)
        for (size_t i = 0; i < length; i++)
            mirror_put(&c->sets, k * length + i, value(comm->rank, comm->size, k, i));
    for (size_t i = 0; i < count; i++)
        mirror_put(&c->all_shard, M * count + i, 77);
    mirror_push(&c->all_sets);
    mirror_push(&c->all_shard);
    assert_int_equal(mbl_gram(comm, ops, &c->sets, &c->shard, c->gram), MBL_OK);
    mirror_pull(&c->all_shard);
}

static void free_case(case_t *c) {
    mirror_free(&c->all_sets);
    mirror_free(&c->all_shard);
}

static void check_shard(mbl_comm_t *comm, const case_t *c, size_t count) {
    const double *shard = mirror_at(c->shard.data);
    for (size_t k = 0; k < M; k++)
        for (size_t i = 0; i < count; i++)
            assert_near(shard[k * count + i], summed(comm->size, k, (size_t)comm->rank * count + i),
                        1e-14 * pow(10, (double)k - 3) * 20);
    for (size_t i = 0; i < count; i++)
        assert_near(shard[M * count + i], 77, 0);
}

static void equals_the_gram_of_the_sum(void **state) {
    static const size_t counts[] = {16, 48, 1008, 4112};
    mbl_comm_t *comm = *state;
    mbl_ops_t *ops = open_ops(comm);
    for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
        case_t c;
        size_t length = counts[t] * (size_t)comm->size;
        make_case(comm, ops, counts[t], &c);
        check_shard(comm, &c, counts[t]);
        double *sum = mbl_calloc(M * length, sizeof *sum), want[M * M] = {0};
        for (size_t k = 0; k < M; k++)
            for (size_t i = 0; i < length; i++)
                sum[k * length + i] = summed(comm->size, k, i);
        for (size_t k = 0; k < M * M; k++)
            for (size_t i = 0; i < length; i++)
                want[k] += sum[k / M * length + i] * sum[k % M * length + i];
        for (size_t k = 0; k < M * M; k++) {
            double size = sqrt(want[k / M * (M + 1)] * want[k % M * (M + 1)]);
            assert_near(c.gram[k], want[k], 1e-12 * size);
            assert_near(c.gram[k], c.gram[k % M * M + k / M], 0); /* symmetric to the bit */
        }
        assert_true(same_on_all_ranks(comm, c.gram, M * M));
        mbl_free(sum);
        free_case(&c);
    }
    close_ops(comm, ops);
}

/* Where the ranks' gradients partly cancel, adding the ranks' own matrices is far off: by more than the whole
 * answer. */
static void is_not_the_sum_of_the_ranks_own(void **state) {
    mbl_comm_t *comm = *state;
    mbl_ops_t *ops = open_ops(comm);
    case_t c;
    double own[M * M];
    make_case(comm, ops, 1008, &c);
    mbl_tensor_t gram = MBL_TENSOR_2(own, MBL_F64, M, M);
    assert_int_equal(MBL_OP(ops, gram, .gram = &gram, .x = &c.sets), MBL_OK);
    assert_int_equal(mbl_comm_allreduce(comm, own, M * M, MBL_COMM_F64, MBL_COMM_SUM), MBL_OK);
    for (size_t k = 0; k < M; k++) {
        double ratio = own[k * M + k] / c.gram[k * M + k];
        if (comm->size == 1)
            assert_near(ratio, 1, 1e-12);
        else if (!(ratio > 2))
            fail_msg("set %zu: the sum of the ranks' own %g, exact %g", k, own[k * M + k], c.gram[k * M + k]);
    }
    free_case(&c);
    close_ops(comm, ops);
}

/* Sums that begin while the last set is still formed give the same bits; a rank that fails before or after
 * takes the others along. */
static void begun_early_is_the_same(void **state) {
    mbl_comm_t *comm = *state;
    mbl_ops_t *ops = open_ops(comm);
    case_t c;
    double gram[M * M];
    int last = comm->size - 1;
    make_case(comm, ops, 1008, &c);
    size_t bytes = mbl_tensor_count(&c.shard) * sizeof(double);
    double *shard = mbl_calloc(bytes, 1);
    memcpy(shard, mirror_at(c.shard.data), bytes);
    for (size_t n = 1; n <= M; n++) {
        mbl_gram_sum_t sum = {.comm = comm, .ops = ops, .sets = &c.sets, .shard = &c.shard};
        memset(mirror_at(c.shard.data), 0, bytes);
        mirror_push(&c.shard);
        assert_int_equal(mbl_gram_ready(&sum, n), MBL_OK);
        assert_int_equal(mbl_gram_formed(&sum, MBL_OK), MBL_OK);
        assert_int_equal(mbl_gram_finish(&sum, gram), MBL_OK);
        assert_memory_equal(gram, c.gram, sizeof gram);
        mirror_pull(&c.shard);
        assert_memory_equal(mirror_at(c.shard.data), shard, bytes);
    }
    mbl_fail_quiet(1);
    for (int early = 0; early < 2; early++) {
        mbl_gram_sum_t sum = {.comm = comm, .ops = ops, .sets = &c.sets, .shard = &c.shard};
        mbl_status_t mine = comm->rank == last ? MBL_ERR_STOPPED : MBL_OK;
        if (!early || comm->rank != last) {
            mbl_status_t ready = mbl_gram_ready(&sum, M - 1);
            assert_int_equal(ready, early ? MBL_ERR_STOPPED : MBL_OK);
            mine = ready == MBL_OK ? mine : ready;
        }
        assert_int_equal(mbl_gram_formed(&sum, mine), MBL_ERR_STOPPED);
    }
    mbl_fail_quiet(0);
    assert_int_equal(mbl_comm_barrier(comm), MBL_OK);
    mbl_free(shard);
    free_case(&c);
    close_ops(comm, ops);
}

static void shapes_must_fit(void **state) {
    mbl_comm_t *comm = *state;
    mbl_ops_t *ops = open_ops(comm);
    case_t c;
    make_case(comm, ops, 32, &c);
    mbl_tensor_t fewer = mbl_tensor_rows(&c.shard, 0, M - 1), shorter = mbl_tensor_columns(&c.shard, 0, 16);
    assert_int_equal(mbl_gram(comm, ops, &c.sets, &fewer, c.gram), MBL_ERR_ARG);
    assert_int_equal(mbl_gram(comm, ops, &c.sets, &shorter, c.gram), MBL_ERR_ARG);
    free_case(&c);
    close_ops(comm, ops);
}

int main(void) {
    need_backend();
    mbl_comm_t *comm = open_ranks();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(equals_the_gram_of_the_sum, comm),
        cmocka_unit_test_prestate(is_not_the_sum_of_the_ranks_own, comm),
        cmocka_unit_test_prestate(begun_early_is_the_same, comm),
        cmocka_unit_test_prestate(shapes_must_fit, comm),
    };
    if (!comm)
        return 1;
    int failed = cmocka_run_group_tests_name("gram", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
