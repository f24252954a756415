/* marble inspect DIR, of a run: how far it is, who works on it, and every reward before and now. */
#include "base/file.h"
#include "base/grid.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "config/yaml.h"
#include "io/checkpoint.h"
#include "io/jsonl.h"
#include "run/rundir.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef enum { STATE_FINISHED, STATE_STOPPED, STATE_WORKING, STATE_LOCKED } state_t;
static const char *const state_words[] = {"finished", "stopped", "working", "locked"};

typedef struct {
    const char *path;
    char run[MBL_RUN_ID];
    bool pretrains;     /* a run of marble pretrain, whose lines have no epoch */
    size_t step, steps; /* the last line's; of run.yaml, 0 when that cannot be read */
    size_t checkpoints, last_checkpoint;
    state_t state;
    char holder[MBL_HOLDER_TEXT];
    json_t *last, *evals; /* the last line of metrics.jsonl, or NULL; all of eval.jsonl */
} about_t;

static void free_about(about_t *about) {
    json_decref(about->last);
    json_decref(about->evals);
}

static const mbl_yaml_node_t *child_of(const mbl_yaml_node_t *node, const char *key, mbl_yaml_kind_t kind) {
    const mbl_yaml_node_t *child = node && node->kind == MBL_YAML_MAP ? mbl_yaml_find(node, key) : NULL;
    return child && child->kind == kind ? child : NULL;
}

/* steps of a section of run.yaml, without what else must be true of a configuration: its model may be
 * elsewhere now. */
static size_t read_steps(const char *folder, const char *section) {
    char path[PATH_MAX], *text = NULL;
    size_t steps = 0, size;
    mbl_yaml_problem_t problem;
    mbl_yaml_node_t *root = NULL;
    mbl_fail_quiet(1);
    if (mbl_rundir_join(folder, "run.yaml", path, sizeof path) == MBL_OK &&
        mbl_file_read(path, MBL_YAML_MAX_BYTES, &text, &size) == MBL_OK &&
        mbl_yaml_parse(text, size, 0, &root, &problem) == MBL_OK) {
        const mbl_yaml_node_t *node =
            child_of(child_of(root, section, MBL_YAML_MAP), "steps", MBL_YAML_SCALAR);
        steps = node ? strtoul(node->text, NULL, 10) : 0;
    }
    mbl_fail_quiet(0);
    mbl_yaml_free(root);
    mbl_free(text);
    return steps;
}

static void count_checkpoints(about_t *about) {
    char path[PATH_MAX];
    const struct dirent *entry;
    DIR *folder =
        mbl_rundir_join(about->path, "checkpoints", path, sizeof path) == MBL_OK ? opendir(path) : NULL;
    while (folder && (entry = readdir(folder))) {
        size_t step;
        if (mbl_ckpt_parse_step(entry->d_name, "", &step)) {
            about->checkpoints++;
            about->last_checkpoint = step > about->last_checkpoint ? step : about->last_checkpoint;
        }
    }
    if (folder)
        closedir(folder);
}

static void find_state(about_t *about) {
    mbl_holder_t holder, self;
    const char *why;
    about->state = about->steps && about->step >= about->steps ? STATE_FINISHED : STATE_STOPPED;
    if (!mbl_lock_holder(about->path, &holder))
        return;
    mbl_holder_self(&self);
    mbl_holder_state_t state = mbl_holder_state(&holder, &self, &why);
    mbl_holder_name(&holder, about->holder);
    if (state != MBL_HOLDER_ENDED)
        about->state = state == MBL_HOLDER_RUNS ? STATE_WORKING : STATE_LOCKED;
}

static mbl_status_t read_about(const char *path, about_t *about) {
    char file[PATH_MAX];
    *about = (about_t){.path = path};
    MBL_TRY(mbl_rundir_join(path, "eval.jsonl", file, sizeof file));
    MBL_TRY(mbl_jsonl_read(file, SIZE_MAX, &about->evals));
    if (mbl_rundir_join(path, "metrics.jsonl", file, sizeof file) == MBL_OK)
        about->last = mbl_jsonl_last(file);
    const json_t *named = about->last ? about->last : json_array_get(about->evals, 0);
    const char *run = named ? json_string_value(json_object_get(named, "run")) : NULL;
    snprintf(about->run, sizeof about->run, "%s", run ? run : "");
    about->pretrains = about->last && !json_object_get(about->last, "epoch");
    about->step = (size_t)json_integer_value(json_object_get(about->last, "step"));
    about->steps = read_steps(path, about->pretrains ? "pretrain" : "train");
    count_checkpoints(about);
    find_state(about);
    return MBL_OK;
}

