/* How far a run is. */
#include "run/about.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/yaml.h"
#include "io/checkpoint.h"
#include "io/jsonl.h"
#include "run/lock.h"
#include "run/rundir.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void mbl_run_about_free(mbl_run_about_t *about) {
    json_decref(about->last);
    json_decref(about->evals);
    about->last = about->evals = NULL;
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

static void count_checkpoints(mbl_run_about_t *about) {
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

static void find_state(mbl_run_about_t *about) {
    mbl_holder_t holder, self;
    const char *why;
    bool through = about->steps && about->step >= about->steps;
    about->state = through ? MBL_RUN_FINISHED : MBL_RUN_STOPPED;
    if (!mbl_lock_holder(about->path, &holder))
        return;
    mbl_holder_self(&self);
    mbl_holder_state_t state = mbl_holder_state(&holder, &self, &why);
    mbl_holder_name(&holder, about->holder);
    if (state != MBL_HOLDER_ENDED)
        about->state = state == MBL_HOLDER_RUNS ? MBL_RUN_WORKING : MBL_RUN_LOCKED;
    else if (!through)
        about->state = MBL_RUN_KILLED;
}

mbl_status_t mbl_run_about(const char *path, mbl_run_about_t *about) {
    char file[PATH_MAX];
    struct stat lines;
    *about = (mbl_run_about_t){.path = path};
    MBL_TRY(mbl_rundir_join(path, "eval.jsonl", file, sizeof file));
    MBL_TRY(mbl_jsonl_read(file, SIZE_MAX, &about->evals));
    if (mbl_rundir_join(path, "metrics.jsonl", file, sizeof file) == MBL_OK)
        about->last = mbl_jsonl_last(file);
    about->changed = stat(file, &lines) == 0 ? lines.st_mtime : 0;
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
