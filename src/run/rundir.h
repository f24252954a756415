/* The folder of a run: run.yaml, log.txt, metrics.jsonl, eval.jsonl, advantages.jsonl (where asked for),
 * samples/, checkpoints/. */
#ifndef MBL_TRAIN_RUNDIR_H
#define MBL_TRAIN_RUNDIR_H

#include "io/jsonl.h"
#include "run/evaluate.h"

typedef struct {
    const char *path;
    mbl_jsonl_t *metrics, *evals; /* NULL below rank 0 */
    mbl_jsonl_t *advantages;      /* ... and unless log.advantages_every */
    size_t lost_samples;          /* sheets that could not be written */
} mbl_rundir_t;

/* Makes the folders, opens log.txt (rank 0) and waits for them. Collective. */
mbl_status_t mbl_rundir_make(mbl_comm_t *comm, const char *path);
/* Opens the other logs of a run that has done `step` steps and writes run.yaml (rank 0; others get empty
 * logs). Collective. */
mbl_status_t mbl_rundir_open(mbl_comm_t *comm, const char *path, const mbl_config_t *config, size_t step,
                             mbl_rundir_t *out);
void mbl_rundir_close(mbl_rundir_t *rundir);
/* path/name into out; ERR_ARG when it does not fit. */
mbl_status_t mbl_rundir_join(const char *path, const char *name, char *out, size_t size);

/* The folder of the run that a checkpoint belongs to, seen through links such as latest.h5, into out
 * [PATH_MAX]; false when it does not lie in a folder called checkpoints. */
bool mbl_rundir_of(const char *checkpoint, char *out);
/* The lines up to `step` of one of that run's files ("metrics.jsonl"), as an array; empty when there is none.
 * Release with json_decref. */
mbl_status_t mbl_rundir_lines(const char *checkpoint, const char *name, size_t step, json_t **out);

/* The rewards of a line of eval.jsonl by name. Lines from before they had an object of their own have them
 * beside "step". */
const json_t *mbl_rundir_rewards(const json_t *line);

/* The rewards' alpha in a line of metrics.jsonl by name: what the step used, or the average after it; NULL
 * where it has none. Lines from before the average was called alpha_ema have it as alpha, and what was used
 * as alpha_raw where the step solved. */
const json_t *mbl_rundir_alpha(const json_t *line, bool average);

/* Which checkpoint a run starts from. resume: NULL (none), "auto" (the newest good one of path/checkpoints,
 * or none) or a file. out is "" for none. Collective. */
mbl_status_t mbl_rundir_resume(mbl_comm_t *comm, const char *path, const char *resume, char *out,
                               size_t size);

/* For every reward of checkpoint.keep.best the step whose checkpoint has the highest mean in eval.jsonl,
 * among those up to `step` that are there; steps [MBL_MAX_REWARDS]. Local. */
mbl_status_t mbl_rundir_best(const char *path, const mbl_config_t *config, size_t step, size_t *steps,
                             size_t *n);

/* One evaluation on a prompt set: a log line and a line of eval.jsonl, {"step", "prompts": {"count",
 * "sha256"}, "rewards": {NAME: {...}}}; with `change`, the difference to the base model picture by picture
 * too (NULL: none). Rank 0 (nothing elsewhere). */
mbl_status_t mbl_rundir_eval(mbl_rundir_t *rundir, size_t step, const mbl_config_t *config,
                             const mbl_prompt_set_t *set, const mbl_eval_score_t *scores,
                             const mbl_eval_score_t *change);
/* samples/step-NNNNNN.png from the evaluator's last pictures; one that cannot be written is a warning and
 * counted. Rank 0 (nothing elsewhere). */
mbl_status_t mbl_rundir_samples(mbl_rundir_t *rundir, size_t step, const mbl_evaluator_t *evaluator);

#endif
