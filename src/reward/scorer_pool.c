/* The scorer pool: threads that take a few images at a time from a queue of batches and run scorers on them.
 * Workers share one queue for all scorers that compute on the CPU; a scorer with a thread of its own has a
 * queue of its own, and services take whole batches and come back on threads of theirs. Each score goes to
 * its own place, so nothing depends on who computes it. */
#include "reward/reward.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "reward/service.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

enum { CHUNK = 8, MOST_THREADS = 256 };

/* One submit, as it stands in one queue. */
typedef struct batch {
    struct batch *next;
    const mbl_image_t *images;
    const mbl_prompt_t *const *prompts;
    mbl_score_t *scores;
    size_t n, taken; /* images handed to workers */
    size_t first;    /* images submitted before */
} batch_t;

typedef struct {
    const mbl_scorer_t *scorer;
    size_t queue;   /* of the scorer; a service's have none */
    size_t service; /* of the scorer; SIZE_MAX: none */
    char *name;
    mbl_on_failure_t on_failure;
    void *self;
    bool open;
    size_t failed;       /* scores, since opening */
    size_t stop_at;      /* the earliest failed image since the last wait; SIZE_MAX: none */
    char stop_text[512]; /* and what happened to it */
} reward_t;

/* The first is the workers'. */
typedef struct {
    mbl_scorer_pool_t *pool;
    batch_t *head, *tail;
    size_t chunk; /* images that a thread takes at once */
} queue_t;

/* A service, and the rewards [m] that come from its calls, in the order of its outputs. */
typedef struct {
    const mbl_service_t *table;
    void *self;
    bool open;
    size_t *rewards, m;
    size_t pending; /* images; */
    double done_at; /* when they last came to none */
} service_t;

/* One submit, as it stands at one service. */
typedef struct job {
    mbl_score_job_t job; /* first */
    struct job *next;
    mbl_scorer_pool_t *pool;
    service_t *service;
    mbl_score_t *scores;
    size_t first, left; /* images submitted before; not done */
} job_t;

struct mbl_scorer_pool {
    reward_t *rewards;
    size_t k;
    queue_t *queues; /* [1 + those of scorers with their own thread] */
    size_t n_queues;
    service_t *services;
    size_t n_services;
    uv_thread_t *threads;
    size_t threads_started;
    uv_mutex_t lock; /* guards all below, the queues and the counters of the rewards */
    uv_cond_t work, done;
    batch_t *spare;
    job_t *spare_jobs;
    double waiting_since;
    size_t images;              /* submitted, ever */
    size_t submitted, finished; /* images, ever, in all queues */
    bool closing;
};

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t most_of(const mbl_scorer_t *scorer) {
    return scorer->batch > 0 ? least(scorer->batch, MBL_SCORER_MOST) : MBL_SCORER_MOST;
}

static bool has_own_thread(const mbl_scorer_t *scorer) {
    return scorer->device || scorer->async;
}

/* What a scorer said of one image, as it counts. Not OK when it is a failure; why is then in
 * mbl_fail_message. */
static mbl_status_t take_score(mbl_status_t status, mbl_score_t score, mbl_score_t *out) {
    if (status == MBL_OK && score.state == MBL_SCORE_VALID && !isfinite(score.value))
        status = MBL_FAIL(MBL_ERR_NUMERIC, "the score is %f", score.value);
    else if (status == MBL_OK && score.state == MBL_SCORE_FAILED)
        status = MBL_FAIL(MBL_ERR_REWARD, "the scorer gave up");
    if (status != MBL_OK)
        score.state = MBL_SCORE_FAILED;
    if (score.state != MBL_SCORE_VALID)
        score.value = 0;
    *out = score;
    return status;
}

static void note_failure(mbl_scorer_pool_t *pool, reward_t *reward, size_t image, const char *prompt) {
    uv_mutex_lock(&pool->lock);
    bool first = reward->failed++ == 0;
    if (image < reward->stop_at) {
        reward->stop_at = image;
        snprintf(reward->stop_text, sizeof reward->stop_text, "reward %s failed on '%.160s': %.240s",
                 reward->name, prompt, mbl_fail_message());
    }
    uv_mutex_unlock(&pool->lock);
    if (first)
        MBL_WARN("reward %s failed on '%.160s': %s; more failures of this reward are counted, not shown",
                 reward->name, prompt, mbl_fail_message());
}

