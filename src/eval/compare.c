/* Bootstrap intervals, paired comparisons, z-scores. */
#include "eval/compare.h"

#include "base/mem.h"
#include "base/rng.h"
#include "rl/types.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- bootstrap over prompts ---- */

/* Values of images, added up by prompt: sum and count [prompts, columns] of the m prompts in which anything
 * counts. The statistic is the mean over the columns of sum / count. */
typedef struct {
    double *sum, *count, *resampled;
    size_t columns, m;
} heap_t;

static void free_heap(heap_t *heap) {
    mbl_free(heap->sum);
    mbl_free(heap->count);
    mbl_free(heap->resampled);
}

/* Room for every statistic of a table. */
static mbl_status_t make_heap(const mbl_compare_t *c, heap_t *out) {
    heap_t heap = {.columns = 1};
    size_t columns = c->k ? c->k : 1;
    heap.sum = mbl_calloc(c->prompts, columns * sizeof *heap.sum);
    heap.count = mbl_calloc(c->prompts, columns * sizeof *heap.count);
    heap.resampled = mbl_calloc(c->resamples, sizeof *heap.resampled);
    if (!heap.sum || !heap.count || !heap.resampled) {
        free_heap(&heap);
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the intervals of %zu prompts", c->prompts);
    }
    *out = heap;
    return MBL_OK;
}

static void empty_heap(const mbl_compare_t *c, size_t columns, heap_t *heap) {
    heap->columns = columns;
    memset(heap->sum, 0, c->prompts * columns * sizeof *heap->sum);
    memset(heap->count, 0, c->prompts * columns * sizeof *heap->count);
}

static void put(heap_t *heap, size_t prompt, size_t column, double value) {
    heap->sum[prompt * heap->columns + column] += value;
    heap->count[prompt * heap->columns + column]++;
}

/* Moves the prompts in which something counts to the front. */
static void drop_unused(const mbl_compare_t *c, heap_t *heap) {
    size_t columns = heap->columns;
    heap->m = 0;
    for (size_t p = 0; p < c->prompts; p++) {
        double counts = 0;
        for (size_t j = 0; j < columns; j++)
            counts += heap->count[p * columns + j];
        if (counts == 0)
            continue;
        memmove(heap->sum + heap->m * columns, heap->sum + p * columns, columns * sizeof *heap->sum);
        memmove(heap->count + heap->m * columns, heap->count + p * columns, columns * sizeof *heap->count);
        heap->m++;
    }
}

