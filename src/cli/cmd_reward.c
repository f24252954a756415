/* marble reward check: every reward of a run asked once, before a run depends on it; and score. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/cmd_reward_score.h"
#include "cli/cmd_reward_show.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "data/signs/signs.h"
#include "reward/applies.h"
#include "reward/service.h"
#include "rl/types.h"
#include "run/prompt_report.h"
#include "run/prompt_set.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char about[] =
    "Asks every reward of RUN.yaml for the scores of test images with the first held-out prompts, and one\n"
    "more that it applies to where those are none, twice (once if nothing gets a score), and shows what\n"
    "answered, the scores, the speed, and what is wrong with the line of RUN.yaml to change. It needs no\n"
    "model. Exit code 1 if a reward is of no use, 2 if its keys are wrong.\n"
    "    marble reward check run.yaml\n"
    "    marble reward check run.yaml --images 64 --size 1024      # a real batch\n"
    "score answers for built-in scorers through a pipe, for programs in other languages, until its input "
    "ends:\n"
    "a line {\"reward\": NAME, \"width\": W, \"height\": H, \"prompts\": [N texts]} and N * H * W * 3 bytes "
    "of RGB "
    "in,\n"
    "a line {\"scores\": [N]} out: numbers, null where the scorer does not apply, or a text why it failed.\n"
    "    marble reward score ocr count color clean jpeg";

typedef struct {
    mbl_prompts_t prompts, train; /* held out; the others, where a reward is about some prompts only */
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

static bool any_for(const mbl_applies_t *applies, const mbl_prompt_t *const *asked, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (mbl_applies_to(applies, asked[i]))
            return true;
    return false;
}

/* A reward that applies to none of them is asked about one more that it applies to, held out or else not;
 * asked has room for one a reward behind its *n. */
static mbl_status_t include_all(const mbl_config_t *config, const batch_t *batch, size_t *n) {
    const mbl_prompts_t *sets[] = {&batch->prompts, &batch->train};
    for (size_t k = 0; k < config->rewards.count; k++) {
        mbl_applies_t *applies;
        if (!config->rewards.items[k].applies_to)
            continue;
        MBL_TRY(mbl_applies_open(config->rewards.items[k].applies_to, &applies));
        bool found = any_for(applies, batch->asked, *n);
        for (int s = 0; s < 2; s++)
            for (size_t i = 0; i < sets[s]->count && !found; i++)
                if (mbl_applies_to(applies, &sets[s]->items[i])) {
                    batch->asked[(*n)++] = &sets[s]->items[i];
                    found = true;
                }
        mbl_applies_close(applies);
    }
    return MBL_OK;
}

static mbl_status_t make_batch(const mbl_config_t *config, size_t n, size_t size, batch_t *out) {
    MBL_TRY(mbl_prompt_set_load(config, 1, &out->prompts));
    for (size_t k = 0; k < config->rewards.count && !out->train.items; k++)
        if (config->rewards.items[k].applies_to)
            MBL_TRY(mbl_prompt_set_load(config, 0, &out->train));
    MBL_ALLOC(out->images, n + config->rewards.count);
    MBL_ALLOC(out->asked, n + config->rewards.count);
    for (size_t i = 0; i < n; i++)
        out->asked[i] = &out->prompts.items[i % out->prompts.count];
    MBL_TRY(include_all(config, out, &n));
    for (; out->n < n; out->n++)
        MBL_TRY(make_image(out->asked[out->n], out->n, size, &out->images[out->n]));
    return MBL_OK;
}

static void free_batch(batch_t *batch) {
    for (size_t i = 0; i < batch->n; i++)
        mbl_image_free(&batch->images[i]);
    mbl_free(batch->images);
    mbl_free(batch->asked);
    mbl_prompts_free(&batch->prompts);
    mbl_prompts_free(&batch->train);
}

/* Of reward j of m; scores are of two rounds [2, n, m]. */
static void count_scores(const mbl_reward_spec_t *spec, const mbl_score_t *scores, size_t n, size_t m,
                         size_t j, mbl_reward_found_t *found) {
    found->low = INFINITY;
    found->high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        const mbl_score_t *first = &scores[i * m + j], *second = &scores[(n + i) * m + j];
        bool failed = first->state == MBL_SCORE_FAILED || second->state == MBL_SCORE_FAILED;
        found->failed += failed;
        found->valid += !failed && first->state == MBL_SCORE_VALID;
        found->na += !failed && first->state == MBL_SCORE_NA;
        found->changed += !failed && first->state != second->state;
        if (first->state != MBL_SCORE_VALID)
            continue;
        found->low = fmin(found->low, first->value);
        found->high = fmax(found->high, first->value);
        if (second->state == MBL_SCORE_VALID)
            found->drift = fmax(found->drift, fabs(first->value - second->value));
    }
    found->outside = mbl_scores_outside(spec, scores + j, n, m);
}

