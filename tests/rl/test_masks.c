/* Which reward parts apply to the same samples, over ranks, and what follows from the Gram matrix of the
 * sets: against vectors written out.   ctest-ranks: 1 2 3 4 */
#include "ranks.h"

#include "base/rng.h"
#include "rl/balance.h"

#include <math.h>
#include <string.h>

enum { N = 24, DIM = 9, K = 5, MOST = 2 * K + 1 };

/* 0: all samples; 1: the first half; 2: every third; 3: none. */
static bool in_pattern(int pattern, size_t i) {
    return pattern == 0 || (pattern == 1 && i < N / 2) || (pattern == 2 && i % 3 == 1);
}

/* Each rank has some of the samples, one of them none when there are more than three. */
static size_t share_of_rank(const mbl_comm_t *comm, size_t *first) {
    size_t ranks = (size_t)comm->size, rank = (size_t)comm->rank, busy = ranks > 3 ? ranks - 1 : ranks;
    *first = rank < busy ? rank * N / busy : N;
    return rank < busy ? (rank + 1) * N / busy - *first : 0;
}

static mbl_masks_t masks_of(mbl_comm_t *comm, const int *patterns, size_t parts, uint8_t *valid) {
    mbl_masks_t masks;
    size_t first, n = share_of_rank(comm, &first);
    for (size_t r = 0; r < parts; r++)
        for (size_t i = 0; i < n; i++)
            valid[r * n + i] = in_pattern(patterns[r], first + i);
    assert_int_equal(mbl_masks(comm, valid, parts, n, N, &masks), MBL_OK);
    return masks;
}

static void parts_of_equal_samples_share_a_mask(void **state) {
    mbl_comm_t *comm = *state;
    uint8_t valid[6 * N];
    static const int patterns[6] = {1, 0, 3, 1, 2, 0};
    static const uint8_t of[6] = {0, 1, MBL_NO_MASK, 0, 2, 1}, first[3] = {0, 1, 4};
    static const double samples[3] = {N / 2, N, N / 3};
    mbl_masks_t masks = masks_of(comm, patterns, 6, valid);
    size_t at, n = share_of_rank(comm, &at);
    assert_int_equal(masks.parts, 6);
    assert_int_equal(masks.count, 3);
    for (size_t r = 0; r < 6; r++)
        assert_int_equal(masks.of[r], of[r]);
    for (size_t m = 0; m < 3; m++) {
        assert_int_equal(masks.first[m], first[m]);
        assert_near(masks.samples[m], samples[m], 0);
        assert_near(masks.weight[m], N / samples[m], 1e-15);
    }
    for (size_t r = 0; r < 6; r++) { /* a mean over V: the weights add up to N wherever there are samples */
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += mbl_masks_weight(&masks, r, i, n);
        assert_int_equal(mbl_comm_allreduce(comm, &sum, 1, MBL_COMM_F64, MBL_COMM_SUM), MBL_OK);
        assert_near(sum, of[r] == MBL_NO_MASK ? 0 : N, 1e-12);
    }
    assert_near(mbl_masks_weight(NULL, 3, 0, n), 1, 0);
}

static void masks_that_differ_on_one_rank_differ(void **state) {
    mbl_comm_t *comm = *state;
    uint8_t valid[2 * N];
    mbl_masks_t masks;
    size_t first, n = share_of_rank(comm, &first);
    memset(valid, 1, sizeof valid);
    assert_int_equal(mbl_masks(comm, valid, 2, n, N, &masks), MBL_OK);
    assert_int_equal(masks.count, 1);
    if (first == 0)
        valid[n] = 0; /* one sample of the second part */
    assert_int_equal(mbl_masks(comm, valid, 2, n, N, &masks), MBL_OK);
    assert_int_equal(masks.count, 2);
    assert_near(masks.samples[1], N - 1, 0);
}

/* ---- what follows from the matrix ---- */

typedef struct {
    mbl_sets_t sets;
    size_t count;
    double v[MOST + 1][DIM], gram[(MOST + 1) * (MOST + 1)];
} vectors_t;

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (size_t i = 0; i < DIM; i++)
        sum += a[i] * b[i];
    return sum;
}

static void fill_gram(vectors_t *c, size_t m) {
    for (size_t i = 0; i < m * m; i++)
        c->gram[i] = dot(c->v[i / m], c->v[i % m]);
}

