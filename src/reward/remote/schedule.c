/* Tasks and attempts in two tables that are looked through; both are small. */
#include "reward/remote/schedule.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

enum {
    TOLERATED = 3,     /* failures, or lost races, in a row until a replica is quarantined */
    LATENCIES = 64,    /* the last ones, of which the median is taken, */
    LATENCIES_MIN = 8, /* once there are so many */
    FIRST_TASKS = 16
};
/* seconds */
static const double BACKOFF = 0.1, BACKOFF_MAX = 5, QUARANTINE = 5, QUARANTINE_MAX = 300, HEDGE_MIN = 0.05;
static const double TRIAL_LEAST = 5, SLACK = 0.5; /* of an optional task: see trial_time and budget */
static const double NEARLY = 0.9;                 /* of a deadline is one: clocks and timers differ */
static const double HEDGE_SHARE = 0.1;            /* of requests that may be hedges, beside the first few */

typedef enum { UNKNOWN, PROBING, READY, TRIAL, QUARANTINED } replica_state_t;
typedef struct {
    replica_state_t state;
    size_t under_way, failures, lost, busy, level; /* in a row: failures, lost races, busy; quarantines */
    double latency;                                /* smoothed; 0: not known */
    double since, until;                           /* of the quarantine */
    double last_good;                              /* when it gave an answer */
    double busy_until;
    double away_until; /* it has asked for longer than a deadline */
    bool note;         /* a change of state is to be logged */
    bool held;         /* quarantined by another schedule's decision */
    bool seen;         /* quarantined for what this one saw */
} replica_t;

typedef struct {
    bool used, begun, settled, good; /* begun: there was an attempt */
    uint64_t number;
    size_t alive, tries, tried_last; /* attempts under way; failed ones; where the last of them was */
    uint32_t refused;                /* bit for each replica that refused it */
    double added, not_before;
    double expires; /* from the first attempt on; before, the least (see expiry) */
} task_t;

typedef struct {
    bool used, cancelled, hedge;
    size_t task;
    double started;
} attempt_t;

struct mbl_schedule {
    mbl_schedule_options_t options;
    replica_t replicas[MBL_SCHEDULE_REPLICAS_MAX];
    attempt_t *attempts; /* [replicas, in_flight] */
    task_t *tasks;
    size_t capacity;
    uint64_t added, draws;
    bool begun;
    double last_ready; /* when some replica was more than on trial, or it began */
    size_t lost;       /* tasks in a row that failed after all their tries, with no good answer since */
    double last_good;  /* when an answer came */
    double latencies[LATENCIES];
    size_t n_latencies;
    mbl_schedule_counts_t counts;
};

mbl_status_t mbl_schedule_open(const mbl_schedule_options_t *options, mbl_schedule_t **out) {
    mbl_schedule_t *s;
    mbl_status_t status = MBL_OK;
    MBL_REQUIRE(options->replicas > 0 && options->replicas <= MBL_SCHEDULE_REPLICAS_MAX,
                "%zu replicas; expected 1 to %d", options->replicas, MBL_SCHEDULE_REPLICAS_MAX);
    MBL_REQUIRE(options->in_flight > 0 && options->in_flight <= MBL_SCHEDULE_IN_FLIGHT_MAX,
                "%zu requests under way; expected 1 to %d", options->in_flight, MBL_SCHEDULE_IN_FLIGHT_MAX);
    MBL_ALLOC(s, 1);
    s->options = *options;
    MBL_ALLOC_GOTO(s->attempts, options->replicas * options->in_flight, failed);
    MBL_ALLOC_GOTO(s->tasks, FIRST_TASKS, failed);
    s->capacity = FIRST_TASKS;
    *out = s;
    return MBL_OK;
failed:
    mbl_schedule_close(s);
    return status;
}

void mbl_schedule_close(mbl_schedule_t *s) {
    if (!s)
        return;
    mbl_free(s->attempts);
    mbl_free(s->tasks);
    mbl_free(s);
}

size_t mbl_schedule_attempts(const mbl_schedule_t *s) {
    return s->options.replicas * s->options.in_flight;
}

mbl_schedule_counts_t mbl_schedule_counts(const mbl_schedule_t *s) {
    return s->counts;
}