/* Whether all of them failed. */
static bool all_failed(const mbl_score_t *scores, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (scores[i].state != MBL_SCORE_FAILED)
            return false;
    return true;
}

/* Twice the same images: the second time counts for the speed, and the scores should be those of the first.
 * Once, where it gave no score: failing may take long. */
static void ask(const batch_t *batch, mbl_scorer_pool_t *pool, const mbl_reward_spec_t *specs, size_t m,
                mbl_score_t *scores, mbl_reward_found_t *found) {
    for (size_t round = 0; round < 2; round++) {
        if (round == 1 && all_failed(scores, batch->n * m)) {
            memcpy(scores + batch->n * m, scores, batch->n * m * sizeof *scores);
            for (size_t j = 0; j < m; j++)
                found[j].seconds[1] = found[j].seconds[0];
            break;
        }
        double start = mbl_now();
        mbl_status_t status = mbl_scorer_pool_submit(pool, batch->images, batch->asked, batch->n,
                                                     scores + round * batch->n * m);
        mbl_status_t scored = mbl_scorer_pool_wait(pool);
        for (size_t j = 0; j < m; j++) {
            if (status != MBL_OK || scored != MBL_OK)
                snprintf(found[j].why, sizeof found[j].why, "%s", mbl_fail_message());
            found[j].seconds[round] = mbl_now() - start;
        }
    }
    for (size_t j = 0; j < m; j++) {
        count_scores(&specs[j], scores, batch->n, m, j, &found[j]);
        if (found[j].failed > 0)
            snprintf(found[j].why, sizeof found[j].why, "%s", mbl_scorer_pool_failure(pool, j));
    }
}

/* Rewards [m] that share calls, or one. `warns`: what opening them warns of is shown, as a run would. */
static mbl_status_t check_some(const mbl_config_t *config, const batch_t *batch,
                               const mbl_reward_spec_t *specs, size_t m, bool warns,
                               mbl_reward_found_t *found) {
    mbl_scorer_pool_t *pool = NULL;
    mbl_score_t *scores;
    MBL_ALLOC(scores, 2 * batch->n * m);
    mbl_log_set_level(!warns                             ? MBL_LOG_OFF
                      : config->log.level > MBL_LOG_WARN ? config->log.level
                                                         : MBL_LOG_WARN);
    double start = mbl_now();
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_scorer_pool_open(specs, m, 1, NULL, &pool);
    mbl_fail_quiet(0);
    mbl_log_set_level(strcmp(specs[0].type, "python") == 0 ? MBL_LOG_INFO : MBL_LOG_OFF); /* what it prints */
    for (size_t j = 0; j < m; j++) {
        found[j].status = status;
        found[j].start = mbl_now() - start;
        if (status != MBL_OK)
            snprintf(found[j].why, sizeof found[j].why, "%s", mbl_fail_message());
    }
    if (status == MBL_OK)
        ask(batch, pool, specs, m, scores, found);
    for (size_t j = 0; pool && j < m; j++)
        mbl_reward_keep_replicas(pool, j, &found[j]);
    mbl_scorer_pool_close(pool);
    mbl_log_set_level(config->log.level);
    mbl_free(scores);
    return MBL_OK;
}

static bool share_calls(const mbl_reward_spec_t *a, const mbl_reward_spec_t *b) {
    const mbl_scorer_t *one = mbl_scorer_find(a->type), *other = mbl_scorer_find(b->type);
    return one && one == other && one->service && one->service->joins(a, b);
}

/* Reward k with those behind it that share its calls, all of which are asked at once, as in a run. Where that
 * fails, each on its own: what is wrong may be wrong with one of them only. */
