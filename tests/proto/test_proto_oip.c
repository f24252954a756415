/* proto/oip*.c: requests byte by byte, metadata of every kind, tensors of every type, and what is refused
 * with which words. */
#include "proto_case.h"

#include <math.h>

#define SERVER_BINARY "{\"name\": \"triton\", \"version\": \"2\", \"extensions\": [\"binary_tensor_data\"]}"
#define SERVER_JSON "{\"name\": \"mlserver\", \"version\": \"1\", \"extensions\": []}"
#define LISTS_NOTHING "{\"name\": \"m\", \"inputs\": [], \"outputs\": []}"
#define IMAGES(datatype, shape)                                                                              \
    "{\"name\": \"images\", \"datatype\": \"" datatype "\", \"shape\": [" shape "]}"
#define TENSOR(name, datatype, shape)                                                                        \
    "{\"name\": \"" name "\", \"datatype\": \"" datatype "\", \"shape\": [" shape "]}"
#define MODEL(inputs, outputs) "{\"name\": \"m\", \"inputs\": [" inputs "], \"outputs\": [" outputs "]}"
#define SCORES TENSOR("scores", "FP32", "-1")

static const mbl_proto_options_t the_options = {.model = "m", .width = 2, .height = 1};

static mbl_proto_peer_t *oip_peer(const mbl_proto_options_t *options, const char *server, const char *model) {
    const char *bodies[] = {server, "", model};
    return peer_of(options, bodies);
}

static void assert_text(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("found \"%s\"; expected \"%s\" in it", text, part);
}