bool mbl_schedule_is_ready(const mbl_schedule_t *s, size_t replica) {
    return s->replicas[replica].state == READY || s->replicas[replica].state == TRIAL;
}

/* How long a task has, its attempts and waits between them included. */
static double budget(const mbl_schedule_t *s) {
    if (s->options.optional)
        return s->options.deadline + SLACK; /* so that an attempt's own deadline comes first */
    return s->options.deadline * (double)(s->options.retries + 1);
}

mbl_status_t mbl_schedule_add(mbl_schedule_t *s, double now, size_t *out) {
    size_t i = 0;
    while (i < s->capacity && s->tasks[i].used)
        i++;
    if (i == s->capacity) {
        task_t *tasks = mbl_realloc(s->tasks, s->capacity, 2 * s->capacity, sizeof *tasks);
        if (!tasks)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu requests", 2 * s->capacity);
        s->tasks = tasks;
        s->capacity *= 2;
    }
    s->tasks[i] = (task_t){.used = true,
                           .number = s->added++,
                           .tried_last = SIZE_MAX,
                           .added = now,
                           .not_before = now,
                           .expires = now + budget(s)};
    *out = i;
    return MBL_OK;
}

void mbl_schedule_drop(mbl_schedule_t *s, size_t task) {
    s->tasks[task].used = false;
}

/* ---- time ---- */

/* `seconds`, doubled `level` times up to `most`, and of that three quarters to all: clients that failed
 * together do not come back together. */
static double jittered(mbl_schedule_t *s, double seconds, size_t level, double most) {
    mbl_rng_t rng = mbl_rng(s->options.seed, MBL_RNG_BACKOFF, 0, s->draws++);
    double grown = seconds * pow(2, (double)(level < 32 ? level : 32));
    return fmin(grown, most) * (1 - 0.25 * (double)mbl_rng_uniform(&rng));
}

static void keep_latency(mbl_schedule_t *s, replica_t *replica, double seconds) {
    replica->latency = replica->latency > 0 ? 0.8 * replica->latency + 0.2 * seconds : seconds;
    s->latencies[s->n_latencies++ % LATENCIES] = seconds;
}

