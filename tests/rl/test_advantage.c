/* Advantages against a plain reference in double precision, on one rank and on several, whose
 * shares begin and end inside groups.   ctest-ranks: 1 2 4 5 */
#include "ranks.h"

#include "base/rng.h"
#include "base/share.h"
#include "rl/advantage.h"
#include "rl/scores.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { GROUPS = 9, SIZE = 6, N = GROUPS * SIZE, K = 6 };
enum { ALL_VALID, MIXED, NOWHERE, FLAT, BROKEN, SPIKY }; /* the K rewards of the random case */

static const double weights[K] = {1, 0.5, 3, -2, 0, 0.25};

/* ---- the reference: the formula of src/rl/README.md, one number at a time ---- */

typedef struct {
    double a[N];
    mbl_reward_stats_t stats;
} reference_t;

static double mean_of(const mbl_score_t *score, size_t first, size_t count) {
    double sum = 0, n = 0;
    for (size_t i = first; i < first + count; i++)
        if (score[i].state == MBL_SCORE_VALID)
            sum += score[i].value, n++;
    return n > 0 ? sum / n : 0;
}

static double std_of(const mbl_score_t *score, size_t first, size_t count) {
    double mean = mean_of(score, first, count), sum = 0, n = 0;
    for (size_t i = first; i < first + count; i++)
        if (score[i].state == MBL_SCORE_VALID)
            sum += pow(score[i].value - mean, 2), n++;
    return n > 0 ? sqrt(sum / n) : 0;
}

static bool is_flat(const mbl_score_t *score, size_t first) {
    size_t n = 0, last = 0;
    for (size_t i = first; i < first + SIZE; i++)
        if (score[i].state == MBL_SCORE_VALID) {
            if (n++ && score[i].value != score[last].value)
                return false;
            last = i;
        }
    return n >= 2;
}

static bool has_pair(const mbl_score_t *score, size_t first) {
    size_t n = 0;
    for (size_t i = first; i < first + SIZE; i++)
        n += score[i].state == MBL_SCORE_VALID;
    return n >= 2;
}

static void reference(const mbl_score_t *score, bool group_std, double clip, reference_t *out) {
    double squares = 0;
    memset(out, 0, sizeof *out);
    out->stats.mean = mean_of(score, 0, N);
    out->stats.std = std_of(score, 0, N);
    for (size_t i = 0; i < N; i++) {
        size_t first = i / SIZE * SIZE;
        double std = group_std ? std_of(score, first, SIZE) : std_of(score, 0, N);
        out->stats.valid += score[i].state == MBL_SCORE_VALID;
        out->stats.na += score[i].state == MBL_SCORE_NA;
        out->stats.failed += score[i].state == MBL_SCORE_FAILED;
        out->stats.groups += i == first && has_pair(score, first);
        out->stats.flat_groups += i == first && is_flat(score, first);
        if (score[i].state != MBL_SCORE_VALID)
            continue;
        double advantage = (score[i].value - mean_of(score, first, SIZE)) / (std + 1e-4);
        squares += is_flat(score, first) ? 0 : advantage * advantage;
        out->a[i] = is_flat(score, first) ? 0 : fmax(-1, fmin(1, advantage / clip)) / 2;
    }
    out->stats.advantage_std = out->stats.valid ? sqrt(squares / (double)out->stats.valid) : 0;
}

/* ---- the case ---- */

/* All scores [K][N]: every kind of reward, and groups with one or no valid sample. */
static void make_scores(mbl_score_t score[K][N]) {
    memset(score, 0, K * sizeof *score);
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < N; i++) {
            mbl_rng_t rng = mbl_rng(5, MBL_RNG_STUDY, (uint32_t)k, i);
            double dice = (double)mbl_rng_uniform(&rng), value = 20 + 3 * (double)mbl_rng_uniform(&rng);
            mbl_score_state_t state = MBL_SCORE_VALID;
            if (k == NOWHERE)
                state = MBL_SCORE_NA;
            if (k == MIXED)
                state = dice < 0.3 ? MBL_SCORE_FAILED : i / SIZE % 3 == 1 ? MBL_SCORE_NA : state;
            if (k == MIXED && i / SIZE == 0)
                state = i == 4 ? MBL_SCORE_VALID : MBL_SCORE_FAILED;
            if (k == BROKEN)
                state = dice < 0.4 ? MBL_SCORE_FAILED : MBL_SCORE_NA;
            if (k == FLAT)
                value = i / SIZE % 2 ? 0.1 : value; /* 6 x 0.1 has a mean that is not 0.1 */
            if (k == SPIKY)
                value = i == 7 ? 1e4 : value; /* far beyond the clip */
            score[k][i] = (mbl_score_t){state == MBL_SCORE_VALID ? value : 0, state};
        }
}

