/* The half of `marble inspect` that reads models. What is found goes into one JSON object; the text is
 * printed from it. */
#include "base/cpus.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "model/digest.h"
#include "model/text/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding ---- */

static mbl_status_t no_memory(const char *path) {
    return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to describe it", path);
}

static json_t *tensor_json(const mbl_st_entry_t *entry, size_t *count) {
    json_t *shape = json_array();
    *count = 1;
    for (int i = 0; i < entry->ndim; i++) {
        *count *= entry->dim[i]; /* checked when the file was opened */
        json_array_append_new(shape, json_integer((json_int_t)entry->dim[i]));
    }
    return json_pack("{s:s, s:s, s:o}", "name", entry->name, "dtype", entry->type, "shape", shape);
}

/* Tensors, digest and sums of a file, index or folder into `out`. */
static mbl_status_t add_tensors(const char *path, json_t *out) {
    mbl_st_t *st;
    char digest[MBL_SHA256_HEX];
    mbl_threads_t threads;
    MBL_TRY(mbl_st_open(path, &st));
    mbl_threads_alone(&threads);
    mbl_status_t status = mbl_digest_tensors(st, threads.count, digest);
    json_t *list = json_array();
    size_t parameters = 0, bytes = 0, count;
    for (size_t i = 0; i < mbl_st_count(st) && status == MBL_OK; i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        if (json_array_append_new(list, tensor_json(entry, &count)) != 0)
            status = no_memory(path);
        parameters += count;
        bytes += entry->bytes;
    }
    mbl_st_close(st);
    json_t *found = json_pack("{s:I, s:I, s:s, s:o}", "parameters", (json_int_t)parameters, "bytes",
                              (json_int_t)bytes, "digest", status == MBL_OK ? digest : "", "tensors", list);
    if (status == MBL_OK && json_object_update(out, found) != 0)
        status = no_memory(path);
    json_decref(found);
    return status;
}

static mbl_status_t add_config(const char *folder, const char *name, const char *key, json_t *out) {
    json_t *config = NULL;
    MBL_TRY(mbl_json_read_in(folder, name, true, &config));
    if (config && json_object_set_new(out, key, config) != 0)
        return no_memory(folder);
    return MBL_OK;
}

/* One part of a model: whatever of configuration, tokens and tensors its folder holds. */
static mbl_status_t add_part(const char *folder, json_t *out) {
    MBL_TRY(add_config(folder, "config.json", "config", out));
    MBL_TRY(add_config(folder, "scheduler_config.json", "config", out));
    char *vocab = mbl_format("%s/vocab.json", folder), *whole = mbl_format("%s/tokenizer.json", folder);
    if (!vocab || !whole) {
        mbl_free(vocab);
        mbl_free(whole);
        return no_memory(folder);
    }
    bool tokens = mbl_file_exists(vocab) || mbl_file_exists(whole),
         weights = json_object_get(json_object_get(out, "config"), "num_attention_heads");
    mbl_free(vocab);
    mbl_free(whole);
    if (tokens) {
        mbl_tokenizer_t *t;
        MBL_TRY(mbl_tokenizer_open(folder, &t));
        json_object_set_new(out, "tokens", json_integer((json_int_t)mbl_tokenizer_vocab_size(t)));
        json_object_set_new(out, "model_max_length", json_integer((json_int_t)mbl_tokenizer_max_length(t)));
        mbl_tokenizer_close(t);
    }
    return weights || json_object_size(out) == 0 ? add_tensors(folder, out) : MBL_OK;
}

