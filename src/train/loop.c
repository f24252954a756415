/* The RL loop: prompts, rollout with the old adapter, rewards, advantages, gradients, exact Gram matrix,
 * weights, AdamW, adapters. */
#include "train/loop.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "rl/advantage.h"
#include "rl/gradient.h"
#include "rl/gram.h"
#include "rl/gram_part.h"
#include "rl/metric.h"
#include "rl/pick.h"
#include "rl/reference.h"
#include "rl/rollout.h"
#include "train/report.h"
#include "train/stage.h"
#include "train/stop.h"
#include "train/watch.h"

#include <math.h>
#include <string.h>

enum { MAX_SETS = MBL_MAX_REWARDS + 2 };

typedef struct {
    const mbl_config_t *config;
    mbl_comm_t *comm;
    const char *out_dir;
    const volatile int *stop;
    mbl_engine_t engine;
    mbl_state_t state;
    mbl_rundir_t rundir;
    mbl_stage_t stage;         /* of the coming step */
    size_t most_parts;         /* of any stage: R */
    mbl_reference_t reference; /* of marble_reference only */
    mbl_sampler_plan_t plan, eval_plan;
    mbl_sampler_t *sampler;
    mbl_evaluator_t *evaluator;
    mbl_gradient_t *gradient;
    mbl_batch_t batch;
    mbl_rollout_views_t views;
    uint32_t *prompt, *scratch;
    int64_t *sample;
    size_t first_group;
    float *a;                      /* [R, n] */
    size_t group[MBL_MAX_REWARDS]; /* objective of a reward */
    uint8_t *part_of;              /* [timesteps, n] rows of a partial Gram matrix; NULL where it is whole */
    mbl_tensor_t sets, shard,
        direction;       /* f64 [R+1, padded], [R+2, count] (the last row: the step taken), [count] */
    mbl_metric_t metric; /* where balance.metric is adam */
    mbl_tensor_t half;   /* f64 [R+1, count] where alpha is compared between halves */
    double min[MBL_MAX_REWARDS], pressure[MBL_MAX_REWARDS]; /* of constrained rewards, else NAN */
    mbl_constraint_state_t constraint;                      /* as it will be after the epoch */
    mbl_watch_t watch;
    mbl_alarm_findings_t alarms; /* the first that were found, at this step (0: none yet) */
    uint64_t alarm_step;
    mbl_eval_score_t base[MBL_MAX_REWARDS];
    double mean_seconds; /* of an epoch, for the time left */
    double save_seconds; /* that training stood still for a checkpoint since the last step was reported */
} train_t;

/* ---- opening ---- */

static mbl_status_t make_batch(train_t *t) {
    const mbl_config_t *config = t->config;
    size_t c, height, width, high, wide, size = config->prompts.group_size, groups = config->prompts.groups;
    size_t ranks = (size_t)t->comm->size, rank = (size_t)t->comm->rank;
    t->first_group = groups * rank / ranks;
    size_t n = (groups * (rank + 1) / ranks - t->first_group) * size, k = t->engine.k;
    mbl_pipeline_latent(t->engine.pipeline, &c, &height, &width);
    mbl_pipeline_picture_size(t->engine.pipeline, &high, &wide);
    MBL_TRY(mbl_tensor_new(t->engine.ops, MBL_F32, &t->batch.x0, 4, n, c, height, width));
    MBL_ALLOC(t->prompt, n);
    MBL_ALLOC(t->scratch, t->engine.train.prompts.count);
    MBL_ALLOC(t->sample, n);
    MBL_ALLOC(t->batch.scores, n * k);
    MBL_ALLOC(t->batch.rgb, n * high * wide * 3);
    MBL_ALLOC(t->views.images, n);
    MBL_ALLOC(t->views.prompts, n);
    MBL_ALLOC(t->a, t->most_parts * n);
    if (config->balance.gram_fraction < 1 || config->balance.alpha_halves > 0 ||
        t->stage.method == MBL_METHOD_REFERENCE)
        MBL_ALLOC(t->part_of, config->rollout.steps * n);
    t->batch.n = n;
    t->batch.n_global = groups * size;
    t->batch.group_size = size;
    t->batch.k = k;
    t->batch.prompt = t->prompt;
    t->batch.sample = t->sample;
    return t->stage.method == MBL_METHOD_REFERENCE
               ? mbl_reference_new(&t->batch, c * height * width, &t->reference)
               : MBL_OK;
}

static mbl_status_t make_gradient_buffers(train_t *t) {
    size_t count = t->state.optimizer.count;
    MBL_TRY(mbl_tensor_new(t->engine.ops, MBL_F64, &t->sets, 2, t->most_parts + 1, t->state.padded));
    MBL_TRY(mbl_tensor_new(t->engine.ops, MBL_F64, &t->shard, 2, t->most_parts + 2, count));
    MBL_TRY(mbl_tensor_new(t->engine.ops, MBL_F64, &t->direction, 1, count));
    if (t->config->balance.alpha_halves > 0)
        MBL_TRY(mbl_tensor_new(t->engine.ops, MBL_F64, &t->half, 2, t->most_parts + 1, count));
    if (t->config->balance.metric == MBL_CONFIG_METRIC_ADAM)
        MBL_TRY(mbl_metric_new(t->engine.ops, t->most_parts + 1, count, &t->metric));
    return mbl_gradient_new(t->engine.pipeline, t->state.lora, t->config->train.micro_batch, t->most_parts,
                            &t->gradient);
}

