/* Rollout with the rollout policy; scoring overlaps sampling. */
#include "rl/rollout.h"

mbl_status_t mbl_rollout(const mbl_rollout_t *rollout, mbl_batch_t *batch, mbl_rollout_views_t *views) {
    size_t height, width;
    mbl_pipeline_image_size(rollout->pipeline, &height, &width);
    for (size_t first = 0; first < batch->n; first += rollout->micro_batch) {
        size_t n = batch->n - first < rollout->micro_batch ? batch->n - first : rollout->micro_batch;
        mbl_tensor_t x0 = mbl_tensor_rows(&batch->x0, first, n);
        uint8_t *rgb = batch->rgb + first * height * width * 3;
        mbl_sample_request_t request = {.adapter = rollout->adapter,
                                        .conditions = rollout->conditions,
                                        .index = batch->prompt + first,
                                        .sample = batch->sample + first,
                                        .n = n,
                                        .seed = rollout->seed,
                                        .purpose = rollout->purpose,
                                        .step = rollout->step,
                                        .stop = rollout->stop};
        MBL_TRY(mbl_sampler_run(rollout->sampler, rollout->plan, &request, &x0));
        MBL_TRY(mbl_pipeline_decode(rollout->pipeline, &x0, rgb));
        for (size_t i = 0; i < n; i++) {
            views->images[first + i] = (mbl_image_t){width, height, rgb + i * height * width * 3};
            views->prompts[first + i] = &rollout->prompts->items[batch->prompt[first + i]];
        }
        MBL_TRY(mbl_scorer_pool_submit(rollout->pool, views->images + first, views->prompts + first, n,
                                       batch->scores + first * batch->k));
    }
    return MBL_OK;
}
