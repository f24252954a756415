/* marble reward score: built-in scorers for other programs, through a pipe. */
#include "cli/cmd_reward_score.h"

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "reward/reward.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES_MAX = 4096, SIDE_MAX = 8192, BYTES_MAX = 1 << 30 };
static const char where[] = "standard input";

/* What is asked at once; the JSON holds the texts. */
typedef struct {
    json_t *head;
    const char *reward;
    size_t n, width, height, capacity;
    uint8_t *pixels;
    mbl_image_t *images;
    mbl_prompt_t *prompts;
    const mbl_prompt_t **asked;
    mbl_score_t *scores;
} request_t;

typedef struct {
    const char *const *names;
    mbl_scorer_pool_t **pools; /* [n], one for each */
    size_t n;
} scorers_t;

static void free_request(request_t *request) {
    for (size_t i = 0; request->prompts && i < request->n; i++)
        free(request->prompts[i].metadata);
    json_decref(request->head);
    mbl_free(request->images);
    mbl_free(request->prompts);
    mbl_free(request->asked);
    mbl_free(request->scores);
    mbl_free(request->pixels);
}

static mbl_status_t read_prompts(request_t *request) {
    const json_t *prompts = json_object_get(request->head, "prompts");
    const json_t *metadata = json_object_get(request->head, "metadata");
    request->n = json_array_size(prompts);
    if (request->n == 0 || request->n > IMAGES_MAX)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: prompts: expected a list of 1 to %d texts", where, IMAGES_MAX);
    if (metadata && json_array_size(metadata) != request->n)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: metadata: expected a list of %zu objects, as there are prompts",
                        where, request->n);
    MBL_ALLOC(request->prompts, request->n);
    MBL_ALLOC(request->asked, request->n);
    MBL_ALLOC(request->images, request->n);
    MBL_ALLOC(request->scores, request->n);
    for (size_t i = 0; i < request->n; i++) {
        const json_t *own = json_array_get(metadata, i);
        request->prompts[i].text = (char *)json_string_value(json_array_get(prompts, i));
        if (!request->prompts[i].text)
            return MBL_FAIL(MBL_ERR_CONFIG, "%s: prompts: expected texts", where);
        if (json_is_object(own) && !(request->prompts[i].metadata = json_dumps(own, JSON_COMPACT)))
            return MBL_FAIL(MBL_ERR_MEM, "no memory for metadata");
        request->asked[i] = &request->prompts[i];
    }
    return MBL_OK;
}

static mbl_status_t read_pixels(request_t *request) {
    MBL_TRY(mbl_json_size(request->head, where, "width", true, 1, SIDE_MAX, &request->width));
    MBL_TRY(mbl_json_size(request->head, where, "height", true, 1, SIDE_MAX, &request->height));
    size_t one = request->width * request->height * 3, all = one * request->n;
    if (all > BYTES_MAX)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %zu bytes of images; expected at most %d", where, all,
                        BYTES_MAX);
    MBL_ALLOC(request->pixels, all);
    size_t got = fread(request->pixels, 1, all, stdin);
    if (got < all)
        return MBL_FAIL(MBL_ERR_IO, "%s: ends after %zu bytes of images; expected %zu", where, got, all);
    for (size_t i = 0; i < request->n; i++)
        request->images[i] = (mbl_image_t){request->width, request->height, request->pixels + i * one};
    return MBL_OK;
}

/* *more: there is a request; false at the input's end. */
static mbl_status_t read_request(request_t *request, bool *more) {
    char *line = NULL;
    size_t room = 0;
    json_error_t error;
    ssize_t length = getline(&line, &room, stdin);
    *more = length > 0;
    if (*more)
        request->head = json_loadb(line, (size_t)length, 0, &error);
    free(line);
    if (!*more)
        return MBL_OK;
    if (!json_is_object(request->head))
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s; expected a line with a JSON object", where,
                        request->head ? "JSON of another kind" : error.text);
    MBL_TRY(mbl_json_string(request->head, where, "reward", true, &request->reward));
    MBL_TRY(read_prompts(request));
    return read_pixels(request);
}

/* A line: {"scores": [...]}, each a number, null where the reward does not apply, or why it failed. */
static mbl_status_t write_scores(const request_t *request, const mbl_scorer_pool_t *pool) {
    json_t *scores = json_array();
    for (size_t i = 0; i < request->n; i++) {
        const mbl_score_t *score = &request->scores[i];
        json_array_append_new(scores, score->state == MBL_SCORE_VALID ? json_real(score->value)
                                      : score->state == MBL_SCORE_NA
                                          ? json_null()
                                          : json_string(mbl_scorer_pool_failure(pool, 0)));
    }
    json_t *answer = json_pack("{s:o}", "scores", scores);
    char *text = json_dumps(answer, JSON_COMPACT);
    bool failed = !text || printf("%s\n", text) < 0 || fflush(stdout) != 0;
    free(text);
    json_decref(answer);
    return failed ? MBL_FAIL(MBL_ERR_IO, "standard output: %s", strerror(errno)) : MBL_OK;
}

static mbl_status_t answer(const scorers_t *scorers, const request_t *request) {
    for (size_t k = 0; k < scorers->n; k++)
        if (strcmp(scorers->names[k], request->reward) == 0) {
            MBL_TRY(mbl_scorer_pool_submit(scorers->pools[k], request->images, request->asked, request->n,
                                           request->scores));
            MBL_TRY(mbl_scorer_pool_wait(scorers->pools[k]));
            return write_scores(request, scorers->pools[k]);
        }
    return MBL_FAIL(MBL_ERR_CONFIG, "%s: reward: \"%.60s\"; expected one that was named on the command line",
                    where, request->reward);
}

static mbl_status_t open_scorer(const char *name, mbl_scorer_pool_t **pool) {
    const mbl_scorer_t *scorer = mbl_scorer_find(name);
    if (scorer && scorer->service)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "reward score: %s needs a run.yaml; expected a built-in scorer such as clean", name);
    mbl_reward_spec_t spec = {.name = name, .type = name, .weight = 1};
    return mbl_scorer_pool_open(&spec, 1, 1, NULL, pool);
}

mbl_status_t mbl_reward_score(const char *const *names, size_t n) {
    scorers_t scorers = {.names = names};
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(scorers.pools, n);
    for (; status == MBL_OK && scorers.n < n; scorers.n += status == MBL_OK)
        status = open_scorer(names[scorers.n], &scorers.pools[scorers.n]);
    mbl_log_set_level(MBL_LOG_ERROR); /* why a score failed stands in the answer */
    for (bool more = true; status == MBL_OK && more;) {
        request_t request = {.n = 0};
        status = read_request(&request, &more);
        if (status == MBL_OK && more)
            status = answer(&scorers, &request);
        free_request(&request);
    }
    for (size_t k = 0; k < scorers.n; k++)
        mbl_scorer_pool_close(scorers.pools[k]);
    mbl_free(scorers.pools);
    return status;
}
