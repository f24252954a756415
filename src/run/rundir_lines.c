/* What a run has written about itself, read back and added to: evaluations, samples, lines. */
#include "run/rundir.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

bool mbl_rundir_of(const char *checkpoint, char *out) {
    static const char parent[] = "checkpoints";
    if (!realpath(checkpoint, out))
        return false;
    *strrchr(out, '/') = 0;
    char *slash = strrchr(out, '/');
    if (!slash || slash == out || strcmp(slash + 1, parent) != 0)
        return false;
    *slash = 0;
    return true;
}

mbl_status_t mbl_rundir_lines(const char *checkpoint, const char *name, size_t step, json_t **out) {
    char folder[PATH_MAX], path[PATH_MAX + 32] = ""; /* the empty path is no file */
    if (mbl_rundir_of(checkpoint, folder))
        snprintf(path, sizeof path, "%s/%s", folder, name);
    return mbl_jsonl_read(path, step, out);
}

const json_t *mbl_rundir_rewards(const json_t *line) {
    const json_t *rewards = json_object_get(line, "rewards");
    return json_is_object(rewards) && !json_object_get(rewards, "mean") ? rewards : line;
}

const json_t *mbl_rundir_alpha(const json_t *line, bool average) {
    const json_t *alpha = json_object_get(line, "alpha"), *ema = json_object_get(line, "alpha_ema");
    const json_t *raw = json_object_get(line, "alpha_raw");
    const json_t *found = average ? (ema ? ema : alpha) : ema || !raw ? alpha : raw;
    return json_is_object(found) ? found : NULL;
}

bool mbl_rundir_trained(const json_t *line, const char *reward) {
    return !json_is_false(json_object_get(json_object_get(line, "trained"), reward));
}

/* The best step of one reward by the lines of eval.jsonl; false when there is none with a checkpoint. */
static bool best_step(const char *path, const json_t *lines, const char *reward, size_t *out) {
    double best = 0;
    bool found = false;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        const json_t *mean = json_object_get(json_object_get(mbl_rundir_rewards(line), reward), "mean");
        size_t step = (size_t)json_integer_value(json_object_get(line, "step"));
        char file[600];
        int length = snprintf(file, sizeof file, "%s/checkpoints/step-%06zu.h5", path, step);
        if (!json_is_number(mean) || length < 0 || (size_t)length >= sizeof file || !mbl_file_exists(file) ||
            (found && json_number_value(mean) <= best))
            continue;
        found = true;
        best = json_number_value(mean);
        *out = step;
    }
    return found;
}

mbl_status_t mbl_rundir_best(const char *path, const mbl_config_t *config, size_t step, size_t *steps,
                             size_t *n) {
    const mbl_config_strings_t *rewards = &config->checkpoint.keep.best;
    char file[600];
    json_t *lines;
    *n = 0;
    if (rewards->count == 0)
        return MBL_OK;
    MBL_TRY(mbl_rundir_join(path, "eval.jsonl", file, sizeof file));
    MBL_TRY(mbl_jsonl_read(file, step, &lines));
    for (size_t k = 0; k < rewards->count; k++)
        *n += best_step(path, lines, rewards->items[k], &steps[*n]);
    json_decref(lines);
    return MBL_OK;
}

static json_t *score_object(const mbl_eval_score_t *score, const mbl_eval_score_t *change) {
    json_t *one = json_pack("{s:o,s:o,s:I,s:I,s:I,s:I}", "mean", mbl_jsonl_real(score->mean), "ci95",
                            mbl_jsonl_real(score->ci95), "n", (json_int_t)score->n, "prompts",
                            (json_int_t)score->prompts, "na", (json_int_t)score->na, "failed",
                            (json_int_t)score->failed);
    if (change) {
        json_object_set_new(one, "change", mbl_jsonl_real(change->mean));
        json_object_set_new(one, "change_ci95", mbl_jsonl_real(change->ci95));
    }
    return one;
}

/* NULL without sources. */
static json_t *sources_object(const mbl_config_t *config, const mbl_prompts_t *set,
                              const mbl_evaluator_t *evaluator) {
    json_t *out = set->n_sources > 0 ? json_object() : NULL;
    for (size_t s = 0; s < set->n_sources; s++) {
        mbl_eval_score_t scores[MBL_MAX_REWARDS];
        json_t *rewards = json_object();
        mbl_evaluator_source(evaluator, s, scores);
        for (size_t k = 0; k < config->rewards.count; k++)
            json_object_set_new(rewards, config->rewards.items[k].name,
                                json_pack("{s:o,s:o,s:I,s:I}", "mean", mbl_jsonl_real(scores[k].mean), "ci95",
                                          mbl_jsonl_real(scores[k].ci95), "n", (json_int_t)scores[k].n,
                                          "prompts", (json_int_t)scores[k].prompts));
        json_object_set_new(out, set->sources[s].name, rewards);
    }
    return out;
}

