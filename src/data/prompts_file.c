/* Prompt files: plain lines, or a JSON object a line. */
#include "data/prompts_file.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/unicode.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST_FILE ((size_t)1 << 30)

/* A prompt list that grows. */
typedef struct {
    mbl_prompts_t list;
    size_t room;
    const char *path;
    size_t line; /* being read, from 1 */
} reader_t;

/* Takes over text and metadata, also on failure. */
static mbl_status_t append(reader_t *reader, char *text, char *metadata) {
    mbl_prompts_t *list = &reader->list;
    if (list->count == reader->room) {
        size_t room = reader->room ? 2 * reader->room : 64;
        mbl_prompt_t *items = mbl_realloc(list->items, reader->room, room, sizeof *items);
        if (items) {
            list->items = items;
            reader->room = room;
        }
    }
    if (!text || list->count == reader->room) {
        mbl_free(text);
        mbl_free(metadata);
        return MBL_FAIL(MBL_ERR_MEM, "%s:%zu: no memory for more prompts", reader->path, reader->line);
    }
    list->items[list->count++] = (mbl_prompt_t){text, metadata};
    return MBL_OK;
}

static mbl_status_t read_plain(reader_t *reader, const char *line, size_t length) {
    json_t *checked = json_stringn(line, length); /* NULL when it is not UTF-8 */
    if (!checked)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s:%zu: not UTF-8; expected a prompt in UTF-8", reader->path,
                        reader->line);
    json_decref(checked);
    if (strlen(line) != length)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s:%zu: a zero byte; expected a line of text", reader->path,
                        reader->line);
    return append(reader, mbl_strdup(line), NULL);
}

/* Moves both ends of text[start..end) inwards over white space of any kind. */
static void trim(const char *text, size_t *start, size_t *end) {
    uint32_t c;
    while (*start < *end) {
        size_t n = mbl_utf8_decode(text + *start, *end - *start, &c);
        if (!mbl_unicode_space(c))
            break;
        *start += n;
    }
    while (*start < *end) {
        size_t last = *end - 1;
        while (last > *start && ((unsigned char)text[last] & 0xC0) == 0x80)
            last--;
        mbl_utf8_decode(text + last, *end - last, &c);
        if (!mbl_unicode_space(c))
            break;
        *end = last;
    }
}

/* What is left of the object is the metadata: *out is NULL when that is nothing. */
static mbl_status_t rest_of(const reader_t *reader, const json_t *object, char **out) {
    *out = NULL;
    if (json_object_size(object) == 0)
        return MBL_OK;
    char *dumped = json_dumps(object, JSON_COMPACT);
    *out = dumped ? mbl_strdup(dumped) : NULL;
    free(dumped);
    if (!*out)
        return MBL_FAIL(MBL_ERR_MEM, "%s:%zu: no memory for the metadata", reader->path, reader->line);
    return MBL_OK;
}

static mbl_status_t take_object(reader_t *reader, json_t *object) {
    const char *prompt = json_string_value(json_object_get(object, "prompt"));
    char *text, *metadata;
    size_t start = 0, end = prompt ? strlen(prompt) : 0;
    if (prompt)
        trim(prompt, &start, &end);
    if (start == end)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s:%zu: %s; expected {\"prompt\": \"...\"}", reader->path,
                        reader->line,
                        !json_is_object(object)             ? "not an object"
                        : prompt && *prompt                 ? "a blank \"prompt\""
                        : prompt                            ? "an empty \"prompt\""
                        : json_object_get(object, "prompt") ? "\"prompt\" is not a string"
                                                            : "no key \"prompt\"");
    text = mbl_format("%.*s", (int)(end - start), prompt + start);
    json_object_del(object, "prompt");
    mbl_status_t status = rest_of(reader, object, &metadata);
    if (status == MBL_OK)
        return append(reader, text, metadata);
    mbl_free(text);
    return status;
}

static mbl_status_t read_object(reader_t *reader, const char *line, size_t length) {
    json_error_t error;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s:%zu: not JSON: %s; expected an object like {\"prompt\": \"...\"}",
                        reader->path, reader->line, error.text);
    mbl_status_t status = take_object(reader, object);
    json_decref(object);
    return status;
}

/* Calls read_plain or read_object for every line that is not blank, which it ends with a 0. Lines end as
 * those of Unix (LF), Windows (CR LF) and old Macs (CR). */
static mbl_status_t read_lines(reader_t *reader, char *text, size_t size, bool objects) {
    const char *mark = "\xEF\xBB\xBF"; /* UTF-8's byte order mark, which some editors write */
    size_t start = size >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0, next;
    for (; start < size; start = next) {
        size_t end = start;
        while (end < size && text[end] != '\n' && text[end] != '\r')
            end++;
        next = end + 1 + (end + 1 < size && text[end] == '\r' && text[end + 1] == '\n');
        reader->line++;
        trim(text, &start, &end);
        if (start == end)
            continue;
        text[end] = 0; /* the end of the line, white space or the 0 behind the file */
        MBL_TRY((objects ? read_object : read_plain)(reader, text + start, end - start));
    }
    return MBL_OK;
}

static uint64_t hash(const char *text) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

static bool same_metadata(const mbl_prompt_t *a, const mbl_prompt_t *b) {
    return !a->metadata || !b->metadata ? a->metadata == b->metadata : strcmp(a->metadata, b->metadata) == 0;
}

/* Keeps the first of every text. */
static mbl_status_t drop_repeated(mbl_prompts_t *list, const char *path) {
    size_t slots = 16, kept = 0, other = 0, *table;
    while (slots < 2 * list->count)
        slots *= 2;
    MBL_ALLOC(table, slots); /* index + 1 of a kept prompt, 0: free */
    for (size_t i = 0; i < list->count; i++) {
        mbl_prompt_t item = list->items[i];
        size_t slot = hash(item.text) & (slots - 1);
        while (table[slot] && strcmp(list->items[table[slot] - 1].text, item.text) != 0)
            slot = (slot + 1) & (slots - 1);
        if (table[slot]) {
            other += !same_metadata(&list->items[table[slot] - 1], &item);
            mbl_free(item.text);
            mbl_free(item.metadata);
            continue;
        }
        list->items[kept++] = item;
        table[slot] = kept;
    }
    mbl_free(table);
    if (kept < list->count)
        MBL_INFO("%s: %zu of %zu prompts repeat an earlier one and are left out", path, list->count - kept,
                 list->count);
    if (other > 0 && mbl_log_rank() == 0)
        MBL_WARN(
            "%s: %zu of these have other metadata than the first prompt of the same text; theirs is not used",
            path, other);
    list->count = kept;
    return MBL_OK;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

mbl_status_t mbl_prompts_read_file(const char *path, mbl_prompts_t *out) {
    reader_t reader = {.path = path};
    char *text;
    size_t size;
    bool objects = path && ends_with(path, ".jsonl");
    if (!path || !*path || !(objects || ends_with(path, ".txt")))
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "prompts: file \"%s\"; expected a .txt with a prompt a line or a .jsonl with an object a line",
            path ? path : "");
    MBL_TRY(mbl_file_read_stream(path, LARGEST_FILE, &text, &size));
    mbl_status_t status = read_lines(&reader, text, size, objects);
    mbl_free(text);
    if (status == MBL_OK)
        status = drop_repeated(&reader.list, path);
    if (status == MBL_OK && reader.list.count == 0)
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: no prompts; expected one on each line", path);
    if (status == MBL_OK)
        *out = reader.list;
    else
        mbl_prompts_free(&reader.list);
    return status;
}
