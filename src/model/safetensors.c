/* Reading safetensors: maps files and believes nothing a header says until it is checked. */
#include "model/safetensors.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/names.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_LIMIT = 100 << 20 }; /* the format's own limit, in bytes */

typedef struct {
    char *path;
    void *map;
    size_t size;
} st_file_t;

struct mbl_st {
    st_file_t *files;
    size_t n_files;
    mbl_st_entry_t *entries; /* sorted by name once all files are read */
    size_t n, capacity;
    json_t *metadata;        /* of the first file that has one, or NULL */
    char *opened;            /* the file or index that was opened */
    const char *passed_over; /* another of the same folder, or NULL */
};

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

static mbl_status_t map_file(const char *path, st_file_t *out) {
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
        *out = (st_file_t){copy, map, (size_t)info.st_size};
    else
        mbl_free(copy);
    return status;
}

/* The header as JSON; *header_size without the eight bytes of length. */
static mbl_status_t parse_header(const st_file_t *file, size_t *header_size, json_t **out) {
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
static mbl_status_t check_cover(const st_file_t *file, mbl_st_entry_t *entries, size_t n,
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
static mbl_status_t take_header(mbl_st_t *st, const st_file_t *file, json_t *header, size_t header_size) {
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

static mbl_status_t open_file(mbl_st_t *st, const char *path) {
    st_file_t *file = &st->files[st->n_files]; /* room was made by the caller */
    MBL_TRY(map_file(path, file));
    st->n_files++;
    json_t *header = NULL;
    size_t header_size;
    MBL_TRY(parse_header(file, &header_size, &header));
    mbl_status_t status = take_header(st, file, header, header_size);
    json_decref(header);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const mbl_st_entry_t *)a)->name, ((const mbl_st_entry_t *)b)->name);
}

static mbl_status_t sort_names(mbl_st_t *st, const char *path) {
    if (st->n > 0)
        qsort(st->entries, st->n, sizeof *st->entries, by_name);
    for (size_t i = 1; i < st->n; i++)
        if (strcmp(st->entries[i - 1].name, st->entries[i].name) == 0)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.80s is there twice", path, st->entries[i].name);
    return MBL_OK;
}

/* ---- sets and folders ---- */

