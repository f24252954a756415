/* The panel: threads that take a few pictures at a time from a queue of batches and run scorers on them.
 * Workers share one queue for all scorers that compute on the CPU; a scorer with a thread of its own has a
 * queue of its own. Each score goes to its own place, so nothing depends on who computes it. */
#include "reward/reward.h"
#include "base/log.h"
#include "base/mem.h"

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
    size_t n, taken; /* pictures handed to workers */
    size_t first;    /* pictures submitted before */
} batch_t;

typedef struct {
    const mbl_scorer_t *scorer;
    size_t queue; /* of the scorer */
    char *name;
    mbl_on_failure_t on_failure;
    void *self;
    bool open;
    size_t failed;       /* scores, since opening */
    size_t stop_at;      /* the earliest failed picture since the last wait; SIZE_MAX: none */
    char stop_text[512]; /* and what happened to it */
} reward_t;

/* The first is the workers'. */
typedef struct {
    mbl_panel_t *panel;
    batch_t *head, *tail;
    size_t chunk; /* pictures that a thread takes at once */
} queue_t;

struct mbl_panel {
    reward_t *rewards;
    size_t k;
    queue_t *queues; /* [1 + those of scorers with their own thread] */
    size_t n_queues;
    uv_thread_t *threads;
    size_t threads_started;
    uv_mutex_t lock; /* guards all below, the queues and the counters of the rewards */
    uv_cond_t work, done;
    batch_t *spare;
    size_t pictures;            /* submitted, ever */
    size_t submitted, finished; /* pictures, ever, in all queues */
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

/* What a scorer said of one picture, as it counts. Not OK when it is a failure; why is then in
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

static void note_failure(mbl_panel_t *panel, reward_t *reward, size_t picture, const char *prompt) {
    uv_mutex_lock(&panel->lock);
    bool first = reward->failed++ == 0;
    if (picture < reward->stop_at) {
        reward->stop_at = picture;
        snprintf(reward->stop_text, sizeof reward->stop_text, "reward %s failed on '%.160s': %.240s",
                 reward->name, prompt, mbl_fail_message());
    }
    uv_mutex_unlock(&panel->lock);
    if (first)
        MBL_WARN("reward %s failed on '%.160s': %s; more failures of this reward are counted, not shown",
                 reward->name, prompt, mbl_fail_message());
}

/* One call of a scorer for pictures from to from + n of a batch. */
static void score_call(mbl_panel_t *panel, size_t k, const batch_t *batch, size_t from, size_t n) {
    reward_t *reward = &panel->rewards[k];
    mbl_score_t said[MBL_SCORER_MOST] = {{0}};
    mbl_status_t status =
        reward->scorer->score(reward->self, batch->images + from, batch->prompts + from, n, said);
    for (size_t i = 0; i < n; i++)
        if (take_score(status, said[i], &batch->scores[(from + i) * panel->k + k]) != MBL_OK)
            note_failure(panel, reward, batch->first + from + i, batch->prompts[from + i]->text);
}

static void score_range(const queue_t *queue, const batch_t *batch, size_t from, size_t to) {
    mbl_panel_t *panel = queue->panel;
    for (size_t k = 0; k < panel->k; k++) {
        size_t most = most_of(panel->rewards[k].scorer);
        if (panel->rewards[k].queue == (size_t)(queue - panel->queues))
            for (size_t i = from; i < to; i += most)
                score_call(panel, k, batch, i, least(most, to - i));
    }
}

/* Takes the next pictures, with the lock held. A batch leaves the queue with its last ones; its box may then
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
        batch->next = queue->panel->spare;
        queue->panel->spare = batch;
    }
    return true;
}

static void work(void *argument) {
    queue_t *queue = argument;
    mbl_panel_t *panel = queue->panel;
    batch_t batch;
    size_t from, to;
    mbl_fail_quiet(1); /* note_failure speaks, once */
    uv_mutex_lock(&panel->lock);
    for (;;) {
        if (take_range(queue, &batch, &from, &to)) {
            uv_mutex_unlock(&panel->lock);
            score_range(queue, &batch, from, to);
            uv_mutex_lock(&panel->lock);
            panel->finished += to - from;
            if (panel->finished == panel->submitted)
                uv_cond_broadcast(&panel->done);
        } else if (panel->closing) {
            break;
        } else {
            uv_cond_wait(&panel->work, &panel->lock);
        }
    }
    uv_mutex_unlock(&panel->lock);
}

