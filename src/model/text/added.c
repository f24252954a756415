/* Added tokens: quoted in a prompt they are one token each, whatever the model would make of their letters.
 * As the library `tokenizers` has it: leftmost first, then longest. */
#include "base/mem.h"
#include "base/unicode.h"
#include "model/text/tokenizer_internal.h"

#include <string.h>

mbl_status_t mbl_added_add(mbl_added_t *added, const char *text, int32_t id, bool normalized, bool lstrip,
                           bool rstrip) {
    for (size_t i = 0; i < added->n; i++)
        if (strcmp(added->token[i].text, text) == 0)
            return MBL_OK;
    if (added->n == added->room) {
        mbl_added_token_t *grown =
            mbl_realloc(added->token, added->room, 2 * added->room + 8, sizeof *added->token);
        if (!grown)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu special tokens", added->n + 1);
        added->token = grown;
        added->room = 2 * added->room + 8;
    }
    char *copy = mbl_strdup(text);
    if (!copy)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu special tokens", added->n + 1);
    added->token[added->n++] = (mbl_added_token_t){copy, strlen(copy), id, normalized, lstrip, rstrip};
    added->begins[normalized][(unsigned char)copy[0]] = true;
    return MBL_OK;
}

mbl_status_t mbl_added_add_json(mbl_added_t *added, const char *path, const json_t *token, int32_t id) {
    const char *text = json_string_value(json_object_get(token, "content"));
    if (!text || !*text)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: added token %d: content: missing or empty; expected its text",
                        path, id);
    if (json_is_true(json_object_get(token, "single_word")))
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: added token \"%.40s\": single_word: true; expected false: tokens that count as "
                        "whole words only are not supported",
                        path, text);
    return mbl_added_add(added, text, id, json_is_true(json_object_get(token, "normalized")),
                         json_is_true(json_object_get(token, "lstrip")),
                         json_is_true(json_object_get(token, "rstrip")));
}

void mbl_added_clear(mbl_added_t *added) {
    for (size_t i = 0; i < added->n; i++)
        mbl_free(added->token[i].text);
    mbl_free(added->token);
    *added = (mbl_added_t){0};
}

/* The longest token of that kind which text begins with, or NULL. */
static const mbl_added_token_t *token_at(const mbl_added_t *added, bool normalized, const char *text,
                                         size_t size) {
    const mbl_added_token_t *best = NULL;
    for (size_t i = 0; i < added->n; i++) {
        const mbl_added_token_t *token = &added->token[i];
        if (token->normalized == normalized && token->size <= size && (!best || token->size > best->size) &&
            memcmp(token->text, text, token->size) == 0)
            best = token;
    }
    return best;
}

/* Bytes of the white space that text ends with, after `from`. */
static size_t space_before(const char *text, size_t from, size_t end) {
    size_t at = end;
    while (at > from) {
        size_t back = at - 1;
        uint32_t c;
        while (back > from && ((unsigned char)text[back] & 0xc0) == 0x80)
            back--;
        mbl_utf8_decode(text + back, at - back, &c);
        if (!mbl_unicode_space(c))
            break;
        at = back;
    }
    return end - at;
}

static size_t space_behind(const char *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        uint32_t c;
        size_t n = mbl_utf8_decode(text + at, size - at, &c);
        if (!mbl_unicode_space(c))
            break;
        at += n;
    }
    return at;
}

bool mbl_added_find(const mbl_added_t *added, bool normalized, const char *text, size_t size, size_t from,
                    int32_t *id, size_t *begin, size_t *end) {
    for (size_t i = from; i < size; i++) {
        const mbl_added_token_t *token = added->begins[normalized][(unsigned char)text[i]]
                                             ? token_at(added, normalized, text + i, size - i)
                                             : NULL;
        if (!token)
            continue;
        size_t stop = i + token->size;
        *id = token->id;
        *begin = i - (token->lstrip ? space_before(text, from, i) : 0);
        *end = stop + (token->rstrip ? space_behind(text + stop, size - stop) : 0);
        return true;
    }
    return false;
}
