/* CLIP's tokenizer from its files: vocab.json and merges.txt, or tokenizer.json alone. */
#include "base/file.h"
#include "base/mem.h"
#include "model/text/clip_words.h"

#include <stdlib.h>
#include <string.h>

enum { MERGES_LIMIT = 256 << 20 }; /* bytes of merges.txt */

typedef struct {
    const char *folder, *name; /* the file that has the vocabulary */
    char *path;                /* of both */
    const json_t *vocab, *config, *map, *whole;
    mbl_tokenizer_t *t;
    mbl_bpe_t *bpe;
} opening_t;

static mbl_status_t id_of(const opening_t *o, const char *token, int32_t *out) {
    return mbl_token_id(o->path, token, json_object_get(o->vocab, token), out);
}

/* ---- merges ---- */

/* The numbers of all single bytes. A reduced vocabulary may lack some: those become the unknown token. */
static mbl_status_t read_bytes(const opening_t *o, int32_t unknown) {
    for (int b = 0; b < 256; b++) {
        char text[3], last[8];
        mbl_bpe_byte_text((unsigned char)b, text);
        snprintf(last, sizeof last, "%s</w>", text);
        o->bpe->byte[b] = o->bpe->last[b] = unknown;
        if (json_object_get(o->vocab, text))
            MBL_TRY(id_of(o, text, &o->bpe->byte[b]));
        if (json_object_get(o->vocab, last))
            MBL_TRY(id_of(o, last, &o->bpe->last[b]));
    }
    return MBL_OK;
}

static mbl_status_t add_merge(const opening_t *o, const char *left, const char *right) {
    int32_t first = 0, second = 0, both = 0;
    MBL_TRY(id_of(o, left, &first));
    MBL_TRY(id_of(o, right, &second));
    char *joined = mbl_format("%s%s", left, right);
    if (!joined)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a merge", o->folder);
    mbl_status_t status = id_of(o, joined, &both);
    mbl_free(joined);
    MBL_TRY(status);
    mbl_bpe_add(o->bpe, first, second, both);
    return MBL_OK;
}

/* "left right"; cut up in place. `where` is for the message. */
static mbl_status_t read_merge(const opening_t *o, const char *where, size_t number, char *line) {
    char *space = strchr(line, ' ');
    if (!space || space == line || !space[1] || strchr(space + 1, ' '))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s/%s:%zu: \"%.40s\"; expected two tokens and a space", o->folder,
                        where, number, line);
    *space = 0;
    return add_merge(o, line, space + 1);
}

static mbl_status_t read_lines(const opening_t *o, char *text, size_t size) {
    size_t lines = 1, number = 1;
    if (strlen(text) != size)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s/merges.txt: holds a zero byte", o->folder);
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    MBL_TRY(mbl_bpe_init(o->bpe, lines));
    for (char *line = text; line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        size_t n = strlen(line);
        if (n > 0 && line[n - 1] == '\r')
            line[n - 1] = 0;
        if (*line && strncmp(line, "#version", 8) != 0)
            MBL_TRY(read_merge(o, "merges.txt", number, line));
        line = end ? end + 1 : NULL;
    }
    return MBL_OK;
}

static mbl_status_t read_file(const opening_t *o) {
    char *path = mbl_format("%s/merges.txt", o->folder), *text = NULL;
    size_t size;
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", o->folder);
    mbl_status_t status = mbl_file_read(path, MERGES_LIMIT, &text, &size);
    mbl_free(path);
    if (status == MBL_OK)
        status = read_lines(o, text, size);
    mbl_free(text);
    return status;
}

/* tokenizer.json has merges as pairs, older ones as lines. */
static mbl_status_t read_pairs(const opening_t *o, const json_t *merges) {
    size_t i;
    json_t *merge;
    MBL_TRY(mbl_bpe_init(o->bpe, json_array_size(merges) + 1));
    json_array_foreach(merges, i, merge) {
        const char *left = json_string_value(json_array_get(merge, 0)),
                   *right = json_string_value(json_array_get(merge, 1)), *line = json_string_value(merge);
        if (left && right && json_array_size(merge) == 2) {
            MBL_TRY(add_merge(o, left, right));
            continue;
        }
        char *copy = mbl_strdup(line ? line : "");
        if (!copy)
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a merge", o->folder);
        mbl_status_t status = read_merge(o, "tokenizer.json: model.merges", i, copy);
        mbl_free(copy);
        MBL_TRY(status);
    }
    return MBL_OK;
}

/* ---- added tokens ---- */

/* A special token of tokenizer_config.json or special_tokens_map.json: a string or an object with "content".
 */
static const json_t *special(const opening_t *o, const char *key) {
    const json_t *sources[2] = {o->config, o->map};
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(sources[i], key), *text = value;
        if (json_is_object(value))
            text = json_object_get(value, "content");
        if (json_is_string(text) && json_string_length(text) > 0)
            return value;
    }
    return NULL;
}

