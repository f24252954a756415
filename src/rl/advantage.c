/* Independent advantage estimators. */
#include "rl/advantage.h"

#include <math.h>
#include <string.h>

/* Sums of one objective over the samples of this rank, then of all ranks. */
typedef struct {
    double valid, na, failed, sum, squares, advantage_squares, groups, flat_groups;
} sums_t;
enum { N_SUMS = sizeof(sums_t) / sizeof(double) };

typedef struct {
    const mbl_batch_t *batch;
    const mbl_advantage_options_t *options;
    size_t part; /* reward, or K for the weighted objective */
} objective_t;

static bool is_active(const mbl_advantage_options_t *options, size_t k) {
    return !options->active || options->active[k];
}

static mbl_score_t score_of(const objective_t *objective, size_t i) {
    const mbl_score_t *scores = objective->batch->scores + i * objective->batch->k;
    if (objective->part < objective->batch->k)
        return scores[objective->part];
    mbl_score_t sum = {0, MBL_SCORE_NA};
    double weights = 0;
    for (size_t k = 0; k < objective->batch->k; k++) {
        if (!is_active(objective->options, k))
            continue;
        if (scores[k].state == MBL_SCORE_FAILED)
            return (mbl_score_t){0, MBL_SCORE_FAILED};
        if (scores[k].state == MBL_SCORE_VALID) {
            sum.value += objective->options->weights[k] * scores[k].value;
            sum.state = MBL_SCORE_VALID;
            weights += objective->options->weights[k];
        }
    }
    if (objective->options->weighted_mean && weights > 0)
        sum.value /= weights;
    return sum;
}

static void count_states(const objective_t *objective, sums_t *sums) {
    for (size_t i = 0; i < objective->batch->n; i++) {
        mbl_score_t score = score_of(objective, i);
        sums->valid += score.state == MBL_SCORE_VALID;
        sums->na += score.state == MBL_SCORE_NA;
        sums->failed += score.state == MBL_SCORE_FAILED;
        sums->sum += score.state == MBL_SCORE_VALID ? score.value : 0;
    }
}

static void square_deviations(const objective_t *objective, double mean, sums_t *sums) {
    for (size_t i = 0; i < objective->batch->n; i++) {
        mbl_score_t score = score_of(objective, i);
        if (score.state == MBL_SCORE_VALID)
            sums->squares += (score.value - mean) * (score.value - mean);
    }
}

static float clipped(double advantage, double clip) {
    return (float)(fmax(-1, fmin(1, advantage / clip)) / 2);
}

/* Advantages of one prompt group into a[0..group_size-1]; where they are to be summed, also added to sum_a.
 */
static void group_advantages(const objective_t *objective, size_t first, double std, float *a, float *sum_a,
                             sums_t *sums) {
    float *unclipped = objective->options->unclipped && objective->part < objective->batch->k
                           ? objective->options->unclipped + objective->part * objective->batch->n + first
                           : NULL;
    size_t size = objective->batch->group_size, valid = 0;
    double sum = 0, squares = 0, low = INFINITY, high = -INFINITY;
    for (size_t i = first; i < first + size; i++) {
        mbl_score_t score = score_of(objective, i);
        if (score.state != MBL_SCORE_VALID)
            continue;
        valid++;
        sum += score.value;
        low = fmin(low, score.value);
        high = fmax(high, score.value);
    }
    double mean = valid ? sum / (double)valid : 0;
    for (size_t i = first; i < first + size; i++) {
        mbl_score_t score = score_of(objective, i);
        squares += score.state == MBL_SCORE_VALID ? (score.value - mean) * (score.value - mean) : 0;
    }
    bool flat = valid >= 2 && high == low;
    sums->groups += valid >= 2;
    sums->flat_groups += flat;
    if (objective->options->group_std)
        std = valid ? sqrt(squares / (double)valid) : 0;
    for (size_t i = 0; i < size; i++) {
        mbl_score_t score = score_of(objective, first + i);
        double advantage = score.state == MBL_SCORE_VALID && !flat ? (score.value - mean) / (std + 1e-4) : 0;
        sums->advantage_squares += advantage * advantage;
        a[i] = clipped(advantage, objective->options->clip);
        if (unclipped)
            unclipped[i] = score.state == MBL_SCORE_VALID ? (float)advantage : NAN;
        if (sum_a)
            sum_a[i] += (float)(objective->options->weights[objective->part] * advantage);
    }
}

