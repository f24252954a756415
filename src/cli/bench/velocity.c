/* marble bench velocity: one velocity of the transformer of a model folder at its full size, and the time of
 * loading it over that of reading its files once. */
#include "cli/bench/bench.h"

#include "base/json.h"
#include "base/mem.h"
#include "model/dit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 4 << 20 };

typedef struct {
    const mbl_bench_t *bench;
    char *transformer;
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_dit_t *model;
    size_t latent, bytes; /* side of the latents; of the files */
    mbl_tape_t *tape;
    mbl_conditions_t conditions;
    mbl_tensor_t x, t, v;
} velocity_t;

/* ---- reading and loading ---- */

static mbl_status_t read_file(const char *path, size_t *bytes) {
    char *chunk = mbl_calloc(CHUNK, 1);
    int file = chunk ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = chunk ? -1 : 0;
    while (file >= 0 && (n = read(file, chunk, CHUNK)) > 0)
        *bytes += (size_t)n;
    const int why = errno;
    if (file >= 0)
        close(file);
    mbl_free(chunk);
    if (!chunk)
        return MBL_FAIL(MBL_ERR_MEM, "no memory to read %s", path);
    return n == 0 ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "%s: cannot be read: %s", path, strerror(why));
}

/* The weights' files from beginning to end. */
static mbl_status_t read_once(velocity_t *w) {
    DIR *folder = opendir(w->transformer);
    mbl_status_t status =
        folder ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", w->transformer, strerror(errno));
    w->bytes = 0;
    for (struct dirent *entry; status == MBL_OK && (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".safetensors") != 0)
            continue;
        char *path = mbl_format("%s/%s", w->transformer, entry->d_name);
        status = path ? read_file(path, &w->bytes) : MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
        mbl_free(path);
    }
    if (folder)
        closedir(folder);
    return status;
}

static mbl_status_t load(velocity_t *w) {
    mbl_dit_close(w->model);
    w->model = NULL;
    return mbl_dit_open(w->ops, w->dtype, w->transformer, &w->model);
}

/* In turn, the files in the page cache where it holds them. */
static mbl_status_t time_loading(velocity_t *w) {
    const mbl_bench_t *bench = w->bench;
    double *seconds[2];
    mbl_status_t status;
    MBL_ALLOC(seconds[0], 2 * bench->runs);
    seconds[1] = seconds[0] + bench->runs;
    MBL_TRY_GOTO(read_once(w), done);
    for (size_t i = 0; i < bench->runs; i++) {
        double start = mbl_bench_now(bench);
        MBL_TRY_GOTO(read_once(w), done);
        seconds[0][i] = mbl_bench_now(bench) - start;
        start = mbl_bench_now(bench);
        MBL_TRY_GOTO(load(w), done);
        seconds[1][i] = mbl_bench_now(bench) - start;
    }
    mbl_bench_time_t time = mbl_bench_time(seconds[1], bench->runs);
    const mbl_bench_figure_t figures[] = {
        {"over_reading", mbl_bench_ratio(seconds[1], seconds[0], bench->runs), NULL},
        {"file_gb", (double)w->bytes / 1e9, NULL},
        {"peak_gib", (double)mbl_mem_peak() / 1073741824.0, NULL}};
    status = mbl_bench_print(bench, "velocity", "load", &time, figures, sizeof figures / sizeof *figures);
done:
    mbl_free(seconds[0]);
    return status;
}

/* ---- a velocity ---- */

/* Pixels for a latent: a vae halves the sides between its widths; a folder without one makes pixels. */
static mbl_status_t read_factor(const char *folder, size_t *out) {
    json_t *vae = NULL;
    char *path = mbl_format("%s/vae/config.json", folder);
    *out = 1;
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    mbl_status_t status = access(path, F_OK) == 0 ? mbl_json_read(path, &vae) : MBL_OK;
    for (size_t i = 1; vae && i < json_array_size(json_object_get(vae, "block_out_channels")) && i < 8; i++)
        *out *= 2;
    json_decref(vae);
    mbl_free(path);
    return status;
}

