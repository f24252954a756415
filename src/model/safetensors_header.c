/* Files of safetensors and their headers: maps them and believes nothing a header says until it is checked.
 */
#include "model/safetensors_internal.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_LIMIT = 100 << 20 }; /* the format's own limit, in bytes */

/* ---- one entry of a header ---- */

/* All types of the format (safetensors 0.8). Those that have no dtype here are kept as bytes. */
static const struct {
    const char *name;
    size_t bits;
    mbl_dtype_t dtype;
    bool is_f16;
} st_dtypes[] = {
    {"F64", 64, MBL_F64, false},       {"F32", 32, MBL_F32, false},   {"BF16", 16, MBL_BF16, false},
    {"F16", 16, MBL_BF16, true},       {"I64", 64, MBL_I64, false},   {"I32", 32, MBL_I32, false},
    {"U8", 8, MBL_U8, false},          {"BOOL", 8, MBL_U8, false},    {"I8", 8, MBL_U8, false},
    {"I16", 16, MBL_U8, false},        {"U16", 16, MBL_U8, false},    {"U32", 32, MBL_U8, false},
    {"U64", 64, MBL_U8, false},        {"C64", 64, MBL_U8, false},    {"F8_E4M3", 8, MBL_U8, false},
    {"F8_E5M2", 8, MBL_U8, false},     {"F8_E8M0", 8, MBL_U8, false}, {"F8_E4M3FNUZ", 8, MBL_U8, false},
    {"F8_E5M2FNUZ", 8, MBL_U8, false}, {"F6_E2M3", 6, MBL_U8, false}, {"F6_E3M2", 6, MBL_U8, false},
    {"F4", 4, MBL_U8, false}};

static mbl_status_t parse_dtype(const char *path, const char *name, const json_t *value,
                                mbl_st_entry_t *entry, size_t *bits) {
    const char *text = json_string_value(value);
    for (size_t i = 0; text && i < sizeof st_dtypes / sizeof st_dtypes[0]; i++) {
        if (strcmp(text, st_dtypes[i].name) == 0) {
            entry->type = st_dtypes[i].name;
            entry->dtype = st_dtypes[i].dtype;
            entry->is_f16 = st_dtypes[i].is_f16;
            *bits = st_dtypes[i].bits;
            return MBL_OK;
        }
    }
    return MBL_FAIL(
        MBL_ERR_FORMAT,
        "%s: tensor %.80s: dtype \"%.20s\", expected one of safetensors', such as F32, BF16 or F16", path,
        name, text ? text : "(none)");
}

static mbl_status_t parse_shape(const char *path, const char *name, const json_t *value, size_t bits,
                                mbl_st_entry_t *entry) {
    size_t total = bits; /* in bits: some types have less than a byte */
    if (!json_is_array(value) || json_array_size(value) > MBL_ST_MAX_DIMS)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: shape must be an array of at most %d numbers",
                        path, name, MBL_ST_MAX_DIMS);
    entry->ndim = (int)json_array_size(value);
    for (int i = 0; i < entry->ndim; i++) {
        const json_t *dim = json_array_get(value, (size_t)i);
        json_int_t n = json_is_integer(dim) ? json_integer_value(dim) : -1;
        if (n < 0)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: dimension %d of the shape is not a size", path,
                            name, i);
        entry->dim[i] = (size_t)n;
        if (!mbl_mul(total, (size_t)n, &total))
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: the shape is larger than any memory", path,
                            name);
    }
    if (total % 8 != 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: %zu bits of %s, expected whole bytes", path, name,
                        total, entry->type);
    entry->bytes = total / 8;
    return MBL_OK;
}

static mbl_status_t parse_offsets(const char *path, const char *name, const json_t *value, size_t data_size,
                                  const unsigned char *data, mbl_st_entry_t *entry) {
    const json_t *begin = json_array_get(value, 0), *end = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: data_offsets must be two numbers", path, name);
    json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b || (uintmax_t)e > data_size)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: data_offsets [%lld, %lld] in %zu bytes of data",
                        path, name, (long long)b, (long long)e, data_size);
    if ((size_t)(e - b) != entry->bytes)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: %lld bytes of data, its shape and dtype need %zu",
                        path, name, (long long)(e - b), entry->bytes);
    entry->data = data + b;
    return MBL_OK;
}

static mbl_status_t parse_entry(const char *path, const char *name, const json_t *value, size_t data_size,
                                const unsigned char *data, mbl_st_entry_t *out) {
    mbl_st_entry_t entry = {0};
    if (!json_is_object(value))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: described by something that is no object", path,
                        name);
    size_t bits = 0;
    MBL_TRY(parse_dtype(path, name, json_object_get(value, "dtype"), &entry, &bits));
    MBL_TRY(parse_shape(path, name, json_object_get(value, "shape"), bits, &entry));
    MBL_TRY(parse_offsets(path, name, json_object_get(value, "data_offsets"), data_size, data, &entry));
    entry.name = mbl_strdup(name);
    if (!entry.name)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for tensor %.80s", path, name);
    *out = entry;
    return MBL_OK;
}

