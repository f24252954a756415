/* The pool's own threads. A batch stands in every queue; a thread takes a few of its images at a time. */
#include "reward/scorer_pool_internal.h"

#include "base/mem.h"

enum { CHUNK = 8 };

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t most_of(const mbl_scorer_t *scorer) {
    return scorer->batch > 0 ? least(scorer->batch, MBL_SCORER_MOST) : MBL_SCORER_MOST;
}

static bool has_own_thread(const mbl_scorer_t *scorer) {
    return scorer->device || scorer->async;
}

/* One call of a scorer for images from to from + n of a batch, which it applies to. */
static void score_these(mbl_scorer_pool_t *pool, size_t k, const batch_t *batch, size_t from, size_t n) {
    reward_t *reward = &pool->rewards[k];
    mbl_score_t said[MBL_SCORER_MOST] = {{0}};
    mbl_status_t status = batch->abandoned ? MBL_ERR_STOPPED
                                           : reward->scorer->score(reward->self, batch->images + from,
                                                                   batch->prompts + from, n, said);
    for (size_t i = 0; i < n; i++)
        mbl_scorer_pool_keep_score(pool, k, status, said[i], batch->first + from + i,
                                   batch->prompts[from + i]->text, &batch->scores[(from + i) * pool->k + k]);
}

/* The same for any images: what applies_to leaves out is not asked about. */
static void score_call(mbl_scorer_pool_t *pool, size_t k, const batch_t *batch, size_t from, size_t n) {
    const mbl_applies_t *applies = pool->rewards[k].applies;
    for (size_t i = from, end = from + n, run; i < end; i += run) {
        bool asked = mbl_applies_to(applies, batch->prompts[i]);
        for (run = 1; i + run < end && mbl_applies_to(applies, batch->prompts[i + run]) == asked;)
            run++;
        if (asked)
            score_these(pool, k, batch, i, run);
        for (size_t j = i; !asked && j < i + run; j++)
            batch->scores[j * pool->k + k] = (mbl_score_t){0, MBL_SCORE_NA};
    }
}

static void score_range(const queue_t *queue, const batch_t *batch, size_t from, size_t to) {
    mbl_scorer_pool_t *pool = queue->pool;
    for (size_t k = 0; k < pool->k; k++) {
        size_t most = most_of(pool->rewards[k].scorer);
        if (pool->rewards[k].service == SIZE_MAX && pool->rewards[k].queue == (size_t)(queue - pool->queues))
            for (size_t i = from; i < to; i += most)
                score_call(pool, k, batch, i, least(most, to - i));
    }
}

/* Takes the next images, with the lock held. A batch leaves the queue with its last ones; its box may then
 * be used anew, so the thread gets a copy. */
static bool take_range(queue_t *queue, batch_t *copy, size_t *from, size_t *to) {
    batch_t *batch = queue->head;
    if (!batch)
        return false;
    *copy = *batch;
    copy->abandoned = queue->pool->abandoned;
    *from = batch->taken;
    *to = batch->taken + least(queue->chunk, batch->n - batch->taken);
    batch->taken = *to;
    if (batch->taken == batch->n) {
        queue->head = (batch_t *)batch->spare.next;
        if (!queue->head)
            queue->tail = NULL;
        mbl_spares_put(&queue->pool->batches, &batch->spare);
    }
    return true;
}

static void work(void *argument) {
    queue_t *queue = argument;
    mbl_scorer_pool_t *pool = queue->pool;
    batch_t batch;
    size_t from, to;
    mbl_fail_quiet(1); /* mbl_scorer_pool_keep_score speaks, once */
    uv_mutex_lock(&pool->lock);
    for (;;) {
        if (take_range(queue, &batch, &from, &to)) {
            uv_mutex_unlock(&pool->lock);
            score_range(queue, &batch, from, to);
            uv_mutex_lock(&pool->lock);
            mbl_scorer_pool_finished(pool, to - from);
        } else if (pool->closing) {
            break;
        } else {
            uv_cond_wait(&pool->work, &pool->lock);
        }
    }
    uv_mutex_unlock(&pool->lock);
}

static mbl_status_t start_thread(mbl_scorer_pool_t *pool, queue_t *queue) {
    int error = uv_thread_create(&pool->threads[pool->threads_started], work, queue);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "thread %zu for rewards: %s", pool->threads_started + 1,
                        uv_strerror(error));
    pool->threads_started++;
    return MBL_OK;
}

mbl_status_t mbl_scorer_pool_threads_start(mbl_scorer_pool_t *pool, size_t workers) {
    MBL_ALLOC(pool->threads, workers + pool->n_queues - 1);
    for (size_t i = 0; i < workers; i++)
        MBL_TRY(start_thread(pool, &pool->queues[0]));
    for (size_t i = 1; i < pool->n_queues; i++)
        MBL_TRY(start_thread(pool, &pool->queues[i]));
    return MBL_OK;
}

mbl_status_t mbl_scorer_pool_queues_open(mbl_scorer_pool_t *pool, const mbl_scorer_t *const *scorers,
                                         size_t k) {
    MBL_ALLOC(pool->queues, k + 1);
    pool->queues[pool->n_queues++] = (queue_t){.pool = pool, .chunk = CHUNK};
    for (size_t i = 0; i < k; i++)
        if (has_own_thread(scorers[i]) && !scorers[i]->service) {
            pool->rewards[i].queue = pool->n_queues;
            pool->queues[pool->n_queues++] = (queue_t){.pool = pool, .chunk = most_of(scorers[i])};
        }
    return MBL_OK;
}

void mbl_scorer_pool_queues_add(mbl_scorer_pool_t *pool, const batch_t *batch) {
    for (size_t i = 0; i < pool->n_queues; i++) {
        queue_t *queue = &pool->queues[i];
        batch_t *own = (batch_t *)mbl_spares_take(&pool->batches);
        *own = *batch;
        if (queue->tail)
            queue->tail->spare.next = &own->spare;
        else
            queue->head = own;
        queue->tail = own;
        pool->submitted += batch->n;
    }
    uv_cond_broadcast(&pool->work);
}