/* `name` beside `path`; a shard's name may not lead out of the folder. */
static mbl_status_t shard_path(const char *path, const json_t *value, char **out) {
    const char *name = json_string_value(value), *slash = strrchr(path, '/');
    if (!name || !*name || strchr(name, '/') || strcmp(name, "..") == 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: weight_map: \"%.80s\" is no file name", path,
                        name ? name : "(none)");
    int folder = slash ? (int)(slash - path + 1) : 0;
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
            st_file_t *grown = mbl_realloc(st->files, st->n_files, st->n_files + 1, sizeof *grown);
            if (grown)
                st->files = grown;
            status = grown ? open_file(st, shard) : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a shard", path);
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

static mbl_status_t open_index(mbl_st_t *st, const char *path) {
    json_t *index;
    MBL_TRY(mbl_json_read(path, &index));
    json_t *map = json_object_get(index, "weight_map");
    mbl_status_t status;
    if (json_object_size(map) == 0)
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: weight_map: missing or empty", path);
    else
        MBL_TRY_GOTO(open_shards(st, path, map), done);
    if (map && json_object_size(map) > 0) {
        MBL_TRY_GOTO(sort_names(st, path), done);
        status = check_map(st, path, map);
    }
done:
    json_decref(index);
    return status;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* In the order in which diffusers and transformers take them: diffusers prefers the index, transformers the
 * single file. What only the variant fp16 has comes last; its index has two spellings. */
static const char *const folder_names[] = {"diffusion_pytorch_model.safetensors.index.json",
                                           "diffusion_pytorch_model.safetensors",
                                           "model.safetensors",
                                           "model.safetensors.index.json",
                                           "diffusion_pytorch_model.safetensors.index.fp16.json",
                                           "diffusion_pytorch_model.fp16.safetensors.index.json",
                                           "diffusion_pytorch_model.fp16.safetensors",
                                           "model.fp16.safetensors",
                                           "model.safetensors.index.fp16.json",
                                           "model.fp16.safetensors.index.json"};
enum { FOLDER_NAMES = sizeof folder_names / sizeof folder_names[0] };

/* The file to open for `path`: itself, or what a folder holds. */
static mbl_status_t resolve(mbl_st_t *st, const char *path, char **out) {
    bool folder = mbl_folder_exists(path);
    char *found = folder ? NULL : mbl_strdup(path);
    for (size_t i = 0; folder && i < FOLDER_NAMES; i++) {
        char *candidate = mbl_format("%s/%s", path, folder_names[i]);
        if (!candidate) {
            mbl_free(found);
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", path);
        }
        bool there = mbl_file_exists(candidate);
        if (there && found && !st->passed_over)
            st->passed_over = folder_names[i];
        if (there && !found)
            found = candidate;
        else
            mbl_free(candidate);
    }
    if (!found && folder)
        return MBL_FAIL(MBL_ERR_IO,
                        "%s: holds neither model.safetensors nor diffusion_pytorch_model.safetensors, "
                        "nor an index of either",
                        path);
    if (!found)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", path);
    *out = found;
    return MBL_OK;
}

mbl_status_t mbl_st_open(const char *path, mbl_st_t **out) {
    mbl_status_t status;
    char *file = NULL;
    mbl_st_t *st;
    MBL_ALLOC(st, 1);
    MBL_TRY_GOTO(resolve(st, path, &file), failed);
    if (ends_with(file, ".index.json") || ends_with(file, ".index.fp16.json")) {
        MBL_TRY_GOTO(open_index(st, file), failed);
    } else {
        MBL_ALLOC_GOTO(st->files, 1, failed);
        MBL_TRY_GOTO(open_file(st, file), failed);
        MBL_TRY_GOTO(sort_names(st, file), failed);
    }
    st->opened = file;
    *out = st;
    return MBL_OK;
failed:
    mbl_free(file);
    mbl_st_close(st);
    return status;
}

void mbl_st_close(mbl_st_t *st) {
    if (!st)
        return;
    for (size_t i = 0; i < st->n; i++)
        mbl_free(st->entries[i].name);
    mbl_free(st->entries);
    for (size_t i = 0; i < st->n_files; i++) {
        munmap(st->files[i].map, st->files[i].size);
        mbl_free(st->files[i].path);
    }
    mbl_free(st->files);
    mbl_free(st->opened);
    json_decref(st->metadata);
    mbl_free(st);
}

size_t mbl_st_count(const mbl_st_t *st) {
    return st->n;
}

const mbl_st_entry_t *mbl_st_at(const mbl_st_t *st, size_t i) {
    return i < st->n ? &st->entries[i] : NULL;
}

const mbl_st_entry_t *mbl_st_find(const mbl_st_t *st, const char *name) {
    const mbl_st_entry_t key = {.name = (char *)name};
    return st->n > 0 ? bsearch(&key, st->entries, st->n, sizeof key, by_name) : NULL;
}

const char *mbl_st_metadata(const mbl_st_t *st, const char *key) {
    return json_string_value(json_object_get(st->metadata, key));
}

void mbl_st_log_choice(const mbl_st_t *st) {
    if (st->passed_over)
        MBL_WARN("%s: is read, as diffusers does; %s beside it is not", st->opened, st->passed_over);
}

mbl_status_t mbl_st_check_unused(const mbl_st_t *st, const char *path,
                                 bool (*wanted)(const void *context, const char *name), const void *context,
                                 const char *hint) {
    mbl_names_t unused = {{0}, 0};
    for (size_t i = 0; i < st->n; i++)
        if (!wanted(context, st->entries[i].name))
            mbl_names_add(&unused, st->entries[i].name);
    if (unused.n == 0)
        return MBL_OK;
    return MBL_FAIL(
        MBL_ERR_FORMAT,
        "%s: tensor %s: not asked for by config.json; expected no others than those it asks for (%s)", path,
        mbl_names_text(&unused), hint);
}

/* ---- values ---- */

/* The bits in their places are the value times 2^-112, subnormals too; infinities and NaN get the exponent of
 * theirs. */
static inline float f16_to_f32(uint16_t bits) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)(bits & 0x7fffu) << 13};
    x.f *= 0x1p112f;
    x.u |= ((bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u) | (uint32_t)(bits & 0x8000u) << 16;
    return x.f;
}

static double element(const mbl_st_entry_t *entry, size_t i) {
    const unsigned char *from = (const unsigned char *)entry->data + i * mbl_dtype_size(entry->dtype);
    double f64;
    float f32;
    uint16_t half;
    switch (entry->dtype) {
    case MBL_F64:
        memcpy(&f64, from, sizeof f64);
        return f64;
    case MBL_F32:
        memcpy(&f32, from, sizeof f32);
        return (double)f32;
    default:
        memcpy(&half, from, sizeof half);
        return (double)(entry->is_f16 ? f16_to_f32(half) : mbl_bf16_to_f32(half));
    }
}

/* Elements from `from` on, unaligned, as f32. The common halves go without a switch for every number. */
static void widen(const mbl_st_entry_t *entry, size_t first, float *out, size_t n) {
    const unsigned char *from = (const unsigned char *)entry->data + first * mbl_dtype_size(entry->dtype);
    if (entry->dtype == MBL_F32 && n > 0)
        memcpy(out, from, n * sizeof *out);
    else if (entry->dtype == MBL_BF16)
        for (size_t i = 0; i < n; i++) {
            uint16_t half;
            memcpy(&half, from + 2 * i, sizeof half);
            out[i] = entry->is_f16 ? f16_to_f32(half) : mbl_bf16_to_f32(half);
        }
    else
        for (size_t i = 0; i < n; i++)
            out[i] = (float)element(entry, first + i);
}

