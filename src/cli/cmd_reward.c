/* marble reward check: every reward of a run asked once, before a run depends on it. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/cmd_reward_show.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "data/signs/signs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char about[] =
    "Asks every reward of RUN.yaml for the scores of test images with the first held-out prompts, twice, "
    "and\n"
    "shows what answered, the scores, the speed, and what is wrong with the line of RUN.yaml to change. It\n"
    "needs no model. Exit code 1 if a reward is of no use.\n"
    "    marble reward check run.yaml\n"
    "    marble reward check run.yaml --images 64 --size 1024      # a real batch";

typedef struct {
    mbl_prompts_t prompts;
    mbl_image_t *images;
    const mbl_prompt_t **asked;
    size_t n;
} batch_t;

/* Sentences of the signs world become drawings; others black, white, a gradient and noise in turn. */
static mbl_status_t make_image(const mbl_prompt_t *prompt, size_t i, size_t size, mbl_image_t *out) {
    mbl_signs_scene_t scene;
    mbl_rng_t rng = mbl_rng(1, MBL_RNG_WORLD, 0, i);
    bool drawn = mbl_signs_parse(prompt->text, &scene);
    MBL_TRY(mbl_image_new(drawn ? MBL_SIGNS_SIZE : size, drawn ? MBL_SIGNS_SIZE : size, out));
    if (drawn) {
        mbl_signs_draw(&scene, &rng, out->rgb);
        return MBL_OK;
    }
    for (size_t j = 0; j < size * size * 3; j++)
        out->rgb[j] = (uint8_t)(i % 4 == 0   ? 0
                                : i % 4 == 1 ? 255
                                : i % 4 == 2 ? j / 3 % size * 255 / size
                                             : mbl_rng_below(&rng, 256));
    return MBL_OK;
}

static mbl_status_t make_batch(const mbl_config_t *config, size_t n, size_t size, batch_t *out) {
    const char *source = mbl_config_word("prompts.source", (int)config->prompts.source);
    MBL_TRY(mbl_prompts_load(source, config->prompts.test, config->seed, 1, n, &out->prompts));
    MBL_ALLOC(out->images, n);
    MBL_ALLOC(out->asked, n);
    for (; out->n < n; out->n++) {
        out->asked[out->n] = &out->prompts.items[out->n % out->prompts.count];
        MBL_TRY(make_image(out->asked[out->n], out->n, size, &out->images[out->n]));
    }
    return MBL_OK;
}

static void free_batch(batch_t *batch) {
    for (size_t i = 0; i < batch->n; i++)
        mbl_image_free(&batch->images[i]);
    mbl_free(batch->images);
    mbl_free(batch->asked);
    mbl_prompts_free(&batch->prompts);
}

/* The reason alone, without what the scorer pool says around it. */
static void keep_why(char *out, size_t size) {
    snprintf(out, size, "%s", mbl_fail_message());
    char *end = strstr(out, "; its on_failure is stop");
    if (end)
        *end = 0;
}

static void count_scores(const mbl_reward_spec_t *spec, const mbl_score_t *scores, size_t n,
                         mbl_reward_found_t *found) {
    found->low = INFINITY;
    found->high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        found->valid += scores[i].state == MBL_SCORE_VALID;
        found->na += scores[i].state == MBL_SCORE_NA;
        found->failed += scores[i].state == MBL_SCORE_FAILED;
        if (scores[i].state != MBL_SCORE_VALID)
            continue;
        found->low = fmin(found->low, scores[i].value);
        found->high = fmax(found->high, scores[i].value);
    }
    found->outside = mbl_scores_outside(spec, scores, n, 1);
}

/* Twice the same images: the second time counts for the speed, and the scores should be those of the first.
 */
