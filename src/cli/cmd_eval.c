/* marble eval: every reward's mean and interval on the held-out prompts. */
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "train/report.h"
#include "train/stop.h"

#include <stdlib.h>

static const char about[] =
    "Generates pictures for the held-out prompts of RUN.yaml and scores them with every reward: mean and\n"
    "95 % interval for the base model and, with --checkpoint, for the trained adapter (its EMA, the one\n"
    "that runs report) and the paired difference:\n"
    "    marble eval run.yaml\n"
    "    marble eval runs/run/run.yaml --checkpoint runs/run/checkpoints/latest.h5 --json";

typedef struct {
    const char *checkpoint, *adapter;
    bool json;
} options_t;

typedef struct {
    mbl_engine_t engine;
    mbl_state_t state;
    mbl_evaluator_t *evaluator;
    mbl_sampler_plan_t plan;
} eval_t;

static mbl_status_t open_eval(const mbl_config_t *config, mbl_comm_t *comm, const options_t *options,
                              eval_t *e) {
    MBL_TRY(mbl_engine_open(config, comm, &e->engine));
    MBL_TRY(mbl_state_new(&e->engine, &e->state));
    if (options->checkpoint)
        MBL_TRY(mbl_state_load_adapters(&e->state, options->checkpoint));
    MBL_TRY(mbl_sampler_plan(config->eval.solver, config->eval.steps, config->rollout.shift, &e->plan));
    mbl_evaluator_options_t evaluator = {.comm = comm,
                                         .pipeline = e->engine.pipeline,
                                         .lora = e->state.lora,
                                         .panel = e->engine.panel,
                                         .set = &e->engine.test,
                                         .k = e->engine.k,
                                         .pictures = config->eval.prompts,
                                         .micro_batch = config->rollout.micro_batch,
                                         .plan = &e->plan,
                                         .seed = config->eval.seed,
                                         .stop = mbl_stop_catch(0)};
    return mbl_evaluator_new(&evaluator, &e->evaluator);
}

static json_t *scores_json(const mbl_config_t *config, const mbl_eval_score_t *scores) {
    json_t *object = json_object();
    for (size_t k = 0; k < config->rewards.count; k++)
        json_object_set_new(object, config->rewards.items[k].name,
                            json_pack("{s:f,s:f,s:I,s:I,s:I}", "mean", scores[k].mean, "ci95", scores[k].ci95,
                                      "n", (json_int_t)scores[k].n, "na", (json_int_t)scores[k].na, "failed",
                                      (json_int_t)scores[k].failed));
    return object;
}

static mbl_status_t print_json(const mbl_config_t *config, const mbl_eval_score_t *base,
                               const mbl_eval_score_t *trained, const mbl_eval_score_t *difference) {
    json_t *object = json_pack("{s:o}", "base", scores_json(config, base));
    if (trained) {
        json_object_set_new(object, "trained", scores_json(config, trained));
        json_object_set_new(object, "difference", scores_json(config, difference));
    }
    char *text = json_dumps(object, JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "eval: no memory for the JSON");
    puts(text);
    free(text);
    return MBL_OK;
}

static void print_base(const mbl_config_t *config, const mbl_eval_score_t *base) {
    printf("%-12s %8s %12s %8s %6s %7s\n", "reward", "base", "95 %", "pictures", "N/A", "failed");
    for (size_t k = 0; k < config->rewards.count; k++)
        printf("%-12s %8.4f +- %9.4f %8zu %6zu %7zu\n", config->rewards.items[k].name, base[k].mean,
               base[k].ci95, base[k].n, base[k].na, base[k].failed);
}

static mbl_status_t run_eval(const mbl_config_t *config, mbl_comm_t *comm, const options_t *options,
                             eval_t *e) {
    mbl_eval_score_t base[MBL_MAX_REWARDS], trained[MBL_MAX_REWARDS], difference[MBL_MAX_REWARDS];
    MBL_TRY(open_eval(config, comm, options, e));
    MBL_TRY(mbl_evaluator_run(e->evaluator, NULL, base));
    if (options->checkpoint) {
        const mbl_policy_t *policy = &e->state.policy;
        mbl_evaluator_keep(e->evaluator);
        MBL_TRY(mbl_evaluator_run(
            e->evaluator, options->adapter[0] == 'c' ? &policy->in_current : &policy->in_ema, trained));
        MBL_TRY(mbl_evaluator_compare(e->evaluator, difference));
    }
    if (comm->rank != 0)
        return MBL_OK;
    if (options->json)
        return print_json(config, base, options->checkpoint ? trained : NULL, difference);
    if (options->checkpoint)
        mbl_report_table(config, base, trained, difference);
    else
        print_base(config, base);
    return MBL_OK;
}

static mbl_status_t eval(const mbl_config_t *config, mbl_comm_t *comm, const options_t *options) {
    eval_t e = {.evaluator = NULL};
    mbl_status_t status = run_eval(config, comm, options, &e);
    mbl_evaluator_free(e.evaluator);
    mbl_state_free(&e.state);
    mbl_engine_close(&e.engine);
    return status;
}

int mbl_cmd_eval(int argc, char **argv) {
    options_t options = {NULL, "ema", false};
    bool helped = false;
    mbl_arg_texts_t sets = {NULL, 0}, rest = {NULL, 0};
    static const char *const adapters[] = {"ema", "current", NULL};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE",
         "overrides a key of RUN.yaml, as in --set eval.prompts=768", 0, 0, 0, NULL},
        {"checkpoint", MBL_ARG_TEXT, &options.checkpoint, "FILE",
         "compare this checkpoint's adapter with the base", 0, 0, 0, NULL},
        {"adapter", MBL_ARG_CHOICE, &options.adapter, "NAME",
         "of the checkpoint: the average of weights, or the weights", 0, 0, 0, adapters},
        {"json", MBL_ARG_FLAG, &options.json, NULL,
         "one JSON object: base (trained, difference), by reward mean, ci95, n", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"eval", "RUN.yaml", about, args, sizeof args / sizeof *args, 1, 1};
    mbl_run_t run;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = mbl_run_open(rest.items[0], &sets, mbl_config_check, &run);
    int code = mbl_status_exit_code(status);
    if (status == MBL_OK)
        code = mbl_run_close(&run, eval(run.config, run.comm, &options));
    mbl_free(rest.items);
    mbl_free(sets.items);
    return code;
}
