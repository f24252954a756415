/* src/reward/applies: which prompts a reward applies to; a pool asks neither scorers nor services about the
 * others, whose scores are N/A. */
#include "support.h"
#include "base/mem.h"
#include "reward/applies.h"
#include "reward/reward.h"
#include "reward/service.h"

#include <stdlib.h>
#include <string.h>

static bool applies(const char *said, const char *text, const char *metadata) {
    mbl_applies_t *a = NULL;
    mbl_prompt_t prompt = {(char *)(uintptr_t)text, (char *)(uintptr_t)metadata};
    assert_int_equal(mbl_applies_open(said, &a), MBL_OK);
    bool does = mbl_applies_to(a, &prompt);
    mbl_applies_close(a);
    return does;
}

static void words(void **state) {
    (void)state;
    assert_true(applies("all", "a cat", NULL));
    assert_true(applies("quoted", "a sign \"K7\"", NULL));
    assert_false(applies("quoted", "a sign 'K7'", NULL));
    assert_false(applies("quoted", "a sign \"\"", NULL));
    static const char geneval[] = "{\"tag\":\"counting\",\"include\":[],\"seen\":false,\"gone\":null}";
    assert_true(applies("metadata.tag", "x", geneval));
    assert_true(applies("metadata.include", "x", geneval)); /* an empty list is there */
    assert_false(applies("metadata.exclude", "x", geneval));
    assert_false(applies("metadata.seen", "x", geneval));
    assert_false(applies("metadata.gone", "x", geneval));
    assert_false(applies("metadata.tag", "tag", NULL));
    assert_true(applies("regex:\\b(two|three)\\b", "two dogs", NULL));
    assert_false(applies("regex:\\b(two|three)\\b", "twofold", NULL));
    assert_true(applies("regex:(?i)^A", "a cat", NULL));
    assert_true(applies("regex:\\w{4}",
                        "\xC3\xBC"
                        "ber",
                        NULL)); /* letters, not bytes */
    assert_true(mbl_applies_to(NULL, &(mbl_prompt_t){NULL, NULL}));
    /* exponential in a backtracking matcher without limits */
    assert_false(
        applies("regex:(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", NULL));
}

static void what_is_none_of_these(void **state) {
    static const char *const bad[] = {"", "none", "quotes", "metadata.", "regex:", "regex", "All"};
    mbl_applies_t *a = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_failed(mbl_applies_open(bad[i], &a), MBL_ERR_CONFIG, "expected all, quoted, metadata.KEY or");
    assert_failed(mbl_applies_open("regex:a(b", &a), MBL_ERR_CONFIG,
                  "the pattern does not compile, at letter 4: missing closing parenthesis");
    assert_null(a);
}

/* ---- in a pool ---- */

enum { N = 12, K = 3 };
static size_t asked_scorer, asked_service;

static mbl_status_t score(void *self, const mbl_image_t *images, const mbl_prompt_t *const *prompts, size_t n,
                          mbl_score_t *out) {
    (void)self, (void)images;
    for (size_t i = 0; i < n; i++) {
        assert_non_null(strchr(prompts[i]->text, '"'));
        out[i] = (mbl_score_t){1, MBL_SCORE_VALID};
    }
    __atomic_add_fetch(&asked_scorer, n, __ATOMIC_RELAXED);
    return MBL_OK;
}

static bool joins(const mbl_reward_spec_t *a, const mbl_reward_spec_t *b) {
    (void)a, (void)b;
    return true;
}

static size_t outputs;
static mbl_status_t open_service(const mbl_reward_spec_t *const *specs, size_t n,
                                 const volatile sig_atomic_t *stop, void **self) {
    (void)specs, (void)stop;
    outputs = n;
    *self = NULL;
    return MBL_OK;
}

static void close_service(void *self) {
    (void)self;
}

/* Scores 10 and 20 at once, from the thread that submits. */
static void submit(void *self, mbl_score_job_t *job) {
    float *scores = malloc(outputs * job->n * sizeof *scores);
    uint8_t *states = calloc(outputs * job->n, 1);
    (void)self;
    for (size_t o = 0; o < outputs; o++)
        for (size_t i = 0; i < job->n; i++)
            scores[o * job->n + i] = (float)(10 * (o + 1));
    memset(states, MBL_SCORE_VALID, outputs * job->n);
    asked_service += job->n;
    job->scored(job, 0, job->n, &(mbl_proto_result_t){.scores = scores, .states = states}, "");
    job->done(job, job->n);
    free(scores);
    free(states);
}

static void traffic(void *self, mbl_traffic_t *out) {
    (void)self;
    memset(out, 0, sizeof *out);
}

static bool replica(void *self, size_t i, const char **url, bool *ready, char *text, size_t size) {
    (void)self, (void)i, (void)url, (void)ready, (void)text, (void)size;
    return false;
}

static void a_pool_asks_about_no_others(void **state) {
    static const mbl_service_t service = {.joins = joins,
                                          .open = open_service,
                                          .close = close_service,
                                          .submit = submit,
                                          .abandon = close_service,
                                          .traffic = traffic,
                                          .replica = replica};
    static const mbl_scorer_t local = {.name = "local", .score = score},
                              served = {.name = "served", .service = &service};
    const mbl_scorer_t *scorers[K] = {&local, &served, &served};
    const mbl_reward_spec_t specs[K] = {{.name = "a", .applies_to = "quoted"},
                                        {.name = "b", .applies_to = "metadata.tag"},
                                        {.name = "c", .applies_to = "regex:two"}};
    static char *texts[] = {"a \"K\"", "two dogs", "a cat"};
    static char tag[] = "{\"tag\":1}";
    mbl_prompt_t prompts[N];
    const mbl_prompt_t *asked[N];
    mbl_image_t images[N];
    mbl_score_t scores[N * K];
    mbl_scorer_pool_t *pool;
    (void)state;
    memset(images, 0, sizeof images);
    for (size_t i = 0; i < N; i++) { /* groups of two, as images of one prompt are */
        prompts[i] = (mbl_prompt_t){texts[i / 2 % 3], i >= N / 2 && i / 2 % 3 == 0 ? tag : NULL};
        asked[i] = &prompts[i];
    }
    for (size_t threads = 0; threads < 3; threads++) {
        asked_scorer = asked_service = 0;
        memset(scores, 0x55, sizeof scores);
        assert_int_equal(mbl_scorer_pool_open_with(scorers, specs, K, threads, NULL, &pool), MBL_OK);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
            assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        }
        for (size_t i = 0; i < N; i++) {
            const bool a = i / 2 % 3 == 0, b = a && i >= N / 2, c = i / 2 % 3 == 1, all[K] = {a, b, c};
            for (size_t k = 0; k < K; k++) {
                assert_int_equal(mbl_scorer_pool_applies(pool, k, asked[i]), all[k]);
                assert_int_equal(scores[i * K + k].state, all[k] ? MBL_SCORE_VALID : MBL_SCORE_NA);
                assert_near(scores[i * K + k].value, all[k] ? (k ? 10 * (double)k : 1) : 0, 0);
            }
        }
        assert_int_equal(asked_scorer, 2 * 4);
        assert_int_equal(asked_service, 2 * 6); /* "two dogs", and those with a tag */
        mbl_scorer_pool_close(pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words),
        cmocka_unit_test(what_is_none_of_these),
        cmocka_unit_test(a_pool_asks_about_no_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