/* What the weighted part scores: a sample with any failed reward has failed, one that does not apply adds
 * nothing. */
static void weigh(mbl_score_t score[K][N], mbl_score_t *out) {
    for (size_t i = 0; i < N; i++) {
        out[i] = (mbl_score_t){0, MBL_SCORE_NA};
        for (size_t k = 0; k < K; k++) {
            if (score[k][i].state == MBL_SCORE_VALID && out[i].state != MBL_SCORE_FAILED)
                out[i] = (mbl_score_t){out[i].value + weights[k] * score[k][i].value, MBL_SCORE_VALID};
            if (score[k][i].state == MBL_SCORE_FAILED)
                out[i] = (mbl_score_t){0, MBL_SCORE_FAILED};
        }
    }
}

/* Where the samples of a rank begin. */
static size_t first_of(const mbl_comm_t *comm, int rank) {
    return mbl_share(N, (size_t)comm->size, (size_t)rank).first;
}

/* Runs this rank's samples as its batch, the scores of the others coming from them; a [K + 1][n]. */
static void run(mbl_comm_t *comm, const mbl_advantage_options_t *options, mbl_score_t score[K][N], float *a,
                mbl_reward_stats_t *stats) {
    mbl_scores_t scores;
    mbl_batch_t batch = {.group_size = SIZE};
    mbl_advantage_options_t with_room = *options;
    float sum[N];
    assert_int_equal(mbl_scores_new(comm, N, K, &scores), MBL_OK);
    mbl_scores_view(comm, &scores, &batch);
    for (size_t i = 0; i < batch.n; i++)
        for (size_t k = 0; k < K; k++)
            batch.scores[i * K + k] = score[k][batch.first + i];
    for (size_t i = 0; i < (K + 1) * N; i++)
        a[i] = 77;
    with_room.sum = sum;
    assert_int_equal(mbl_scores_exchange(comm, &scores), MBL_OK);
    assert_int_equal(mbl_advantage(&with_room, &batch, a, stats), MBL_OK);
    mbl_scores_free(&scores);
}

static void check_stats(const mbl_reward_stats_t *got, const mbl_reward_stats_t *want, size_t k) {
    if (got->valid != want->valid || got->na != want->na || got->failed != want->failed ||
        got->groups != want->groups || got->flat_groups != want->flat_groups)
        fail_msg("reward %zu: %zu valid, %zu N/A, %zu failed, %zu groups, %zu flat; expected %zu, %zu, %zu, "
                 "%zu, %zu",
                 k, got->valid, got->na, got->failed, got->groups, got->flat_groups, want->valid, want->na,
                 want->failed, want->groups, want->flat_groups);
    assert_near(got->mean, want->mean, 1e-12 * fmax(1, fabs(want->mean)));
    assert_near(got->std, want->std, 1e-12 * fmax(1, want->std));
    assert_near(got->advantage_std, want->advantage_std, 1e-12 * fmax(1, want->advantage_std));
}

static void check_against_reference(mbl_comm_t *comm, bool group_std, double clip, bool weighted) {
    mbl_score_t score[K][N], summed[N];
    mbl_reward_stats_t stats[K];
    size_t parts = weighted ? K + 1 : K;
    float a[(K + 1) * N];
    reference_t want;
    size_t first = first_of(comm, comm->rank), n = first_of(comm, comm->rank + 1) - first;
    mbl_advantage_options_t options = {
        .group_std = group_std, .clip = clip, .weights = weighted ? weights : NULL};
    make_scores(score);
    weigh(score, summed);
    run(comm, &options, score, a, stats);
    for (size_t k = 0; k < parts; k++) {
        reference(k < K ? score[k] : summed, group_std, clip, &want);
        for (size_t i = 0; i < n; i++)
            assert_near(a[k * n + i], want.a[first + i],
                        want.a[first + i] == 0 ? 0 : 3.1e-8); /* half a rounding of 0.5; nothing is nothing */
        if (k < K)
            check_stats(&stats[k], &want.stats, k);
    }
    for (size_t i = parts * n; i < (K + 1) * N; i++)
        assert_near(a[i], 77, 0); /* nothing is written behind the parts asked for */
}

static void agrees_with_the_reference(void **state) {
    for (int group_std = 0; group_std < 2; group_std++)
        for (int weighted = 0; weighted < 2; weighted++) {
            check_against_reference(*state, group_std, 5, weighted);
            check_against_reference(*state, group_std, 0.7, weighted);
        }
}

