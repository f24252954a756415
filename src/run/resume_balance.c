/* How the run of a checkpoint balanced its gradients, against how the run that goes on from it does. */
#include "run/resume.h"

#include "base/json.h"
#include "config/table.h"
#include "run/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char common_key[] = "balance.common";

static mbl_config_common_t common_of(const json_t *config) {
    const char *word = json_string_value(mbl_json_at(config, common_key)), *known;
    for (int i = 0; word && (known = mbl_config_word(common_key, i))[0]; i++)
        if (strcmp(word, known) == 0)
            return (mbl_config_common_t)i;
    return MBL_CONFIG_COMMON_TOGETHER; /* of before the key was there */
}

static bool has_min(const json_t *config) {
    const json_t *rewards = mbl_json_at(config, "rewards");
    for (size_t i = 0; i < json_array_size(rewards); i++)
        if (json_is_number(json_object_get(json_array_get(rewards, i), "min")))
            return true;
    return false;
}

/* That of step `step`, from 0; NULL for a run without stages. */
static const json_t *stage_of(const json_t *config, uint64_t step) {
    const json_t *stages = mbl_json_at(config, "stages"), *stage = NULL;
    uint64_t end = 0;
    for (size_t i = 0; i < json_array_size(stages) && step >= end; i++) {
        stage = json_array_get(stages, i);
        end += (uint64_t)json_integer_value(json_object_get(stage, "steps"));
    }
    return stage;
}

static mbl_method_t method_of(const json_t *config, const json_t *stage) {
    const json_t *own = json_object_get(stage, "method");
    mbl_method_t method = MBL_METHOD_MARBLE;
    const char *word = json_string_value(own ? own : mbl_json_at(config, "balance.method"));
    if (word)
        (void)mbl_method_find(word, &method);
    return method;
}

static void take_weights(const json_t *config, const json_t *stage, double *out) {
    const json_t *rewards = mbl_json_at(config, "rewards"), *names = json_object_get(stage, "rewards"),
                 *own = json_object_get(stage, "weights");
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++) {
        const json_t *reward = json_array_get(rewards, k), *weight = json_object_get(reward, "weight");
        for (size_t i = 0; i < json_array_size(own); i++)
            if (json_equal(json_array_get(names, i), json_object_get(reward, "name")))
                weight = json_array_get(own, i);
        out[k] = json_is_number(weight) ? json_number_value(weight) : NAN;
    }
}

/* Whether a reward that is trained has another weight now. */
static bool reweighted(const mbl_resume_balance_t *made, const mbl_stage_t *stage) {
    bool other = false;
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++)
        other |= stage->active[k] && !isnan(made->weights[k]) && stage->weights[k] != made->weights[k];
    return other;
}

mbl_resume_balance_t mbl_resume_balance(const char *old, uint64_t step) {
    json_t *was = json_loads(old, 0, NULL);
    const json_t *stage = stage_of(was, step > 0 ? step - 1 : 0);
    mbl_resume_balance_t made = {.word = common_of(was), .method = method_of(was, stage)};
    take_weights(was, stage, made.weights);
    made.common = mbl_config_common_by(made.word, has_min(was), made.method);
    json_decref(was);
    return made;
}

/* Whether another word of balance.common is another direction, under some method of the run. */
static bool differs_with(const mbl_config_t *config, mbl_config_common_t common) {
    mbl_config_t other = *config;
    other.balance.common = common;
    bool differs = mbl_config_common(config, config->balance.method) !=
                   mbl_config_common(&other, config->balance.method);
    for (size_t i = 0; i < config->stages.count; i++) {
        mbl_method_t method = config->stages.items[i].method;
        differs |= config->stages.items[i].has_method &&
                   mbl_config_common(config, method) != mbl_config_common(&other, method);
    }
    return differs;
}

bool mbl_resume_keeps_common(const mbl_config_t *config, const mbl_resume_balance_t *made) {
    if (made->word != MBL_CONFIG_COMMON_TOGETHER || mbl_config_line(config, common_key) != 0 ||
        !differs_with(config, made->word))
        return false;
    MBL_RECORD("balance.common: together, by which the checkpoint's run balanced its gradients; --set "
               "balance.common=auto changes it");
    return true;
}

/* "auto, which was offset with marble", or the word alone. */
static void describe(mbl_config_common_t word, mbl_common_t common, mbl_method_t method, const char *verb,
                     char *out, size_t size) {
    static const char *const words[] = {"together", "apart", "offset"};
    if (word == MBL_CONFIG_COMMON_AUTO)
        snprintf(out, size, "auto, which %s %s with %s", verb, words[common], mbl_method_name(method));
    else
        snprintf(out, size, "%s", words[common]);
}

mbl_status_t mbl_resume_rebalances(const mbl_config_t *config, const mbl_resume_balance_t *made,
                                   uint64_t step, bool *out) {
    char was[80], is[80];
    mbl_stage_t stage;
    MBL_TRY(mbl_stage_at(config, step, &stage));
    mbl_common_t common = mbl_config_common(config, stage.method);
    bool objective = mbl_method_has_objective(stage.method) || mbl_method_has_objective(made->method);
    bool other_method = stage.method != made->method, other_common = !objective && common != made->common;
    bool other_weights = !objective && mbl_method_solves(stage.method) && reweighted(made, &stage);
    *out = step > stage.first && (other_method || other_common || other_weights);
    if (other_common && (*out || made->word != config->balance.common)) { /* not where a stage begins */
        describe(made->word, made->common, made->method, "was", was, sizeof was);
        describe(config->balance.common, common, stage.method, "is", is, sizeof is);
        MBL_RECORD("on resume, balance.common changes from %s to %s", was, is);
    }
    if (*out)
        MBL_RECORD(
            "on resume, gradients are balanced in another way (%s): the average of alpha starts anew%s",
            other_method   ? "balance.method"
            : other_common ? common_key
                           : "weights of the rewards",
            mbl_method_has_objective(stage.method) ? "" : ", and the next step solves");
    return MBL_OK;
}
