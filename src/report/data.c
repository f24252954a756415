/* A run's lines as columns. They are read one at a time: those of a long run would not fit in memory as JSON.
 */
#include "report/data.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/jsonl.h"
#include "run/rundir.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* ---- lines ---- */

typedef struct {
    const char *key;
    int column;
} place_t;
static const place_t of_line[] = {{"step", MBL_RUN_STEP},       {"epoch", MBL_RUN_EPOCH},
                                  {"loss", MBL_RUN_LOSS},       {"kl", MBL_RUN_KL},
                                  {"lr", MBL_RUN_LR},           {"grad_norm", MBL_RUN_GRAD_NORM},
                                  {"old_lag", MBL_RUN_OLD_LAG}, {"cos_min", MBL_RUN_COS_MIN}};
static const place_t of_seconds[] = {{"rollout", MBL_RUN_ROLLOUT}, {"reward_wait", MBL_RUN_REWARD_WAIT},
                                     {"train", MBL_RUN_TRAIN},     {"gram", MBL_RUN_GRAM},
                                     {"qp", MBL_RUN_QP},           {"checkpoint", MBL_RUN_CHECKPOINT},
                                     {"total", MBL_RUN_TOTAL}};

static void take_rewards(const mbl_run_data_t *data, const json_t *line, double *row) {
    const json_t *alpha = mbl_rundir_alpha(line, false), *remote = json_object_get(line, "remote");
    row[MBL_RUN_CALLS] = 0;
    for (size_t k = 0; k < data->k; k++) {
        double *at = row + MBL_RUN_REWARDS + k * MBL_RUN_EACH, calls;
        at[MBL_RUN_MEAN] = number(json_object_get(line, "reward"), data->names[k]);
        at[MBL_RUN_ALPHA] = number(alpha, data->names[k]);
        at[MBL_RUN_COS] = number(json_object_get(line, "cos"), data->names[k]);
        at[MBL_RUN_TRAINED] = mbl_rundir_trained(line, data->names[k]);
        at[MBL_RUN_SCORED] = number(json_object_get(line, "valid"), data->names[k]);
        at[MBL_RUN_FAILED] = number(json_object_get(line, "failed"), data->names[k]);
        calls = number(json_object_get(remote, data->names[k]), "requests");
        row[MBL_RUN_CALLS] += isnan(calls) ? 0 : calls;
    }
}

static void take_line(const mbl_run_data_t *data, const json_t *line, double *row) {
    const json_t *seconds = json_object_get(line, "seconds");
    for (size_t i = 0; i < sizeof of_line / sizeof *of_line; i++)
        row[of_line[i].column] = number(line, of_line[i].key);
    for (size_t i = 0; i < sizeof of_seconds / sizeof *of_seconds; i++)
        row[of_seconds[i].column] = number(seconds, of_seconds[i].key);
    row[MBL_RUN_IMAGES] = number(line, "samples_per_s") * row[MBL_RUN_TOTAL];
    take_rewards(data, line, row);
}

/* rows [n, columns], from `room` on grown as they come. */
static mbl_status_t read_rows(const mbl_run_data_t *data, FILE *file, double **rows, size_t *n) {
    char *text = NULL;
    size_t size = 0, room = 0;
    mbl_status_t status = MBL_OK;
    *rows = NULL;
    *n = 0;
    for (ssize_t length; status == MBL_OK && (length = getline(&text, &size, file)) > 0;) {
        json_t *line = json_loadb(text, (size_t)length, 0, NULL);
        if (!json_is_integer(json_object_get(line, "step"))) { /* a line that a crash has cut */
            json_decref(line);
            continue;
        }
        if (*n == room) {
            size_t more = room ? 2 * room : 64;
            double *grown = mbl_realloc(*rows, room, more, data->columns * sizeof **rows);
            if (!grown)
                status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its lines", data->folder);
            else
                *rows = grown;
            room = grown ? more : room;
        }
        if (status == MBL_OK)
            take_line(data, line, *rows + (*n)++ * data->columns);
        json_decref(line);
    }
    free(text);
    return status;
}

static mbl_status_t read_numbers(mbl_run_data_t *data, const char *path) {
    double *rows;
    size_t n;
    FILE *file = fopen(path, "rbe");
    if (!file)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    mbl_status_t status = read_rows(data, file, &rows, &n);
    fclose(file);
    if (status == MBL_OK)
        data->numbers = mbl_calloc(n * data->columns, sizeof *data->numbers);
    if (status == MBL_OK && !data->numbers)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its numbers", path);
    for (size_t i = 0; status == MBL_OK && i < n; i++)
        for (size_t c = 0; c < data->columns; c++)
            data->numbers[c * n + i] = rows[i * data->columns + c];
    data->n = n;
    mbl_free(rows);
    return status;
}

