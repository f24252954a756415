/* Sets of safetensors files: every shard an index names, and every tensor in the shard it says. */
#include "model/safetensors_internal.h"
#include "base/mem.h"

#include <string.h>

/* An index of one variant of the weights that names files of another would mix two sets. */
static mbl_status_t check_variant(const char *path, const char *shard) {
    const char *slash = strrchr(path, '/'), *index = slash ? slash + 1 : path;
    bool expected = strstr(index, ".fp16.") != NULL,
         found = strstr(shard, ".fp16.") != NULL || strstr(shard, ".fp16-") != NULL;
    if (expected != found)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: weight_map: \"%.80s\" is %s the variant fp16; expected the files of one variant",
                        path, shard, found ? "of" : "not of");
    return MBL_OK;
}

/* `name` beside `path`; a shard's name may not lead out of the folder. */
static mbl_status_t shard_path(const char *path, const json_t *value, char **out) {
    const char *name = json_string_value(value), *slash = strrchr(path, '/');
    if (!name || !*name || strchr(name, '/') || strcmp(name, "..") == 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: weight_map: \"%.80s\" is no file name", path,
                        name ? name : "(none)");
    int folder = slash ? (int)(slash - path + 1) : 0;
    MBL_TRY(check_variant(path, name));
    *out = mbl_format("%.*s%s", folder, path, name);
    if (!*out)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a shard's name", path);
    return MBL_OK;
}

static mbl_status_t open_shards(mbl_st_t *st, const char *path, json_t *map) {
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        char *shard;
        MBL_TRY(shard_path(path, value, &shard));
        bool known = false;
        for (size_t i = 0; i < st->n_files && !known; i++)
            known = strcmp(st->files[i].path, shard) == 0;
        mbl_status_t status = MBL_OK;
        if (!known) {
            mbl_st_file_t *grown = mbl_realloc(st->files, st->n_files, st->n_files + 1, sizeof *grown);
            if (grown)
                st->files = grown;
            status =
                grown ? mbl_st_add_file(st, shard) : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a shard", path);
        }
        mbl_free(shard);
        MBL_TRY(status);
    }
    return MBL_OK;
}

/* Every name of the map must lie in the shard the map says. */
static mbl_status_t check_map(const mbl_st_t *st, const char *path, json_t *map) {
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        const mbl_st_entry_t *entry = mbl_st_find(st, name);
        char *shard;
        MBL_TRY(shard_path(path, value, &shard));
        bool inside = false;
        for (size_t i = 0; entry && i < st->n_files; i++) {
            const unsigned char *begin = st->files[i].map, *data = entry->data;
            if (strcmp(st->files[i].path, shard) == 0)
                inside = data >= begin && data <= begin + st->files[i].size;
        }
        mbl_free(shard);
        if (!inside)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s is not in %.80s", path, name,
                            json_string_value(value));
    }
    return MBL_OK;
}

mbl_status_t mbl_st_open_index(mbl_st_t *st, const char *path) {
    json_t *index;
    MBL_TRY(mbl_json_read(path, &index));
    json_t *map = json_object_get(index, "weight_map");
    mbl_status_t status;
    if (json_object_size(map) == 0)
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: weight_map: missing or empty", path);
    else
        MBL_TRY_GOTO(open_shards(st, path, map), done);
    if (map && json_object_size(map) > 0) {
        MBL_TRY_GOTO(mbl_st_sort(st, path), done);
        status = check_map(st, path, map);
    }
done:
    json_decref(index);
    return status;
}
