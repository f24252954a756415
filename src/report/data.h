/* What a run has written about itself, as columns of numbers. */
#ifndef MBL_REPORT_DATA_H
#define MBL_REPORT_DATA_H

#include "base/status.h"
#include "config/yaml.h"

#include <jansson.h>
#include <stdbool.h>

/* Columns of a step; those of reward k begin at MBL_RUN_REWARDS + k * MBL_RUN_EACH. */
enum {
    MBL_RUN_STEP,
    MBL_RUN_EPOCH,
    MBL_RUN_LOSS,
    MBL_RUN_KL,
    MBL_RUN_LR,
    MBL_RUN_GRAD_NORM,
    MBL_RUN_OLD_LAG,
    MBL_RUN_COS_MIN,
    MBL_RUN_IMAGES, /* of the step: its share of the epoch's */
    MBL_RUN_CALLS,  /* to reward servers, of the epoch */
    MBL_RUN_ROLLOUT,
    MBL_RUN_REWARD_WAIT,
    MBL_RUN_TRAIN,
    MBL_RUN_GRAM,
    MBL_RUN_QP,
    MBL_RUN_CHECKPOINT,
    MBL_RUN_TOTAL,
    MBL_RUN_REWARDS
};
enum {
    MBL_RUN_MEAN,
    MBL_RUN_ALPHA,
    MBL_RUN_COS,
    MBL_RUN_TRAINED,
    MBL_RUN_SCORED,
    MBL_RUN_FAILED,
    MBL_RUN_EACH
};

typedef struct {
    const char *folder;
    char title[256];         /* the folder's own name */
    size_t k, n, columns;    /* rewards, steps */
    const char **names;      /* [k], of `last` */
    double *numbers;         /* [columns, n]; NAN where a line has none */
    json_t *last, *evals;    /* the last line of metrics.jsonl; all lines of eval.jsonl */
    char *yaml;              /* run.yaml, "" where there is none */
    mbl_yaml_node_t *config; /* the same as a tree; NULL where it cannot be read */
} mbl_run_data_t;

/* ERR_USAGE where the folder holds no line of metrics.jsonl. Free with mbl_run_data_free, after a failure
 * too. */
mbl_status_t mbl_run_data_read(const char *folder, mbl_run_data_t *out);
void mbl_run_data_free(mbl_run_data_t *data);

const double *mbl_run_column(const mbl_run_data_t *data, size_t column);
const double *mbl_run_reward(const mbl_run_data_t *data, size_t k, size_t column);
/* The sum of a column: over its steps, or over its epochs, whose lines repeat it. */
double mbl_run_sum(const mbl_run_data_t *data, const double *column, bool by_epoch);

/* A value of an evaluation's line for reward k: "mean", "ci95", "change", ...; NAN without one. */
double mbl_run_eval(const mbl_run_data_t *data, size_t line, size_t k, const char *field);
/* The text of run.yaml at "train.lr"; NULL without one. */
const char *mbl_run_key(const mbl_run_data_t *data, const char *key);

#endif
