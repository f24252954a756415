/* The adapters of a run over one frozen base: current (trained), old (generates rollouts), EMA (evaluated).
 * The reference is no adapter. */
#ifndef MBL_RL_POLICY_H
#define MBL_RL_POLICY_H

#include "model/lora.h"

typedef struct {
    const mbl_dit_t *model;
    mbl_ops_t *ops;
    const mbl_lora_t *lora;
    size_t size; /* P, the numbers of an adapter */
    size_t room; /* what they lie in: P for one rank, else with holes between the ranks' shards (lora.h) */
    mbl_tensor_t current, old, ema;           /* f32 [padded >= room], zero beyond it and in holes */
    mbl_adapter_t in_current, in_old, in_ema; /* the same values, ready for computing */
    bool old_is_current; /* old was copied from current and current has not moved since */
} mbl_policy_t;

/* Fresh adapters (A gaussian, B zero; all three equal), padded to `padded`. Free with mbl_policy_free. */
mbl_status_t mbl_policy_new(mbl_ops_t *ops, const mbl_dit_t *model, const mbl_lora_t *lora, size_t padded,
                            uint64_t seed, mbl_policy_t *out);
void mbl_policy_free(mbl_policy_t *policy);
/* All three from values without holes in the first `size` numbers of host [room], which is spread in place.
 */
mbl_status_t mbl_policy_start(mbl_policy_t *policy, float *host);

/* After values were changed from outside (a step, a resume): makes the computing copies follow. */
mbl_status_t mbl_policy_stepped(mbl_policy_t *policy);
mbl_status_t mbl_policy_loaded(mbl_policy_t *policy, bool old_is_current);

/* ema <- decay ema + (1 - decay) current, with decay min((1 + step)/(10 + step), limit), step counting
 * from 1. */
mbl_status_t mbl_policy_average(mbl_policy_t *policy, uint64_t step, double limit);
/* How much of old is kept after an epoch: min((step - flat) rate, hold), never below 0 (DiffusionNFT). */
double mbl_policy_hold(uint64_t step, double flat, double rate, double hold);
/* old <- hold old + (1 - hold) current. */
mbl_status_t mbl_policy_follow(mbl_policy_t *policy, double hold);
/* |current - old| / |current|, 0 where both vanish. */
mbl_status_t mbl_policy_deviation(const mbl_policy_t *policy, double *out);

#endif