/* Three masks for five rewards, one of which has no sample; KL apart. */
static vectors_t random_vectors(uint64_t seed) {
    static const uint8_t of[K] = {0, 1, 0, MBL_NO_MASK, 2};
    vectors_t c = {.sets = {.parts = K, .masks = 3, .kl = true}};
    memcpy(c.sets.of, of, sizeof of);
    c.count = mbl_sets_count(&c.sets);
    assert_int_equal(c.count, K + 4);
    for (size_t j = 0; j < c.count; j++)
        for (size_t i = 0; i < DIM; i++) {
            mbl_rng_t rng = mbl_rng(seed, MBL_RNG_STUDY, (uint32_t)j, i);
            float pair[2];
            mbl_rng_normal2(&rng, pair);
            c.v[j][i] = of[j < K ? j : 0] == MBL_NO_MASK ? 0 : (double)pair[0];
        }
    fill_gram(&c, c.count);
    return c;
}

static void gradient_of(const vectors_t *c, size_t k, double *g) {
    for (size_t i = 0; i < DIM; i++)
        g[i] = c->v[k][i] + (c->sets.of[k] == MBL_NO_MASK ? 0 : c->v[K + c->sets.of[k]][i]);
}

static void direction_of(const vectors_t *c, const double *coefficient, double *d) {
    memset(d, 0, DIM * sizeof *d);
    for (size_t j = 0; j < c->count; j++)
        for (size_t i = 0; i < DIM; i++)
            d[i] += coefficient[j] * c->v[j][i];
}

static void gradients_of_masked_rewards(void **state) {
    vectors_t c = random_vectors(1);
    (void)state;
    for (size_t i = 0; i < K; i++)
        for (size_t j = 0; j < K; j++) {
            double a[DIM], b[DIM];
            gradient_of(&c, i, a);
            gradient_of(&c, j, b);
            assert_near(mbl_sets_inner(&c.sets, c.gram, i, j), dot(a, b), 1e-13);
        }
}

static void directions_have_every_common_part(void **state) {
    vectors_t c = random_vectors(2);
    double coefficient[MBL_SETS_MAX] = {0.5, -1, 2, 0, 0.25}, d[DIM], want[DIM] = {0};
    bool once[K] = {true, true, true, false, true};
    (void)state;
    mbl_sets_spread(&c.sets, NULL, coefficient);
    direction_of(&c, coefficient, d);
    for (size_t k = 0; k < K; k++) {
        double g[DIM];
        gradient_of(&c, k, g);
        for (size_t i = 0; i < DIM; i++)
            want[i] += coefficient[k] * g[i] + (k == 0 ? c.v[K + 3][i] : 0);
    }
    for (size_t i = 0; i < DIM; i++)
        assert_near(d[i], want[i], 1e-14);
    mbl_sets_spread(&c.sets, once, coefficient); /* the mean of the four rewards' common parts */
    assert_near(coefficient[K], 0.5, 0);
    assert_near(coefficient[K + 1], 0.25, 0);
    assert_near(coefficient[K + 2], 0.25, 0);
    assert_near(coefficient[K + 3], 1, 0);
    memset(coefficient, 0, sizeof coefficient);
    coefficient[K + 1] = 7; /* without a reward no direction, and no KL term alone */
    mbl_sets_spread(&c.sets, NULL, coefficient);
    for (size_t j = 0; j < c.count; j++)
        assert_near(coefficient[j], 0, 0);
}

/* Half the rows of one mask, all of another: sets as long as the whole step's. */
static void partial_sets_are_scaled_by_their_rows(void **state) {
    vectors_t c = random_vectors(3), part = c;
    const double share[3] = {0.5, 1, 0.125};
    (void)state;
    for (size_t j = 0; j < c.count; j++) {
        size_t mask = j < K ? c.sets.of[j] : j - K;
        for (size_t i = 0; i < DIM; i++)
            part.v[j][i] *= mask == MBL_NO_MASK ? 1 : mask == 3 ? 0.25 : share[mask];
    }
    fill_gram(&part, c.count);
    mbl_sets_scale(&c.sets, share, 0.25, part.gram);
    for (size_t i = 0; i < c.count * c.count; i++)
        assert_near(part.gram[i], c.gram[i], 1e-13);
}

/* marble over masked gradients is marble over the same gradients without a common part; the KL term comes on
 * top of that, and the cosines are those of the sum. */
