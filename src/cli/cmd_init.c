/* marble init: writes a run.yaml to begin with, from one of the examples that come with the program. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "config/config.h"
#include "config/yaml.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char about[] =
    "Writes RUN.yaml (run.yaml unless given; - is standard output) to begin with: the keys of an example,\n"
    "each with its range and meaning. Nothing is overwritten.\n"
    "    marble init                                            the built-in signs model and prompts\n"
    "    marble init --prompts train.txt --test held-out.txt    own prompts\n"
    "    marble init --model DIR --set train.lr=1e-4            own model, another value\n"
    "marble train RUN.yaml then trains; marble train --help-config shows every key there is.";

enum { PATH_SIZE = 4096 };

/* Where examples lie, beside build/marble or below the prefix of bin/marble. */
static const char *const places[] = {"../deploy/examples", "../share/marble/examples"};

static bool find_examples(char out[PATH_SIZE]) {
    char program[PATH_SIZE], path[PATH_SIZE + 32];
    struct stat about_it;
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0)
        return false;
    program[n] = 0;
    *strrchr(program, '/') = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", program, places[i]);
        char *real = realpath(path, NULL);
        bool found =
            real && strlen(real) < PATH_SIZE && stat(real, &about_it) == 0 && S_ISDIR(about_it.st_mode);
        if (found)
            strcpy(out, real);
        free(real);
        if (found)
            return true;
    }
    return false;
}

/* "quickstart, sd35" of the files NAME.yaml in a folder. */
static void list_examples(const char *folder, char *out, size_t size) {
    DIR *entries = opendir(folder);
    const struct dirent *entry;
    size_t used = 0;
    out[0] = 0;
    while (entries && (entry = readdir(entries)) && used < size) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot && strcmp(dot, ".yaml") == 0 && entry->d_name[0] != '.')
            used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? ", " : "",
                                     (int)(dot - entry->d_name), entry->d_name);
    }
    if (entries)
        closedir(entries);
}

static mbl_status_t find_example(const char *name, char out[PATH_SIZE + 300]) {
    char folder[PATH_SIZE], known[400];
    if (!find_examples(folder))
        return MBL_FAIL(MBL_ERR_IO,
                        "init: no examples beside the program; expected %s or %s from where it lies",
                        places[0], places[1]);
    snprintf(out, PATH_SIZE + 300, "%s/%.200s.yaml", folder, name);
    if (!strchr(name, '/') && access(out, R_OK) == 0)
        return MBL_OK;
    list_examples(folder, known, sizeof known);
    return MBL_FAIL(MBL_ERR_USAGE, "init: --from: \"%.60s\" is no example; expected one of %s", name, known);
}

/* What the options ask for, as overrides of the example; freed by free_sets. */
typedef struct {
    const char *items[64];
    char *own[4]; /* those that are made here */
    size_t count, owned;
} sets_t;

static mbl_status_t add_set(sets_t *sets, const char *key, const char *value) {
    char *quoted = mbl_yaml_quoted(value);
    char *text = quoted ? mbl_format("%s=%s", key, quoted) : NULL;
    mbl_free(quoted);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %s", key);
    sets->own[sets->owned++] = text;
    sets->items[sets->count++] = text;
    return MBL_OK;
}

static mbl_status_t make_sets(const char *model, const char *train, const char *test,
                              const mbl_arg_texts_t *given, sets_t *sets) {
    if (given->count > sizeof sets->items / sizeof *sets->items - 4)
        return MBL_FAIL(MBL_ERR_USAGE, "init: %zu --set; at most 60 fit, write the rest into the file",
                        given->count);
    if (!train != !test)
        return MBL_FAIL(MBL_ERR_USAGE, "init: --prompts and --test go together; expected the other one too");
    if (model)
        MBL_TRY(add_set(sets, "model.path", model));
    if (train) {
        sets->items[sets->count++] = "prompts.source=file";
        MBL_TRY(add_set(sets, "prompts.train", train));
        MBL_TRY(add_set(sets, "prompts.test", test));
    }
    for (size_t i = 0; i < given->count; i++)
        sets->items[sets->count++] = given->items[i];
    return MBL_OK;
}