mbl_status_t mbl_rundir_eval(mbl_rundir_t *rundir, size_t step, const mbl_config_t *config,
                             const mbl_prompt_set_t *set, const mbl_eval_score_t *scores,
                             const mbl_eval_score_t *change, const mbl_evaluator_t *evaluator) {
    char line[1024] = "", text[64], date[32];
    if (!rundir->evals)
        return MBL_OK;
    json_t *rewards = json_object();
    for (size_t k = 0, used = 0; k < config->rewards.count; k++) {
        const char *name = config->rewards.items[k].name;
        json_object_set_new(rewards, name, score_object(&scores[k], change ? &change[k] : NULL));
        if (used < sizeof line)
            used += (size_t)snprintf(line + used, sizeof line - used, "  %s%s", name,
                                     mbl_eval_text(&scores[k], text));
    }
    MBL_INFO("eval at step %zu%s", step, line);
    return mbl_jsonl_write(rundir->evals,
                           json_pack("{s:I,s:s,s:{s:I,s:s%},s:o,s:o*}", "step", (json_int_t)step, "time",
                                     mbl_date(date), "prompts", "count", (json_int_t)set->prompts.count,
                                     "sha256", set->digest, (size_t)12, "rewards", rewards, "sources",
                                     evaluator ? sources_object(config, &set->prompts, evaluator) : NULL));
}

/* What is on the sheet, in a file beside it. */
static mbl_status_t write_about(const mbl_rundir_t *rundir, const char *sheet, size_t step, uint64_t seed,
                                json_t *about) {
    char path[600];
    snprintf(path, sizeof path, "%.*s.json", (int)(strlen(sheet) - strlen(".png")), sheet);
    if (!about || json_object_set_new(about, "step", json_integer((json_int_t)step)) != 0 ||
        json_object_set_new(about, "seed", json_integer((json_int_t)seed)) != 0 ||
        json_object_set_new(about, "run", json_string(rundir->run)) != 0)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for it", path);
    return mbl_json_write(path, about);
}

/* With what it takes to draw these images again; pretraining's model is that of no file. */
static mbl_status_t write_sheet(const mbl_rundir_t *rundir, const char *path, size_t step,
                                const mbl_config_t *config, const mbl_evaluator_t *evaluator) {
    char title[128], number[32], seed[32], steps[32], shift[32], guidance[32];
    const mbl_evaluator_options_t *drawn = mbl_evaluator_options(evaluator);
    mbl_image_t sheet;
    snprintf(title, sizeof title, "step %zu", step);
    snprintf(number, sizeof number, "%zu", step);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)drawn->seed);
    snprintf(steps, sizeof steps, "%zu", config->eval.steps);
    snprintf(shift, sizeof shift, "%g", config->rollout.shift);
    snprintf(guidance, sizeof guidance, "%g", config->eval.guidance);
    const mbl_image_text_t texts[] = {{"run", rundir->run},
                                      {"step", number},
                                      {"seed", seed},
                                      {"steps", steps},
                                      {"solver", mbl_config_word("eval.solver", (int)config->eval.solver)},
                                      {"schedule", mbl_sigma_schedule_text(config->rollout.schedule)},
                                      {"shift", shift},
                                      {"guidance", guidance},
                                      {"negative", config->eval.negative},
                                      {"software", "marble " MBL_VERSION},
                                      {"model", config->model.path},
                                      {"model_digest", mbl_pipeline_digest(drawn->pipeline)}};
    size_t n = sizeof texts / sizeof *texts - (drawn->lora ? 0 : 2);
    json_t *about;
    MBL_TRY(mbl_evaluator_sheet(evaluator, 32, title, &sheet, &about));
    mbl_status_t status = mbl_image_write_png_text(path, &sheet, texts, n);
    mbl_image_free(&sheet);
    if (status == MBL_OK)
        status = write_about(rundir, path, step, drawn->seed, about);
    json_decref(about);
    return status;
}

mbl_status_t mbl_rundir_samples(mbl_rundir_t *rundir, size_t step, const mbl_config_t *config,
                                const mbl_evaluator_t *evaluator) {
    char name[64], path[512];
    if (!rundir->evals)
        return MBL_OK;
    snprintf(name, sizeof name, "samples/step-%06zu.png", step);
    MBL_TRY(mbl_rundir_join(rundir->path, name, path, sizeof path));
    mbl_fail_quiet(1);
    mbl_status_t status = write_sheet(rundir, path, step, config, evaluator);
    mbl_fail_quiet(0);
    if (status == MBL_ERR_IO) { /* a full disk costs a sheet, and no run */
        MBL_WARN("%s; %zu sheet%s of samples lost so far, the run goes on", mbl_fail_message(),
                 rundir->lost_samples + 1, rundir->lost_samples ? "s" : "");
        rundir->lost_samples++;
        return MBL_OK;
    }
    return status == MBL_OK ? MBL_OK : MBL_FAIL(status, "%s", mbl_fail_message());
}
