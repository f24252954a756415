/* proto/chat*.c: a judge's options, its question, and the number in its answers: by pattern, by schema, over
 * votes. */
#include "proto_case.h"

#include <math.h>

#define PATTERN "Final Score:\\s*([1-5](?:\\.\\d+)?)"
#define SCHEMA                                                                                               \
    "{\"type\": \"object\", \"properties\": {\"score\": {\"type\": \"integer\"}, \"reason\": {\"type\": "    \
    "\"string\"}}}"

static mbl_proto_peer_t *judge(const mbl_proto_judge_t *options) {
    static const char *const models[] = {
        "{\"object\": \"list\", \"data\": [{\"id\": \"vl-7b\", \"object\": \"model\"}]}"};
    return peer_of(&(mbl_proto_options_t){.codec = "chat", .judge = *options}, models);
}

static void test_options(void **state) {
    (void)state;
    const struct {
        mbl_proto_judge_t judge;
        const char *said;
    } cases[] = {
        {{.pattern = PATTERN}, "question: missing; expected what the model is asked, with {prompt}"},
        {{.question = "?"}, "pattern, schema: neither; expected one of them"},
        {{.question = "?", .pattern = PATTERN, .schema = SCHEMA}, "pattern, schema: both"},
        {{.question = "", .pattern = PATTERN}, "question: empty"},
        {{.question = "\xff", .pattern = PATTERN}, "question: empty, over 65536 bytes, or not UTF-8"},
        {{.question = "?", .pattern = "(a"}, "pattern: (a: missing closing parenthesis at byte 2"},
        {{.question = "?", .pattern = "[1-5]"}, "pattern: [1-5]: has no group; expected the score in ( )"},
        {{.question = "?", .schema = "{"}, "schema: it is not valid JSON"},
        {{.question = "?", .schema = "{\"properties\": {\"score\": {\"type\": \"string\"}}}"},
         "property \"score\" is of type string; expected number"},
        {{.question = "?", .schema = SCHEMA, .field = "rating"}, "property \"rating\" is of type nothing"},
        {{.question = "?", .pattern = PATTERN, .votes = 17, .temperature = 1}, "votes: 17; expected 1 to 16"},
        {{.question = "?", .pattern = PATTERN, .votes = 3},
         "votes: 3 at temperature 0, where all would be the same"},
        {{.question = "?", .pattern = PATTERN, .temperature = 3}, "temperature: 3; expected 0 to 2"},
        {{.question = "?", .pattern = PATTERN, .temperature = NAN}, "temperature: nan; expected 0 to 2"},
        {{.question = "?", .pattern = PATTERN, .low = 5, .high = 1}, "low, high: 5, 1; expected the range"},
        {{.question = "?", .pattern = PATTERN, .divide = -5}, "divide: -5; expected a number above 0"},
        {{.question = "?", .pattern = PATTERN, .max_tokens = 2000000},
         "max_tokens: 2000000; expected 1 to 1048576"},
    };
    mbl_proto_peer_t *peer;
    mbl_fail_quiet(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(
            mbl_proto_open(&(mbl_proto_options_t){.codec = "chat", .judge = cases[i].judge}, &peer),
            MBL_ERR_CONFIG);
        assert_text(mbl_fail_message(), cases[i].said);
    }
    mbl_proto_options_t options = {
        .codec = "chat", .judge = {.question = "?", .pattern = PATTERN}, .images = MBL_PROTO_IMAGES_RAW};
    assert_int_equal(mbl_proto_open(&options, &peer), MBL_ERR_CONFIG);
    assert_text(mbl_fail_message(), "images: raw; expected png or jpeg");
    options = (mbl_proto_options_t){.codec = "chat",
                                    .judge = {.question = "?", .pattern = PATTERN},
                                    .outputs = (const char *const[]){"a", "b"},
                                    .n_outputs = 2};
    assert_int_equal(mbl_proto_open(&options, &peer), MBL_ERR_CONFIG);
    assert_text(mbl_fail_message(), "outputs: 2 names; expected none");
    mbl_fail_quiet(0);
}

