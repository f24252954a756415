/* A comparison: the base model, checkpoints of it and adapters of others, which draw the same prompts from
 * the same noise, set by set and seed by seed, so that their scores can be compared image by image
 * (eval/compare.h). */
#ifndef MBL_TRAIN_COMPARISON_H
#define MBL_TRAIN_COMPARISON_H

#include "run/engine.h"

#include <signal.h>

typedef struct {
    const char *const *checkpoints; /* FILE or NAME=FILE each */
    size_t n_checkpoints;
    const char *const *loras; /* the same of adapters in files and folders of others (model/lora_file.h) */
    size_t n_loras;
    const char *const *prompts; /* "test" and "train" (the sets of the configuration) or files; none: test */
    size_t n_prompts;
    const uint64_t *seeds; /* of the starting noise; none: eval.seed */
    size_t n_seeds;
    const char *adapter; /* of the checkpoints: "ema" or "current" */
    bool same_lora; /* model.lora of the configuration was asked for: checkpoints with another are refused */
} mbl_comparison_options_t;

typedef struct {
    char *name;       /* "base", the name given, or RUN@STEP */
    const char *path; /* NULL: the base model */
    bool is_lora;     /* of no checkpoint */
    size_t step;
    mbl_score_t *scores; /* [images, K] */
} mbl_candidate_t;

typedef struct {
    char *name;            /* "test", "train", or the file's without folder and suffix */
    size_t exist, prompts; /* in the set; drawn for: the first of them, at most eval.prompts */
    size_t first, images;  /* rows of the score tables, those of all seeds: eval.prompts of each */
    const mbl_prompt_set_t *set;
    mbl_prompt_set_t own; /* of a file */
} mbl_comparison_set_t;

typedef struct {
    mbl_engine_t *engine;
    mbl_comparison_options_t options;
    mbl_candidate_t *candidates; /* the base first */
    mbl_comparison_set_t *sets;
    size_t n_candidates, n_sets, images, prompts; /* over all sets */
    uint32_t *prompt;                             /* [images], below prompts: which one a row shows */
    uint64_t seed;                                /* what `options.seeds` points at when none was given */
} mbl_comparison_t;

/* Reads every prompt set and opens every checkpoint once, so that what is wrong with one shows before
 * anything is drawn: a missing or damaged file, another base model, one given twice. Checkpoints may have
 * different adapters (rank, targets). The texts and seeds of `options` have to stay. Free with
 * mbl_comparison_free. Collective. */
mbl_status_t mbl_comparison_open(mbl_engine_t *engine, const mbl_comparison_options_t *options,
                                 mbl_comparison_t *out);
/* Draws and scores everything; the scores are the same on every rank. ERR_STOPPED when `stop` becomes
 * nonzero. Collective. */
mbl_status_t mbl_comparison_run(mbl_comparison_t *comparison, const volatile sig_atomic_t *stop);
void mbl_comparison_free(mbl_comparison_t *comparison);

#endif