static mbl_status_t open_reward(const mbl_scorer_t *scorer, const mbl_reward_spec_t *spec, reward_t *reward) {
    reward->scorer = scorer;
    reward->on_failure = spec->on_failure;
    reward->stop_at = SIZE_MAX;
    reward->name = mbl_strdup(spec->name);
    if (!reward->name)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the name of reward %s", spec->name);
    if (scorer->open)
        MBL_TRY(scorer->open(spec->options, &reward->self));
    else if (spec->options && strcmp(spec->options, "{}") != 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "reward %s: options %s; %s takes none", spec->name, spec->options,
                        scorer->name);
    reward->open = true;
    return MBL_OK;
}

static mbl_status_t start_thread(mbl_panel_t *panel, queue_t *queue) {
    int error = uv_thread_create(&panel->threads[panel->threads_started], work, queue);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "thread %zu for rewards: %s", panel->threads_started + 1,
                        uv_strerror(error));
    panel->threads_started++;
    return MBL_OK;
}

/* The workers, and a thread for every queue behind the first. */
static mbl_status_t start_threads(mbl_panel_t *panel, size_t workers) {
    MBL_ALLOC(panel->threads, workers + panel->n_queues - 1);
    for (size_t i = 0; i < workers; i++)
        MBL_TRY(start_thread(panel, &panel->queues[0]));
    for (size_t i = 1; i < panel->n_queues; i++)
        MBL_TRY(start_thread(panel, &panel->queues[i]));
    return MBL_OK;
}

static mbl_status_t make_queues(mbl_panel_t *panel, const mbl_scorer_t *const *scorers, size_t k) {
    MBL_ALLOC(panel->queues, k + 1);
    panel->queues[panel->n_queues++] = (queue_t){.panel = panel, .chunk = CHUNK};
    for (size_t i = 0; i < k; i++)
        if (has_own_thread(scorers[i])) {
            panel->rewards[i].queue = panel->n_queues;
            panel->queues[panel->n_queues++] = (queue_t){.panel = panel, .chunk = most_of(scorers[i])};
        }
    return MBL_OK;
}

static mbl_status_t fill_panel(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs, size_t k,
                               size_t workers, mbl_panel_t *panel) {
    MBL_ALLOC(panel->rewards, k);
    for (; panel->k < k; panel->k++)
        MBL_TRY(open_reward(scorers[panel->k], &specs[panel->k], &panel->rewards[panel->k]));
    MBL_TRY(make_queues(panel, scorers, k));
    return start_threads(panel, workers);
}

