/* The half of `marble inspect` that reads models. What is found goes into one JSON object; the text is
 * printed from it. */
#include "base/cpus.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "model/digest.h"
#include "model/folder.h"
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

/* How many numbers there are of every type: {"BF16": 1234}. */
static json_t *types_json(const mbl_st_t *st) {
    json_t *types = json_object();
    for (size_t i = 0; i < mbl_st_count(st); i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        json_int_t before = json_integer_value(json_object_get(types, entry->type)), count = 1;
        for (int d = 0; d < entry->ndim; d++)
            count *= (json_int_t)entry->dim[d];
        json_object_set_new(types, entry->type, json_integer(before + count));
    }
    return types;
}

static json_t *files_json(const mbl_st_t *st) {
    json_t *files = json_array();
    const char *path;
    for (size_t i = 0; (path = mbl_st_file(st, i)); i++) {
        const char *slash = strrchr(path, '/');
        json_array_append_new(files, json_string_nocheck(slash ? slash + 1 : path));
    }
    return files;
}

/* Tensors, digest and sums of a file, index or folder into `out`. */
static mbl_status_t add_tensors(const char *path, json_t *out) {
    mbl_st_t *st;
    char digest[MBL_SHA256_HEX];
    mbl_threads_t threads;
    MBL_TRY(mbl_st_open(path, &st));
    mbl_threads_alone(&threads);
    mbl_status_t status = mbl_digest_tensors(st, threads.count, NULL, digest);
    json_t *list = json_array(), *types = types_json(st), *files = files_json(st);
    size_t parameters = 0, bytes = 0, count;
    for (size_t i = 0; i < mbl_st_count(st) && status == MBL_OK; i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        if (json_array_append_new(list, tensor_json(entry, &count)) != 0)
            status = no_memory(path);
        parameters += count;
        bytes += entry->bytes;
    }
    mbl_st_close(st);
    json_t *found = json_pack("{s:o, s:o, s:I, s:I, s:s, s:o}", "files", files, "types", types, "parameters",
                              (json_int_t)parameters, "bytes", (json_int_t)bytes, "digest",
                              status == MBL_OK ? digest : "", "tensors", list);
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
    bool weights = json_object_get(out, "config");
    MBL_TRY(add_config(folder, "scheduler_config.json", "config", out));
    char *vocab = mbl_format("%s/vocab.json", folder), *whole = mbl_format("%s/tokenizer.json", folder);
    if (!vocab || !whole) {
        mbl_free(vocab);
        mbl_free(whole);
        return no_memory(folder);
    }
    bool tokens = mbl_file_exists(vocab) || mbl_file_exists(whole);
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

/* ---- a whole folder ---- */

/* `what` to the list `key`, of what is missing or damaged. */
static mbl_status_t note(json_t *out, const char *key, const char *what) {
    json_t *list = json_object_get(out, key);
    if (!list)
        json_object_set_new(out, key, list = json_array());
    return json_array_append_new(list, json_string_nocheck(what)) == 0 ? MBL_OK : no_memory(what);
}

/* A part that model_index.json names. Where it cannot be read, what is wrong with it is found instead. */
static mbl_status_t add_named(const char *folder, const char *name, const char *class_name, json_t *out) {
    json_t *parts = json_object_get(out, "parts"), *found = json_pack("{s:s}", "class", class_name);
    char *path = mbl_format("%s/%s", folder, name);
    mbl_status_t status = MBL_OK;
    if (!path || json_object_set_new(parts, name, found) != 0)
        status = no_memory(folder);
    else if (!mbl_folder_exists(path))
        status = note(out, "missing", name);
    else if (add_part(path, found) != MBL_OK)
        status = note(out, "damaged", mbl_fail_message());
    mbl_free(path);
    return status;
}

/* Parts without which nothing is generated. */
static mbl_status_t check_named(const json_t *index, json_t *out) {
    static const char *const needed[] = {"transformer", "scheduler", "text_encoder", "tokenizer"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!json_is_string(json_array_get(json_object_get(index, needed[i]), 1)))
            MBL_TRY(note(out, "missing", needed[i]));
    return MBL_OK;
}

/* The parts model_index.json names, what they are together, and what lies beside them. */
static mbl_status_t add_parts(const char *folder, const json_t *index, json_t *out) {
    const char *name, *title;
    json_t *value, *extras = NULL;
    if (json_object_set_new(out, "class", json_incref(json_object_get(index, "_class_name"))) != 0 ||
        json_object_set_new(out, "parts", json_object()) != 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s/model_index.json: _class_name: missing", folder);
    json_object_foreach((json_t *)index, name, value) {
        const char *class_name = json_string_value(json_array_get(value, 1));
        if (class_name)
            MBL_TRY(add_named(folder, name, class_name, out));
    }
    MBL_TRY(check_named(index, out));
    const json_t *config = mbl_json_at(out, "parts.transformer.config");
    if (config && (title = mbl_dit_title(config)))
        json_object_set_new(out, "model", json_string(title));
    MBL_TRY(mbl_folder_extras(folder, index, &extras));
    if (json_object_set_new(out, "not_read", extras) != 0)
        return no_memory(folder);
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

static void print_names(const char *label, const json_t *names) {
    const json_t *name;
    size_t i;
    json_array_foreach((json_t *)names, i, name)
        printf("  %-28s %s\n", i ? "" : label, json_string_value(name));
}

static void print_tensors(const json_t *tensors) {
    const json_t *tensor, *dim;
    size_t i, d;
    json_array_foreach((json_t *)tensors, i, tensor) {
        printf("    %-68s %-4s [", json_string_value(json_object_get(tensor, "name")),
               json_string_value(json_object_get(tensor, "dtype")));
        json_array_foreach(json_object_get(tensor, "shape"), d, dim)
            printf("%s%lld", d ? ", " : "", (long long)json_integer_value(dim));
        puts("]");
    }
}

/* Of the parts of a whole model without their tensors, of which there are thousands. */
static void print_part(const json_t *part, bool alone) {
    const json_t *tensors = json_object_get(part, "tensors"), *count;
    const char *type;
    print_config(json_object_get(part, "config"));
    if (json_object_get(part, "tokens"))
        printf("  %-28s %lld, prompts of %lld\n", "tokens",
               (long long)json_integer_value(json_object_get(part, "tokens")),
               (long long)json_integer_value(json_object_get(part, "model_max_length")));
    if (!tensors)
        return;
    print_names("files", json_object_get(part, "files"));
    printf("  %-28s %zu\n  %-28s %lld\n", "tensors", json_array_size(tensors), "parameters",
           (long long)json_integer_value(json_object_get(part, "parameters")));
    json_object_foreach(json_object_get(part, "types"), type, count)
        printf("  %-28s %lld\n", type, (long long)json_integer_value(count));
    printf("  %-28s %.2f MB\n  %-28s %s\n", "size",
           (double)json_integer_value(json_object_get(part, "bytes")) / 1e6, "digest",
           json_string_value(json_object_get(part, "digest")));
    if (alone)
        print_tensors(tensors);
}

static void print_text(const char *path, const json_t *found) {
    const char *class_name = json_string_value(json_object_get(found, "class")), *name,
               *model = json_string_value(json_object_get(found, "model"));
    json_t *parts = json_object_get(found, "parts"), *part;
    printf("%s%s%s%s%s\n", path, class_name ? ": " : "", class_name ? class_name : "", model ? ", " : "",
           model ? model : "");
    print_names("missing", json_object_get(found, "missing"));
    print_names("damaged", json_object_get(found, "damaged"));
    print_names("not read", json_object_get(found, "not_read"));
    json_object_foreach(parts, name, part) {
        printf("\n%s: %s\n", name, json_string_value(json_object_get(part, "class")));
        print_part(part, false);
    }
    if (!parts)
        print_part(found, true);
}

/* A folder that is not whole is described like any other, but not well. */
static mbl_status_t check_whole(const char *path, const json_t *found) {
    size_t missing = json_array_size(json_object_get(found, "missing")),
           damaged = json_array_size(json_object_get(found, "damaged"));
    if (missing + damaged == 0)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: is no whole model: parts missing: %zu, damaged: %zu", path, missing,
                    damaged);
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
    if (status == MBL_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = MBL_FAIL(MBL_ERR_IO, "inspect: the answer cannot be written: %s", strerror(errno));
    if (status == MBL_OK)
        status = check_whole(path, found);
    json_decref(details);
    json_decref(found);
    return status;
}
