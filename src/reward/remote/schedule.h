/* Which request goes to which replica of a server and when: a state machine without clock, thread or socket.
 * Its caller gives it tasks (one request's worth of images), does what it says, reports how each attempt
 * ended, and passes the time in.
 *
 * It sends a task to the replica that will likely answer first; tries again elsewhere, or later with
 * jittered back-off; sends a second request where the first takes far longer than usual; keeps away from a
 * replica that fails or lags, asks it now and then how it is, and lets it back in with one request first. */
#ifndef MBL_REWARD_REMOTE_SCHEDULE_H
#define MBL_REWARD_REMOTE_SCHEDULE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MBL_SCHEDULE_REPLICAS_MAX = 32, MBL_SCHEDULE_IN_FLIGHT_MAX = 32 };

typedef struct {
    size_t replicas;
    size_t in_flight; /* requests under way at one replica */
    size_t retries;   /* attempts of a task after its first failed one */
    /* Seconds of an attempt. A task has deadline * (retries + 1) from its first attempt on; before, it waits
     * for its turn as long as some task gets an answer within that time. It fails without an attempt while no
     * replica is of use and none has been for a deadline, or the last tasks all failed after all their tries:
     * a dead server holds up a run once, not in every epoch. */
    double deadline;
    /* Nobody depends on the answers: a task has one deadline, whatever its tries, and fails at once while no
     * replica is of use; those are asked less often then, and have seconds to show that they are well. */
    bool optional;
    double hedge;  /* a second request goes out after so many times the median time of a request; 0: never */
    uint64_t seed; /* of the jitter */
} mbl_schedule_options_t;

typedef struct mbl_schedule mbl_schedule_t;
/* Errors: ERR_ARG, ERR_MEM. Close with mbl_schedule_close; NULL is fine there. Every replica is unknown at
 * first, so it is asked (PROBE) before it gets a task. */
mbl_status_t mbl_schedule_open(const mbl_schedule_options_t *options, mbl_schedule_t **out);
void mbl_schedule_close(mbl_schedule_t *schedule);

/* A task, which is called by this number until its FINISH. Errors: ERR_MEM. */
mbl_status_t mbl_schedule_add(mbl_schedule_t *schedule, double now, size_t *task);
/* Takes back a task that has just been added. */
void mbl_schedule_drop(mbl_schedule_t *schedule, size_t task);

/* Every task there is has failed: what is under way is cancelled. */
void mbl_schedule_give_up(mbl_schedule_t *schedule);

typedef enum {
    MBL_SCHEDULE_WAIT,       /* nothing to do before `until` (INFINITY: before a report or a new task) */
    MBL_SCHEDULE_START,      /* send `task` to `replica` as `attempt` */
    MBL_SCHEDULE_CANCEL,     /* take `attempt` back; its report is still due */
    MBL_SCHEDULE_FINISH,     /* no attempt of `task` is under way; `good`: it has its answer */
    MBL_SCHEDULE_PROBE,      /* ask `replica` what it is; mbl_schedule_probed is due */
    MBL_SCHEDULE_QUARANTINE, /* to be logged: `replica` gets nothing until `until`, */
    MBL_SCHEDULE_RESTORE     /* ... or is as good as the others again */
} mbl_schedule_kind_t;
typedef struct {
    mbl_schedule_kind_t kind;
    size_t task, attempt, replica;
    double until;
    bool good;
} mbl_schedule_action_t;

/* The attempts that there can be: replicas * in_flight; an attempt's number is below that. */
size_t mbl_schedule_attempts(const mbl_schedule_t *schedule);

/* What to do next; call it until it says WAIT. */
mbl_schedule_action_t mbl_schedule_next(mbl_schedule_t *schedule, double now);

typedef enum {
    MBL_SCHEDULE_GOOD,
    MBL_SCHEDULE_BUSY,     /* the server asks to come back later (408, 429, 503) */
    MBL_SCHEDULE_FAILED,   /* another try may do better: lost connection, deadline */
    MBL_SCHEDULE_ERROR,    /* the same, and the replica is there: HTTP 5xx, garbage */
    MBL_SCHEDULE_REFUSED,  /* this replica will say the same again */
    MBL_SCHEDULE_CANCELLED /* after CANCEL */
} mbl_schedule_outcome_t;

/* How an attempt ended; retry_after: seconds that a busy server asked for, 0: it did not say. One that asks
 * for longer than a deadline is quarantined at once, for so long (5 minutes at most), and while all have
 * asked so, tasks fail. Returns whether this is the answer of its task: the first good one. */
bool mbl_schedule_report(mbl_schedule_t *schedule, double now, size_t attempt, mbl_schedule_outcome_t outcome,
                         double retry_after);
void mbl_schedule_probed(mbl_schedule_t *schedule, double now, size_t replica, bool good);

/* Where several schedules (of ranks) share replicas, one of them decides which are quarantined. Whether this
 * one has quarantined a replica for what it saw since the last decision to use it. */
bool mbl_schedule_votes_against(const mbl_schedule_t *schedule, size_t replica);
/* What was decided. `mine`: by this schedule, which quarantines the replica and goes on to probe it. The
 * others leave it alone, and do not probe it while they have another; one that may be used again they probe
 * at once. */
void mbl_schedule_decide(mbl_schedule_t *schedule, double now, size_t replica, bool quarantined, bool mine);

/* Counts since opening, and how a replica is. */
typedef struct {
    size_t started, retried, hedged, hedges_won, quarantined;
} mbl_schedule_counts_t;
mbl_schedule_counts_t mbl_schedule_counts(const mbl_schedule_t *schedule);
bool mbl_schedule_is_ready(const mbl_schedule_t *schedule, size_t replica);

#endif