/* The statistic of m prompts, all of them in turn or (rng) drawn with replacement. */
static double statistic(const heap_t *heap, mbl_rng_t *rng) {
    double sum[MBL_MAX_REWARDS] = {0}, count[MBL_MAX_REWARDS] = {0}, total = 0;
    size_t columns = heap->columns, used = 0;
    for (size_t i = 0; i < heap->m; i++) {
        size_t at = (rng ? mbl_rng_below(rng, (uint32_t)heap->m) : i) * columns;
        for (size_t j = 0; j < columns; j++) {
            sum[j] += heap->sum[at + j];
            count[j] += heap->count[at + j];
        }
    }
    for (size_t j = 0; j < columns; j++)
        if (count[j] > 0) {
            total += sum[j] / count[j];
            used++;
        }
    return used ? total / (double)used : NAN;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between order statistics, at (n - 1) share (Hyndman and Fan's type 7, numpy's default). */
static double quantile(const double *sorted, size_t n, double share) {
    double at = (double)(n - 1) * share;
    size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

static mbl_interval_t interval(const mbl_compare_t *c, heap_t *heap) {
    drop_unused(c, heap);
    mbl_interval_t out = {statistic(heap, NULL), NAN, NAN, heap->m};
    if (heap->m < 2 || c->resamples == 0)
        return out;
    for (size_t r = 0; r < c->resamples; r++) {
        mbl_rng_t rng = mbl_rng(c->seed, MBL_RNG_STUDY, 0, r);
        heap->resampled[r] = statistic(heap, &rng);
    }
    qsort(heap->resampled, c->resamples, sizeof *heap->resampled, rising);
    out.low = quantile(heap->resampled, c->resamples, 0.025);
    out.high = quantile(heap->resampled, c->resamples, 0.975);
    return out;
}

/* ---- z-scores ---- */

/* Twice over the scores: first the means, then the squares about them. */
void mbl_compare_scale(size_t images, size_t k, const mbl_score_t *const *tables, size_t n, double *mean,
                       double *deviation) {
    for (size_t j = 0; j < k; j++) {
        double count = 0, sum = 0, squares = 0;
        for (size_t t = 0; t < n; t++)
            for (size_t i = 0; i < images; i++) {
                const mbl_score_t *score = &tables[t][i * k + j];
                count += score->state == MBL_SCORE_VALID;
                sum += score->state == MBL_SCORE_VALID ? score->value : 0;
            }
        mean[j] = count > 0 ? sum / count : NAN;
        for (size_t t = 0; t < n; t++)
            for (size_t i = 0; i < images; i++) {
                const mbl_score_t *score = &tables[t][i * k + j];
                double away = score->state == MBL_SCORE_VALID ? score->value - mean[j] : 0;
                squares += away * away;
            }
        deviation[j] = count > 0 ? sqrt(squares / count) : NAN;
        if (deviation[j] <= 1e-12 * fabs(mean[j])) /* equal scores: what is left is rounding */
            deviation[j] = 0;
    }
}

static double z_of(double away, double deviation) {
    return deviation > 0 ? away / deviation : 0;
}

/* ---- one candidate ---- */

static mbl_compare_score_t reward_mean(const mbl_compare_t *c, const mbl_score_t *scores, size_t j,
                                       heap_t *heap) {
    mbl_compare_score_t out = {.n = 0};
    empty_heap(c, 1, heap);
    for (size_t i = 0; i < c->images; i++) {
        const mbl_score_t *score = &scores[i * c->k + j];
        out.n += score->state == MBL_SCORE_VALID;
        out.na += score->state == MBL_SCORE_NA;
        out.failed += score->state == MBL_SCORE_FAILED;
        if (score->state == MBL_SCORE_VALID)
            put(heap, c->prompt[i], 0, score->value);
    }
    out.mean = interval(c, heap);
    return out;
}

static mbl_compare_score_t composite_mean(const mbl_compare_t *c, const mbl_score_t *scores,
                                          const double *mean, const double *deviation, heap_t *heap) {
    mbl_compare_score_t out = {.n = 0};
    empty_heap(c, c->k, heap);
    for (size_t i = 0; i < c->images; i++) {
        size_t valid = 0, failed = 0;
        for (size_t j = 0; j < c->k; j++) {
            const mbl_score_t *score = &scores[i * c->k + j];
            failed += score->state == MBL_SCORE_FAILED;
            if (score->state != MBL_SCORE_VALID)
                continue;
            put(heap, c->prompt[i], j, z_of(score->value - mean[j], deviation[j]));
            valid++;
        }
        out.n += valid > 0;
        out.failed += valid == 0 && failed > 0;
        out.na += valid == 0 && failed == 0;
    }
    out.mean = interval(c, heap);
    return out;
}

mbl_status_t mbl_compare_scores(const mbl_compare_t *c, const mbl_score_t *scores, const double *mean,
                                const double *deviation, mbl_compare_score_t *out) {
    heap_t heap;
    MBL_REQUIRE(c->k <= MBL_MAX_REWARDS, "compare: %zu rewards; at most %d fit", c->k, MBL_MAX_REWARDS);
    MBL_TRY(make_heap(c, &heap));
    for (size_t j = 0; j < c->k; j++)
        out[j] = reward_mean(c, scores, j, &heap);
    out[c->k] = composite_mean(c, scores, mean, deviation, &heap);
    free_heap(&heap);
    return MBL_OK;
}

/* ---- two candidates ---- */

/* b - a of image i in reward j, when both are valid. */
static bool both(const mbl_compare_t *c, const mbl_score_t *a, const mbl_score_t *b, size_t i, size_t j,
                 double *difference) {
    const mbl_score_t *x = &a[i * c->k + j], *y = &b[i * c->k + j];
    *difference = y->value - x->value;
    return x->state == MBL_SCORE_VALID && y->state == MBL_SCORE_VALID;
}

/* How image i does: the difference in reward j or (j = k) the mean of its z-scores' differences. False when
 * it does not count. */
static bool image(const mbl_compare_t *c, const mbl_score_t *a, const mbl_score_t *b, const double *deviation,
                  size_t i, size_t j, double *difference) {
    double sum = 0, one;
    size_t n = 0;
    if (j < c->k)
        return both(c, a, b, i, j, difference);
    for (size_t l = 0; l < c->k; l++)
        if (both(c, a, b, i, l, &one)) {
            sum += z_of(one, deviation[l]);
            n++;
        }
    *difference = n ? sum / (double)n : 0;
    return n > 0;
}

/* Into the heap: for a reward its differences in one column, for the composite every reward's in its own. */
static void put_differences(const mbl_compare_t *c, const mbl_score_t *a, const mbl_score_t *b,
                            const double *deviation, size_t j, heap_t *heap) {
    double difference;
    empty_heap(c, j < c->k ? 1 : c->k, heap);
    for (size_t i = 0; i < c->images; i++) {
        if (j < c->k && both(c, a, b, i, j, &difference))
            put(heap, c->prompt[i], 0, difference);
        for (size_t l = 0; j == c->k && l < c->k; l++)
            if (both(c, a, b, i, l, &difference))
                put(heap, c->prompt[i], l, z_of(difference, deviation[l]));
    }
}

static mbl_compare_pair_t compare_column(const mbl_compare_t *c, const mbl_score_t *a, const mbl_score_t *b,
                                         const double *deviation, size_t j, heap_t *heap) {
    mbl_compare_pair_t out = {.n = 0};
    double difference;
    put_differences(c, a, b, deviation, j, heap);
    out.difference = interval(c, heap);
    empty_heap(c, 1, heap);
    for (size_t i = 0; i < c->images; i++) {
        if (!image(c, a, b, deviation, i, j, &difference))
            continue;
        out.n++;
        out.won += difference > 0;
        out.tied += difference == 0;
        out.lost += difference < 0;
        put(heap, c->prompt[i], 0, difference > 0 ? 1 : difference == 0 ? 0.5 : 0);
    }
    out.win_rate = interval(c, heap);
    return out;
}

mbl_status_t mbl_compare_pair(const mbl_compare_t *c, const mbl_score_t *a, const mbl_score_t *b,
                              const double *deviation, mbl_compare_pair_t *out) {
    heap_t heap;
    MBL_REQUIRE(c->k <= MBL_MAX_REWARDS, "compare: %zu rewards; at most %d fit", c->k, MBL_MAX_REWARDS);
    MBL_TRY(make_heap(c, &heap));
    for (size_t j = 0; j <= c->k; j++)
        out[j] = compare_column(c, a, b, deviation, j, &heap);
    free_heap(&heap);
    return MBL_OK;
}
