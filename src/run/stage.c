/* The stages of a run. */
#include "run/stage.h"

#include <string.h>

static void take_rewards(const mbl_config_t *config, const mbl_config_stage_t *stage, mbl_stage_t *out) {
    for (size_t k = 0; k < config->rewards.count; k++) {
        out->active[k] = !stage && config->rewards.items[k].use == MBL_REWARD_TRAINED;
        out->weights[k] = config->rewards.items[k].weight;
        for (size_t i = 0; stage && i < stage->rewards.count; i++)
            if (strcmp(stage->rewards.items[i], config->rewards.items[k].name) == 0) {
                out->active[k] = true;
                if (stage->weights)
                    out->weights[k] = stage->weights[i];
            }
    }
}

mbl_status_t mbl_stage_at(const mbl_config_t *config, uint64_t step, mbl_stage_t *out) {
    mbl_stage_t at;
    const mbl_config_stage_t *stages = config->stages.items, *stage;
    memset(&at, 0, sizeof at);
    at.count = config->stages.count ? config->stages.count : 1;
    at.end = config->stages.count ? stages[0].steps : config->train.steps;
    while (step >= at.end && at.index + 1 < at.count) {
        at.first = at.end;
        at.end += stages[++at.index].steps;
    }
    stage = config->stages.count ? &stages[at.index] : NULL;
    at.method = stage && stage->has_method ? stage->method : config->balance.method;
    at.parts = config->rewards.count +
               (mbl_method_has_objective(at.method) || mbl_method_is(at.method, MBL_METHOD_MICRO_BATCHES));
    take_rewards(config, stage, &at);
    *out = at;
    return MBL_OK;
}

mbl_status_t mbl_stage_most_parts(const mbl_config_t *config, size_t *out) {
    mbl_stage_t stage = {.count = 1};
    size_t most = 0;
    for (size_t i = 0; i < stage.count; i++) {
        MBL_TRY(mbl_stage_at(config, stage.end, &stage));
        most = stage.parts > most ? stage.parts : most;
    }
    *out = most;
    return MBL_OK;
}
