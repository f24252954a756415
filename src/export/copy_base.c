/* The parts of a base model beside a merged transformer. */
#include "export/target.h"

#include "base/copy.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool begins(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static bool ends(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* What loaders take for weights: single files, shards, their indexes, variants of both. */
static bool is_weights(const char *name) {
    return (begins(name, "model") || begins(name, "diffusion_pytorch_model") ||
            begins(name, "pytorch_model")) &&
           (ends(name, ".safetensors") || ends(name, ".bin") || strstr(name, ".index."));
}

static mbl_status_t remove_weights(const char *folder) {
    mbl_status_t status = MBL_OK;
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? MBL_OK
                               : MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *entry; status == MBL_OK && (entry = readdir(dir));)
        if (is_weights(entry->d_name) && unlinkat(dirfd(dir), entry->d_name, 0) != 0)
            status = MBL_FAIL(MBL_ERR_IO, "%s/%s: old weights cannot be removed: %s", folder, entry->d_name,
                              strerror(errno));
    closedir(dir);
    return status;
}

/* A part of the target without weights of its own. */
static mbl_status_t clear_part(const char *to) {
    struct stat about;
    if (lstat(to, &about) == 0 && !S_ISDIR(about.st_mode))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "%s: is %s; expected a folder, or nothing, where a part of the model goes", to,
                        S_ISLNK(about.st_mode) ? "a link, which is not written through" : "no folder");
    return remove_weights(to);
}

static mbl_status_t copy_part(const char *base, const char *to, const char *name) {
    char *source = mbl_format("%s/%s", base, name), *target = mbl_format("%s/%s", to, name);
    mbl_status_t status;
    if (!source || !target)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", base);
    else
        status = mbl_folder_exists(source) ? clear_part(target) : MBL_OK;
    if (status == MBL_OK && mbl_folder_exists(source) && strcmp(name, "transformer") != 0)
        status = mbl_folder_copy(source, target, NULL);
    else if (status == MBL_OK && mbl_file_exists(source))
        status = mbl_file_copy(source, target);
    mbl_free(source);
    mbl_free(target);
    return status;
}

static mbl_status_t copy_licences(const char *base, const char *to) {
    mbl_status_t status = MBL_OK;
    DIR *dir = opendir(base);
    if (!dir)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", base, strerror(errno));
    for (struct dirent *entry; status == MBL_OK && (entry = readdir(dir));)
        if (begins(entry->d_name, "LICENSE") || begins(entry->d_name, "NOTICE"))
            status = copy_part(base, to, entry->d_name);
    closedir(dir);
    return status;
}

static mbl_status_t copy_all(const char *base, const char *to, const json_t *index) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)index, name, value) {
        if (json_is_array(value) && !strchr(name, '/') && name[0] != '.')
            MBL_TRY(copy_part(base, to, name));
    }
    MBL_TRY(copy_part(base, to, "transformer"));
    return copy_licences(base, to);
}

mbl_status_t mbl_target_finish(const char *base, const char *to) {
    return copy_part(base, to, "model_index.json");
}

mbl_status_t mbl_target_copy_base(const char *base, const char *to) {
    json_t *index = NULL;
    char *path = mbl_format("%s/model_index.json", base);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", base);
    char *old = mbl_format("%s/model_index.json", to);
    mbl_status_t status = mbl_json_read(path, &index);
    mbl_free(path);
    if (status == MBL_OK && !old)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", to);
    if (status == MBL_OK)
        status = mbl_folder_make(to);
    if (status == MBL_OK && unlink(old) != 0 && errno != ENOENT)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be removed: %s", old, strerror(errno));
    mbl_free(old);
    if (status == MBL_OK)
        status = copy_all(base, to, index);
    json_decref(index);
    return status;
}
