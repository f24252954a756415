/* Samples, and the images of the last rollout from an archive in the run's folder, which has for image i the
 * files IIIIII.json and IIIIII.png or .jpg. */
#include "base/mem.h"
#include "io/tar.h"
#include "service/api_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { META_MOST = 1 << 20, IMAGES_MOST = 1 << 16 };

mbl_status_t mbl_api_get_samples(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    const mbl_view_t *view = &api->views[run];
    json_t *list = json_array();
    (void)keys;
    for (size_t i = 0; i < view->n_samples; i++) {
        char id[32], name[64];
        int64_t size = 0;
        struct stat info;
        snprintf(id, sizeof id, "%06llu", (unsigned long long)view->samples[i]);
        snprintf(name, sizeof name, "samples/step-%s.png", id);
        int fd = mbl_view_file(view, name, &size);
        if (fd < 0)
            continue;
        close(fd);
        snprintf(name, sizeof name, "samples/step-%s.json", id);
        bool images = fstatat(view->fd, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode);
        json_array_append_new(list,
                              json_pack("{s:s,s:I,s:I,s:b}", "id", id, "step", (json_int_t)view->samples[i],
                                        "bytes", (json_int_t)size, "images", images));
    }
    return mbl_answer_json(out, json_pack("{s:I,s:o}", "run", (json_int_t)run, "samples", list));
}

/* `least` to `most` digits at *at, which goes on behind them. */
static bool read_digits(const char **at, size_t least, size_t most, uint64_t *out) {
    size_t n = strspn(*at, "0123456789");
    if (n < least || n > most)
        return false;
    *out = 0;
    for (size_t i = 0; i < n; i++)
        *out = 10 * *out + (uint64_t)((*at)[i] - '0');
    *at += n;
    return true;
}

/* ---- archives ---- */

static json_t *read_meta(int fd, const mbl_tar_entry_t *entry) {
    char *text = entry->size <= META_MOST ? mbl_calloc(entry->size + 1, 1) : NULL;
    json_t *meta = NULL;
    if (text && pread(fd, text, entry->size, entry->offset) == (ssize_t)entry->size)
        meta = json_loadb(text, entry->size, 0, NULL);
    mbl_free(text);
    return meta;
}

/* One image for /api/rollout and /api/samples/ID; NULL where the file has something else. */
static json_t *image_of(json_t *meta, size_t index) {
    json_t *prompt = json_object_get(meta, "prompt"), *scores = json_object_get(meta, "scores"),
           *more = json_object_get(meta, "metadata"), *advantages = json_object_get(meta, "advantages");
    if (!json_is_string(prompt) || !json_is_object(scores))
        return NULL;
    json_t *image = json_pack("{s:I,s:O,s:o,s:O}", "index", (json_int_t)index, "prompt", prompt, "metadata",
                              json_is_object(more) ? json_incref(more) : json_null(), "scores", scores);
    if (json_is_object(advantages))
        json_object_set(image, "advantages", advantages);
    return image;
}

static mbl_status_t answer_images(size_t run, int fd, mbl_answer_t *out) {
    json_t *list = json_array();
    json_int_t step = 0;
    int64_t at = 0;
    mbl_tar_entry_t entry;
    bool more = true;
    while (mbl_tar_next(fd, &at, &entry, &more) == MBL_OK && more && json_array_size(list) < IMAGES_MOST) {
        const char *at = entry.name;
        uint64_t index;
        if (!read_digits(&at, 6, 6, &index) || strcmp(at, ".json") != 0)
            continue;
        json_t *meta = read_meta(fd, &entry), *image = image_of(meta, index);
        if (image) {
            step = json_integer_value(json_object_get(meta, "step"));
            json_array_append_new(list, image);
        }
        json_decref(meta);
    }
    close(fd);
    return mbl_answer_json(out,
                           json_pack("{s:I,s:I,s:o}", "run", (json_int_t)run, "step", step, "images", list));
}

