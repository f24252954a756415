/* What the method of a run, or of each of its stages, goes together with. */
#include "config/table.h"

#include "rl/balance.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A method that the run uses, where it first does. */
typedef struct {
    mbl_method_t method;
    size_t first;  /* step, from 0 */
    char text[80]; /* "balance.method: marble" or "stages.1.method: marble" */
} used_t;

bool mbl_config_limited(const mbl_config_t *config) {
    for (size_t i = 0; i < config->rewards.count; i++)
        if (!isnan(config->rewards.items[i].min))
            return true;
    return false;
}

mbl_common_t mbl_config_common_by(mbl_config_common_t word, bool limited, mbl_method_t method) {
    switch (word) {
    case MBL_CONFIG_COMMON_TOGETHER:
        return MBL_COMMON_TOGETHER;
    case MBL_CONFIG_COMMON_APART:
        return MBL_COMMON_APART;
    case MBL_CONFIG_COMMON_OFFSET:
        return MBL_COMMON_OFFSET;
    default:
        return mbl_method_is(method, MBL_METHOD_OFFSET) && !limited ? MBL_COMMON_OFFSET : MBL_COMMON_TOGETHER;
    }
}

mbl_common_t mbl_config_common(const mbl_config_t *config, mbl_method_t method) {
    return mbl_config_common_by(config->balance.common, mbl_config_limited(config), method);
}

int mbl_config_line(const mbl_config_t *config, const char *key) {
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n), *field = mbl_config_field(key);
    return field ? config->origin->lines[field - fields] : 0;
}

static void check_groups(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    for (size_t i = 0; i < config->rewards.count && mbl_method_has_objective(used->method); i++)
        if (config->rewards.items[i].group)
            mbl_config_problem(problems, config->origin->reward_lines[i],
                               "rewards.%zu.group: %s with %s, which adds all rewards up; "
                               "expected no group, or a method with one gradient per reward",
                               i, config->rewards.items[i].group, used->text);
}

/* Whether it finds weights for a whole step from the step's Gram matrix. */
static bool solves_once(mbl_method_t method) {
    return mbl_method_solves(method) && !mbl_method_is(method, MBL_METHOD_MICRO_BATCHES);
}

/* Equal weights come before those of a solve. */
static void check_warmup(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    if (config->balance.warmup > used->first && !solves_once(used->method))
        mbl_config_problem(problems, mbl_config_line(config, "balance.warmup"),
                           "balance.warmup: %zu with %s, which has no first solve to wait "
                           "for; expected 0, or a method that solves, such as marble",
                           config->balance.warmup, used->text);
}

/* A floor is a bound of the quadratic program, which only marble and marble_reference solve. */
static void check_floor(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    if (config->balance.floor > 0 && !mbl_method_is(used->method, MBL_METHOD_FLOOR))
        mbl_config_problem(problems, mbl_config_line(config, "balance.floor"),
                           "balance.floor: %g with %s, which has no least alpha; expected "
                           "balance.floor: 0 or balance.method: marble or marble_reference",
                           config->balance.floor, used->text);
}

/* Of the rewards of a stage, those that are balanced by themselves: a group counts once. */
static size_t count_objectives(const mbl_config_t *config, const mbl_config_stage_t *stage) {
    size_t n = 0, of[MBL_MAX_REWARDS];
    bool seen[MBL_MAX_REWARDS] = {false};
    mbl_config_objectives(config, of);
    for (size_t k = 0; k < config->rewards.count; k++) {
        bool there = !stage && config->rewards.items[k].use != MBL_REWARD_MONITOR;
        for (size_t i = 0; stage && i < stage->rewards.count; i++)
            there |= strcmp(stage->rewards.items[i], config->rewards.items[k].name) == 0;
        n += there && !seen[of[k]];
        seen[of[k]] |= there;
    }
    return n;
}

