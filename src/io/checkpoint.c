/* Writing checkpoints: the HDF5 file is built in memory (so that a full disk meets our own write calls and
 * never HDF5 in the middle of a flush, after which it can neither close nor leave the file), then put on disk
 * with its trailer. */
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20 };
/* Bytes of HDF5's superblock, version 0 (HDF5 file format specification, II.A). */
enum { SUPERBLOCK_VERSION = 8, CONSISTENCY_FLAGS = 20 };

hid_t mbl_ckpt_type(mbl_dtype_t dtype) {
    switch (dtype) {
    case MBL_F32:
        return H5T_IEEE_F32LE;
    case MBL_F64:
        return H5T_IEEE_F64LE;
    case MBL_I64:
        return H5T_STD_I64LE;
    case MBL_U8:
        return H5T_STD_U8LE;
    default:
        return H5I_INVALID_HID;
    }
}

size_t mbl_ckpt_size(mbl_dtype_t dtype) {
    return dtype == MBL_F32 ? 4 : dtype == MBL_U8 ? 1 : 8;
}

const char *mbl_ckpt_dtype_name(mbl_dtype_t dtype) {
    return dtype == MBL_F32 ? "f32" : dtype == MBL_F64 ? "f64" : dtype == MBL_I64 ? "i64" : "u8";
}

void mbl_ckpt_quiet_hdf5(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
}

/* The innermost entry of HDF5's error stack says what happened. */
static herr_t keep_first(unsigned n, const H5E_error2_t *error, void *data) {
    if (n == 0 && error->desc)
        snprintf(data, 160, "%s", error->desc);
    return 0;
}

mbl_status_t mbl_ckpt_hdf5_failed(const char *path, const char *what, const char *name) {
    char cause[160] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, cause);
    H5Eclear2(H5E_DEFAULT);
    return MBL_FAIL(MBL_ERR_IO, "%s: HDF5 cannot %s %s: %s", path, what, name, cause);
}

void mbl_ckpt_attrs_digest(const mbl_ckpt_attr_t *attrs, size_t n, char out[MBL_SHA256_HEX]) {
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    for (size_t i = 0; i < n; i++) {
        mbl_sha256_update(&sha, attrs[i].key, strlen(attrs[i].key) + 1);
        mbl_sha256_update(&sha, attrs[i].value, strlen(attrs[i].value) + 1);
    }
    mbl_sha256_hex(&sha, out);
}

/* A text attribute: of fixed length (`length` > 0) or, for texts beyond the 64 KiB an object header holds, of
 * variable length. */
static bool put_text(hid_t object, const char *key, const char *value, size_t length) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attr = H5I_INVALID_HID;
    bool good = type >= 0 && space >= 0 && H5Tset_size(type, length ? length : H5T_VARIABLE) >= 0 &&
                H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    if (good)
        attr = H5Acreate2(object, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    good =
        good && attr >= 0 && H5Awrite(attr, type, length ? (const void *)value : (const void *)&value) >= 0;
    if (attr >= 0)
        good = H5Aclose(attr) >= 0 && good;
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    return good;
}

static bool put_number(hid_t object, const char *key, int value) {
    hid_t space = H5Screate(H5S_SCALAR), attr = H5I_INVALID_HID;
    if (space >= 0)
        attr = H5Acreate2(object, key, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attr >= 0 && H5Awrite(attr, H5T_NATIVE_INT, &value) >= 0;
    if (attr >= 0)
        good = H5Aclose(attr) >= 0 && good;
    if (space >= 0)
        H5Sclose(space);
    return good;
}

/* Chunks with Fletcher32; an empty dataset has no chunks. No times, so that equal content is equal bytes. */
static bool dataset_properties(const mbl_ckpt_item_t *item, hid_t *links, hid_t *creation) {
    hsize_t chunk = CHUNK_BYTES / mbl_ckpt_size(item->dtype);
    chunk = item->count < chunk ? item->count : chunk;
    *links = H5Pcreate(H5P_LINK_CREATE);
    *creation = H5Pcreate(H5P_DATASET_CREATE);
    bool good = *links >= 0 && *creation >= 0 && H5Pset_create_intermediate_group(*links, 1) >= 0 &&
                H5Pset_char_encoding(*links, H5T_CSET_UTF8) >= 0 &&
                H5Pset_obj_track_times(*creation, false) >= 0;
    if (good && chunk > 0)
        good = H5Pset_chunk(*creation, 1, &chunk) >= 0 && H5Pset_fletcher32(*creation) >= 0;
    return good;
}

/* Zeros in the same order of chunks as data would be stored, so that the file is laid out the same. */
static bool put_zeros(hid_t data, hid_t type, hid_t space, const mbl_ckpt_item_t *item) {
    hsize_t most = CHUNK_BYTES / mbl_ckpt_size(item->dtype), take;
    unsigned char *zeros = mbl_calloc(CHUNK_BYTES, 1);
    bool good = zeros != NULL;
    for (hsize_t at = 0; at < item->count && good; at += take) {
        take = item->count - at < most ? item->count - at : most;
        hid_t memory = H5Screate_simple(1, &take, NULL);
        good = memory >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, NULL, &take, NULL) >= 0 &&
               H5Dwrite(data, type, memory, space, H5P_DEFAULT, zeros) >= 0;
        if (memory >= 0)
            H5Sclose(memory);
    }
    mbl_free(zeros);
    return good;
}

