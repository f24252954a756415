/* Simulated replicas and a simulated clock for src/reward/remote/schedule. */
#ifndef MBL_TESTS_SCHEDULE_CASE_H
#define MBL_TESTS_SCHEDULE_CASE_H

#include "support.h"

#include "base/rng.h"
#include "reward/remote/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ATTEMPTS = MBL_SCHEDULE_REPLICAS_MAX * 8, TASKS = 4096 };

/* How a replica answers an attempt that starts at `now`. */
typedef struct {
    mbl_schedule_outcome_t outcome;
    double seconds, retry_after;
    bool probe;
} behaviour_t;
typedef behaviour_t (*replica_t)(double now, size_t attempt_number);

typedef struct {
    bool used;
    size_t replica, task;
    double end;
    behaviour_t behaviour;
} attempt_t;

typedef struct {
    mbl_schedule_t *schedule;
    const mbl_schedule_options_t *options;
    const replica_t *replicas;
    double now;
    attempt_t attempts[ATTEMPTS];
    struct {
        double end;
        bool due, good;
    } probes[MBL_SCHEDULE_REPLICAS_MAX];
    size_t started, answers, good, bad, probed, quarantines, restores, by[MBL_SCHEDULE_REPLICAS_MAX];
    size_t under_way[MBL_SCHEDULE_REPLICAS_MAX];
    bool open[TASKS];
    uint64_t trace; /* of all actions and their times */
} sim_t;

static inline behaviour_t fine(double now, size_t i) {
    (void)now;
    return (behaviour_t){MBL_SCHEDULE_GOOD, 0.1 + 0.001 * (double)(i % 7), 0, true};
}
static inline behaviour_t dead(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_FAILED, 0.001, 0, false};
}
static inline behaviour_t hangs(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_FAILED, 30, 0, true};
}
static inline behaviour_t slow(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_GOOD, 5, 0, true};
}
static inline behaviour_t garbage(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_ERROR, 0.1, 0, true};
}
static inline behaviour_t cut(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_FAILED, 0.1, 0, true};
}
static inline behaviour_t refuses(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_REFUSED, 0.1, 0, true};
}
static inline behaviour_t dies(double now, size_t i) {
    return now > 5 ? dead(now, i) : fine(now, i);
}
static inline behaviour_t comes_back(double now, size_t i) {
    return now > 5 && now < 30 ? dead(now, i) : fine(now, i);
}
static inline behaviour_t becomes_slow(double now, size_t i) {
    return now > 5 ? slow(now, i) : fine(now, i);
}
static inline behaviour_t becomes_hanging(double now, size_t i) {
    return now > 5 ? hangs(now, i) : fine(now, i);
}
static inline behaviour_t becomes_garbage(double now, size_t i) {
    return now > 5 ? garbage(now, i) : fine(now, i);
}
static inline behaviour_t busy_at_first(double now, size_t i) {
    return now < 3.5 ? (behaviour_t){MBL_SCHEDULE_BUSY, 0.01, 3, true} : fine(now, i);
}
static inline behaviour_t always_busy(double now, size_t i) {
    (void)now;
    (void)i;
    return (behaviour_t){MBL_SCHEDULE_BUSY, 0.01, 1, true};
}
static inline behaviour_t odd_ones_fail(double now, size_t i) {
    return i % 2 ? garbage(now, i) : fine(now, i);
}
/* Anything, decided by the attempt's number. */
static inline behaviour_t wild(double now, size_t i) {
    mbl_rng_t rng = mbl_rng(5, MBL_RNG_WORLD, 1, i);
    double u = (double)mbl_rng_uniform(&rng), seconds = 0.05 / (0.001 + (double)mbl_rng_uniform(&rng));
    (void)now;
    return (behaviour_t){(mbl_schedule_outcome_t)(u < 0.5 ? 0 : mbl_rng_below(&rng, 5)), seconds,
                         u < 0.6 ? 0 : u, u < 0.8};
}

static inline void mix(sim_t *sim, uint64_t value) {
    sim->trace = (sim->trace ^ value) * 0x100000001b3u;
}