/* The case above holds what it is meant to hold. */
static void reference_case_is_rich(void **state) {
    mbl_score_t score[K][N];
    reference_t r[K];
    size_t clipped = 0;
    (void)state;
    make_scores(score);
    for (size_t k = 0; k < K; k++)
        reference(score[k], false, 5, &r[k]);
    assert_int_equal(r[NOWHERE].stats.na, N);
    assert_int_equal(r[BROKEN].stats.valid, 0);
    assert_true(r[BROKEN].stats.failed > 0 && r[BROKEN].stats.na > 0);
    assert_int_equal(r[FLAT].stats.flat_groups, GROUPS / 2);
    assert_true(r[MIXED].stats.valid > 10 && r[MIXED].stats.failed > 5 && r[MIXED].stats.na > 5);
    for (size_t i = 0; i < N; i++)
        clipped += fabs(r[SPIKY].a[i]) == 0.5;
    assert_int_equal(clipped, 1);
}

/* What is not valid is exactly 0 and never enters a mean: changing its value changes nothing. */
static void invalid_samples_do_not_count(void **state) {
    mbl_score_t score[K][N], other[K][N];
    mbl_reward_stats_t stats[K], other_stats[K];
    float a[(K + 1) * N], b[(K + 1) * N];
    mbl_comm_t *comm = *state;
    size_t first = first_of(comm, comm->rank), n = first_of(comm, comm->rank + 1) - first;
    mbl_advantage_options_t options = {.clip = 5, .weights = weights};
    make_scores(score);
    memcpy(other, score, sizeof other);
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < N; i++)
            if (score[k][i].state != MBL_SCORE_VALID)
                other[k][i].value = NAN;
    run(comm, &options, score, a, stats);
    run(comm, &options, other, b, other_stats);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(stats, other_stats, sizeof stats);
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < n; i++)
            if (score[k][first + i].state != MBL_SCORE_VALID)
                assert_near(a[k * n + i], 0, 0);
}

/* gdpo's part: what reference() says of every reward, unclipped and summed, over the spread of all that
 * count. */
static void sum_of_advantages(void **state) {
    mbl_score_t score[K][N], summed[N];
    mbl_reward_stats_t stats[K];
    mbl_comm_t *comm = *state;
    float a[(K + 1) * N];
    double sum[N] = {0}, mean = 0, square = 0, count = 0;
    size_t first = first_of(comm, comm->rank), n = first_of(comm, comm->rank + 1) - first;
    mbl_advantage_options_t options = {.clip = 1.5, .weights = weights, .sum_advantages = true};
    make_scores(score);
    weigh(score, summed);
    for (size_t k = 0; k < K; k++) {
        reference_t r;
        reference(score[k], false, 1e4, &r); /* nothing reaches that clip */
        for (size_t i = 0; i < N; i++)
            sum[i] += weights[k] * 2e4 * r.a[i];
    }
    for (size_t i = 0; i < N; i++)
        if (summed[i].state == MBL_SCORE_VALID)
            mean += sum[i], square += sum[i] * sum[i], count++;
    mean /= count;
    double std = sqrt(square / count - mean * mean);
    run(comm, &options, score, a, stats);
    size_t nothing = 0, clipped = 0;
    for (size_t i = 0; i < n; i++) {
        double want = fmax(-1, fmin(1, (sum[first + i] - mean) / (std + 1e-4) / 1.5)) / 2;
        bool counts = summed[first + i].state == MBL_SCORE_VALID;
        assert_near(a[K * n + i], counts ? want : 0, counts ? 2e-6 : 0); /* the reference is in f32 */
        nothing += !counts;
        clipped += fabs(want) == 0.5 && counts;
    }
    if (comm->size == 1)
        assert_true(nothing >= 5 && clipped >= 1 && nothing + 2 * clipped < n);
    for (size_t k = 0; k < K; k++) { /* the rewards' own parts do not change */
        reference_t r;
        reference(score[k], false, 1.5, &r);
        for (size_t i = 0; i < n; i++)
            assert_near(a[k * n + i], r.a[first + i], 3.1e-8);
        check_stats(&stats[k], &r.stats, k);
    }
}

/* Two rewards, one a thousand times the other: gdpo hears both alike, the weighted sum only the larger. By
 * hand: A = +-1 and +-1 (but for 1e-4), so the sums are 2, 0, 0, -2 and their deviation is sqrt(2). */
