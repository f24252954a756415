/* proto/unirl.c: the request for several rewards and metrics, results and errors by reward, and what is
 * refused. */
#include "proto_case.h"

static const char *const the_rewards[] = {"pickscore", "video.overall", "video.VQ"};
static const char *const the_list[] = {"{\"rewards\": [\"pickscore\", \"video\"]}"};

static mbl_proto_peer_t *unirl_peer(size_t n, mbl_proto_images_t images) {
    return peer_of(
        &(mbl_proto_options_t){.codec = "unirl", .outputs = the_rewards, .n_outputs = n, .images = images},
        the_list);
}

static void test_options(void **state) {
    (void)state;
    mbl_proto_peer_t *peer;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_proto_open(&(mbl_proto_options_t){.codec = "unirl"}, &peer), MBL_ERR_CONFIG);
    assert_text(mbl_fail_message(), "outputs: missing; expected the rewards of the service");
    mbl_proto_options_t options = {
        .codec = "unirl", .outputs = the_rewards, .n_outputs = 1, .images = MBL_PROTO_IMAGES_RAW};
    assert_int_equal(mbl_proto_open(&options, &peer), MBL_ERR_CONFIG);
    assert_text(mbl_fail_message(), "images: raw; expected png or jpeg");
    options = (mbl_proto_options_t){.codec = "unirl", .outputs = (const char *const[]){"a."}, .n_outputs = 1};
    assert_int_equal(mbl_proto_open(&options, &peer), MBL_ERR_CONFIG);
    assert_text(mbl_fail_message(), "outputs: a.; expected");
    mbl_fail_quiet(0);
}

static void test_learn(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = unirl_peer(3, MBL_PROTO_IMAGES_AUTO);
    assert_int_equal(mbl_proto_images(peer), MBL_PROTO_IMAGES_PNG);
    assert_int_equal(mbl_proto_max_batch(peer), MBL_PROTO_BATCH_MAX);
    assert_int_equal(mbl_proto_outputs(peer), 3);
    assert_string_equal(mbl_proto_output(peer, 2), "video.VQ");
    assert_null(mbl_proto_output(peer, 3));
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_ask(peer, 0, &request), MBL_OK);
    assert_string_equal(request.method, "GET");
    assert_string_equal(request.path, "/rewards");
    assert_int_equal(request.body_bytes, 0);
    mbl_proto_request_free(&request);
    static const struct {
        const char *body, *said;
        mbl_proto_error_kind_t kind;
    } cases[] = {
        {"{\"rewards\": [\"pickscore\"]}", "the service has the rewards [\"pickscore\"]; expected video",
         MBL_PROTO_ERROR_MISMATCH},
        {"{\"rewards\": [\"pickscore\", 3, {\"video\": 1}]}", "expected video", MBL_PROTO_ERROR_MISMATCH},
        {"{\"rewards\": {}}", "\"rewards\" is {}; expected an array", MBL_PROTO_ERROR_MALFORMED},
        {"3", "the list of rewards is 3; expected a JSON object", MBL_PROTO_ERROR_MALFORMED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_error_t error;
        mbl_proto_response_t response = json_response(cases[i].body);
        assert_int_equal(mbl_proto_learn(peer, 0, &response, &error), MBL_ERR_REWARD);
        assert_int_equal(error.kind, cases[i].kind);
        assert_text(error.text, cases[i].said);
    }
    mbl_proto_close(peer);
}

static void test_request(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = unirl_peer(3, MBL_PROTO_IMAGES_JPEG);
    mbl_proto_piece_t files[] = {{"file", 4}, {"\xff\xd8", 2}};
    mbl_proto_batch_t batch = {.n = 2,
                               .encoded = files,
                               .prompts = (const char *const[]){"a \"K7\"", "b"},
                               .metadata = (const char *const[]){NULL, " {\"tag\": [1, 2]}"}};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    char *body = whole_body(&request);
    assert_string_equal(body, "{\"requests\":[{\"history\":[{\"text\":\"a "
                              "\\\"K7\\\"\",\"image_b64\":\"ZmlsZQ==\"}],\"required_rewards\":"
                              "[\"pickscore\",\"video\"]},{\"history\":[{\"text\":\"b\",\"image_b64\":\"/"
                              "9g=\"}],\"required_rewards\":"
                              "[\"pickscore\",\"video\"],\"metadata\": {\"tag\": [1, 2]}}]}");
    assert_string_equal(request.path, "/score");
    free(body);
    batch.metadata = (const char *const[]){"{}", "[1]"};
    mbl_fail_quiet(1);
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_ERR_ARG);
    assert_text(mbl_fail_message(),
                "the metadata of image 1 cannot be sent: it is [1]; expected a JSON object");
    mbl_fail_quiet(0);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

