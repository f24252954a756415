/* Opening safetensors: one file, a set of them or what a folder holds, and their tensors by name. */
#include "model/safetensors_internal.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/names.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int by_name(const void *a, const void *b) {
    return strcmp(((const mbl_st_entry_t *)a)->name, ((const mbl_st_entry_t *)b)->name);
}

mbl_status_t mbl_st_sort(mbl_st_t *st, const char *path) {
    if (st->n > 0)
        qsort(st->entries, st->n, sizeof *st->entries, by_name);
    for (size_t i = 1; i < st->n; i++)
        if (strcmp(st->entries[i - 1].name, st->entries[i].name) == 0)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s is there twice", path, st->entries[i].name);
    return MBL_OK;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* In the order in which diffusers and transformers take them: diffusers prefers the index, transformers the
 * single file. What only the variant fp16 has comes last; its index has two spellings. */
static const char *const folder_names[] = {"diffusion_pytorch_model.safetensors.index.json",
                                           "diffusion_pytorch_model.safetensors",
                                           "model.safetensors",
                                           "model.safetensors.index.json",
                                           "diffusion_pytorch_model.safetensors.index.fp16.json",
                                           "diffusion_pytorch_model.fp16.safetensors.index.json",
                                           "diffusion_pytorch_model.fp16.safetensors",
                                           "model.fp16.safetensors",
                                           "model.safetensors.index.fp16.json",
                                           "model.fp16.safetensors.index.json"};
enum { FOLDER_NAMES = sizeof folder_names / sizeof folder_names[0] };

/* The file to open for `path`: itself, or what a folder holds. */
static mbl_status_t resolve(mbl_st_t *st, const char *path, char **out) {
    bool folder = mbl_folder_exists(path);
    char *found = folder ? NULL : mbl_strdup(path);
    for (size_t i = 0; folder && i < FOLDER_NAMES; i++) {
        char *candidate = mbl_format("%s/%s", path, folder_names[i]);
        if (!candidate) {
            mbl_free(found);
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", path);
        }
        bool there = mbl_file_exists(candidate);
        if (there && found && !st->passed_over)
            st->passed_over = folder_names[i];
        if (there && !found)
            found = candidate;
        else
            mbl_free(candidate);
    }
    if (!found && folder)
        return MBL_FAIL(MBL_ERR_IO,
                        "%s: holds neither model.safetensors nor diffusion_pytorch_model.safetensors, "
                        "nor an index of either",
                        path);
    if (!found)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", path);
    *out = found;
    return MBL_OK;
}

mbl_status_t mbl_st_open(const char *path, mbl_st_t **out) {
    mbl_status_t status;
    char *file = NULL;
    mbl_st_t *st;
    MBL_ALLOC(st, 1);
    MBL_TRY_GOTO(resolve(st, path, &file), failed);
    if (ends_with(file, ".index.json") || ends_with(file, ".index.fp16.json")) {
        MBL_TRY_GOTO(mbl_st_open_index(st, file), failed);
    } else {
        MBL_ALLOC_GOTO(st->files, 1, failed);
        MBL_TRY_GOTO(mbl_st_add_file(st, file), failed);
        MBL_TRY_GOTO(mbl_st_sort(st, file), failed);
    }
    st->opened = file;
    *out = st;
    return MBL_OK;
failed:
    mbl_free(file);
    mbl_st_close(st);
    return status;
}

void mbl_st_close(mbl_st_t *st) {
    if (!st)
        return;
    for (size_t i = 0; i < st->n; i++)
        mbl_free(st->entries[i].name);
    mbl_free(st->entries);
    for (size_t i = 0; i < st->n_files; i++) {
        munmap(st->files[i].map, st->files[i].size);
        mbl_free(st->files[i].path);
    }
    mbl_free(st->files);
    mbl_free(st->opened);
    json_decref(st->metadata);
    mbl_free(st);
}

const char *mbl_st_file(const mbl_st_t *st, size_t i) {
    return i < st->n_files ? st->files[i].path : NULL;
}

size_t mbl_st_count(const mbl_st_t *st) {
    return st->n;
}

const mbl_st_entry_t *mbl_st_at(const mbl_st_t *st, size_t i) {
    return i < st->n ? &st->entries[i] : NULL;
}

const mbl_st_entry_t *mbl_st_find(const mbl_st_t *st, const char *name) {
    const mbl_st_entry_t key = {.name = (char *)name};
    return st->n > 0 ? bsearch(&key, st->entries, st->n, sizeof key, by_name) : NULL;
}

const char *mbl_st_metadata(const mbl_st_t *st, const char *key) {
    return json_string_value(json_object_get(st->metadata, key));
}

void mbl_st_log_choice(const mbl_st_t *st) {
    if (st->passed_over)
        MBL_INFO("%s: is read, as diffusers does; %s beside it is not", st->opened, st->passed_over);
}

mbl_status_t mbl_st_check_unused(const mbl_st_t *st, const char *path,
                                 bool (*wanted)(const void *context, const char *name), const void *context,
                                 const char *hint) {
    mbl_names_t unused = {{0}, 0};
    for (size_t i = 0; i < st->n; i++)
        if (!wanted(context, st->entries[i].name))
            mbl_names_add(&unused, st->entries[i].name);
    if (unused.n == 0)
        return MBL_OK;
    return MBL_FAIL(
        MBL_ERR_FORMAT,
        "%s: tensor %s: not asked for by config.json; expected no others than those it asks for (%s)", path,
        mbl_names_text(&unused), hint);
}