/* ---- names, run.yaml ---- */

static mbl_status_t take_names(mbl_run_data_t *data) {
    const json_t *rewards = json_object_get(data->last, "reward");
    const char *name;
    json_t *value;
    size_t k = 0;
    MBL_ALLOC(data->names, json_object_size(rewards) + 1);
    json_object_foreach((json_t *)(uintptr_t)rewards, name, value) data->names[k++] = name;
    data->k = k;
    data->columns = MBL_RUN_REWARDS + k * MBL_RUN_EACH;
    return MBL_OK;
}

/* Only as text and tree: the model it names may be elsewhere now. */
static mbl_status_t read_yaml(mbl_run_data_t *data) {
    char path[PATH_MAX];
    size_t size;
    mbl_yaml_problem_t problem;
    MBL_TRY(mbl_rundir_join(data->folder, "run.yaml", path, sizeof path));
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_file_read(path, MBL_YAML_MAX_BYTES, &data->yaml, &size);
    if (status == MBL_OK)
        status = mbl_yaml_parse(data->yaml, size, 0, &data->config, &problem);
    mbl_fail_quiet(0);
    if (status != MBL_ERR_MEM && !data->yaml)
        data->yaml = mbl_strdup("");
    if (status == MBL_ERR_MEM || !data->yaml)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to read it", path);
    return MBL_OK;
}

static void name_run(mbl_run_data_t *data) {
    char path[PATH_MAX];
    const char *whole = realpath(data->folder, path) ? path : data->folder, *slash = strrchr(whole, '/');
    snprintf(data->title, sizeof data->title, "%.250s", slash && slash[1] ? slash + 1 : whole);
}

mbl_status_t mbl_run_data_read(const char *folder, mbl_run_data_t *out) {
    char path[PATH_MAX];
    *out = (mbl_run_data_t){.folder = folder};
    name_run(out);
    MBL_TRY(mbl_rundir_join(folder, "eval.jsonl", path, sizeof path));
    MBL_TRY(mbl_jsonl_read(path, SIZE_MAX, &out->evals));
    MBL_TRY(mbl_rundir_join(folder, "metrics.jsonl", path, sizeof path));
    out->last = mbl_jsonl_last(path);
    if (!out->last || !json_is_object(json_object_get(out->last, "reward")))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "%s: holds no run to report on (no line with rewards in metrics.jsonl); expected the "
                        "folder of a run of marble train",
                        folder);
    MBL_TRY(take_names(out));
    MBL_TRY(read_numbers(out, path));
    return read_yaml(out);
}

void mbl_run_data_free(mbl_run_data_t *data) {
    json_decref(data->last);
    json_decref(data->evals);
    mbl_yaml_free(data->config);
    mbl_free(data->yaml);
    mbl_free(data->names);
    mbl_free(data->numbers);
    *data = (mbl_run_data_t){.folder = NULL};
}

/* ---- access ---- */

const double *mbl_run_column(const mbl_run_data_t *data, size_t column) {
    return data->numbers + column * data->n;
}

const double *mbl_run_reward(const mbl_run_data_t *data, size_t k, size_t column) {
    return mbl_run_column(data, MBL_RUN_REWARDS + k * MBL_RUN_EACH + column);
}

double mbl_run_sum(const mbl_run_data_t *data, const double *column, bool by_epoch) {
    const double *epoch = mbl_run_column(data, MBL_RUN_EPOCH);
    double sum = 0;
    for (size_t i = 0; i < data->n; i++)
        if (isfinite(column[i]) && !(by_epoch && i > 0 && epoch[i] == epoch[i - 1]))
            sum += column[i];
    return sum;
}

double mbl_run_eval(const mbl_run_data_t *data, size_t line, size_t k, const char *field) {
    const json_t *eval = json_array_get(data->evals, line);
    return eval ? number(json_object_get(mbl_rundir_rewards(eval), data->names[k]), field) : NAN;
}

const char *mbl_run_key(const mbl_run_data_t *data, const char *key) {
    const mbl_yaml_node_t *node = data->config;
    char part[64];
    for (const char *at = key; node && *at;) {
        size_t length = strcspn(at, ".");
        snprintf(part, sizeof part, "%.*s", (int)length, at);
        node = node->kind == MBL_YAML_MAP ? mbl_yaml_find(node, part) : NULL;
        at += length + (at[length] == '.');
    }
    return node && node->kind == MBL_YAML_SCALAR ? node->text : NULL;
}
