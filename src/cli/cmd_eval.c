/* marble eval: the base and checkpoints on the same prompts from the same noise, compared by every reward. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/run_args.h"
#include "eval/results.h"
#include "run/prompt_report.h"
#include "run/stop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char about[] =
    "Draws images for held-out prompts with the base model, with checkpoints (their EMA, the adapter that\n"
    "runs report) and with adapters of others, all from the same noise, and scores them with every reward\n"
    "of RUN.yaml: means, differences image by image and win rates, with 95 % intervals by bootstrap over\n"
    "the prompts.\n"
    "    marble eval run.yaml                                            # the base model alone\n"
    "    marble eval run.yaml --checkpoint runs/run/checkpoints/latest.h5\n"
    "    marble eval run.yaml --checkpoint runs/a/checkpoints/latest.h5 \\\n"
    "        --checkpoint other=runs/b/checkpoints/step-000080.h5 --prompts test --prompts drawbench.txt \\\n"
    "        --seeds 1,2,3 --json scores.json --markdown scores.md      # both, and against each other\n"
    "    marble eval run.yaml --checkpoint runs/a/checkpoints/latest.h5 --lora theirs=adapter.safetensors\n"
    "Every set shows eval.prompts images for each seed; --set eval.prompts=N changes that. Any number of\n"
    "ranks under mpirun gives the same answer. Ctrl-C, SIGTERM or SIGUSR1 ends it with exit code 1;\n"
    "what was drawn by then is not kept.";

typedef struct {
    mbl_arg_texts_t sets, checkpoints, loras, prompts;
    const char *adapter, *seeds_text, *json, *markdown;
    size_t resamples, n_seeds;
    bool quiet;
    uint64_t *seeds;
} options_t;

/* ---- what the command line says ---- */

static mbl_status_t add_seed(options_t *o, const char *word, size_t length) {
    static const uint64_t largest = 1ull << 53; /* what JSON carries exactly, as for eval.seed */
    bool digits = length > 0 && length < 18 && strspn(word, "0123456789") == length;
    uint64_t seed = digits ? strtoull(word, NULL, 10) : 0;
    if (!digits || seed > largest)
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "eval: --seeds: \"%.60s\": \"%.*s\" is no whole number up to 2^53; expected a list such as "
            "1,2,3",
            o->seeds_text, (int)(length < 40 ? length : 40), word);
    for (size_t i = 0; i < o->n_seeds; i++)
        if (o->seeds[i] == seed)
            return MBL_FAIL(MBL_ERR_USAGE, "eval: --seeds: \"%.60s\": %.*s is there twice; expected once",
                            o->seeds_text, (int)length, word);
    o->seeds[o->n_seeds++] = seed;
    return MBL_OK;
}

static mbl_status_t read_seeds(options_t *o) {
    if (!o->seeds_text)
        return MBL_OK;
    MBL_ALLOC(o->seeds, strlen(o->seeds_text) / 2 + 1);
    for (const char *word = o->seeds_text;;) {
        size_t length = strcspn(word, ",");
        MBL_TRY(add_seed(o, word, length));
        if (!word[length])
            return MBL_OK;
        word += length + 1;
    }
}

/* Before hours of drawing: can the answer be put where it shall go? */
static mbl_status_t check_output(const char *option, const char *path) {
    if (!path || strcmp(path, "-") == 0)
        return MBL_OK;
    const char *slash = strrchr(path, '/');
    char *folder = mbl_format("%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (!folder)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    mbl_status_t status = MBL_OK;
    if (mbl_folder_exists(path))
        status = MBL_FAIL(MBL_ERR_USAGE, "eval: --%s: %s is a folder; expected a file in it", option, path);
    else if (access(folder, W_OK) != 0)
        status = MBL_FAIL(MBL_ERR_USAGE, "eval: --%s: %s cannot be written: %s: %s", option, path, folder,
                          strerror(errno));
    mbl_free(folder);
    return status;
}

static mbl_status_t check_options(options_t *o) {
    MBL_TRY(read_seeds(o));
    if (o->json && o->markdown && strcmp(o->json, "-") == 0 && strcmp(o->markdown, "-") == 0)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "eval: --json and --markdown both to standard output; expected a file for one of "
                        "them, as in --markdown scores.md");
    MBL_TRY(check_output("json", o->json));
    return check_output("markdown", o->markdown);
}

