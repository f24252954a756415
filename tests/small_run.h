/* Runs of half a second on the example's model: what marble train says, in log.txt and on the terminal, of
 * runs that are not as they seem. */
#ifndef MBL_TESTS_SMALL_RUN_H
#define MBL_TESTS_SMALL_RUN_H

#include "runs.h"

/* Run.yaml of folder; two steps of 4 groups of 2 images, evaluated on 4. */
static inline int prepare_small(void **state) {
    static const char config[] =
        "seed: 42\nthreads: 1\nmodel: {path: \"%s/deploy/examples/signs-base\", lora: {rank: 4, alpha: 8}}\n"
        "prompts: {groups: 4, group_size: 2}\n"
        "rollout: {steps: 2, solver: dpm2, schedule: linear, shift: 3.0, micro_batch: 8}\n"
        "train: {steps: 2, lr: 5.0e-4, beta: 1.0, kl: 0.01, micro_batch: 8, timestep_fraction: 1.0}\n"
        "rewards: [{name: ocr}, {name: count}, {name: color}, {name: clean}, {name: jpeg}]\n"
        "eval: {every: 0, prompts: 4, steps: 2}\ncheckpoint: {every: 1}\nlog: {samples_every: 0}\n";
    char text[2048];
    (void)state;
    snprintf(text, sizeof text, config, MBL_SOURCE_DIR);
    make_folder(text);
    return 0;
}

/* A file of folder with these lines. */
static inline void write_lines(const char *name, const char *lines) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_whole(path, lines, strlen(lines));
}

/* Options of a run whose training and test prompts are those of a file of folder. */
static inline const char *prompts_of(const char *name) {
    static char text[1024];
    snprintf(text, sizeof text,
             "--set prompts.source=file --set prompts.train=%s/%s --set prompts.test=%s/%s", folder, name,
             folder, name);
    return text;
}

/* How often `what` stands in a file of folder. */
static inline size_t times_in(const char *file, const char *what) {
    char path[1024];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    char *text = read_whole(path, NULL);
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    free(text);
    return n;
}

/* Fails, showing the file, unless `what` stands in it `count` times. */
static inline void check_times(const char *file, const char *what, size_t count) {
    size_t found = times_in(file, what);
    if (found == count)
        return;
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    char *text = read_whole(path, NULL);
    print_error("%s holds \"%s\" %zu times, expected %zu:\n%s\n", file, what, found, count, text);
    free(text);
    fail();
}

/* The run's terminal (OUT.log) and its log.txt both say it, once. */
static inline void both_say(const char *out, const char *what) {
    char file[300];
    snprintf(file, sizeof file, "%s.log", out);
    check_times(file, what, 1);
    snprintf(file, sizeof file, "%s/log.txt", out);
    check_times(file, what, 1);
}

#endif