/* The parts model_index.json names. */
static mbl_status_t add_parts(const char *folder, const json_t *index, json_t *out) {
    const char *name;
    json_t *value, *parts = json_object();
    if (json_object_set_new(out, "class", json_incref(json_object_get(index, "_class_name"))) != 0 ||
        json_object_set_new(out, "parts", parts) != 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s/model_index.json: _class_name: missing", folder);
    json_object_foreach((json_t *)index, name, value) {
        const char *class_name = json_string_value(json_array_get(value, 1));
        json_t *found = class_name ? json_pack("{s:s}", "class", class_name) : NULL;
        if (!class_name)
            continue;
        char *path = mbl_format("%s/%s", folder, name);
        if (!path || json_object_set_new(parts, name, found) != 0) {
            mbl_free(path);
            return no_memory(folder);
        }
        json_t *details = json_object();
        mbl_status_t status = details ? add_part(path, details) : no_memory(path);
        if (status == MBL_OK && json_object_update(found, details) != 0)
            status = no_memory(path);
        json_decref(details);
        mbl_free(path);
        MBL_TRY(status);
    }
    return MBL_OK;
}

static mbl_status_t find(const char *path, json_t *out) {
    if (!mbl_folder_exists(path))
        return add_tensors(path, out);
    char *file = mbl_format("%s/model_index.json", path);
    json_t *index = NULL;
    if (!file)
        return no_memory(path);
    bool whole = mbl_file_exists(file);
    mbl_status_t status = whole ? mbl_json_read(file, &index) : add_part(path, out);
    if (status == MBL_OK && whole)
        status = add_parts(path, index, out);
    mbl_free(file);
    json_decref(index);
    return status;
}

/* ---- printing ---- */

static void print_config(const json_t *config) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        char *text = key[0] == '_' ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        if (text)
            printf("  %-28s %s\n", key, text);
        free(text);
    }
}

static void print_part(const json_t *part) {
    const json_t *tensors = json_object_get(part, "tensors"), *tensor;
    size_t i, d;
    print_config(json_object_get(part, "config"));
    if (json_object_get(part, "tokens"))
        printf("  %-28s %lld, prompts of %lld\n", "tokens",
               (long long)json_integer_value(json_object_get(part, "tokens")),
               (long long)json_integer_value(json_object_get(part, "model_max_length")));
    if (!tensors)
        return;
    printf("  %-28s %zu\n  %-28s %lld\n  %-28s %.2f MB\n  %-28s %s\n", "tensors", json_array_size(tensors),
           "parameters", (long long)json_integer_value(json_object_get(part, "parameters")), "size",
           (double)json_integer_value(json_object_get(part, "bytes")) / 1e6, "digest",
           json_string_value(json_object_get(part, "digest")));
    json_array_foreach((json_t *)tensors, i, tensor) {
        const json_t *shape = json_object_get(tensor, "shape"), *dim;
        printf("    %-68s %-4s [", json_string_value(json_object_get(tensor, "name")),
               json_string_value(json_object_get(tensor, "dtype")));
        json_array_foreach((json_t *)shape, d, dim)
            printf("%s%lld", d ? ", " : "", (long long)json_integer_value(dim));
        puts("]");
    }
}

static void print_text(const char *path, const json_t *found) {
    const char *class_name = json_string_value(json_object_get(found, "class")), *name;
    json_t *parts = json_object_get(found, "parts"), *part;
    printf("%s%s%s\n", path, class_name ? ": " : "", class_name ? class_name : "");
    json_object_foreach(parts, name, part) {
        printf("\n%s: %s\n", name, json_string_value(json_object_get(part, "class")));
        print_part(part);
    }
    if (!parts)
        print_part(found);
}

mbl_status_t mbl_inspect_model(const char *path, bool json) {
    json_t *found = json_pack("{s:s, s:s}", "kind", "model", "path", path), *details = json_object();
    mbl_status_t status = found && details ? find(path, details) : no_memory(path);
    if (status == MBL_OK && json_object_update(found, details) != 0)
        status = no_memory(path);
    char *text = status == MBL_OK && json ? json_dumps(found, JSON_REAL_PRECISION(9)) : NULL;
    if (text)
        puts(text);
    else if (status == MBL_OK && !json)
        print_text(path, found);
    else if (status == MBL_OK)
        status = no_memory(path);
    free(text);
    json_decref(details);
    json_decref(found);
    if (status == MBL_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = MBL_FAIL(MBL_ERR_IO, "inspect: the answer cannot be written: %s", strerror(errno));
    return status;
}
