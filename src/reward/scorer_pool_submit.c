/* A batch's way through the pool: submitted, kept score by score, failures noted, waited for. */
#include "reward/scorer_pool_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

/* ---- what scorers said ---- */

/* What a scorer said of one image, as it counts. Not OK when it is a failure; why is then in
 * mbl_fail_message. */
static mbl_status_t take_score(mbl_status_t status, mbl_score_t score, mbl_score_t *out) {
    if (status == MBL_OK && score.state == MBL_SCORE_VALID && !(fabs(score.value) <= (double)FLT_MAX))
        status = MBL_FAIL(MBL_ERR_NUMERIC, "the score is %f", score.value);
    else if (status == MBL_OK && score.state == MBL_SCORE_FAILED)
        status = MBL_FAIL(MBL_ERR_REWARD, "it has no score for this image, and gave no reason");
    if (status != MBL_OK)
        score.state = MBL_SCORE_FAILED;
    /* As FP32, in which scores travel: a run is the same to the bit wherever its rewards are computed. */
    score.value = score.state == MBL_SCORE_VALID ? (double)(float)score.value : 0;
    *out = score;
    return status;
}

static void note_failure(mbl_scorer_pool_t *pool, reward_t *reward, size_t image, const char *prompt) {
    uv_mutex_lock(&pool->lock);
    bool first = !pool->abandoned && reward->failed++ == 0;
    if (image < reward->stop_at) {
        reward->stop_at = image;
        snprintf(reward->stop_text, sizeof reward->stop_text, "reward %s failed on '%.160s': %.480s",
                 reward->name, prompt, mbl_fail_message());
    }
    uv_mutex_unlock(&pool->lock);
    if (first)
        MBL_WARN("reward %s failed on '%.160s': %s; more failures of this reward are counted, not shown",
                 reward->name, prompt, mbl_fail_message());
}

void mbl_scorer_pool_keep_score(mbl_scorer_pool_t *pool, size_t k, mbl_status_t status, mbl_score_t said,
                                size_t image, const char *prompt, mbl_score_t *out) {
    if (take_score(status, said, out) != MBL_OK)
        note_failure(pool, &pool->rewards[k], image, prompt);
}

void mbl_scorer_pool_finished(mbl_scorer_pool_t *pool, size_t n) {
    pool->finished += n;
    if (pool->finished == pool->submitted)
        uv_cond_broadcast(&pool->done);
}

/* ---- for the rollout ---- */

mbl_status_t mbl_scorer_pool_submit(mbl_scorer_pool_t *pool, const mbl_image_t *images,
                                    const mbl_prompt_t *const *prompts, size_t n, mbl_score_t *scores) {
    if (n == 0)
        return MBL_OK;
    /* threads only add to the spare ones */
    MBL_TRY(mbl_spares_have(&pool->batches, pool->n_queues, sizeof(batch_t), &pool->lock));
    batch_t batch = {.images = images, .prompts = prompts, .scores = scores, .n = n};
    size_t jobs = mbl_scorer_pool_services_jobs(pool, &batch);
    MBL_TRY(mbl_spares_have(&pool->jobs, jobs, sizeof(job_t), &pool->lock));
    uv_mutex_lock(&pool->lock);
    batch.first = pool->images;
    pool->images += n;
    mbl_scorer_pool_queues_add(pool, &batch);
    uv_mutex_unlock(&pool->lock);
    mbl_scorer_pool_services_submit(pool, &batch);
    return MBL_OK;
}

void mbl_scorer_pool_fail(mbl_scorer_pool_t *pool, const mbl_prompt_t *const *prompts, size_t n,
                          mbl_score_t *scores) {
    uv_mutex_lock(&pool->lock);
    size_t first = pool->images;
    pool->images += n;
    uv_mutex_unlock(&pool->lock);
    mbl_fail_quiet(1);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < pool->k; k++) {
            mbl_score_t *score = &scores[i * pool->k + k];
            if (!mbl_scorer_pool_applies(pool, k, prompts[i])) {
                *score = (mbl_score_t){0, MBL_SCORE_NA};
                continue;
            }
            mbl_status_t status =
                MBL_FAIL(MBL_ERR_NUMERIC, "the image has numbers in it that are not finite");
            mbl_scorer_pool_keep_score(pool, k, status, (mbl_score_t){0}, first + i, prompts[i]->text, score);
        }
    mbl_fail_quiet(0);
}

/* With the lock held, which it gives up in between. */
static void abandon(mbl_scorer_pool_t *pool) {
    pool->abandoned = true;
    uv_mutex_unlock(&pool->lock);
    mbl_scorer_pool_services_abandon(pool);
    uv_mutex_lock(&pool->lock);
}

mbl_status_t mbl_scorer_pool_wait(mbl_scorer_pool_t *pool) {
    const uint64_t look = 100000000; /* ns, between looks at the stop */
    mbl_status_t status = MBL_OK;
    const reward_t *earliest = NULL;
    pool->waiting_since = mbl_now();
    uv_mutex_lock(&pool->lock);
    while (pool->finished < pool->submitted) {
        mbl_log_progress("scoring", pool->finished, pool->submitted);
        if (!pool->abandoned && mbl_scorer_pool_stops(pool))
            abandon(pool);
        if (pool->finished < pool->submitted)
            uv_cond_timedwait(&pool->done, &pool->lock, look);
    }
    mbl_log_progress(NULL, 0, 0);
    bool abandoned = pool->abandoned;
    uv_mutex_unlock(&pool->lock);
    if (abandoned)
        return MBL_ERR_STOPPED;
    for (size_t k = 0; k < pool->k; k++) {
        const reward_t *reward = &pool->rewards[k];
        if (reward->stop_at != SIZE_MAX && reward->on_failure == MBL_ON_FAILURE_STOP &&
            (!earliest || reward->stop_at < earliest->stop_at))
            earliest = reward;
    }
    if (earliest)
        status = MBL_FAIL(MBL_ERR_REWARD, "%s; its on_failure is stop, skip would go on without the score",
                          earliest->stop_text);
    for (size_t k = 0; k < pool->k; k++)
        pool->rewards[k].stop_at = SIZE_MAX;
    return status;
}

const char *mbl_scorer_pool_failure(const mbl_scorer_pool_t *pool, size_t k) {
    return pool->rewards[k].failed > 0 ? pool->rewards[k].stop_text : NULL;
}
