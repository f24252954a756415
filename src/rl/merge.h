/* Rollouts with the rollout policy merged into the weights of its linears, which saves a block of the
 * transformer a third of its launches: where the velocities stay the same. */
#ifndef MBL_RL_MERGE_H
#define MBL_RL_MERGE_H

#include "rl/types.h"

typedef struct mbl_merge mbl_merge_t;

/* Room for `adapter` merged; adapter and pipeline outlive it. schedule: of the rollout. */
mbl_status_t mbl_merge_new(mbl_pipeline_t *pipeline, const mbl_adapter_t *adapter,
                           const mbl_sigma_schedule_t *schedule, mbl_merge_t **out);
/* From now on it measures on another schedule. */
mbl_status_t mbl_merge_schedule(mbl_merge_t *merge, const mbl_sigma_schedule_t *schedule);
void mbl_merge_free(mbl_merge_t *merge);

/* The prompts on which mbl_merge_try measures, out of n: their conditions must be on the device. */
enum { MBL_MERGE_PROMPTS = 4 };
void mbl_merge_prompts(size_t n, uint32_t index[MBL_MERGE_PROMPTS]);

/* Merges the adapter as it is now, and measures: *deviation is the largest |v_merged - v| / |v| over the
 * steps of a short rollout of a few of the prompts, the same on every rank; infinite where it is no number.
 * Noise is that of (seed, step). Local. */
mbl_status_t mbl_merge_try(mbl_merge_t *merge, const mbl_conditions_t *conditions, uint64_t seed,
                           uint32_t step, double *deviation);
/* The merged adapter, as mbl_merge_try left it. */
const mbl_adapter_t *mbl_merge_adapter(const mbl_merge_t *merge);

#endif
