/* What a comparison's scores say: means, pairs and z-scores of every prompt set and of all of them together,
 * as a table, Markdown or JSON. Local: every rank has the scores, one writes. */
#ifndef MBL_TRAIN_RESULTS_H
#define MBL_TRAIN_RESULTS_H

#include "eval/compare.h"
#include "eval/comparison.h"

#include <jansson.h>
#include <stdio.h>

/* One prompt set, or all. Columns: the rewards, then the composite. */
typedef struct {
    const char *name;            /* NULL: all sets */
    size_t prompts, images;      /* of each candidate */
    mbl_compare_score_t *scores; /* [candidates, K + 1] */
    mbl_compare_pair_t *pairs;   /* [pairs, K + 1]: (0, 1), (0, 2), (1, 2), (0, 3), ... */
} mbl_results_part_t;

typedef struct {
    const mbl_comparison_t *comparison;
    size_t resamples, n_pairs, n_parts;
    double mean[MBL_MAX_REWARDS],
        deviation[MBL_MAX_REWARDS]; /* of the z-scores, over all sets and candidates */
    mbl_results_part_t *parts;      /* the sets; then, where several, all */
} mbl_results_t;

/* The comparison has to stay. Free with mbl_results_free. */
mbl_status_t mbl_results_new(const mbl_comparison_t *comparison, size_t resamples, mbl_results_t *out);
void mbl_results_free(mbl_results_t *results);

mbl_status_t mbl_results_print(const mbl_results_t *results, bool markdown, FILE *out);
/* Keys are in README.md; release with json_decref. */
mbl_status_t mbl_results_json(const mbl_results_t *results, json_t **out);

#endif
