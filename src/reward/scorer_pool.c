/* The scorer pool: threads that take a few images at a time from a queue of batches and run scorers on them.
 * Workers share one queue for all scorers that compute on the CPU; a scorer with a thread of its own has a
 * queue of its own, and services take whole batches and come back on threads of theirs. Each score goes to
 * its own place, so nothing depends on who computes it. */
#include "reward/scorer_pool_internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "reward/locks.h"

#include <stdio.h>
#include <string.h>

static mbl_status_t open_reward(const mbl_scorer_t *scorer, const mbl_reward_spec_t *spec, reward_t *reward) {
    reward->scorer = scorer;
    reward->on_failure = spec->on_failure;
    reward->stop_at = SIZE_MAX;
    reward->name = mbl_strdup(spec->name);
    if (!reward->name)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the name of reward %s", spec->name);
    reward->service = SIZE_MAX;
    if (spec->applies_to) {
        mbl_status_t status = mbl_applies_open(spec->applies_to, &reward->applies);
        if (status != MBL_OK)
            return MBL_FAIL(status, "reward %s: applies_to: %s: %s", spec->name, spec->applies_to,
                            mbl_fail_message());
    }
    if (scorer->service)
        return MBL_OK; /* with those that share its calls */
    if (scorer->open)
        MBL_TRY(scorer->open(spec->options, &reward->self));
    else if (spec->options && strcmp(spec->options, "{}") != 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "reward %s: options %s; %s takes none", spec->name, spec->options,
                        scorer->name);
    reward->open = true;
    return MBL_OK;
}

bool mbl_scorer_pool_stops(const mbl_scorer_pool_t *pool) {
    return pool->stop && *pool->stop;
}

static mbl_status_t fill_pool(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs, size_t k,
                              size_t workers, mbl_scorer_pool_t *pool) {
    MBL_ALLOC(pool->rewards, k);
    for (; pool->k < k; pool->k++)
        MBL_TRY(open_reward(scorers[pool->k], &specs[pool->k], &pool->rewards[pool->k]));
    MBL_TRY(mbl_scorer_pool_services_open(pool, specs));
    MBL_TRY(mbl_scorer_pool_queues_open(pool, scorers, k));
    return mbl_scorer_pool_threads_start(pool, workers);
}

mbl_status_t mbl_scorer_pool_open_with(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs,
                                       size_t k, size_t threads, const volatile sig_atomic_t *stop,
                                       mbl_scorer_pool_t **out) {
    mbl_scorer_pool_t *pool;
    MBL_REQUIRE(k > 0 && threads <= MBL_SCORER_THREADS,
                "%zu rewards on %zu threads; expected at least one reward and at most %d threads", k, threads,
                MBL_SCORER_THREADS);
    MBL_ALLOC(pool, 1);
    pool->stop = stop;
    mbl_status_t status = mbl_reward_locks_open(&pool->lock, &pool->work, &pool->done);
    if (status != MBL_OK) {
        mbl_free(pool);
        return status;
    }
    status = fill_pool(scorers, specs, k, threads ? threads : 1, pool);
    if (status != MBL_OK) {
        pool->k += pool->rewards && pool->k < k; /* the one that did not open has a name to free */
        mbl_scorer_pool_close(pool);
        return status;
    }
    *out = pool;
    return MBL_OK;
}

/* "ocr, count, ..." */
static void list_scorers(char *out, size_t size) {
    size_t used = 0;
    const mbl_scorer_t *scorer;
    out[0] = 0;
    for (size_t i = 0; (scorer = mbl_scorer_at(i)) && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", scorer->name);
}

mbl_status_t mbl_scorer_pool_open(const mbl_reward_spec_t *specs, size_t k, size_t threads,
                                  const volatile sig_atomic_t *stop, mbl_scorer_pool_t **out) {
    const mbl_scorer_t **scorers;
    MBL_REQUIRE(k > 0, "no rewards; expected at least one");
    MBL_ALLOC(scorers, k);
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < k && status == MBL_OK; i++) {
        const char *type = specs[i].type ? specs[i].type : specs[i].name;
        char known[512];
        scorers[i] = mbl_scorer_find(type);
        if (!scorers[i]) {
            list_scorers(known, sizeof known);
            status = MBL_FAIL(MBL_ERR_CONFIG, "reward %s: there is no scorer '%s'; there are: %s",
                              specs[i].name, type, known);
        }
    }
    if (status == MBL_OK)
        status = mbl_scorer_pool_open_with(scorers, specs, k, threads, stop, out);
    mbl_free(scorers);
    return status;
}

void mbl_scorer_pool_close(mbl_scorer_pool_t *pool) {
    if (!pool)
        return;
    uv_mutex_lock(&pool->lock);
    pool->closing = true;
    uv_cond_broadcast(&pool->work);
    uv_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->threads_started; i++)
        uv_thread_join(&pool->threads[i]);
    mbl_scorer_pool_services_close(pool);
    for (size_t k = 0; k < pool->k; k++) {
        reward_t *reward = &pool->rewards[k];
        if (reward->failed > 1)
            MBL_WARN("reward %s: %zu scores failed in all", reward->name, reward->failed);
        if (reward->open && reward->scorer->close)
            reward->scorer->close(reward->self);
        mbl_applies_close(reward->applies);
        mbl_free(reward->name);
    }
    mbl_spares_free(&pool->batches);
    mbl_reward_locks_close(&pool->lock, &pool->work, &pool->done);
    mbl_free(pool->threads);
    mbl_free(pool->queues);
    mbl_free(pool->rewards);
    mbl_free(pool);
}

const char *mbl_scorer_pool_name(const mbl_scorer_pool_t *pool, size_t k) {
    return pool->rewards[k].name;
}

bool mbl_scorer_pool_applies(const mbl_scorer_pool_t *pool, size_t k, const mbl_prompt_t *prompt) {
    const reward_t *reward = &pool->rewards[k];
    return mbl_applies_to(reward->applies, prompt) && (reward->scorer->service || !reward->scorer->applies ||
                                                       reward->scorer->applies(reward->self, prompt));
}