/* ---- one file ---- */

static mbl_status_t map_file(const char *path, mbl_st_file_t *out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    mbl_status_t status = MBL_OK;
    struct stat info;
    void *map = MAP_FAILED;
    char *copy = NULL;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        status = MBL_FAIL(MBL_ERR_IO, "%s: not a regular file", path);
    else if (info.st_size < 10)
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: %lld bytes are too few for a safetensors file", path,
                          (long long)info.st_size);
    else if (!(copy = mbl_strdup(path)))
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", path);
    else if ((map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    close(fd);
    if (status == MBL_OK)
        *out = (mbl_st_file_t){copy, map, (size_t)info.st_size};
    else
        mbl_free(copy);
    return status;
}

/* The header as JSON; *header_size without the eight bytes of length. */
static mbl_status_t parse_header(const mbl_st_file_t *file, size_t *header_size, json_t **out) {
    const unsigned char *bytes = file->map;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | bytes[i];
    if (mbl_is_lfs_pointer(file->map, file->size))
        return mbl_lfs_pointer_found(file->path, file->map, file->size);
    if (length > file->size - 8 || length < 2)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: a header of %llu bytes in a file of %zu: truncated or not safetensors",
                        file->path, (unsigned long long)length, file->size);
    if (length > HEADER_LIMIT)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: a header of %llu bytes; expected at most %d", file->path,
                        (unsigned long long)length, HEADER_LIMIT);
    if (bytes[8] != '{')
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: the header does not begin with {", file->path);
    json_error_t error;
    json_t *json = json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: the header is not valid JSON: %.120s", file->path, error.text);
    *header_size = (size_t)length;
    *out = json;
    return MBL_OK;
}

static int by_place(const void *a, const void *b) {
    const mbl_st_entry_t *x = a, *y = b;
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The data must be covered exactly: no overlap, no hole, nothing behind. */
static mbl_status_t check_cover(const mbl_st_file_t *file, mbl_st_entry_t *entries, size_t n,
                                const unsigned char *data, size_t data_size) {
    if (n > 0)
        qsort(entries, n, sizeof *entries, by_place);
    const unsigned char *expected = data;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *begin = entries[i].data;
        if (begin != expected)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s: its data %s", file->path, entries[i].name,
                            begin < expected ? "overlaps another tensor's" : "follows a hole");
        expected = begin + entries[i].bytes;
    }
    if (expected != data + data_size)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: %zu bytes of data belong to no tensor", file->path,
                        (size_t)(data + data_size - expected));
    return MBL_OK;
}

static mbl_status_t check_metadata(const char *path, const json_t *metadata) {
    const char *key;
    json_t *value;
    if (json_is_null(metadata)) /* as Python's package takes it: none */
        return MBL_OK;
    if (!json_is_object(metadata))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: __metadata__ is no object", path);
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: __metadata__.%.80s is no string", path, key);
    }
    return MBL_OK;
}

/* Entries of `header` appended to st (which owns them from then on, whatever follows). */
static mbl_status_t take_header(mbl_st_t *st, const mbl_st_file_t *file, json_t *header, size_t header_size) {
    const unsigned char *data = (const unsigned char *)file->map + 8 + header_size;
    size_t data_size = file->size - 8 - header_size, first = st->n, more = json_object_size(header);
    if (st->n + more > st->capacity) {
        mbl_st_entry_t *grown = mbl_realloc(st->entries, st->n, st->n + more, sizeof *grown);
        if (!grown)
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for %zu tensors", file->path, st->n + more);
        st->entries = grown;
        st->capacity = st->n + more;
    }
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value) {
        if (strcmp(name, "__metadata__") != 0) {
            MBL_TRY(parse_entry(file->path, name, value, data_size, data, &st->entries[st->n]));
            st->n++;
            continue;
        }
        MBL_TRY(check_metadata(file->path, value));
        if (!st->metadata && json_is_object(value))
            st->metadata = json_incref(value);
    }
    return check_cover(file, st->entries + first, st->n - first, data, data_size);
}

mbl_status_t mbl_st_add_file(mbl_st_t *st, const char *path) {
    mbl_st_file_t *file = &st->files[st->n_files];
    MBL_TRY(map_file(path, file));
    st->n_files++;
    json_t *header = NULL;
    size_t header_size;
    MBL_TRY(parse_header(file, &header_size, &header));
    mbl_status_t status = take_header(st, file, header, header_size);
    json_decref(header);
    return status;
}