static bool put_dataset(hid_t file, const mbl_ckpt_item_t *item, const char *stated, bool sealed) {
    hid_t type = mbl_ckpt_type(item->dtype), links, creation, data = H5I_INVALID_HID;
    hsize_t count = item->count;
    char digest[MBL_SHA256_HEX], seal[MBL_CKPT_SEAL_ROOM];
    hid_t space = H5Screate_simple(1, &count, NULL);
    bool good = dataset_properties(item, &links, &creation) && space >= 0;
    if (good)
        data = H5Dcreate2(file, item->name, type, space, links, creation, H5P_DEFAULT);
    good = data >= 0;
    if (good && count > 0)
        good = stated ? put_zeros(data, type, space, item)
                      : H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, item->data) >= 0;
    if (good) {
        if (!stated)
            mbl_sha256_text(item->data, item->count * mbl_ckpt_size(item->dtype), digest);
        good = put_text(data, MBL_CKPT_DIGEST_KEY, stated ? stated : digest, MBL_SHA256_HEX - 1);
    }
    if (good && sealed) {
        mbl_ckpt_seal_text(seal);
        good = put_text(data, MBL_CKPT_SEAL_KEY, seal, strlen(seal));
    }
    if (data >= 0)
        good = H5Dclose(data) >= 0 && good;
    if (space >= 0)
        H5Sclose(space);
    if (links >= 0)
        H5Pclose(links);
    if (creation >= 0)
        H5Pclose(creation);
    return good;
}

hid_t mbl_ckpt_create_in_memory(const char *path, size_t bytes) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = H5I_INVALID_HID;
    if (access >= 0 && H5Pset_fapl_core(access, bytes, false) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0)
        file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (access >= 0)
        H5Pclose(access);
    return file;
}

static mbl_status_t fill(hid_t file, const char *path, const mbl_ckpt_item_t *items, size_t n,
                         const mbl_ckpt_attr_t *attrs, size_t n_attrs, const char *const *digests) {
    char digest[MBL_SHA256_HEX];
    if (!put_number(file, MBL_CKPT_VERSION_KEY, MBL_CHECKPOINT_VERSION))
        return mbl_ckpt_hdf5_failed(path, "store", MBL_CKPT_VERSION_KEY);
    for (size_t i = 0; i < n_attrs; i++)
        if (!put_text(file, attrs[i].key, attrs[i].value, 0))
            return mbl_ckpt_hdf5_failed(path, "store attribute", attrs[i].key);
    mbl_ckpt_attrs_digest(attrs, n_attrs, digest);
    if (!put_text(file, MBL_CKPT_ATTRS_KEY, digest, MBL_SHA256_HEX - 1))
        return mbl_ckpt_hdf5_failed(path, "store", MBL_CKPT_ATTRS_KEY);
    if (!put_number(file, MBL_CKPT_COUNT_KEY, (int)n))
        return mbl_ckpt_hdf5_failed(path, "store", MBL_CKPT_COUNT_KEY);
    for (size_t i = 0; i < n; i++)
        if (!put_dataset(file, &items[i], digests ? digests[i] : NULL, i == 0))
            return mbl_ckpt_hdf5_failed(path, "store dataset", items[i].name);
    return MBL_OK;
}

/* Flushed; closing would also say that nobody has it open for writing. */
mbl_status_t mbl_ckpt_image(hid_t file, const char *path, unsigned char **image, size_t *size) {
    void *memory = NULL;
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        return mbl_ckpt_hdf5_failed(path, "flush", "the file in memory");
    ssize_t bytes = H5Fget_file_image(file, NULL, 0);
    if (bytes <= 0 || H5Fget_vfd_handle(file, H5P_DEFAULT, &memory) < 0 || !memory)
        return mbl_ckpt_hdf5_failed(path, "give out", "the file in memory");
    *image = *(unsigned char **)memory;
    *size = (size_t)bytes;
    if ((*image)[SUPERBLOCK_VERSION] == 0)
        memset(*image + CONSISTENCY_FLAGS, 0, 4);
    return MBL_OK;
}

