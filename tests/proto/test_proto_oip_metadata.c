/* proto/oip_metadata.c: options, metadata of every kind, and servers that are not ready. */
#include "oip_case.h"

static void test_options(void **state) {
    (void)state;
    const struct {
        mbl_proto_options_t options;
        const char *said;
    } cases[] = {
        {{.codec = "oipp", .model = "m"}, "did you mean oip?"},
        {{.codec = "oip"}, "model: missing"},
        {{.model = ""}, "model: empty"},
        {{.model = "m", .version = "\xff"}, "version: empty, over 200 bytes, or not UTF-8"},
        {{.model = "m", .prompt_input = "images"}, "prompt_input: images, as image_input is"},
        {{.model = "m", .outputs = (const char *const[]){"a", "a"}, .n_outputs = 2},
         "outputs: a is named twice"},
        {{.model = "m", .outputs = (const char *const[]){"a", ""}, .n_outputs = 2},
         "outputs: name 2 is empty"},
        {{.model = "m", .outputs = (const char *const[]){"a"}, .n_outputs = 65},
         "outputs: 65 names; expected at most 64"},
    };
    mbl_fail_quiet(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_peer_t *peer;
        assert_int_equal(mbl_proto_open(&cases[i].options, &peer), MBL_ERR_CONFIG);
        assert_text(mbl_fail_message(), cases[i].said);
    }
    mbl_fail_quiet(0);
}

/* What each server's metadata leads to: an error, or images, batch and the end of the request. */
static void test_metadata(void **state) {
    (void)state;
    static const struct {
        const char *server, *model, *said; /* said: of the error, or of the description */
        mbl_proto_images_t wanted, images;
        size_t max_batch;
    } cases[] = {
        {SERVER_BINARY, LISTS_NOTHING, "triton 2, model m: binary tensors, images raw", 0,
         MBL_PROTO_IMAGES_RAW, 4096},
        {SERVER_JSON, LISTS_NOTHING, "JSON tensors", 0, MBL_PROTO_IMAGES_RAW, 4096},
        {"{\"name\": \"x\"}", "{\"name\": \"m\"}", "x, model m: JSON tensors", 0, MBL_PROTO_IMAGES_RAW, 4096},
        {SERVER_JSON, LISTS_NOTHING, "images jpeg", MBL_PROTO_IMAGES_JPEG, MBL_PROTO_IMAGES_JPEG, 4096},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, 1, 2, 3"), SCORES), "images raw", 0, MBL_PROTO_IMAGES_RAW,
         4096},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "1, null, -1, 3"), SCORES), "images raw", 0,
         MBL_PROTO_IMAGES_RAW, 1},
        {SERVER_BINARY, MODEL(IMAGES("BYTES", "-1"), SCORES), "images png", 0, MBL_PROTO_IMAGES_PNG, 4096},
        {SERVER_BINARY, MODEL(IMAGES("BYTES", "-1, 1"), SCORES), "images jpeg", MBL_PROTO_IMAGES_JPEG,
         MBL_PROTO_IMAGES_JPEG, 4096},
        /* refused */
        {"[]", LISTS_NOTHING, "the server's metadata (/v2) is []; expected a JSON object", 0, 0, 0},
        {"{\"extensions\": []}", LISTS_NOTHING, "\"name\" is nothing; expected a string", 0, 0, 0},
        {SERVER_BINARY, "{\"inputs\": 3}", "\"inputs\" is 3; expected an array", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, 1.5"), SCORES),
         "the shape of images holds 1.5; expected whole numbers", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-2"), SCORES), "holds -2", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "1,1,1,1,1,1,1,1,1"), SCORES), "has 9 elements; marble reads 8",
         0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1,1,2,3") "," IMAGES("UINT8", "-1,1,2,3"), SCORES),
         "lists images twice", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, 3, -1, -1"), SCORES),
         "channels first; expected channels last", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, 3"), SCORES), "expected UINT8 [N, height, width, 3]",
         0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, 224, 224, 3"), SCORES),
         "input images is UINT8 [-1, 224, 224, 3]; this run's images are 1 x 2", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "8, -1, -1, 3"), SCORES), "exactly 8 images a request", 0, 0,
         0},
        {SERVER_BINARY, MODEL(IMAGES("FP32", "-1, -1, -1, 3"), SCORES),
         "input images is FP32 [-1, -1, -1, 3]; expected UINT8", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("BYTES", "-1"), SCORES), "files; the reward says images: raw",
         MBL_PROTO_IMAGES_RAW, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3"), SCORES),
         "pixels; the reward says images: png or jpeg", MBL_PROTO_IMAGES_PNG, 0, 0},
        {SERVER_BINARY, MODEL(TENSOR("image", "UINT8", "-1, -1, -1, 3"), SCORES),
         "expected an input called images (key image_input)", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3") "," TENSOR("prompts", "INT64", "-1"), SCORES),
         "input prompts is INT64 [-1]; expected BYTES [N] or [N, 1]", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3") "," TENSOR("mask", "UINT8", "-1"), SCORES),
         "a reward has only images, prompts and metadata", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3"), TENSOR("logits", "FP32", "-1")),
         "the model answers with logits FP32 [-1]; expected an output called scores (key output)", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3"), TENSOR("scores", "BYTES", "-1")),
         "output scores is BYTES [-1]; expected FP32 [N] or [N, 1]", 0, 0, 0},
        {SERVER_BINARY,
         MODEL(IMAGES("UINT8", "-1, -1, -1, 3"),
               TENSOR("scores", "FP32", "-1") "," TENSOR(
                   "a_rather_long_name_of_an_output_1", "FP32",
                   "-1") "," TENSOR("a_rather_long_name_of_an_output_2", "FP32",
                                    "-1") "," TENSOR("a_rather_long_name_of_an_output_3", "FP32", "-1")),
         "outputs: scores FP32 [-1], a_rather_long_name_of_an_output_1 FP32 [-1], "
         "a_rather_long_name_of_an_output_2 FP32 [-1] and 1 more",
         0, MBL_PROTO_IMAGES_RAW, 4096},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3"), TENSOR("scores", "FP32", "-1, 5")),
         "output scores is FP32 [-1, 5]", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_options_t options = oip_options;
        options.images = cases[i].wanted;
        const char *bodies[] = {cases[i].server, "{\"ready\": true}", cases[i].model};
        mbl_proto_peer_t *peer;
        mbl_proto_error_t error = {0};
        mbl_status_t status = MBL_OK;
        assert_int_equal(mbl_proto_open(&options, &peer), MBL_OK);
        for (size_t q = 0; status == MBL_OK && q < 3; q++) {
            mbl_proto_response_t response = json_response(bodies[q]);
            status = mbl_proto_learn(peer, q, &response, &error);
        }
        if (status == MBL_OK) {
            assert_int_equal(cases[i].images, mbl_proto_images(peer));
            assert_int_equal(cases[i].max_batch, mbl_proto_max_batch(peer));
            assert_text(mbl_proto_describe(peer), cases[i].said);
        } else {
            assert_int_equal(status, MBL_ERR_REWARD);
            assert_text(error.text, cases[i].said);
            assert_int_equal(cases[i].max_batch, 0);
        }
        mbl_proto_close(peer);
    }
}

