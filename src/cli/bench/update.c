/* An optimizer step as training takes it, on the bench fixture. */
#include "cli/bench/update.h"

#include "rl/gram.h"

static mbl_update_options_t options_of(mbl_bench_fixture_t *w, const mbl_bench_method_t *method, size_t k,
                                       size_t timesteps, mbl_reward_stats_t *stats) {
    const bool offset = mbl_method_is(method->method, MBL_METHOD_OFFSET) && !method->together;
    mbl_update_options_t options = {.gradient = mbl_bench_fixture_args(w, k, timesteps, 1e-4),
                                    .balance = {.method = method->method,
                                                .common = offset ? MBL_COMMON_OFFSET : MBL_COMMON_TOGETHER,
                                                .rho = 0.7},
                                    .stats = stats,
                                    .step = w->update.optimizer.steps + 1,
                                    .refresh_every = method->cached ? SIZE_MAX : 1,
                                    .gram_fraction = method->gram_fraction,
                                    .kl_fraction = method->kl_fraction,
                                    .diagnose = method->diagnose,
                                    .optimizer = {1e-5, 0.9, 0.999, 1e-8, 1e-4, 1.0},
                                    .ema = 0.9};
    options.gradient.parts = k + mbl_method_has_objective(method->method);
    options.gradient.kl_apart = method->kl_fraction > 0;
    for (size_t i = 0; i < k; i++)
        stats[i] = (mbl_reward_stats_t){.valid = w->batch.n, .advantage_std = 1};
    return options;
}

mbl_status_t mbl_bench_weigh(mbl_bench_fixture_t *w, const mbl_bench_method_t *method, size_t k) {
    mbl_reward_stats_t stats[MBL_MAX_REWARDS];
    mbl_update_options_t options = options_of(w, method, k, 1, stats);
    mbl_update_result_t result;
    mbl_update_step_t step;
    double gram[MBL_MAX_SETS * MBL_MAX_SETS];
    mbl_tensor_t sets = mbl_tensor_rows(&w->update.sets, 0, k + 1),
                 shard = mbl_tensor_rows(&w->update.shard, 0, k + 1);
    mbl_update_begin(&w->update, &options, &result, &step);
    MBL_TRY(mbl_gram(w->comm, w->ops, &sets, &shard, gram));
    return mbl_update_solve(&w->update, &step, gram, NULL);
}

mbl_status_t mbl_bench_update(mbl_bench_fixture_t *w, const mbl_bench_method_t *method, size_t k,
                              size_t timesteps) {
    mbl_reward_stats_t stats[MBL_MAX_REWARDS];
    mbl_update_options_t options = options_of(w, method, k, timesteps, stats);
    mbl_update_result_t result;
    MBL_TRY(mbl_update_step(&w->update, &options, &result));
    MBL_REQUIRE(result.norm > 0, "bench: the step of %s found no direction", method->name);
    MBL_TRY(mbl_policy_follow(&w->update.policy, 0.5));
    return w->ops->table->sync(w->ops);
}