/* The tensor, if it holds `count` floating-point numbers. */
static mbl_status_t floating(const mbl_st_t *st, const char *name, size_t count, const mbl_st_entry_t **out) {
    const char *path = st->n_files > 0 ? st->files[0].path : "?";
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: missing", path, name);
    if (entry->dtype != MBL_F32 && entry->dtype != MBL_BF16 && entry->dtype != MBL_F64)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: dtype %s, expected F32, BF16, F16 or F64", path, name,
                        entry->type);
    size_t found = entry->bytes / mbl_dtype_size(entry->dtype);
    if (found != count)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: %zu elements; expected %zu", path, name, found,
                        count);
    *out = entry;
    return MBL_OK;
}

enum { SCANNED = 4096 }; /* elements at a time: what is found there is looked for one by one */

static bool all_finite_f32(const float *x, size_t n) {
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(fabsf(x[i]) <= FLT_MAX);
    return !bad;
}

static bool all_finite_f64(const double *x, size_t n) {
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(fabs(x[i]) <= DBL_MAX);
    return !bad;
}

/* Element i, which cannot be computed with, by its place in the tensor. */
static mbl_status_t not_finite(const mbl_st_t *st, const mbl_st_entry_t *entry, size_t i) {
    char place[200] = "";
    double value = element(entry, i);
    size_t used = 0, below = 1;
    for (int d = 1; d < entry->ndim; d++)
        below *= entry->dim[d];
    for (int d = 0; d < entry->ndim; d++) {
        used += (size_t)snprintf(place + used, sizeof place - used, "%s%zu", d ? ", " : "", i / below);
        i %= below;
        below /= d + 1 < entry->ndim ? entry->dim[d + 1] : 1;
    }
    const char *path = st->n_files > 0 ? st->files[0].path : "?";
    for (size_t f = 0; f < st->n_files; f++) {
        const unsigned char *begin = st->files[f].map, *data = entry->data;
        if (data >= begin && data < begin + st->files[f].size)
            path = st->files[f].path;
    }
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: element [%s] is %g; expected a finite number", path,
                    entry->name, place, value);
}

mbl_status_t mbl_st_read_f32(const mbl_st_t *st, const char *name, float *out, size_t count) {
    const mbl_st_entry_t *entry;
    MBL_TRY(floating(st, name, count, &entry));
    widen(entry, 0, out, count);
    for (size_t i = 0; i < count; i += SCANNED) {
        size_t n = count - i < SCANNED ? count - i : SCANNED;
        if (all_finite_f32(out + i, n))
            continue;
        while (isfinite(out[i]))
            i++;
        return not_finite(st, entry, i);
    }
    return MBL_OK;
}

mbl_status_t mbl_st_read_f64(const mbl_st_t *st, const char *name, double *out, size_t count) {
    const mbl_st_entry_t *entry;
    MBL_TRY(floating(st, name, count, &entry));
    for (size_t i = 0; i < count; i++)
        out[i] = element(entry, i);
    for (size_t i = 0; i < count; i += SCANNED) {
        size_t n = count - i < SCANNED ? count - i : SCANNED;
        if (all_finite_f64(out + i, n))
            continue;
        while (isfinite(out[i]))
            i++;
        return not_finite(st, entry, i);
    }
    return MBL_OK;
}

/* ---- parts ---- */

/* Row `row` of a floating-point tensor of `cols` columns, or why not. */
static mbl_status_t row_of(const mbl_st_t *st, const char *name, size_t row, size_t cols,
                           const mbl_st_entry_t **out) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    MBL_REQUIRE(entry && entry->ndim == 2 && entry->dim[1] == cols && row < entry->dim[0],
                "row %zu of %zu columns of tensor %s", row, cols, name);
    return floating(st, name, entry->dim[0] * cols, out);
}

mbl_status_t mbl_st_read_row_f32(const mbl_st_t *st, const char *name, size_t row, float *out, size_t cols) {
    const mbl_st_entry_t *entry;
    MBL_TRY(row_of(st, name, row, cols, &entry));
    widen(entry, row * cols, out, cols);
    for (size_t i = 0; i < cols; i++)
        if (!isfinite(out[i]))
            return not_finite(st, entry, row * cols + i);
    return MBL_OK;
}

mbl_status_t mbl_st_read_row_f64(const mbl_st_t *st, const char *name, size_t row, double *out, size_t cols) {
    const mbl_st_entry_t *entry;
    MBL_TRY(row_of(st, name, row, cols, &entry));
    for (size_t i = 0; i < cols; i++) {
        out[i] = element(entry, row * cols + i);
        if (!isfinite(out[i]))
            return not_finite(st, entry, row * cols + i);
    }
    return MBL_OK;
}

/* Pages that neighbours share stay. */
void mbl_st_release(const mbl_st_t *st, const char *name) {
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (!entry)
        return;
    uintptr_t begin = ((uintptr_t)entry->data + page - 1) / page * page,
              end = ((uintptr_t)entry->data + entry->bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}