static mbl_status_t put_on_disk(hid_t file, const char *path,
                                mbl_status_t (*put)(const char *path, const unsigned char *data,
                                                    size_t size)) {
    unsigned char *image;
    size_t size;
    MBL_TRY(mbl_ckpt_image(file, path, &image, &size));
    mbl_ckpt_seal(image, size); /* of a file that others write into: once more when they have */
    return put(path, image, size);
}

static mbl_status_t check_items(const char *path, const mbl_ckpt_item_t *items, size_t n,
                                const char *const *digests, size_t *total) {
    *total = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = items[i].name;
        size_t bytes;
        MBL_REQUIRE(name && *name && *name != '/' && name[strlen(name) - 1] != '/' && !strstr(name, "//"),
                    "%s: dataset \"%s\"; expected a name like group/name", path, name ? name : "(none)");
        MBL_REQUIRE(mbl_ckpt_type(items[i].dtype) >= 0,
                    "%s: dataset %s: type %d; expected f32, f64, i64 or u8", path, name, (int)items[i].dtype);
        MBL_REQUIRE(mbl_mul(items[i].count, mbl_ckpt_size(items[i].dtype), &bytes) &&
                        mbl_add(*total, bytes, total) && *total < SIZE_MAX / 4,
                    "%s: dataset %s: %zu elements are too many", path, name, items[i].count);
        MBL_REQUIRE(items[i].data || !bytes || (digests && digests[i]), "%s: dataset %s has no data", path,
                    name);
    }
    return MBL_OK;
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const mbl_ckpt_attr_t *)a)->key, ((const mbl_ckpt_attr_t *)b)->key);
}

static mbl_status_t sort_attrs(const char *path, mbl_ckpt_attr_t *attrs, size_t n) {
    for (size_t i = 0; i < n; i++)
        MBL_REQUIRE(attrs[i].key && *attrs[i].key && attrs[i].value &&
                        strcmp(attrs[i].key, MBL_CKPT_VERSION_KEY) != 0 &&
                        strcmp(attrs[i].key, MBL_CKPT_COUNT_KEY) != 0 &&
                        strcmp(attrs[i].key, MBL_CKPT_ATTRS_KEY) != 0,
                    "%s: attribute \"%s\"; expected a key and a value, and a key that checkpoints do "
                    "not use themselves",
                    path, attrs[i].key ? attrs[i].key : "(none)");
    if (n > 1)
        qsort(attrs, n, sizeof *attrs, by_key);
    for (size_t i = 1; i < n; i++)
        MBL_REQUIRE(strcmp(attrs[i - 1].key, attrs[i].key) != 0, "%s: attribute %s is given twice", path,
                    attrs[i].key);
    return MBL_OK;
}

mbl_status_t mbl_ckpt_make(const char *path, const mbl_ckpt_item_t *items, size_t n,
                           const mbl_ckpt_attr_t *attrs, size_t n_attrs, const char *const *digests,
                           mbl_status_t (*put)(const char *path, const unsigned char *data, size_t size)) {
    size_t total;
    mbl_status_t status = MBL_OK;
    mbl_ckpt_attr_t *sorted;
    MBL_REQUIRE(path && (items || !n) && (attrs || !n_attrs), "a checkpoint without path or content");
    MBL_TRY(check_items(path, items, n, digests, &total));
    MBL_ALLOC(sorted, n_attrs + 1);
    if (n_attrs)
        memcpy(sorted, attrs, n_attrs * sizeof *sorted);
    MBL_TRY_GOTO(sort_attrs(path, sorted, n_attrs), free_sorted);
    mbl_ckpt_quiet_hdf5();
    hid_t file = mbl_ckpt_create_in_memory(path, total + total / 64 + CHUNK_BYTES);
    if (file < 0) {
        status = mbl_ckpt_hdf5_failed(path, "make", "a file in memory");
        goto free_sorted;
    }
    MBL_TRY_GOTO(fill(file, path, items, n, sorted, n_attrs, digests), close_file);
    status = put_on_disk(file, path, put);
close_file:
    H5Fclose(file);
free_sorted:
    mbl_free(sorted);
    return status;
}

mbl_status_t mbl_ckpt_write(const char *path, const mbl_ckpt_item_t *items, size_t n,
                            const mbl_ckpt_attr_t *attrs, size_t n_attrs) {
    return mbl_ckpt_make(path, items, n, attrs, n_attrs, NULL, mbl_ckpt_write_file);
}
