/* Time and memory of every rank, side by side. */
#include "run/ranks.h"

#include "base/mem.h"

#include <math.h>

mbl_status_t mbl_ranks_new(const mbl_comm_t *comm, mbl_ranks_t *out) {
    MBL_ALLOC(out->of, (size_t)comm->size);
    out->n = comm->size;
    return MBL_OK;
}

void mbl_ranks_free(mbl_ranks_t *ranks) {
    mbl_free(ranks->of);
    *ranks = (mbl_ranks_t){.n = 0};
}

mbl_status_t mbl_ranks_measure(mbl_comm_t *comm, const mbl_step_seconds_t *seconds, mbl_ranks_t *ranks) {
    mbl_rank_load_t own = {.rollout = seconds->rollout + seconds->reward_wait,
                           .train = seconds->train + seconds->gram + seconds->qp,
                           .comm = seconds->comm,
                           .memory = (double)mbl_mem_peak()};
    return mbl_comm_allgather(comm, &own, ranks->of, sizeof own);
}

void mbl_ranks_put(const mbl_ranks_t *ranks, json_t *line) {
    json_t *rollout = json_array(), *train = json_array(), *comm = json_array(), *memory = json_array();
    for (int i = 0; i < ranks->n; i++) {
        const mbl_rank_load_t *of = &ranks->of[i];
        json_array_append_new(rollout, json_real(round(of->rollout * 1e4) / 1e4));
        json_array_append_new(train, json_real(round(of->train * 1e4) / 1e4));
        json_array_append_new(comm, json_real(round(of->comm * 1e4) / 1e4));
        json_array_append_new(memory, json_integer((json_int_t)of->memory));
    }
    json_object_set_new(
        line, "ranks",
        json_pack("{s:o,s:o,s:o,s:o}", "rollout", rollout, "train", train, "comm", comm, "memory", memory));
}