static mbl_status_t open_parts(train_t *t) {
    const mbl_config_t *config = t->config;
    MBL_TRY(mbl_engine_open(config, t->comm, &t->engine));
    MBL_TRY(mbl_stage_at(config, 0, &t->stage));
    MBL_TRY(mbl_stage_most_parts(config, &t->most_parts));
    for (size_t k = 0; k < t->engine.k; k++)
        t->min[k] = config->rewards.items[k].min;
    mbl_config_objectives(config, t->group);
    MBL_TRY(mbl_state_new(&t->engine, &t->state));
    MBL_TRY(mbl_sampler_plan(config->rollout.solver, config->rollout.steps, config->rollout.shift, &t->plan));
    MBL_TRY(mbl_sampler_plan(config->eval.solver, config->eval.steps, config->rollout.shift, &t->eval_plan));
    MBL_TRY(mbl_sampler_new(t->engine.pipeline, t->state.lora, config->rollout.micro_batch, &t->sampler));
    MBL_TRY(make_batch(t));
    MBL_TRY(make_gradient_buffers(t));
    mbl_evaluator_options_t options = {.comm = t->comm,
                                       .pipeline = t->engine.pipeline,
                                       .lora = t->state.lora,
                                       .panel = t->engine.panel,
                                       .set = &t->engine.test,
                                       .k = t->engine.k,
                                       .pictures = config->eval.prompts,
                                       .micro_batch = config->rollout.micro_batch,
                                       .plan = &t->eval_plan,
                                       .seed = config->eval.seed,
                                       .stop = t->stop};
    return mbl_evaluator_new(&options, &t->evaluator);
}

static void close_parts(train_t *t) {
    mbl_rundir_close(&t->rundir);
    mbl_evaluator_free(t->evaluator);
    mbl_gradient_free(t->gradient);
    mbl_metric_free(&t->metric);
    mbl_sampler_free(t->sampler);
    if (t->engine.ops) {
        mbl_tensor_free(t->engine.ops, &t->batch.x0);
        mbl_tensor_free(t->engine.ops, &t->sets);
        mbl_tensor_free(t->engine.ops, &t->shard);
        mbl_tensor_free(t->engine.ops, &t->direction);
        mbl_tensor_free(t->engine.ops, &t->half);
    }
    mbl_free(t->batch.scores);
    mbl_free(t->batch.rgb);
    mbl_free(t->views.images);
    mbl_free(t->views.prompts);
    mbl_free(t->prompt);
    mbl_free(t->scratch);
    mbl_free(t->sample);
    mbl_free(t->a);
    mbl_free(t->part_of);
    mbl_reference_free(&t->reference);
    mbl_state_free(&t->state);
    mbl_engine_close(&t->engine);
}

/* ---- an epoch ---- */

/* Advantages of the pictures for the stage under way. */
static mbl_status_t find_advantages(train_t *t, mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    bool own = mbl_method_has_objective(t->stage.method);
    mbl_advantage_options_t options = {.group_std = config->advantage.std == MBL_CONFIG_STD_GROUP,
                                       .clip = config->train.clip,
                                       .weights = own ? t->stage.weights : NULL,
                                       .sum_advantages = t->stage.method == MBL_METHOD_GDPO,
                                       .active = t->stage.active,
                                       .unclipped = t->reference.raw};
    return mbl_advantage(t->comm, &options, &t->batch, t->a, report->stats);
}

/* The stage of the coming step; *entered: it is another than that of the step before. */
static mbl_status_t enter_stage(train_t *t, bool *entered) {
    size_t before = t->stage.index;
    MBL_TRY(mbl_stage_at(t->config, t->state.step, &t->stage));
    *entered = t->stage.index != before;
    return MBL_OK;
}

/* Pictures, scores and advantages of this epoch. Ranks agree at its end, so a stop or a failure on one
 * reaches all. */
static mbl_status_t collect(train_t *t, mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    double start = mbl_now();
    bool entered;
    MBL_TRY(enter_stage(t, &entered));
    mbl_pick(config->seed, t->state.epoch, config->prompts.groups, config->prompts.group_size,
             t->engine.train.prompts.count, t->first_group, t->batch.n, t->scratch, t->prompt, t->sample);
    mbl_rollout_t rollout = {.pipeline = t->engine.pipeline,
                             .sampler = t->sampler,
                             .plan = &t->plan,
                             .adapter = &t->state.policy.in_old,
                             .conditions = &t->engine.train.conditions,
                             .prompts = &t->engine.train.prompts,
                             .panel = t->engine.panel,
                             .micro_batch = config->rollout.micro_batch,
                             .seed = config->seed,
                             .purpose = MBL_RNG_NOISE,
                             .step = (uint32_t)t->state.epoch,
                             .stop = t->stop};
    mbl_status_t status = mbl_rollout(&rollout, &t->batch, &t->views);
    report->seconds.rollout = mbl_lap(&start);
    mbl_status_t scored = mbl_panel_wait(t->engine.panel);
    report->seconds.reward_wait = mbl_lap(&start);
    MBL_TRY(mbl_comm_agree(t->comm, status != MBL_OK ? status : scored));
    MBL_TRY(find_advantages(t, report));
    MBL_TRY(mbl_watch_epoch(t->comm, t->engine.ops, config, &t->batch, &t->watch));
    report->x0_norm = t->watch.x0_norm;
    t->constraint = t->state.constraint;
    mbl_constraint_update(&config->constraint, t->min, report->stats, t->engine.k, &t->constraint,
                          t->pressure);
    report->constraint = &t->constraint;
    report->pressure = t->pressure;
    return MBL_OK;
}

/* The optimizer step under way. Its direction is D = sum_j coefficient_j shard_j over the first m rows of the
 * shard, plus the shard's last row where `rest`; or it stands in t->direction already where `formed`. */
typedef struct {
    mbl_gradient_args_t args;
    bool refresh, smoothed, halves, diagnose, rest, formed;
    size_t m;
    double c[MBL_MAX_REWARDS + 1], coefficient[MAX_SETS], norm;
    mbl_amortise_t cache; /* as it will be after the step */
} step_t;

static mbl_gradient_args_t gradient_args(const train_t *t, size_t inner, size_t slice,
                                         const volatile int *stop) {
    const mbl_config_t *config = t->config;
    size_t timesteps = (size_t)(config->train.timestep_fraction * (double)config->rollout.steps + 1e-9);
    return (mbl_gradient_args_t){.batch = &t->batch,
                                 .conditions = &t->engine.train.conditions,
                                 .current = &t->state.policy.in_current,
                                 .old = &t->state.policy.in_old,
                                 .old_is_current = t->state.policy.old_is_current,
                                 .plan = &t->plan,
                                 .timesteps = timesteps > 0 ? timesteps : 1,
                                 .slice = slice,
                                 .slices = config->train.updates_per_epoch,
                                 .seed = config->seed,
                                 .step = (uint32_t)(t->state.epoch * config->train.inner_epochs + inner),
                                 .beta = config->train.beta,
                                 .clip = config->train.clip,
                                 .kl = config->train.kl,
                                 .a = t->a,
                                 .parts = t->stage.parts,
                                 .stop = stop};
}

