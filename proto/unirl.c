/* UniRL's reward service (Tencent-Hunyuan/UniRL, unirl-reward-service): POST /score with a list of requests,
 * each with a history of texts and images in base64 and the rewards it wants; the answer has, for each
 * request, results by reward and metric, and errors by reward. GET /rewards lists the rewards. */
#include "base/mem.h"
#include "proto/peer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char *rewards[MBL_PROTO_OUTPUTS_MAX];       /* of each output, without its metric */
    const char *metrics[MBL_PROTO_OUTPUTS_MAX]; /* after the dot of its name; NULL: the only one */
} unirl_t;

static void unirl_close(void *self) {
    unirl_t *unirl = self;
    for (size_t k = 0; k < MBL_PROTO_OUTPUTS_MAX; k++)
        mbl_free(unirl->rewards[k]);
    mbl_free(unirl);
}

static mbl_status_t unirl_open(const mbl_proto_options_t *options, mbl_proto_peer_t *peer) {
    if (!options->n_outputs)
        return MBL_FAIL(MBL_ERR_CONFIG, "outputs: missing; expected the rewards of the service that are "
                                        "wanted, as in [pickscore, hpsv2]");
    if (options->images == MBL_PROTO_IMAGES_RAW)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "images: raw; expected png or jpeg, which are all that UniRL's service reads");
    unirl_t *unirl;
    MBL_ALLOC(unirl, 1);
    peer->self = unirl;
    for (size_t k = 0; k < peer->n_outputs; k++) {
        unirl->rewards[k] = mbl_strdup(peer->outputs[k]);
        if (!unirl->rewards[k])
            return MBL_FAIL(MBL_ERR_MEM, "no memory for the options of a reward server");
        char *dot = strchr(unirl->rewards[k], '.');
        if (dot && (dot == unirl->rewards[k] || !dot[1]))
            return MBL_FAIL(MBL_ERR_CONFIG, "outputs: %s; expected a reward, or reward.metric",
                            peer->outputs[k]);
        if (dot) {
            *dot = 0;
            unirl->metrics[k] = peer->outputs[k] + (dot - unirl->rewards[k]) + 1;
        }
    }
    return MBL_OK;
}

static void unirl_ask(const mbl_proto_peer_t *peer, size_t q, mbl_proto_text_t *path) {
    (void)peer, (void)q;
    mbl_proto_puts(path, "/rewards");
}

static bool is_listed(const json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *item = json_string_value(json_array_get(list, i));
        if (item && strcmp(item, name) == 0)
            return true;
    }
    return false;
}

static mbl_status_t learn_rewards(mbl_proto_peer_t *peer, const json_t *json, mbl_proto_error_t *error) {
    const unirl_t *unirl = peer->self;
    const json_t *list;
    char shown[200];
    MBL_TRY(mbl_proto_json_array(json, "the list of rewards", "rewards", 1000, &list, error));
    mbl_proto_json_show(list, shown, sizeof shown);
    for (size_t k = 0; k < peer->n_outputs; k++)
        if (!is_listed(list, unirl->rewards[k]))
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                                   "the service has the rewards %s; expected %.60s (key output)", shown,
                                   unirl->rewards[k]);
    peer->max_batch = MBL_PROTO_BATCH_MAX;
    /* PNG loses nothing; the service's own client sends JPEG of quality 95. */
    peer->images = peer->wanted == MBL_PROTO_IMAGES_AUTO ? MBL_PROTO_IMAGES_PNG : peer->wanted;
    char line[MBL_PROTO_DESCRIPTION];
    snprintf(line, sizeof line, "UniRL reward service, rewards %s: images %s in base64", shown,
             peer->images == MBL_PROTO_IMAGES_PNG ? "png" : "jpeg");
    mbl_proto_printable(line, strlen(line), peer->description, sizeof peer->description);
    return MBL_OK;
}

static mbl_status_t unirl_learn(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                                mbl_proto_error_t *error) {
    (void)q;
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json_object(response->body, response->body_bytes, "the list of rewards", &json, error));
    mbl_status_t status = learn_rewards(peer, json, error);
    json_decref(json);
    return status;
}

/* ---- the request ---- */

/* Each reward once, though several of its metrics may be wanted. */
static void put_rewards(const mbl_proto_peer_t *peer, mbl_proto_text_t *text) {
    const unirl_t *unirl = peer->self;
    mbl_proto_puts(text, "\"required_rewards\":[");
    for (size_t k = 0; k < peer->n_outputs; k++) {
        bool before = false;
        for (size_t j = 0; j < k; j++)
            before |= strcmp(unirl->rewards[j], unirl->rewards[k]) == 0;
        if (before)
            continue;
        mbl_proto_puts(text, k ? "," : "");
        mbl_proto_put_quoted(text, unirl->rewards[k], strlen(unirl->rewards[k]));
    }
    mbl_proto_puts(text, "]");
}

