/* Reading checkpoints: the trailer first, then HDF5's structure, the version, the attributes and every
 * dataset against their digests. */
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 1 << 20 };

typedef struct {
    char *name;
    mbl_dtype_t dtype;
    size_t count;
} dataset_t;

struct mbl_ckpt {
    char *path;
    hid_t file;
    dataset_t *sets;
    size_t n_sets, room;
    mbl_ckpt_attr_t *attrs; /* strings owned */
    size_t n_attrs;
    bool no_trailer;
    bool no_memory; /* where HDF5 or a NULL hides the reason: a good file is not called damaged for it */
};

bool mbl_ckpt_has_trailer(const mbl_ckpt_t *ckpt) {
    return !ckpt->no_trailer;
}

void mbl_ckpt_close(mbl_ckpt_t *ckpt) {
    if (!ckpt)
        return;
    if (ckpt->file >= 0)
        H5Fclose(ckpt->file);
    for (size_t i = 0; i < ckpt->n_sets; i++)
        mbl_free(ckpt->sets[i].name);
    for (size_t i = 0; i < ckpt->n_attrs; i++) {
        mbl_free((char *)ckpt->attrs[i].key);
        mbl_free((char *)ckpt->attrs[i].value);
    }
    mbl_free(ckpt->sets);
    mbl_free(ckpt->attrs);
    mbl_free(ckpt->path);
    mbl_free(ckpt);
}

/* HDF5 reads as many elements as an attribute has, whatever room they are given: ours have one. */
static bool has_one_element(hid_t attr) {
    hid_t space = H5Aget_space(attr);
    bool one = space >= 0 && H5Sget_simple_extent_npoints(space) == 1;
    if (space >= 0)
        H5Sclose(space);
    return one;
}

/* A number among the root's attributes; false where there is none of that name. */
static bool read_number(hid_t file, const char *key, int *number) {
    if (H5Aexists(file, key) <= 0)
        return false;
    hid_t attr = H5Aopen(file, key, H5P_DEFAULT);
    if (attr < 0)
        return false;
    bool good = has_one_element(attr) && H5Aread(attr, H5T_NATIVE_INT, number) >= 0;
    H5Aclose(attr);
    return good;
}

/* A text attribute of fixed or variable length as a string of ours; NULL when it is none, and without memory
 * (*no_memory is set then). */
static char *read_text(hid_t attr, bool *no_memory) {
    hid_t type = H5Aget_type(attr);
    char *text = NULL, *theirs = NULL;
    if (type >= 0 && H5Tget_class(type) == H5T_STRING && has_one_element(attr)) {
        if (H5Tis_variable_str(type) <= 0) {
            text = mbl_calloc(H5Tget_size(type) + 1, 1);
            *no_memory = *no_memory || !text;
            if (text && H5Aread(attr, type, text) < 0) {
                mbl_free(text);
                text = NULL;
            }
        } else if (H5Aread(attr, type, &theirs) >= 0) {
            text = mbl_strdup(theirs ? theirs : "");
            *no_memory = *no_memory || !text;
            H5free_memory(theirs);
        }
    }
    if (type >= 0)
        H5Tclose(type);
    return text;
}

static char *read_name(hid_t attr) {
    ssize_t n = H5Aget_name(attr, 0, NULL);
    char *name = n < 0 ? NULL : mbl_calloc((size_t)n + 1, 1);
    if (name)
        H5Aget_name(attr, (size_t)n + 1, name);
    return name;
}

static mbl_status_t no_memory(const mbl_ckpt_t *ckpt) {
    return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to read it", ckpt->path);
}