/* The gradients step->args ask for (all sets, or one with c), summed over ranks into `shard`, and their Gram
 * matrix. */
static mbl_status_t form(train_t *t, const step_t *step, const mbl_tensor_t *shard, double *gram,
                         mbl_step_report_t *report) {
    mbl_tensor_t sets = mbl_tensor_rows(&t->sets, 0, shard->dim[0]);
    mbl_gradient_stats_t stats;
    mbl_gram_sum_t sum = {.comm = t->comm, .ops = t->engine.ops, .sets = &sets, .shard = shard};
    mbl_gradient_args_t args = step->args;
    double start = mbl_now();
    args.ready = mbl_gram_ready;
    args.context = &sum;
    MBL_TRY(mbl_gram_formed(&sum, mbl_gradient_run(t->gradient, &args, &sets, &stats)));
    double sums[2] = {stats.loss, stats.kl};
    MBL_TRY(mbl_comm_allreduce(t->comm, sums, 2, MBL_COMM_F64, MBL_COMM_SUM));
    report->loss += sums[0];
    report->kl += sums[1];
    report->seconds.train += mbl_lap(&start);
    MBL_TRY(mbl_gram_finish(&sum, gram));
    report->finite &= isfinite(sums[0]) && isfinite(sums[1]);
    for (size_t i = 0; i < shard->dim[0]; i++)
        report->finite &= isfinite(gram[i * shard->dim[0] + i]);
    report->seconds.gram += mbl_lap(&start);
    return MBL_OK;
}

/* All sets. */
static mbl_status_t form_all(train_t *t, step_t *step, double *gram, mbl_step_report_t *report) {
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, t->stage.parts + 1);
    step->m = t->stage.parts + 1;
    step->args.c = NULL;
    return form(t, step, &shard, gram, report);
}

/* Counts rewards that take no part in this step and says so, the first time and then every hundredth. */
static void count_skipped(train_t *t, const mbl_balance_step_t *balance) {
    for (size_t k = 0; k < t->engine.k; k++) {
        if (balance->used[k] || !t->stage.active[k])
            continue;
        if (t->state.skipped[k]++ % 100 == 0 && t->comm->rank == 0)
            MBL_WARN("step %llu: reward %s takes no part (%s); %llu steps so far",
                     (unsigned long long)t->state.step + 1, t->config->rewards.items[k].name,
                     isfinite(balance->norm[k]) ? "no valid score, or no variance in any group"
                                                : "its gradient is not finite",
                     (unsigned long long)t->state.skipped[k]);
    }
}

static bool warms_up(const train_t *t) {
    return t->state.step < t->config->balance.warmup;
}

static mbl_balance_options_t balance_options(const train_t *t) {
    return (mbl_balance_options_t){.method = warms_up(t) ? MBL_METHOD_EQUAL : t->stage.method,
                                   .common = (mbl_common_t)t->config->balance.common,
                                   .floor = t->config->balance.floor,
                                   .cagrad_c = t->config->balance.cagrad_c,
                                   .rho = t->config->balance.rho,
                                   .weights = t->stage.weights,
                                   .group = t->group,
                                   .active = t->stage.active,
                                   .pressure = t->pressure};
}

static void take_weights(const train_t *t, step_t *step, const mbl_step_report_t *report) {
    memcpy(step->coefficient, report->balance.coefficient, (t->stage.parts + 1) * sizeof *step->coefficient);
    step->norm = report->balance.direction_norm;
}

static mbl_adamw_options_t adamw_options(const train_t *t) {
    const mbl_config_t *config = t->config;
    return (mbl_adamw_options_t){.lr = config->train.lr,
                                 .beta1 = config->train.adam_beta1,
                                 .beta2 = config->train.adam_beta2,
                                 .eps = config->train.adam_eps,
                                 .weight_decay = config->train.weight_decay,
                                 .grad_clip = config->train.grad_clip};
}

/* The solve in AdamW's metric, on all rows. The lengths it leaves in the balance are those in the metric. */
static mbl_status_t solve_in_metric(train_t *t, const mbl_balance_options_t *options, const double *gram,
                                    mbl_step_report_t *report) {
    double in_metric[MAX_SETS * MAX_SETS];
    mbl_adamw_options_t adamw = adamw_options(t);
    mbl_balance_options_t equal = *options;
    mbl_balance_state_t untouched = t->state.balance;
    mbl_balance_step_t mean;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, t->stage.parts + 1);
    equal.method = MBL_METHOD_EQUAL;
    MBL_TRY(mbl_balance(t->comm, &equal, gram, t->engine.k, &untouched, &mean));
    MBL_TRY(mbl_metric_gram(t->comm, &t->metric, &t->state.optimizer, &adamw, &shard, gram, mean.coefficient,
                            mean.direction_norm, in_metric));
    MBL_TRY(mbl_balance(t->comm, options, in_metric, t->engine.k, &t->state.balance, &report->balance));
    memcpy(report->cos_metric, report->balance.cos, sizeof report->cos_metric);
    report->in_metric = true;
    return MBL_OK;
}

/* Weights from the Gram matrix of all sets, which saw `share` of the rows: lengths are scaled up to what the
 * whole step would have. */