static const json_t *rewards_of(const about_t *about, size_t line) {
    const json_t *eval = json_array_get(about->evals, line);
    return eval ? mbl_rundir_rewards(eval) : NULL;
}

static void number_cell(mbl_grid_t *grid, const json_t *value, const char *format) {
    if (json_is_number(value))
        mbl_grid_cell(grid, format, json_number_value(value));
    else
        mbl_grid_cell(grid, "-");
}

static mbl_status_t print_rewards(const about_t *about) {
    static const char *const head[] = {"reward", "before", "now", "change", "95 % +-", "alpha"};
    size_t n = json_array_size(about->evals);
    const json_t *last = rewards_of(about, n - 1), *value;
    const char *name;
    mbl_grid_t *grid;
    if (!last)
        return MBL_OK;
    const json_t *alpha = about->last ? mbl_rundir_alpha(about->last, true) : NULL;
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    json_object_foreach((json_t *)(uintptr_t)last, name, value) {
        if (!json_is_object(value))
            continue;
        mbl_grid_cell(grid, "%s", name);
        number_cell(grid, json_object_get(json_object_get(rewards_of(about, 0), name), "mean"), "%.4f");
        number_cell(grid, json_object_get(value, "mean"), "%.4f");
        number_cell(grid, json_object_get(value, "change"), "%+.4f");
        number_cell(grid, json_object_get(value, "change_ci95"), "%.4f");
        number_cell(grid, json_object_get(alpha, name), "%.3f");
    }
    printf("\non the held-out prompts, before (step %lld) and now (step %lld):\n\n",
           json_integer_value(json_object_get(json_array_get(about->evals, 0), "step")),
           json_integer_value(json_object_get(json_array_get(about->evals, n - 1), "step")));
    mbl_status_t status = mbl_grid_print(grid, false, stdout);
    mbl_grid_free(grid);
    return status;
}

static mbl_status_t print_run(const about_t *about) {
    printf("%s: run %s, step %zu", about->path, *about->run ? about->run : "without an id", about->step);
    if (about->steps)
        printf(" of %zu", about->steps);
    if (about->state == STATE_WORKING)
        printf("; %s works on it\n", about->holder);
    else if (about->state == STATE_LOCKED)
        printf("; locked by %s, which may or may not still run\n", about->holder);
    else
        printf("; %s\n", state_words[about->state]);
    if (about->checkpoints)
        printf("checkpoints: %zu, the newest of step %zu\n", about->checkpoints, about->last_checkpoint);
    else
        printf("checkpoints: none\n");
    MBL_TRY(print_rewards(about));
    if (about->state == STATE_STOPPED && about->checkpoints)
        printf("\nto go on: marble %s %s/run.yaml --resume auto\n", about->pretrains ? "pretrain" : "train",
               about->path);
    return MBL_OK;
}

static mbl_status_t print_json(const about_t *about) {
    const json_t *eval = json_array_get(about->evals, json_array_size(about->evals) - 1);
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:O?, s:O?, s:O?}", "path", about->path, "run",
                  about->run, "state", state_words[about->state], "step", (json_int_t)about->step, "steps",
                  (json_int_t)about->steps, "checkpoints", (json_int_t)about->checkpoints, "last_checkpoint",
                  (json_int_t)about->last_checkpoint, "metrics", about->last, "first_eval",
                  json_array_get(about->evals, 0), "last_eval", eval);
    char *text = root ? json_dumps(root, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its JSON", about->path);
    puts(text);
    free(text);
    return MBL_OK;
}

mbl_status_t mbl_inspect_run(const char *path, bool json) {
    about_t about;
    MBL_TRY(read_about(path, &about));
    mbl_status_t status = json ? print_json(&about) : print_run(&about);
    free_about(&about);
    return status;
}