/* ---- what comes out ---- */

/* To a file, or to standard output where it is called "-". */
static mbl_status_t put_text(const char *path, const char *text, size_t size) {
    if (strcmp(path, "-") != 0)
        return mbl_file_write(path, text, size);
    if (fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0)
        return MBL_FAIL(MBL_ERR_IO, "eval: the answer cannot be written: %s", strerror(errno));
    return MBL_OK;
}

static mbl_status_t write_json(const mbl_results_t *results, const char *path) {
    json_t *root;
    MBL_TRY(mbl_results_json(results, &root));
    char *text = json_dumps(root, JSON_REAL_PRECISION(9));
    json_decref(root);
    char *line = text ? mbl_format("%s\n", text) : NULL;
    mbl_status_t status =
        line ? put_text(path, line, strlen(line)) : MBL_FAIL(MBL_ERR_MEM, "eval: no memory for the JSON");
    mbl_free(line);
    free(text);
    return status;
}

static mbl_status_t write_text(const mbl_results_t *results, bool markdown, const char *path) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return MBL_FAIL(MBL_ERR_MEM, "eval: no memory for a table");
    mbl_status_t status = mbl_results_print(results, markdown, out);
    if (fclose(out) != 0 && status == MBL_OK)
        status = MBL_FAIL(MBL_ERR_MEM, "eval: no memory for a table");
    if (status == MBL_OK)
        status = put_text(path, text, size);
    free(text);
    return status;
}

static bool to_output(const char *path) {
    return path && strcmp(path, "-") == 0;
}

/* Files before what goes to standard output, and each whether or not another could be written: a closed pipe
 * costs no file of hours of drawing. */
static mbl_status_t write_all(const mbl_results_t *results, const options_t *o) {
    bool table = !to_output(o->json) && !to_output(o->markdown);
    mbl_status_t status = MBL_OK, json = MBL_OK, markdown = MBL_OK;
    for (int output = 0; output < 2; output++) {
        if (o->json && to_output(o->json) == output)
            json = write_json(results, o->json);
        if (o->markdown && to_output(o->markdown) == output)
            markdown = write_text(results, true, o->markdown);
    }
    if (table)
        status = write_text(results, false, "-");
    return json != MBL_OK ? json : markdown != MBL_OK ? markdown : status;
}

static mbl_status_t answer(const mbl_comparison_t *comparison, const options_t *o) {
    mbl_results_t results;
    MBL_TRY(mbl_results_new(comparison, o->resamples, &results));
    mbl_status_t status = write_all(&results, o);
    mbl_results_free(&results);
    return status;
}

/* ---- running ---- */

static mbl_status_t report_set(const mbl_engine_t *engine, const mbl_comparison_set_t *set) {
    char *name = mbl_format("prompts of %s", set->name);
    mbl_status_t status =
        name ? mbl_prompt_report_set(engine, &set->set->prompts, name) : MBL_FAIL(MBL_ERR_MEM, "no memory");
    mbl_free(name);
    return status;
}

/* Whether a --set lays out adapters, which checkpoints do themselves. */
static bool sets_adapter(const mbl_arg_texts_t *sets) {
    static const char *const keys[] = {"model", "model.lora"};
    for (size_t i = 0; i < sets->count; i++) {
        const char *set = sets->items[i];
        size_t length = strcspn(set, "=");
        bool below = strncmp(set, "model.lora.", strlen("model.lora.")) == 0;
        for (size_t k = 0; k < 2; k++)
            if (below || (length == strlen(keys[k]) && strncmp(set, keys[k], length) == 0))
                return true;
    }
    return false;
}

static mbl_status_t line_up(mbl_engine_t *engine, const options_t *o) {
    const mbl_comparison_options_t options = {.checkpoints = o->checkpoints.items,
                                              .n_checkpoints = o->checkpoints.count,
                                              .loras = o->loras.items,
                                              .n_loras = o->loras.count,
                                              .prompts = o->prompts.items,
                                              .n_prompts = o->prompts.count,
                                              .seeds = o->seeds,
                                              .n_seeds = o->n_seeds,
                                              .adapter = o->adapter,
                                              .same_lora = sets_adapter(&o->sets)};
    mbl_comparison_t comparison;
    MBL_TRY(mbl_comparison_open(engine, &options, &comparison));
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < comparison.n_sets && status == MBL_OK; i++)
        status = report_set(engine, &comparison.sets[i]);
    status = mbl_comm_agree(engine->comm, status);
    if (status == MBL_OK)
        status = mbl_comparison_run(&comparison, mbl_stop_catch(0));
    if (status == MBL_OK)
        status = mbl_comm_agree(engine->comm, engine->comm->rank == 0 ? answer(&comparison, o) : MBL_OK);
    mbl_comparison_free(&comparison);
    mbl_stop_release();
    return status;
}