static void free_sets(sets_t *sets) {
    for (size_t i = 0; i < sets->owned; i++)
        mbl_free(sets->own[i]);
}

/* To a file that is not there yet. */
static mbl_status_t write_file(const mbl_config_t *config, const char *note, const char *path) {
    FILE *out = fopen(path, "wx");
    if (!out && errno == EEXIST)
        return MBL_FAIL(MBL_ERR_USAGE,
                        "init: %s is there already; expected a new name, such as marble init mine.yaml",
                        path);
    if (!out)
        return MBL_FAIL(MBL_ERR_IO, "init: %s cannot be written: %s", path, strerror(errno));
    mbl_config_write_set(config, note, out);
    bool good = !ferror(out) && fflush(out) == 0;
    int why = errno;
    good = fclose(out) == 0 && good;
    if (!good)
        unlink(path);
    return good ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "init: %s cannot be written: %s", path, strerror(why));
}

static mbl_status_t write_run(const char *from, const sets_t *sets, const char *path) {
    char example[PATH_SIZE + 300];
    mbl_config_t *config;
    MBL_TRY(find_example(from, example));
    MBL_TRY(mbl_config_load(example, sets->items, sets->count, &config));
    bool to_stdout = strcmp(path, "-") == 0;
    const char *file = to_stdout ? "run.yaml" : path,
               *command = strncmp(from, "pretrain", 8) == 0 ? "pretrain" : "train";
    char *note =
        mbl_format("A run of marble, begun from the example %s.\n"
                   "    marble %s %s                  on this machine\n"
                   "    mpirun -np 8 marble %s %s     eight ranks, one GPU each where there are GPUs\n"
                   "Keys that are not here have their defaults: marble train --help-config shows them all.",
                   from, command, file, command, file);
    mbl_status_t status = note ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %s", path);
    if (status == MBL_OK && to_stdout)
        mbl_config_write_set(config, note, stdout);
    else if (status == MBL_OK)
        status = write_file(config, note, path);
    if (status == MBL_OK && !to_stdout)
        MBL_INFO("%s is written; read it, then run: marble %s %s", path, command, path);
    mbl_free(note);
    mbl_config_free(config);
    return status;
}

int mbl_cmd_init(int argc, char **argv) {
    const char *from = "quickstart", *model = NULL, *train = NULL, *test = NULL;
    mbl_arg_texts_t given = {NULL, 0}, rest = {NULL, 0};
    bool helped = false;
    sets_t sets = {.count = 0};
    const mbl_arg_t args[] = {
        {"from", MBL_ARG_TEXT, &from, "NAME", "the example to begin with, such as quickstart (the default)",
         0, 0, 0, NULL},
        {"model", MBL_ARG_TEXT, &model, "DIR", "the base model, in the diffusers layout", 0, 0, 0, NULL},
        {"prompts", MBL_ARG_TEXT, &train, "FILE", "training prompts, .txt (one a line) or .jsonl", 0, 0, 0,
         NULL},
        {"test", MBL_ARG_TEXT, &test, "FILE", "held-out prompts", 0, 0, 0, NULL},
        {"set", MBL_ARG_TEXTS, &given, "KEY=VALUE", "another key, as in --set train.lr=1e-4", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"init", "[RUN.yaml]", about, args, sizeof args / sizeof *args, 0, 1};
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = make_sets(model, train, test, &given, &sets);
    if (status == MBL_OK)
        status = write_run(from, &sets, rest.count ? rest.items[0] : "run.yaml");
    free_sets(&sets);
    mbl_free(rest.items);
    mbl_free(given.items);
    return mbl_status_exit_code(status);
}
