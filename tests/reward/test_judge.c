/* Rewards of type judge: a vision-language model behind a chat server, whose answers become scores. */
#include "fake_server.h"

#include "base/log.h"
#include "base/mem.h"
#include "reward/reward.h"

#include <jansson.h>

enum { N = 24, SIDE = 8 };

typedef struct {
    fake_server_t http;
    atomic_size_t asked, wrong;
} judge_t;

/* It likes what the prompt's number says: "draw 3" gets a 3, after a line of thought; of "draw 9" it says
 * nothing. The image has to be there, as a file in the message. */
static bool answer(fake_request_t *request, void *user) {
    judge_t *judge = user;
    char text[700], *number = strstr(request->body, "draw ");
    if (strcmp(request->path, "/v1/models") == 0) {
        static const char models[] =
            "{\"object\":\"list\",\"data\":[{\"id\":\"tiny-vlm\",\"object\":\"model\"}]}";
        return fake_answer(request, 200, "Content-Type: application/json\r\n", models, sizeof models - 1);
    }
    atomic_fetch_add(&judge->asked, 1);
    json_t *json = json_loadb(request->body, request->body_bytes, 0, NULL);
    bool good = json && strcmp(request->path, "/v1/chat/completions") == 0 && number &&
                strcmp(json_string_value(json_object_get(json, "model")), "tiny-vlm") == 0 &&
                json_number_value(json_object_get(json, "temperature")) == 0 &&
                strstr(request->body, "data:image/png;base64,");
    json_decref(json);
    if (!good) {
        atomic_fetch_add(&judge->wrong, 1);
        return fake_answer(request, 400, "", "{\"error\":{\"message\":\"no\"}}", 26);
    }
    bool silent = number[5] == '9';
    snprintf(
        text, sizeof text,
        "{\"id\":\"1\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\","
        "\"message\":{\"role\":\"assistant\",\"content\":\"I see. %s%c\"}}]}",
        silent ? "No idea " : "Final Score: ", silent ? '.' : number[5]);
    return fake_answer(request, 200, "Content-Type: application/json\r\n", text, strlen(text));
}

static void test_answers_become_scores(void **state) {
    (void)state;
    judge_t judge = {.asked = 0};
    char options[1000], texts[N][32];
    uint8_t pixels[SIDE * SIDE * 3] = {1, 2, 3};
    mbl_image_t images[N];
    mbl_prompt_t prompts[N];
    const mbl_prompt_t *asked[N];
    mbl_score_t scores[N];
    mbl_scorer_pool_t *pool;
    fake_open(&judge.http, answer, &judge);
    snprintf(
        options, sizeof options,
        "{\"url\": \"%.120s/v1\", \"question\": \"How well does this show: {prompt}?\", \"scale\": [1, 5], "
        "\"pattern\": \"Final Score:\\\\s*(\\\\d)\", \"divide\": 5, \"in_flight\": 4}",
        judge.http.url);
    for (size_t i = 0; i < N; i++) {
        static const int numbers[] = {1, 2, 3, 4, 5, 7, 9};
        snprintf(texts[i], sizeof texts[i], "draw %d", numbers[i % 7]);
        prompts[i] = (mbl_prompt_t){texts[i], NULL};
        asked[i] = &prompts[i];
        images[i] = (mbl_image_t){SIDE, SIDE, pixels};
    }
    mbl_log_set_level(MBL_LOG_ERROR);
    mbl_reward_spec_t spec = {.name = "liked", .type = "judge", .options = options};
    assert_int_equal(mbl_scorer_pool_open(&spec, 1, 1, NULL, &pool), MBL_OK);
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
    for (size_t i = 0; i < N; i++) {
        bool valid = i % 7 < 5; /* 7 is off the scale, 9 gets no number */
        assert_int_equal(scores[i].state, valid ? MBL_SCORE_VALID : MBL_SCORE_FAILED);
        assert_near(scores[i].value, valid ? (double)(i % 7 + 1) / 5 : 0, 1e-6);
    }
    assert_int_equal(atomic_load(&judge.wrong), 0);
    mbl_scorer_pool_close(pool);
    fake_close(&judge.http);
}

/* Refused, and the message says which reward it is of. */
static void test_bad_questions(void **state) {
    (void)state;
    static const char *const options[] = {
        "{\"url\": \"http://127.0.0.1:1/v1\", \"pattern\": \"(.)\"}",
        "{\"url\": \"http://127.0.0.1:1/v1\", \"question\": \"q\"}",
        "{\"url\": \"http://127.0.0.1:1/v1\", \"question\": \"q\", \"pattern\": \"(\"}",
        "{\"url\": \"http://127.0.0.1:1/v1\", \"question\": \"q\", \"pattern\": \"(.)\", \"votes\": 3}",
        "{\"url\": \"http://h\", \"question\": \"q\", \"pattern\": \".\", \"votes\": 17,\"temperature\": 1}",
        "{\"url\": \"http://127.0.0.1:1/v1\", \"question\": \"q\", \"pattern\": \"(.)\", \"scale\": [5, 1]}"};
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        mbl_scorer_pool_t *pool = NULL;
        mbl_reward_spec_t spec = {.name = "liked", .type = "judge", .options = options[i]};
        mbl_status_t status = mbl_scorer_pool_open(&spec, 1, 1, NULL, &pool);
        if (status != MBL_ERR_CONFIG || !strstr(mbl_fail_message(), "reward liked: "))
            fail_msg("%s: %s (%s), expected ERR_CONFIG of reward liked", options[i], mbl_status_name(status),
                     mbl_fail_message());
    }
    mbl_log_set_level(MBL_LOG_ERROR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_become_scores),
        cmocka_unit_test(test_bad_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
