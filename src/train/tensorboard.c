/* What TensorBoard is shown of a run: every number of metrics.jsonl, evaluations, sheets of samples,
 * histograms of advantages, the configuration. */
#include "train/tensorboard.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/image.h"

#include <stdio.h>
#include <string.h>

enum { BINS = 40, HISTOGRAM_EVERY = 10, MOST_WIDE = 2048, MOST_BYTES = 1 << 28, MOST_YAML = 1 << 22 };

/* run.yaml as Markdown: four blanks before a line make it text as it is. */
static mbl_status_t show_config(const mbl_rundir_t *rundir) {
    char path[PATH_MAX], *yaml, *text = NULL;
    size_t size;
    MBL_TRY(mbl_rundir_join(rundir->path, "run.yaml", path, sizeof path));
    MBL_TRY(mbl_file_read(path, MOST_YAML, &yaml, &size));
    FILE *out = open_memstream(&text, &size);
    bool begins = true;
    for (const char *c = yaml; out && *c; c++) {
        fprintf(out, begins ? "    %c" : "%c", *c);
        begins = *c == '\n';
    }
    mbl_free(yaml);
    bool good = out && fclose(out) == 0;
    if (good)
        mbl_tensorboard_text(rundir->tensorboard, "config", text);
    free(text);
    return good ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory to show it to TensorBoard", path);
}

mbl_status_t mbl_train_board_open(mbl_rundir_t *rundir, uint64_t step) {
    char folder[PATH_MAX];
    MBL_TRY(mbl_rundir_join(rundir->path, "tensorboard", folder, sizeof folder));
    MBL_TRY(mbl_tensorboard_open(folder, step ? step + 1 : 0, &rundir->tensorboard));
    MBL_TRY(show_config(rundir));
    return mbl_tensorboard_write(rundir->tensorboard, step);
}

mbl_status_t mbl_train_board_step(mbl_rundir_t *rundir, const mbl_event_step_t *step) {
    if (!rundir->tensorboard)
        return MBL_OK;
    json_t *line = mbl_report_line(step);
    if (!line)
        return MBL_FAIL(MBL_ERR_MEM, "step %llu: no memory for its numbers", (unsigned long long)step->step);
    mbl_tensorboard_numbers(rundir->tensorboard, "train", line);
    json_decref(line);
    return mbl_tensorboard_write(rundir->tensorboard, step->step);
}

/* ---- advantages ---- */

/* Of one reward, as every rank adds to it. */
typedef struct {
    double counts[BINS], sum, squares;
} spread_t;

static void count_advantages(const mbl_batch_t *batch, const float *a, double clip, size_t k, spread_t *out) {
    for (size_t i = 0; i < batch->n; i++) {
        if (batch->scores[i * batch->k + k].state != MBL_SCORE_VALID)
            continue;
        double share = (double)a[k * batch->n + i] + 0.5, advantage = clip * (2 * share - 1);
        size_t bin = share > 0 ? (size_t)(share * BINS) : 0;
        out->counts[bin < BINS ? bin : BINS - 1]++;
        out->sum += advantage;
        out->squares += advantage * advantage;
    }
}

mbl_status_t mbl_train_board_advantages(mbl_comm_t *comm, mbl_rundir_t *rundir,
                                        const mbl_event_images_t *images) {
    const mbl_config_t *config = images->state->engine->config;
    const mbl_batch_t *batch = images->batch;
    double clip = config->train.clip;
    spread_t *spread;
    if (images->state->epoch % HISTOGRAM_EVERY != 0)
        return MBL_OK;
    MBL_ALLOC(spread, batch->k);
    for (size_t k = 0; k < batch->k; k++)
        count_advantages(batch, images->a, clip, k, &spread[k]);
    size_t numbers = batch->k * sizeof *spread / sizeof(double);
    mbl_status_t status = mbl_comm_allreduce(comm, spread, numbers, MBL_COMM_F64, MBL_COMM_SUM);
    for (size_t k = 0; status == MBL_OK && rundir->tensorboard && k < batch->k; k++) {
        char tag[160];
        snprintf(tag, sizeof tag, "advantage/%s", config->rewards.items[k].name);
        mbl_tensorboard_bins_t bins = {-clip, clip, spread[k].sum, spread[k].squares, spread[k].counts, BINS};
        mbl_tensorboard_histogram(rundir->tensorboard, tag, &bins);
    }
    mbl_free(spread);
    if (status == MBL_OK && rundir->tensorboard)
        status = mbl_tensorboard_write(rundir->tensorboard, images->state->step + 1);
    return status;
}

/* ---- evaluations ---- */

/* A sheet larger than a browser shows, made smaller. */
static mbl_status_t show_smaller(mbl_tensorboard_t *board, const char *path) {
    mbl_image_t sheet, small;
    uint8_t *png = NULL;
    size_t room = 0, bytes = 0;
    MBL_TRY(mbl_image_read_png(path, &sheet));
    mbl_status_t status = mbl_image_shrink(&sheet, (sheet.width + MOST_WIDE - 1) / MOST_WIDE, &small);
    mbl_image_free(&sheet);
    MBL_TRY(status);
    status = mbl_image_encode(&small, MBL_IMAGE_PNG, &png, &room, &bytes);
    if (status == MBL_OK)
        mbl_tensorboard_png(board, "samples", small.width, small.height, png, bytes);
    mbl_free(png);
    mbl_image_free(&small);
    return status;
}

static size_t number_at(const uint8_t *at) {
    return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

/* The sheet that samples/ has of this step; one that the disk did not take is no reason to end. */
static mbl_status_t show_sheet(mbl_rundir_t *rundir, uint64_t step) {
    enum { IHDR_WIDTH = 16, IHDR_HEIGHT = 20, HEAD = 24 };
    char name[64], path[PATH_MAX], *png;
    size_t size;
    snprintf(name, sizeof name, "samples/step-%06llu.png", (unsigned long long)step);
    MBL_TRY(mbl_rundir_join(rundir->path, name, path, sizeof path));
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_file_read(path, MOST_BYTES, &png, &size);
    mbl_fail_quiet(0);
    if (status != MBL_OK)
        return status == MBL_ERR_MEM ? MBL_FAIL(status, "%s: no memory to read it", path) : MBL_OK;
    const uint8_t *head = (const uint8_t *)png;
    bool fits = size > HEAD && number_at(head + IHDR_WIDTH) <= MOST_WIDE;
    if (fits)
        mbl_tensorboard_png(rundir->tensorboard, "samples", number_at(head + IHDR_WIDTH),
                            number_at(head + IHDR_HEIGHT), png, size);
    mbl_free(png);
    return fits ? MBL_OK : show_smaller(rundir->tensorboard, path);
}

mbl_status_t mbl_train_board_eval(mbl_rundir_t *rundir, const mbl_event_eval_t *e,
                                  const mbl_config_t *config) {
    if (!rundir->tensorboard)
        return MBL_OK;
    for (size_t k = 0; k < config->rewards.count; k++) {
        char tag[160];
        snprintf(tag, sizeof tag, "eval/%s", config->rewards.items[k].name);
        if (e->scores[k].n > 0)
            mbl_tensorboard_scalar(rundir->tensorboard, tag, e->scores[k].mean);
        snprintf(tag, sizeof tag, "eval_change/%s", config->rewards.items[k].name);
        if (e->change && e->change[k].n > 0)
            mbl_tensorboard_scalar(rundir->tensorboard, tag, e->change[k].mean);
    }
    if (e->sheet)
        MBL_TRY(show_sheet(rundir, e->step));
    return mbl_tensorboard_write(rundir->tensorboard, e->step);
}