/* The service wants metadata as a JSON object, so the text goes in as it is once it has been read. */
static mbl_status_t put_metadata(const char *metadata, size_t i, mbl_proto_text_t *text) {
    if (!metadata)
        return MBL_OK;
    mbl_proto_error_t error;
    json_t *json = NULL;
    mbl_status_t status = mbl_proto_json_object(metadata, strlen(metadata), "it", &json, &error);
    if (status == MBL_ERR_REWARD)
        return MBL_FAIL(MBL_ERR_ARG, "the metadata of image %zu cannot be sent: %s", i, error.text);
    MBL_TRY(status);
    json_decref(json);
    mbl_proto_puts(text, ",\"metadata\":");
    mbl_proto_puts(text, metadata);
    return MBL_OK;
}

static mbl_status_t unirl_request(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch,
                                  store_t *store) {
    mbl_proto_text_t *text = &store->text;
    mbl_proto_puts(&store->path, "/score");
    mbl_proto_add_header(store, "Content-Type", "application/json");
    mbl_proto_puts(text, "{\"requests\":[");
    for (size_t i = 0; i < batch->n; i++) {
        mbl_proto_puts(text, i ? ",{\"history\":[{\"text\":" : "{\"history\":[{\"text\":");
        mbl_proto_put_quoted(text, batch->prompts[i], strlen(batch->prompts[i]));
        mbl_proto_puts(text, ",\"image_b64\":\"");
        mbl_proto_put_base64(text, batch->encoded[i].data, batch->encoded[i].bytes);
        mbl_proto_puts(text, "\"}],");
        put_rewards(peer, text);
        MBL_TRY(put_metadata(batch->metadata ? batch->metadata[i] : NULL, i, text));
        mbl_proto_puts(text, "}");
    }
    mbl_proto_puts(text, "]}");
    return MBL_OK;
}

/* ---- the response ---- */

/* A score, or its error; `metrics` is results[i][reward]. */
static mbl_status_t read_score(const mbl_proto_peer_t *peer, const json_t *metrics, size_t k, size_t i,
                               store_t *result, mbl_proto_error_t *error) {
    const unirl_t *unirl = peer->self;
    char shown[120];
    const json_t *value = unirl->metrics[k] ? json_object_get(metrics, unirl->metrics[k]) : NULL;
    if (!unirl->metrics[k] && json_object_size(metrics) == 1) {
        void *only = json_object_iter((json_t *)metrics);
        value = json_object_iter_value(only);
    }
    if (!value)
        return mbl_proto_fault(
            error, MBL_PROTO_ERROR_MISMATCH, "result %zu of reward %.60s is %s; expected %s%.60s%s", i,
            unirl->rewards[k], mbl_proto_json_show(metrics, shown, sizeof shown),
            unirl->metrics[k] ? "metric " : "one metric", unirl->metrics[k] ? unirl->metrics[k] : "",
            unirl->metrics[k] ? "" : ", or its name in outputs: reward.metric");
    if (!json_is_number(value) && !json_is_null(value))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "result %zu of reward %.60s is %s; expected numbers", i, unirl->rewards[k],
                               mbl_proto_json_show(metrics, shown, sizeof shown));
    mbl_proto_set_score(result, k, i, json_is_null(value) ? NAN : json_number_value(value));
    return MBL_OK;
}

static mbl_status_t read_results(const mbl_proto_peer_t *peer, const json_t *json, store_t *result,
                                 mbl_proto_error_t *error) {
    static const char what[] = "the response";
    const unirl_t *unirl = peer->self;
    const json_t *results, *errors = json_object_get(json, "errors");
    MBL_TRY(mbl_proto_json_array(json, what, "results", MBL_PROTO_BATCH_MAX, &results, error));
    if (json_array_size(results) != result->n)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH, "the response has %zu results; expected %zu",
                               json_array_size(results), result->n);
    if (errors)
        MBL_TRY(mbl_proto_json_array(json, what, "errors", MBL_PROTO_BATCH_MAX, &errors, error));
    for (size_t i = 0; i < result->n; i++)
        for (size_t k = 0; k < peer->n_outputs; k++) {
            const json_t *metrics = json_object_get(json_array_get(results, i), unirl->rewards[k]);
            const json_t *failure = json_object_get(json_array_get(errors, i), unirl->rewards[k]);
            if (failure && json_is_string(failure)) /* the state stays failed */
                mbl_proto_set_reason(result, k, i, json_string_value(failure), json_string_length(failure));
            else if (json_is_object(metrics))
                MBL_TRY(read_score(peer, metrics, k, i, result, error));
            else
                return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                       "result %zu has neither scores nor an error of reward %.60s", i,
                                       unirl->rewards[k]);
        }
    return MBL_OK;
}

static mbl_status_t unirl_response(const mbl_proto_peer_t *peer, const mbl_proto_response_t *response,
                                   store_t *result, mbl_proto_error_t *error) {
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json_object(response->body, response->body_bytes, "the response", &json, error));
    mbl_status_t status = read_results(peer, json, result, error);
    json_decref(json);
    return status;
}

const mbl_codec_t mbl_codec_unirl = {
    .name = "unirl",
    .help = "UniRL's reward service: JSON with images in base64, several rewards from one call",
    .questions = 1,
    .ready_question = SIZE_MAX,
    .absent = "expected UniRL's reward service at this URL, which answers GET /rewards",
    .open = unirl_open,
    .close = unirl_close,
    .ask = unirl_ask,
    .learn = unirl_learn,
    .request = unirl_request,
    .response = unirl_response,
};