/* ---- options and metadata ---- */

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
        {{.model = "m", .outputs = (const char *const[]){"a"}, .n_outputs = 17},
         "outputs: 17 names; expected at most 16"},
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
         "the model answers with logits FP32 [-1]; expected an output called scores (key outputs)", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3"), TENSOR("scores", "BYTES", "-1")),
         "output scores is BYTES [-1]; expected FP32 [N] or [N, 1]", 0, 0, 0},
        {SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, -1, -1, 3"), TENSOR("scores", "FP32", "-1, 5")),
         "output scores is FP32 [-1, 5]", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_options_t options = the_options;
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
    assert_int_equal(mbl_proto_open(&the_options, &peer), MBL_OK);
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

/* ---- requests ---- */

static const uint8_t the_pixels[3][6] = {{0, 9, 10, 99, 100, 255}, {1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}};
static const char *const the_prompts[] = {"a \"K7\"", "größer"};

static void test_binary_request(void **state) {
    (void)state;
    static const char model[] = MODEL(IMAGES("UINT8", "-1, -1, -1, 3") "," TENSOR(
                                          "prompts", "BYTES", "-1, 1") "," TENSOR("metadata", "BYTES", "-1"),
                                      SCORES "," TENSOR("valid", "BOOL", "-1") "," TENSOR(
                                          "hps_reason", "BYTES", "-1") "," TENSOR("hps", "FP32", "-1"));
    static const char json[] = "{\"inputs\":[{\"name\":\"images\",\"shape\":[2,1,2,3],\"datatype\":\"UINT8\","
                               "\"parameters\":{\"binary_data_size\":12}},"
                               "{\"name\":\"prompts\",\"shape\":[2,1],\"datatype\":\"BYTES\",\"parameters\":{"
                               "\"binary_data_size\":22}},"
                               "{\"name\":\"metadata\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":{"
                               "\"binary_data_size\":17}}],"
                               "\"outputs\":[{\"name\":\"hps\",\"parameters\":{\"binary_data\":true}},{"
                               "\"name\":\"valid\",\"parameters\":{\"binary_data\":true}},"
                               "{\"name\":\"hps_reason\",\"parameters\":{\"binary_data\":true}},{\"name\":"
                               "\"scores\",\"parameters\":{\"binary_data\":true}}]}";
    mbl_proto_options_t options = the_options;
    options.version = "2";
    options.model = "a/b c";
    options.outputs = (const char *const[]){"hps", "scores"};
    options.n_outputs = 2;
    mbl_proto_peer_t *peer = oip_peer(&options, SERVER_BINARY, model);
    const char *metadata[] = {"{\"a\":1}", NULL};
    mbl_proto_batch_t batch = {.n = 2,
                               .width = 2,
                               .height = 1,
                               .rgb = (const uint8_t *const[]){the_pixels[0], the_pixels[1]},
                               .prompts = the_prompts,
                               .metadata = metadata};
    mbl_proto_request_t request = {0};
    for (int again = 0; again < 2; again++) { /* the second time in the memory of the first */
        assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
        assert_string_equal(request.method, "POST");
        assert_string_equal(request.path, "/v2/models/a%2Fb%20c/versions/2/infer");
        assert_int_equal(request.n_headers, 2);
        assert_string_equal(request.headers[0].value, "application/octet-stream");
        assert_string_equal(request.headers[1].name, "Inference-Header-Content-Length");
        assert_int_equal(atoi(request.headers[1].value), strlen(json));
        char *body = whole_body(&request);
        assert_memory_equal(body, json, strlen(json));
        const char *at = body + strlen(json);
        assert_memory_equal(at, the_pixels, 12);
        assert_memory_equal(at + 12,
                            "\6\0\0\0a \"K7\"\10\0\0\0gr\xc3\xb6\xc3\x9f"
                            "er",
                            22);
        assert_memory_equal(at + 34, "\7\0\0\0{\"a\":1}\2\0\0\0{}", 17);
        assert_int_equal(request.body_bytes, strlen(json) + 12 + 22 + 17);
        free(body);
        /* Images are not copied, and those that follow one another are one piece. */
        assert_int_equal(request.n_pieces, 3);
        assert_ptr_equal(request.pieces[1].data, the_pixels);
        assert_int_equal(request.pieces[1].bytes, 12);
    }
    batch.rgb = (const uint8_t *const[]){the_pixels[2], the_pixels[0]};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    assert_int_equal(request.n_pieces, 4);
    assert_ptr_equal(request.pieces[1].data, the_pixels[2]);
    assert_ptr_equal(request.pieces[2].data, the_pixels[0]);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

static void test_binary_files(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = oip_peer(&the_options, SERVER_BINARY, MODEL(IMAGES("BYTES", "-1, 1"), SCORES));
    mbl_proto_piece_t files[] = {{"first", 5}, {"2", 1}};
    mbl_proto_batch_t batch = {.n = 2, .encoded = files, .prompts = the_prompts};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    static const char json[] =
        "{\"inputs\":[{\"name\":\"images\",\"shape\":[2,1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_"
        "data_size\":14}}],"
        "\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"binary_data\":true}}]}\5\0\0\0first\1\0\0\0"
        "2";
    char *body = whole_body(&request);
    assert_int_equal(request.body_bytes, sizeof json - 1);
    assert_memory_equal(body, json, sizeof json - 1);
    assert_int_equal(request.n_pieces, 4);
    assert_ptr_equal(request.pieces[1].data, files[0].data);
    free(body);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

static void test_json_request(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = oip_peer(&the_options, SERVER_JSON, LISTS_NOTHING);
    mbl_proto_batch_t batch = {.n = 2,
                               .width = 2,
                               .height = 1,
                               .rgb = (const uint8_t *const[]){the_pixels[0], the_pixels[2]},
                               .prompts = the_prompts};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    char *body = whole_body(&request);
    assert_string_equal(body,
                        "{\"inputs\":[{\"name\":\"images\",\"shape\":[2,1,2,3],\"datatype\":\"UINT8\","
                        "\"data\":[0,9,10,99,100,255,7,8,9,10,"
                        "11,12]},{\"name\":\"prompts\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":{"
                        "\"content_type\":\"str\"},"
                        "\"data\":[\"a \\\"K7\\\"\",\"gr\xc3\xb6\xc3\x9f"
                        "er\"]},{\"name\":\"metadata\",\"shape\":[2],\"datatype\":"
                        "\"BYTES\",\"parameters\":{\"content_type\":\"str\"},\"data\":[\"{}\",\"{}\"]}]}");
    assert_int_equal(request.n_headers, 1);
    assert_string_equal(request.headers[0].value, "application/json");
    free(body);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

/* A model with inputs of other names, which run.yaml gives. */
static void test_input_names(void **state) {
    (void)state;
    mbl_proto_options_t options = the_options;
    options.image_input = "INPUT \"0\"";
    options.prompt_input = "TEXT";
    mbl_proto_peer_t *peer = oip_peer(
        &options, SERVER_BINARY,
        MODEL("{\"name\": \"INPUT \\\"0\\\"\", \"datatype\": \"UINT8\", \"shape\": [-1, -1, -1, 3]}," TENSOR(
                  "TEXT", "BYTES", "-1"),
              SCORES));
    mbl_proto_batch_t batch = {.n = 1,
                               .width = 2,
                               .height = 1,
                               .rgb = (const uint8_t *const[]){the_pixels[0]},
                               .prompts = the_prompts};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    char *body = whole_body(&request);
    assert_text(body, "{\"name\":\"INPUT \\\"0\\\"\",\"shape\":[1,1,2,3]");
    assert_text(body, "{\"name\":\"TEXT\",\"shape\":[1],");
    assert_null(strstr(body, "metadata")); /* which the model does not list */
    free(body);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

static void test_bad_batches(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = oip_peer(&the_options, SERVER_BINARY, LISTS_NOTHING);
    const uint8_t *rgb[] = {the_pixels[0], NULL};
    const char *prompts[] = {"a", "\xc3"};
    mbl_proto_batch_t good = {.n = 1, .width = 2, .height = 1, .rgb = rgb, .prompts = prompts};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &good, &request), MBL_OK);
    struct {
        mbl_proto_batch_t batch;
        const char *said;
    } cases[] = {
        {good, "0 images; this server takes 1 to 4096"},
        {good, "4097 images"},
        {good, "no images; this server takes pixels"},
        {good, "images of 0 x 1 pixels"},
        {good, "prompt 1 of 2 is missing, over 1048576"},
        {good, "image 1 of 2 is missing"},
        {good, "1 images have more than 1073741824 bytes"},
        {good, "no prompts"},
        {good, "metadata 0 of 1 is over 1048576 bytes or not UTF-8"},
    };
    cases[0].batch.n = 0;
    cases[1].batch.n = 4097;
    cases[2].batch.rgb = NULL;
    cases[3].batch.width = 0;
    cases[4].batch.n = 2;
    cases[5].batch.n = 2;
    cases[5].batch.prompts = the_prompts;
    cases[6].batch.width = 1 << 30;
    cases[7].batch.prompts = NULL;
    cases[8].batch.metadata = (const char *const[]){"\x80"};
    mbl_fail_quiet(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mbl_proto_request(peer, &cases[i].batch, &request), MBL_ERR_ARG);
        assert_text(mbl_fail_message(), cases[i].said);
    }
    mbl_fail_quiet(0);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

/* ---- responses ---- */

static mbl_proto_peer_t *two_scores(void) {
    return oip_peer(&the_options, SERVER_JSON, LISTS_NOTHING);
}

#define OUTPUTS(list) "{\"outputs\": [" list "]}"
#define DATA(name, datatype, shape, data)                                                                    \
    "{\"name\": \"" name "\", \"datatype\": \"" datatype "\", \"shape\": [" shape "], \"data\": " data "}"

static void test_json_responses(void **state) {
    (void)state;
    static const struct {
        const char *body;
        double scores[2];
        int states[2];
    } cases[] = {
        {OUTPUTS(DATA("scores", "FP32", "2", "[0.5, -2]")), {0.5, -2}, {0, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2, 1", "[0.5, -2]")), {0.5, -2}, {0, 0}},
        {OUTPUTS(DATA("scores", "FP64", "2, 1", "[[0.5], [-2e3]]")), {0.5, -2000}, {0, 0}},
        {OUTPUTS(DATA("scores", "INT64", "2", "[7, -3]")), {7, -3}, {0, 0}},
        {OUTPUTS(DATA("scores", "BOOL", "2", "[true, false]")), {1, 0}, {0, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2", "[null, 1]")), {0, 1}, {2, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2", "[NaN, 1]")), {0, 1}, {2, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2", "[-Infinity, Infinity]")), {0, 0}, {2, 2}},
        {OUTPUTS(DATA("scores", "FP64", "2", "[1e300, 1]")), {0, 1}, {2, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]") "," DATA("valid", "BOOL", "2", "[false, true]")),
         {0, 2},
         {1, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2", "[null, 2]") "," DATA("valid", "UINT8", "2, 1", "[0, 1]")),
         {0, 2},
         {1, 0}},
        {OUTPUTS(DATA("scores", "FP32", "2", "[null, 2]") "," DATA("valid", "BOOL", "2", "[true, true]")),
         {0, 2},
         {2, 0}},
        {OUTPUTS(DATA("valid", "BOOL", "2", "[true, true]") "," DATA(
             "scores_valid", "BOOL", "2", "[true, false]") "," DATA("scores", "FP32", "2", "[1, 2]")),
         {1, 0},
         {0, 1}},
        {OUTPUTS(DATA("other", "STRING", "2, 2", "[1, 2, 3]") "," DATA("scores", "FP32", "2", "[1, 2]")),
         {1, 2},
         {0, 0}},
    };
    mbl_proto_peer_t *peer = two_scores();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_response_t response = json_response(cases[i].body);
        if (mbl_proto_response(peer, 2, &response, &result, &error) != MBL_OK)
            fail_msg("%s: %s", cases[i].body, error.text);
        assert_int_equal(result.n, 2);
        assert_int_equal(result.outputs, 1);
        for (size_t k = 0; k < 2; k++) {
            assert_near(result.scores[k], cases[i].scores[k], 1e-6);
            assert_int_equal(result.states[k], cases[i].states[k]);
        }
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* A body of one binary output of 2 elements. */
static mbl_proto_response_t binary_response(const char *datatype, const void *bytes, size_t size, char *body,
                                            mbl_proto_header_t *header, char *length) {
    int n = sprintf(body,
                    "{\"outputs\":[{\"name\":\"scores\",\"datatype\":\"%s\",\"shape\":[2],\"parameters\":{"
                    "\"binary_data_size\":%zu}}]}",
                    datatype, size);
    sprintf(length, "%d", n);
    *header = (mbl_proto_header_t){"inference-header-content-length", length};
    memcpy(body + n, bytes, size);
    return (mbl_proto_response_t){
        .status = 200, .headers = header, .n_headers = 1, .body = body, .body_bytes = (size_t)n + size};
}

static void test_binary_types(void **state) {
    (void)state;
    static const struct {
        const char *datatype, *bytes;
        size_t size;
        double scores[2]; /* NAN: failed */
    } cases[] = {
        {"BOOL", "\0\1", 2, {0, 1}},
        {"UINT8", "\7\377", 2, {7, 255}},
        {"INT8", "\177\200", 2, {127, -128}},
        {"UINT16", "\1\2\377\377", 4, {513, 65535}},
        {"INT16", "\376\377\0\200", 4, {-2, -32768}},
        {"UINT32", "\0\0\0\1\377\377\377\377", 8, {16777216, 4294967295.}},
        {"INT32", "\377\377\377\377\0\0\0\200", 8, {-1, -2147483648.}},
        {"UINT64", "\0\0\0\0\0\0\0\200\1\0\0\0\0\0\0\0", 16, {9223372036854775808., 1}},
        {"INT64", "\0\0\0\0\0\0\0\200\377\377\377\377\377\377\377\377", 16, {-9223372036854775808., -1}},
        {"FP16", "\0\74\1\200", 4, {1, -5.960464477539063e-8}},
        {"FP16", "\377\173\0\174", 4, {65504, NAN}},
        {"FP16", "\1\176\0\300", 4, {NAN, -2}},
        {"FP32", "\0\0\0\77\0\0\200\177", 8, {0.5, NAN}},
        {"FP32", "\0\0\300\177\0\0\0\300", 8, {NAN, -2}},
        {"FP64", "\0\0\0\0\0\0\340\77\0\0\0\0\0\0\370\177", 16, {0.5, NAN}},
    };
    mbl_proto_peer_t *peer = two_scores();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    mbl_proto_header_t header;
    char body[400], length[24];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_response_t response =
            binary_response(cases[i].datatype, cases[i].bytes, cases[i].size, body, &header, length);
        if (mbl_proto_response(peer, 2, &response, &result, &error) != MBL_OK)
            fail_msg("%s: %s", cases[i].datatype, error.text);
        for (size_t k = 0; k < 2; k++) {
            bool failed = isnan(cases[i].scores[k]);
            assert_int_equal(result.states[k], failed ? MBL_PROTO_FAILED : MBL_PROTO_VALID);
            assert_near(result.scores[k], failed ? 0 : cases[i].scores[k],
                        fabs(failed ? 0 : cases[i].scores[k]) * 1e-7);
        }
        for (size_t size = cases[i].size - 1; size <= cases[i].size + 1;
             size += 2) { /* a string's zero is the byte more */
            response = binary_response(cases[i].datatype, cases[i].bytes, size, body, &header, length);
            assert_int_equal(mbl_proto_response(peer, 2, &response, &result, &error), MBL_ERR_REWARD);
            assert_int_equal(error.kind, MBL_PROTO_ERROR_MALFORMED);
            assert_int_equal(result.n, 0);
        }
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* Two reasons, with lengths that are right and wrong; the body lies at the end of its memory, where a
 * sanitizer sees a byte too far. */
static void test_binary_reasons(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *said; /* NULL: read */
    } cases[] = {{"\3\0\0\0red\0\0\0\0", 11, NULL},
                 {"\3\0\0\0red\1\0\0\0", 11, "ends in the middle of an element (4 bytes left)"},
                 {"\3\0\0\0red\4\0\0\0", 11, "ends in the middle of an element (4 bytes left)"},
                 {"\3\0\0\0red\0\0\0", 10, "ends in the middle of an element (3 bytes left)"},
                 {"\3\0\0\0red", 7, "ends in the middle of an element (0 bytes left)"},
                 {"\377\377\377\377red\0\0\0\0", 11, "ends in the middle of an element (11 bytes left)"},
                 {"\3\0\0\0red\0\0\0\0\0", 12, "has 1 bytes after its last element; expected none"}};
    mbl_proto_peer_t *peer = two_scores();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[400], length[24];
        int n = sprintf(json,
                        OUTPUTS(DATA("scores", "FP32", "2",
                                     "[1, 2]") ",{\"name\":\"reason\",\"datatype\":\"BYTES\",\"shape\":[2],"
                                               "\"parameters\":{\"binary_data_size\":%zu}}"),
                        cases[i].size);
        char *body = malloc((size_t)n + cases[i].size);
        memcpy(body, json, (size_t)n);
        memcpy(body + n, cases[i].bytes, cases[i].size);
        sprintf(length, "%d", n);
        mbl_proto_header_t header = {"Inference-Header-Content-Length", length};
        mbl_proto_response_t response = {.status = 200,
                                         .headers = &header,
                                         .n_headers = 1,
                                         .body = body,
                                         .body_bytes = (size_t)n + cases[i].size};
        mbl_status_t status = mbl_proto_response(peer, 2, &response, &result, &error);
        assert_int_equal(status, cases[i].said ? MBL_ERR_REWARD : MBL_OK);
        if (cases[i].said)
            assert_text(error.text, cases[i].said);
        else
            assert_string_equal(result.reasons[0], "red");
        free(body);
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* Several rewards from one call, each with its own companions, binary beside JSON, and reasons made fit to
 * print. */
static void test_two_rewards(void **state) {
    (void)state;
    mbl_proto_options_t options = the_options;
    options.outputs = (const char *const[]){"hps", "ocr"};
    options.n_outputs = 2;
    mbl_proto_peer_t *peer = oip_peer(&options, SERVER_BINARY, LISTS_NOTHING);
    static const char json[] =
        OUTPUTS("{\"name\":\"hps\",\"datatype\":\"FP32\",\"shape\":[2,1],\"parameters\":{\"binary_data_"
                "size\":8}}," DATA("ocr", "FP32", "2", "[0.25, null]") "," DATA(
                    "ocr_valid", "BOOL", "2",
                    "[true, false]") ","
                                     "{\"name\":\"hps_reason\",\"datatype\":\"BYTES\",\"shape\":[2],"
                                     "\"parameters\":{\"binary_data_size\":19}}");
    char body[1000], length[24];
    sprintf(length, "%zu", sizeof json - 1);
    memcpy(body, json, sizeof json - 1);
    memcpy(body + sizeof json - 1, "\0\0\200\77\0\0\300\177", 8);
    memcpy(body + sizeof json - 1 + 8, "\13\0\0\0\033[1mred\377\r\n!\0\0\0\0", 19);
    mbl_proto_header_t header = {"Inference-Header-CONTENT-Length", length};
    mbl_proto_response_t response = {
        .status = 200, .headers = &header, .n_headers = 1, .body = body, .body_bytes = sizeof json - 1 + 27};
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    if (mbl_proto_response(peer, 2, &response, &result, &error) != MBL_OK)
        fail_msg("%s", error.text);
    static const int states[] = {0, 2, 0, 1};
    static const double scores[] = {1, 0, 0.25, 0};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(result.states[i], states[i]);
        assert_near(result.scores[i], scores[i], 0);
    }
    assert_string_equal(result.reasons[0], " [1mred?  !");
    assert_null(result.reasons[1]);
    assert_null(result.reasons[2]);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

static void test_refused_responses(void **state) {
    (void)state;
    static const struct {
        const char *body, *said;
        mbl_proto_error_kind_t kind;
    } cases[] = {
        {"", "the response is not valid JSON", MBL_PROTO_ERROR_MALFORMED},
        {"<html>", "begins \"<html>\"", MBL_PROTO_ERROR_MALFORMED},
        {"[1]", "the response is [1]; expected a JSON object", MBL_PROTO_ERROR_MALFORMED},
        {"{\"a\": 1, \"a\": 2}", "duplicate object key", MBL_PROTO_ERROR_MALFORMED},
        {"{}", "\"outputs\" is nothing; expected an array", MBL_PROTO_ERROR_MALFORMED},
        {"{\"error\": \"CUDA out of memory\"}", "CUDA out of memory", MBL_PROTO_ERROR_SERVER},
        {"{\"error\": \" \\n\"}", "an empty message", MBL_PROTO_ERROR_SERVER},
        {OUTPUTS(""), "the response has no outputs; expected an output called scores",
         MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS("3"), "an output of the response: \"name\" is nothing", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("hps", "FP32", "2", "[1, 2]")),
         "the response has hps; expected an output called scores", MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1]")), "has shape [2] and 1 elements; expected 2",
         MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "3", "[1, 2, 3]")),
         "has shape [3] for 2 images; expected [2] or [2, 1]", MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "FP32", "1, 2", "[1, 2]")), "has shape [1,2] for 2 images",
         MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "FP32", "", "[]")), "has shape []", MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "FP99", "2", "[1, 2]")), "datatype FP99, which marble does not know",
         MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "BYTES", "2", "[\"1\", \"2\"]")), "datatype BYTES; expected FP32",
         MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, \"2\"]")), "element 1 is \"2\"; expected a number",
         MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, true]")), "element 1 is true; expected a number",
         MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, [2, 3]]")), "element 1 is [2,3]; expected a number",
         MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "{}")), "\"data\" is {}; expected an array",
         MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]") "," DATA("scores", "FP32", "2", "[1, 2]")),
         "has output scores twice", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]") "," DATA("valid", "FP32", "2", "[1, 1]")),
         "output valid has datatype FP32; expected BOOL", MBL_PROTO_ERROR_MISMATCH},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]") "," DATA("valid", "UINT8", "2", "[1, 2]")),
         "element 1 is 2; expected 0 or 1", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]") "," DATA("valid", "BOOL", "2", "[null, true]")),
         "expected 0 or 1", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]") "," DATA("reason", "BYTES", "2", "[1, \"\"]")),
         "element 0 is 1; expected a string", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS("{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":[2],\"parameters\":{\"binary_data_"
                 "size\":8}}"),
         "binary_data_size is 8; 0 bytes are left of the body", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS("{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1,2],\"parameters\":{"
                 "\"binary_data_size\":0}}"),
         "binary_data_size is 0 beside \"data\"", MBL_PROTO_ERROR_MALFORMED},
        {OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]")) "\n{}", "not valid JSON", MBL_PROTO_ERROR_MALFORMED},
    };
    mbl_proto_peer_t *peer = two_scores();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_response_t response = json_response(cases[i].body);
        mbl_status_t status = mbl_proto_response(peer, 2, &response, &result, &error);
        if (status != MBL_ERR_REWARD || error.kind != cases[i].kind || !strstr(error.text, cases[i].said))
            fail_msg("%s\nis %s, %s: \"%s\"; expected %s: \"%s\"", cases[i].body, mbl_status_name(status),
                     mbl_proto_error_name(error.kind), error.text, mbl_proto_error_name(cases[i].kind),
                     cases[i].said);
        assert_int_equal(result.n, 0);
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