/* There is an alpha of sum 1 with the floor in the stage that balances the most, or in the run. */
static void check_room(const mbl_config_t *config, mbl_config_problems_t *problems) {
    const mbl_config_stage_t *stages = config->stages.items;
    size_t most = config->stages.count ? 0 : count_objectives(config, NULL), at = 0;
    char where[40] = "";
    for (size_t i = 0; i < config->stages.count; i++) {
        size_t n = count_objectives(config, &stages[i]);
        at = n > most ? i : at;
        most = n > most ? n : most;
    }
    if (!(config->balance.floor * (double)most > 1))
        return;
    if (config->stages.count)
        snprintf(where, sizeof where, " of stages.%zu", at);
    mbl_config_problem(problems, mbl_config_line(config, "balance.floor"),
                       "balance.floor: %g with %zu %s%s; expected at most 1 / %zu", config->balance.floor,
                       most, most == config->rewards.count ? "rewards" : "objectives", where, most);
}

/* What the released code has no word for. */
static void check_reference(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    const struct {
        const char *key, *need;
        bool wrong;
    } keys[] = {
        {"balance.gram_fraction", "1: it solves on one micro-batch", config->balance.gram_fraction < 1},
        {"balance.on_refresh", "raw: the micro-batch that it solves on uses the solution",
         config->balance.on_refresh != MBL_CONFIG_ON_REFRESH_RAW},
        {"balance.common", "together", mbl_config_common(config, used->method) != MBL_COMMON_TOGETHER},
        {"balance.kl", "apart", config->balance.kl != MBL_CONFIG_KL_APART},
        {"train.kl_fraction", "1", config->train.kl_fraction < 1},
        {"train.micro_batch", "a number: it solves on one micro-batch",
         config->train.micro_batch == MBL_CONFIG_AUTO},
        {"stages", "no stages", config->stages.count > 0}};
    for (size_t i = 0;
         mbl_method_is(used->method, MBL_METHOD_MICRO_BATCHES) && i < sizeof keys / sizeof *keys; i++)
        if (keys[i].wrong)
            mbl_config_problem(problems, mbl_config_line(config, keys[i].key), "%s: not with %s; expected %s",
                               keys[i].key, used->text, keys[i].need);
}

/* A common part that is added once goes with gradients of the rewards; to allow for it, with marble. */
static void check_common(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    const char *word = mbl_config_word("balance.common", (int)config->balance.common), *need = NULL;
    mbl_common_t common = mbl_config_common(config, used->method);
    if (common == MBL_COMMON_TOGETHER || mbl_method_is(used->method, MBL_METHOD_MICRO_BATCHES))
        return;
    if (mbl_method_has_objective(used->method))
        need = "a method with one gradient per reward, such as marble";
    else if (common == MBL_COMMON_OFFSET && !mbl_method_is(used->method, MBL_METHOD_OFFSET))
        need = "balance.method: marble";
    if (need)
        mbl_config_problem(problems, mbl_config_line(config, "balance.common"),
                           "balance.common: %s with %s; expected balance.common: auto, or %s", word,
                           used->text, need);
}

/* The first key by which not every step applies its own solution, as "balance.refresh_every: 10"; false where
 * none does, which leaves `out`. */
static bool find_cached(const mbl_config_t *config, char *out, size_t size) {
    if (config->balance.refresh_every != 1)
        snprintf(out, size, "balance.refresh_every: %zu", config->balance.refresh_every);
    else if (config->balance.on_refresh != MBL_CONFIG_ON_REFRESH_RAW)
        snprintf(out, size, "balance.on_refresh: smooth");
    else
        return false;
    return true;
}

/* The same of keys by which not every step forms all gradients. */
static bool find_partial(const mbl_config_t *config, char *out, size_t size) {
    if (!(config->balance.gram_fraction < 1))
        return find_cached(config, out, size);
    snprintf(out, size, "balance.gram_fraction: %g", config->balance.gram_fraction);
    return true;
}