static void test_response(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = unirl_peer(3, MBL_PROTO_IMAGES_AUTO);
    mbl_proto_response_t response = json_response(
        "{\"results\": [{\"pickscore\": {\"pickscore\": 0.5}, \"video\": {\"VQ\": null, \"overall\": -2, "
        "\"more\": 1}}, {\"video\": "
        "{\"overall\": 1e39, \"VQ\": 3}}], \"errors\": [{}, {\"pickscore\": \"OOM\\nat line 3\"}]}");
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    if (mbl_proto_response(peer, 2, &response, &result, &error) != MBL_OK)
        fail_msg("%s", error.text);
    static const double scores[] = {0.5, 0, -2, 0, 0, 3};
    static const int states[] = {0, 2, 0, 2, 2, 0};
    for (size_t i = 0; i < 6; i++) {
        assert_near(result.scores[i], scores[i], 0);
        assert_int_equal(result.states[i], states[i]);
    }
    assert_null(result.reasons[0]);
    assert_string_equal(result.reasons[1], "OOM at line 3");
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *body, *said;
        mbl_proto_error_kind_t kind;
    } cases[] = {
        {"{\"results\": []}", "the response has 0 results; expected 1", MBL_PROTO_ERROR_MISMATCH},
        {"{\"results\": [{}, {}]}", "the response has 2 results; expected 1", MBL_PROTO_ERROR_MISMATCH},
        {"{\"results\": [{}]}", "result 0 has neither scores nor an error of reward pickscore",
         MBL_PROTO_ERROR_MALFORMED},
        {"{\"results\": [3], \"errors\": [3]}", "neither scores nor an error", MBL_PROTO_ERROR_MALFORMED},
        {"{\"results\": [{}], \"errors\": [{\"pickscore\": 3}]}", "neither scores nor an error",
         MBL_PROTO_ERROR_MALFORMED},
        {"{\"results\": [{\"pickscore\": 0.5}]}", "neither scores nor an error", MBL_PROTO_ERROR_MALFORMED},
        {"{\"results\": [{\"pickscore\": {}}]}", "is {}; expected one metric", MBL_PROTO_ERROR_MISMATCH},
        {"{\"results\": [{\"pickscore\": {\"a\": 1, \"b\": 2}}]}",
         "expected one metric, or its name in outputs: reward.metric", MBL_PROTO_ERROR_MISMATCH},
        {"{\"results\": [{\"pickscore\": {\"a\": \"1\"}}]}", "is {\"a\":\"1\"}; expected numbers",
         MBL_PROTO_ERROR_MALFORMED},
        {"{\"results\": [{\"pickscore\": {\"a\": 1}, \"video\": {\"VQ\": 1}}]}",
         "is {\"VQ\":1}; expected metric overall", MBL_PROTO_ERROR_MISMATCH},
        {"{\"results\": {}, \"errors\": []}", "\"results\" is {}; expected an array",
         MBL_PROTO_ERROR_MALFORMED},
        {"{\"results\": [{\"pickscore\": {\"a\": 1}}], \"errors\": {}}",
         "\"errors\" is {}; expected an array", MBL_PROTO_ERROR_MALFORMED},
    };
    mbl_proto_peer_t *peer = unirl_peer(2, MBL_PROTO_IMAGES_AUTO);
    mbl_proto_result_t result = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_error_t error = {0};
        mbl_proto_response_t response = json_response(cases[i].body);
        mbl_status_t status = mbl_proto_response(peer, 1, &response, &result, &error);
        if (status != MBL_ERR_REWARD || error.kind != cases[i].kind || !strstr(error.text, cases[i].said))
            fail_msg("%s\nis %s: \"%s\"; expected %s: \"%s\"", cases[i].body,
                     mbl_proto_error_name(error.kind), error.text, mbl_proto_error_name(cases[i].kind),
                     cases[i].said);
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_options), cmocka_unit_test(test_learn),
                                       cmocka_unit_test(test_request), cmocka_unit_test(test_response),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
