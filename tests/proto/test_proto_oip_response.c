/* proto/oip_response.c: tensors of every type, and what is refused with which words. */
#include "oip_case.h"

#include <math.h>

static mbl_proto_peer_t *two_scores(void) {
    return oip_peer(&oip_options, SERVER_JSON, LISTS_NOTHING);
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
    mbl_proto_options_t options = oip_options;
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_responses),    cmocka_unit_test(test_binary_types),
        cmocka_unit_test(test_binary_reasons),    cmocka_unit_test(test_two_rewards),
        cmocka_unit_test(test_refused_responses), cmocka_unit_test(test_header_length)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
