/* Evaluation on held-out prompts. */
#include "run/evaluate.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/share.h"
#include "io/jsonl.h"
#include "rl/rollout.h"
#include "run/caption.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct mbl_evaluator {
    mbl_evaluator_options_t options;
    mbl_sampler_t *sampler;
    mbl_batch_t batch;
    mbl_rollout_views_t views;
    uint32_t *prompt;
    int64_t *sample;
    mbl_score_t *kept;
    mbl_eval_sums_t *sums;     /* [prompts + 1, K]: sums of an evaluation */
    size_t prompts;            /* that the images of all ranks show */
    mbl_eval_score_t *sources; /* [sources, K] of the last run */
};

size_t mbl_evaluator_rows(const mbl_guidance_t *guidance, size_t rows, size_t images) {
    if (guidance->scale > 1) /* two rows of an image in a pass, which is as large as it was */
        rows = (rows + 1) / 2;
    return rows < images ? rows : images > 0 ? images : 1;
}

static mbl_status_t make_batch(mbl_evaluator_t *e) {
    mbl_evaluator_options_t *o = &e->options;
    size_t c, height, width, high, wide;
    /* rank 0, whose images the sheet shows, has some even where there are fewer than ranks */
    const mbl_share_t share = mbl_share(o->images, (size_t)o->comm->size, (size_t)o->comm->rank);
    const size_t first = share.first, n = share.n;
    o->micro_batch = mbl_evaluator_rows(&o->guidance, o->micro_batch, n);
    mbl_pipeline_latent(o->pipeline, &c, &height, &width);
    mbl_pipeline_image_size(o->pipeline, &high, &wide);
    MBL_TRY(
        mbl_tensor_new(mbl_pipeline_ops(o->pipeline), MBL_F32, &e->batch.x0, 4, n ? n : 1, c, height, width));
    MBL_ALLOC(e->prompt, n);
    MBL_ALLOC(e->sample, n);
    MBL_ALLOC(e->batch.scores, n * o->k);
    MBL_ALLOC(e->kept, n * o->k);
    e->prompts = o->images < o->set->prompts.count ? o->images : o->set->prompts.count;
    MBL_ALLOC(e->sums, (e->prompts + 1) * o->k);
    MBL_ALLOC(e->sources, (o->set->prompts.n_sources + 1) * o->k);
    MBL_ALLOC(e->batch.rgb, n * high * wide * 3);
    MBL_ALLOC(e->views.images, n);
    MBL_ALLOC(e->views.prompts, n);
    for (size_t i = 0; i < n; i++) {
        e->prompt[i] = (uint32_t)((first + i) % o->set->prompts.count);
        e->sample[i] = (int64_t)(first + i);
    }
    e->batch.n = n;
    e->batch.first = first;
    e->batch.n_global = o->images;
    e->batch.group_size = 1;
    e->batch.k = o->k;
    e->batch.prompt = e->prompt;
    e->batch.sample = e->sample;
    MBL_TRY(mbl_pipeline_prepare_decoding(o->pipeline, o->micro_batch));
    MBL_TRY(mbl_embeds_room(o->set->embeds, o->micro_batch));
    mbl_ops_part(mbl_pipeline_ops(o->pipeline), "the activations of evaluations",
                 "a smaller rollout.micro_batch or eval.prompts");
    MBL_TRY(mbl_sampler_new(o->pipeline, o->lora, o->micro_batch, &e->sampler));
    MBL_TRY(mbl_sampler_guide(e->sampler, &o->guidance));
    mbl_ops_part(mbl_pipeline_ops(o->pipeline), NULL, NULL);
    return MBL_OK;
}

mbl_status_t mbl_evaluator_new(const mbl_evaluator_options_t *options, mbl_evaluator_t **out) {
    mbl_evaluator_t *e;
    MBL_ALLOC(e, 1);
    e->options = *options;
    mbl_status_t status = make_batch(e);
    if (status != MBL_OK) {
        mbl_evaluator_free(e);
        return status;
    }
    *out = e;
    return MBL_OK;
}

void mbl_evaluator_free(mbl_evaluator_t *e) {
    if (!e)
        return;
    mbl_sampler_free(e->sampler);
    mbl_tensor_free(mbl_pipeline_ops(e->options.pipeline), &e->batch.x0);
    mbl_free(e->batch.scores);
    mbl_free(e->batch.rgb);
    mbl_free(e->kept);
    mbl_free(e->sums);
    mbl_free(e->sources);
    mbl_free(e->views.images);
    mbl_free(e->views.prompts);
    mbl_free(e->prompt);
    mbl_free(e->sample);
    mbl_free(e);
}