/* The tokens that files of either form list with their flags. */
static mbl_status_t read_added(const opening_t *o) {
    const char *number;
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(o->whole, "added_tokens"), i, token) {
        int32_t id = 0;
        MBL_TRY(mbl_token_id(o->path, "(added)", json_object_get(token, "id"), &id));
        MBL_TRY(mbl_added_add_json(&o->t->added, o->path, token, id));
    }
    json_object_foreach(json_object_get(o->config, "added_tokens_decoder"), number, token) {
        char *end;
        long id = strtol(number, &end, 10);
        json_t *value = json_integer(*end ? -1 : id);
        int32_t checked = 0;
        mbl_status_t status = mbl_token_id(o->path, number, value, &checked);
        json_decref(value);
        MBL_TRY(status);
        MBL_TRY(mbl_added_add_json(&o->t->added, o->path, token, checked));
    }
    return MBL_OK;
}

static mbl_status_t read_special(const opening_t *o, const char *key, const char *fallback, int32_t *out) {
    const json_t *value = special(o, key), *lasting = json_object_get(o->map, key);
    const char *text = json_is_object(value) ? json_string_value(json_object_get(value, "content"))
                       : value               ? json_string_value(value)
                                             : fallback;
    MBL_TRY(id_of(o, text, out));
    if (json_is_object(value))
        return mbl_added_add_json(&o->t->added, o->path, value, *out);
    const char *mapped = json_string_value(json_object_get(lasting, "content"));
    if (mapped && strcmp(mapped, text) == 0)
        return mbl_added_add_json(&o->t->added, o->path, lasting, *out);
    return mbl_added_add(&o->t->added, text, *out, false, false, false);
}

/* ---- the whole ---- */

static void close_model(void *model) {
    if (model)
        mbl_bpe_clear(model);
    mbl_free(model);
}

static const mbl_tokenizer_kind_t clip_kind = {"CLIP", mbl_clip_normalize, mbl_clip_words, close_model};

/* A byte-pair tokenizer that is not CLIP's would give other words than were trained on. */
static mbl_status_t check_model(const opening_t *o, const json_t *model) {
    const char *suffix = json_string_value(json_object_get(model, "end_of_word_suffix"));
    if (!suffix || strcmp(suffix, "</w>") != 0)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: model.end_of_word_suffix: %.40s; expected CLIP's \"</w>\"; byte pairs of other "
                        "kinds are not supported",
                        o->path, suffix ? suffix : "none");
    return MBL_OK;
}

static mbl_status_t read_all(const opening_t *o) {
    mbl_tokenizer_t *t = o->t;
    const json_t *model = json_object_get(o->whole, "model");
    const char *token;
    json_t *value;
    if (o->whole)
        MBL_TRY(check_model(o, model));
    MBL_TRY(read_added(o));
    MBL_TRY(read_special(o, "bos_token", "<|startoftext|>", &t->start));
    MBL_TRY(read_special(o, "eos_token", "<|endoftext|>", &t->end));
    MBL_TRY(read_special(o, "pad_token", "<|endoftext|>", &t->pad));
    int32_t unknown = 0;
    MBL_TRY(read_special(o, "unk_token", "<|endoftext|>", &unknown));
    json_object_foreach((json_t *)o->vocab, token, value) {
        int32_t id = 0;
        MBL_TRY(id_of(o, token, &id));
        if ((size_t)id >= t->vocab_size)
            t->vocab_size = (size_t)id + 1;
    }
    for (size_t i = 0; i < t->added.n; i++)
        if ((size_t)t->added.token[i].id >= t->vocab_size)
            t->vocab_size = (size_t)t->added.token[i].id + 1;
    MBL_TRY(o->whole ? read_pairs(o, json_object_get(model, "merges")) : read_file(o));
    return read_bytes(o, unknown);
}

mbl_status_t mbl_clip_words_open(const char *folder, const json_t *config, const json_t *map,
                                 const json_t *whole, mbl_tokenizer_t *t) {
    mbl_status_t status = MBL_OK;
    json_t *vocab = NULL;
    opening_t o = {.folder = folder, .config = config, .map = map, .whole = whole, .t = t};
    o.name = whole ? "tokenizer.json" : "vocab.json";
    t->kind = &clip_kind;
    MBL_ALLOC_GOTO(o.bpe, 1, done);
    t->model = o.bpe;
    if (!(o.path = mbl_format("%s/%s", folder, o.name))) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
        goto done;
    }
    if (!whole)
        MBL_TRY_GOTO(mbl_json_read_in(folder, o.name, false, &vocab), done);
    o.vocab = whole ? json_object_get(json_object_get(whole, "model"), "vocab") : vocab;
    status = read_all(&o);
done:
    mbl_free(o.path);
    json_decref(vocab);
    return status;
}