static void test_ready(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *body;
        mbl_proto_error_kind_t kind;
    } cases[] = {{200, "", MBL_PROTO_ERROR_NONE},
                 {200, "{\"ready\": true}", MBL_PROTO_ERROR_NONE},
                 {200, "{\"name\": \"m\"}", MBL_PROTO_ERROR_NONE},
                 {200, "{\"ready\": false}", MBL_PROTO_ERROR_BUSY},
                 {400, "", MBL_PROTO_ERROR_BUSY},
                 {503, "", MBL_PROTO_ERROR_BUSY},
                 {404, "{\"error\": \"no such model\"}", MBL_PROTO_ERROR_ABSENT},
                 {200, "{", MBL_PROTO_ERROR_MALFORMED}};
    mbl_proto_peer_t *peer;
    mbl_proto_error_t error;
    assert_int_equal(mbl_proto_open(&oip_options, &peer), MBL_OK);
    mbl_proto_response_t first = json_response(SERVER_JSON);
    assert_int_equal(mbl_proto_learn(peer, 0, &first, &error), MBL_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_response_t response = json_response(cases[i].body);
        response.status = cases[i].status;
        mbl_proto_learn(peer, 1, &response, &error);
        assert_int_equal(error.kind, cases[i].kind);
    }
    /* An answer out of turn is the caller's mistake; so is a batch before the last answer. */
    mbl_proto_request_t request = {0};
    mbl_fail_quiet(1);
    assert_int_equal(mbl_proto_learn(peer, 2, &first, &error), MBL_ERR_ARG);
    assert_int_equal(mbl_proto_request(peer, &(mbl_proto_batch_t){.n = 1}, &request), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_options), cmocka_unit_test(test_metadata),
                                       cmocka_unit_test(test_ready)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