static void scale_does_not_matter(void **state) {
    static const double alike[] = {1, 1};
    mbl_score_t scores[8] = {{1000, 0}, {1, 0}, {1000, 0}, {-1, 0}, {-1000, 0}, {1, 0}, {-1000, 0}, {-1, 0}};
    mbl_batch_t batch = {.n = 4, .n_global = 4, .group_size = 4, .k = 2, .scores = scores, .all = scores};
    mbl_reward_stats_t stats[2];
    float a[12];
    (void)state;
    float sum[4];
    mbl_advantage_options_t options = {.clip = 5, .weights = alike, .sum_advantages = true, .sum = sum};
    assert_int_equal(mbl_advantage(&options, &batch, a, stats), MBL_OK);
    assert_near(a[8], sqrt(2) / 10, 2e-5);
    assert_near(a[9], 0, 2e-5);
    assert_near(a[10], 0, 2e-5);
    assert_near(a[11], -sqrt(2) / 10, 2e-5);
    options.sum_advantages = false;
    assert_int_equal(mbl_advantage(&options, &batch, a, stats), MBL_OK);
    assert_near(a[8], 0.1, 2e-4);
    assert_near(a[9], 0.1, 2e-4);
}

/* Rewards that are not active are no part of the objective, whatever their scores: neither a failure nor a
 * value of theirs counts. */
static void only_active_rewards_add_up(void **state) {
    static const double uneven[] = {5, 1};
    static const bool active[] = {false, true};
    mbl_score_t scores[8] = {{0, MBL_SCORE_FAILED}, {1, MBL_SCORE_VALID},  {7, MBL_SCORE_VALID},
                             {1, MBL_SCORE_VALID},  {70, MBL_SCORE_VALID}, {-1, MBL_SCORE_VALID},
                             {9, MBL_SCORE_VALID},  {0, MBL_SCORE_NA}};
    mbl_batch_t batch = {.n = 4, .n_global = 4, .group_size = 4, .k = 2, .scores = scores, .all = scores};
    mbl_reward_stats_t stats[2];
    float a[12];
    (void)state;
    float sum[4];
    mbl_advantage_options_t options = {.clip = 5, .weights = uneven, .active = active, .sum = sum};
    for (int summed = 0; summed < 2; summed++) {
        options.sum_advantages = summed;
        assert_int_equal(mbl_advantage(&options, &batch, a, stats), MBL_OK);
        for (size_t i = 0; i < 4; i++)
            assert_near(a[8 + i], a[4 + i], summed ? 1e-4 : 0); /* the same but for std + 1e-4 */
        assert_near(a[8], 2 / 3.0 / sqrt(8 / 9.0) / 10, 1e-4);
        assert_near(a[11], 0, 0);
        assert_int_equal(stats[0].valid, 3); /* scored all the same */
        assert_int_equal(stats[0].failed, 1);
        assert_true(a[2] != 0);
    }
}

/* By hand: two groups of two. */
static void known_numbers(void **state) {
    mbl_score_t scores[4] = {{1, 0}, {3, 0}, {10, 0}, {14, 0}};
    mbl_batch_t batch = {.n = 4, .n_global = 4, .group_size = 2, .k = 1, .scores = scores, .all = scores};
    mbl_reward_stats_t stats;
    float a[4];
    (void)state;
    mbl_advantage_options_t options = {.clip = 5};
    assert_int_equal(mbl_advantage(&options, &batch, a, &stats), MBL_OK);
    double std = sqrt((36 + 16 + 9 + 49) / 4.0); /* around the mean of all, 7 */
    assert_near(stats.mean, 7, 1e-15);
    assert_near(a[0], -1 / (std + 1e-4) / 10, 1e-8);
    assert_near(a[3], 2 / (std + 1e-4) / 10, 1e-8);
    options.group_std = true;
    assert_int_equal(mbl_advantage(&options, &batch, a, &stats), MBL_OK);
    assert_near(a[0], -1 / 1.0001 / 10, 1e-8);
    assert_near(a[3], 2 / 2.0001 / 10, 1e-8);
    batch.k = 0;
    assert_int_equal(mbl_advantage(&options, &batch, a, &stats), MBL_ERR_ARG);
}

/* Several ranks, which hold parts of groups, give what one rank with all groups gives, bit for bit. */
static void ranks_equal_one_rank(void **state) {
    mbl_score_t score[K][N];
    mbl_reward_stats_t stats[K], whole_stats[K];
    float a[(K + 1) * N], whole[(K + 1) * N];
    mbl_comm_t *comm = *state, *self;
    size_t first = first_of(comm, comm->rank), n = first_of(comm, comm->rank + 1) - first;
    assert_int_equal(mbl_comm_open("self", 0, &self), MBL_OK);
    make_scores(score);
    for (int summed = 0; summed < 2; summed++) {
        mbl_advantage_options_t options = {.clip = 5, .weights = weights, .sum_advantages = summed};
        run(comm, &options, score, a, stats);
        run(self, &options, score, whole, whole_stats);
        assert_memory_equal(stats, whole_stats, sizeof stats);
        for (size_t k = 0; k <= K; k++)
            assert_memory_equal(a + k * n, whole + k * N + first, n * sizeof *a);
    }
    mbl_comm_close(self);
}