static inline void act(sim_t *sim, const mbl_schedule_action_t *action) {
    attempt_t *attempt = &sim->attempts[action->attempt];
    size_t r = action->replica;
    mix(sim, (uint64_t)action->kind << 32 | action->task << 16 | action->attempt << 8 | r);
    mix(sim, (uint64_t)(sim->now * 1e6));
    switch (action->kind) {
    case MBL_SCHEDULE_START:
        assert_true(sim->open[action->task]);
        assert_false(attempt->used);
        assert_true(++sim->under_way[r] <= sim->options->in_flight);
        behaviour_t behaviour = sim->replicas[r](sim->now, sim->started++);
        double seconds = fmin(behaviour.seconds, sim->options->deadline);
        if (behaviour.seconds > sim->options->deadline)
            behaviour.outcome = MBL_SCHEDULE_FAILED;
        *attempt = (attempt_t){true, r, action->task, sim->now + seconds, behaviour};
        sim->by[r]++;
        break;
    case MBL_SCHEDULE_CANCEL:
        assert_true(attempt->used);
        attempt->behaviour.outcome = MBL_SCHEDULE_CANCELLED;
        attempt->end = sim->now + 0.0001;
        break;
    case MBL_SCHEDULE_FINISH:
        assert_true(sim->open[action->task]);
        sim->open[action->task] = false;
        sim->good += action->good;
        sim->bad += !action->good;
        for (size_t i = 0; i < ATTEMPTS; i++) /* nobody reads its images any more */
            assert_false(sim->attempts[i].used && sim->attempts[i].task == action->task);
        break;
    case MBL_SCHEDULE_PROBE:
        sim->probes[r].due = true;
        sim->probes[r].end = sim->now + 0.01;
        sim->probes[r].good = sim->replicas[r](sim->now, sim->probed++).probe;
        break;
    case MBL_SCHEDULE_QUARANTINE:
        assert_true(action->until > sim->now);
        sim->quarantines++;
        break;
    case MBL_SCHEDULE_RESTORE:
        sim->restores++;
        break;
    case MBL_SCHEDULE_WAIT:
        break;
    }
}

static inline double next_event(const sim_t *sim) {
    double next = INFINITY;
    for (size_t i = 0; i < ATTEMPTS; i++)
        if (sim->attempts[i].used)
            next = fmin(next, sim->attempts[i].end);
    for (size_t r = 0; r < sim->options->replicas; r++)
        if (sim->probes[r].due)
            next = fmin(next, sim->probes[r].end);
    return next;
}

static inline void deliver(sim_t *sim) {
    for (size_t i = 0; i < ATTEMPTS; i++) {
        attempt_t *attempt = &sim->attempts[i];
        if (!attempt->used || attempt->end > sim->now)
            continue;
        attempt->used = false;
        sim->under_way[attempt->replica]--;
        sim->answers += mbl_schedule_report(sim->schedule, sim->now, i, attempt->behaviour.outcome,
                                            attempt->behaviour.retry_after);
    }
    for (size_t r = 0; r < sim->options->replicas; r++)
        if (sim->probes[r].due && sim->probes[r].end <= sim->now) {
            sim->probes[r].due = false;
            mbl_schedule_probed(sim->schedule, sim->now, r, sim->probes[r].good);
        }
}

static inline void open_sim(sim_t *sim, const mbl_schedule_options_t *options, const replica_t *replicas) {
    memset(sim, 0, sizeof *sim);
    sim->options = options;
    sim->replicas = replicas;
    assert_int_equal(mbl_schedule_open(options, &sim->schedule), MBL_OK);
}

/* Adds n tasks, at most `at_once` of them open, and goes on to their end. */
static inline void do_tasks(sim_t *sim, size_t n, size_t at_once) {
    size_t added = 0;
    sim->good = sim->bad = 0;
    while (sim->good + sim->bad < n) {
        mbl_schedule_action_t action;
        while (added < n && added - sim->good - sim->bad < at_once) {
            size_t task;
            assert_int_equal(mbl_schedule_add(sim->schedule, sim->now, &task), MBL_OK);
            assert_false(sim->open[task]);
            sim->open[task] = true;
            added++;
        }
        size_t ended = sim->good + sim->bad;
        while ((action = mbl_schedule_next(sim->schedule, sim->now)).kind != MBL_SCHEDULE_WAIT)
            act(sim, &action);
        if (sim->good + sim->bad > ended)
            continue;
        double next = fmin(action.until, next_event(sim));
        if (!(next > sim->now && next < 1e6))
            fail_msg("stuck at %f: next is %f, %zu good, %zu bad of %zu", sim->now, next, sim->good, sim->bad,
                     n);
        sim->now = next;
        deliver(sim);
    }
}

/* Runs n tasks, at most `at_once` of them open; returns the seconds that took. */
static inline double run(sim_t *sim, const mbl_schedule_options_t *options, const replica_t *replicas,
                         size_t n, size_t at_once) {
    open_sim(sim, options, replicas);
    do_tasks(sim, n, at_once);
    mbl_schedule_close(sim->schedule);
    return sim->now;
}

/* Time passes without a task until then; probes go on. */
static inline void idle(sim_t *sim, double until) {
    mbl_schedule_action_t action;
    for (;;) {
        while ((action = mbl_schedule_next(sim->schedule, sim->now)).kind != MBL_SCHEDULE_WAIT)
            act(sim, &action);
        double next = fmin(action.until, next_event(sim));
        if (!(next < until))
            break;
        sim->now = next;
        deliver(sim);
    }
    sim->now = until;
}

static const mbl_schedule_options_t usual = {
    .replicas = 2, .in_flight = 4, .retries = 3, .deadline = 10, .hedge = 3, .seed = 1};
static sim_t sim;

#endif
