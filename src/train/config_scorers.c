/* Whether the rewards of a configuration name scorers that exist. */
#include "train/config_table.h"

#include "base/suggest.h"
#include "reward/reward.h"

#include <string.h>

static void list_scorers(const char *type, char *out, size_t size, const char **best) {
    const mbl_scorer_t *scorer;
    size_t used = 0, distance = 0;
    out[0] = 0;
    for (size_t i = 0; (scorer = mbl_scorer_at(i)) && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", scorer->name);
        mbl_suggest(type, scorer->name, best, &distance);
    }
}

mbl_status_t mbl_config_check_rewards(const mbl_config_t *config) {
    mbl_config_problems_t problems = {.origin = config->origin};
    for (size_t i = 0; i < config->rewards.count; i++) {
        const mbl_reward_spec_t *spec = &config->rewards.items[i];
        const char *best = NULL;
        char known[400];
        if (mbl_scorer_find(spec->type))
            continue;
        list_scorers(spec->type, known, sizeof known, &best);
        mbl_config_problem(&problems, config->origin->reward_lines[i],
                           "rewards.%zu.%s: \"%s\" is not a registered reward%s%s%s; expected one of %s", i,
                           strcmp(spec->type, spec->name) == 0 ? "name" : "type", spec->type,
                           best ? "; did you mean " : "", best ? best : "", best ? "?" : "", known);
    }
    return mbl_config_problems_end(&problems);
}