/* ---- the sources' own formulas (tests/golden/make_advantages.py) ---- */

enum { GOLDEN_K = 3, GOLDEN_N = 30 };

/* The objective's advantage: of golden scores `key`, in units of A. */
static void golden_advantage(json_t *golden, const char *key, mbl_advantage_options_t options, float *a,
                             uint8_t *valid) {
    mbl_score_t scores[GOLDEN_N * GOLDEN_K];
    mbl_reward_stats_t stats[GOLDEN_K];
    double golden_weights[GOLDEN_K];
    for (size_t k = 0; k < GOLDEN_K; k++) {
        golden_weights[k] = json_number_value(json_array_get(json_object_get(golden, "weights"), k));
        for (size_t i = 0; i < GOLDEN_N; i++) {
            json_t *value = json_array_get(json_array_get(json_object_get(golden, key), k), i);
            scores[i * GOLDEN_K + k] = json_is_null(value)
                                           ? (mbl_score_t){0, MBL_SCORE_NA}
                                           : (mbl_score_t){json_number_value(value), MBL_SCORE_VALID};
        }
    }
    mbl_batch_t batch = {
        .n = GOLDEN_N, .n_global = GOLDEN_N, .group_size = 6, .k = GOLDEN_K, .scores = scores, .all = scores};
    float sum[GOLDEN_N];
    options.sum = sum;
    options.clip = 10; /* nothing reaches it */
    options.weights = golden_weights;
    options.valid = valid;
    assert_int_equal(mbl_advantage(&options, &batch, a, stats), MBL_OK);
}

static void check_golden(json_t *golden, const char *key, const float *a, double tolerance) {
    for (size_t i = 0; i < GOLDEN_N; i++) {
        double want = json_number_value(json_array_get(json_object_get(golden, key), i));
        double got = 20 * (double)a[GOLDEN_K * GOLDEN_N + i];
        if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
            fail_msg("%s %zu: %.9g, the source has %.9g", key, i, got, want);
    }
}

static void agrees_with_the_sources(void **state) {
    json_error_t error;
    json_t *golden = json_load_file(MBL_SOURCE_DIR "/tests/golden/advantages.json", 0, &error);
    float a[(GOLDEN_K + 1) * GOLDEN_N];
    uint8_t valid[(GOLDEN_K + 1) * GOLDEN_N];
    (void)state;
    if (!golden)
        fail_msg("advantages.json: %s", error.text);
    golden_advantage(golden, "gaps", (mbl_advantage_options_t){.weighted_mean = true}, a, valid);
    check_golden(golden, "weighted_mean", a, 1e-6);
    for (size_t k = 0; k <= GOLDEN_K; k++) /* the objective counts every sample that a reward applies to */
        for (size_t i = 0; i < GOLDEN_N; i++)
            assert_int_equal(valid[k * GOLDEN_N + i],
                             k == GOLDEN_K || !json_is_null(json_array_get(
                                                  json_array_get(json_object_get(golden, "gaps"), k), i)));
    golden_advantage(golden, "whole", (mbl_advantage_options_t){.sum_advantages = true, .group_std = true}, a,
                     valid);
    check_golden(golden, "gdpo_n", a, 1e-6);
    check_golden(golden, "gdpo", a,
                 1.0 / 30); /* deviations over n - 1 cancel out, but for the last: n = 30 */
    json_decref(golden);
}

int main(void) {
    mbl_comm_t *comm = open_ranks();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(agrees_with_the_reference, comm),
        cmocka_unit_test(reference_case_is_rich),
        cmocka_unit_test_prestate(invalid_samples_do_not_count, comm),
        cmocka_unit_test_prestate(sum_of_advantages, comm),
        cmocka_unit_test(scale_does_not_matter),
        cmocka_unit_test(known_numbers),
        cmocka_unit_test(agrees_with_the_sources),
        cmocka_unit_test(only_active_rewards_add_up),
        cmocka_unit_test_prestate(ranks_equal_one_rank, comm),
    };
    if (!comm)
        return 1;
    int failed = cmocka_run_group_tests_name("advantage", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