static void test_header_length(void **state) {
    (void)state;
    static const char body[] = OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]"));
    static const struct {
        const char *value, *said;
    } cases[] = {{"0", "expected the length of the JSON in it"},
                 {"-5", "is \"-5\""},
                 {"99999", "is \"99999\""},
                 {"18446744073709551617", "is \"18446744073709551617\""},
                 {"5 ", "is \"5\""},
                 {"", "is \"\""},
                 {"10", "not valid JSON"}};
    mbl_proto_peer_t *peer = two_scores();
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_header_t headers[] = {{"content-type", "x"},
                                        {"INFERENCE-HEADER-CONTENT-LENGTH", cases[i].value}};
        mbl_proto_response_t response = {
            .status = 200, .headers = headers, .n_headers = 2, .body = body, .body_bytes = sizeof body - 1};
        assert_int_equal(mbl_proto_response(peer, 2, &response, &result, &error), MBL_ERR_REWARD);
        assert_int_equal(error.kind, MBL_PROTO_ERROR_MALFORMED);
        assert_text(error.text, cases[i].said);
    }
    char padded[sizeof body + 3] = OUTPUTS(DATA("scores", "FP32", "2", "[1, 2]")) "\0\0\0";
    char length[24];
    sprintf(length, "%zu", sizeof body - 1);
    mbl_proto_header_t header = {"Inference-Header-Content-Length", length};
    mbl_proto_response_t response = {
        .status = 200, .headers = &header, .n_headers = 1, .body = padded, .body_bytes = sizeof body + 2};
    assert_int_equal(mbl_proto_response(peer, 2, &response, &result, &error), MBL_ERR_REWARD);
    assert_text(error.text, "3 bytes of the body belong to no output");
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_options),
                                       cmocka_unit_test(test_metadata),
                                       cmocka_unit_test(test_ready),
                                       cmocka_unit_test(test_binary_request),
                                       cmocka_unit_test(test_binary_files),
                                       cmocka_unit_test(test_json_request),
                                       cmocka_unit_test(test_input_names),
                                       cmocka_unit_test(test_bad_batches),
                                       cmocka_unit_test(test_json_responses),
                                       cmocka_unit_test(test_binary_types),
                                       cmocka_unit_test(test_binary_reasons),
                                       cmocka_unit_test(test_two_rewards),
                                       cmocka_unit_test(test_refused_responses),
                                       cmocka_unit_test(test_header_length)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