/* From sums of advantages in a [n] to their clipped advantage: centred and scaled over all ranks' samples
 * that count; 0 for the others. Collective. */
static mbl_status_t batch_advantages(mbl_comm_t *comm, const objective_t *objective, double valid, float *a) {
    size_t n = objective->batch->n;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += score_of(objective, i).state == MBL_SCORE_VALID ? (double)a[i] : 0;
    MBL_TRY(mbl_comm_allreduce(comm, &sum, 1, MBL_COMM_F64, MBL_COMM_SUM));
    double mean = valid > 0 ? sum / valid : 0;
    for (size_t i = 0; i < n; i++)
        squares += score_of(objective, i).state == MBL_SCORE_VALID ? (a[i] - mean) * (a[i] - mean) : 0;
    MBL_TRY(mbl_comm_allreduce(comm, &squares, 1, MBL_COMM_F64, MBL_COMM_SUM));
    double std = valid > 0 ? sqrt(squares / valid) : 0;
    for (size_t i = 0; i < n; i++) {
        bool counts = score_of(objective, i).state == MBL_SCORE_VALID;
        a[i] = counts ? clipped((a[i] - mean) / (std + 1e-4), objective->options->clip) : 0;
    }
    return MBL_OK;
}

mbl_status_t mbl_advantage(mbl_comm_t *comm, const mbl_advantage_options_t *options, const mbl_batch_t *batch,
                           float *a, mbl_reward_stats_t *stats) {
    sums_t sums[MBL_MAX_REWARDS + 1], local[MBL_MAX_REWARDS + 1];
    size_t parts = batch->k + (options->weights != NULL);
    MBL_REQUIRE(batch->k >= 1 && batch->k <= MBL_MAX_REWARDS, "%zu rewards; 1 to %d are possible", batch->k,
                MBL_MAX_REWARDS);
    memset(sums, 0, sizeof sums);
    memset(local, 0, sizeof local);
    for (size_t part = 0; part < parts; part++)
        count_states(&(objective_t){batch, options, part}, &sums[part]);
    MBL_TRY(mbl_comm_allreduce(comm, sums, parts * N_SUMS, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t part = 0; part < parts; part++)
        square_deviations(&(objective_t){batch, options, part},
                          sums[part].valid > 0 ? sums[part].sum / sums[part].valid : 0, &local[part]);
    MBL_TRY(mbl_comm_allreduce(comm, local, parts * N_SUMS, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t part = 0; part < parts; part++)
        sums[part].squares = local[part].squares;
    memset(local, 0, sizeof local);
    float *sum_a = options->weights && options->sum_advantages ? a + batch->k * batch->n : NULL;
    if (sum_a)
        memset(sum_a, 0, batch->n * sizeof *sum_a);
    for (size_t part = 0; part < (sum_a ? batch->k : parts); part++) {
        double std = sums[part].valid > 0 ? sqrt(sums[part].squares / sums[part].valid) : 0;
        for (size_t first = 0; first < batch->n; first += batch->group_size)
            group_advantages(&(objective_t){batch, options, part}, first, std, a + part * batch->n + first,
                             sum_a && is_active(options, part) ? sum_a + first : NULL, &local[part]);
    }
    if (sum_a)
        MBL_TRY(
            batch_advantages(comm, &(objective_t){batch, options, batch->k}, sums[batch->k].valid, sum_a));
    for (size_t part = 0; options->valid && part < parts; part++)
        for (size_t i = 0; i < batch->n; i++)
            options->valid[part * batch->n + i] =
                score_of(&(objective_t){batch, options, part}, i).state == MBL_SCORE_VALID;
    MBL_TRY(mbl_comm_allreduce(comm, local, parts * N_SUMS, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t k = 0; k < batch->k; k++) {
        double valid = sums[k].valid;
        stats[k] =
            (mbl_reward_stats_t){.mean = valid > 0 ? sums[k].sum / valid : 0,
                                 .std = valid > 0 ? sqrt(sums[k].squares / valid) : 0,
                                 .advantage_std = valid > 0 ? sqrt(local[k].advantage_squares / valid) : 0,
                                 .valid = (size_t)valid,
                                 .na = (size_t)sums[k].na,
                                 .failed = (size_t)sums[k].failed,
                                 .groups = (size_t)local[k].groups,
                                 .flat_groups = (size_t)local[k].flat_groups};
    }
    return MBL_OK;
}
