/* Rewards that services compute: which of them share calls, jobs for each service and the scores back. */
#include "reward/scorer_pool_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stddef.h>

/* The service that reward k shares calls with; a new one where there is none yet. */
static service_t *service_for(mbl_scorer_pool_t *pool, const mbl_reward_spec_t *specs, size_t k) {
    const mbl_service_t *table = pool->rewards[k].scorer->service;
    for (size_t s = 0; s < pool->n_services; s++)
        if (pool->services[s].table == table && table->joins(&specs[pool->services[s].rewards[0]], &specs[k]))
            return &pool->services[s];
    pool->services[pool->n_services].table = table;
    return &pool->services[pool->n_services++];
}

static mbl_status_t open_service(const mbl_scorer_pool_t *pool, service_t *service,
                                 const mbl_reward_spec_t *specs) {
    const mbl_reward_spec_t **own;
    MBL_ALLOC(own, service->m);
    for (size_t i = 0; i < service->m; i++)
        own[i] = &specs[service->rewards[i]];
    mbl_status_t status = service->table->open(own, service->m, pool->stop, &service->self);
    service->open = status == MBL_OK;
    mbl_free(own);
    return status;
}

mbl_status_t mbl_scorer_pool_services_open(mbl_scorer_pool_t *pool, const mbl_reward_spec_t *specs) {
    MBL_ALLOC(pool->services, pool->k);
    for (size_t k = 0; k < pool->k; k++) {
        if (!pool->rewards[k].scorer->service)
            continue;
        service_t *service = service_for(pool, specs, k);
        if (!service->rewards)
            MBL_ALLOC(service->rewards, pool->k);
        service->rewards[service->m++] = k;
        pool->rewards[k].service = (size_t)(service - pool->services);
    }
    for (size_t s = 0; s < pool->n_services; s++)
        MBL_TRY(open_service(pool, &pool->services[s], specs));
    return MBL_OK;
}

/* Output o of image i. */
static mbl_status_t read_score(const mbl_proto_result_t *result, const char *why, size_t n, size_t o,
                               size_t i, mbl_score_t *out) {
    if (!result)
        return MBL_FAIL(MBL_ERR_REWARD, "%s", why);
    const char *reason = result->reasons ? result->reasons[o * n + i] : NULL;
    *out = (mbl_score_t){(double)result->scores[o * n + i], (mbl_score_state_t)result->states[o * n + i]};
    if (out->state == MBL_SCORE_FAILED)
        return MBL_FAIL(MBL_ERR_REWARD, "%s",
                        reason ? reason : "the server's score is no finite number, and it gave no reason");
    return MBL_OK;
}

static job_t *job_of(mbl_score_job_t *shown) {
    return (job_t *)((char *)shown - offsetof(job_t, job));
}

static void on_scored(mbl_score_job_t *shown, size_t first, size_t n, const mbl_proto_result_t *result,
                      const char *why) {
    job_t *job = job_of(shown);
    mbl_scorer_pool_t *pool = job->pool;
    for (size_t o = 0; o < job->service->m; o++)
        for (size_t i = 0; i < n; i++) {
            size_t k = job->service->rewards[o];
            mbl_score_t score = {0, MBL_SCORE_FAILED};
            if (!mbl_applies_to(pool->rewards[k].applies, shown->prompts[first + i])) {
                job->scores[(first + i) * pool->k + k] = (mbl_score_t){0, MBL_SCORE_NA};
                continue;
            }
            mbl_status_t status = read_score(result, why, n, o, i, &score);
            mbl_scorer_pool_keep_score(pool, k, status, score, job->first + first + i,
                                       shown->prompts[first + i]->text,
                                       &job->scores[(first + i) * pool->k + k]);
        }
}

static void on_done(mbl_score_job_t *shown, size_t n) {
    job_t *job = job_of(shown);
    mbl_scorer_pool_t *pool = job->pool;
    uv_mutex_lock(&pool->lock);
    job->left -= n;
    job->service->pending -= n;
    if (job->service->pending == 0)
        job->service->done_at = mbl_now();
    if (job->left == 0)
        mbl_spares_put(&pool->jobs, &job->spare);
    mbl_scorer_pool_finished(pool, n);
    uv_mutex_unlock(&pool->lock);
}

/* Whether a service is asked about a prompt: one of its rewards applies to it. */
static bool is_asked(const mbl_scorer_pool_t *pool, const service_t *service, const mbl_prompt_t *prompt) {
    for (size_t o = 0; o < service->m; o++)
        if (mbl_applies_to(pool->rewards[service->rewards[o]].applies, prompt))
            return true;
    return false;
}

