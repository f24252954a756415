/* Rollout with the rollout policy; scoring overlaps sampling. */
#include "rl/rollout.h"

#include "base/log.h"
#include "base/rng.h"

enum { DECODED = 256 }; /* images at once, at most */

/* Images first to first + n, all of which are views already, go to the scorers; those that are broken fail.
 */
static mbl_status_t submit(const mbl_rollout_t *rollout, mbl_batch_t *batch, mbl_rollout_views_t *views,
                           size_t first, size_t n, const bool *broken) {
    for (size_t at = 0, run; at < n; at += run) {
        bool fails = rollout->broken_fails && broken[at];
        mbl_score_t *scores = batch->scores + (first + at) * batch->k;
        for (run = 1; at + run < n && (rollout->broken_fails && broken[at + run]) == fails;)
            run++;
        if (fails)
            mbl_scorer_pool_fail(rollout->pool, views->prompts + first + at, run, scores);
        else
            MBL_TRY(mbl_scorer_pool_submit(rollout->pool, views->images + first + at,
                                           views->prompts + first + at, run, scores));
    }
    return MBL_OK;
}

/* Latents first to first + n as images, and those to the scorers. */
static mbl_status_t decode(const mbl_rollout_t *rollout, mbl_batch_t *batch, mbl_rollout_views_t *views,
                           size_t first, size_t n) {
    size_t height, width;
    mbl_pipeline_image_size(rollout->pipeline, &height, &width);
    for (size_t end = first + n, count; first < end; first += count) {
        bool broken[DECODED];
        count = end - first < DECODED ? end - first : DECODED;
        mbl_tensor_t x0 = mbl_tensor_rows(&batch->x0, first, count);
        uint8_t *rgb = batch->rgb + first * height * width * 3;
        MBL_TRY(mbl_pipeline_decode(rollout->pipeline, &x0, rgb, broken));
        for (size_t i = 0; i < count; i++) {
            views->images[first + i] = (mbl_image_t){width, height, rgb + i * height * width * 3};
            views->prompts[first + i] = &rollout->prompts->items[batch->prompt[first + i]];
        }
        MBL_TRY(submit(rollout, batch, views, first, count, broken));
    }
    return MBL_OK;
}

static mbl_status_t draw_all(const mbl_rollout_t *rollout, mbl_batch_t *batch, mbl_rollout_views_t *views) {
    for (size_t first = 0; first < batch->n; first += rollout->micro_batch) {
        size_t n = batch->n - first < rollout->micro_batch ? batch->n - first : rollout->micro_batch;
        mbl_tensor_t x0 = mbl_tensor_rows(&batch->x0, first, n);
        mbl_sample_request_t request = {.adapter = rollout->adapter,
                                        .conditions = mbl_embeds_conditions(rollout->embeds),
                                        .index = batch->prompt + first,
                                        .sample = batch->sample + first,
                                        .n = n,
                                        .seed = rollout->seed,
                                        .purpose = rollout->purpose,
                                        .step = rollout->step,
                                        .stop = rollout->stop};
        MBL_TRY(mbl_embeds_fetch(rollout->embeds, request.index, n));
        mbl_log_progress(rollout->purpose == MBL_RNG_EVAL ? "evaluation" : "rollout", first, batch->n);
        MBL_TRY(mbl_sampler_run(rollout->sampler, rollout->plan, &request, &x0));
        MBL_TRY(decode(rollout, batch, views, first, n));
    }
    return MBL_OK;
}

mbl_status_t mbl_rollout(const mbl_rollout_t *rollout, mbl_batch_t *batch, mbl_rollout_views_t *views) {
    mbl_ops_t *ops = mbl_pipeline_ops(rollout->pipeline);
    mbl_ops_stop(ops, rollout->stop);
    mbl_status_t status = draw_all(rollout, batch, views);
    mbl_ops_stop(ops, NULL);
    mbl_log_progress(NULL, 0, 0);
    return status;
}
