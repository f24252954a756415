/* Tokenizers: which kind a folder has, and prompts to ids of a given length. */
#include "model/text/tokenizer.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "model/text/tokenizer_internal.h"

#include <string.h>

/* ---- opening: tokenizer_read.c ---- */

void mbl_tokenizer_close(mbl_tokenizer_t *tokenizer) {
    if (!tokenizer)
        return;
    if (tokenizer->kind)
        tokenizer->kind->close(tokenizer->model);
    mbl_added_clear(&tokenizer->added);
    mbl_free(tokenizer);
}

size_t mbl_tokenizer_max_length(const mbl_tokenizer_t *tokenizer) {
    return tokenizer->max_length;
}

size_t mbl_tokenizer_vocab_size(const mbl_tokenizer_t *tokenizer) {
    return tokenizer->vocab_size;
}

const char *mbl_tokenizer_kind(const mbl_tokenizer_t *tokenizer) {
    return tokenizer->kind->name;
}

/* ---- what the kinds call ---- */

mbl_status_t mbl_bytes_put(mbl_bytes_t *bytes, const char *data, size_t n) {
    if (bytes->n + n > bytes->room) {
        size_t room = 2 * (bytes->n + n) + 64;
        char *grown = mbl_realloc(bytes->data, bytes->room, room, 1);
        if (!grown)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for a prompt of %zu bytes", bytes->n + n);
        bytes->data = grown;
        bytes->room = room;
    }
    if (n > 0)
        memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
    return MBL_OK;
}

void mbl_encoding_put(mbl_encoding_t *e, int32_t id) {
    if (e->n >= e->limit)
        return;
    if (e->ids)
        e->ids[e->n] = id;
    e->n++;
}

void mbl_encoding_note(mbl_encoding_t *e, const char *bytes, size_t n) {
    if (!e->cut || e->n <= e->fits || e->cut_used + n >= e->cut_size)
        return;
    memcpy(e->cut + e->cut_used, bytes, n);
    e->cut_used += n;
    e->cut[e->cut_used] = 0;
}

/* ---- encoding ---- */

static mbl_status_t put_added(mbl_encoding_t *e, int32_t id, const char *text, size_t n) {
    mbl_encoding_put(e, id);
    for (size_t i = 0, step; i < n; i += step) {
        uint32_t c;
        step = mbl_utf8_decode(text + i, n - i, &c);
        mbl_encoding_note(e, text + i, step);
    }
    return MBL_OK;
}

/* Text without tokens of the first kind: normalized, then cut at those of the second. */
static mbl_status_t put_segment(const mbl_tokenizer_t *t, const char *text, size_t size, mbl_bytes_t *normal,
                                mbl_encoding_t *e) {
    normal->n = 0;
    MBL_TRY(t->kind->normalize(t->model, text, size, normal));
    for (size_t at = 0; at < normal->n && e->n < e->limit;) {
        int32_t id = 0;
        size_t begin = normal->n, end = normal->n;
        bool found = mbl_added_find(&t->added, true, normal->data, normal->n, at, &id, &begin, &end);
        if (begin > at)
            MBL_TRY(t->kind->words(t->model, normal->data + at, begin - at, e));
        if (found)
            MBL_TRY(put_added(e, id, normal->data + begin, end - begin));
        at = end;
    }
    return MBL_OK;
}

static mbl_status_t put_parts(const mbl_tokenizer_t *t, const char *text, size_t size, mbl_bytes_t *normal,
                              mbl_encoding_t *e) {
    for (size_t at = 0; at < size && e->n < e->limit;) {
        int32_t id = 0;
        size_t begin = size, end = size;
        bool found = mbl_added_find(&t->added, false, text, size, at, &id, &begin, &end);
        if (begin > at)
            MBL_TRY(put_segment(t, text + at, begin - at, normal, e));
        if (found)
            MBL_TRY(put_added(e, id, text + begin, end - begin));
        at = end;
    }
    return MBL_OK;
}

/* All of the text: words, and added tokens where it quotes them. */
static mbl_status_t put_all(const mbl_tokenizer_t *t, const char *text, mbl_encoding_t *e) {
    size_t size = strlen(text);
    mbl_bytes_t normal = {0};
    if (size > INT32_MAX / 64)
        return MBL_FAIL(MBL_ERR_ARG, "a prompt of %zu bytes; expected at most %d", size, INT32_MAX / 64);
    if (!mbl_utf8_valid(text, size))
        return MBL_FAIL(MBL_ERR_ARG, "a prompt is not UTF-8: \"%.60s\"; expected UTF-8", text);
    mbl_status_t status = put_parts(t, text, size, &normal, e);
    mbl_free(normal.data);
    return status;
}

/* The tokens around those of the text: its end, and its start where the model has one. */
static size_t around(const mbl_tokenizer_t *t) {
    return t->start >= 0 ? 2 : 1;
}

mbl_status_t mbl_tokenizer_encode(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                  int32_t *ids, size_t *end) {
    MBL_REQUIRE(length >= 2, "a prompt needs room for its first and last token, not %zu tokens", length);
    size_t first = around(tokenizer) - 1;
    mbl_encoding_t e = {.ids = ids + first, .limit = length - around(tokenizer)};
    MBL_TRY(put_all(tokenizer, text, &e));
    if (first > 0)
        ids[0] = tokenizer->start;
    ids[first + e.n] = tokenizer->end;
    for (size_t i = first + e.n + 1; i < length; i++)
        ids[i] = tokenizer->pad;
    size_t at = first;
    while (ids[at] != tokenizer->end)
        at++;
    *end = at;
    return MBL_OK;
}

mbl_status_t mbl_tokenizer_measure(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                   size_t *tokens, char *cut, size_t size) {
    MBL_REQUIRE(length >= 2 && size > 0, "a prompt of %zu tokens, what is cut into %zu bytes", length, size);
    mbl_encoding_t e = {.limit = SIZE_MAX, .cut = cut, .fits = length - around(tokenizer), .cut_size = size};
    cut[0] = 0;
    MBL_TRY(put_all(tokenizer, text, &e));
    *tokens = e.n + around(tokenizer);
    return MBL_OK;
}
