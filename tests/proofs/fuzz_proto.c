/* libFuzzer harness of proto/'s codecs, FUZZ_CODEC being 0 (oip), 1 (unirl) or 2 (chat). Two bytes choose:
 * one of two sets of options, and the answer about metadata or the response to a batch of 1 to 4 that the
 * others are; two more are the length of the JSON where a header gives one. What comes out must be fit to
 * use: finite scores, printable reasons, an error with a text. */
#include "base/log.h"
#include "proto/codec.h"
#include "proto_checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(cond)                                                                                           \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "fuzz_proto.c:%d: not so: %s\n", __LINE__, #cond);                               \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

enum { SETS = 2, QUESTIONS = 3, BATCH = 4 };
static const char *const two[] = {"scores", "hps"}, *const rewards[] = {"hps", "video.overall"};
static const mbl_proto_options_t the_options[3][SETS] = {
    {{.codec = "oip", .model = "m"},
     {.codec = "oip",
      .model = "m",
      .outputs = two,
      .n_outputs = 2,
      .wire = MBL_PROTO_WIRE_JSON,
      .images = MBL_PROTO_IMAGES_PNG}},
    {{.codec = "unirl", .outputs = rewards, .n_outputs = 1},
     {.codec = "unirl", .outputs = rewards, .n_outputs = 2}},
    {{.codec = "chat", .judge = {.question = "{prompt}", .pattern = "Final Score:\\s*([1-5](?:\\.\\d+)?)"}},
     {.codec = "chat",
      .judge = {.question = "{metadata}",
                .schema = "{\"properties\": {\"score\": {\"type\": \"number\"}}}",
                .low = 1,
                .high = 5,
                .votes = 3,
                .temperature = 1}}},
};
static const char *const good[3][QUESTIONS] = {
    {"{\"name\": \"x\", \"extensions\": [\"binary_tensor_data\"]}", "", "{}"},
    {"{\"rewards\": [\"hps\", \"video\"]}", NULL, NULL},
    {"{\"data\": [{\"id\": \"m\"}]}", NULL, NULL},
};

static void must_be_fine(const char *trouble) {
    if (trouble) {
        fprintf(stderr, "fuzz_proto.c: %s\n", trouble);
        abort();
    }
}

static mbl_proto_peer_t *make_peer(int set) {
    mbl_proto_peer_t *peer;
    mbl_proto_error_t error;
    MUST(mbl_proto_open(&the_options[FUZZ_CODEC][set], &peer) == MBL_OK);
    for (size_t q = 0; q < mbl_proto_questions(peer); q++) {
        mbl_proto_response_t response = {
            .status = 200, .body = good[FUZZ_CODEC][q], .body_bytes = strlen(good[FUZZ_CODEC][q])};
        MUST(mbl_proto_learn(peer, q, &response, &error) == MBL_OK);
    }
    return peer;
}

/* A peer that has learned must be able to make a request. */
static void make_request(const mbl_proto_peer_t *peer) {
    static mbl_proto_request_t request;
    static const uint8_t pixels[2][12];
    static const mbl_proto_piece_t files[] = {{"one", 3}, {"two", 3}};
    static const char *const prompts[] = {"a \"K7\"", "b"}, *const metadata[] = {"{\"a\": 1}", NULL};
    MUST(mbl_proto_max_batch(peer) >= 1);
    MUST(is_shown(mbl_proto_describe(peer), 400));
    mbl_proto_batch_t batch = {.n = mbl_proto_max_batch(peer) > 1 ? 2 : 1,
                               .width = 2,
                               .height = 2,
                               .rgb = (const uint8_t *const[]){pixels[0], pixels[1]},
                               .encoded = files,
                               .prompts = prompts,
                               .metadata = metadata};
    MUST(mbl_proto_request(peer, &batch, &request) == MBL_OK);
    size_t total = 0;
    for (size_t i = 0; i < request.n_pieces; i++)
        total += request.pieces[i].bytes;
    MUST(total == request.body_bytes && total > 0 && request.path[0] == '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mbl_proto_peer_t *peers[SETS], *learners[SETS];
    static mbl_proto_result_t result;
    static const int statuses[] = {200, 200, 200, 200, 200, 200, 400, 503};
    if (size < 4)
        return 0;
    if (!peers[0]) {
        mbl_log_set_level(MBL_LOG_OFF);
        for (int set = 0; set < SETS; set++) {
            peers[set] = make_peer(set);
            learners[set] = make_peer(set);
        }
    }
    int set = data[0] & 1;
    size_t question = data[0] >> 1 & 3, questions = mbl_proto_questions(peers[set]);
    char length[16];
    snprintf(length, sizeof length, "%d", data[2] | data[3] << 8);
    mbl_proto_header_t header = {"inference-header-content-length", length};
    mbl_proto_response_t response = {.status = statuses[data[1] >> 2 & 7],
                                     .headers = &header,
                                     .n_headers = data[1] >> 7,
                                     .body = data + 4,
                                     .body_bytes = size - 4};
    mbl_proto_error_t error = {0};
    if (question < questions && (data[0] & 8)) {
        mbl_status_t status = mbl_proto_learn(learners[set], question, &response, &error);
        must_be_fine(error_trouble(status, &error));
        if (status == MBL_OK && question + 1 == questions)
            make_request(learners[set]);
        for (size_t q = status == MBL_OK ? question + 1 : question; q < questions; q++) {
            mbl_proto_response_t next = {
                .status = 200, .body = good[FUZZ_CODEC][q], .body_bytes = strlen(good[FUZZ_CODEC][q])};
            MUST(mbl_proto_learn(learners[set], q, &next, &error) == MBL_OK);
        }
        return 0;
    }
    size_t n = mbl_proto_max_batch(peers[set]) > 1 ? 1 + (data[1] & 3) : 1;
    mbl_status_t status = mbl_proto_response(peers[set], n, &response, &result, &error);
    must_be_fine(error_trouble(status, &error));
    must_be_fine(result_trouble(status, &result, n, mbl_proto_outputs(peers[set])));
    return 0;
}