static mbl_status_t check_from(const mbl_config_t *config, const batch_t *batch, size_t k, size_t *with,
                               mbl_reward_found_t *found) {
    mbl_reward_spec_t specs[MBL_MAX_REWARDS];
    size_t at[MBL_MAX_REWARDS], m = 0;
    mbl_reward_found_t *own;
    for (size_t i = k; i < config->rewards.count; i++)
        if (i == k ||
            (with[i] == SIZE_MAX && share_calls(&config->rewards.items[k], &config->rewards.items[i]))) {
            specs[m] = config->rewards.items[i];
            specs[m].on_failure = MBL_ON_FAILURE_SKIP;
            with[i] = k;
            at[m++] = i;
        }
    MBL_ALLOC(own, m);
    mbl_status_t status = check_some(config, batch, specs, m, true, own);
    for (size_t j = 0; status == MBL_OK && m > 1 && own[0].status != MBL_OK && j < m; j++) {
        own[j] = (mbl_reward_found_t){.status = MBL_OK};
        with[at[j]] = at[j];
        status = check_some(config, batch, &specs[j], 1, false, &own[j]);
    }
    for (size_t j = 0; j < m; j++)
        found[at[j]] = own[j];
    mbl_free(own);
    return status;
}

/* What a run refuses of a reward for its prompts, as what was found about it. */
static void check_prompts(const mbl_config_t *config, const batch_t *batch, size_t k,
                          mbl_reward_found_t *found) {
    if (found->status == MBL_OK &&
        mbl_prompt_report_lacks_key(config, k, &batch->train, &batch->prompts, found->why, sizeof found->why))
        found->status = MBL_ERR_CONFIG;
}

static mbl_status_t check(const mbl_config_t *config, const batch_t *batch) {
    size_t bad = 0, count = config->rewards.count, with[MBL_MAX_REWARDS];
    bool keys = false; /* are wrong */
    mbl_reward_found_t *found;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(found, count);
    for (size_t k = 0; k < count; k++)
        with[k] = SIZE_MAX;
    for (size_t k = 0; status == MBL_OK && k < count; k++) {
        if (with[k] == SIZE_MAX)
            status = check_from(config, batch, k, with, found);
        check_prompts(config, batch, k, &found[k]);
        if (status == MBL_OK)
            bad += mbl_reward_show(config, k, with[k], batch->n, &found[k]);
        keys |= found[k].status == MBL_ERR_CONFIG;
    }
    mbl_free(found);
    MBL_TRY(status);
    if (bad > 0)
        return MBL_FAIL(keys ? MBL_ERR_CONFIG : MBL_ERR_REWARD, "%zu of %zu rewards are of no use; see above",
                        bad, count);
    return MBL_OK;
}

static mbl_status_t check_rewards(const mbl_config_t *config, size_t ranks) {
    (void)ranks;
    return mbl_config_check_rewards(config);
}

static mbl_status_t check_command(const mbl_arg_texts_t *rest, const mbl_arg_texts_t *sets, size_t images,
                                  size_t size, mbl_run_t *run) {
    batch_t batch = {.n = 0};
    if (rest->count != 2)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "reward check: %zu files; expected one, as in marble reward check run.yaml",
                        rest->count - 1);
    MBL_TRY(mbl_run_open(rest->items[1], sets, check_rewards, run));
    if (run->config->rewards.count == 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: has no rewards; expected a list such as [{name: ocr}]",
                        rest->items[1]);
    mbl_status_t status = make_batch(run->config, images, size, &batch);
    if (status == MBL_OK)
        status = check(run->config, &batch);
    free_batch(&batch);
    return status;
}

int mbl_cmd_reward(int argc, char **argv) {
    bool helped = false;
    size_t images = 8, size = 512;
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    mbl_run_t run = {NULL, NULL};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE", "check: overrides a key of RUN.yaml", 0, 0, 0, NULL},
        {"images", MBL_ARG_COUNT, &images, "N", "check: test images", 0, 1, 4096, NULL},
        {"size", MBL_ARG_COUNT, &size, "N",
         "check: their side, where the prompts are not of the signs example", 0, 1, 4096, NULL}};
    const mbl_args_t spec = {
        "reward",           "check RUN.yaml | score SCORER...", about, args, sizeof args / sizeof *args, 2,
        1 + MBL_MAX_REWARDS};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    if (strcmp(rest.items[0], "check") == 0)
        status = check_command(&rest, &sets, images, size, &run);
    else if (strcmp(rest.items[0], "score") == 0)
        status = mbl_reward_score(rest.items + 1, rest.count - 1);
    else
        status = MBL_FAIL(MBL_ERR_USAGE,
                          "reward: \"%.60s\"; expected check or score, as in marble reward check run.yaml",
                          rest.items[0]);
    mbl_free(rest.items);
    mbl_free(sets.items);
    return run.comm ? mbl_run_close(&run, status) : mbl_status_exit_code(status);
}
