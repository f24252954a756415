/* Current, old and EMA adapters. */
#include "rl/policy.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_policy_start(mbl_policy_t *policy, float *host) {
    mbl_lora_spread(policy->lora, host);
    MBL_TRY(mbl_tensor_upload(policy->ops, &policy->current, host));
    MBL_TRY(mbl_tensor_copy(policy->ops, &policy->old, &policy->current));
    MBL_TRY(mbl_tensor_copy(policy->ops, &policy->ema, &policy->current));
    return mbl_policy_loaded(policy, true);
}

static mbl_status_t fill(mbl_policy_t *policy, uint64_t seed) {
    float *host;
    MBL_ALLOC(host, policy->current.dim[0]);
    mbl_lora_init(policy->lora, seed, host);
    mbl_status_t status = mbl_policy_start(policy, host);
    mbl_free(host);
    return status;
}

mbl_status_t mbl_policy_new(mbl_ops_t *ops, const mbl_dit_t *model, const mbl_lora_t *lora, size_t padded,
                            uint64_t seed, mbl_policy_t *out) {
    mbl_status_t status;
    mbl_policy_t policy = {
        .model = model, .ops = ops, .lora = lora, .size = mbl_lora_size(lora), .room = mbl_lora_room(lora)};
    MBL_REQUIRE(padded >= policy.room, "policy: %zu is less than the adapter's %zu", padded, policy.room);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &policy.current, 1, padded), failed);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &policy.old, 1, padded), failed);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &policy.ema, 1, padded), failed);
    MBL_TRY_GOTO(mbl_adapter_new(model, lora, &policy.in_current), failed);
    MBL_TRY_GOTO(mbl_adapter_new(model, lora, &policy.in_old), failed);
    MBL_TRY_GOTO(mbl_adapter_new(model, lora, &policy.in_ema), failed);
    MBL_TRY_GOTO(fill(&policy, seed), failed);
    *out = policy;
    return MBL_OK;
failed:
    mbl_policy_free(&policy);
    return status;
}

void mbl_policy_free(mbl_policy_t *policy) {
    if (!policy->ops)
        return;
    mbl_tensor_free(policy->ops, &policy->current);
    mbl_tensor_free(policy->ops, &policy->old);
    mbl_tensor_free(policy->ops, &policy->ema);
    mbl_adapter_free(policy->model, &policy->in_current);
    mbl_adapter_free(policy->model, &policy->in_old);
    mbl_adapter_free(policy->model, &policy->in_ema);
    memset(policy, 0, sizeof *policy);
}

static mbl_status_t set_adapter(mbl_policy_t *policy, mbl_adapter_t *adapter, const mbl_tensor_t *values) {
    mbl_tensor_t own = mbl_tensor_rows(values, 0, policy->room);
    return mbl_adapter_set(policy->model, adapter, &own);
}

mbl_status_t mbl_policy_stepped(mbl_policy_t *policy) {
    policy->old_is_current = false;
    return set_adapter(policy, &policy->in_current, &policy->current);
}

mbl_status_t mbl_policy_loaded(mbl_policy_t *policy, bool old_is_current) {
    MBL_TRY(set_adapter(policy, &policy->in_current, &policy->current));
    MBL_TRY(set_adapter(policy, &policy->in_old, &policy->old));
    MBL_TRY(set_adapter(policy, &policy->in_ema, &policy->ema));
    policy->old_is_current = old_is_current;
    return MBL_OK;
}

mbl_status_t mbl_policy_average(mbl_policy_t *policy, uint64_t step, double limit) {
    double decay = fmin((1 + (double)step) / (10 + (double)step), limit);
    MBL_TRY(MBL_OP(policy->ops, axpby, .y = &policy->ema, .x = &policy->current, .a = 1 - decay, .b = decay));
    return set_adapter(policy, &policy->in_ema, &policy->ema);
}

double mbl_policy_hold(uint64_t step, double flat, double rate, double hold) {
    return fmax(0, fmin(((double)step - flat) * rate, hold));
}

mbl_status_t mbl_policy_follow(mbl_policy_t *policy, double hold) {
    if (hold > 0)
        MBL_TRY(
            MBL_OP(policy->ops, axpby, .y = &policy->old, .x = &policy->current, .a = 1 - hold, .b = hold));
    else
        MBL_TRY(mbl_tensor_copy(policy->ops, &policy->old, &policy->current));
    policy->old_is_current = hold <= 0;
    return set_adapter(policy, &policy->in_old, &policy->old);
}

mbl_status_t mbl_policy_deviation(const mbl_policy_t *policy, double *out) {
    double found[2];
    const mbl_tensor_t sums = MBL_TENSOR_1(found, MBL_F64, 2);
    const mbl_tensor_t current = mbl_tensor_rows(&policy->current, 0, policy->room),
                       old = mbl_tensor_rows(&policy->old, 0, policy->room);
    MBL_TRY(MBL_OP(policy->ops, distance, .sums = &sums, .x = &current, .y = &old));
    *out = found[1] > 0 ? sqrt(found[0] / found[1]) : 0;
    return MBL_OK;
}
