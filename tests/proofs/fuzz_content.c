/* libFuzzer harness of what the checkpoint reader does behind the digest: the input is a recipe for an HDF5
 * file (attributes and datasets of any type, shape and storage, groups, links), which gets a trailer that
 * fits. It may open or be refused; what opens is read whole. */
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const uint8_t *at, *end;
} recipe_t;

static unsigned next(recipe_t *r) {
    return r->at < r->end ? *r->at++ : 0;
}

/* Names that the reader looks for, and some that it does not. */
static const char *name_of(unsigned pick) {
    static const char *const names[] = {
        MBL_CKPT_VERSION_KEY, MBL_CKPT_ATTRS_KEY, MBL_CKPT_DIGEST_KEY, "step",
        "optimizer/m",        "adapter",          "adapter/current",   "a/b/c"};
    return names[pick % (sizeof names / sizeof *names)];
}

static hid_t text_type(size_t length) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, length);
    return type;
}

static hid_t type_of(unsigned pick) {
    const hsize_t two = 2;
    hid_t type;
    switch (pick % 12) {
    case 0:
        return H5Tcopy(H5T_IEEE_F32LE);
    case 1:
        return H5Tcopy(H5T_STD_I64LE);
    case 2:
        return H5Tcopy(H5T_STD_U8LE);
    case 3:
        return H5Tcopy(H5T_STD_I32LE);
    case 4:
        return H5Tcopy(H5T_IEEE_F64BE);
    case 5:
        return text_type(pick % 64 + 1);
    case 6:
        return text_type(H5T_VARIABLE);
    case 7:
        return H5Tarray_create2(H5T_STD_I32LE, 1, &two);
    case 8:
        return H5Tvlen_create(H5T_STD_I32LE);
    case 9:
        type = H5Tcreate(H5T_COMPOUND, 16);
        H5Tinsert(type, "x", 0, H5T_IEEE_F64LE);
        H5Tinsert(type, "y", 8, H5T_STD_I64LE);
        return type;
    case 10:
        return H5Tcreate(H5T_OPAQUE, pick % 32 + 1);
    default:
        return H5Tcopy(H5T_STD_REF_OBJ);
    }
}

static hid_t space_of(recipe_t *r) {
    unsigned pick = next(r);
    hsize_t dims[3] = {next(r), next(r) % 8, next(r) % 4};
    if (pick % 8 == 7)
        dims[0] <<= 40; /* larger than any memory: nothing of it may be stored */
    switch (pick % 4) {
    case 0:
        return H5Screate(H5S_SCALAR);
    case 1:
        return H5Screate(H5S_NULL);
    default:
        return H5Screate_simple(pick % 4 == 2 ? 1 : 3, dims, NULL);
    }
}

/* Numbers or text from the recipe; vlen types and references stay unwritten. */
static void fill(recipe_t *r, unsigned char *out, size_t size) {
    for (size_t i = 0; i < size; i++)
        out[i] = (unsigned char)next(r);
}

static bool is_plain(hid_t type) {
    H5T_class_t class = H5Tget_class(type);
    return class != H5T_VLEN && class != H5T_REFERENCE && H5Tis_variable_str(type) <= 0;
}

static void put_attribute(recipe_t *r, hid_t object) {
    static unsigned char buffer[1 << 18];
    const char *name = name_of(next(r));
    unsigned pick = next(r);
    const char *text = "text";
    hid_t type = type_of(pick), space = space_of(r);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    if (count > 0 && (size_t)count <= sizeof buffer / H5Tget_size(type)) {
        hid_t attr = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
        fill(r, buffer, (size_t)count * H5Tget_size(type) % 96);
        if (attr >= 0 && is_plain(type))
            H5Awrite(attr, type, buffer);
        else if (attr >= 0 && count == 1 && H5Tis_variable_str(type) > 0 && pick & 16)
            H5Awrite(attr, type, &text);
        if (attr >= 0)
            H5Aclose(attr);
    }
    H5Sclose(space);
    H5Tclose(type);
}

/* The version as the reader wants it, and a digest of all other attributes so far being none. */
static void put_right_attributes(hid_t file) {
    char digest[MBL_SHA256_HEX];
    int version = MBL_CHECKPOINT_VERSION;
    hid_t scalar = H5Screate(H5S_SCALAR), type = text_type(MBL_SHA256_HEX - 1);
    hid_t attr = H5Acreate2(file, MBL_CKPT_VERSION_KEY, H5T_STD_I32LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attr, H5T_NATIVE_INT, &version);
    H5Aclose(attr);
    mbl_ckpt_attrs_digest(NULL, 0, digest);
    attr = H5Acreate2(file, MBL_CKPT_ATTRS_KEY, type, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attr, type, digest);
    H5Aclose(attr);
    H5Tclose(type);
    H5Sclose(scalar);
}