/* One call of a scorer for images from to from + n of a batch. */
static void score_call(mbl_scorer_pool_t *pool, size_t k, const batch_t *batch, size_t from, size_t n) {
    reward_t *reward = &pool->rewards[k];
    mbl_score_t said[MBL_SCORER_MOST] = {{0}};
    mbl_status_t status =
        reward->scorer->score(reward->self, batch->images + from, batch->prompts + from, n, said);
    for (size_t i = 0; i < n; i++)
        if (take_score(status, said[i], &batch->scores[(from + i) * pool->k + k]) != MBL_OK)
            note_failure(pool, reward, batch->first + from + i, batch->prompts[from + i]->text);
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
    *from = batch->taken;
    *to = batch->taken + least(queue->chunk, batch->n - batch->taken);
    batch->taken = *to;
    if (batch->taken == batch->n) {
        queue->head = batch->next;
        if (!queue->head)
            queue->tail = NULL;
        batch->next = queue->pool->spare;
        queue->pool->spare = batch;
    }
    return true;
}

static void work(void *argument) {
    queue_t *queue = argument;
    mbl_scorer_pool_t *pool = queue->pool;
    batch_t batch;
    size_t from, to;
    mbl_fail_quiet(1); /* note_failure speaks, once */
    uv_mutex_lock(&pool->lock);
    for (;;) {
        if (take_range(queue, &batch, &from, &to)) {
            uv_mutex_unlock(&pool->lock);
            score_range(queue, &batch, from, to);
            uv_mutex_lock(&pool->lock);
            pool->finished += to - from;
            if (pool->finished == pool->submitted)
                uv_cond_broadcast(&pool->done);
        } else if (pool->closing) {
            break;
        } else {
            uv_cond_wait(&pool->work, &pool->lock);
        }
    }
    uv_mutex_unlock(&pool->lock);
}

static mbl_status_t open_reward(const mbl_scorer_t *scorer, const mbl_reward_spec_t *spec, reward_t *reward) {
    reward->scorer = scorer;
    reward->on_failure = spec->on_failure;
    reward->stop_at = SIZE_MAX;
    reward->name = mbl_strdup(spec->name);
    if (!reward->name)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the name of reward %s", spec->name);
    reward->service = SIZE_MAX;
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

static mbl_status_t start_thread(mbl_scorer_pool_t *pool, queue_t *queue) {
    int error = uv_thread_create(&pool->threads[pool->threads_started], work, queue);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "thread %zu for rewards: %s", pool->threads_started + 1,
                        uv_strerror(error));
    pool->threads_started++;
    return MBL_OK;
}

/* The workers, and a thread for every queue behind the first. */
static mbl_status_t start_threads(mbl_scorer_pool_t *pool, size_t workers) {
    MBL_ALLOC(pool->threads, workers + pool->n_queues - 1);
    for (size_t i = 0; i < workers; i++)
        MBL_TRY(start_thread(pool, &pool->queues[0]));
    for (size_t i = 1; i < pool->n_queues; i++)
        MBL_TRY(start_thread(pool, &pool->queues[i]));
    return MBL_OK;
}

static mbl_status_t make_queues(mbl_scorer_pool_t *pool, const mbl_scorer_t *const *scorers, size_t k) {
    MBL_ALLOC(pool->queues, k + 1);
    pool->queues[pool->n_queues++] = (queue_t){.pool = pool, .chunk = CHUNK};
    for (size_t i = 0; i < k; i++)
        if (has_own_thread(scorers[i]) && !scorers[i]->service) {
            pool->rewards[i].queue = pool->n_queues;
            pool->queues[pool->n_queues++] = (queue_t){.pool = pool, .chunk = most_of(scorers[i])};
        }
    return MBL_OK;
}

/* ---- services ---- */

/* The service that reward k shares calls with; a new one where there is none yet. */
static service_t *service_for(mbl_scorer_pool_t *pool, const mbl_reward_spec_t *specs, size_t k) {
    const mbl_service_t *table = pool->rewards[k].scorer->service;
    for (size_t s = 0; s < pool->n_services; s++)
        if (pool->services[s].table == table && table->joins(&specs[pool->services[s].rewards[0]], &specs[k]))
            return &pool->services[s];
    pool->services[pool->n_services].table = table;
    return &pool->services[pool->n_services++];
}

static mbl_status_t open_service(service_t *service, const mbl_reward_spec_t *specs) {
    const mbl_reward_spec_t **own;
    MBL_ALLOC(own, service->m);
    for (size_t i = 0; i < service->m; i++)
        own[i] = &specs[service->rewards[i]];
    mbl_status_t status = service->table->open(own, service->m, &service->self);
    service->open = status == MBL_OK;
    mbl_free(own);
    return status;
}

static mbl_status_t open_services(mbl_scorer_pool_t *pool, const mbl_reward_spec_t *specs) {
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
        MBL_TRY(open_service(&pool->services[s], specs));
    return MBL_OK;
}