void mbl_eval_mean(const mbl_eval_sums_t *by_prompt, size_t prompts, size_t stride, mbl_eval_score_t *out) {
    double sum = 0, n = 0, squares = 0, used = 0;
    for (size_t p = 0; p < prompts; p++) {
        sum += by_prompt[p * stride].sum;
        n += by_prompt[p * stride].count;
        used += by_prompt[p * stride].count > 0;
    }
    out->mean = n > 0 ? sum / n : NAN;
    for (size_t p = 0; p < prompts; p++) {
        double away = n > 0 ? by_prompt[p * stride].sum - out->mean * by_prompt[p * stride].count : 0;
        squares += away * away;
    }
    out->n = (size_t)n;
    out->prompts = (size_t)used;
    out->ci95 = used > 1 ? 1.959964 * sqrt(used / (used - 1) * squares) / n : NAN;
}

/* Mean and interval of each reward's scores, or of their differences from the kept ones. */
static mbl_status_t summarise(const mbl_evaluator_t *e, bool difference, mbl_eval_score_t *out) {
    size_t k_all = e->options.k, prompts = e->prompts;
    mbl_eval_sums_t *sums = e->sums, *others = sums + prompts * k_all; /* [P, K]; [K] N/A and failed */
    memset(sums, 0, (prompts + 1) * k_all * sizeof *sums);
    for (size_t i = 0; i < e->batch.n * k_all; i++) {
        const mbl_score_t *score = &e->batch.scores[i], *old = &e->kept[i];
        mbl_eval_sums_t *sum = &sums[e->prompt[i / k_all] * k_all + i % k_all], *other = &others[i % k_all];
        mbl_score_state_t state = difference && old->state > score->state ? old->state : score->state;
        sum->count += state == MBL_SCORE_VALID;
        sum->sum += state == MBL_SCORE_VALID ? score->value - (difference ? old->value : 0) : 0;
        other->sum += state == MBL_SCORE_NA;
        other->count += state == MBL_SCORE_FAILED;
    }
    MBL_TRY(mbl_comm_allreduce(e->options.comm, sums, 2 * (prompts + 1) * k_all, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t k = 0; k < k_all; k++) {
        mbl_eval_mean(sums + k, prompts, k_all, &out[k]);
        out[k].na = (size_t)others[k].sum;
        out[k].failed = (size_t)others[k].count;
    }
    return MBL_OK;
}

/* Source by source, from the sums of the last run: those of another source's prompts count nothing. */
static mbl_status_t summarise_sources(mbl_evaluator_t *e) {
    const mbl_prompts_t *set = &e->options.set->prompts;
    size_t k_all = e->options.k;
    mbl_eval_sums_t *own;
    if (set->n_sources == 0)
        return MBL_OK;
    MBL_ALLOC(own, e->prompts);
    for (size_t s = 0; s < set->n_sources; s++)
        for (size_t k = 0; k < k_all; k++) {
            for (size_t i = 0; i < e->prompts; i++)
                own[i] = set->source[i] == s ? e->sums[i * k_all + k] : (mbl_eval_sums_t){0, 0};
            e->sources[s * k_all + k] = (mbl_eval_score_t){0};
            mbl_eval_mean(own, e->prompts, 1, &e->sources[s * k_all + k]);
        }
    mbl_free(own);
    return MBL_OK;
}

void mbl_evaluator_source(const mbl_evaluator_t *e, size_t source, mbl_eval_score_t *out) {
    memcpy(out, e->sources + source * e->options.k, e->options.k * sizeof *out);
}

char *mbl_eval_text(const mbl_eval_score_t *score, char out[64]) {
    if (score->n == 0)
        snprintf(out, 64, " -");
    else if (isnan(score->ci95))
        snprintf(out, 64, " %.3f", score->mean);
    else
        snprintf(out, 64, " %.3f +-%.3f%s", score->mean, score->ci95,
                 score->prompts < MBL_EVAL_FEW ? "*" : "");
    return out;
}

mbl_status_t mbl_evaluator_run(mbl_evaluator_t *e, const mbl_adapter_t *adapter, mbl_eval_score_t *out) {
    const mbl_evaluator_options_t *o = &e->options;
    mbl_rollout_t rollout = {.pipeline = o->pipeline,
                             .sampler = e->sampler,
                             .plan = o->plan,
                             .adapter = adapter,
                             .embeds = o->set->embeds,
                             .prompts = &o->set->prompts,
                             .pool = o->pool,
                             .micro_batch = o->micro_batch,
                             .seed = o->seed,
                             .purpose = MBL_RNG_EVAL,
                             .broken_fails = true,
                             .stop = o->stop};
    mbl_status_t status = mbl_rollout(&rollout, &e->batch, &e->views);
    mbl_status_t scored = mbl_scorer_pool_wait(o->pool);
    MBL_TRY(mbl_comm_agree(o->comm, status != MBL_OK ? status : scored));
    MBL_TRY(summarise(e, false, out));
    return mbl_comm_agree(o->comm, summarise_sources(e));
}

const mbl_evaluator_options_t *mbl_evaluator_options(const mbl_evaluator_t *e) {
    return &e->options;
}

void mbl_evaluator_reseed(mbl_evaluator_t *e, uint64_t seed) {
    e->options.seed = seed;
}

/* Sums of tables in which every rank has filled in its images. */
mbl_status_t mbl_evaluator_scores(const mbl_evaluator_t *e, mbl_score_t *out) {
    size_t k = e->options.k, size = e->options.images * k;
    double *table; /* value and state of each score */
    MBL_ALLOC(table, 2 * size);
    for (size_t i = 0; i < e->batch.n * k; i++) {
        size_t at = (size_t)e->sample[i / k] * k + i % k;
        table[2 * at] = e->batch.scores[i].value;
        table[2 * at + 1] = e->batch.scores[i].state;
    }
    mbl_status_t status = mbl_comm_allreduce(e->options.comm, table, 2 * size, MBL_COMM_F64, MBL_COMM_SUM);
    for (size_t i = 0; status == MBL_OK && i < size; i++)
        out[i] = (mbl_score_t){table[2 * i], (mbl_score_state_t)table[2 * i + 1]};
    mbl_free(table);
    return status;
}

void mbl_evaluator_keep(mbl_evaluator_t *e) {
    memcpy(e->kept, e->batch.scores, e->batch.n * e->options.k * sizeof *e->kept);
}

mbl_status_t mbl_evaluator_compare(mbl_evaluator_t *e, mbl_eval_score_t *out) {
    return summarise(e, true, out);
}

enum { SHEET_SIDE = 128, SHEET_COLUMNS = 8 }; /* SHEET_SIDE: pixels that an image has at least on a sheet */

/* Prompts and scores of the images, and where they lie on the sheet. */
static json_t *describe_sheet(const mbl_evaluator_t *e, size_t n, const char *const *names,
                              const mbl_image_cells_t *at) {
    size_t k = e->options.k;
    json_t *images = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *scores = json_object();
        for (size_t j = 0; j < k; j++) {
            const mbl_score_t *score = &e->batch.scores[i * k + j];
            json_object_set_new(scores, names[j],
                                mbl_jsonl_real(score->state == MBL_SCORE_VALID ? score->value : NAN));
        }
        json_t *one = json_object();
        json_object_set_new(one, "prompt", json_string(e->views.prompts[i]->text));
        json_object_set_new(one, "scores", scores);
        json_array_append_new(images, one);
    }
    return json_pack("{s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I},s:o}", "cells", "columns", (json_int_t)at->columns,
                     "left", (json_int_t)at->left, "top", (json_int_t)at->top, "step_x",
                     (json_int_t)at->step_x, "step_y", (json_int_t)at->step_y, "width", (json_int_t)at->width,
                     "height", (json_int_t)at->height, "images", images);
}