static void ask(const batch_t *batch, mbl_scorer_pool_t *pool, const mbl_reward_spec_t *spec,
                mbl_score_t *scores, mbl_reward_found_t *found) {
    for (int round = 0; round < 2; round++) {
        mbl_score_t *own = scores + (size_t)round * batch->n;
        double start = mbl_now();
        mbl_status_t status = mbl_scorer_pool_submit(pool, batch->images, batch->asked, batch->n, own);
        mbl_status_t scored = mbl_scorer_pool_wait(pool);
        if (status != MBL_OK || scored != MBL_OK)
            keep_why(found->why, sizeof found->why);
        found->seconds[round] = mbl_now() - start;
    }
    count_scores(spec, scores, batch->n, found);
    for (size_t i = 0; i < batch->n; i++) {
        const mbl_score_t *first = &scores[i], *second = &scores[batch->n + i];
        if (first->state == MBL_SCORE_VALID && second->state == MBL_SCORE_VALID)
            found->drift = fmax(found->drift, fabs(first->value - second->value));
    }
}

static mbl_status_t check_one(const mbl_config_t *config, const batch_t *batch, size_t k,
                              mbl_reward_found_t *out) {
    mbl_reward_spec_t spec = config->rewards.items[k];
    mbl_scorer_pool_t *pool = NULL;
    mbl_score_t *scores;
    MBL_ALLOC(scores, 2 * batch->n);
    spec.on_failure = MBL_ON_FAILURE_STOP; /* whose message says why */
    mbl_log_set_level(MBL_LOG_OFF);
    double start = mbl_now();
    out->status = mbl_scorer_pool_open(&spec, 1, 1, &pool);
    out->start = mbl_now() - start;
    if (out->status != MBL_OK)
        keep_why(out->why, sizeof out->why);
    else
        ask(batch, pool, &spec, scores, out);
    if (pool)
        mbl_reward_keep_replicas(pool, out);
    mbl_scorer_pool_close(pool);
    mbl_log_set_level(config->log.level);
    mbl_free(scores);
    return MBL_OK;
}

static mbl_status_t check(const mbl_config_t *config, const batch_t *batch) {
    size_t bad = 0;
    for (size_t k = 0; k < config->rewards.count; k++) {
        mbl_reward_found_t found = {.status = MBL_OK};
        MBL_TRY(check_one(config, batch, k, &found));
        bad += mbl_reward_show(config, k, batch->n, &found);
    }
    if (bad > 0)
        return MBL_FAIL(MBL_ERR_REWARD, "%zu of %zu rewards are of no use; see above", bad,
                        config->rewards.count);
    return MBL_OK;
}

static mbl_status_t check_rewards(const mbl_config_t *config, size_t ranks) {
    (void)ranks;
    return mbl_config_check_rewards(config);
}

int mbl_cmd_reward(int argc, char **argv) {
    bool helped = false;
    size_t images = 8, size = 512;
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    batch_t batch = {.n = 0};
    mbl_run_t run = {NULL, NULL};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE", "overrides a key of RUN.yaml", 0, 0, 0, NULL},
        {"images", MBL_ARG_COUNT, &images, "N", "test images", 0, 1, 4096, NULL},
        {"size", MBL_ARG_COUNT, &size, "N", "their side, where the prompts are not of the signs example", 0,
         1, 4096, NULL}};
    const mbl_args_t spec = {"reward", "check RUN.yaml", about, args, sizeof args / sizeof *args, 2, 2};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    if (strcmp(rest.items[0], "check") != 0)
        status =
            MBL_FAIL(MBL_ERR_USAGE, "reward: \"%.60s\"; expected check, as in marble reward check run.yaml",
                     rest.items[0]);
    if (status == MBL_OK)
        status = mbl_run_open(rest.items[1], &sets, check_rewards, &run);
    if (status == MBL_OK && run.config->rewards.count == 0)
        status = MBL_FAIL(MBL_ERR_CONFIG, "%s: has no rewards; expected a list such as [{name: ocr}]",
                          rest.items[1]);
    if (status == MBL_OK)
        status = make_batch(run.config, images, size, &batch);
    if (status == MBL_OK)
        status = check(run.config, &batch);
    free_batch(&batch);
    mbl_free(rest.items);
    mbl_free(sets.items);
    return run.comm ? mbl_run_close(&run, status) : mbl_status_exit_code(status);
}
