/* Evaluation: images for held-out prompts from fixed noise, scored by every reward. The same evaluator run
 * on two adapters gives paired scores, so that their difference has a narrow interval. */
#ifndef MBL_TRAIN_EVALUATE_H
#define MBL_TRAIN_EVALUATE_H

#include "rl/types.h"
#include "run/engine.h"

#include <jansson.h>
#include <signal.h>

typedef struct mbl_evaluator mbl_evaluator_t;

typedef struct {
    mbl_comm_t *comm;
    mbl_pipeline_t *pipeline;
    const mbl_lora_t *lora; /* of the adapters that will be evaluated; NULL: base only */
    mbl_scorer_pool_t *pool;
    const mbl_prompt_set_t *set;
    size_t k, images,
        micro_batch; /* images of all ranks together; image i shows prompt i modulo the set's count */
    const mbl_sampler_plan_t *plan;
    mbl_guidance_t guidance; /* scale 0: none */
    uint64_t seed;
    const volatile sig_atomic_t *stop;
} mbl_evaluator_options_t;

/* How many of an evaluator's images are made at once, where a pass without guidance may have so many rows. */
size_t mbl_evaluator_rows(const mbl_guidance_t *guidance, size_t rows, size_t images);
mbl_status_t mbl_evaluator_new(const mbl_evaluator_options_t *options, mbl_evaluator_t **out);
void mbl_evaluator_free(mbl_evaluator_t *evaluator);

typedef struct {
    /* over valid scores, NAN without any; half-width of the normal 95 % interval of the mean over prompts,
     * NAN below two of them */
    double mean, ci95;
    size_t n, na, failed, prompts; /* images; prompts with a valid one */
} mbl_eval_score_t;

/* A mean over images with its interval over prompts, since the images of one prompt are not independent: the
 * ratio of two sums over P prompts has the variance P / (P - 1) sum_p (s_p - mean n_p)^2 / n^2 (Cochran,
 * Sampling Techniques, 1977, section 6.4). With one image of each prompt that is the usual one. by_prompt
 * [prompts, stride], its first column; sets mean, ci95, n and prompts of *out. */
typedef struct {
    double sum, count; /* of the valid scores of a prompt's images */
} mbl_eval_sums_t;
void mbl_eval_mean(const mbl_eval_sums_t *by_prompt, size_t prompts, size_t stride, mbl_eval_score_t *out);

/* An interval from fewer prompts says little, which is said of it. */
enum { MBL_EVAL_FEW = 8 };
/* " 0.123 +-0.045" into out, "*" behind where the scores are few, no interval where there is none, " -"
 * without a mean; returns out. */
char *mbl_eval_text(const mbl_eval_score_t *score, char out[64]);

/* Generates and scores; out [K] is the same on every rank. Collective. */
mbl_status_t mbl_evaluator_run(mbl_evaluator_t *evaluator, const mbl_adapter_t *adapter,
                               mbl_eval_score_t *out);
/* The same of the images of one source of the set (data/prompts.h) in the last run. Local. */
void mbl_evaluator_source(const mbl_evaluator_t *evaluator, size_t source, mbl_eval_score_t *out);
const mbl_evaluator_options_t *mbl_evaluator_options(const mbl_evaluator_t *evaluator);
/* The noise that later runs start from. */
void mbl_evaluator_reseed(mbl_evaluator_t *evaluator, uint64_t seed);
/* The scores of the last run, of all ranks, out [images, K]: the same on every rank. Collective. */
mbl_status_t mbl_evaluator_scores(const mbl_evaluator_t *evaluator, mbl_score_t *out);
/* Keeps the scores of the last run as what later runs are compared with. */
void mbl_evaluator_keep(mbl_evaluator_t *evaluator);
/* Last run minus kept run, over images valid in both: mean difference and its 95 % half-width, out [K].
 * Collective. */
mbl_status_t mbl_evaluator_compare(mbl_evaluator_t *evaluator, mbl_eval_score_t *out);

/* A sheet of this rank's first n images of the last run with prompts and scores as captions, and what is on
 * it: {"cells": {columns, left, top, step_x, step_y, width, height}, "images": [{"prompt", "scores": {NAME:
 * number or null}}]}, NULL without memory for it. Free *sheet, release *about. Local. */
mbl_status_t mbl_evaluator_sheet(const mbl_evaluator_t *evaluator, size_t n, const char *title,
                                 mbl_image_t *sheet, json_t **about);

#endif
