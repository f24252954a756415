/* Independent advantage estimators. */
#include "rl/advantage.h"

#include <math.h>
#include <string.h>

/* Sums of one objective over the samples of all ranks. */
typedef struct {
    size_t valid, na, failed, groups, flat_groups;
    double mean, std, advantage_squares;
} sums_t;

typedef struct {
    const mbl_batch_t *batch;
    const mbl_advantage_options_t *options;
    size_t part; /* reward, or K for the weighted objective */
} objective_t;

static bool is_active(const mbl_advantage_options_t *options, size_t k) {
    return !options->active || options->active[k];
}

/* Of image i of all ranks. */
static mbl_score_t score_of(const objective_t *objective, size_t i) {
    const mbl_score_t *scores = objective->batch->all + i * objective->batch->k;
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

static bool is_valid(const objective_t *objective, size_t i) {
    return score_of(objective, i).state == MBL_SCORE_VALID;
}

/* Whether image i of all ranks is one of this rank's, and then which. */
static bool is_here(const mbl_batch_t *batch, size_t i, size_t *at) {
    *at = i - batch->first;
    return i >= batch->first && *at < batch->n;
}

static void measure(const objective_t *objective, sums_t *sums) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < objective->batch->n_global; i++) {
        mbl_score_t score = score_of(objective, i);
        sums->valid += score.state == MBL_SCORE_VALID;
        sums->na += score.state == MBL_SCORE_NA;
        sums->failed += score.state == MBL_SCORE_FAILED;
        sum += score.state == MBL_SCORE_VALID ? score.value : 0;
    }
    if (sums->valid == 0)
        return;
    sums->mean = sum / (double)sums->valid;
    for (size_t i = 0; i < objective->batch->n_global; i++) {
        mbl_score_t score = score_of(objective, i);
        if (score.state == MBL_SCORE_VALID)
            squares += (score.value - sums->mean) * (score.value - sums->mean);
    }
    sums->std = sqrt(squares / (double)sums->valid);
}

static float clipped(double advantage, double clip) {
    return (float)(fmax(-1, fmin(1, advantage / clip)) / 2);
}

/* Advantages of the prompt group that begins at image `first`: those of this rank's images into a [n], before
 * clipping into unclipped [n] (NULL: not wanted); where they are to be summed, those of all images are added
 * to sum_a [n_global]. */
static void group_advantages(const objective_t *objective, size_t first, float *a, float *unclipped,
                             float *sum_a, sums_t *sums) {
    double std = sums->std;
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
    for (size_t i = first, at; i < first + size; i++) {
        mbl_score_t score = score_of(objective, i);
        double advantage = score.state == MBL_SCORE_VALID && !flat ? (score.value - mean) / (std + 1e-4) : 0;
        sums->advantage_squares += advantage * advantage;
        if (sum_a)
            sum_a[i] += (float)(objective->options->weights[objective->part] * advantage);
        if (!is_here(objective->batch, i, &at))
            continue;
        a[at] = clipped(advantage, objective->options->clip);
        if (unclipped)
            unclipped[at] = score.state == MBL_SCORE_VALID ? (float)advantage : NAN;
    }
}

/* From the sums of advantages sum_a [n_global] to the clipped advantage a [n] of the part of its own: centred
 * and scaled over all images that count; 0 for the others. */
static void batch_advantages(const objective_t *objective, const float *sum_a, size_t valid, float *a) {
    const mbl_batch_t *batch = objective->batch;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < batch->n_global; i++)
        sum += is_valid(objective, i) ? (double)sum_a[i] : 0;
    double mean = valid > 0 ? sum / (double)valid : 0;
    for (size_t i = 0; i < batch->n_global; i++)
        squares += is_valid(objective, i) ? (sum_a[i] - mean) * (sum_a[i] - mean) : 0;
    double std = valid > 0 ? sqrt(squares / (double)valid) : 0;
    for (size_t i = 0; i < batch->n; i++)
        a[i] = is_valid(objective, batch->first + i)
                   ? clipped((sum_a[batch->first + i] - mean) / (std + 1e-4), objective->options->clip)
                   : 0;
}

/* One part, all groups; sum_a as above. */
static void part_advantages(const objective_t *objective, float *a, float *sum_a, sums_t *sums) {
    const mbl_batch_t *batch = objective->batch;
    const mbl_advantage_options_t *options = objective->options;
    const size_t part = objective->part;
    float *unclipped = options->unclipped && part < batch->k ? options->unclipped + part * batch->n : NULL;
    if (sum_a && !is_active(options, part))
        sum_a = NULL;
    for (size_t first = 0; first < batch->n_global; first += batch->group_size)
        group_advantages(objective, first, a + part * batch->n, unclipped, sum_a, sums);
}

static void mark_valid(const objective_t *objective) {
    const mbl_batch_t *batch = objective->batch;
    for (size_t i = 0; objective->options->valid && i < batch->n; i++)
        objective->options->valid[objective->part * batch->n + i] = is_valid(objective, batch->first + i);
}

static mbl_reward_stats_t stats_of(const sums_t *sums) {
    double valid = (double)sums->valid;
    return (mbl_reward_stats_t){.mean = sums->mean,
                                .std = sums->std,
                                .advantage_std = valid > 0 ? sqrt(sums->advantage_squares / valid) : 0,
                                .valid = sums->valid,
                                .na = sums->na,
                                .failed = sums->failed,
                                .groups = sums->groups,
                                .flat_groups = sums->flat_groups};
}

mbl_status_t mbl_advantage(const mbl_advantage_options_t *options, const mbl_batch_t *batch, float *a,
                           mbl_reward_stats_t *stats) {
    const bool own = options->weights != NULL, summed = own && options->sum_advantages;
    MBL_REQUIRE(batch->k >= 1 && batch->k <= MBL_MAX_REWARDS, "%zu rewards; 1 to %d are possible", batch->k,
                MBL_MAX_REWARDS);
    MBL_REQUIRE(batch->n_global % batch->group_size == 0 && batch->first + batch->n <= batch->n_global,
                "advantages of images %zu to %zu of %zu in groups of %zu", batch->first,
                batch->first + batch->n, batch->n_global, batch->group_size);
    MBL_REQUIRE(!summed || options->sum, "sums of advantages without room for them");
    if (summed)
        memset(options->sum, 0, batch->n_global * sizeof *options->sum);
    for (size_t part = 0; part < batch->k + own; part++) {
        const objective_t objective = {batch, options, part};
        sums_t sums = {0};
        measure(&objective, &sums);
        if (summed && part == batch->k)
            batch_advantages(&objective, options->sum, sums.valid, a + part * batch->n);
        else
            part_advantages(&objective, a, summed ? options->sum : NULL, &sums);
        mark_valid(&objective);
        if (part < batch->k)
            stats[part] = stats_of(&sums);
    }
    return MBL_OK;
}
