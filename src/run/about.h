/* How far the run of a folder is, from its files alone. */
#ifndef MBL_RUN_ABOUT_H
#define MBL_RUN_ABOUT_H

#include "run/holder.h"
#include "run/run_id.h"

#include <jansson.h>
#include <time.h>

typedef enum {
    MBL_RUN_FINISHED,
    MBL_RUN_STOPPED,
    MBL_RUN_KILLED,  /* its process has ended and left the lock behind */
    MBL_RUN_WORKING, /* a process of this host, or a job that Slurm knows, works on it */
    MBL_RUN_LOCKED   /* by a process that nothing here can be known of */
} mbl_run_state_t;

typedef struct {
    const char *path;
    char run[MBL_RUN_ID];
    bool pretrains;     /* a run of marble pretrain, whose lines have no epoch */
    size_t step, steps; /* the last line's; of run.yaml, 0 when that cannot be read */
    size_t checkpoints, last_checkpoint;
    mbl_run_state_t state;
    char holder[MBL_HOLDER_TEXT];
    time_t changed;       /* when the last line of metrics.jsonl was written; 0: never */
    json_t *last, *evals; /* the last line of metrics.jsonl, or NULL; all of eval.jsonl */
} mbl_run_about_t;

/* `path` has to live as long. Free with mbl_run_about_free, after a failure too. */
mbl_status_t mbl_run_about(const char *path, mbl_run_about_t *out);
void mbl_run_about_free(mbl_run_about_t *about);

#endif