/* The digest that its bytes have. */
static void put_right_digest(hid_t data, const void *bytes, size_t size) {
    char digest[MBL_SHA256_HEX];
    hid_t scalar = H5Screate(H5S_SCALAR), type = text_type(MBL_SHA256_HEX - 1);
    hid_t attr = H5Acreate2(data, MBL_CKPT_DIGEST_KEY, type, scalar, H5P_DEFAULT, H5P_DEFAULT);
    mbl_sha256_text(bytes, size, digest);
    H5Awrite(attr, type, digest);
    H5Aclose(attr);
    H5Tclose(type);
    H5Sclose(scalar);
}

static hid_t storage_of(unsigned pick, hid_t space) {
    const hsize_t chunk[3] = {7, 2, 2};
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    int dims = H5Sget_simple_extent_ndims(space);
    if (dims > 0 && pick & 1)
        H5Pset_chunk(creation, dims, chunk);
    if (dims > 0 && pick & 1 && pick & 2)
        H5Pset_fletcher32(creation);
    if (dims > 0 && pick & 1 && pick & 4)
        H5Pset_deflate(creation, 1);
    if (!(pick & 1) && pick & 8)
        H5Pset_layout(creation, H5D_COMPACT);
    return creation;
}

static void put_dataset(recipe_t *r, hid_t file) {
    static unsigned char buffer[1 << 16];
    const char *name = name_of(next(r));
    unsigned pick = next(r), storage = next(r), digest = next(r);
    hid_t type = type_of(pick), space = space_of(r), creation = storage_of(storage, space);
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t data = H5Dcreate2(file, name, type, space, links, creation, H5P_DEFAULT);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    size_t size = count > 0 ? H5Tget_size(type) : 0;
    bool small = count >= 0 && (size == 0 || (size_t)count <= sizeof buffer / size);
    memset(buffer, 0, sizeof buffer);
    fill(r, buffer, 64);
    if (data >= 0 && small && is_plain(type) && digest & 1)
        H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer);
    if (data >= 0 && small && digest & 2)
        put_right_digest(data, buffer, (size_t)count * size);
    if (data >= 0 && digest & 4)
        put_attribute(r, data);
    if (data >= 0)
        H5Dclose(data);
    H5Pclose(links);
    H5Pclose(creation);
    H5Sclose(space);
    H5Tclose(type);
}

static void put_link(recipe_t *r, hid_t file) {
    unsigned pick = next(r);
    const char *from = name_of(next(r)), *to = name_of(next(r));
    if (pick % 4 == 0)
        H5Lcreate_soft(to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    else if (pick % 4 == 1)
        H5Lcreate_external("other.h5", to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    else if (pick % 4 == 2)
        H5Lcreate_hard(file, to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    else
        H5Lcreate_hard(file, "/", file, from, H5P_DEFAULT, H5P_DEFAULT);
}

static hid_t cook(recipe_t *r, const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 16, false);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    if (file < 0)
        abort();
    if (next(r) & 3)
        put_right_attributes(file);
    for (int i = 0; i < 12 && r->at < r->end; i++) {
        unsigned pick = next(r);
        if (pick % 4 == 0)
            put_attribute(r, file);
        else if (pick % 4 == 3)
            put_link(r, file);
        else
            put_dataset(r, file);
    }
    return file;
}

static void read_all(mbl_ckpt_t *ckpt) {
    mbl_ckpt_item_t item;
    mbl_ckpt_attr_t attr;
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, &item); i++) {
        unsigned char *values = mbl_calloc(item.count, mbl_ckpt_size(item.dtype));
        if (values)
            (void)mbl_ckpt_read(ckpt, item.name, item.dtype, item.count, values);
        mbl_free(values);
    }
    for (size_t i = 0; mbl_ckpt_attr_at(ckpt, i, &attr); i++)
        if (strcmp(mbl_ckpt_attr(ckpt, attr.key), attr.value) != 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char folder[] = "/dev/shm/fuzz-content-XXXXXX", path[64];
    recipe_t recipe = {data, data + size};
    void *memory = NULL;
    mbl_ckpt_t *ckpt = NULL;
    mbl_log_set_level(MBL_LOG_OFF);
    if (!path[0]) {
        if (!mkdtemp(folder))
            return -1;
        snprintf(path, sizeof path, "%s/a.h5", folder);
    }
    mbl_ckpt_quiet_hdf5();
    hid_t file = cook(&recipe, path);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    ssize_t length = H5Fget_file_image(file, NULL, 0);
    if (length <= 0 || H5Fget_vfd_handle(file, H5P_DEFAULT, &memory) < 0 ||
        mbl_ckpt_write_file(path, *(unsigned char **)memory, (size_t)length) != MBL_OK)
        abort();
    H5Fclose(file);
    if (mbl_ckpt_open(path, &ckpt) == MBL_OK)
        read_all(ckpt);
    mbl_ckpt_close(ckpt);
    return 0;
}