/* The locks of an otherwise empty panel. */
static mbl_status_t open_locks(mbl_panel_t *panel) {
    int error = uv_mutex_init(&panel->lock);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    error = uv_cond_init(&panel->work);
    if (error) {
        uv_mutex_destroy(&panel->lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    error = uv_cond_init(&panel->done);
    if (error) {
        uv_cond_destroy(&panel->work);
        uv_mutex_destroy(&panel->lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    return MBL_OK;
}

mbl_status_t mbl_panel_open_with(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs, size_t k,
                                 size_t threads, mbl_panel_t **out) {
    mbl_panel_t *panel;
    MBL_REQUIRE(k > 0 && threads <= MOST_THREADS,
                "%zu rewards on %zu threads: at least one reward and at most %d threads would be right", k,
                threads, MOST_THREADS);
    MBL_ALLOC(panel, 1);
    mbl_status_t status = open_locks(panel);
    if (status != MBL_OK) {
        mbl_free(panel);
        return status;
    }
    status = fill_panel(scorers, specs, k, threads ? threads : 1, panel);
    if (status != MBL_OK) {
        panel->k += panel->rewards && panel->k < k; /* the one that did not open has a name to free */
        mbl_panel_close(panel);
        return status;
    }
    *out = panel;
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

mbl_status_t mbl_panel_open(const mbl_reward_spec_t *specs, size_t k, size_t threads, mbl_panel_t **out) {
    const mbl_scorer_t **scorers;
    MBL_REQUIRE(k > 0, "no rewards: at least one would be right");
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
        status = mbl_panel_open_with(scorers, specs, k, threads, out);
    mbl_free(scorers);
    return status;
}

void mbl_panel_close(mbl_panel_t *panel) {
    if (!panel)
        return;
    uv_mutex_lock(&panel->lock);
    panel->closing = true;
    uv_cond_broadcast(&panel->work);
    uv_mutex_unlock(&panel->lock);
    for (size_t i = 0; i < panel->threads_started; i++)
        uv_thread_join(&panel->threads[i]);
    for (size_t k = 0; k < panel->k; k++) {
        reward_t *reward = &panel->rewards[k];
        if (reward->failed > 1)
            MBL_WARN("reward %s: %zu scores failed in all", reward->name, reward->failed);
        if (reward->open && reward->scorer->close)
            reward->scorer->close(reward->self);
        mbl_free(reward->name);
    }
    for (batch_t *batch = panel->spare, *next; batch; batch = next) {
        next = batch->next;
        mbl_free(batch);
    }
    uv_cond_destroy(&panel->done);
    uv_cond_destroy(&panel->work);
    uv_mutex_destroy(&panel->lock);
    mbl_free(panel->threads);
    mbl_free(panel->queues);
    mbl_free(panel->rewards);
    mbl_free(panel);
}

bool mbl_panel_applies(const mbl_panel_t *panel, size_t k, const mbl_prompt_t *prompt) {
    const reward_t *reward = &panel->rewards[k];
    return !reward->scorer->applies || reward->scorer->applies(reward->self, prompt);
}

/* Boxes for every queue into the spare ones. */
static mbl_status_t have_spares(mbl_panel_t *panel) {
    size_t have = 0;
    uv_mutex_lock(&panel->lock);
    for (const batch_t *batch = panel->spare; batch; batch = batch->next)
        have++;
    uv_mutex_unlock(&panel->lock);
    for (; have < panel->n_queues; have++) { /* threads only add to them */
        batch_t *batch;
        MBL_ALLOC(batch, 1);
        uv_mutex_lock(&panel->lock);
        batch->next = panel->spare;
        panel->spare = batch;
        uv_mutex_unlock(&panel->lock);
    }
    return MBL_OK;
}

mbl_status_t mbl_panel_submit(mbl_panel_t *panel, const mbl_image_t *images,
                              const mbl_prompt_t *const *prompts, size_t n, mbl_score_t *scores) {
    if (n == 0)
        return MBL_OK;
    MBL_TRY(have_spares(panel));
    uv_mutex_lock(&panel->lock);
    for (size_t i = 0; i < panel->n_queues; i++) {
        queue_t *queue = &panel->queues[i];
        batch_t *batch = panel->spare;
        panel->spare = batch->next;
        *batch = (batch_t){
            .images = images, .prompts = prompts, .scores = scores, .n = n, .first = panel->pictures};
        if (queue->tail)
            queue->tail->next = batch;
        else
            queue->head = batch;
        queue->tail = batch;
        panel->submitted += n;
    }
    panel->pictures += n;
    uv_cond_broadcast(&panel->work);
    uv_mutex_unlock(&panel->lock);
    return MBL_OK;
}

mbl_status_t mbl_panel_wait(mbl_panel_t *panel) {
    mbl_status_t status = MBL_OK;
    const reward_t *earliest = NULL;
    uv_mutex_lock(&panel->lock);
    while (panel->finished < panel->submitted)
        uv_cond_wait(&panel->done, &panel->lock);
    uv_mutex_unlock(&panel->lock);
    for (size_t k = 0; k < panel->k; k++) {
        const reward_t *reward = &panel->rewards[k];
        if (reward->stop_at != SIZE_MAX && reward->on_failure == MBL_ON_FAILURE_STOP &&
            (!earliest || reward->stop_at < earliest->stop_at))
            earliest = reward;
    }
    if (earliest)
        status = MBL_FAIL(MBL_ERR_REWARD, "%s; its on_failure is stop, skip would go on without the score",
                          earliest->stop_text);
    for (size_t k = 0; k < panel->k; k++)
        panel->rewards[k].stop_at = SIZE_MAX;
    return status;
}
