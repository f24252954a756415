/* How the run of a checkpoint balanced its gradients, against how the run that goes on from it does. */
#include "run/resume.h"

#include "base/json.h"
#include "config/table.h"
#include "run/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char common_key[] = "balance.common";

static double number_of(const json_t *config, const char *key) {
    const json_t *value = mbl_json_at(config, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* The word of a key that not every checkpoint has; else `before`, of before the key was there. */
static int word_of(const json_t *config, const char *key, int before) {
    const char *word = json_string_value(mbl_json_at(config, key)), *known;
    for (int i = 0; word && (known = mbl_config_word(key, i))[0]; i++)
        if (strcmp(word, known) == 0)
            return i;
    return before;
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

/* What else a solution follows from. */
static void take_solving(const json_t *config, mbl_resume_balance_t *out) {
    const json_t *rewards = mbl_json_at(config, "rewards");
    const int kl = word_of(config, "balance.kl", -1);
    out->kl = kl < 0 ? NAN : kl == MBL_CONFIG_KL_APART ? 0 : number_of(config, "train.kl");
    out->floor = number_of(config, "balance.floor");
    out->cagrad_c = number_of(config, "balance.cagrad_c");
    out->shrink = word_of(config, "balance.shrink", MBL_SHRINK_OFF);
    out->guard = word_of(config, "balance.guard", MBL_CONFIG_GUARD_OFF);
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++)
        out->min[k] = number_of(json_array_get(rewards, k), "min");
}

/* Whether a reward that is trained has another weight now. */
static bool reweighted(const mbl_resume_balance_t *made, const mbl_stage_t *stage) {
    bool other = false;
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++)
        other |= stage->active[k] && !isnan(made->weights[k]) && stage->weights[k] != made->weights[k];
    return other;
}

/* Where a checkpoint does not know a number, it is taken to be as now. */
static bool differ(double made, double now) {
    return !isnan(made) && made != now;
}

/* The first key by which solutions differ from the checkpoint's; NULL where none does. */
static const char *resolved(const mbl_resume_balance_t *made, const mbl_stage_t *stage,
                            const mbl_config_t *config) {
    bool limits = false;
    for (size_t k = 0; k < config->rewards.count; k++)
        limits |= isnan(made->min[k]) != isnan(config->rewards.items[k].min) ||
                  differ(made->min[k], config->rewards.items[k].min);
    if (reweighted(made, stage))
        return "weights of the rewards";
    if (limits)
        return "min of a reward";
    if (differ(made->kl, config->balance.kl == MBL_CONFIG_KL_APART ? 0 : config->train.kl))
        return "balance.kl";
    if (made->shrink != (int)config->balance.shrink)
        return "balance.shrink";
    if (made->guard != (int)config->balance.guard)
        return "balance.guard";
    if (mbl_method_is(stage->method, MBL_METHOD_FLOOR) && differ(made->floor, config->balance.floor))
        return "balance.floor";
    if (stage->method == MBL_METHOD_CAGRAD && differ(made->cagrad_c, config->balance.cagrad_c))
        return "balance.cagrad_c";
    return NULL;
}

mbl_resume_balance_t mbl_resume_balance(const char *old, uint64_t step) {
    json_t *was = json_loads(old, 0, NULL);
    const json_t *stage = stage_of(was, step > 0 ? step - 1 : 0);
    mbl_resume_balance_t made = {
        .word = (mbl_config_common_t)word_of(was, common_key, MBL_CONFIG_COMMON_TOGETHER),
        .method = method_of(was, stage)};
    take_weights(was, stage, made.weights);
    take_solving(was, &made);
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
    const char *other = !objective && mbl_method_solves(stage.method) ? resolved(made, &stage, config) : NULL;
    *out = step > stage.first && (other_method || other_common || other);
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
                           : other,
            mbl_method_has_objective(stage.method) ? "" : ", and the next step solves");
    return MBL_OK;
}
