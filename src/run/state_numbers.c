/* The counters and small arrays of a run's state, as checkpoints have them. */
#include "run/state_internal.h"

#include <string.h>

void mbl_state_items(mbl_state_numbers_t *small, size_t k, mbl_ckpt_item_t *items) {
    items[0] = (mbl_ckpt_item_t){"balance/alpha_mean", MBL_F64, k, small->alpha_mean};
    items[1] = (mbl_ckpt_item_t){"balance/seen", MBL_I64, k, small->seen};
    items[2] = (mbl_ckpt_item_t){"rewards/skipped_steps", MBL_I64, k, small->skipped};
    items[3] = (mbl_ckpt_item_t){"counters", MBL_I64, 5, small->counters};
    items[4] = (mbl_ckpt_item_t){"balance/cached_norm", MBL_F64, k, small->cached_norm};
    items[5] = (mbl_ckpt_item_t){"balance/cached_age", MBL_I64, 1, &small->cached_age};
    items[6] = (mbl_ckpt_item_t){"alarms/counters", MBL_I64, MBL_STATE_ALARMS, small->alarm_counters};
    items[7] = (mbl_ckpt_item_t){"alarms/flat", MBL_I64, k, small->alarm_flat};
    items[8] = (mbl_ckpt_item_t){"alarms/x0_norm", MBL_F64, 1, &small->x0_norm};
    items[9] = (mbl_ckpt_item_t){"constraint/multiplier", MBL_F64, k, small->multiplier};
    items[10] = (mbl_ckpt_item_t){"constraint/level", MBL_F64, k, small->level};
    items[11] = (mbl_ckpt_item_t){"constraint/spread", MBL_F64, k, small->spread};
    items[12] = (mbl_ckpt_item_t){"constraint/seen", MBL_I64, k, small->level_seen};
    items[13] = (mbl_ckpt_item_t){"alarms/unscored", MBL_I64, k, small->unscored};
    items[14] = (mbl_ckpt_item_t){"alarms/fallen", MBL_I64, k, small->fallen};
    items[15] = (mbl_ckpt_item_t){"alarms/first_scores", MBL_F64, 2 * k, small->first};
}

static void pack_alarms(const mbl_alarm_state_t *alarms, mbl_state_numbers_t *small) {
    for (size_t i = 0; i < MBL_ALARM_ROOM; i++) {
        small->alarm_counters[i] = (int64_t)alarms->count[i];
        small->alarm_counters[MBL_ALARM_ROOM + i] = (int64_t)alarms->run[i];
    }
    small->alarm_counters[2 * MBL_ALARM_ROOM] = (int64_t)alarms->unsolved;
    small->alarm_counters[2 * MBL_ALARM_ROOM + 1] = (int64_t)alarms->x0_steps;
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++) {
        small->alarm_flat[k] = (int64_t)alarms->flat[k];
        small->unscored[k] = (int64_t)alarms->unscored[k];
        small->fallen[k] = (int64_t)alarms->fallen[k];
        small->first[2 * k] = alarms->first[k].mean;
        small->first[2 * k + 1] = alarms->first[k].deviation;
    }
    small->x0_norm = alarms->x0_norm;
}

static void unpack_alarms(mbl_alarm_state_t *alarms, const mbl_state_numbers_t *small) {
    for (size_t i = 0; i < MBL_ALARM_ROOM; i++) {
        alarms->count[i] = (uint64_t)small->alarm_counters[i];
        alarms->run[i] = (uint64_t)small->alarm_counters[MBL_ALARM_ROOM + i];
    }
    alarms->unsolved = (uint64_t)small->alarm_counters[2 * MBL_ALARM_ROOM];
    alarms->x0_steps = (uint64_t)small->alarm_counters[2 * MBL_ALARM_ROOM + 1];
    for (size_t k = 0; k < MBL_MAX_REWARDS; k++) {
        alarms->flat[k] = (uint64_t)small->alarm_flat[k];
        alarms->unscored[k] = (uint64_t)small->unscored[k];
        alarms->fallen[k] = (uint64_t)small->fallen[k];
        alarms->first[k].mean = small->first[2 * k];
        alarms->first[k].deviation = small->first[2 * k + 1];
    }
    alarms->x0_norm = small->x0_norm;
}

void mbl_state_pack(const mbl_state_t *state, mbl_state_numbers_t *small) {
    memset(small, 0, sizeof *small);
    for (size_t k = 0; k < state->engine->k; k++) {
        small->alpha_mean[k] = state->update.balance.alpha_mean[k];
        small->seen[k] = state->update.balance.seen[k];
        small->skipped[k] = (int64_t)state->skipped[k];
        small->cached_norm[k] = state->update.cache.norm[k];
        small->multiplier[k] = state->constraint.multiplier[k];
        small->level[k] = state->constraint.level[k];
        small->spread[k] = state->constraint.spread[k];
        small->level_seen[k] = state->constraint.seen[k];
    }
    small->cached_age = (int64_t)state->update.cache.age;
    pack_alarms(&state->alarms, small);
    const int64_t counters[5] = {(int64_t)state->step, (int64_t)state->epoch,
                                 (int64_t)state->update.optimizer.steps, (int64_t)state->empty_steps,
                                 state->update.policy.old_is_current};
    memcpy(small->counters, counters, sizeof counters);
}

void mbl_state_unpack(mbl_state_t *state, const mbl_state_numbers_t *small) {
    for (size_t k = 0; k < state->engine->k; k++) {
        state->update.balance.alpha_mean[k] = small->alpha_mean[k];
        state->update.balance.seen[k] = small->seen[k] != 0;
        state->skipped[k] = (uint64_t)small->skipped[k];
        state->update.cache.norm[k] = small->cached_norm[k];
        state->constraint.multiplier[k] = small->multiplier[k];
        state->constraint.level[k] = small->level[k];
        state->constraint.spread[k] = small->spread[k];
        state->constraint.seen[k] = small->level_seen[k] != 0;
    }
    state->update.cache.age = (uint64_t)small->cached_age;
    unpack_alarms(&state->alarms, small);
    state->step = (uint64_t)small->counters[0];
    state->epoch = (uint64_t)small->counters[1];
    state->update.optimizer.steps = (uint64_t)small->counters[2];
    state->empty_steps = (uint64_t)small->counters[3];
}
