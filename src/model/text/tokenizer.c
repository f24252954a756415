/* CLIP's tokenizer: text to words (normal form C, lower case, CLIP's pattern), words to tokens by byte pairs.
 */
#include "model/text/tokenizer.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "model/text/bpe.h"

#include <string.h>

enum {
    DEFAULT_LENGTH = 77,
    LONGEST = 1 << 16,        /* a model_max_length beyond this means "none" */
    MERGES_LIMIT = 256 << 20, /* bytes of merges.txt */
    IDS_LIMIT = 1 << 24,
    SPECIALS = 4, /* first, last, padding, unknown */
    BYTES_GROWTH =
        4 /* bytes of a lower-cased text in normal form C over bytes as given: 3 at most, and reserve */
};

struct mbl_tokenizer {
    mbl_bpe_t bpe;
    size_t max_length, vocab_size;
    int32_t start, end, pad;
    struct {
        char *text; /* taken whole where a prompt quotes it */
        int32_t id;
    } special[SPECIALS];
};

/* ---- opening ---- */

static mbl_status_t id_of(const json_t *vocab, const char *folder, const char *token, int32_t *out) {
    const json_t *value = json_object_get(vocab, token);
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= IDS_LIMIT)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s/vocab.json: token \"%.40s\": %s, right would be a number from 0 to %d", folder,
                        token, value ? "not a token's number" : "missing", IDS_LIMIT - 1);
    *out = (int32_t)id;
    return MBL_OK;
}

/* The numbers of all single bytes. A reduced vocabulary may lack some: those become the unknown token. */
static mbl_status_t read_bytes(const json_t *vocab, const char *folder, int32_t unknown, mbl_bpe_t *bpe) {
    for (int b = 0; b < 256; b++) {
        char text[3], last[8];
        mbl_bpe_byte_text((unsigned char)b, text);
        snprintf(last, sizeof last, "%s</w>", text);
        bpe->byte[b] = bpe->last[b] = unknown;
        if (json_object_get(vocab, text))
            MBL_TRY(id_of(vocab, folder, text, &bpe->byte[b]));
        if (json_object_get(vocab, last))
            MBL_TRY(id_of(vocab, folder, last, &bpe->last[b]));
    }
    return MBL_OK;
}

/* One line "left right" of merges.txt; cut up in place. */
static mbl_status_t read_merge(const json_t *vocab, const char *folder, size_t number, char *line,
                               mbl_bpe_t *bpe) {
    char *space = strchr(line, ' ');
    if (!space || space == line || !space[1] || strchr(space + 1, ' '))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s/merges.txt:%zu: \"%.40s\", right would be two tokens and a space",
                        folder, number, line);
    *space = 0;
    int32_t left = 0, right = 0, both = 0;
    MBL_TRY(id_of(vocab, folder, line, &left));
    MBL_TRY(id_of(vocab, folder, space + 1, &right));
    memmove(space, space + 1, strlen(space + 1) + 1);
    MBL_TRY(id_of(vocab, folder, line, &both));
    mbl_bpe_add(bpe, left, right, both);
    return MBL_OK;
}

static mbl_status_t read_merges(const json_t *vocab, const char *folder, int32_t unknown, mbl_bpe_t *bpe) {
    char *path = mbl_format("%s/merges.txt", folder), *text = NULL;
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    size_t size, lines = 1;
    mbl_status_t status = mbl_file_read(path, MERGES_LIMIT, &text, &size);
    mbl_free(path);
    MBL_TRY(status);
    if (strlen(text) != size) {
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s/merges.txt: holds a zero byte", folder);
        goto done;
    }
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    MBL_TRY_GOTO(mbl_bpe_init(bpe, lines), done);
    MBL_TRY_GOTO(read_bytes(vocab, folder, unknown, bpe), done);
    size_t number = 1;
    for (char *line = text; line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        size_t n = strlen(line);
        if (n > 0 && line[n - 1] == '\r')
            line[n - 1] = 0;
        if (*line && strncmp(line, "#version", 8) != 0)
            MBL_TRY_GOTO(read_merge(vocab, folder, number, line, bpe), done);
        line = end ? end + 1 : NULL;
    }
done:
    mbl_free(text);
    return status;
}