static void test_models(void **state) {
    (void)state;
    static const struct {
        const char *model, *body, *said; /* said: of the description, or the error */
        mbl_proto_error_kind_t kind;
    } cases[] = {
        {NULL, "{\"data\": [{\"id\": \"only\"}]}",
         "model only: images png, one a request, 1 vote, read by pattern", MBL_PROTO_ERROR_NONE},
        {"b", "{\"data\": [{\"id\": \"a\"}, {\"id\": \"b\"}]}", "model b", MBL_PROTO_ERROR_NONE},
        {NULL, "{\"data\": [{\"id\": \"a\"}, {\"id\": \"b\"}]}",
         "the server has the models a, b; expected one of them to be named (key model)",
         MBL_PROTO_ERROR_MISMATCH},
        {"c", "{\"data\": [{\"id\": \"a\"}]}", "the server has the models a; expected c (key model)",
         MBL_PROTO_ERROR_MISMATCH},
        {NULL, "{\"data\": []}", "the server has the models (none)", MBL_PROTO_ERROR_MISMATCH},
        {NULL, "{\"data\": [{\"id\": 3}]}", "\"id\" is 3; expected a string", MBL_PROTO_ERROR_MALFORMED},
        {NULL, "{\"models\": []}", "\"data\" is nothing; expected an array", MBL_PROTO_ERROR_MALFORMED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_peer_t *peer;
        mbl_proto_error_t error = {0};
        mbl_proto_options_t options = {
            .codec = "chat", .model = cases[i].model, .judge = {.question = "?", .pattern = PATTERN}};
        mbl_proto_response_t response = json_response(cases[i].body);
        assert_int_equal(mbl_proto_open(&options, &peer), MBL_OK);
        mbl_status_t status = mbl_proto_learn(peer, 0, &response, &error);
        assert_int_equal(error.kind, cases[i].kind);
        assert_text(status == MBL_OK ? mbl_proto_describe(peer) : error.text, cases[i].said);
        if (status == MBL_OK) {
            assert_int_equal(mbl_proto_learn(peer, 0, &response, &error),
                             MBL_OK); /* the server again, restarted */
            assert_int_equal(mbl_proto_max_batch(peer), 1);
        }
        mbl_proto_close(peer);
    }
}

/* The commonest mistake in a URL is named. */
static void test_absent(void **state) {
    (void)state;
    mbl_proto_peer_t *peer;
    mbl_proto_error_t error;
    mbl_proto_options_t options = {.codec = "chat", .judge = {.question = "?", .pattern = PATTERN}};
    mbl_proto_response_t response = {.status = 404, .body = "{\"detail\": \"Not Found\"}", .body_bytes = 23};
    assert_int_equal(mbl_proto_open(&options, &peer), MBL_OK);
    assert_int_equal(mbl_proto_learn(peer, 0, &response, &error), MBL_ERR_REWARD);
    assert_int_equal(error.kind, MBL_PROTO_ERROR_ABSENT);
    assert_string_equal(
        error.text,
        "HTTP 404; expected a server of chat completions, which answers GET /models: its URL ends in /v1");
    mbl_proto_close(peer);
}

/* What the prompt brings is text: it neither ends the JSON nor is filled in again. */
static void test_question(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = judge(&(mbl_proto_judge_t){.question = "Is {prompt} {there}? {metadata}{",
                                                        .system = "Be \"strict\".",
                                                        .pattern = PATTERN,
                                                        .max_tokens = 9});
    mbl_proto_piece_t file = {"file", 4};
    mbl_proto_batch_t batch = {.n = 1,
                               .encoded = &file,
                               .prompts = (const char *const[]){"\"}], {metadata} {prompt}\n"},
                               .metadata = (const char *const[]){"{\"a\": 1}"}};
    mbl_proto_request_t request = {0};
    assert_int_equal(mbl_proto_request(peer, &batch, &request), MBL_OK);
    char *body = whole_body(&request);
    assert_string_equal(body, "{\"model\":\"vl-7b\",\"messages\":[{\"role\":\"system\",\"content\":\"Be "
                              "\\\"strict\\\".\"},{\"role\":\"user\","
                              "\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
                              "png;base64,ZmlsZQ==\"}},{\"type\":"
                              "\"text\",\"text\":\"Is \\\"}], {metadata} {prompt}\\n {there}? {\\\"a\\\": "
                              "1}{\"}]}],\"temperature\":0.0,"
                              "\"max_tokens\":9}");
    free(body);
    mbl_proto_request_free(&request);
    mbl_proto_close(peer);
}

/* One answer's content, as a whole response. */
static char *answer(const char *content, char *out) {
    json_t *json = json_pack("{s:[{s:i, s:{s:s, s:s}}]}", "choices", "index", 0, "message", "role",
                             "assistant", "content", content);
    char *text = json_dumps(json, 0);
    strcpy(out, text);
    free(text);
    json_decref(json);
    return out;
}

static void test_answers(void **state) {
    (void)state;
    static const mbl_proto_judge_t by_pattern = {.question = "?", .pattern = PATTERN, .divide = 5},
                                   any = {.question = "?",
                                          .pattern = "(?i)score is (\\S+)",
                                          .low = 0,
                                          .high = 10},
                                   of_five = {.question = "?", .pattern = "([1-5])/5"},
                                   by_schema = {.question = "?", .schema = SCHEMA, .low = 1, .high = 5};
    static const struct {
        const mbl_proto_judge_t *judge;
        const char *content;
        double score; /* NAN: failed */
        const char *reason;
    } cases[] = {
        {&by_pattern, "It is good.\nFinal Score: 4.25", 0.85, "It is good. Final Score: 4.25"},
        {&by_pattern, "Final Score:   3", 0.6, "Final Score:"},
        {&by_pattern, "Final Score: 4.", 0.8, "Final Score: 4."},
        {&by_pattern, "Final Score: 2 ... Final Score: 5", 0.4,
         "Final Score: 2"}, /* the first, as re.search takes it */
        {&by_pattern, "Final Score: 37", NAN, "the pattern takes a part of a number: Final Score: 37"},
        {&of_five, "13/5", NAN, "the pattern takes a part of a number: 13/5"},
        {&of_five, "3.5/5", NAN, "the pattern takes a part of a number: 3.5/5"},
        {&of_five, "a good 3/5", 3, "a good 3/5"},
        {&by_pattern, "Final Score: high", NAN, "the pattern is not in the answer: Final Score: high"},
        {&by_pattern, "", NAN, "the answer is empty"},
        {&any, "The SCORE is 7.5", 7.5, "The SCORE is 7.5"},
        {&any, "the score is 1e1", 10, "the score is"},
        {&any, "the score is 11", NAN,
         "the number 11 is out of range; expected 0 to 10 (key scale): the score is 11"},
        {&any, "the score is nan", NAN, "what the pattern found is no number"},
        {&any, "the score is 0x10", NAN, "what the pattern found is no number"},
        {&any, "the score is 1e999", NAN, "what the pattern found is no number"},
        {&any, "the score is --1", NAN, "what the pattern found is no number"},
        {&by_schema, "{\"score\": 4, \"reason\": \"red\"}", 4, "{\"score\": 4, \"reason\": \"red\"}"},
        {&by_schema, " {\"score\": 2.5}\n", 2.5, ""},
        {&by_schema, "{\"score\": 6}", NAN, "the number 6 is out of range; expected 1 to 5 (key scale)"},
        {&by_schema, "{\"score\": \"4\"}", NAN, "has no number of that name"},
        {&by_schema, "{\"score\": NaN}", NAN, "has no number of that name"},
        {&by_schema, "{\"score\": 4", NAN, "the answer is no JSON object"},
        {&by_schema, "4", NAN, "the answer is no JSON object"},
    };
    char body[1000];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_proto_peer_t *peer = judge(cases[i].judge);
        mbl_proto_response_t response = json_response(answer(cases[i].content, body));
        mbl_proto_result_t result = {0};
        mbl_proto_error_t error;
        if (mbl_proto_response(peer, 1, &response, &result, &error) != MBL_OK)
            fail_msg("%s: %s", cases[i].content, error.text);
        bool failed = isnan(cases[i].score);
        if (result.states[0] != (failed ? MBL_PROTO_FAILED : MBL_PROTO_VALID))
            fail_msg("%s: state %d, %s", cases[i].content, result.states[0], result.reasons[0]);
        assert_near(result.scores[0], failed ? 0 : cases[i].score, 1e-6);
        assert_text(result.reasons[0], cases[i].reason);
        mbl_proto_result_free(&result);
        mbl_proto_close(peer);
    }
}

