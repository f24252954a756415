/* Writing safetensors. */
#include "model/safetensors.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* The widest types first, so that every tensor is aligned to its elements (the format allows no holes). */
static const mbl_dtype_t st_order[] = {MBL_F64, MBL_I64, MBL_F32, MBL_I32, MBL_BF16, MBL_U8};
enum { ST_ORDER = sizeof st_order / sizeof st_order[0] };

static const char *stored_name(mbl_dtype_t dtype) {
    static const char *const names[ST_ORDER] = {"F64", "I64", "F32", "I32", "BF16", "U8"};
    for (size_t i = 0; i < ST_ORDER; i++)
        if (st_order[i] == dtype)
            return names[i];
    return "?";
}

static mbl_status_t tensor_bytes(const char *path, const mbl_st_tensor_t *t, size_t *out) {
    size_t bytes = mbl_dtype_size(t->dtype);
    if (t->ndim < 0 || t->ndim > MBL_ST_MAX_DIMS)
        return MBL_FAIL(MBL_ERR_ARG, "%s: tensor %s: %d dimensions; expected 0 to %d", path, t->name, t->ndim,
                        MBL_ST_MAX_DIMS);
    for (int i = 0; i < t->ndim; i++)
        if (!mbl_mul(bytes, t->dim[i], &bytes))
            return MBL_FAIL(MBL_ERR_ARG, "%s: tensor %s: larger than any memory", path, t->name);
    *out = bytes;
    return MBL_OK;
}

static mbl_status_t describe(const char *path, json_t *header, const mbl_st_tensor_t *t, size_t *offset) {
    size_t bytes, end;
    MBL_TRY(tensor_bytes(path, t, &bytes));
    if (json_object_get(header, t->name) || strcmp(t->name, "__metadata__") == 0)
        return MBL_FAIL(MBL_ERR_ARG, "%s: tensor %s: the name is taken", path, t->name);
    if (!mbl_add(*offset, bytes, &end) || end > INT64_MAX)
        return MBL_FAIL(MBL_ERR_ARG, "%s: larger than any file", path);
    json_t *shape = json_array();
    for (int i = 0; shape && i < t->ndim; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->dim[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", stored_name(t->dtype), "shape", shape,
                              "data_offsets", (json_int_t)*offset, (json_int_t)end);
    if (json_object_set_new(header, t->name, entry) != 0)
        return MBL_FAIL(MBL_ERR_MEM, "%s: tensor %s: no memory, or a name that is not UTF-8", path, t->name);
    *offset = end;
    return MBL_OK;
}

static mbl_status_t build_header(const char *path, const mbl_st_tensor_t *tensors, size_t n,
                                 const char *const *metadata, json_t **out) {
    mbl_status_t status = MBL_OK;
    json_t *header = json_object();
    if (metadata && metadata[0]) {
        json_t *pairs = json_object();
        bool good = pairs != NULL;
        for (size_t i = 0; good && metadata[i]; i += 2)
            good = json_object_set_new(pairs, metadata[i], json_string(metadata[i + 1])) == 0;
        if (json_object_set_new(header, "__metadata__", pairs) != 0 || !good) {
            status = MBL_FAIL(MBL_ERR_ARG, "%s: the metadata is not UTF-8", path);
            goto failed;
        }
    }
    size_t offset = 0;
    for (size_t order = 0; order < ST_ORDER; order++)
        for (size_t i = 0; i < n; i++)
            if (tensors[i].dtype == st_order[order])
                MBL_TRY_GOTO(describe(path, header, &tensors[i], &offset), failed);
    *out = header;
    return MBL_OK;
failed:
    json_decref(header);
    return status;
}

static mbl_status_t put_all(mbl_file_writer_t *writer, const char *header, const mbl_st_tensor_t *tensors,
                            size_t n) {
    size_t length = strlen(header), padded = (length + 7) / 8 * 8;
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    MBL_TRY(mbl_file_put(writer, size, sizeof size));
    MBL_TRY(mbl_file_put(writer, header, length));
    MBL_TRY(mbl_file_put(writer, "       ", padded - length));
    for (size_t order = 0; order < ST_ORDER; order++) {
        for (size_t i = 0; i < n; i++) {
            size_t bytes;
            if (tensors[i].dtype != st_order[order])
                continue;
            MBL_TRY(tensor_bytes(writer->path, &tensors[i], &bytes));
            MBL_TRY(mbl_file_put(writer, tensors[i].data, bytes));
        }
    }
    return MBL_OK;
}

mbl_status_t mbl_st_write(const char *path, const mbl_st_tensor_t *tensors, size_t n,
                          const char *const *metadata) {
    json_t *header = NULL;
    MBL_TRY(build_header(path, tensors, n, metadata, &header));
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its header", path);
    mbl_file_writer_t writer;
    mbl_status_t status = mbl_file_begin(path, &writer);
    if (status == MBL_OK)
        status = put_all(&writer, text, tensors, n);
    if (status == MBL_OK)
        status = mbl_file_commit(&writer);
    free(text);
    return status;
}