/* One attribute: ours is kept apart, texts enter the list (HDF5 gives them in order of their names). */
static mbl_status_t take_attr(mbl_ckpt_t *ckpt, hid_t attr, char *stated) {
    char *key = read_name(attr), *value = NULL;
    if (!key)
        return no_memory(ckpt);
    if (strcmp(key, MBL_CKPT_VERSION_KEY) == 0 || strcmp(key, MBL_CKPT_COUNT_KEY) == 0) {
        mbl_free(key);
        return MBL_OK;
    }
    value = read_text(attr, &ckpt->no_memory);
    if (!value) {
        mbl_status_t status =
            MBL_FAIL(MBL_ERR_FORMAT, "%s: attribute %s cannot be read as text", ckpt->path, key);
        mbl_free(key);
        return status;
    }
    if (strcmp(key, MBL_CKPT_ATTRS_KEY) == 0) {
        strncpy(stated, value, MBL_SHA256_HEX - 1);
        mbl_free(key);
        mbl_free(value);
        return MBL_OK;
    }
    ckpt->attrs[ckpt->n_attrs++] = (mbl_ckpt_attr_t){key, value};
    return MBL_OK;
}

/* They have one digest between them, so that nobody knows which one it is. */
static mbl_status_t refuse_attrs(const mbl_ckpt_t *ckpt, const char *stated, const char *digest) {
    char names[300] = "";
    for (size_t i = 0; i < ckpt->n_attrs && strlen(names) < sizeof names - 60; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%.40s", i ? ", " : "",
                 ckpt->attrs[i].key);
    return MBL_FAIL(
        MBL_ERR_FORMAT,
        "%s: its attributes (%s) are not those that marble wrote: one was changed, added or left "
        "out (SHA-256 %.12s, expected %.12s), and nothing else vouches for them; expected another "
        "copy of the file",
        ckpt->path, names, digest, *stated ? stated : "one in it");
}

static mbl_status_t read_attrs(mbl_ckpt_t *ckpt) {
    H5O_info_t info;
    char stated[MBL_SHA256_HEX] = "", digest[MBL_SHA256_HEX];
    if (H5Oget_info(ckpt->file, &info) < 0)
        return mbl_ckpt_hdf5_failed(ckpt->path, "describe", "the root group");
    MBL_ALLOC(ckpt->attrs, info.num_attrs + 1);
    for (hsize_t i = 0; i < info.num_attrs; i++) {
        hid_t attr = H5Aopen_by_idx(ckpt->file, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT);
        if (attr < 0)
            return mbl_ckpt_hdf5_failed(ckpt->path, "open", "an attribute");
        mbl_status_t status = take_attr(ckpt, attr, stated);
        H5Aclose(attr);
        MBL_TRY(status);
    }
    mbl_ckpt_attrs_digest(ckpt->attrs, ckpt->n_attrs, digest);
    if (strcmp(stated, digest) != 0)
        return refuse_attrs(ckpt, stated, digest);
    return MBL_OK;
}

static bool find_dtype(hid_t data, mbl_dtype_t *dtype) {
    static const mbl_dtype_t known[] = {MBL_F32, MBL_F64, MBL_I64, MBL_U8};
    hid_t type = H5Dget_type(data);
    bool found = false;
    for (size_t i = 0; type >= 0 && i < sizeof known / sizeof *known && !found; i++)
        if (H5Tequal(type, mbl_ckpt_type(known[i])) > 0) {
            *dtype = known[i];
            found = true;
        }
    if (type >= 0)
        H5Tclose(type);
    return found;
}

static mbl_status_t describe(const char *path, const char *name, hid_t data, mbl_dtype_t *dtype,
                             size_t *count) {
    hsize_t length = 0;
    hid_t space = H5Dget_space(data);
    int dims =
        space < 0 || H5Sget_simple_extent_type(space) != H5S_SIMPLE ? -1 : H5Sget_simple_extent_ndims(space);
    if (dims == 1)
        H5Sget_simple_extent_dims(space, &length, NULL);
    if (space >= 0)
        H5Sclose(space);
    if (dims != 1 || !find_dtype(data, dtype))
        return MBL_FAIL(
            MBL_ERR_FORMAT,
            "%s: dataset %s is not a list of f32, f64, i64 or u8, which marble would have written", path,
            name);
    size_t size = mbl_ckpt_size(*dtype);
    if (length > H5Dget_storage_size(data) / size)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: dataset %s: %llu elements, of which the file has no more than %llu", path, name,
                        (unsigned long long)length, (unsigned long long)(H5Dget_storage_size(data) / size));
    *count = (size_t)length;
    return MBL_OK;
}