/* The first limit, as "rewards.1.min: 0.8"; false where there is none, which leaves `out`. */
static bool find_min(const mbl_config_t *config, char *out, size_t size) {
    for (size_t i = 0; i < config->rewards.count; i++)
        if (!isnan(config->rewards.items[i].min)) {
            snprintf(out, size, "rewards.%zu.min: %g", i, config->rewards.items[i].min);
            return true;
        }
    return false;
}

/* Weights of the own parts that differ from those of the common ones go with steps that form all gradients.
 */
static void check_guard(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    const mbl_config_guard_t guard = config->balance.guard;
    const char *need = NULL;
    char found[120];
    if (guard == MBL_CONFIG_GUARD_OFF)
        return;
    snprintf(found, sizeof found, "%s", used->text);
    if (!solves_once(used->method))
        need = "a method that solves on all rows, such as marble";
    else if (find_partial(config, found, sizeof found))
        need = "balance.refresh_every: 1, balance.gram_fraction: 1 and balance.on_refresh: raw";
    else if (config->balance.shrink != MBL_SHRINK_OFF) {
        need = "balance.shrink: off";
        snprintf(found, sizeof found, "balance.shrink: %s",
                 mbl_config_word("balance.shrink", (int)config->balance.shrink));
    } else if (find_min(config, found, sizeof found))
        need = "no reward with a min";
    if (need)
        mbl_config_problem(problems, mbl_config_line(config, "balance.guard"),
                           "balance.guard: %s with %s; expected balance.guard: off, or %s",
                           mbl_config_word("balance.guard", (int)guard), found, need);
}

/* What only means something where alpha is solved for. */
static void check_solving(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    bool solves = solves_once(used->method);
    const char *need = !solves ? "a method that solves on all rows, such as marble," : NULL;
    char found[120];
    snprintf(found, sizeof found, "%s", used->text);
    if (!need && find_min(config, found, sizeof found))
        need = "no reward with a min";
    if (config->balance.shrink != MBL_SHRINK_OFF && need)
        mbl_config_problem(problems, mbl_config_line(config, "balance.shrink"),
                           "balance.shrink: %s with %s; expected %s with it, or off",
                           mbl_config_word("balance.shrink", (int)config->balance.shrink), found, need);
    if (config->balance.alpha_halves > 0 && !solves)
        mbl_config_problem(problems, mbl_config_line(config, "balance.alpha_halves"),
                           "balance.alpha_halves: %zu with %s, which does not solve for "
                           "alpha on all rows; expected 0, or a method such as marble",
                           config->balance.alpha_halves, used->text);
}

/* Two halves of a step's prompts, which share no image. */
static void check_halves(const mbl_config_t *config, mbl_config_problems_t *problems) {
    const struct {
        const char *key;
        bool set;
    } keys[] = {{"balance.shrink", config->balance.shrink != MBL_SHRINK_OFF},
                {"balance.alpha_halves", config->balance.alpha_halves > 0}};
    for (size_t i = 0; config->prompts.groups < 2 && i < sizeof keys / sizeof *keys; i++)
        if (keys[i].set)
            mbl_config_problem(problems, mbl_config_line(config, "prompts.groups"),
                               "prompts.groups: %zu with %s, which compares two halves of a step's groups; "
                               "expected at least 2 groups with it",
                               config->prompts.groups, keys[i].key);
}

/* Rewards with a min go with methods that find a direction afresh at every step from all gradients: what they
 * go with instead of what `found` says, or NULL where all goes together. */
