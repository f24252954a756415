/* JSON from files. */
#include "base/json.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_LIMIT = 256 << 20 };

mbl_status_t mbl_json_read(const char *path, json_t **out) {
    char *text;
    size_t size;
    MBL_TRY(mbl_file_read(path, JSON_LIMIT, &text, &size));
    json_error_t error;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    mbl_free(text);
    if (!json)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s:%d: not valid JSON: %s", path, error.line, error.text);
    if (!json_is_object(json)) {
        json_decref(json);
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: holds no JSON object", path);
    }
    *out = json;
    return MBL_OK;
}

mbl_status_t mbl_json_read_in(const char *folder, const char *name, bool optional, json_t **out) {
    char *path = mbl_format("%s/%s", folder, name);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    mbl_status_t status = MBL_OK;
    if (!optional || mbl_file_exists(path))
        status = mbl_json_read(path, out);
    mbl_free(path);
    return status;
}

mbl_status_t mbl_json_write(const char *path, const json_t *json) {
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its JSON", path);
    mbl_file_writer_t writer;
    mbl_status_t status = mbl_file_begin(path, &writer);
    if (status == MBL_OK)
        status = mbl_file_put(&writer, text, strlen(text));
    if (status == MBL_OK)
        status = mbl_file_put(&writer, "\n", 1);
    if (status == MBL_OK)
        status = mbl_file_commit(&writer);
    free(text);
    return status;
}

/* The value, or NULL with *status saying whether that is fine. */
static const json_t *value_of(const json_t *object, const char *path, const char *key, bool required,
                              mbl_status_t *status) {
    const json_t *value = json_object_get(object, key);
    *status = MBL_OK;
    if (value && !json_is_null(value))
        return value;
    if (required)
        *status = MBL_FAIL(MBL_ERR_CONFIG, "%s: %s: missing", path, key);
    return NULL;
}

/* Fails with what was found, cut to a readable length. */
static mbl_status_t wrong_value(const json_t *value, const char *path, const char *key, const char *right) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    mbl_status_t status =
        MBL_FAIL(MBL_ERR_CONFIG, "%s: %s: %.60s; expected %s", path, key, text ? text : "?", right);
    free(text);
    return status;
}

mbl_status_t mbl_json_size(const json_t *object, const char *path, const char *key, bool required, size_t min,
                           size_t max, size_t *out) {
    mbl_status_t status;
    const json_t *value = value_of(object, path, key, required, &status);
    if (!value)
        return status;
    json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;
    if (n < 0 || (size_t)n < min || (size_t)n > max) {
        char right[80];
        snprintf(right, sizeof right, "a whole number from %zu to %zu", min, max);
        return wrong_value(value, path, key, right);
    }
    *out = (size_t)n;
    return MBL_OK;
}

mbl_status_t mbl_json_real(const json_t *object, const char *path, const char *key, bool required, double min,
                           double max, double *out) {
    mbl_status_t status;
    const json_t *value = value_of(object, path, key, required, &status);
    if (!value)
        return status;
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= min && x <= max)) {
        char right[80];
        snprintf(right, sizeof right, "a number from %g to %g", min, max);
        return wrong_value(value, path, key, right);
    }
    *out = x;
    return MBL_OK;
}

mbl_status_t mbl_json_string(const json_t *object, const char *path, const char *key, bool required,
                             const char **out) {
    mbl_status_t status;
    const json_t *value = value_of(object, path, key, required, &status);
    if (!value)
        return status;
    if (!json_is_string(value))
        return wrong_value(value, path, key, "a string");
    *out = json_string_value(value);
    return MBL_OK;
}

const json_t *mbl_json_at(const json_t *root, const char *key) {
    char word[128];
    while (root && *key) {
        size_t length = strcspn(key, ".");
        snprintf(word, sizeof word, "%.*s", (int)length, key);
        root = json_object_get(root, word);
        key += length + (key[length] == '.');
    }
    return root;
}

const char *mbl_json_shown(const json_t *value, char out[200]) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    snprintf(out, 200, "%s", text ? text : "?");
    free(text);
    return out;
}