static mbl_status_t eval(const mbl_run_t *run, options_t *o) {
    mbl_engine_t engine;
    MBL_TRY(mbl_comm_agree(run->comm, check_options(o)));
    MBL_TRY(mbl_engine_open(run->config, run->comm, &engine));
    mbl_status_t status = mbl_comm_settle(run->comm, line_up(&engine, o)); /* closing needs the other ranks */
    mbl_engine_close(&engine);
    return status;
}

static mbl_status_t parse(int argc, char **argv, options_t *o, mbl_arg_texts_t *rest, bool *helped) {
    static const char *const adapters[] = {"ema", "current", NULL};
    const mbl_arg_t args[] = {
        {"set", MBL_ARG_TEXTS, &o->sets, "KEY=VALUE",
         "overrides a key of RUN.yaml, as in --set eval.prompts=768", 0, 0, 0, NULL},
        {"checkpoint", MBL_ARG_TEXTS, &o->checkpoints, "[NAME=]FILE",
         "a checkpoint to compare with the base and with the others", 0, 0, 0, NULL},
        {"lora", MBL_ARG_TEXTS, &o->loras, "[NAME=]FILE|DIR",
         "an adapter of others to compare with them: a file of diffusers' or kohya's names, or a folder of "
         "PEFT",
         0, 0, 0, NULL},
        {"adapter", MBL_ARG_CHOICE, &o->adapter, "NAME",
         "of the checkpoints: the average of weights, or the weights", 0, 0, 0, adapters},
        {"prompts", MBL_ARG_TEXTS, &o->prompts, "SET",
         "test (the default) or train, those of RUN.yaml, or a file: .txt, .jsonl", 0, 0, 0, NULL},
        {"seeds", MBL_ARG_TEXT, &o->seeds_text, "N,N,...", "of the starting noise; eval.seed unless given", 0,
         0, 0, NULL},
        {"resamples", MBL_ARG_COUNT, &o->resamples, "N", "of the bootstrap; 10000", 0, 100, 1e6, NULL},
        {"json", MBL_ARG_OUT, &o->json, "[FILE]", "the answer as JSON, to standard output without a FILE", 0,
         0, 0, NULL},
        {"markdown", MBL_ARG_OUT, &o->markdown, "[FILE]", "the same as Markdown", 0, 0, 0, NULL},
        MBL_ARG_QUIET(&o->quiet)};
    const mbl_args_t spec = {"eval", "RUN.yaml", about, args, sizeof args / sizeof *args, 1, 1};
    return mbl_args_parse(&spec, argc, argv, rest, helped);
}

/* Closes the run. Exit code 75 would promise a checkpoint to go on from, and there is none. */
static int close_eval(mbl_run_t *run, mbl_status_t status) {
    if (status == MBL_ERR_STOPPED && run->comm->rank == 0)
        MBL_WARN("eval: stopped by a signal; nothing of this comparison is kept");
    int code = mbl_run_close(run, status);
    return status == MBL_ERR_STOPPED ? 1 : code;
}

int mbl_cmd_eval(int argc, char **argv) {
    options_t o = {.adapter = "ema", .resamples = 10000};
    bool helped = false;
    mbl_arg_texts_t rest = {NULL, 0};
    mbl_run_t run;
    mbl_status_t status = parse(argc, argv, &o, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    mbl_log_set_quiet(o.quiet);
    status = mbl_run_open(rest.items[0], &o.sets, mbl_config_check, &run);
    int code = mbl_status_exit_code(status);
    if (status == MBL_OK)
        code = close_eval(&run, eval(&run, &o));
    mbl_free(o.seeds);
    mbl_free(o.checkpoints.items);
    mbl_free(o.loras.items);
    mbl_free(o.prompts.items);
    mbl_free(rest.items);
    mbl_free(o.sets.items);
    return code;
}
