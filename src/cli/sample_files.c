/* The files of marble sample. */
#include "cli/sample_files.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <string.h>

enum { SMALL = 128, LARGER = 4, COLUMNS = 8, OWN = 2 }; /* OWN: chunks of an image before the common ones */

/* ---- images ---- */

/* An image with what it shows and which sample it is, then what is common to all. */
static mbl_status_t write_one(const mbl_sample_files_t *f, const char *prompt, const char *sample,
                              const mbl_image_t *image, const char *path) {
    mbl_image_text_t *texts;
    MBL_ALLOC(texts, OWN + f->n_how);
    texts[0] = (mbl_image_text_t){"prompt", prompt};
    texts[1] = (mbl_image_text_t){"sample", sample};
    memcpy(texts + OWN, f->how, f->n_how * sizeof *texts);
    mbl_status_t status = mbl_image_write_png_text(path, image, texts, OWN + f->n_how);
    mbl_free(texts);
    return status;
}

/* All of them with captions; its prompts are a line each. */
static mbl_status_t write_sheet(const mbl_sample_files_t *f, const char *path) {
    mbl_image_t sheet;
    char samples[64], *prompts;
    size_t scale = f->images[0].width < SMALL ? LARGER : 1, size = 1;
    snprintf(samples, sizeof samples, f->n > 1 ? "0 to %zu" : "%zu", f->n - 1);
    for (size_t i = 0; i < f->n_prompts; i++)
        size += strlen(f->prompts[i]) + 1;
    MBL_ALLOC(prompts, size);
    for (size_t i = 0; i < f->n_prompts; i++)
        snprintf(prompts + strlen(prompts), size - strlen(prompts), "%s%s", i ? "\n" : "", f->prompts[i]);
    mbl_status_t status =
        mbl_image_sheet(f->images, f->captions, NULL, f->n, f->n < COLUMNS ? f->n : COLUMNS, scale, &sheet);
    if (status == MBL_OK) {
        status = write_one(f, prompts, samples, &sheet, path);
        mbl_image_free(&sheet);
    }
    mbl_free(prompts);
    return status;
}

mbl_status_t mbl_sample_files_write(const mbl_sample_files_t *f, const char *folder) {
    char path[1024], sample[64];
    MBL_TRY(mbl_folder_make(folder));
    for (size_t i = 0; i < f->n; i++) {
        snprintf(path, sizeof path, "%s/%03zu.png", folder, i);
        snprintf(sample, sizeof sample, "%lld", (long long)f->sample[i]);
        MBL_TRY(write_one(f, f->captions[i], sample, &f->images[i], path));
    }
    snprintf(path, sizeof path, "%s/sheet.png", folder);
    return write_sheet(f, path);
}

/* ---- noise and latents ---- */

/* "[2, 16, 64, 64]" into out; returns out. */
static char *shape_text(size_t ndim, const size_t *dim, char out[200]) {
    size_t used = 1;
    snprintf(out, 200, "[");
    for (size_t i = 0; i < ndim; i++)
        used += (size_t)snprintf(out + used, 200 - used, "%s%zu", i ? ", " : "", dim[i]);
    snprintf(out + used, 200 - used, "]");
    return out;
}

static mbl_status_t read_noise(const mbl_st_t *st, const char *path, const size_t dim[4], float *out) {
    char found[200], expected[200];
    const mbl_st_entry_t *entry = mbl_st_find(st, "noise");
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: no tensor \"noise\" among %zu; expected one of shape %s", path,
                        mbl_st_count(st), shape_text(4, dim, expected));
    if (entry->ndim != 4 || memcmp(entry->dim, dim, 4 * sizeof *dim) != 0)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: noise: shape %s; expected %s, the images and the latents of each", path,
                        shape_text((size_t)entry->ndim, entry->dim, found), shape_text(4, dim, expected));
    return mbl_st_read_f32(st, "noise", out, dim[0] * dim[1] * dim[2] * dim[3]);
}

mbl_status_t mbl_noise_read(const char *path, const size_t dim[4], float *out) {
    mbl_st_t *st;
    MBL_TRY(mbl_st_open(path, &st));
    mbl_status_t status = read_noise(st, path, dim, out);
    mbl_st_close(st);
    return status;
}

mbl_status_t mbl_latents_write(const char *path, const mbl_tensor_t *x0, const float *noise, mbl_ops_t *ops) {
    float *latents;
    const size_t *dim = x0->dim;
    MBL_ALLOC(latents, mbl_tensor_count(x0));
    const mbl_st_tensor_t tensors[] = {{"latents", MBL_F32, 4, {dim[0], dim[1], dim[2], dim[3]}, latents},
                                       {"noise", MBL_F32, 4, {dim[0], dim[1], dim[2], dim[3]}, noise}};
    mbl_status_t status = mbl_tensor_download(ops, x0, latents);
    if (status == MBL_OK)
        status = mbl_st_write(path, tensors, 2, NULL);
    mbl_free(latents);
    return status;
}