/* Output o of image i. */
static mbl_status_t read_score(const mbl_proto_result_t *result, const char *why, size_t n, size_t o,
                               size_t i, mbl_score_t *out) {
    if (!result)
        return MBL_FAIL(MBL_ERR_REWARD, "%s", why);
    const char *reason = result->reasons ? result->reasons[o * n + i] : NULL;
    *out = (mbl_score_t){(double)result->scores[o * n + i], (mbl_score_state_t)result->states[o * n + i]};
    if (out->state == MBL_SCORE_FAILED && reason)
        return MBL_FAIL(MBL_ERR_REWARD, "%s", reason);
    return MBL_OK;
}

static void on_scored(mbl_score_job_t *shown, size_t first, size_t n, const mbl_proto_result_t *result,
                      const char *why) {
    job_t *job = (job_t *)shown;
    mbl_scorer_pool_t *pool = job->pool;
    for (size_t o = 0; o < job->service->m; o++)
        for (size_t i = 0; i < n; i++) {
            size_t k = job->service->rewards[o];
            mbl_score_t score = {0, MBL_SCORE_FAILED};
            mbl_status_t status = read_score(result, why, n, o, i, &score);
            if (take_score(status, score, &job->scores[(first + i) * pool->k + k]) != MBL_OK)
                note_failure(pool, &pool->rewards[k], job->first + first + i,
                             shown->prompts[first + i]->text);
        }
}

static void on_done(mbl_score_job_t *shown, size_t n) {
    job_t *job = (job_t *)shown;
    mbl_scorer_pool_t *pool = job->pool;
    uv_mutex_lock(&pool->lock);
    job->left -= n;
    job->service->pending -= n;
    if (job->service->pending == 0)
        job->service->done_at = mbl_now();
    if (job->left == 0) {
        job->next = pool->spare_jobs;
        pool->spare_jobs = job;
    }
    pool->finished += n;
    if (pool->finished == pool->submitted)
        uv_cond_broadcast(&pool->done);
    uv_mutex_unlock(&pool->lock);
}

static mbl_status_t have_spare_jobs(mbl_scorer_pool_t *pool) {
    size_t have = 0;
    uv_mutex_lock(&pool->lock);
    for (const job_t *job = pool->spare_jobs; job; job = job->next)
        have++;
    uv_mutex_unlock(&pool->lock);
    for (; have < pool->n_services; have++) {
        job_t *job;
        MBL_ALLOC(job, 1);
        uv_mutex_lock(&pool->lock);
        job->next = pool->spare_jobs;
        pool->spare_jobs = job;
        uv_mutex_unlock(&pool->lock);
    }
    return MBL_OK;
}