static void balance_takes_the_masked_gradients(void **state) {
    vectors_t c = random_vectors(4);
    mbl_balance_options_t options = {.method = MBL_METHOD_MARBLE, .rho = 0.7, .sets = &c.sets},
                          plain = options;
    mbl_balance_state_t a = {.seen = {false}}, b = a;
    mbl_balance_step_t step, same;
    double d[DIM], all[(K + 1) * (K + 1)] = {0};
    (void)state;
    plain.sets = NULL;
    for (size_t i = 0; i < K; i++)
        for (size_t j = 0; j < K; j++)
            all[i * (K + 1) + j] = mbl_sets_inner(&c.sets, c.gram, i, j);
    assert_int_equal(mbl_balance_local(&options, c.gram, K, &a, &step), MBL_OK);
    assert_int_equal(mbl_balance_local(&plain, all, K, &b, &same), MBL_OK);
    assert_int_equal(step.n_used, K - 1);
    for (size_t k = 0; k < K; k++) {
        assert_near(step.alpha[k], same.alpha[k], 1e-12);
        assert_near(step.coefficient[k], same.coefficient[k], 1e-12);
    }
    direction_of(&c, step.coefficient, d);
    assert_near(step.direction_norm, sqrt(dot(d, d)), 1e-12);
    for (size_t k = 0; k < K; k++) {
        double g[DIM], length = sqrt(dot(d, d));
        gradient_of(&c, k, g);
        if (!step.used[k])
            continue;
        assert_near(step.cos[k], dot(d, g) / sqrt(dot(g, g)) / length, 1e-12);
        assert_near(step.cos_part[k], dot(d, c.v[k]) / sqrt(dot(c.v[k], c.v[k])) / length, 1e-12);
    }
    mbl_balance_step_t measured = step;
    memset(measured.cos, 0, sizeof measured.cos);
    mbl_balance_measure(c.gram, &c.sets, NULL, K, &measured);
    memcpy(c.v[c.count], d, sizeof d);
    fill_gram(&c, c.count + 1);
    mbl_balance_step_t row = {.n_used = 0};
    mbl_balance_measure_row(c.gram, &c.sets, NULL, K, &row);
    for (size_t k = 0; k < K; k++) {
        assert_near(measured.cos[k], step.cos[k], 1e-13);
        assert_near(row.cos[k], step.cos[k], 1e-12);
        assert_near(row.cos_part[k], step.cos_part[k], 1e-12);
    }
    assert_near(row.direction_norm, step.direction_norm, 1e-12);
}

/* offset: no shorter direction m sum_k alpha_k u_k + c is found around the answer, c the mean of the common
 * parts. */
static void offset_of_masked_rewards(void **state) {
    vectors_t c = random_vectors(5);
    mbl_balance_options_t options = {
        .method = MBL_METHOD_MARBLE, .common = MBL_COMMON_OFFSET, .rho = 0.7, .sets = &c.sets};
    mbl_balance_state_t balance = {.seen = {false}};
    mbl_balance_step_t step;
    double d[DIM], m = 0;
    (void)state;
    c.sets.kl = false;
    c.count--;
    fill_gram(&c, c.count);
    assert_int_equal(mbl_balance_local(&options, c.gram, K, &balance, &step), MBL_OK);
    direction_of(&c, step.coefficient, d);
    for (size_t k = 0; k < K; k++)
        m += step.used[k] ? step.length[k] / (double)step.n_used : 0;
    for (size_t from = 0; from < K; from++) /* <d, u_to - u_from> >= 0 wherever alpha can move from one */
        for (size_t to = 0; to < K; to++)
            if (step.alpha[from] > 1e-9 && step.used[to])
                assert_true(m * (dot(d, c.v[to]) / step.length[to] - dot(d, c.v[from]) / step.length[from]) >
                            -1e-9);
}

int main(void) {
    mbl_comm_t *comm = open_ranks();
    if (!comm)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(parts_of_equal_samples_share_a_mask, comm),
        cmocka_unit_test_prestate(masks_that_differ_on_one_rank_differ, comm),
        cmocka_unit_test(gradients_of_masked_rewards),
        cmocka_unit_test(directions_have_every_common_part),
        cmocka_unit_test(partial_sets_are_scaled_by_their_rows),
        cmocka_unit_test(balance_takes_the_masked_gradients),
        cmocka_unit_test(offset_of_masked_rewards),
    };
    int failed = cmocka_run_group_tests_name("masks", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