static mbl_status_t solve(train_t *t, step_t *step, const double *gram, double share,
                          mbl_step_report_t *report) {
    mbl_balance_options_t options = balance_options(t);
    size_t m = t->stage.parts + 1;
    double scaled[MAX_SETS * MAX_SETS], start = mbl_now();
    mbl_balance_state_t before = t->state.balance;
    for (size_t i = 0; i < m * m; i++)
        scaled[i] = gram[i] / (share * share);
    if (t->config->balance.metric == MBL_CONFIG_METRIC_ADAM && !warms_up(t))
        MBL_TRY(solve_in_metric(t, &options, scaled, report));
    else
        MBL_TRY(mbl_balance(t->comm, &options, scaled, t->engine.k, &t->state.balance, &report->balance));
    if (warms_up(t)) /* equal weights are no solution to average */
        t->state.balance = before;
    if (step->refresh) {
        mbl_amortise_keep(&step->cache, &report->balance, t->engine.k);
        if (t->config->balance.on_refresh == MBL_CONFIG_ON_REFRESH_SMOOTH) {
            mbl_balance_step_t smooth;
            MBL_TRY(mbl_amortise_step(&options, &t->state.balance, &step->cache, report->balance.used,
                                      t->engine.k, &smooth));
            memcpy(report->balance.coefficient, smooth.coefficient, sizeof smooth.coefficient);
            step->smoothed = true;
        }
    }
    if (report->in_metric || step->smoothed) /* what is applied, in plain lengths */
        mbl_balance_measure(scaled, t->engine.k, &report->balance);
    take_weights(t, step, report);
    report->refreshed = true;
    report->gram_share = share;
    report->seconds.qp += mbl_lap(&start);
    return MBL_OK;
}

/* A step whose weights are known: one backward pass, or all sets where cosines are asked for. */
static mbl_status_t apply_known(train_t *t, step_t *step, mbl_step_report_t *report) {
    double gram[MAX_SETS * MAX_SETS];
    if (step->diagnose) {
        MBL_TRY(form_all(t, step, gram, report));
        mbl_balance_measure(gram, t->engine.k, &report->balance);
        take_weights(t, step, report);
        return MBL_OK;
    }
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, 1);
    step->m = 1;
    step->args.c = step->c;
    MBL_TRY(form(t, step, &shard, gram, report));
    step->coefficient[0] = isfinite(gram[0]) ? 1 : 0;
    step->norm = isfinite(gram[0]) ? sqrt(gram[0]) : 0;
    return MBL_OK;
}

static mbl_status_t solve_half(train_t *t, const double *gram, size_t which, mbl_step_report_t *report) {
    mbl_balance_options_t options = balance_options(t);
    mbl_balance_state_t untouched = t->state.balance;
    mbl_balance_step_t half;
    MBL_TRY(mbl_balance(t->comm, &options, gram, t->engine.k, &untouched, &half));
    memcpy(report->alpha_half[which], half.alpha, sizeof half.alpha);
    report->halves &= half.n_used > 0;
    return MBL_OK;
}

/* All sets of the rows a solve sees, where they are in two halves: also what either says alone. The second's
 * sets are what it added to the first's. */
static mbl_status_t form_halves(train_t *t, step_t *step, double *gram, mbl_step_report_t *report) {
    double second[MAX_SETS * MAX_SETS];
    size_t m = t->stage.parts + 1;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, m), host = MBL_TENSOR_2(second, MBL_F64, m, m);
    mbl_tensor_t half = mbl_tensor_rows(&t->half, 0, m);
    report->halves = true;
    step->args.part_of = t->part_of;
    step->args.part = MBL_PART_GRAM;
    MBL_TRY(form_all(t, step, gram, report));
    MBL_TRY(solve_half(t, gram, 0, report));
    MBL_TRY(mbl_tensor_copy(t->engine.ops, &half, &shard));
    step->args.part = MBL_PART_HALF;
    step->args.add = true;
    MBL_TRY(form_all(t, step, gram, report));
    step->args.add = false;
    MBL_TRY(MBL_OP(t->engine.ops, axpby, .y = &half, .x = &shard, .a = 1, .b = -1));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &half));
    MBL_TRY(mbl_comm_allreduce(t->comm, second, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    return solve_half(t, second, 1, report);
}

/* Solves on the rows of a partial Gram matrix; the rest of the rows follow with its weights. All sets are
 * formed of the rest too where cosines are asked for, or where the part had no usable reward: that solve sees
 * the whole step. */
static mbl_status_t solve_on_part(train_t *t, step_t *step, double share, mbl_step_report_t *report) {
    double gram[MAX_SETS * MAX_SETS], of_rest;
    step->args.part_of = t->part_of;
    step->args.part = MBL_PART_GRAM;
    MBL_TRY(step->halves ? form_halves(t, step, gram, report) : form_all(t, step, gram, report));
    MBL_TRY(solve(t, step, gram, share, report));
    step->args.part = MBL_PART_REST;
    bool none = report->balance.n_used == 0;
    if (step->diagnose || none) {
        step->diagnose = step->args.add = true;
        MBL_TRY(form_all(t, step, gram, report));
        if (none)
            return solve(t, step, gram, 1, report);
        mbl_balance_measure(gram, t->engine.k, &report->balance);
        take_weights(t, step, report);
        return MBL_OK;
    }
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1);
    memcpy(step->c, step->coefficient, t->stage.parts * sizeof *step->c);
    step->args.c = step->c;
    step->rest = true;
    return form(t, step, &last, &of_rest, report);
}

/* The share of the rows that the Gram matrix will see; fills part_of where that is not 1. */
static double choose_part(train_t *t, const step_t *step) {
    const mbl_gradient_args_t *args = &step->args;
    mbl_gram_part_t options = {.fraction = t->config->balance.gram_fraction,
                               .micro_batch = t->config->train.micro_batch,
                               .timesteps = args->timesteps,
                               .slice = args->slice,
                               .slices = args->slices,
                               .halves = step->halves,
                               .seed = args->seed,
                               .step = args->step};
    return t->part_of ? mbl_gram_part(&options, &t->batch, t->part_of) : 1;
}

/* D into t->direction. Sets that it leaves out and that no cosine is asked of become zero first: they may
 * hold NaN, and 0 NaN = NaN. */