static void test_votes(void **state) {
    (void)state;
#define CHOICE(content) "{\"message\": {\"content\": " content "}}"
    static const struct {
        const char *choices;
        double score; /* NAN: failed; INFINITY: the whole response is refused */
        const char *said;
    } cases[] = {
        {CHOICE("\"Final Score: 4\"") "," CHOICE("\"Final Score: 5\"") "," CHOICE("\"Final Score: 3.6\""),
         4.2, "Final Score: 4"},
        {CHOICE("\"Final Score: 4\"") "," CHOICE("\"no idea\"") "," CHOICE("\"Final Score: 3\""), 3.5,
         "Final Score: 4"},
        {CHOICE("\"no idea\"") "," CHOICE("null") "," CHOICE("\"Final Score: 3\""), NAN,
         "the pattern is not in the answer: no idea"},
        {"{\"message\": {\"content\": \"\", \"refusal\": \"I cannot\"}}," CHOICE("3") "," CHOICE("[]"), NAN,
         "the model refuses: I cannot"},
        {CHOICE("\"Final Score: 4\""), INFINITY, "the response has 1 choices; expected 3 (key votes)"},
        {"1, 2, 3", INFINITY, "choice 0 of the response has no message"},
    };
    mbl_proto_peer_t *peer =
        judge(&(mbl_proto_judge_t){.question = "?", .pattern = PATTERN, .votes = 3, .temperature = 0.5});
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    char body[1000];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sprintf(body, "{\"choices\": [%s]}", cases[i].choices);
        mbl_proto_response_t response = json_response(body);
        mbl_status_t status = mbl_proto_response(peer, 1, &response, &result, &error);
        assert_int_equal(status, isinf(cases[i].score) ? MBL_ERR_REWARD : MBL_OK);
        assert_text(status == MBL_OK ? result.reasons[0] : error.text, cases[i].said);
        if (status != MBL_OK)
            continue;
        assert_int_equal(result.states[0], isnan(cases[i].score) ? MBL_PROTO_FAILED : MBL_PROTO_VALID);
        assert_near(result.scores[0], isnan(cases[i].score) ? 0 : cases[i].score, 1e-6);
    }
    mbl_proto_response_t response =
        json_response("{\"error\": {\"message\": \"CUDA out of memory\", \"code\": 500}}");
    assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_ERR_REWARD);
    assert_int_equal(error.kind, MBL_PROTO_ERROR_SERVER);
    assert_string_equal(error.text, "CUDA out of memory");
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* Half of the votes are not more than half of them. */
static void test_half(void **state) {
    (void)state;
    mbl_proto_peer_t *peer =
        judge(&(mbl_proto_judge_t){.question = "?", .pattern = PATTERN, .votes = 2, .temperature = 0.5});
    mbl_proto_response_t response =
        json_response("{\"choices\": [" CHOICE("\"Final Score: 4\"") "," CHOICE("\"?\"") "]}");
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_OK);
    assert_int_equal(result.states[0], MBL_PROTO_FAILED);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* Of an answer that max_tokens cut, a number at its very end may be a part of one: the 4 of 4.5. */
