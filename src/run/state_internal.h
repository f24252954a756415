/* What the files of the run's state share: which vectors and numbers a checkpoint has. */
#ifndef MBL_RUN_STATE_INTERNAL_H
#define MBL_RUN_STATE_INTERNAL_H

#include "io/checkpoint.h"
#include "run/state.h"

/* The vectors of a checkpoint: whole ones, then the optimizer's, of which every rank has a shard. */
enum { MBL_STATE_WHOLE = 3, MBL_STATE_VECTORS = MBL_STATE_WHOLE + MBL_OPTIMIZER_STATES };
extern const char *const mbl_state_names[MBL_STATE_WHOLE]; /* current, old, ema */
static inline size_t mbl_state_vectors(const mbl_state_t *state) {
    return MBL_STATE_WHOLE + state->update.optimizer.n;
}

/* Counters and small arrays, written and read through one list; older checkpoints lack some after the first
 * four. */
enum { MBL_STATE_NUMBERS = 16, MBL_STATE_ALWAYS = 4, MBL_STATE_ALARMS = 2 * MBL_ALARM_ROOM + 2 };
typedef struct {
    double alpha_mean[MBL_MAX_REWARDS];
    int64_t seen[MBL_MAX_REWARDS], skipped[MBL_MAX_REWARDS], counters[5];
    double cached_norm[MBL_MAX_REWARDS];
    int64_t cached_age;
    int64_t alarm_counters[MBL_STATE_ALARMS], alarm_flat[MBL_MAX_REWARDS];
    double x0_norm;
    double multiplier[MBL_MAX_REWARDS], level[MBL_MAX_REWARDS], spread[MBL_MAX_REWARDS];
    int64_t level_seen[MBL_MAX_REWARDS];
    int64_t unscored[MBL_MAX_REWARDS], fallen[MBL_MAX_REWARDS];
    double first[2 * MBL_MAX_REWARDS]; /* mean and deviation of each */
} mbl_state_numbers_t;

/* The list: names, and where in *numbers they are, of k rewards. */
void mbl_state_items(mbl_state_numbers_t *numbers, size_t k, mbl_ckpt_item_t *items);
void mbl_state_pack(const mbl_state_t *state, mbl_state_numbers_t *numbers);
void mbl_state_unpack(mbl_state_t *state, const mbl_state_numbers_t *numbers);

/* What products are computed in; `auto` decides by the device. */
static inline const char *mbl_state_precision(const mbl_engine_t *engine) {
    return mbl_engine_dtype(engine) == MBL_BF16 ? "bf16" : "f32";
}

/* Waits for a write that is under way. NULL is fine. */
void mbl_snapshot_free(mbl_snapshot_t *snapshot);

#endif
