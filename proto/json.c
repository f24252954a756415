/* JSON from a server, read within limits. */
#include "proto/json.h"
#include "base/mem.h"
#include "proto/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

mbl_status_t mbl_proto_fault(mbl_proto_error_t *error, mbl_proto_error_kind_t kind, const char *format, ...) {
    char line[2 * MBL_PROTO_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    size_t size = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    error->kind = kind;
    if (mbl_proto_printable(line, size, error->text, sizeof error->text) == 0)
        mbl_proto_printable("an empty message", 16, error->text, sizeof error->text);
    return MBL_ERR_REWARD;
}

/* What a look over a text finds before it is parsed. */
typedef struct {
    size_t depth, values, words; /* words: NaN and infinities outside strings */
} survey_t;

/* The length of NaN, Infinity or -Infinity at `at`, 0 for anything else. */
static size_t no_number(const char *text, size_t size, size_t at) {
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);
        if (size - at >= n && memcmp(text + at, words[i], n) == 0)
            return n;
    }
    return 0;
}

/* Counts without judging: what is no JSON is left for the parser. Where `nulls` is not NULL, it is a copy of
 * the text in which words that stand for no number become null: NaN takes one byte more, which its caller has
 * counted. */
static survey_t survey(const char *text, size_t size, mbl_proto_text_t *nulls) {
    survey_t seen = {.values = 1};
    size_t depth = 0, copied = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        size_t word = c == 'N' || c == 'I' || c == '-' ? no_number(text, size, i) : 0;
        if (word) {
            seen.words++;
            if (nulls) {
                mbl_proto_put(nulls, text + copied, i - copied);
                mbl_proto_puts(nulls, "null");
                copied = i + word;
            }
            i += word - 1;
        } else if (c == '"')
            quoted = true;
        else if (c == '[' || c == '{') {
            seen.values++;
            if (++depth > seen.depth)
                seen.depth = depth;
        } else if (c == ']' || c == '}')
            depth -= depth > 0;
        else if (c == ',' || c == ':')
            seen.values++;
    }
    if (nulls)
        mbl_proto_put(nulls, text + copied, size - copied);
    return seen;
}

mbl_status_t mbl_proto_json(const void *text, size_t size, const char *what, json_t **out,
                            mbl_proto_error_t *error) {
    if (size > MBL_PROTO_BODY_MAX)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_LIMIT, "%s has %zu bytes; marble reads %d", what, size,
                               MBL_PROTO_BODY_MAX);
    survey_t seen = survey(text, size, NULL);
    if (seen.depth > MBL_PROTO_JSON_DEPTH)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_LIMIT, "%s is nested %zu deep; marble reads %d", what,
                               seen.depth, MBL_PROTO_JSON_DEPTH);
    if (seen.values > MBL_PROTO_JSON_VALUES)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_LIMIT, "%s holds about %zu values; marble reads %d",
                               what, seen.values, MBL_PROTO_JSON_VALUES);
    mbl_proto_text_t nulls = {0};
    if (seen.words) {
        survey(text, size, &nulls);
        if (nulls.failed) {
            mbl_proto_text_free(&nulls);
            return MBL_FAIL(MBL_ERR_MEM, "no memory for a copy of %s", what);
        }
    }
    json_error_t reason = {.text = ""};
    json_t *json = json_loadb(seen.words ? nulls.data : text, seen.words ? nulls.size : size,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &reason);
    mbl_proto_text_free(&nulls);
    /* jansson says nothing at all in most places where it has no memory. */
    if (!json && (!*reason.text || json_error_code(&reason) == json_error_out_of_memory))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the JSON of %s", what);
    if (!json) {
        char begin[64];
        mbl_proto_printable(text, size < 40 ? size : 40, begin, sizeof begin);
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "%s is not valid JSON (%s); it has %zu bytes and begins \"%s\"", what,
                               reason.text, size, begin);
    }
    *out = json;
    return MBL_OK;
}

mbl_status_t mbl_proto_json_object(const void *text, size_t size, const char *what, json_t **out,
                                   mbl_proto_error_t *error) {
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json(text, size, what, &json, error));
    if (!json_is_object(json)) {
        char shown[80];
        mbl_proto_json_show(json, shown, sizeof shown);
        json_decref(json);
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED, "%s is %s; expected a JSON object", what,
                               shown);
    }
    *out = json;
    return MBL_OK;
}

/* A buffer of fixed size that stops the dump when it is full. */
typedef struct {
    char *out;
    size_t used, room;
} shown_t;
static int show_some(const char *bytes, size_t size, void *data) {
    shown_t *shown = data;
    size_t left = shown->room - shown->used, n = size < left ? size : left;
    memcpy(shown->out + shown->used, bytes, n);
    shown->used += n;
    return n < size ? -1 : 0;
}

const char *mbl_proto_json_show(const json_t *value, char *out, size_t room) {
    char raw[256];
    shown_t shown = {.out = raw, .room = sizeof raw};
    if (!value)
        mbl_proto_printable("nothing", 7, out, room);
    else if (json_dump_callback(value, show_some, &shown, JSON_ENCODE_ANY | JSON_COMPACT) == 0 &&
             shown.used < room)
        mbl_proto_printable(raw, shown.used, out, room);
    else {
        size_t n = mbl_proto_printable(raw, shown.used, out, room - 4);
        memcpy(out + n, " ...", 5);
    }
    return out;
}

mbl_status_t mbl_proto_json_string(const json_t *object, const char *what, const char *key, const char **out,
                                   mbl_proto_error_t *error) {
    const json_t *value = json_object_get(object, key);
    char shown[80];
    if (!json_is_string(value))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED, "%s: \"%s\" is %s; expected a string", what,
                               key, mbl_proto_json_show(value, shown, sizeof shown));
    *out = json_string_value(value);
    return MBL_OK;
}

mbl_status_t mbl_proto_json_array(const json_t *object, const char *what, const char *key, size_t max,
                                  const json_t **out, mbl_proto_error_t *error) {
    const json_t *value = json_object_get(object, key);
    char shown[80];
    if (!json_is_array(value))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED, "%s: \"%s\" is %s; expected an array", what,
                               key, mbl_proto_json_show(value, shown, sizeof shown));
    if (json_array_size(value) > max)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_LIMIT, "%s: \"%s\" has %zu elements; marble reads %zu",
                               what, key, json_array_size(value), max);
    *out = value;
    return MBL_OK;
}