/* A special token of tokenizer_config.json or special_tokens_map.json: a string or an object with "content".
 */
static const char *special(const json_t *config, const json_t *map, const char *key, const char *fallback) {
    const json_t *sources[2] = {config, map};
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(sources[i], key);
        if (json_is_object(value))
            value = json_object_get(value, "content");
        if (json_is_string(value) && json_string_length(value) > 0)
            return json_string_value(value);
    }
    return fallback;
}

/* FOLDER/NAME as JSON; an optional file that is not there gives NULL. */
static mbl_status_t read_part(const char *folder, const char *name, bool optional, json_t **out) {
    char *path = mbl_format("%s/%s", folder, name);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    mbl_status_t status = MBL_OK;
    if (!optional || mbl_file_exists(path))
        status = mbl_json_read(path, out);
    mbl_free(path);
    return status;
}

static mbl_status_t fill(mbl_tokenizer_t *t, const char *folder, const json_t *vocab, const json_t *config,
                         const json_t *map) {
    static const char *const keys[SPECIALS] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    for (int i = 0; i < SPECIALS; i++) {
        const char *text = special(config, map, keys[i], i == 0 ? "<|startoftext|>" : "<|endoftext|>");
        MBL_TRY(id_of(vocab, folder, text, &t->special[i].id));
        t->special[i].text = mbl_strdup(text);
        if (!t->special[i].text)
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for the special tokens", folder);
    }
    t->start = t->special[0].id;
    t->end = t->special[1].id;
    t->pad = t->special[2].id;
    double length = json_number_value(json_object_get(config, "model_max_length"));
    t->max_length = length >= 2 && length <= LONGEST ? (size_t)length : DEFAULT_LENGTH;
    const char *token;
    json_t *value;
    json_object_foreach((json_t *)vocab, token, value) {
        int32_t id = 0;
        MBL_TRY(id_of(vocab, folder, token, &id));
        if ((size_t)id >= t->vocab_size)
            t->vocab_size = (size_t)id + 1;
    }
    return read_merges(vocab, folder, t->special[3].id, &t->bpe);
}

mbl_status_t mbl_tokenizer_open(const char *folder, mbl_tokenizer_t **out) {
    mbl_status_t status;
    json_t *vocab = NULL, *config = NULL, *map = NULL;
    mbl_tokenizer_t *t;
    MBL_ALLOC(t, 1);
    MBL_TRY_GOTO(read_part(folder, "vocab.json", false, &vocab), done);
    MBL_TRY_GOTO(read_part(folder, "tokenizer_config.json", true, &config), done);
    MBL_TRY_GOTO(read_part(folder, "special_tokens_map.json", true, &map), done);
    MBL_TRY_GOTO(fill(t, folder, vocab, config, map), done);
    *out = t;
    t = NULL;
done:
    json_decref(vocab);
    json_decref(config);
    json_decref(map);
    mbl_tokenizer_close(t);
    return status;
}

void mbl_tokenizer_close(mbl_tokenizer_t *tokenizer) {
    if (!tokenizer)
        return;
    mbl_bpe_clear(&tokenizer->bpe);
    for (int i = 0; i < SPECIALS; i++)
        mbl_free(tokenizer->special[i].text);
    mbl_free(tokenizer);
}

size_t mbl_tokenizer_max_length(const mbl_tokenizer_t *tokenizer) {
    return tokenizer->max_length;
}

size_t mbl_tokenizer_vocab_size(const mbl_tokenizer_t *tokenizer) {
    return tokenizer->vocab_size;
}

/* ---- encoding ---- */

