/* marble inspect FILE.h5: the rewards' shares of the direction, step by step as the run's metrics.jsonl has
 * them, and the averages that the checkpoint goes on with. */
#include "base/grid.h"
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "io/jsonl.h"
#include "rl/types.h"
#include "run/rundir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 7 }; /* steps in the table */

typedef struct {
    char *names; /* cut into name[] */
    const char *name[MBL_MAX_REWARDS];
    size_t k;
    double mean[MBL_MAX_REWARDS]; /* in the checkpoint, as shares of 1; NAN before the first solve */
    bool solved;                  /* any of them */
    json_t *lines;                /* of the steps that have alpha */
} history_t;

static void free_history(history_t *h) {
    mbl_free(h->names);
    json_decref(h->lines);
}

/* False when the checkpoint has no rewards, as those of marble pretrain. */
static bool has_alpha(const mbl_ckpt_t *ckpt, size_t *k) {
    mbl_ckpt_item_t item;
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, &item); i++)
        if (strcmp(item.name, "balance/alpha_mean") == 0) {
            *k = item.count;
            return item.count <= MBL_MAX_REWARDS && mbl_ckpt_attr(ckpt, "rewards") &&
                   mbl_ckpt_attr(ckpt, "step");
        }
    return false;
}

static mbl_status_t read_means(mbl_ckpt_t *ckpt, history_t *h) {
    int64_t seen[MBL_MAX_REWARDS];
    double sum = 0;
    MBL_TRY(mbl_ckpt_read(ckpt, "balance/alpha_mean", MBL_F64, h->k, h->mean));
    MBL_TRY(mbl_ckpt_read(ckpt, "balance/seen", MBL_I64, h->k, seen));
    for (size_t i = 0; i < h->k; i++) {
        h->solved |= seen[i] != 0;
        sum += seen[i] ? h->mean[i] : 0;
    }
    for (size_t i = 0; i < h->k; i++) /* the run keeps them as they are when a reward misses a step */
        h->mean[i] = seen[i] && sum > 0 ? h->mean[i] / sum : NAN;
    return MBL_OK;
}

static mbl_status_t read_names(const mbl_ckpt_t *ckpt, const char *path, history_t *h) {
    size_t n = 0;
    char *rest = NULL;
    h->names = mbl_strdup(mbl_ckpt_attr(ckpt, "rewards"));
    if (!h->names)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for the rewards' names", path);
    for (char *word = strtok_r(h->names, " ", &rest); word; word = strtok_r(NULL, " ", &rest), n++)
        if (n < h->k)
            h->name[n] = word;
    return n == h->k ? MBL_OK
                     : MBL_FAIL(MBL_ERR_FORMAT,
                                "%s: attribute rewards has %zu names, balance/alpha_mean %zu numbers", path,
                                n, h->k);
}

/* Steps without alpha (methods with an objective of their own) say nothing here. */
static mbl_status_t read_lines(const mbl_ckpt_t *ckpt, const char *path, history_t *h) {
    json_t *all, *line;
    size_t at, step = strtoul(mbl_ckpt_attr(ckpt, "step"), NULL, 10);
    MBL_TRY(mbl_rundir_lines(path, "metrics.jsonl", step, &all));
    h->lines = json_array();
    json_array_foreach(all, at, line) if (mbl_rundir_alpha(line, false)) json_array_append(h->lines, line);
    json_decref(all);
    return h->lines ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its metrics", path);
}

static mbl_status_t read_history(mbl_ckpt_t *ckpt, const char *path, history_t *h) {
    MBL_TRY(read_means(ckpt, h));
    MBL_TRY(read_names(ckpt, path, h));
    return read_lines(ckpt, path, h);
}