static mbl_status_t combine(train_t *t, step_t *step, const mbl_balance_step_t *balance) {
    mbl_tensor_t sets = mbl_tensor_rows(&t->shard, 0, step->m);
    size_t count = t->state.optimizer.count;
    for (size_t j = 0; j < step->m; j++) {
        mbl_tensor_t row = mbl_tensor_rows(&t->shard, j, 1);
        bool wanted = step->diagnose && j < t->engine.k && isfinite(balance->norm[j]);
        if (step->coefficient[j] == 0 && !wanted)
            MBL_TRY(mbl_tensor_zero(t->engine.ops, &row));
    }
    MBL_TRY(MBL_OP(t->engine.ops, combine, .y = &t->direction, .x = &sets, .coefficient = step->coefficient));
    if (!step->rest)
        return MBL_OK;
    double square;
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1),
                 host = MBL_TENSOR_2(&square, MBL_F64, 1, 1);
    mbl_tensor_t row = mbl_tensor_reshape(&t->direction, 2, (size_t)1, count);
    mbl_tensor_t flat = mbl_tensor_reshape(&last, 1, count);
    MBL_TRY(MBL_OP(t->engine.ops, axpby, .y = &t->direction, .x = &flat, .a = 1, .b = 1));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &row));
    MBL_TRY(mbl_comm_allreduce(t->comm, &square, 1, MBL_COMM_F64, MBL_COMM_SUM));
    step->norm = isfinite(square) ? sqrt(square) : 0;
    return MBL_OK;
}

/* ---- marble_reference (rl/reference.h) ---- */

/* Adds what was just formed, D = sum_j coefficient_j shard_j, to the shard's last row. */
static mbl_status_t accumulate(train_t *t, step_t *step, const mbl_balance_step_t *balance) {
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1);
    mbl_tensor_t flat = mbl_tensor_reshape(&last, 1, t->state.optimizer.count);
    MBL_TRY(combine(t, step, balance));
    return MBL_OP(t->engine.ops, axpby, .y = &flat, .x = &t->direction, .a = 1, .b = 1);
}

/* One micro-batch at one position of the timestep orders: all gradients, its own solve, its own direction. */
static mbl_status_t solve_micro_batch(train_t *t, step_t *step, size_t micro, size_t slot,
                                      mbl_step_report_t *report) {
    double gram[MAX_SETS * MAX_SETS], start;
    size_t k = t->engine.k, n = t->batch.n;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, k + 1);
    mbl_balance_options_t options = balance_options(t);
    options.common = MBL_COMMON_APART; /* the KL term */
    memset(t->part_of, MBL_PART_REST, step->args.timesteps * n);
    for (size_t i = 0; i < n; i++)
        t->part_of[slot * n + i] = t->reference.micro[i] == micro ? MBL_PART_GRAM : MBL_PART_REST;
    MBL_TRY(mbl_reference_share(t->comm, &t->reference, n, k, micro));
    step->args.part = MBL_PART_GRAM;
    step->args.parts = k;
    step->args.share = t->reference.share;
    step->args.c = NULL;
    step->m = k + 1;
    MBL_TRY(form(t, step, &shard, gram, report));
    start = mbl_now();
    MBL_TRY(mbl_balance(t->comm, &options, gram, k, &t->state.balance, &report->balance));
    report->seconds.qp += mbl_lap(&start);
    memcpy(step->coefficient, report->balance.coefficient, step->m * sizeof *step->coefficient);
    step->coefficient[k] = isfinite(gram[k * step->m + k]) ? 1 : 0;
    step->args.share = NULL;
    step->args.parts = t->stage.parts;
    return accumulate(t, step, &report->balance);
}

/* All rows but those of the solve, with the averaged alpha in one objective. */
static mbl_status_t follow_average(train_t *t, step_t *step, mbl_step_report_t *report) {
    double square, c[MBL_MAX_REWARDS + 1] = {0};
    size_t k = t->engine.k;
    mbl_tensor_t shard = mbl_tensor_rows(&t->shard, 0, 1);
    mbl_reference_factors(t->reference.raw, t->batch.n, k, t->state.balance.alpha_mean, t->config->train.clip,
                          t->a + k * t->batch.n);
    c[k] = 1;
    step->args.part = MBL_PART_REST;
    step->args.c = c;
    step->m = 1;
    MBL_TRY(form(t, step, &shard, &square, report));
    step->args.c = NULL;
    step->coefficient[0] = isfinite(square) ? 1 : 0;
    return accumulate(t, step, &report->balance);
}

/* Cosines of D, which stands in the shard's last row, with the gradients of the whole step. */
static mbl_status_t measure_reference(train_t *t, step_t *step, mbl_step_report_t *report) {
    double gram[MAX_SETS * MAX_SETS], loss = report->loss, kl = report->kl;
    size_t k = t->engine.k, m = t->stage.parts + 2;
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m);
    step->args.part_of = NULL;
    MBL_TRY(form_all(t, step, gram, report));
    report->loss = loss; /* of these rows for a second time */
    report->kl = kl;
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &t->shard));
    MBL_TRY(mbl_comm_allreduce(t->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    mbl_balance_measure_row(gram, t->stage.parts, k, &report->balance);
    return MBL_OK;
}

/* As the released code: every micro-batch solves in the first step; later the first micro-batch of every
 * refresh_every-th does, and all rows after it follow the averaged alpha. */
static mbl_status_t reference_direction(train_t *t, step_t *step, mbl_step_report_t *report) {
    bool warmup = t->state.step < MBL_REFERENCE_WARMUP;
    size_t slice = step->args.slice, count = t->state.optimizer.count, k = t->engine.k, solved = 0;
    mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1),
                 flat = mbl_tensor_reshape(&last, 1, count);
    mbl_tensor_t row = mbl_tensor_reshape(&t->direction, 2, (size_t)1, count);
    double square;
    mbl_tensor_t host = MBL_TENSOR_2(&square, MBL_F64, 1, 1);
    step->refresh =
        warmup || t->state.cache.age == 0 || t->state.cache.age >= t->config->balance.refresh_every;
    report->balanced = true;
    report->refreshed = step->refresh;
    step->args.part_of = t->part_of;
    memset(t->part_of, MBL_PART_REST, step->args.timesteps * t->batch.n);
    MBL_TRY(mbl_tensor_zero(t->engine.ops, &last));
    for (size_t micro = 0; step->refresh && micro < (warmup ? t->reference.n_micro : 1); micro++)
        for (size_t slot = slice; slot < (warmup ? step->args.timesteps : slice + 1);
             slot += step->args.slices, solved++)
            MBL_TRY(solve_micro_batch(t, step, micro, slot, report));
    size_t slots = (step->args.timesteps - slice + step->args.slices - 1) / step->args.slices;
    size_t first =
        t->batch.n_global < t->config->train.micro_batch ? t->batch.n_global : t->config->train.micro_batch;
    report->gram_share = warmup ? 1 : (double)(solved * first) / (double)(slots * t->batch.n_global);
    if (!step->refresh)
        mbl_reference_kept(&t->state.balance, report->stats, k, &report->balance);
    if (!warmup)
        MBL_TRY(follow_average(t, step, report));
    if (step->diagnose)
        MBL_TRY(measure_reference(t, step, report));
    MBL_TRY(MBL_OP(t->engine.ops, convert, .dst = &t->direction, .src = &flat));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &row));
    MBL_TRY(mbl_comm_allreduce(t->comm, &square, 1, MBL_COMM_F64, MBL_COMM_SUM));
    step->norm = isfinite(square) ? sqrt(square) : 0;
    step->formed = true;
    step->cache.age = step->refresh ? 0 : t->state.cache.age;
    return MBL_OK;
}

