/* proto/oip.c: requests byte by byte, and batches that are refused. */
#include "oip_case.h"

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
    mbl_proto_options_t options = oip_options;
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
    mbl_proto_peer_t *peer = oip_peer(&oip_options, SERVER_BINARY, MODEL(IMAGES("BYTES", "-1, 1"), SCORES));
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
    mbl_proto_peer_t *peer = oip_peer(&oip_options, SERVER_JSON, LISTS_NOTHING);
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
    mbl_proto_options_t options = oip_options;
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
    mbl_proto_peer_t *peer = oip_peer(&oip_options, SERVER_BINARY, LISTS_NOTHING);
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

/* A server that fixes a size gets no image of another one. */
static void test_a_size_that_the_server_fixes(void **state) {
    (void)state;
    const mbl_proto_options_t any = {.model = "m"};
    mbl_proto_peer_t *peer = oip_peer(&any, SERVER_BINARY, MODEL(IMAGES("UINT8", "-1, 1, -1, 3"), SCORES));
    const uint8_t *rgb[] = {the_pixels[0]};
    mbl_proto_batch_t batch = {.n = 1, .width = 2, .height = 1, .rgb = rgb, .prompts = the_prompts};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    batch.width = 1;
    batch.height = 2;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    assert_text(mbl_fail_message(),
                "images of 2 x 1 pixels (height x width); the server's metadata asks for 1 x 0 (0: any)");
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_binary_request), cmocka_unit_test(test_binary_files),
        cmocka_unit_test(test_json_request),   cmocka_unit_test(test_input_names),
        cmocka_unit_test(test_bad_batches),    cmocka_unit_test(test_a_size_that_the_server_fixes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
