/* Results: scores and their states, and the reading of a response. */
#include "base/mem.h"
#include "proto/peer.h"

#include <float.h>
#include <math.h>
#include <string.h>

void mbl_proto_result_free(mbl_proto_result_t *result) {
    mbl_proto_store_free(result->store);
    *result = (mbl_proto_result_t){0};
}

void mbl_proto_set_score(store_t *result, size_t k, size_t i, double value) {
    size_t at = k * result->n + i;
    bool good = fabs(value) <= (double)FLT_MAX; /* not so for NaN */
    result->scores[at] = good ? (float)value : 0;
    result->states[at] = good ? MBL_PROTO_VALID : MBL_PROTO_FAILED;
}

void mbl_proto_set_na(store_t *result, size_t k, size_t i) {
    size_t at = k * result->n + i;
    result->scores[at] = 0;
    result->states[at] = MBL_PROTO_NA;
}

void mbl_proto_set_reason(store_t *result, size_t k, size_t i, const char *text, size_t size) {
    char line[MBL_PROTO_REASON_MAX + 1];
    size_t n = mbl_proto_printable(text, size, line, sizeof line);
    if (n == 0)
        return;
    size_t at = result->text.size;
    mbl_proto_put(&result->text, line, n + 1);
    result->reason_at[k * result->n + i] = at + 1;
}

/* Room for [outputs, n], everything failed and without a reason. */
static mbl_status_t begin_result(store_t *store, size_t outputs, size_t n) {
    size_t count = outputs * n; /* at most MBL_PROTO_OUTPUTS_MAX x MBL_PROTO_BATCH_MAX */
    if (count > store->room) {
        float *scores = mbl_realloc(store->scores, store->room, count, sizeof *scores);
        store->scores = scores ? scores : store->scores;
        uint8_t *states = mbl_realloc(store->states, store->room, count, sizeof *states);
        store->states = states ? states : store->states;
        const char **reasons = mbl_realloc((void *)store->reasons, store->room, count, sizeof *reasons);
        store->reasons = reasons ? reasons : store->reasons;
        size_t *reason_at = mbl_realloc(store->reason_at, store->room, count, sizeof *reason_at);
        store->reason_at = reason_at ? reason_at : store->reason_at;
        if (!scores || !states || !reasons || !reason_at)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu scores", count);
        store->room = count;
    }
    store->n = n;
    store->outputs = outputs;
    for (size_t i = 0; i < count; i++) {
        store->scores[i] = 0;
        store->states[i] = MBL_PROTO_FAILED;
        store->reason_at[i] = 0;
    }
    return MBL_OK;
}

mbl_status_t mbl_proto_response(const mbl_proto_peer_t *peer, size_t n, const mbl_proto_response_t *response,
                                mbl_proto_result_t *result, mbl_proto_error_t *error) {
    MBL_REQUIRE(peer && response && result && error,
                "mbl_proto_response: no peer, response, result or error");
    MBL_REQUIRE(n >= 1 && n <= peer->max_batch, "mbl_proto_response: %zu images; this server takes 1 to %zu",
                n, peer->max_batch);
    result->n = result->outputs = 0;
    MBL_TRY(mbl_proto_check(response, error));
    store_t *store = mbl_proto_store_of(&result->store);
    if (!store)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu scores", n);
    MBL_TRY(begin_result(store, peer->n_outputs, n));
    MBL_TRY(peer->codec->response(peer, response, store, error));
    if (store->text.failed)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the reasons of %zu scores", n);
    for (size_t i = 0; i < n * peer->n_outputs; i++)
        store->reasons[i] = store->reason_at[i] ? store->text.data + store->reason_at[i] - 1 : NULL;
    result->n = n;
    result->outputs = peer->n_outputs;
    result->scores = store->scores;
    result->states = store->states;
    result->reasons = store->reasons;
    return MBL_OK;
}