static mbl_status_t make_sheet(const mbl_evaluator_t *e, size_t n, const char *title, char **captions,
                               mbl_image_t *sheet, json_t **about) {
    const char *names[MBL_MAX_REWARDS];
    size_t k = e->options.k, side = e->views.images[0].width;
    for (size_t i = 0; i < k; i++)
        names[i] = mbl_scorer_pool_name(e->options.pool, i);
    for (size_t i = 0; i < n; i++) {
        captions[i] = mbl_caption(e->views.prompts[i]->text, names, e->batch.scores + i * k, k);
        if (!captions[i])
            return MBL_FAIL(MBL_ERR_MEM, "no memory for captions");
    }
    size_t scale = side >= SHEET_SIDE ? 1 : (SHEET_SIDE + side - 1) / side;
    const char *const *texts = (const char *const *)captions;
    mbl_image_cells_t cells;
    mbl_image_sheet_cells(e->views.images, texts, title, n, SHEET_COLUMNS, scale, &cells);
    MBL_TRY(mbl_image_sheet(e->views.images, texts, title, n, SHEET_COLUMNS, scale, sheet));
    *about = describe_sheet(e, n, names, &cells);
    return MBL_OK;
}

mbl_status_t mbl_evaluator_sheet(const mbl_evaluator_t *e, size_t n, const char *title, mbl_image_t *sheet,
                                 json_t **about) {
    char **captions;
    n = n < e->batch.n ? n : e->batch.n;
    MBL_ALLOC(captions, n);
    mbl_status_t status = make_sheet(e, n, title, captions, sheet, about);
    for (size_t i = 0; i < n; i++)
        mbl_free(captions[i]);
    mbl_free(captions);
    return status;
}
