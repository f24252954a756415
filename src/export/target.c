/* Checking where an export may write. */
#include "export/target.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static mbl_status_t no_memory(const char *path) {
    return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", path);
}

/* ---- places ---- */

/* The absolute path without links of what exists of `path`, with the rest behind it. */
static mbl_status_t real_place(const char *option, const char *path, char **out) {
    char found[PATH_MAX], *part = mbl_strdup(path);
    size_t length = part ? strlen(part) : 0, cut = length;
    if (!part)
        return no_memory(path);
    while (cut > 0 && !realpath(part, found)) {
        while (cut > 0 && part[cut - 1] == '/')
            cut--;
        while (cut > 0 && part[cut - 1] != '/')
            cut--;
        part[cut] = 0;
    }
    mbl_free(part);
    if (cut == 0 && !realpath(path[0] == '/' ? "/" : ".", found))
        return MBL_FAIL(MBL_ERR_IO, "%s: %s: cannot be found: %s", option, path, strerror(errno));
    const char *rest = path + cut;
    if (strstr(rest, ".."))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "%s: %s: \"..\" behind a folder that does not exist; expected a plain path", option,
                        path);
    bool root = strcmp(found, "/") == 0;
    *out = mbl_format("%s%s%s", root && *rest ? "" : found, *rest ? "/" : "", rest);
    return *out ? MBL_OK : no_memory(path);
}

static bool same(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool mbl_target_same(const char *a, const char *b) {
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && same(&one, &other);
}

/* Whether `folder`, one of its entries, or one of theirs (links followed) is the file or folder `what`. */
static bool holds(const char *folder, const struct stat *what, int depth) {
    struct stat about;
    bool found = stat(folder, &about) == 0 && same(&about, what);
    DIR *dir = !found && depth > 0 ? opendir(folder) : NULL;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        char *path = entry->d_name[0] == '.' ? NULL : mbl_format("%s/%s", folder, entry->d_name);
        found = path && holds(path, what, depth - 1);
        mbl_free(path);
    }
    if (dir)
        closedir(dir);
    return found;
}

/* Whether `place` is the base or lies in it: the place itself and every folder above it. */
static mbl_status_t is_inside(const char *place, const char *base, bool *inside) {
    char *part = mbl_strdup(place);
    if (!part)
        return no_memory(place);
    *inside = false;
    for (size_t end = strlen(part); end > 0 && !*inside; end--) {
        struct stat about;
        if (part[end] && part[end] != '/')
            continue;
        part[end] = 0;
        /* a file of the base is one of its own, not merely one with the same folder above */
        *inside = stat(part, &about) == 0 && holds(base, &about, 2);
    }
    mbl_free(part);
    return MBL_OK;
}

/* Whether `place` is a folder above the base, of which `base` is the path as given. */
static bool is_above(const char *place, const char *base) {
    char real[PATH_MAX];
    struct stat about, above;
    if (stat(place, &about) != 0 || !realpath(base, real))
        return false;
    for (char *slash; (slash = strrchr(real, '/')) && real[1];) {
        slash[slash == real] = 0;
        if (stat(real, &above) == 0 && same(&above, &about))
            return true;
    }
    return false;
}

/* ---- what is there ---- */

/* The first entry of a folder into name [NAME_MAX + 1], "" when it is empty. */
static mbl_status_t first_entry(const char *option, const char *path, char *name) {
    DIR *dir = opendir(path);
    name[0] = 0;
    if (!dir)
        return MBL_FAIL(MBL_ERR_IO, "%s: %s: cannot be listed: %s", option, path, strerror(errno));
    for (struct dirent *entry; !name[0] && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            strcpy(name, entry->d_name);
    closedir(dir);
    return MBL_OK;
}

static mbl_status_t check_folder(const mbl_target_t *target, bool force) {
    char name[NAME_MAX + 1];
    struct stat about;
    if (stat(target->path, &about) != 0)
        return MBL_OK;
    if (!S_ISDIR(about.st_mode))
        return MBL_FAIL(MBL_ERR_USAGE, "%s: %s: is no folder; expected a new or an empty one", target->option,
                        target->path);
    MBL_TRY(first_entry(target->option, target->path, name));
    if (!name[0] || force)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_USAGE,
                    "%s: %s: is not empty (it has %s); expected a new or an empty folder, or --force, which "
                    "replaces files "
                    "of the same names%s",
                    target->option, target->path, name,
                    target->beside ? " and removes the weights that lie in the model's parts" : "");
}

static mbl_status_t check_file(const mbl_target_t *target, const char *checkpoint, bool force) {
    struct stat about, mine;
    if (lstat(target->path, &about) != 0)
        return MBL_OK;
    if (stat(target->path, &about) == 0 && !S_ISREG(about.st_mode))
        return MBL_FAIL(MBL_ERR_USAGE, "%s: %s: is %s; expected the name of a file", target->option,
                        target->path, S_ISDIR(about.st_mode) ? "a folder" : "no regular file");
    if (stat(target->path, &about) == 0 && stat(checkpoint, &mine) == 0 && same(&about, &mine))
        return MBL_FAIL(MBL_ERR_USAGE, "%s: %s: is the checkpoint; expected another file", target->option,
                        target->path);
    if (force)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_USAGE, "%s: %s: exists; expected a new file, or --force, which replaces it",
                    target->option, target->path);
}

static mbl_status_t check_one(const mbl_target_t *target, const char *place, const char *base,
                              const char *checkpoint, bool force) {
    bool inside = false;
    if (!target->path[0])
        return MBL_FAIL(MBL_ERR_USAGE, "%s: \"\": is no path; expected a %s", target->option,
                        target->folder ? "folder" : "file");
    MBL_TRY(is_inside(place, base, &inside));
    if (inside)
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "%s: %s: is the base model %s, or lies in it; expected a place outside: an export never "
            "changes its base",
            target->option, target->path, base);
    if (target->beside && is_above(place, base))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "%s: %s: the base model %s lies in it; expected a folder of the new model's own",
                        target->option, target->path, base);
    return target->folder ? check_folder(target, force) : check_file(target, checkpoint, force);
}

/* Two outputs in one place, or a file in a folder that another option fills. */
static mbl_status_t check_pair(const mbl_target_t *a, const char *place, const mbl_target_t *b,
                               const char *other) {
    size_t length = strlen(other);
    bool below = strncmp(place, other, length) == 0 && (place[length] == '/' || !place[length]);
    if (strcmp(place, other) != 0 && (a->folder || !below || strcmp(b->option, "--card") == 0))
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_USAGE, "%s: %s: %s writes there too; expected a place of its own", a->option,
                    a->path, b->option);
}

mbl_status_t mbl_target_check(const mbl_target_t *targets, size_t n, const char *base, const char *checkpoint,
                              bool force) {
    mbl_status_t status = MBL_OK;
    char **places;
    MBL_ALLOC(places, n);
    for (size_t i = 0; i < n && status == MBL_OK; i++)
        if (targets[i].path)
            status = real_place(targets[i].option, targets[i].path, &places[i]);
    for (size_t i = 0; i < n && status == MBL_OK; i++)
        if (targets[i].path)
            status = check_one(&targets[i], places[i], base, checkpoint, force);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n && status == MBL_OK; j++)
            if (i != j && places[i] && places[j] && (targets[j].folder || i < j))
                status = check_pair(&targets[i], places[i], &targets[j], places[j]);
    for (size_t i = 0; i < n; i++)
        mbl_free(places[i]);
    mbl_free(places);
    return status;
}
