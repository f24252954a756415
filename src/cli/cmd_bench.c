/* marble bench: runs one benchmark and prints a line per case. */
#include "base/mem.h"
#include "cli/args.h"
#include "cli/bench/bench.h"
#include "cli/commands.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    mbl_status_t (*run)(const mbl_bench_t *bench);
} benches[] = {
#define BENCH(name, summary) {#name, mbl_bench_##name},
    MBL_BENCHES(BENCH)
#undef BENCH
};
enum { SIDE = 512 }; /* of images, where nothing is said */
enum { N_BENCHES = sizeof benches / sizeof *benches };
#define BENCH_NAME(name, summary) " " #name
#define BENCH_HELP(name, summary) "\n    " #name ": " summary
static const char bench_names[] = "" MBL_BENCHES(BENCH_NAME);

mbl_status_t mbl_bench_measure(const mbl_bench_t *bench, mbl_status_t (*run)(void *context), void *context,
                               mbl_bench_time_t *out) {
    double start = 0, *seconds;
    for (int i = 0; i < 2; i++) {
        start = mbl_bench_now(bench);
        MBL_TRY(run(context));
    }
    double once = mbl_bench_now(bench) - start;
    size_t repeats = once < 2e-3 ? (size_t)(2e-3 / (once > 1e-6 ? once : 1e-6)) + 1 : 1;
    MBL_ALLOC(seconds, bench->runs);
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < bench->runs && status == MBL_OK; i++) {
        start = mbl_bench_now(bench);
        for (size_t j = 0; j < repeats && status == MBL_OK; j++)
            status = run(context);
        seconds[i] = (mbl_bench_now(bench) - start) / (double)repeats;
    }
    mbl_bench_time_t time = mbl_bench_time(seconds, bench->runs);
    mbl_free(seconds);
    MBL_TRY(status);
    *out = time;
    return MBL_OK;
}

static void print_text(const char *name, const char *what, const mbl_bench_time_t *time,
                       const mbl_bench_figure_t *figures, size_t n_figures) {
    printf("%-10s %-32s %10.3f ms (%.3f .. %.3f)", name, what, 1e3 * time->median, 1e3 * time->min,
           1e3 * time->max);
    for (size_t i = 0; i < n_figures; i++)
        if (figures[i].text)
            printf("  %s %s", figures[i].name, figures[i].text);
        else
            printf("  %s %.4g", figures[i].name, figures[i].value);
    printf("\n");
}

/* Counts without a decimal point. */
static json_t *value_of(const mbl_bench_figure_t *figure) {
    double value = figure->value;
    if (figure->text)
        return json_string(figure->text);
    return value == (double)(long)value ? json_integer((long)value) : json_real(value);
}

mbl_status_t mbl_bench_print(const mbl_bench_t *bench, const char *name, const char *what,
                             const mbl_bench_time_t *time, const mbl_bench_figure_t *figures,
                             size_t n_figures) {
    if (!bench->json) {
        print_text(name, what, time, figures, n_figures);
        return fflush(stdout) == 0 ? MBL_OK
                                   : MBL_FAIL(MBL_ERR_IO, "bench: standard output cannot be written");
    }
    json_t *line = json_pack("{s:s, s:s, s:[f,f,f]}", "bench", name, "case", what, "ms", 1e3 * time->median,
                             1e3 * time->min, 1e3 * time->max);
    bool failed = !line;
    for (size_t i = 0; i < n_figures && !failed; i++)
        failed = json_object_set_new(line, figures[i].name, value_of(&figures[i])) != 0;
    char *text = failed ? NULL : json_dumps(line, JSON_REAL_PRECISION(6));
    json_decref(line);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a line of JSON");
    int printed = printf("%s\n", text);
    free(text);
    return printed > 0 && fflush(stdout) == 0
               ? MBL_OK
               : MBL_FAIL(MBL_ERR_IO, "bench: standard output cannot be written");
}

static mbl_status_t run_named(const char *name, const mbl_bench_t *bench) {
    for (size_t i = 0; i < N_BENCHES; i++)
        if (strcmp(benches[i].name, name) == 0)
            return benches[i].run(bench);
    return MBL_FAIL(MBL_ERR_USAGE, "\"%.60s\": no such benchmark; there are:%s", name, bench_names);
}

int mbl_cmd_bench(int argc, char **argv) {
    mbl_bench_t bench = {
        .device = "auto", .runs = 15, .samples = 96, .tokens = 205, .batch = 1, .graphs = "on"};
    static const char *const switches[] = {"on", "off", NULL};
    size_t threads = 0;
    const mbl_arg_t args[] = {
        {"json", MBL_ARG_FLAG, &bench.json, NULL, "one JSON object a line, times in ms", 0, 0, 0, NULL},
        {"device", MBL_ARG_TEXT, &bench.device, "NAME", "auto, cpu or cuda", 0, 0, 0, NULL},
        {"threads", MBL_ARG_COUNT, &threads, "N", "threads; 0: OMP_NUM_THREADS, or the CPUs it may use", 0, 0,
         4096, NULL},
        {"runs", MBL_ARG_COUNT, &bench.runs, "N", "timed runs of every case", 0, 1, 100000, NULL},
        {"cpu-time", MBL_ARG_FLAG, &bench.cpu_time, NULL,
         "seconds of all threads instead of the wall clock's: for one thread on a busy machine", 0, 0, 0,
         NULL},
        {"profile", MBL_ARG_FLAG, &bench.profile, NULL, "step, pass: the time of every operation too", 0, 0,
         0, NULL},
        {"samples", MBL_ARG_COUNT, &bench.samples, "N", "samples of a batch in step, gradients and gram", 0,
         1, 4096, NULL},
        {"url", MBL_ARG_TEXT, &bench.url, "URL",
         "requests: also to this server of the Open Inference Protocol", 0, 0, 0, NULL},
        {"model", MBL_ARG_TEXT, &bench.model, "NAME",
         "requests: its model; velocity, decode: a model's folder; pass: a config.json, a folder, or signs",
         0, 0, 0, NULL},
        {"size", MBL_ARG_COUNT, &bench.size, "N",
         "velocity, decode: side of the images, in pixels (512); pass: of the latents (the model's own)", 0,
         1, 65536, NULL},
        {"tokens", MBL_ARG_COUNT, &bench.tokens, "N", "velocity, pass: tokens of a prompt", 0, 1, 65536,
         NULL},
        {"batch", MBL_ARG_COUNT, &bench.batch, "N", "velocity, decode, pass: images at once", 0, 1, 4096,
         NULL},
        {"graphs", MBL_ARG_CHOICE, &bench.graphs, "on|off", "pass: recorded parts as CUDA graphs", 0, 0, 0,
         switches},
    };
    const mbl_args_t spec = {
        "bench",
        "NAME",
        "Times one of these and prints a line per case (median, fastest, slowest):" MBL_BENCHES(BENCH_HELP),
        args,
        sizeof args / sizeof *args,
        1,
        1};
    mbl_arg_texts_t rest;
    bool helped = false;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    bench.threads = (int)threads;
    if (bench.size == 0 && strcmp(rest.items[0], "pass") != 0)
        bench.size = SIDE;
    status = run_named(rest.items[0], &bench);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
