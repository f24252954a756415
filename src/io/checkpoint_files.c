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

mbl_status_t mbl_ckpt_path(const char *folder, size_t step, char *out, size_t size) {
    int n = snprintf(out, size, "%s/step-%06zu.h5", folder, step);
    MBL_REQUIRE(n > 0 && (size_t)n < size, "%s: the path of a checkpoint has no room in %zu characters",
                folder, size);
    return MBL_OK;
}

static int falling(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x < y) - (x > y);
}

/* A file with something in it; whether it is a good one shows when it is opened. */
static bool may_be_one(int folder, const char *name) {
    struct stat about;
    return fstatat(folder, name, &about, 0) == 0 && S_ISREG(about.st_mode) && about.st_size > 0;
}

/* The steps of a folder's checkpoints, highest first; removes stale temporary files where `sweep`. No folder
 * means none. Free *steps with mbl_free. */
static mbl_status_t list_steps(const char *folder, bool sweep, size_t **steps, size_t *n) {
    size_t *found = NULL, used = 0, room = 0, step;
    DIR *dir = opendir(folder);
    if (!dir && errno != ENOENT)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (sweep && mbl_ckpt_parse_step(entry->d_name, ".tmp", &step))
            unlinkat(dirfd(dir), entry->d_name, 0);
        if (!mbl_ckpt_parse_step(entry->d_name, "", &step) || !may_be_one(dirfd(dir), entry->d_name))
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
    MBL_TRY(mbl_ckpt_point_latest(folder, step));
    mbl_status_t status = list_steps(folder, true, &steps, &n);
    if (status != MBL_OK) {
        MBL_WARN("%s; older checkpoints stay", mbl_fail_message());
        return status == MBL_ERR_MEM ? status : MBL_OK;
    }
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
    size_t step, i = 0;
    if (!mbl_ckpt_pointed(folder, &step))
        return;
    while (i < n && steps[i] != step)
        i++;
    if (i == n)
        return;
    memmove(steps + 1, steps, i * sizeof *steps);
    steps[0] = step;
}

typedef struct {
    const struct stat *except;         /* NULL: none */
    const mbl_ckpt_lineage_t *lineage; /* NULL: any */
    bool warn;
    size_t tried, foreign; /* out; foreign: good, and a stranger */
} search_t;

/* Whether the one called after `step` is good, and of the run that is looked for, where it is now. */
static mbl_status_t try_one(const char *path, size_t step, search_t *search, bool *good) {
    mbl_ckpt_t *ckpt = NULL;
    mbl_fail_quiet(1);
    mbl_status_t opened = mbl_ckpt_open_only(path, &ckpt);
    mbl_fail_quiet(0);
    ++search->tried;
    *good = opened == MBL_OK;
    if (opened == MBL_ERR_MEM)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to read it", path);
    if (opened != MBL_OK && search->warn)
        MBL_WARN("%s; looking for another one", mbl_fail_message());
    mbl_ckpt_origin_t origin;
    if (*good)
        mbl_ckpt_take_origin(ckpt, &origin);
    const char *why = *good && search->lineage ? mbl_ckpt_stranger(&origin, search->lineage) : NULL;
    if (*good && search->lineage && !why && origin.step != step)
        why = "renamed: its name has another step than it";
    if (why) {
        *good = false;
        ++search->foreign;
        if (search->warn)
            MBL_WARN("%s: %s (run %s, step %zu); looking for another one", path, why, origin.run,
                     origin.step);
    }
    mbl_ckpt_close(ckpt);
    return MBL_OK;
}

/* The first that will do of a folder's checkpoints. */
static mbl_status_t first_good(const char *folder, search_t *search, char *out, size_t size, bool *found) {
    char path[512];
    size_t *steps = NULL, n = 0;
    mbl_status_t status = MBL_OK;
    bool good = false;
    MBL_TRY(list_steps(folder, false, &steps, &n));
    latest_first(folder, steps, n);
    for (size_t i = 0; i < n && !good; i++) {
        struct stat about;
        MBL_TRY_GOTO(mbl_ckpt_path(folder, steps[i], path, sizeof path), done);
        if (search->except && stat(path, &about) == 0 && about.st_ino == search->except->st_ino &&
            about.st_dev == search->except->st_dev)
            continue;
        MBL_TRY_GOTO(try_one(path, steps[i], search, &good), done);
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
    search_t search = {.except = stat(path, &about) == 0 ? &about : NULL};
    char *folder = mbl_ckpt_folder_of(path);
    if (folder && first_good(folder, &search, out, size, &found) != MBL_OK)
        found = false;
    mbl_free(folder);
    return found;
}

mbl_status_t mbl_ckpt_latest(const char *folder, const mbl_ckpt_lineage_t *lineage, char *out, size_t size,
                             bool *found) {
    bool good = false;
    search_t search = {.lineage = lineage, .warn = true};
    MBL_TRY(first_good(folder, &search, out, size, &good));
    if (!good && search.foreign > 0)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: none of the %zu checkpoints in it is a good one of this run%s%s (%zu are of other runs, or "
            "of "
            "branches that it left); expected --resume FILE with another --out to go on from one of those",
            folder, search.tried, lineage->run ? ", " : "", lineage->run ? lineage->run : "", search.foreign);
    if (!good && search.tried > 0)
        return MBL_FAIL(
            MBL_ERR_FORMAT,
            "%s: all %zu checkpoints in it are damaged; give a good one, or remove them to start anew",
            folder, search.tried);
    *found = good;
    return MBL_OK;
}

bool mbl_ckpt_highest(const char *folder, size_t *step) {
    size_t *steps = NULL, n = 0;
    mbl_fail_quiet(1);
    bool found = list_steps(folder, false, &steps, &n) == MBL_OK && n > 0;
    mbl_fail_quiet(0);
    if (found)
        *step = steps[0];
    mbl_free(steps);
    return found;
}