typedef struct {
    const mbl_tokenizer_t *t;
    uint32_t *raw, *text; /* characters as read, and at last in lower case; in normal form C */
    char *word;
    void *scratch;
    int32_t *piece;
    int32_t *ids; /* room for `limit` more tokens; NULL: they are counted only */
    size_t n, limit;
    char *cut; /* while counting: the text from the first word that goes beyond `fits` tokens */
    size_t fits, cut_size, cut_used;
} encode_t;

static void put(encode_t *e, int32_t id) {
    if (e->n >= e->limit)
        return;
    if (e->ids)
        e->ids[e->n] = id;
    e->n++;
}

/* While counting: notes a character of what does not fit, as long as there is room. */
static void note_cut(encode_t *e, uint32_t c) {
    char bytes[4];
    size_t n = mbl_utf8_encode(c, bytes);
    if (!e->cut || e->n <= e->fits || e->cut_used + n >= e->cut_size)
        return;
    memcpy(e->cut + e->cut_used, bytes, n);
    e->cut_used += n;
    e->cut[e->cut_used] = 0;
}

static void put_word(encode_t *e, const uint32_t *text, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += mbl_utf8_encode(text[i], e->word + bytes);
    if (bytes == 0 || e->n >= e->limit)
        return;
    size_t pieces = mbl_bpe_word(&e->t->bpe, e->word, bytes, e->scratch, e->piece);
    for (size_t i = 0; i < pieces; i++)
        put(e, e->piece[i]);
}

static bool begins(const uint32_t *text, size_t n, const char *with) {
    size_t i = 0;
    for (; with[i]; i++)
        if (i >= n || text[i] != (unsigned char)with[i])
            return false;
    return true;
}

typedef enum { SPACE, LETTER, NUMBER, OTHER } kind_t;
static kind_t kind_of(uint32_t c) {
    return mbl_unicode_letter(c)   ? LETTER
           : mbl_unicode_number(c) ? NUMBER
           : mbl_unicode_space(c)  ? SPACE
                                   : OTHER;
}

/* Length of the first word of text by CLIP's pattern:
 * <|startoftext|> | <|endoftext|> | 's|'t|'re|'ve|'m|'ll|'d | letters | one number | neither of those nor
 * space. */