static void submit_to_services(mbl_scorer_pool_t *pool, const mbl_image_t *images,
                               const mbl_prompt_t *const *prompts, size_t n, size_t first,
                               mbl_score_t *scores) {
    for (size_t s = 0; s < pool->n_services; s++) {
        service_t *service = &pool->services[s];
        uv_mutex_lock(&pool->lock);
        job_t *job = pool->spare_jobs;
        pool->spare_jobs = job->next;
        pool->submitted += n;
        service->pending += n;
        uv_mutex_unlock(&pool->lock);
        *job = (job_t){
            .job = {.images = images, .prompts = prompts, .n = n, .scored = on_scored, .done = on_done},
            .pool = pool,
            .service = service,
            .scores = scores,
            .first = first,
            .left = n};
        service->table->submit(service->self, &job->job);
    }
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

bool mbl_scorer_pool_replica(mbl_scorer_pool_t *pool, size_t k, size_t i, const char **url, bool *ready,
                             char *text, size_t size) {
    const reward_t *reward = &pool->rewards[k];
    const service_t *service = reward->service != SIZE_MAX ? &pool->services[reward->service] : NULL;
    return service && service->table->replica(service->self, i, url, ready, text, size);
}

static void close_services(mbl_scorer_pool_t *pool) {
    for (size_t s = 0; s < pool->n_services; s++) {
        if (pool->services[s].open)
            pool->services[s].table->close(pool->services[s].self);
        mbl_free(pool->services[s].rewards);
    }
    for (job_t *job = pool->spare_jobs, *next; job; job = next) {
        next = job->next;
        mbl_free(job);
    }
    mbl_free(pool->services);
}

/* ---- opening and closing ---- */

static mbl_status_t fill_pool(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs, size_t k,
                              size_t workers, mbl_scorer_pool_t *pool) {
    MBL_ALLOC(pool->rewards, k);
    for (; pool->k < k; pool->k++)
        MBL_TRY(open_reward(scorers[pool->k], &specs[pool->k], &pool->rewards[pool->k]));
    MBL_TRY(open_services(pool, specs));
    MBL_TRY(make_queues(pool, scorers, k));
    return start_threads(pool, workers);
}

/* The locks of an otherwise empty scorer pool. */
static mbl_status_t open_locks(mbl_scorer_pool_t *pool) {
    int error = uv_mutex_init(&pool->lock);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    error = uv_cond_init(&pool->work);
    if (error) {
        uv_mutex_destroy(&pool->lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    error = uv_cond_init(&pool->done);
    if (error) {
        uv_cond_destroy(&pool->work);
        uv_mutex_destroy(&pool->lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    return MBL_OK;
}

mbl_status_t mbl_scorer_pool_open_with(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs,
                                       size_t k, size_t threads, mbl_scorer_pool_t **out) {
    mbl_scorer_pool_t *pool;
    MBL_REQUIRE(k > 0 && threads <= MOST_THREADS,
                "%zu rewards on %zu threads; expected at least one reward and at most %d threads", k, threads,
                MOST_THREADS);
    MBL_ALLOC(pool, 1);
    mbl_status_t status = open_locks(pool);
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
                                  mbl_scorer_pool_t **out) {
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
        status = mbl_scorer_pool_open_with(scorers, specs, k, threads, out);
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
    close_services(pool);
    for (size_t k = 0; k < pool->k; k++) {
        reward_t *reward = &pool->rewards[k];
        if (reward->failed > 1)
            MBL_WARN("reward %s: %zu scores failed in all", reward->name, reward->failed);
        if (reward->open && reward->scorer->close)
            reward->scorer->close(reward->self);
        mbl_free(reward->name);
    }
    for (batch_t *batch = pool->spare, *next; batch; batch = next) {
        next = batch->next;
        mbl_free(batch);
    }
    uv_cond_destroy(&pool->done);
    uv_cond_destroy(&pool->work);
    uv_mutex_destroy(&pool->lock);
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
    return reward->scorer->service || !reward->scorer->applies ||
           reward->scorer->applies(reward->self, prompt);
}

/* Boxes for every queue into the spare ones. */
static mbl_status_t have_spares(mbl_scorer_pool_t *pool) {
    size_t have = 0;
    uv_mutex_lock(&pool->lock);
    for (const batch_t *batch = pool->spare; batch; batch = batch->next)
        have++;
    uv_mutex_unlock(&pool->lock);
    for (; have < pool->n_queues; have++) { /* threads only add to them */
        batch_t *batch;
        MBL_ALLOC(batch, 1);
        uv_mutex_lock(&pool->lock);
        batch->next = pool->spare;
        pool->spare = batch;
        uv_mutex_unlock(&pool->lock);
    }
    return MBL_OK;
}

mbl_status_t mbl_scorer_pool_submit(mbl_scorer_pool_t *pool, const mbl_image_t *images,
                                    const mbl_prompt_t *const *prompts, size_t n, mbl_score_t *scores) {
    if (n == 0)
        return MBL_OK;
    MBL_TRY(have_spares(pool));
    MBL_TRY(have_spare_jobs(pool));
    uv_mutex_lock(&pool->lock);
    for (size_t i = 0; i < pool->n_queues; i++) {
        queue_t *queue = &pool->queues[i];
        batch_t *batch = pool->spare;
        pool->spare = batch->next;
        *batch =
            (batch_t){.images = images, .prompts = prompts, .scores = scores, .n = n, .first = pool->images};
        if (queue->tail)
            queue->tail->next = batch;
        else
            queue->head = batch;
        queue->tail = batch;
        pool->submitted += n;
    }
    size_t first = pool->images;
    pool->images += n;
    uv_cond_broadcast(&pool->work);
    uv_mutex_unlock(&pool->lock);
    submit_to_services(pool, images, prompts, n, first, scores);
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
            bool applies = mbl_scorer_pool_applies(pool, k, prompts[i]);
            scores[i * pool->k + k] = (mbl_score_t){0, applies ? MBL_SCORE_FAILED : MBL_SCORE_NA};
            if (!applies)
                continue;
            (void)MBL_FAIL(MBL_ERR_NUMERIC, "the image has numbers in it that are not finite");
            note_failure(pool, &pool->rewards[k], first + i, prompts[i]->text);
        }
    mbl_fail_quiet(0);
}

mbl_status_t mbl_scorer_pool_wait(mbl_scorer_pool_t *pool) {
    mbl_status_t status = MBL_OK;
    const reward_t *earliest = NULL;
    pool->waiting_since = mbl_now();
    uv_mutex_lock(&pool->lock);
    while (pool->finished < pool->submitted)
        uv_cond_wait(&pool->done, &pool->lock);
    uv_mutex_unlock(&pool->lock);
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