static double alpha_at(const history_t *h, size_t line, bool average, size_t reward) {
    const json_t *value =
        json_object_get(mbl_rundir_alpha(json_array_get(h->lines, line), average), h->name[reward]);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void alpha_cell(mbl_grid_t *grid, double alpha) {
    if (isnan(alpha))
        mbl_grid_cell(grid, "-");
    else
        mbl_grid_cell(grid, "%.4f", alpha);
}

/* The i-th of the lines shown: evenly spread, first and last among them. */
static size_t shown_line(size_t i, size_t shown, size_t n) {
    return shown > 1 ? i * (n - 1) / (shown - 1) : 0;
}

static void fill_head(const history_t *h, size_t shown, bool average, mbl_grid_t *grid) {
    size_t n = json_array_size(h->lines);
    mbl_grid_cell(grid, n > 0 ? "step" : "reward");
    for (size_t i = 0; i < shown; i++) {
        const json_t *line = json_array_get(h->lines, shown_line(i, shown, n));
        mbl_grid_cell(grid, "%lld", (long long)json_integer_value(json_object_get(line, "step")));
    }
    if (n > 0) {
        mbl_grid_cell(grid, "least");
        mbl_grid_cell(grid, "most");
    }
    if (average)
        mbl_grid_cell(grid, "checkpoint");
}

static void fill_reward(const history_t *h, size_t shown, bool average, size_t k, mbl_grid_t *grid) {
    size_t n = json_array_size(h->lines);
    double least = NAN, most = NAN;
    mbl_grid_cell(grid, "%s", h->name[k]);
    for (size_t i = 0; i < shown; i++)
        alpha_cell(grid, alpha_at(h, shown_line(i, shown, n), average, k));
    for (size_t i = 0; i < n; i++) { /* fmin and fmax pass over NaN */
        least = fmin(least, alpha_at(h, i, average, k));
        most = fmax(most, alpha_at(h, i, average, k));
    }
    if (n > 0) {
        alpha_cell(grid, least);
        alpha_cell(grid, most);
    }
    if (average)
        alpha_cell(grid, h->mean[k]);
}

/* What the steps used or, with the checkpoint's own, the average after them. */
static mbl_status_t print_table(const history_t *h, bool average) {
    size_t n = json_array_size(h->lines), shown = n < SHOWN ? n : SHOWN;
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(1 + (n > 0 ? shown + 2 : 0) + average, 1, &grid));
    fill_head(h, shown, average, grid);
    for (size_t k = 0; k < h->k; k++)
        fill_reward(h, shown, average, k, grid);
    mbl_status_t status = mbl_grid_print(grid, false, stdout);
    mbl_grid_free(grid);
    return status;
}

static mbl_status_t print_history(const history_t *h) {
    size_t n = json_array_size(h->lines);
    if (n == 0) {
        printf("\nalpha_ema; there is no metrics.jsonl beside the checkpoint to show its history\n");
        return print_table(h, true);
    }
    printf("\nalpha of the steps by metrics.jsonl of the run (%zu steps)\n", n);
    MBL_TRY(print_table(h, false));
    printf("\nalpha_ema, the average after each of them, and that in the checkpoint\n");
    return print_table(h, true);
}

mbl_status_t mbl_inspect_alpha(mbl_ckpt_t *ckpt, const char *path) {
    history_t h = {.k = 0};
    if (!has_alpha(ckpt, &h.k))
        return MBL_OK;
    mbl_status_t status = read_history(ckpt, path, &h);
    if (status == MBL_OK && (h.solved || json_array_size(h.lines) > 0))
        status = print_history(&h);
    free_history(&h);
    return status;
}

static json_t *history_json(const history_t *h) {
    json_t *means = json_object(), *history = json_array();
    for (size_t k = 0; k < h->k; k++)
        json_object_set_new(means, h->name[k], mbl_jsonl_real(h->mean[k]));
    for (size_t i = 0; i < json_array_size(h->lines); i++) {
        const json_t *line = json_array_get(h->lines, i);
        json_array_append_new(history, json_pack("{s:O,s:O,s:O}", "step", json_object_get(line, "step"),
                                                 "alpha", mbl_rundir_alpha(line, false), "alpha_ema",
                                                 mbl_rundir_alpha(line, true)));
    }
    return json_pack("{s:o,s:o}", "checkpoint", means, "history", history);
}

mbl_status_t mbl_inspect_alpha_json(mbl_ckpt_t *ckpt, const char *path, json_t *root) {
    history_t h = {.k = 0};
    if (!has_alpha(ckpt, &h.k))
        return MBL_OK;
    mbl_status_t status = read_history(ckpt, path, &h);
    if (status == MBL_OK && json_object_set_new(root, "alpha", history_json(&h)) != 0)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its alpha", path);
    free_history(&h);
    return status;
}
