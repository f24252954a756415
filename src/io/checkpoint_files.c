/* Checkpoints as files by step: names, latest.h5, how many stay, the newest good one. */
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char latest_name[] = "latest.h5";

mbl_status_t mbl_ckpt_path(const char *folder, size_t step, char *out, size_t size) {
    int n = snprintf(out, size, "%s/step-%06zu.h5", folder, step);
    MBL_REQUIRE(n > 0 && (size_t)n < size, "%s: the path of a checkpoint has no room in %zu characters",
                folder, size);
    return MBL_OK;
}

/* step-NNNNNN.h5 (+ suffix) and nothing else. */
static bool parse_step(const char *name, const char *suffix, size_t *step) {
    char again[64];
    if (sscanf(name, "step-%zu", step) != 1)
        return false;
    snprintf(again, sizeof again, "step-%06zu.h5%s", *step, suffix);
    return strcmp(again, name) == 0;
}

static int falling(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x < y) - (x > y);
}

/* The steps of a folder's checkpoints, highest first; removes stale temporary files when told to. No folder
 * means none. Free *steps with mbl_free. */
static mbl_status_t list_steps(const char *folder, bool sweep, size_t **steps, size_t *n) {
    size_t *found = NULL, used = 0, room = 0, step;
    DIR *dir = opendir(folder);
    if (!dir && errno != ENOENT)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (sweep && (parse_step(entry->d_name, ".tmp", &step)))
            unlinkat(dirfd(dir), entry->d_name, 0);
        if (!parse_step(entry->d_name, "", &step))
            continue;
        if (used == room) {
            size_t *more = mbl_realloc(found, used, 2 * room + 16, sizeof *more);
            if (!more) {
                mbl_free(found);
                closedir(dir);
                return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to list it", folder);
            }
            found = more;
            room = 2 * room + 16;
        }
        found[used++] = step;
    }
    if (dir)
        closedir(dir);
    if (used)
        qsort(found, used, sizeof *found, falling);
    *steps = found;
    *n = used;
    return MBL_OK;
}

static mbl_status_t point_latest(const char *folder, size_t step) {
    char target[64];
    mbl_status_t status = MBL_OK;
    char *link = mbl_format("%s/%s", folder, latest_name);
    char *temporary = mbl_format("%s/%s.tmp", folder, latest_name);
    snprintf(target, sizeof target, "step-%06zu.h5", step);
    if (!link || !temporary)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory", folder);
    else if ((unlink(temporary) != 0 && errno != ENOENT) || symlink(target, temporary) != 0 ||
             rename(temporary, link) != 0)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be pointed at %s: %s", link, target, strerror(errno));
    else
        status = mbl_ckpt_sync_folder(link);
    mbl_free(link);
    mbl_free(temporary);
    return status;
}

static bool is_kept(const mbl_ckpt_keep_t *keep, size_t step) {
    for (size_t i = 0; i < keep->n_also; i++)
        if (keep->also[i] == step)
            return true;
    return keep->every > 0 && step > 0 && step % keep->every == 0;
}

mbl_status_t mbl_ckpt_publish(const char *folder, size_t step, const mbl_ckpt_keep_t *keep) {
    char path[512];
    size_t *steps = NULL, n = 0, newest = 1;
    MBL_TRY(mbl_ckpt_path(folder, step, path, sizeof path));
    MBL_REQUIRE(access(path, F_OK) == 0, "%s: not there to be published: %s", path, strerror(errno));
    MBL_TRY(point_latest(folder, step));
    MBL_TRY(list_steps(folder, true, &steps, &n));
    for (size_t i = 0; i < n && keep->last > 0; i++) {
        if (steps[i] == step || newest++ < keep->last || is_kept(keep, steps[i]))
            continue;
        if (mbl_ckpt_path(folder, steps[i], path, sizeof path) == MBL_OK && unlink(path) != 0)
            MBL_WARN("%s: cannot be removed: %s", path, strerror(errno));
    }
    mbl_free(steps);
    return MBL_OK;
}

/* Puts the step that latest.h5 points at before the others. */
static void latest_first(const char *folder, size_t *steps, size_t n) {
    char target[64] = "";
    size_t step, i = 0;
    char *link = mbl_format("%s/%s", folder, latest_name);
    ssize_t length = link ? readlink(link, target, sizeof target - 1) : -1;
    mbl_free(link);
    if (length <= 0 || !parse_step(target, "", &step))
        return;
    while (i < n && steps[i] != step)
        i++;
    if (i == n)
        return;
    memmove(steps + 1, steps, i * sizeof *steps);
    steps[0] = step;
}

/* The first that opens of a folder's checkpoints, without `except`. */
static mbl_status_t first_good(const char *folder, const struct stat *except, bool warn, char *out,
                               size_t size, bool *found, size_t *tried) {
    char path[512];
    size_t *steps = NULL, n = 0;
    mbl_status_t status = MBL_OK;
    bool good = false;
    MBL_TRY(list_steps(folder, false, &steps, &n));
    latest_first(folder, steps, n);
    *tried = 0;
    for (size_t i = 0; i < n && !good && status == MBL_OK; i++) {
        mbl_ckpt_t *ckpt = NULL;
        struct stat about;
        MBL_TRY_GOTO(mbl_ckpt_path(folder, steps[i], path, sizeof path), done);
        if (except && stat(path, &about) == 0 && about.st_ino == except->st_ino &&
            about.st_dev == except->st_dev)
            continue;
        ++*tried;
        mbl_fail_quiet(1);
        mbl_status_t opened = mbl_ckpt_open_only(path, &ckpt);
        mbl_fail_quiet(0);
        good = opened == MBL_OK;
        if (good)
            mbl_ckpt_close(ckpt);
        else if (opened == MBL_ERR_MEM)
            status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory to read it", path);
        else if (warn)
            MBL_WARN("%s; looking for another one", mbl_fail_message());
    }
    if (good && (size_t)snprintf(out, size, "%s", path) >= size)
        status = MBL_FAIL(MBL_ERR_ARG, "%s: no room for it in %zu characters", path, size);
    *found = good;
done:
    mbl_free(steps);
    return status;
}

bool mbl_ckpt_other_good(const char *path, char *out, size_t size) {
    struct stat about;
    bool found = false;
    size_t tried;
    bool there = stat(path, &about) == 0;
    char *folder = mbl_ckpt_folder_of(path);
    if (folder && first_good(folder, there ? &about : NULL, false, out, size, &found, &tried) != MBL_OK)
        found = false;
    mbl_free(folder);
    return found;
}

mbl_status_t mbl_ckpt_latest(const char *folder, char *out, size_t size, bool *found) {
    size_t tried;
    bool good = false;
    MBL_TRY(first_good(folder, NULL, true, out, size, &good, &tried));
    if (!good && tried > 0)
        return MBL_FAIL(
            MBL_ERR_FORMAT,
            "%s: all %zu checkpoints in it are damaged; give a good one, or remove them to start anew",
            folder, tried);
    *found = good;
    return MBL_OK;
}