static double median_latency(const mbl_schedule_t *s) {
    double sorted[LATENCIES];
    size_t n = s->n_latencies < LATENCIES ? s->n_latencies : LATENCIES;
    for (size_t i = 0; i < n; i++) {
        size_t j = i;
        for (; j > 0 && sorted[j - 1] > s->latencies[i]; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = s->latencies[i];
    }
    return sorted[n / 2];
}

/* When an attempt has taken so long that a second one is due. */
static double hedge_after(const mbl_schedule_t *s) {
    if (s->options.hedge <= 0 || s->n_latencies < LATENCIES_MIN)
        return INFINITY;
    return fmax(HEDGE_MIN, s->options.hedge * median_latency(s));
}

/* ---- replicas ---- */

static void quarantine(mbl_schedule_t *s, replica_t *replica, double now) {
    replica->note = replica->level == 0; /* not again while it does not get better */
    s->counts.quarantined += replica->note;
    replica->seen = true;
    replica->since = now;
    replica->until = now + jittered(s, QUARANTINE, replica->level++, QUARANTINE_MAX);
    replica->state = QUARANTINED;
    replica->failures = replica->lost = 0;
}

static void restore(replica_t *replica) {
    replica->note = replica->level > 0;
    replica->state = READY;
    replica->level = 0;
    replica->seen = false;
}

static bool any_ready(const mbl_schedule_t *s) {
    for (size_t r = 0; r < s->options.replicas; r++)
        if (mbl_schedule_is_ready(s, r))
            return true;
    return false;
}

/* When a quarantined replica is asked again: soon where there is no other and tasks may wait for it. */
static double probe_time(const mbl_schedule_t *s, const replica_t *replica) {
    double soon = replica->since + fmin(BACKOFF * pow(2, (double)replica->level), BACKOFF_MAX);
    if (any_ready(s))
        return replica->held ? INFINITY : fmax(replica->until, replica->away_until);
    return fmax(s->options.optional ? replica->until : fmin(soon, replica->until), replica->away_until);
}

/* Whether every replica has asked for longer than tasks wait. */
static bool all_away(const mbl_schedule_t *s, double now) {
    for (size_t r = 0; r < s->options.replicas; r++)
        if (s->replicas[r].state != QUARANTINED || s->replicas[r].away_until <= now)
            return false;
    return true;
}

/* Whether tasks fail without a try. One on trial is not known to be of use, but tasks wait for its outcome.
 */
static bool is_down(const mbl_schedule_t *s, double now) {
    return !any_ready(s) && (s->options.optional || s->lost >= TOLERATED ||
                             now - s->last_ready > s->options.deadline || all_away(s, now));
}

static bool in_service(const mbl_schedule_t *s) {
    for (size_t r = 0; r < s->options.replicas; r++)
        if (s->replicas[r].state == READY)
            return true;
    return false;
}

static bool has_room(const mbl_schedule_t *s, size_t r, double now) {
    const replica_t *replica = &s->replicas[r];
    size_t most = replica->state == TRIAL ? 1 : s->options.in_flight;
    return mbl_schedule_is_ready(s, r) && replica->under_way < most && replica->busy_until <= now;
}

/* Whether some other replica would take the task, now or when it has room. */
static bool has_other(const mbl_schedule_t *s, const task_t *task, size_t not ) {
    for (size_t r = 0; r < s->options.replicas; r++)
        if (r != not &&mbl_schedule_is_ready(s, r) && !(task->refused >> r & 1))
            return true;
    return false;
}

/* The replica with room that will answer a task first; not one that has just failed it, unless there is no
 * other at all. `not`: never this one. SIZE_MAX: none. */
static size_t choose(const mbl_schedule_t *s, const task_t *task, size_t not, double now) {
    size_t best = SIZE_MAX, n = s->options.replicas;
    double least = INFINITY;
    for (size_t i = 0; i < n; i++) {
        size_t r = (size_t)((task->number + s->options.seed + i) % n); /* ties go around */
        const replica_t *replica = &s->replicas[r];
        if (r == not || (task->refused >> r & 1) || !has_room(s, r, now) ||
            (r == task->tried_last && has_other(s, task, r)))
            continue;
        double cost = (double)(replica->under_way + 1) * fmax(replica->latency, 1e-6);
        if (replica->state == TRIAL)
            cost = 0;
        if (cost < least) {
            least = cost;
            best = r;
        }
    }
    return best;
}

/* ---- what to do ---- */

static void settle(task_t *task, bool good) {
    task->settled = true;
    task->good = good;
}

void mbl_schedule_give_up(mbl_schedule_t *s) {
    for (size_t t = 0; t < s->capacity; t++)
        if (s->tasks[t].used && !s->tasks[t].settled)
            settle(&s->tasks[t], false);
}

static bool note_or_probe(mbl_schedule_t *s, double now, mbl_schedule_action_t *out) {
    for (size_t r = 0; r < s->options.replicas; r++) {
        replica_t *replica = &s->replicas[r];
        out->replica = r;
        out->until = replica->until;
        if (replica->note) {
            replica->note = false;
            out->kind = replica->state == QUARANTINED ? MBL_SCHEDULE_QUARANTINE : MBL_SCHEDULE_RESTORE;
            return true;
        }
        if (replica->state == UNKNOWN || (replica->state == QUARANTINED && probe_time(s, replica) <= now)) {
            replica->state = PROBING;
            out->kind = MBL_SCHEDULE_PROBE;
            return true;
        }
    }
    return false;
}

/* A task that nobody was asked about yet stands in a queue, which may be long; it ends where the queue does
 * not move. */
static double expiry(const mbl_schedule_t *s, const task_t *task) {
    return task->begun ? task->expires : fmax(task->expires, s->last_good + budget(s));
}

/* Its time is over. An optional one is not waited for again where nobody answered meanwhile. */
static void expire(mbl_schedule_t *s, task_t *task, double now) {
    settle(task, false);
    for (size_t r = 0; s->options.optional && r < s->options.replicas; r++)
        if (mbl_schedule_is_ready(s, r) && s->replicas[r].last_good < task->added)
            quarantine(s, &s->replicas[r], now);
}

static bool cancel_or_finish(mbl_schedule_t *s, double now, mbl_schedule_action_t *out) {
    for (size_t a = 0; a < mbl_schedule_attempts(s); a++) {
        attempt_t *attempt = &s->attempts[a];
        if (attempt->used && !attempt->cancelled && s->tasks[attempt->task].settled) {
            attempt->cancelled = true;
            *out = (mbl_schedule_action_t){.kind = MBL_SCHEDULE_CANCEL, .task = attempt->task, .attempt = a};
            return true;
        }
    }
    for (size_t t = 0; t < s->capacity; t++) {
        task_t *task = &s->tasks[t];
        if (task->used && !task->settled && expiry(s, task) <= now)
            expire(s, task, now);
        else if (task->used && !task->settled && task->alive == 0 && is_down(s, now))
            settle(task, false);
        if (task->used && task->settled && task->alive == 0) {
            *out = (mbl_schedule_action_t){.kind = MBL_SCHEDULE_FINISH, .task = t, .good = task->good};
            task->used = false;
            return true;
        }
    }
    return false;
}

/* How long an optional task waits for a replica on trial. */
static double trial_time(const replica_t *replica) {
    return fmax(TRIAL_LEAST, 2 * replica->latency);
}

static void start(mbl_schedule_t *s, size_t t, size_t r, bool hedge, double now, mbl_schedule_action_t *out) {
    task_t *task = &s->tasks[t];
    size_t a = r * s->options.in_flight;
    while (s->attempts[a].used)
        a++;
    s->attempts[a] = (attempt_t){.used = true, .hedge = hedge, .task = t, .started = now};
    s->replicas[r].under_way++;
    if (!task->begun)
        task->expires = now + budget(s);
    if (s->options.optional && s->replicas[r].state == TRIAL)
        task->expires = fmin(task->expires, now + trial_time(&s->replicas[r]));
    task->begun = true;
    task->alive++;
    s->counts.started++;
    s->counts.hedged += hedge;
    s->counts.retried += !hedge && task->tries > 0;
    *out = (mbl_schedule_action_t){
        .kind = MBL_SCHEDULE_START, .task = t, .attempt = a, .replica = r, .good = true};
}

/* When a second attempt is due for the one that is under way: at once where its replica has been quarantined
 * meanwhile. */
static double hedge_time(const mbl_schedule_t *s, size_t a, double after) {
    const attempt_t *attempt = &s->attempts[a];
    const task_t *task = &s->tasks[attempt->task];
    if (!attempt->used || attempt->cancelled || task->settled || task->alive != 1)
        return INFINITY;
    return mbl_schedule_is_ready(s, a / s->options.in_flight) ? attempt->started + after : attempt->started;
}

static bool hedge(mbl_schedule_t *s, double now, mbl_schedule_action_t *out) {
    double after = hedge_after(s);
    for (size_t a = 0; a < mbl_schedule_attempts(s); a++) {
        size_t own = a / s->options.in_flight;
        double allowed = (double)s->options.in_flight + HEDGE_SHARE * (double)s->counts.started;
        bool rescue = !mbl_schedule_is_ready(s, own);
        if (hedge_time(s, a, after) > now || (!rescue && (double)s->counts.hedged >= allowed))
            continue;
        size_t r = choose(s, &s->tasks[s->attempts[a].task], own, now);
        if (r != SIZE_MAX) {
            start(s, s->attempts[a].task, r, true, now, out);
            return true;
        }
    }
    return false;
}

/* The oldest task that may start. */
static bool start_next(mbl_schedule_t *s, double now, mbl_schedule_action_t *out) {
    size_t best = SIZE_MAX, replica = 0;
    for (size_t t = 0; t < s->capacity; t++) {
        const task_t *task = &s->tasks[t];
        bool waits = task->used && !task->settled && task->alive == 0 && task->not_before <= now;
        if (!waits || (best != SIZE_MAX && s->tasks[best].number < task->number))
            continue;
        size_t r = choose(s, task, SIZE_MAX, now);
        if (r != SIZE_MAX) {
            best = t;
            replica = r;
        }
    }
    if (best == SIZE_MAX)
        return false;
    start(s, best, replica, false, now, out);
    return true;
}

/* The next time at which something may be due. */
static double next_time(const mbl_schedule_t *s, double now) {
    double until = INFINITY, after = hedge_after(s);
    for (size_t r = 0; r < s->options.replicas; r++) {
        if (s->replicas[r].state == QUARANTINED)
            until = fmin(until, probe_time(s, &s->replicas[r]));
        if (s->replicas[r].busy_until > now)
            until = fmin(until, s->replicas[r].busy_until);
    }
    for (size_t t = 0; t < s->capacity; t++) {
        const task_t *task = &s->tasks[t];
        if (!task->used || task->settled)
            continue;
        until = fmin(until, expiry(s, task));
        if (task->alive == 0 && !any_ready(s)) /* a moment later, so that it is over then */
            until = fmin(until, s->last_ready + s->options.deadline + 1e-3);
        if (task->alive == 0 && task->not_before > now)
            until = fmin(until, task->not_before);
    }
    for (size_t a = 0; a < mbl_schedule_attempts(s); a++) {
        double due = hedge_time(s, a, after);
        if (due > now) /* one that is overdue waits for room, which comes with a report */
            until = fmin(until, due);
    }
    return until;
}

mbl_schedule_action_t mbl_schedule_next(mbl_schedule_t *s, double now) {
    mbl_schedule_action_t out = {.kind = MBL_SCHEDULE_WAIT};
    if (!s->begun || in_service(s))
        s->last_ready = now;
    s->begun = true;
    if (note_or_probe(s, now, &out) || cancel_or_finish(s, now, &out) || hedge(s, now, &out) ||
        start_next(s, now, &out))
        return out;
    return (mbl_schedule_action_t){.kind = MBL_SCHEDULE_WAIT, .until = next_time(s, now)};
}

/* ---- what became of it ---- */

/* Whether a replica has given no answer at all since then. Of one that has, a single request may have been a
 * long one. */
static bool is_silent(const replica_t *replica, double since) {
    return replica->last_good < since;
}

/* The attempts that a good one has overtaken: their replicas lag. One that is silent is as good as gone, so
 * that it does not take a second step to notice: two requests are enough. */
static void count_lost(mbl_schedule_t *s, size_t t, double now) {
    for (size_t a = 0; a < mbl_schedule_attempts(s); a++) {
        replica_t *replica = &s->replicas[a / s->options.in_flight];
        if (s->attempts[a].used && s->attempts[a].task == t && !s->attempts[a].hedge) {
            s->counts.hedges_won++;
            replica->latency = fmax(replica->latency, now - s->attempts[a].started);
            if (!mbl_schedule_is_ready(s, a / s->options.in_flight))
                continue;
            replica->lost += is_silent(replica, s->attempts[a].started) ? 2 : 1;
            if (replica->lost >= TOLERATED || replica->state == TRIAL)
                quarantine(s, replica, now);
        }
    }
}

/* The only one that is ready and answers, if with errors, stays: its tasks fail one by one (see lose). Where
 * there is another, one that was silent for a whole deadline goes at once. */
static void count_failure(mbl_schedule_t *s, size_t r, bool answered, bool silent, double now) {
    replica_t *replica = &s->replicas[r];
    bool other = false;
    for (size_t i = 0; i < s->options.replicas; i++)
        other |= i != r && mbl_schedule_is_ready(s, i);
    if (!mbl_schedule_is_ready(s, r))
        return;
    replica->failures += silent && other ? TOLERATED : 1;
    bool stays = answered && !other && s->lost < TOLERATED;
    if (!stays && (replica->failures >= TOLERATED || replica->state == TRIAL))
        quarantine(s, replica, now);
}

/* Replicas that refused what another one has answered now. What all refuse is the request's fault. */
static void count_refusals(mbl_schedule_t *s, const task_t *task, double now) {
    for (size_t r = 0; r < s->options.replicas; r++)
        if (task->refused >> r & 1)
            count_failure(s, r, true, false, now);
}

/* A task has failed after all its tries. Where several in a row do, nobody is of use. */
static void lose(mbl_schedule_t *s, task_t *task, double now) {
    settle(task, false);
    s->lost++;
    for (size_t r = 0; s->lost >= TOLERATED && r < s->options.replicas; r++)
        if (mbl_schedule_is_ready(s, r))
            quarantine(s, &s->replicas[r], now);
}

static void retry(mbl_schedule_t *s, task_t *task, size_t r, double now) {
    task->tried_last = r;
    task->tries++;
    if (task->alive > 0)
        return; /* the other attempt decides */
    if (task->tries > s->options.retries)
        lose(s, task, now);
    else
        task->not_before = has_other(s, task, r) && task->tries == 1
                               ? now
                               : now + jittered(s, BACKOFF, task->tries - 1, BACKOFF_MAX);
}

static void refuse(const mbl_schedule_t *s, task_t *task, size_t r) {
    uint32_t all = s->options.replicas == 32 ? UINT32_MAX : (1u << s->options.replicas) - 1;
    task->refused |= 1u << r;
    if (task->refused == all && task->alive == 0)
        settle(task, false);
}

/* One that asks for longer than a deadline is not waited for: it goes at once, and tasks that have no other
 * fail. It is left alone as long as it asks, though not for ever. */
static void come_back(mbl_schedule_t *s, size_t r, double now, double retry_after) {
    replica_t *replica = &s->replicas[r];
    double wait = retry_after > 0 ? retry_after : jittered(s, BACKOFF, replica->busy, BACKOFF_MAX);
    replica->busy++;
    replica->busy_until = now + wait;
    if (retry_after <= s->options.deadline)
        return;
    replica->away_until = now + fmin(retry_after, QUARANTINE_MAX);
    if (mbl_schedule_is_ready(s, r))
        quarantine(s, replica, now);
}

bool mbl_schedule_report(mbl_schedule_t *s, double now, size_t a, mbl_schedule_outcome_t outcome,
                         double retry_after) {
    attempt_t attempt = s->attempts[a];
    size_t r = a / s->options.in_flight;
    replica_t *replica = &s->replicas[r];
    task_t *task = &s->tasks[attempt.task];
    bool answer = outcome == MBL_SCHEDULE_GOOD && !task->settled;
    s->attempts[a].used = false;
    replica->under_way--;
    task->alive--;
    if (outcome == MBL_SCHEDULE_GOOD) {
        s->last_good = replica->last_good = now;
        s->lost = 0;
        keep_latency(s, replica, now - attempt.started);
        replica->failures = replica->busy = 0;
        if (!attempt.cancelled)
            replica->lost = 0;
        if (replica->state == TRIAL)
            restore(replica);
    }
    if (answer) {
        settle(task, true);
        count_refusals(s, task, now);
        if (attempt.hedge)
            count_lost(s, attempt.task, now);
    } else if (outcome == MBL_SCHEDULE_BUSY) {
        come_back(s, r, now, retry_after);
    } else if (outcome == MBL_SCHEDULE_FAILED || outcome == MBL_SCHEDULE_ERROR) {
        bool whole = now - attempt.started >= NEARLY * s->options.deadline;
        count_failure(s, r, outcome == MBL_SCHEDULE_ERROR, whole && is_silent(replica, attempt.started), now);
        if (!task->settled)
            retry(s, task, r, now);
    } else if (outcome == MBL_SCHEDULE_REFUSED && !task->settled) {
        refuse(s, task, r);
    } else if (outcome == MBL_SCHEDULE_CANCELLED && !task->good && replica->state == TRIAL) {
        quarantine(s, replica, now); /* its trial took too long */
    }
    return answer;
}

void mbl_schedule_probed(mbl_schedule_t *s, double now, size_t r, bool good) {
    replica_t *replica = &s->replicas[r];
    if (good) {
        replica->state = TRIAL;
        replica->failures = replica->lost = 0;
        replica->busy_until = now;
    } else {
        quarantine(s, replica, now);
    }
}

/* ---- ranks ---- */

bool mbl_schedule_votes_against(const mbl_schedule_t *s, size_t r) {
    return s->replicas[r].seen && !s->replicas[r].held && !mbl_schedule_is_ready(s, r);
}

void mbl_schedule_decide(mbl_schedule_t *s, double now, size_t r, bool quarantined, bool mine) {
    replica_t *replica = &s->replicas[r];
    bool ready = mbl_schedule_is_ready(s, r);
    if (mine) {
        if (quarantined && ready)
            quarantine(s, replica, now);
    } else if (quarantined) {
        if (ready) {
            quarantine(s, replica, now);
            replica->note = replica->seen = false; /* whoever decided logs it */
        }
        replica->held = true;
    } else {
        if (replica->state == QUARANTINED && (replica->held || replica->seen))
            replica->until = now;
        replica->held = replica->seen = false;
    }
}
