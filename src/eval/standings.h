/* What a line-up's scores say: means, pairs and z-scores of every prompt set and of all of them together, as
 * a table, Markdown or JSON. Local: every rank has the scores, one writes. */
#ifndef MBL_TRAIN_STANDINGS_H
#define MBL_TRAIN_STANDINGS_H

#include "eval/compare.h"
#include "eval/lineup.h"

#include <jansson.h>
#include <stdio.h>

/* One prompt set, or all. Columns: the rewards, then the composite. */
typedef struct {
    const char *name;            /* NULL: all sets */
    size_t prompts, pictures;    /* of each entrant */
    mbl_compare_score_t *scores; /* [entrants, K + 1] */
    mbl_compare_pair_t *pairs;   /* [pairs, K + 1]: (0, 1), (0, 2), (1, 2), (0, 3), ... */
} mbl_standings_part_t;

typedef struct {
    const mbl_lineup_t *lineup;
    size_t resamples, n_pairs, n_parts;
    double mean[MBL_MAX_REWARDS],
        deviation[MBL_MAX_REWARDS]; /* of the z-scores, over all sets and entrants */
    mbl_standings_part_t *parts;    /* the sets; then, where several, all */
} mbl_standings_t;

/* The line-up has to stay. Free with mbl_standings_free. */
mbl_status_t mbl_standings_new(const mbl_lineup_t *lineup, size_t resamples, mbl_standings_t *out);
void mbl_standings_free(mbl_standings_t *standings);

mbl_status_t mbl_standings_print(const mbl_standings_t *standings, bool markdown, FILE *out);
/* Keys are in README.md; release with json_decref. */
mbl_status_t mbl_standings_json(const mbl_standings_t *standings, json_t **out);

#endif