/* Gradients and weights of one optimizer step. */
static mbl_status_t find_direction(train_t *t, step_t *step, mbl_step_report_t *report) {
    double gram[MAX_SETS * MAX_SETS], share;
    size_t k = t->engine.k, every = t->config->balance.diagnostics_every;
    bool valid[MBL_MAX_REWARDS], solves = !mbl_method_has_objective(t->stage.method);
    mbl_balance_options_t options = balance_options(t);
    for (size_t i = 0; i < k; i++)
        valid[i] = t->stage.active[i] && report->stats[i].valid > 0 && report->stats[i].advantage_std > 0;
    step->cache = t->state.cache;
    step->diagnose = every > 0 && t->state.step % every == 0;
    step->refresh = solves && (mbl_amortise_due(&step->cache, t->config->balance.refresh_every, valid, k) ||
                               t->state.step == t->config->balance.warmup || t->state.step == t->stage.first);
    if (t->stage.method == MBL_METHOD_REFERENCE)
        return reference_direction(t, step, report);
    report->balanced = solves || step->diagnose;
    step->halves =
        t->config->balance.alpha_halves > 0 && t->state.step % t->config->balance.alpha_halves == 0;
    if (solves && !step->refresh) {
        MBL_TRY(mbl_amortise_step(&options, &t->state.balance, &step->cache, valid, k, &report->balance));
        memcpy(step->c, report->balance.coefficient, k * sizeof *step->c);
        return apply_known(t, step, report);
    }
    if (!solves && !step->diagnose) {
        step->c[t->stage.parts - 1] = 1;
        return apply_known(t, step, report);
    }
    share = solves ? choose_part(t, step) : 1;
    if (share < 1)
        return solve_on_part(t, step, share, report);
    step->diagnose = true; /* costs nothing here */
    MBL_TRY(step->halves ? form_halves(t, step, gram, report) : form_all(t, step, gram, report));
    return solve(t, step, gram, 1, report);
}

/* cos(-step, g_k) of the step AdamW took, from the Gram matrix of the sets with that step. `before` stands in
 * the shard's last row. */
