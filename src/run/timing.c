/* Where the time of an epoch goes. */
#include "run/timing.h"

#include "base/clock.h"

static void restart(mbl_timing_t *t, const mbl_comm_t *comm, double now) {
    t->start = now;
    t->comm = comm->seconds;
    t->within = 0;
}

void mbl_timing_epoch(mbl_timing_t *t, const mbl_comm_t *comm) {
    restart(t, comm, mbl_now());
    t->bytes = comm->bytes;
}

void mbl_timing_drawn(mbl_timing_t *t, const mbl_comm_t *comm, double rollout, double reward_wait,
                      size_t steps) {
    double n = (double)(steps ? steps : 1), now = mbl_now();
    t->share = (mbl_step_seconds_t){.rollout = rollout / n,
                                    .reward_wait = reward_wait / n,
                                    .comm = (comm->seconds - t->comm) / n,
                                    .total = (now - t->start) / n};
    restart(t, comm, now); /* the bytes count with the first step's */
}

void mbl_timing_saved(mbl_timing_t *t, double seconds, bool within) {
    t->saving += seconds;
    if (within)
        t->within += seconds;
}

uint64_t mbl_timing_step(mbl_timing_t *t, const mbl_comm_t *comm, mbl_step_seconds_t *seconds) {
    double now = mbl_now();
    uint64_t bytes = comm->bytes - t->bytes;
    seconds->rollout = t->share.rollout;
    seconds->reward_wait = t->share.reward_wait;
    seconds->comm = t->share.comm + comm->seconds - t->comm;
    seconds->checkpoint = t->saving;
    seconds->total = t->share.total + now - t->start + t->saving - t->within;
    t->mean = t->mean > 0 ? 0.9 * t->mean + 0.1 * seconds->total : seconds->total;
    t->saving = 0;
    restart(t, comm, now);
    t->bytes = comm->bytes;
    return bytes;
}