static void test_cut_answer(void **state) {
    (void)state;
    static const struct {
        const char *content, *finish, *reason; /* reason: NULL where there is a score */
    } cases[] = {
        {"Final Score: 4", "length", "the answer was cut at the number (key max_tokens): Final Score: 4"},
        {"Final Score: 4.", "length", "the answer was cut at the number (key max_tokens): Final Score: 4."},
        {"Final Score: 4 as", "length", NULL},
        {"Final Score: 4", "stop", NULL},
    };
    mbl_proto_peer_t *peer = judge(&(mbl_proto_judge_t){.question = "?", .pattern = PATTERN});
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    char body[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sprintf(body, "{\"choices\": [{\"message\": {\"content\": \"%s\"}, \"finish_reason\": \"%s\"}]}",
                cases[i].content, cases[i].finish);
        mbl_proto_response_t response = json_response(body);
        assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_OK);
        assert_int_equal(result.states[0], cases[i].reason ? MBL_PROTO_FAILED : MBL_PROTO_VALID);
        assert_text(result.reasons[0], cases[i].reason ? cases[i].reason : cases[i].content);
    }
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

static void test_long_answer(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = judge(&(mbl_proto_judge_t){.question = "?", .pattern = PATTERN});
    static char content[70001], body[80000];
    memset(content, 'a', sizeof content - 1);
    memcpy(content, "Final Score: 4 ", 15);
    mbl_proto_response_t response = json_response(answer(content, body));
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_OK);
    assert_int_equal(result.states[0], MBL_PROTO_FAILED);
    assert_text(result.reasons[0], "the answer is too long: Final Score: 4 aaa");
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

/* A pattern that takes exponential time in Perl ends at its bound: the vote is failed, and soon. */
static void test_slow_pattern(void **state) {
    (void)state;
    mbl_proto_peer_t *peer = judge(&(mbl_proto_judge_t){.question = "?", .pattern = "(?:a+)+b(\\d)"});
    static char content[30001], body[40000];
    memset(content, 'a', sizeof content - 1);
    content[sizeof content - 2] = 'b';
    mbl_proto_response_t response = json_response(answer(content, body));
    mbl_proto_result_t result = {0};
    mbl_proto_error_t error;
    assert_int_equal(mbl_proto_response(peer, 1, &response, &result, &error), MBL_OK);
    assert_int_equal(result.states[0], MBL_PROTO_FAILED);
    assert_text(result.reasons[0], "the pattern takes too long on the answer: aaa");
    assert_int_equal(strlen(result.reasons[0]), MBL_PROTO_REASON_MAX);
    mbl_proto_result_free(&result);
    mbl_proto_close(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),      cmocka_unit_test(test_models),
        cmocka_unit_test(test_absent),       cmocka_unit_test(test_question),
        cmocka_unit_test(test_answers),      cmocka_unit_test(test_votes),
        cmocka_unit_test(test_slow_pattern), cmocka_unit_test(test_half),
        cmocka_unit_test(test_cut_answer),   cmocka_unit_test(test_long_answer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
