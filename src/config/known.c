/* Keys that say nothing in a run: of methods that it does not use, of a KL term or limits that it does not
 * have. At their defaults, as a run's folder writes them all, they pass. */
#include "config/table.h"

#include <stdlib.h>

static double default_of(const char *key) {
    return strtod(mbl_config_field(key)->fallback, NULL);
}

/* Whether a method uses a key: what has one objective of its own forms no gradients to solve on or to cache;
 * shares that are not solved for need no average. */
static bool averages(mbl_method_t method) {
    return mbl_method_solves(method);
}

static bool weighs_gradients(mbl_method_t method) {
    return !mbl_method_has_objective(method);
}

static bool is_cagrad(mbl_method_t method) {
    return method == MBL_METHOD_CAGRAD;
}

static bool is_weighted_sum(mbl_method_t method) {
    return method == MBL_METHOD_WEIGHTED_SUM;
}

/* Keys that only some methods know, where none of the run's methods (a bit for each) does. That of other ones
 * goes by more than the method: floor, shrink, guard, warmup, alpha_halves, common. */
static void check_methods_keys(const mbl_config_t *config, unsigned methods,
                               mbl_config_problems_t *problems) {
    const struct {
        const char *key, *need;
        bool (*uses)(mbl_method_t method);
        bool set; /* to another value than the default */
    } keys[] = {{"balance.weighted", "balance.method: weighted_sum", is_weighted_sum,
                 config->balance.weighted != MBL_CONFIG_WEIGHTED_SUM},
                {"balance.cagrad_c", "balance.method: cagrad", is_cagrad,
                 config->balance.cagrad_c != default_of("balance.cagrad_c")},
                {"balance.refresh_every", "a method with one gradient per reward, such as marble",
                 weighs_gradients, config->balance.refresh_every != 1},
                {"balance.gram_fraction", "a method with one gradient per reward, such as marble",
                 weighs_gradients, config->balance.gram_fraction < 1},
                {"balance.on_refresh", "a method that solves, such as marble", averages,
                 config->balance.on_refresh != MBL_CONFIG_ON_REFRESH_RAW},
                {"balance.rho", "a method that solves, such as marble", averages,
                 config->balance.rho != default_of("balance.rho")}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        bool used = !keys[i].set;
        for (unsigned m = 0; m < MBL_METHODS && !used; m++)
            used = (methods & 1U << m) && keys[i].uses((mbl_method_t)m);
        if (!used)
            mbl_config_problem(problems, mbl_config_line(config, keys[i].key),
                               "%s: has no meaning with balance.method: %s; expected it left out, or %s",
                               keys[i].key, mbl_method_name(config->balance.method), keys[i].need);
    }
}

/* Keys of what the run does not have. */
static void check_absent(const mbl_config_t *config, mbl_config_problems_t *problems) {
    const mbl_constraint_options_t *c = &config->constraint;
    const struct {
        const char *key, *lacks, *need;
        bool wrong; /* set to another value than the default without it */
    } keys[] = {{"train.kl_fraction", "train.kl: 0", "a train.kl above 0",
                 config->train.kl_fraction < 1 && !(config->train.kl > 0)},
                {"constraint.penalty", "no reward with a min", "a min of a reward",
                 c->penalty != default_of("constraint.penalty") && !mbl_config_limited(config)},
                {"constraint.rate", "no reward with a min", "a min of a reward",
                 c->rate != default_of("constraint.rate") && !mbl_config_limited(config)},
                {"constraint.smooth", "no reward with a min", "a min of a reward",
                 c->smooth != default_of("constraint.smooth") && !mbl_config_limited(config)},
                {"constraint.most", "no reward with a min", "a min of a reward",
                 c->most != default_of("constraint.most") && !mbl_config_limited(config)}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].wrong)
            mbl_config_problem(problems, mbl_config_line(config, keys[i].key),
                               "%s: has no meaning with %s; expected it left out, or %s", keys[i].key,
                               keys[i].lacks, keys[i].need);
}

void mbl_config_check_known(const mbl_config_t *config, unsigned methods, mbl_config_problems_t *problems) {
    check_methods_keys(config, methods, problems);
    check_absent(config, problems);
}