/* Digest of a dataset, read a block at a time. */
static mbl_status_t digest_of(const mbl_ckpt_t *ckpt, const dataset_t *set, hid_t data, unsigned char *block,
                              char out[MBL_SHA256_HEX]) {
    size_t size = mbl_ckpt_size(set->dtype), most = BLOCK_BYTES / size;
    hsize_t whole = set->count;
    mbl_status_t status = MBL_OK;
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    hid_t space = H5Screate_simple(1, &whole, NULL);
    for (hsize_t at = 0, take; at < whole && status == MBL_OK; at += take) {
        take = whole - at < most ? whole - at : most;
        hid_t memory = H5Screate_simple(1, &take, NULL);
        if (memory < 0 || H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, NULL, &take, NULL) < 0 ||
            H5Dread(data, mbl_ckpt_type(set->dtype), memory, space, H5P_DEFAULT, block) < 0)
            status = mbl_ckpt_hdf5_failed(ckpt->path, "read dataset", set->name);
        else
            mbl_sha256_update(&sha, block, take * size);
        if (memory >= 0)
            H5Sclose(memory);
    }
    if (space >= 0)
        H5Sclose(space);
    mbl_sha256_hex(&sha, out);
    return status;
}

static mbl_status_t verify_dataset(mbl_ckpt_t *ckpt, const dataset_t *set, hid_t data, unsigned char *block) {
    char digest[MBL_SHA256_HEX], *stated = NULL;
    hid_t attr = H5Aopen(data, MBL_CKPT_DIGEST_KEY, H5P_DEFAULT);
    if (attr >= 0) {
        stated = read_text(attr, &ckpt->no_memory);
        H5Aclose(attr);
    }
    mbl_status_t status = digest_of(ckpt, set, data, block, digest);
    if (status == MBL_OK && (!stated || strcmp(stated, digest) != 0))
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: dataset %s is damaged: digest %s; expected %s", ckpt->path,
                          set->name, digest, stated ? stated : "(none stated)");
    mbl_free(stated);
    return status;
}

/* H5Ovisit calls this for every object below the root. */
static herr_t list_dataset(hid_t file, const char *name, const H5O_info_t *info, void *context) {
    mbl_ckpt_t *ckpt = context;
    (void)file;
    if (info->type != H5O_TYPE_DATASET)
        return 0;
    if (ckpt->n_sets == ckpt->room) {
        size_t room = ckpt->room ? 2 * ckpt->room : 16;
        dataset_t *more = mbl_realloc(ckpt->sets, ckpt->n_sets, room, sizeof *more);
        ckpt->no_memory = !more;
        if (!more)
            return -1;
        ckpt->sets = more;
        ckpt->room = room;
    }
    char *copy = mbl_strdup(name);
    ckpt->no_memory = !copy;
    if (!copy)
        return -1;
    ckpt->sets[ckpt->n_sets++] = (dataset_t){copy, MBL_F32, 0};
    return 0;
}

static mbl_status_t read_datasets(mbl_ckpt_t *ckpt) {
    unsigned char *block;
    mbl_status_t status = MBL_OK;
    if (H5Ovisit(ckpt->file, H5_INDEX_NAME, H5_ITER_INC, list_dataset, ckpt) < 0)
        return mbl_ckpt_hdf5_failed(ckpt->path, "list", "its datasets");
    MBL_ALLOC(block, BLOCK_BYTES);
    for (size_t i = 0; i < ckpt->n_sets && status == MBL_OK; i++) {
        dataset_t *set = &ckpt->sets[i];
        hid_t data = H5Dopen2(ckpt->file, set->name, H5P_DEFAULT);
        if (data < 0) {
            status = mbl_ckpt_hdf5_failed(ckpt->path, "open dataset", set->name);
            break;
        }
        status = describe(ckpt->path, set->name, data, &set->dtype, &set->count);
        if (status == MBL_OK)
            status = verify_dataset(ckpt, set, data, block);
        H5Dclose(data);
    }
    mbl_free(block);
    int count;
    if (status == MBL_OK && read_number(ckpt->file, MBL_CKPT_COUNT_KEY, &count) &&
        (size_t)count != ckpt->n_sets)
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: has %zu datasets; expected the %d that marble wrote",
                          ckpt->path, ckpt->n_sets, count);
    return status;
}