/* How many prompts from the first one on a service is asked about, or not asked about. */
static size_t run_from(const mbl_scorer_pool_t *pool, const service_t *service, const batch_t *batch,
                       size_t first, bool *asked) {
    size_t n = 1;
    *asked = is_asked(pool, service, batch->prompts[first]);
    while (first + n < batch->n && is_asked(pool, service, batch->prompts[first + n]) == *asked)
        n++;
    return n;
}

size_t mbl_scorer_pool_services_jobs(const mbl_scorer_pool_t *pool, const batch_t *batch) {
    size_t jobs = 0;
    for (size_t s = 0; s < pool->n_services; s++)
        for (size_t i = 0; i < batch->n;) {
            bool asked;
            i += run_from(pool, &pool->services[s], batch, i, &asked);
            jobs += asked;
        }
    return jobs;
}

/* Images first to first + n of a batch. */
static void submit_job(mbl_scorer_pool_t *pool, service_t *service, const batch_t *batch, size_t first,
                       size_t n) {
    uv_mutex_lock(&pool->lock);
    job_t *job = (job_t *)mbl_spares_take(&pool->jobs);
    pool->submitted += n;
    service->pending += n;
    uv_mutex_unlock(&pool->lock);
    *job = (job_t){.job = {.images = batch->images + first,
                           .prompts = batch->prompts + first,
                           .n = n,
                           .scored = on_scored,
                           .done = on_done},
                   .pool = pool,
                   .service = service,
                   .scores = batch->scores + first * pool->k,
                   .first = batch->first + first,
                   .left = n};
    service->table->submit(service->self, &job->job);
}

void mbl_scorer_pool_services_submit(mbl_scorer_pool_t *pool, const batch_t *batch) {
    for (size_t s = 0; s < pool->n_services; s++) {
        service_t *service = &pool->services[s];
        for (size_t i = 0, n; i < batch->n; i += n) {
            bool asked;
            n = run_from(pool, service, batch, i, &asked);
            if (asked)
                submit_job(pool, service, batch, i, n);
            for (size_t j = i; !asked && j < i + n; j++)
                for (size_t o = 0; o < service->m; o++)
                    batch->scores[j * pool->k + service->rewards[o]] = (mbl_score_t){0, MBL_SCORE_NA};
        }
    }
}

void mbl_scorer_pool_services_abandon(mbl_scorer_pool_t *pool) {
    for (size_t s = 0; s < pool->n_services; s++)
        pool->services[s].table->abandon(pool->services[s].self);
}

bool mbl_scorer_pool_has_services(const mbl_scorer_pool_t *pool) {
    return pool->n_services > 0;
}

void mbl_scorer_pool_traffic(mbl_scorer_pool_t *pool, mbl_traffic_t *traffic, bool *served) {
    for (size_t k = 0; k < pool->k; k++)
        served[k] = pool->rewards[k].service != SIZE_MAX;
    for (size_t s = 0; s < pool->n_services; s++) {
        service_t *service = &pool->services[s];
        mbl_traffic_t own;
        service->table->traffic(service->self, &own);
        own.waited = fmax(0, service->done_at - pool->waiting_since);
        for (size_t i = 0; i < service->m; i++)
            traffic[service->rewards[i]] = own;
    }
}

size_t mbl_scorer_pool_votes(mbl_scorer_pool_t *pool, double *against) {
    size_t n = 0;
    for (size_t s = 0; s < pool->n_services; s++)
        if (pool->services[s].table->votes)
            n += pool->services[s].table->votes(pool->services[s].self, against + n);
    return n;
}

void mbl_scorer_pool_decide(mbl_scorer_pool_t *pool, const double *aside, bool mine) {
    double votes[MBL_SHARED_REPLICAS_MAX];
    size_t at = 0;
    for (size_t s = 0; s < pool->n_services; s++)
        if (pool->services[s].table->votes) {
            pool->services[s].table->decide(pool->services[s].self, aside + at, mine);
            at += pool->services[s].table->votes(pool->services[s].self, votes);
        }
}

bool mbl_scorer_pool_replica(mbl_scorer_pool_t *pool, size_t k, size_t i, const char **url, bool *ready,
                             char *text, size_t size) {
    const reward_t *reward = &pool->rewards[k];
    const service_t *service = reward->service != SIZE_MAX ? &pool->services[reward->service] : NULL;
    return service && service->table->replica(service->self, i, url, ready, text, size);
}

void mbl_scorer_pool_services_close(mbl_scorer_pool_t *pool) {
    for (size_t s = 0; s < pool->n_services; s++) {
        if (pool->services[s].open)
            pool->services[s].table->close(pool->services[s].self);
        mbl_free(pool->services[s].rewards);
    }
    mbl_spares_free(&pool->jobs);
    mbl_free(pool->services);
}
