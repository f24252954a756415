/* Model cards. */
#include "export/card.h"

#include "base/file.h"
#include "base/mem.h"
#include "config/yaml.h"
#include "data/chart.h"
#include "io/checkpoint.h"
#include "run/rundir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A number of line -> key -> reward (-> field), NaN when it is not there. */
static double number_at(const json_t *line, const char *key, const char *reward, const char *field) {
    const json_t *value = json_object_get(key ? json_object_get(line, key) : line, reward);
    if (field)
        value = json_object_get(value, field);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* ---- alpha.png ---- */

_Static_assert((int)MBL_MAX_REWARDS <= (int)MBL_CHART_MAX_LINES, "a line for every reward");

static mbl_status_t draw_alpha(const mbl_card_t *card, const json_t *metrics, const char *path) {
    const mbl_config_t *config = card->config;
    size_t n = json_array_size(metrics), k = config->rewards.count;
    mbl_chart_line_t lines[MBL_CHART_MAX_LINES];
    double *numbers;
    mbl_image_t image;
    MBL_ALLOC(numbers, n * (k + 1));
    for (size_t i = 0; i < n; i++) {
        const json_t *line = json_array_get(metrics, i);
        numbers[i] = (double)json_integer_value(json_object_get(line, "step"));
        for (size_t j = 0; j < k; j++)
            numbers[(j + 1) * n + i] =
                number_at(mbl_rundir_alpha(line, true), NULL, config->rewards.items[j].name, NULL);
    }
    for (size_t j = 0; j < k; j++)
        lines[j] = (mbl_chart_line_t){.name = config->rewards.items[j].name, .y = numbers + (j + 1) * n};
    mbl_ckpt_origin_t origin;
    mbl_status_t status = mbl_ckpt_origin(card->checkpoint, &origin);
    if (status == MBL_OK)
        status = mbl_chart_draw("averaged alpha by optimizer step", numbers, n, lines, k, &image);
    if (status == MBL_OK) {
        char step[32];
        snprintf(step, sizeof step, "%zu", card->step);
        const mbl_image_text_t texts[] = {{"run", origin.run},
                                          {"step", step},
                                          {"model_digest", card->digest},
                                          {"software", "marble " MBL_VERSION}};
        status = mbl_image_write_png_text(path, &image, texts, sizeof texts / sizeof *texts);
        mbl_image_free(&image);
    }
    mbl_free(numbers);
    return status;
}

/* ---- README.md ---- */

/* One cell: mean and interval, as far as there are scores enough for them. */
static void write_score(FILE *out, const json_t *rewards, const char *name) {
    double mean = number_at(rewards, NULL, name, "mean"), ci95 = number_at(rewards, NULL, name, "ci95");
    double of = number_at(rewards, NULL, name, "prompts");
    if (isnan(of)) /* a line of an older version: its images */
        of = number_at(rewards, NULL, name, "n");
    if (isnan(mean))
        fputs(" - |", out);
    else if (isnan(ci95))
        fprintf(out, " %.4f |", mean);
    else
        fprintf(out, " %.4f +- %.4f%s |", mean, ci95, of < MBL_EVAL_FEW ? "*" : "");
}

static void write_rewards(FILE *out, const mbl_card_t *card, const json_t *evals) {
    size_t n = json_array_size(evals);
    const json_t *first = json_array_get(evals, 0), *last = json_array_get(evals, n ? n - 1 : 0);
    const json_t *before = mbl_rundir_rewards(first), *after = mbl_rundir_rewards(last);
    if (n < 2)
        return;
    fprintf(
        out,
        "\n## Rewards on held-out prompts\n\nMean and 95 %% interval (* from fewer than %d prompts), before "
        "(step %lld) and after (step %lld, averaged weights).\n\n| reward | before | after "
        "|\n|---|---|---|\n",
        MBL_EVAL_FEW, (long long)json_integer_value(json_object_get(first, "step")),
        (long long)json_integer_value(json_object_get(last, "step")));
    for (size_t k = 0; k < card->config->rewards.count; k++) {
        const char *name = card->config->rewards.items[k].name;
        fprintf(out, "| %s |", name);
        write_score(out, before, name);
        write_score(out, after, name);
        fputs("\n", out);
    }
}

static const char *base_name(const mbl_card_t *card) {
    const char *slash = strrchr(card->config->model.path, '/');
    return slash ? slash + 1 : card->config->model.path;
}

/* As text of Markdown, whatever it begins with. */
static void write_plain(FILE *out, const char *text) {
    for (const char *c = text; *c; c++)
        fprintf(out, strchr("\\`*_{}[]<>()#+-!|~&", *c) ? "\\%c" : (unsigned char)*c < 0x20 ? " " : "%c", *c);
}

static void write_text(FILE *out, const mbl_card_t *card, const json_t *evals, bool chart,
                       const char *config) {
    const mbl_config_t *c = card->config;
    fputs("---\nbase_model: ", out);
    mbl_yaml_write_quoted(out, base_name(card));
    fputs("\nlibrary_name: diffusers\npipeline_tag: text-to-image\ntags:\n- lora\n- "
          "reinforcement-learning\n---\n\n# ",
          out);
    write_plain(out, base_name(card));
    fputs(", fine-tuned on", out);
    for (size_t k = 0; k < c->rewards.count; k++)
        fprintf(out, "%s %s", k ? "," : "", c->rewards.items[k].name);
    fprintf(
        out,
        "\n\nMade by marble %s: LoRA of rank %zu, alpha %g, %zu weights, %zu optimizer steps, adapter `%s`, "
        "method `%s`. SHA-256 of\nthe base model's tensors: `%s`.\n\n%s",
        MBL_VERSION, c->model.lora.rank, c->model.lora.alpha, card->weights, card->step, card->adapter,
        mbl_config_word("balance.method", (int)c->balance.method), card->digest, card->how);
    fprintf(
        out,
        "\n## Noise schedule\n\nImages were drawn in training by solver `%s` in %zu steps, for evaluations "
        "by "
        "`%s` in %zu, with shift %g.\n",
        mbl_config_word("rollout.solver", (int)c->rollout.solver), c->rollout.steps,
        mbl_config_word("eval.solver", (int)c->eval.solver), c->eval.steps, c->rollout.shift);
    if (c->rollout.schedule == MBL_SCHEDULE_DIFFUSERS)
        fprintf(
            out,
            "The sigmas are those of diffusers' FlowMatchEulerDiscreteScheduler with `shift=%g`, which its "
            "pipeline\ntakes by itself.\n",
            c->rollout.shift);
    else
        fprintf(
            out,
            "`sigmas = numpy.linspace(1, 1 / steps, steps)`, each of which becomes `shift * s / (1 + (shift "
            "- 1) * s)`, then 0.\ndiffusers draws by the same sigmas where its scheduler has `shift=%g` "
            "and the pipeline is given these `sigmas`.\n",
            c->rollout.shift);
    write_rewards(out, card, evals);
    if (chart)
        fprintf(out, "\n## Weights of the rewards\n\n![averaged alpha by step](alpha.png)\n");
    fprintf(out, "\n## Configuration\n\n```json\n%s\n```\n", config);
}

static mbl_status_t write_readme(const mbl_card_t *card, const json_t *evals, bool chart, const char *path) {
    char *config, *text = NULL;
    size_t size = 0;
    MBL_TRY(mbl_config_json(card->config, &config));
    FILE *out = open_memstream(&text, &size);
    bool good = out != NULL;
    if (out) {
        write_text(out, card, evals, chart, config);
        good = fclose(out) == 0;
    }
    mbl_free(config);
    mbl_status_t status =
        good ? mbl_file_write(path, text, size) : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for it", path);
    free(text);
    return status;
}

static mbl_status_t write_both(const mbl_card_t *card, const json_t *evals, const json_t *metrics,
                               const char *folder) {
    char *readme = mbl_format("%s/README.md", folder), *alpha = mbl_format("%s/alpha.png", folder);
    bool chart = json_array_size(metrics) > 0;
    mbl_status_t status = MBL_OK;
    if (!readme || !alpha)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", folder);
    if (status == MBL_OK)
        status = mbl_folder_make(folder);
    if (status == MBL_OK && chart)
        status = draw_alpha(card, metrics, alpha);
    if (status == MBL_OK)
        status = write_readme(card, evals, chart, readme);
    mbl_free(readme);
    mbl_free(alpha);
    return status;
}

mbl_status_t mbl_card_write(const mbl_card_t *card, const char *folder) {
    json_t *evals = NULL, *metrics = NULL;
    mbl_status_t status = mbl_rundir_lines(card->checkpoint, "eval.jsonl", card->step, &evals);
    if (status == MBL_OK)
        status = mbl_rundir_lines(card->checkpoint, "metrics.jsonl", card->step, &metrics);
    if (status == MBL_OK)
        status = write_both(card, evals, metrics, folder);
    json_decref(evals);
    json_decref(metrics);
    return status;
}
