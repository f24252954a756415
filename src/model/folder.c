/* What a published folder holds besides the model. */
#include "model/folder.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/names.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* By its name, a file of weights. */
static bool may_hold_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".ckpt", ".gguf", ".bin", ".pt", ".pth"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i]))
            return true;
    return false;
}

/* A part is [library, class]; [null, null] is none. */
static bool is_named(const json_t *index, const char *name) {
    return json_is_string(json_array_get(json_object_get(index, name), 1));
}

static mbl_status_t add(const char *folder, const json_t *index, const char *name, json_t *list) {
    char *path = mbl_format("%s/%s", folder, name);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", folder);
    bool is_folder = mbl_folder_exists(path),
         extra = is_folder ? !is_named(index, name) : may_hold_weights(name);
    mbl_free(path);
    char *text = extra ? mbl_format("%s%s", name, is_folder ? "/" : "") : NULL;
    mbl_status_t status = MBL_OK;
    if (extra && (!text || json_array_append_new(list, json_string_nocheck(text)) != 0))
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a name", folder);
    mbl_free(text);
    return status;
}

mbl_status_t mbl_folder_extras(const char *folder, const json_t *index, json_t **out) {
    struct dirent **entries;
    json_t *list = json_array();
    int n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0) {
        json_decref(list);
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    }
    mbl_status_t status = list ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its names", folder);
    for (int i = 0; i < n; i++) {
        if (status == MBL_OK && entries[i]->d_name[0] != '.')
            status = add(folder, index, entries[i]->d_name, list);
        free(entries[i]); /* scandir's own allocation */
    }
    free(entries);
    if (status == MBL_OK)
        *out = list;
    else
        json_decref(list);
    return status;
}

mbl_status_t mbl_folder_log_extras(const char *folder, const json_t *index) {
    mbl_names_t names = {{0}, 0};
    json_t *list, *name;
    size_t i;
    MBL_TRY(mbl_folder_extras(folder, index, &list));
    json_array_foreach(list, i, name) mbl_names_add(&names, json_string_value(name));
    if (names.n > 0)
        MBL_INFO("%s: not read, as model_index.json names it as no part: %s", folder, mbl_names_text(&names));
    json_decref(list);
    return MBL_OK;
}