static mbl_status_t cosines_of_step(train_t *t, mbl_step_report_t *report) {
    size_t count = t->state.optimizer.count, m = t->stage.parts + 2, last = m - 1;
    double gram[MAX_SETS * MAX_SETS + 2 * MAX_SETS + 1];
    mbl_tensor_t sets = mbl_tensor_rows(&t->shard, 0, m);
    mbl_tensor_t step = mbl_tensor_rows(&t->shard, last, 1), flat = mbl_tensor_reshape(&step, 1, count);
    mbl_tensor_t now = mbl_tensor_rows(&t->state.policy.current, (size_t)t->comm->rank * count, count);
    mbl_tensor_t host = MBL_TENSOR_2(gram, MBL_F64, m, m);
    MBL_TRY(MBL_OP(t->engine.ops, convert, .dst = &t->direction, .src = &now));
    MBL_TRY(MBL_OP(t->engine.ops, axpby, .y = &flat, .x = &t->direction, .a = -1, .b = 1));
    MBL_TRY(MBL_OP(t->engine.ops, gram, .gram = &host, .x = &sets));
    MBL_TRY(mbl_comm_allreduce(t->comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t k = 0; k < t->engine.k; k++) {
        double norm = report->balance.norm[k] * sqrt(gram[last * m + last]);
        report->cos_step[k] = report->balance.measured[k] && norm > 0
                                  ? (gram[k * m + last] + gram[t->stage.parts * m + last]) / norm
                                  : 0;
    }
    return MBL_OK;
}

/* Moves the weights along the direction; leaves them (and the moments) alone when there is none. */
static mbl_status_t move(train_t *t, step_t *step, mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    size_t count = t->state.optimizer.count;
    mbl_adamw_options_t options = adamw_options(t);
    if (!step->formed)
        MBL_TRY(combine(t, step, &report->balance));
    report->lr = config->train.lr;
    report->grad_norm = step->norm;
    report->cosines = step->diagnose;
    if (!(step->norm > 0)) {
        if (t->state.empty_steps++ % 100 == 0 && t->comm->rank == 0)
            MBL_WARN("step %llu: no reward has a usable gradient; the weights stay as they are",
                     (unsigned long long)t->state.step + 1);
        return MBL_OK;
    }
    if (step->diagnose) {
        mbl_tensor_t last = mbl_tensor_rows(&t->shard, t->stage.parts + 1, 1),
                     flat = mbl_tensor_reshape(&last, 1, count);
        mbl_tensor_t now = mbl_tensor_rows(&t->state.policy.current, (size_t)t->comm->rank * count, count);
        MBL_TRY(MBL_OP(t->engine.ops, convert, .dst = &flat, .src = &now));
    }
    MBL_TRY(mbl_optimizer_step(t->comm, &t->state.optimizer, &options, &t->direction, step->norm,
                               &t->state.policy.current));
    MBL_TRY(mbl_policy_stepped(&t->state.policy));
    return step->diagnose ? cosines_of_step(t, report) : MBL_OK;
}

/* What the step reports of itself, afresh. */
static void clear_report(mbl_step_report_t *report) {
    report->loss = report->kl = report->gram_share = 0;
    report->balanced = report->refreshed = report->cosines = report->halves = report->in_metric = false;
    report->finite = true;
    memset(&report->balance, 0, sizeof report->balance);
    memset(report->cos_step, 0, sizeof report->cos_step);
}

/* One optimizer step. */
static mbl_status_t update(train_t *t, size_t inner, size_t slice, const volatile int *stop,
                           mbl_step_report_t *report) {
    bool entered;
    MBL_TRY(enter_stage(t, &entered));
    if (entered) /* amid an epoch */
        MBL_TRY(find_advantages(t, report));
    step_t step = {.args = gradient_args(t, inner, slice, stop)};
    t->comm->step = t->state.step + 1;
    if (t->stage.method == MBL_METHOD_REFERENCE && slice == 0)
        MBL_TRY(mbl_reference_mix(&t->reference, t->engine.ops, &t->batch, t->prompt, t->sample, t->a,
                                  t->engine.k, step.args.seed, step.args.step, t->config->train.micro_batch));
    mbl_balance_state_t before = t->state.balance;
    clear_report(report);
    report->stage = t->stage.index;
    if (t->state.step == t->stage.first) /* averages of another stage say nothing of this one */
        memset(&t->state.balance, 0, sizeof t->state.balance);
    mbl_status_t status = find_direction(t, &step, report);
    if (status != MBL_OK) /* a stop leaves the state as it was */
        t->state.balance = before;
    MBL_TRY(status);
    if (report->balanced)
        count_skipped(t, &report->balance);
    double start = mbl_now();
    MBL_TRY(move(t, &step, report));
    t->state.step++;
    t->state.cache = step.cache;
    t->state.cache.age += step.refresh ? report->balance.n_used > 0 || t->stage.method == MBL_METHOD_REFERENCE
                                       : step.cache.age > 0;
    MBL_TRY(mbl_policy_average(&t->state.policy, t->state.step, t->config->train.ema));
    report->seconds.train += mbl_lap(&start);
    return MBL_OK;
}

/* Looks for every alarm and says what was found. */
static mbl_status_t look_for_alarms(train_t *t, const mbl_step_report_t *report) {
    const mbl_config_t *config = t->config;
    size_t every = config->alarms.replica_mismatch;
    mbl_alarm_numbers_t numbers = {.old_deviate = report->old_deviate,
                                   .x0_norm = report->x0_norm,
                                   .finite = report->finite,
                                   .replicas_same = true,
                                   .solves = mbl_method_solves(t->stage.method),
                                   .solved = report->refreshed && report->balance.n_used > 0,
                                   .used = report->balance.n_used,
                                   .k = t->engine.k,
                                   .alpha = report->balance.alpha,
                                   .stats = report->stats,
                                   .outside = t->watch.outside};
    if (every > 0 && t->state.step % every == 0)
        MBL_TRY(mbl_watch_replicas(t->comm, &t->state.policy, &numbers.replicas_same));
    mbl_alarm_findings_t found;
    mbl_alarms_check(&config->alarms, &numbers, &t->state.alarms, &found);
    if (t->comm->rank == 0)
        mbl_watch_tell(config, &t->state.alarms, &found, t->state.step);
    for (int i = 0; i < MBL_ALARMS && t->alarm_step == 0; i++)
        if (found.found[i]) {
            t->alarms = found;
            t->alarm_step = t->state.step;
        }
    return MBL_OK;
}

static bool due(uint64_t before, uint64_t after, size_t every) {
    return every > 0 && before / every != after / every;
}

static mbl_status_t save(train_t *t, bool wait) {
    double start = mbl_now();
    mbl_status_t status = mbl_state_save(&t->state, t->out_dir, wait);
    t->save_seconds += mbl_lap(&start);
    return status;
}

/* Where this step will be saved too, the write before has to end first; waiting here, before the step is
 * reported, means that a run that dies has lost one reported step at most. */
static void await_write(train_t *t) {
    double start = mbl_now();
    mbl_state_saved(&t->state, due(t->state.step - 1, t->state.step, t->config->checkpoint.every));
    t->save_seconds += mbl_lap(&start);
}

static mbl_status_t finish_step(train_t *t, double start, mbl_step_report_t *report, double before_seconds,
                                uint64_t before_bytes) {
    report->step = t->state.step;
    report->epoch = t->state.epoch;
    report->samples = t->batch.n_global;
    report->seconds.comm = t->comm->seconds - before_seconds;
    report->bytes_comm = t->comm->bytes - before_bytes;
    await_write(t);
    MBL_TRY(mbl_policy_deviation(&t->state.policy, &report->old_deviate));
    MBL_TRY(look_for_alarms(t, report));
    report->seconds.checkpoint = t->save_seconds;
    report->seconds.total = mbl_now() - start + t->save_seconds;
    t->save_seconds = 0;
    t->mean_seconds =
        t->mean_seconds > 0 ? 0.9 * t->mean_seconds + 0.1 * report->seconds.total : report->seconds.total;
    MBL_TRY(mbl_report_metrics(&t->rundir, &t->state, report));
    if (t->comm->rank == 0)
        mbl_report_progress(&t->state, report,
                            t->mean_seconds * (double)(t->config->train.steps - t->state.step));
    return MBL_OK;
}

/* Whether one of the coming epoch's optimizer steps is one whose advantages are asked for: the first and
 * every advantages_every-th from there. */
static bool advantages_due(const train_t *t) {
    size_t every = t->config->log.advantages_every;
    size_t steps = t->config->train.inner_epochs * t->config->train.updates_per_epoch;
    return every > 0 && (t->state.step % every == 0 || t->state.step % every + steps > every);
}

/* Rollout, then inner_epochs * updates_per_epoch optimizer steps. A stop is heeded until the first update
 * only: checkpoints stand between epochs. */
static mbl_status_t epoch(train_t *t) {
    const mbl_config_t *config = t->config;
    mbl_step_report_t report;
    bool updated = false;
    memset(&report, 0, sizeof report);
    double start = mbl_now(), comm_seconds = t->comm->seconds;
    uint64_t bytes = t->comm->bytes;
    MBL_TRY(collect(t, &report));
    if (advantages_due(t))
        MBL_TRY(mbl_report_advantages(t->comm, &t->rundir, &t->state, &t->batch, t->a));
    for (size_t inner = 0; inner < config->train.inner_epochs; inner++)
        for (size_t slice = 0; slice < config->train.updates_per_epoch && t->state.step < config->train.steps;
             slice++) {
            MBL_TRY(update(t, inner, slice, updated ? NULL : t->stop, &report));
            updated = true;
            MBL_TRY(finish_step(t, start, &report, comm_seconds, bytes));
            start = mbl_now();
            comm_seconds = t->comm->seconds;
            bytes = t->comm->bytes;
            memset(&report.seconds, 0, sizeof report.seconds);
        }
    t->state.epoch++;
    t->state.constraint = t->constraint;
    return mbl_policy_follow(&t->state.policy,
                             mbl_policy_hold(t->state.step, (double)config->train.old_decay.flat,
                                             config->train.old_decay.rate, config->train.old_decay.hold));
}

/* ---- the run ---- */

/* Scores of the adapter (NULL: the base model) and, where there is one, their difference to the base model's.
 */
static mbl_status_t evaluate(train_t *t, const mbl_adapter_t *adapter, uint64_t step, bool samples,
                             mbl_eval_score_t *scores, mbl_eval_score_t *change) {
    MBL_TRY(mbl_evaluator_run(t->evaluator, adapter, scores));
    if (adapter)
        MBL_TRY(mbl_evaluator_compare(t->evaluator, change));
    MBL_TRY(mbl_rundir_eval(&t->rundir, step, t->config, scores, adapter ? change : NULL));
    return samples ? mbl_rundir_samples(&t->rundir, step, t->evaluator) : MBL_OK;
}

/* The base model's scores: what the trained adapter is compared with, picture by picture, at the end. */
static mbl_status_t evaluate_base(train_t *t) {
    if (t->state.step == 0)
        MBL_TRY(evaluate(t, NULL, 0, t->config->log.samples_every > 0, t->base, NULL));
    else
        MBL_TRY(mbl_evaluator_run(t->evaluator, NULL, t->base));
    mbl_evaluator_keep(t->evaluator);
    return MBL_OK;
}

static mbl_status_t observe(train_t *t, uint64_t before) {
    const mbl_config_t *config = t->config;
    mbl_eval_score_t scores[MBL_MAX_REWARDS], change[MBL_MAX_REWARDS];
    uint64_t now = t->state.step;
    bool last = now >= config->train.steps, samples = due(before, now, config->log.samples_every);
    if (last || due(before, now, config->checkpoint.every))
        MBL_TRY(save(t, last));
    if (!last && (samples || due(before, now, config->eval.every)))
        MBL_TRY(evaluate(t, &t->state.policy.in_ema, now, samples, scores, change));
    return MBL_OK;
}

static mbl_status_t close_run(train_t *t) {
    mbl_eval_score_t trained[MBL_MAX_REWARDS], difference[MBL_MAX_REWARDS];
    MBL_TRY(evaluate(t, &t->state.policy.in_ema, t->state.step, t->config->log.samples_every > 0, trained,
                     difference));
    if (t->comm->rank == 0)
        mbl_report_table(t->config, t->base, trained, difference);
    return MBL_OK;
}

/* Ends the run, with a checkpoint, at an alarm where alarms.on_alarm asks for it. */
static mbl_status_t heed_alarms(train_t *t) {
    mbl_status_t verdict = mbl_watch_verdict(t->comm, t->config, &t->alarms, t->alarm_step);
    if (verdict == MBL_ERR_ALARM && !t->alarms.found[MBL_ALARM_replica_mismatch]) /* which rank to believe? */
        MBL_TRY(save(t, true));
    return verdict;
}

static mbl_status_t run(train_t *t) {
    MBL_TRY(evaluate_base(t));
    while (t->state.step < t->config->train.steps) {
        uint64_t before = t->state.step;
        mbl_status_t asked = mbl_stop_check() ? MBL_ERR_STOPPED : MBL_OK;
        MBL_TRY(mbl_comm_agree(t->comm, asked));
        MBL_TRY(epoch(t));
        MBL_TRY(heed_alarms(t));
        MBL_TRY(observe(t, before));
    }
    return close_run(t);
}

/* Stopped before an update: the state is that of the last whole epoch. */
static mbl_status_t save_stopped(train_t *t) {
    MBL_TRY(save(t, true));
    MBL_INFO("stopped at step %llu of %zu; go on with: marble train %s/run.yaml --out %s --resume auto",
             (unsigned long long)t->state.step, t->config->train.steps, t->out_dir, t->out_dir);
    return MBL_ERR_STOPPED;
}

mbl_status_t mbl_train(const mbl_config_t *config, mbl_comm_t *comm, const char *out_dir,
                       const char *resume) {
    char checkpoint[1024];
    train_t t;
    memset(&t, 0, sizeof t);
    t.config = config;
    t.comm = comm;
    t.out_dir = out_dir;
    t.stop = mbl_stop_catch(mbl_stop_seconds(config->limits.seconds, config->limits.margin));
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_rundir_make(comm, out_dir), done);
    MBL_TRY_GOTO(mbl_comm_agree(comm, open_parts(&t)), done);
    MBL_TRY_GOTO(mbl_rundir_resume(comm, out_dir, resume, checkpoint, sizeof checkpoint), done);
    MBL_TRY_GOTO(mbl_state_load(&t.state, checkpoint), done);
    MBL_TRY_GOTO(mbl_rundir_open(comm, out_dir, config, t.state.step, &t.rundir), done);
    status = run(&t);
    if (status == MBL_ERR_STOPPED)
        status = save_stopped(&t);
done:
    close_parts(&t);
    mbl_stop_release();
    return status;
}