static hid_t open_hdf5(const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = H5I_INVALID_HID;
    /* No locks: file systems of clusters often have none, and a published checkpoint never changes. */
    if (access >= 0 && H5Pset_file_locking(access, false, true) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0)
        file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (access >= 0)
        H5Pclose(access);
    return file;
}

/* All but the trailer, and without `datasets` all but those. */
static mbl_status_t open_inside(const char *path, bool datasets, mbl_ckpt_t **out) {
    mbl_ckpt_t *ckpt;
    mbl_status_t status;
    int version;
    mbl_ckpt_quiet_hdf5();
    MBL_ALLOC(ckpt, 1);
    ckpt->file = H5I_INVALID_HID;
    ckpt->path = mbl_strdup(path);
    if (!ckpt->path) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory to read it", path);
        goto fail;
    }
    ckpt->file = open_hdf5(path);
    if (ckpt->file < 0) {
        status = mbl_ckpt_hdf5_failed(path, "open", "the file");
        goto fail;
    }
    if (!read_number(ckpt->file, MBL_CKPT_VERSION_KEY, &version) || version != MBL_CHECKPOINT_VERSION) {
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: attribute %s is not %d, the version that this marble reads",
                          path, MBL_CKPT_VERSION_KEY, MBL_CHECKPOINT_VERSION);
        goto fail;
    }
    MBL_TRY_GOTO(read_attrs(ckpt), fail);
    if (datasets)
        MBL_TRY_GOTO(read_datasets(ckpt), fail);
    *out = ckpt;
    return MBL_OK;
fail:
    if (ckpt->no_memory)
        status = no_memory(ckpt);
    mbl_ckpt_close(ckpt);
    return status;
}

/* By the name that latest.h5 may stand for. */
static mbl_status_t open_followed(const char *path, bool datasets, mbl_ckpt_t **out) {
    char *file;
    mbl_ckpt_vouch_t vouch = MBL_CKPT_BY_NOTHING;
    MBL_ALLOC(file, PATH_MAX);
    mbl_status_t status = mbl_ckpt_follow(path, file, PATH_MAX);
    if (status == MBL_OK)
        status = mbl_ckpt_verify_file(file, &vouch);
    if (status == MBL_OK)
        status = open_inside(file, datasets, out);
    if (status == MBL_OK && vouch == MBL_CKPT_BY_SEAL) {
        (*out)->no_trailer = true;
        if (datasets)
            MBL_WARN("%s: another program has opened it for writing and cut off its trailer; it is whole by "
                     "the digest inside "
                     "it; marble inspect --repair writes the trailer again",
                     path);
    }
    mbl_free(file);
    return status;
}

mbl_status_t mbl_ckpt_open_only(const char *path, mbl_ckpt_t **out) {
    return open_followed(path, true, out);
}

void mbl_ckpt_take_origin(const mbl_ckpt_t *ckpt, mbl_ckpt_origin_t *out) {
    const char *run = mbl_ckpt_attr(ckpt, MBL_CKPT_RUN_KEY), *step = mbl_ckpt_attr(ckpt, "step"),
               *branch = mbl_ckpt_attr(ckpt, MBL_CKPT_BRANCH_KEY);
    snprintf(out->run, sizeof out->run, "%s", run ? run : "");
    out->step = step ? strtoul(step, NULL, 10) : 0;
    out->branch = branch ? strtoul(branch, NULL, 10) : 0;
}