static size_t word_length(const uint32_t *text, size_t n, bool *marker) {
    static const char *const whole[] = {
        "<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    *marker = false;
    for (size_t i = 0; (text[0] == '<' || text[0] == '\'') && i < sizeof whole / sizeof whole[0]; i++) {
        if (begins(text, n, whole[i])) {
            *marker = i < 2;
            return strlen(whole[i]);
        }
    }
    kind_t kind = kind_of(text[0]);
    size_t length = 1;
    while (kind != NUMBER && length < n && kind_of(text[length]) == kind)
        length++;
    return length;
}

/* Characters in normal form C to tokens. A marker that came about by lower-casing is no special token: its
 * three parts are words. */
static void put_text(encode_t *e, const uint32_t *text, size_t n) {
    for (size_t i = 0; i < n && e->n < e->limit;) {
        bool marker;
        size_t length = word_length(text + i, n - i, &marker);
        if (marker) {
            put_word(e, text + i, 2);
            put_word(e, text + i + 2, length - 4);
            put_word(e, text + i + length - 2, 2);
        } else if (!mbl_unicode_space(text[i])) {
            put_word(e, text + i, length);
        }
        for (size_t j = 0; j < length; j++)
            note_cut(e, text[i + j]);
        i += length;
    }
}

static void put_segment(encode_t *e, const char *text, size_t size) {
    size_t n = 0, lower = 0;
    for (size_t i = 0; i < size;)
        i += mbl_utf8_decode(text + i, size - i, &e->raw[n++]);
    n = mbl_unicode_nfc(e->raw, n, e->text);
    for (size_t i = 0; i < n; i++) {
        e->raw[lower++] = e->text[i] == 0x130 ? 'i' : mbl_unicode_lower(e->text[i]);
        if (e->text[i] == 0x130) /* the one character whose lower case is two */
            e->raw[lower++] = 0x307;
    }
    put_text(e, e->raw, lower);
}

/* The first special token quoted in text (the longest of those at one place), or NULL. */
static const char *next_special(const mbl_tokenizer_t *t, const char *text, int32_t *id, size_t *length) {
    const char *first = NULL;
    *length = 0;
    for (int i = 0; i < SPECIALS; i++) {
        const char *found = strstr(text, t->special[i].text);
        size_t n = strlen(t->special[i].text);
        if (found && (!first || found < first || (found == first && n > *length))) {
            first = found;
            *id = t->special[i].id;
            *length = n;
        }
    }
    return first;
}

static mbl_status_t make_scratch(encode_t *e, size_t size, void **block) {
    size_t room = size + 16, characters, bytes;
    mbl_arena_t arena = {0};
    if (!mbl_mul(room, MBL_NFC_GROWTH, &characters) || !mbl_mul(room, BYTES_GROWTH, &bytes) ||
        bytes > UINT32_MAX)
        return MBL_FAIL(MBL_ERR_ARG, "a prompt of %zu bytes is too long", size);
    for (int pass = 0; pass < 2; pass++) {
        e->raw = mbl_arena_take(&arena, characters, sizeof *e->raw);
        e->text = mbl_arena_take(&arena, characters, sizeof *e->text);
        e->word = mbl_arena_take(&arena, bytes, 1);
        e->piece = mbl_arena_take(&arena, bytes, sizeof *e->piece);
        e->scratch = mbl_arena_take(&arena, mbl_bpe_scratch_size(1), bytes);
        if (pass == 0) {
            size_t used = arena.used;
            arena = (mbl_arena_t){mbl_calloc(used, 1), used, 0};
            if (!arena.base)
                return MBL_FAIL(MBL_ERR_MEM, "no memory for a prompt of %zu bytes", size);
        }
    }
    *block = arena.base;
    return MBL_OK;
}

/* All of the text: words, and special tokens where it quotes them. */
static mbl_status_t put_all(encode_t *e, const char *text) {
    void *block = NULL;
    MBL_TRY(make_scratch(e, strlen(text), &block));
    while (*text && e->n < e->limit) {
        int32_t id = 0;
        size_t skip;
        const char *found = next_special(e->t, text, &id, &skip);
        put_segment(e, text, found ? (size_t)(found - text) : strlen(text));
        if (found)
            put(e, id);
        for (size_t i = 0; found && i < skip; i++) /* they are ASCII */
            note_cut(e, (unsigned char)found[i]);
        text = found ? found + skip : "";
    }
    mbl_free(block);
    return MBL_OK;
}

mbl_status_t mbl_tokenizer_encode(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                  int32_t *ids, size_t *end) {
    MBL_REQUIRE(length >= 2, "a prompt needs room for its first and last token, not %zu tokens", length);
    encode_t e = {.t = tokenizer, .ids = ids + 1, .limit = length - 2};
    MBL_TRY(put_all(&e, text));
    ids[0] = tokenizer->start;
    ids[e.n + 1] = tokenizer->end;
    for (size_t i = e.n + 2; i < length; i++)
        ids[i] = tokenizer->pad;
    size_t first = 1;
    while (ids[first] != tokenizer->end)
        first++;
    *end = first;
    return MBL_OK;
}

mbl_status_t mbl_tokenizer_measure(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                   size_t *tokens, char *cut, size_t size) {
    MBL_REQUIRE(length >= 2 && size > 0, "a prompt of %zu tokens, what is cut into %zu bytes", length, size);
    encode_t e = {.t = tokenizer, .limit = SIZE_MAX, .cut = cut, .fits = length - 2, .cut_size = size};
    cut[0] = 0;
    MBL_TRY(put_all(&e, text));
    *tokens = e.n + 2;
    return MBL_OK;
}
