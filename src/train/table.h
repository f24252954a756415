/* The table of a run under way, for a terminal: every reward's base, now and change on the held-out prompts,
 * its mean in training with the course of it, alpha and cosine; and how far the run is. */
#ifndef MBL_TRAIN_TABLE_H
#define MBL_TRAIN_TABLE_H

#include "run/events.h"

enum { MBL_TABLE_COURSE = 24 };

/* Zeroed to begin with. */
typedef struct {
    mbl_eval_score_t now[MBL_MAX_REWARDS], change[MBL_MAX_REWARDS];
    bool evaluated;
    double course[MBL_MAX_REWARDS][MBL_TABLE_COURSE]; /* means of `every` steps each, the last under way */
    size_t taken[MBL_MAX_REWARDS];                    /* steps in the last of them that had a mean */
    size_t filled, steps, every;                      /* steps: in the last one */
} mbl_train_table_t;

void mbl_table_evaluated(mbl_train_table_t *table, const mbl_event_eval_t *e, size_t k);
/* Adds the step to the courses, and shows the table where there is a screen; base [K] is of the base model.
 */
void mbl_table_step(mbl_train_table_t *table, const mbl_event_step_t *step, const mbl_eval_score_t *base);

#endif