static const char *needed_by_min(const mbl_config_t *config, const used_t *used, size_t count, char *found,
                                 size_t size) {
    const mbl_common_t common = mbl_config_common(config, used->method);
    snprintf(found, size, "stages");
    if (config->stages.count > 0)
        return "no stages";
    snprintf(found, size, "%s", used->text);
    if (mbl_method_has_objective(used->method) || mbl_method_is(used->method, MBL_METHOD_MICRO_BATCHES))
        return "a balance.method with one gradient per reward, such as marble,";
    snprintf(found, size, "balance.common: %s", common == MBL_COMMON_APART ? "apart" : "offset");
    if (common != MBL_COMMON_TOGETHER)
        return "balance.common: together, or auto,";
    if (find_cached(config, found, size))
        return "balance.refresh_every: 1 and on_refresh: raw (gram_fraction costs as little)";
    for (size_t i = 0; i < config->rewards.count; i++)
        if (config->rewards.items[i].group && !isnan(config->rewards.items[i].min)) {
            snprintf(found, size, "rewards.%zu.group: %.40s", i, config->rewards.items[i].group);
            return "no group";
        }
    snprintf(found, size, "a min of every reward");
    return count == config->rewards.count ? "at least one reward without a min, to be improved," : NULL;
}

static void check_constraints(const mbl_config_t *config, const used_t *used,
                              mbl_config_problems_t *problems) {
    size_t first = config->rewards.count, count = 0;
    char found[120];
    for (size_t i = config->rewards.count; i > 0; i--)
        if (!isnan(config->rewards.items[i - 1].min)) {
            first = i - 1;
            count++;
        }
    const char *need = count ? needed_by_min(config, used, count, found, sizeof found) : NULL;
    if (need)
        mbl_config_problem(problems, config->origin->reward_lines[first],
                           "rewards.%zu.min: %g with %s; expected %s with it", first,
                           config->rewards.items[first].min, found, need);
}

static void check_method(const mbl_config_t *config, const used_t *used, mbl_config_problems_t *problems) {
    check_groups(config, used, problems);
    check_warmup(config, used, problems);
    check_floor(config, used, problems);
    check_reference(config, used, problems);
    check_common(config, used, problems);
    check_guard(config, used, problems);
    check_solving(config, used, problems);
}

/* The method of a stage (0: of a run without stages, too). */
static used_t method_of(const mbl_config_t *config, size_t at) {
    used_t used = {.first = 0};
    const mbl_config_stage_t *stages = config->stages.items;
    bool own = config->stages.count > 0 && stages[at].has_method;
    for (size_t i = 0; i < at; i++)
        used.first += stages[i].steps;
    used.method = own ? stages[at].method : config->balance.method;
    const char *word = mbl_method_name(used.method);
    if (own)
        snprintf(used.text, sizeof used.text, "stages.%zu.method: %.40s", at, word);
    else
        snprintf(used.text, sizeof used.text, "balance.method: %.40s", word);
    return used;
}

void mbl_config_check_methods(const mbl_config_t *config, mbl_config_problems_t *problems) {
    size_t n = config->stages.count ? config->stages.count : 1;
    unsigned methods = 0;
    for (size_t i = 0; i < n; i++) {
        used_t used = method_of(config, i);
        bool seen = false;
        methods |= 1U << used.method;
        for (size_t j = 0; j < i && !seen; j++) /* its problems were reported there */
            seen = method_of(config, j).method == used.method;
        if (!seen)
            check_method(config, &used, problems);
        if (i == 0)
            check_constraints(config, &used, problems);
    }
    check_room(config, problems);
    check_halves(config, problems);
    mbl_config_check_known(config, methods, problems);
}

bool mbl_config_common_text(const mbl_config_t *config, char *out, size_t size) {
    size_t n = config->stages.count ? config->stages.count : 1, used = 0;
    out[0] = 0;
    for (size_t i = 0; i < n && config->balance.common == MBL_CONFIG_COMMON_AUTO; i++) {
        mbl_method_t method = method_of(config, i).method;
        bool seen = mbl_method_has_objective(method);
        for (size_t j = 0; j < i; j++)
            seen |= method_of(config, j).method == method;
        if (seen || used >= size)
            continue;
        int together = mbl_config_common(config, method) == MBL_COMMON_TOGETHER;
        used += (size_t)snprintf(out + used, size - used, "%s%s with %s", used ? ", " : "",
                                 together ? "together" : "offset", mbl_method_name(method));
    }
    return used > 0;
}