mbl_status_t mbl_ckpt_origin(const char *path, mbl_ckpt_origin_t *out) {
    mbl_ckpt_t *ckpt = NULL;
    MBL_TRY(open_followed(path, false, &ckpt));
    mbl_ckpt_take_origin(ckpt, out);
    mbl_ckpt_close(ckpt);
    return MBL_OK;
}

const char *mbl_ckpt_stranger(const mbl_ckpt_origin_t *origin, const mbl_ckpt_lineage_t *lineage) {
    if (lineage->run && origin->run[0] && strcmp(origin->run, lineage->run) != 0)
        return "of another run";
    for (size_t i = origin->branch; i < lineage->n; i++)
        if (origin->step > lineage->back[i])
            return "of a branch that this run left when it went back to an earlier step";
    return NULL;
}

mbl_status_t mbl_ckpt_verify_inside(const char *path) {
    mbl_ckpt_t *ckpt;
    MBL_TRY(open_inside(path, true, &ckpt));
    mbl_ckpt_close(ckpt);
    return MBL_OK;
}

mbl_status_t mbl_ckpt_open(const char *path, mbl_ckpt_t **out) {
    char other[512], reason[700];
    MBL_REQUIRE(path && out, "a checkpoint without path");
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_ckpt_open_only(path, out);
    snprintf(reason, sizeof reason, "%s", mbl_fail_message());
    bool found = status != MBL_OK && status != MBL_ERR_MEM && mbl_ckpt_other_good(path, other, sizeof other);
    mbl_fail_quiet(0);
    if (status == MBL_OK)
        return MBL_OK;
    if (found)
        return MBL_FAIL(status, "%s; the newest good checkpoint beside it is %s", reason, other);
    return MBL_FAIL(status, "%s", reason);
}

static const dataset_t *find_set(const mbl_ckpt_t *ckpt, const char *name) {
    for (size_t i = 0; i < ckpt->n_sets; i++)
        if (strcmp(ckpt->sets[i].name, name) == 0)
            return &ckpt->sets[i];
    return NULL;
}

mbl_status_t mbl_ckpt_read(mbl_ckpt_t *ckpt, const char *name, mbl_dtype_t dtype, size_t count, void *out) {
    const dataset_t *set = find_set(ckpt, name);
    if (!set)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: has no dataset %s; expected %zu x %s", ckpt->path, name, count,
                        mbl_ckpt_dtype_name(dtype));
    if (set->dtype != dtype || set->count != count)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: dataset %s is %zu x %s; expected %zu x %s", ckpt->path, name,
                        set->count, mbl_ckpt_dtype_name(set->dtype), count, mbl_ckpt_dtype_name(dtype));
    if (!count)
        return MBL_OK;
    hid_t data = H5Dopen2(ckpt->file, name, H5P_DEFAULT);
    if (data < 0)
        return mbl_ckpt_hdf5_failed(ckpt->path, "open dataset", name);
    herr_t error = H5Dread(data, mbl_ckpt_type(dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
    H5Dclose(data);
    return error < 0 ? mbl_ckpt_hdf5_failed(ckpt->path, "read dataset", name) : MBL_OK;
}

const char *mbl_ckpt_attr(const mbl_ckpt_t *ckpt, const char *key) {
    for (size_t i = 0; i < ckpt->n_attrs; i++)
        if (strcmp(ckpt->attrs[i].key, key) == 0)
            return ckpt->attrs[i].value;
    return NULL;
}

bool mbl_ckpt_attr_at(const mbl_ckpt_t *ckpt, size_t i, mbl_ckpt_attr_t *out) {
    if (i >= ckpt->n_attrs)
        return false;
    *out = ckpt->attrs[i];
    return true;
}

bool mbl_ckpt_item(const mbl_ckpt_t *ckpt, size_t i, mbl_ckpt_item_t *out) {
    if (i >= ckpt->n_sets)
        return false;
    *out = (mbl_ckpt_item_t){ckpt->sets[i].name, ckpt->sets[i].dtype, ckpt->sets[i].count, NULL};
    return true;
}