/* What is on a sheet, from the file beside it: the images, and where they lie. */
static mbl_status_t answer_sheet(const mbl_view_t *view, size_t run, uint64_t step, mbl_answer_t *out) {
    char name[64];
    size_t size, index, n = 0;
    json_t *listed;
    snprintf(name, sizeof name, "samples/step-%06llu.json", (unsigned long long)step);
    char *text = mbl_view_text(view, name, 0, &size);
    json_t *about = text ? json_loadb(text, size, 0, NULL) : NULL, *list = json_array();
    json_t *cells = json_object_get(about, "cells");
    mbl_free(text);
    json_array_foreach(json_object_get(about, "images"), index, listed) {
        json_t *image = image_of(listed, n);
        if (image && json_array_append_new(list, image) == 0)
            n++;
    }
    if (!json_is_object(cells) || n == 0 || n != json_array_size(json_object_get(about, "images"))) {
        json_decref(about);
        json_decref(list);
        return mbl_answer_fault(out, 404, "this run has not kept what is on its sheets");
    }
    json_t *answer = json_pack("{s:I,s:I,s:o,s:O}", "run", (json_int_t)run, "step", (json_int_t)step,
                               "images", list, "cells", cells);
    json_decref(about);
    return mbl_answer_json(out, answer);
}

/* The file of image `index`. Takes fd over. */
static mbl_status_t answer_image(int fd, uint64_t index, mbl_answer_t *out) {
    char png[32], jpg[32];
    struct stat info;
    int64_t at = 0;
    mbl_tar_entry_t entry;
    bool more = true;
    snprintf(png, sizeof png, "%06llu.png", (unsigned long long)index);
    snprintf(jpg, sizeof jpg, "%06llu.jpg", (unsigned long long)index);
    while (mbl_tar_next(fd, &at, &entry, &more) == MBL_OK && more) {
        bool is_png = strcmp(entry.name, png) == 0;
        if ((is_png || strcmp(entry.name, jpg) == 0) && fstat(fd, &info) == 0 &&
            entry.offset + (int64_t)entry.size <= info.st_size)
            return mbl_answer_file(out, is_png ? "image/png" : "image/jpeg", fd, entry.offset, entry.size);
    }
    close(fd);
    return mbl_answer_fault(out, 404, "there is no image of this number");
}

mbl_status_t mbl_api_get_rollout(mbl_api_t *api, size_t run, const mbl_query_t *keys, mbl_answer_t *out) {
    int fd = mbl_view_file(&api->views[run], "rollout.tar", NULL);
    (void)keys;
    return fd < 0 ? mbl_answer_json(out, json_pack("{s:I,s:I,s:[]}", "run", (json_int_t)run, "step",
                                                   (json_int_t)0, "images"))
                  : answer_images(run, fd, out);
}

/* ---- paths with numbers ---- */

static mbl_status_t get_rollout_image(const mbl_view_t *view, uint64_t index, mbl_answer_t *out) {
    int fd = mbl_view_file(view, "rollout.tar", NULL);
    return fd < 0 ? mbl_answer_fault(out, 404, "this run has kept no images of a rollout")
                  : answer_image(fd, index, out);
}

static mbl_status_t get_sheet(const mbl_view_t *view, uint64_t step, mbl_answer_t *out) {
    char name[64];
    int64_t size;
    snprintf(name, sizeof name, "samples/step-%06llu.png", (unsigned long long)step);
    int fd = mbl_view_file(view, name, &size);
    return fd < 0 ? mbl_answer_fault(out, 404, "there is no sheet of samples of step %llu",
                                     (unsigned long long)step)
                  : mbl_answer_file(out, "image/png", fd, 0, (size_t)size);
}

mbl_status_t mbl_api_get_image(mbl_api_t *api, size_t run, const char *path, mbl_answer_t *out) {
    static const char samples[] = "/api/samples/", rollout[] = "/api/rollout/";
    const mbl_view_t *view = &api->views[run];
    bool of_rollout = strncmp(path, rollout, sizeof rollout - 1) == 0;
    const char *at = path + (of_rollout ? sizeof rollout : sizeof samples) - 1;
    uint64_t number = 0;
    if (read_digits(&at, of_rollout ? 1 : 6, of_rollout ? 6 : 12, &number)) {
        if (of_rollout && !*at)
            return get_rollout_image(view, number, out);
        if (!of_rollout && strcmp(at, ".png") == 0)
            return get_sheet(view, number, out);
        if (!of_rollout && !*at)
            return answer_sheet(view, run, number, out);
    }
    return mbl_answer_fault(out, 404,
                            "no such image; expected /api/samples/000020.png, /api/samples/000020 or "
                            "/api/rollout/7");
}
