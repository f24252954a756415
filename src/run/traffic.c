/* Requests, images and failures of an epoch. */
#include "run/traffic.h"

#include "io/jsonl.h"
#include "reward/service.h"

#include <string.h>

void mbl_run_traffic_begin(mbl_scorer_pool_t *pool, mbl_run_traffic_t *traffic) {
    traffic->any = mbl_scorer_pool_has_services(pool);
    if (traffic->any)
        mbl_scorer_pool_traffic(pool, traffic->by, traffic->served);
}

mbl_status_t mbl_run_traffic_end(mbl_comm_t *comm, mbl_scorer_pool_t *pool, size_t k,
                                 mbl_run_traffic_t *traffic) {
    if (!traffic->any)
        return MBL_OK;
    mbl_scorer_pool_traffic(pool, traffic->by, traffic->served);
    traffic->ranks = comm->size;
    for (size_t i = 0; i < k; i++)
        if (traffic->served[i])
            MBL_TRY(mbl_comm_allreduce(comm, &traffic->by[i], MBL_TRAFFIC_SIZE, MBL_COMM_F64, MBL_COMM_SUM));
    return mbl_run_traffic_decide(comm, pool);
}

_Static_assert((int)MBL_SHARED_REPLICAS_MAX >= (int)MBL_MAX_REWARDS * (int)MBL_SERVICE_REPLICAS_MAX,
               "no room for votes");

/* Rank 0 sets a replica aside where it has done so itself, or half of the ranks have; it asks the replica
 * from time to time for all of them, and where it answers again, all take it in at the next step. */
mbl_status_t mbl_run_traffic_decide(mbl_comm_t *comm, mbl_scorer_pool_t *pool) {
    double own[MBL_SHARED_REPLICAS_MAX], sum[MBL_SHARED_REPLICAS_MAX];
    size_t n = mbl_scorer_pool_votes(pool, own);
    if (n == 0 || comm->size == 1)
        return MBL_OK;
    memcpy(sum, own, n * sizeof *sum);
    MBL_TRY(mbl_comm_allreduce(comm, sum, n, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t r = 0; r < n; r++)
        sum[r] = own[r] > 0 || 2 * sum[r] >= comm->size;
    MBL_TRY(mbl_comm_bcast(comm, sum, n * sizeof *sum, 0));
    mbl_scorer_pool_decide(pool, sum, comm->rank == 0);
    return MBL_OK;
}

static json_t *failures(const mbl_traffic_t *traffic) {
    json_t *object = json_object();
    const char *name;
    for (size_t i = 0; (name = mbl_traffic_kind(i)); i++)
        if (traffic->failed[i] > 0)
            json_object_set_new(object, name, json_integer((json_int_t)traffic->failed[i]));
    return object;
}

static json_t *counted(double n) {
    return json_integer((json_int_t)n);
}

void mbl_run_traffic_put(const mbl_config_t *config, const mbl_run_traffic_t *traffic, json_t *line) {
    json_t *all = json_object();
    for (size_t k = 0; traffic->any && k < config->rewards.count; k++) {
        const mbl_traffic_t *t = &traffic->by[k];
        json_t *own = traffic->served[k] ? json_object() : NULL;
        if (!own)
            continue;
        double ranks = traffic->ranks, rate = t->seconds > 0 ? t->images * ranks / t->seconds : 0;
        json_object_set_new(own, "requests", counted(t->requests));
        json_object_set_new(own, "retried", counted(t->retried));
        json_object_set_new(own, "hedged", counted(t->hedged));
        json_object_set_new(own, "set_aside", counted(t->set_aside));
        json_object_set_new(own, "failed", failures(t));
        json_object_set_new(own, "images_per_s", mbl_jsonl_real(rate));
        json_object_set_new(own, "p50", mbl_jsonl_real(mbl_traffic_percentile(t, 0.5)));
        json_object_set_new(own, "p90", mbl_jsonl_real(mbl_traffic_percentile(t, 0.9)));
        json_object_set_new(own, "p99", mbl_jsonl_real(mbl_traffic_percentile(t, 0.99)));
        json_object_set_new(own, "wait", mbl_jsonl_real(t->waited / ranks));
        json_object_set_new(all, config->rewards.items[k].name, own);
    }
    if (json_object_size(all) > 0)
        json_object_set(line, "remote", all);
    json_decref(all);
}