static mbl_status_t make_inputs(velocity_t *w) {
    const mbl_dit_sizes_t *sizes = mbl_dit_sizes(w->model);
    const size_t n = w->bench->batch;
    float *times;
    MBL_TRY(mbl_conditions_new(w->model, n, w->bench->tokens, &w->conditions));
    mbl_tensor_free(w->ops, &w->conditions.context);
    mbl_tensor_free(w->ops, &w->conditions.pooled);
    MBL_TRY(mbl_bench_random(w->ops, w->dtype, &w->conditions.context, 1, n, w->bench->tokens,
                             sizes->context_width));
    w->conditions.context =
        mbl_tensor_reshape(&w->conditions.context, 3, n, w->bench->tokens, sizes->context_width);
    MBL_TRY(mbl_bench_random(w->ops, w->dtype, &w->conditions.pooled, 1, 1, n, sizes->pooled_width));
    w->conditions.pooled = mbl_tensor_reshape(&w->conditions.pooled, 2, n, sizes->pooled_width);
    MBL_TRY(mbl_bench_random(w->ops, MBL_F32, &w->x, n, sizes->channels, w->latent, w->latent));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &w->v, 4, n, sizes->out_channels, w->latent, w->latent));
    MBL_TRY(mbl_tensor_new(w->ops, MBL_F32, &w->t, 1, n));
    MBL_ALLOC(times, n);
    for (size_t i = 0; i < n; i++)
        times[i] = 0.5f;
    mbl_status_t status = mbl_tensor_upload(w->ops, &w->t, times);
    mbl_free(times);
    MBL_TRY(status);
    return mbl_tape_new(w->model, NULL, MBL_TAPE_NONE, n, w->latent, w->latent, w->bench->tokens, &w->tape);
}

static mbl_status_t run(void *context) {
    velocity_t *w = context;
    const mbl_dit_input_t input = {.x = &w->x, .t = &w->t, .conditions = &w->conditions};
    MBL_TRY(mbl_dit_forward(w->model, NULL, &input, w->tape, &w->v));
    return w->ops->table->sync(w->ops);
}

static mbl_status_t time_velocity(velocity_t *w) {
    mbl_bench_case_t one = {run, w, NULL};
    char what[80];
    MBL_TRY(make_inputs(w));
    mbl_status_t status = mbl_bench_alternate(w->bench, &one, 1);
    if (status == MBL_OK) {
        mbl_bench_time_t time = mbl_bench_time(one.seconds, w->bench->runs);
        const mbl_bench_figure_t figures[] = {{"peak_gib", (double)mbl_mem_peak() / 1073741824.0, NULL},
                                              {"type", 0, mbl_dtype_name(w->dtype)}};
        snprintf(what, sizeof what, "%zu of %zu x %zu", w->bench->batch, w->bench->size, w->bench->size);
        status =
            mbl_bench_print(w->bench, "velocity", what, &time, figures, sizeof figures / sizeof *figures);
    }
    mbl_bench_forget(&one, 1);
    return status;
}

static void close_all(velocity_t *w) {
    if (w->ops) {
        mbl_tape_free(w->tape);
        mbl_conditions_free(w->ops, &w->conditions);
        mbl_tensor_free(w->ops, &w->x);
        mbl_tensor_free(w->ops, &w->t);
        mbl_tensor_free(w->ops, &w->v);
        mbl_dit_close(w->model);
        mbl_ops_close(w->ops);
    }
    mbl_free(w->transformer);
}

static mbl_status_t run_all(velocity_t *w) {
    size_t factor;
    MBL_TRY(read_factor(w->bench->model, &factor));
    w->latent = w->bench->size / factor;
    if (w->bench->size % factor)
        return MBL_FAIL(MBL_ERR_USAGE, "--size: %zu; expected a multiple of %zu", w->bench->size, factor);
    MBL_TRY(mbl_ops_open(w->bench->device, w->bench->threads, &w->ops));
    w->dtype = mbl_ops_bf16_is_native(w->ops) ? MBL_BF16 : MBL_F32;
    MBL_TRY(time_loading(w));
    return time_velocity(w);
}

mbl_status_t mbl_bench_velocity(const mbl_bench_t *bench) {
    velocity_t w = {.bench = bench};
    if (!bench->model)
        return MBL_FAIL(MBL_ERR_USAGE, "bench velocity: expected --model with the folder of a model");
    w.transformer = mbl_format("%s/transformer", bench->model);
    mbl_status_t status = w.transformer ? run_all(&w) : MBL_FAIL(MBL_ERR_MEM, "no memory for a folder name");
    close_all(&w);
    return status;
}
