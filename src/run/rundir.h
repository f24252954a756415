/* The folder of a run: run.yaml, log.txt, metrics.jsonl, eval.jsonl, gram.jsonl, advantages.jsonl
 * samples/, checkpoints/, lock. One run in a folder, one process that writes it. */
#ifndef MBL_TRAIN_RUNDIR_H
#define MBL_TRAIN_RUNDIR_H

#include "io/jsonl.h"
#include "io/tensorboard.h"
#include "run/evaluate.h"
#include "run/lock.h"
#include "run/run_id.h"

/* What a command line says about it. */
typedef struct {
    const char *path;
    const char
        *resume; /* NULL (afresh), "auto" (the newest good checkpoint of the folder, or afresh) or a file */
    bool overwrite;   /* a run that the folder holds is moved to PATH.1 (or .2, ...) first */
    bool by_default;  /* the path follows from the name of RUN.yaml: the run of another RUN.yaml is refused
                         there */
    const char *yaml; /* RUN.yaml; NULL: none */
} mbl_rundir_options_t;

typedef struct {
    const char *path;
    mbl_lock_t *lock;             /* rank 0 */
    char run[MBL_RUN_ID];         /* the id, on every rank */
    size_t branch;                /* of it (branch.h); rank 0, once it has begun */
    char checkpoint[1024];        /* what the run goes on from, "" afresh; on every rank */
    char from[PATH_MAX];          /* RUN.yaml that it was begun with, "" where that is not known */
    bool goes_on;                 /* the folder holds this run already; on every rank */
    mbl_jsonl_t *metrics, *evals; /* NULL below rank 0 */
    mbl_jsonl_t *gram;
    mbl_jsonl_t *advantages;        /* ... and unless log.advantages_every */
    mbl_tensorboard_t *tensorboard; /* ... and unless log.tensorboard */
    size_t lost_samples;            /* sheets that could not be written */
} mbl_rundir_t;

/* Before anything else is opened, changes nothing: refuses a folder that holds a run where neither resume nor
 * overwrite is given, or another one than the one that is to go on (ERR_USAGE), and one that another process
 * works in (ERR_BUSY). Collective. */
mbl_status_t mbl_rundir_look(mbl_comm_t *comm, const mbl_rundir_options_t *options);
/* Once all that a run needs is there: makes the folder, takes its lock, looks again, moves an old run away
 * where asked for, opens log.txt, finds the checkpoint to go on from and the run's id, and makes sure that
 * all of it can be written (rank 0). Close it also when a later call fails. Collective. */
mbl_status_t mbl_rundir_enter(mbl_comm_t *comm, const mbl_rundir_options_t *options, mbl_rundir_t *out);
/* A new run that begins with another one's checkpoint: it needs one of its own at once, or `auto` would find
 * none in its folder and begin anew. Once it has begun; local, the same on every rank. */
bool mbl_rundir_forks(const mbl_rundir_t *rundir);
/* Once the state of `step` is loaded: moves aside what came after it (aside.h), cuts the lines that will be
 * written again, opens the files of lines and writes run.yaml (rank 0). Collective. */
mbl_status_t mbl_rundir_begin(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_config_t *config,
                              size_t step);
/* run.yaml anew, once settings have changed on the way: what goes on from the folder goes on with them. A
 * failure is a warning. Rank 0 (nothing elsewhere). */
void mbl_rundir_rewrite(mbl_rundir_t *rundir, const mbl_comm_t *comm, const mbl_config_t *config);
void mbl_rundir_close(mbl_rundir_t *rundir);
/* ERR_BUSY, already logged, once another process has taken the folder over: nothing may be written there any
 * more. Local. */
mbl_status_t mbl_rundir_held(const mbl_rundir_t *rundir);
/* Warns where the checkpoints to come, of `bytes` each, may not fit on the file system. Rank 0 (nothing
 * elsewhere). */
void mbl_rundir_space(const mbl_rundir_t *rundir, const mbl_config_t *config, size_t bytes, size_t step,
                      size_t steps, size_t every);
/* Whether the run went on from `step` and eval.jsonl ends with an evaluation of it. Collective. */
mbl_status_t mbl_rundir_evaluated(mbl_comm_t *comm, const mbl_rundir_t *rundir, size_t step, bool *out);
/* Whether a folder holds a run: a checkpoint, or a line of metrics.jsonl; *step of the last one. */
bool mbl_rundir_holds(const char *path, size_t *step);
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
/* Whether the step of a line of metrics.jsonl trained that reward, so that its cosines say something of the
 * balance: not so those of monitors and of rewards outside the stage. Older lines do not say; all count. */
bool mbl_rundir_trained(const json_t *line, const char *reward);

/* For every reward of checkpoint.keep.best the step whose checkpoint has the highest mean in eval.jsonl,
 * among those up to `step` that are there; steps [MBL_MAX_REWARDS]. Local. */
mbl_status_t mbl_rundir_best(const char *path, const mbl_config_t *config, size_t step, size_t *steps,
                             size_t *n);

/* One evaluation on a prompt set: a log line and a line of eval.jsonl, {"step", "prompts": {"count",
 * "sha256"}, "rewards": {NAME: {...}}}; with `change`, the difference to the base model image by image
 * too (NULL: none). Where the set has sources, "sources": {NAME: {REWARD: {...}}} of the evaluator (NULL:
 * none). Rank 0 (nothing elsewhere). */
mbl_status_t mbl_rundir_eval(mbl_rundir_t *rundir, size_t step, const mbl_config_t *config,
                             const mbl_prompt_set_t *set, const mbl_eval_score_t *scores,
                             const mbl_eval_score_t *change, const mbl_evaluator_t *evaluator);
/* samples/step-NNNNNN.png from the evaluator's last images, with texts that say how they were drawn, and
 * step-NNNNNN.json with what is on it; what cannot be written is a warning and counted. Rank 0 (nothing
 * elsewhere). */
mbl_status_t mbl_rundir_samples(mbl_rundir_t *rundir, size_t step, const mbl_config_t *config,
                                const mbl_evaluator_t *evaluator);

#endif
