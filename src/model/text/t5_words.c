/* T5's words: normalized as its tokenizer.json says, each with its space before it, cut into unigrams. Not by
 * libsentencepiece, which normalizes and breaks ties in other ways than `tokenizers` does, knows no added
 * tokens, and needs spiece.model, which folders that were saved again lack. */
#include "model/text/t5_words.h"
#include "base/mem.h"
#include "base/unicode.h"

#include <string.h>

enum { SPACE_BYTES = sizeof MBL_T5_SPACE - 1 };

/* ---- normalizing ---- */

/* Bytes of one character of white space at the beginning or the end of text; 0: there is none. */
static size_t space_first(const char *text, size_t size) {
    uint32_t c;
    size_t n = size > 0 ? mbl_utf8_decode(text, size, &c) : 0;
    return n > 0 && mbl_unicode_space(c) ? n : 0;
}

static size_t space_last(const char *text, size_t size) {
    size_t at = size;
    while (at > 0 && ((unsigned char)text[--at] & 0xc0) == 0x80)
        ;
    size_t n = space_first(text + at, size - at);
    return n == size - at ? n : 0;
}

static void strip(const mbl_t5_step_t *step, const char **text, size_t *size) {
    for (size_t n; step->left && (n = space_first(*text, *size)) > 0; *size -= n)
        *text += n;
    for (size_t n; step->right && (n = space_last(*text, *size)) > 0;)
        *size -= n;
}

/* Two spaces and more become one U+2581. */
static mbl_status_t join_spaces(const char *text, size_t size, mbl_bytes_t *out) {
    for (size_t i = 0, n; i < size; i += n) {
        n = 1;
        while (text[i] == ' ' && i + n < size && text[i + n] == ' ')
            n++;
        MBL_TRY(n > 1 ? mbl_bytes_put(out, MBL_T5_SPACE, SPACE_BYTES) : mbl_bytes_put(out, text + i, 1));
    }
    return MBL_OK;
}

static mbl_status_t apply(const mbl_t5_model_t *m, const mbl_t5_step_t *step, const mbl_bytes_t *in,
                          mbl_bytes_t *out) {
    const char *text = in->data;
    size_t size = in->n;
    if (step->what == MBL_T5_CHARSMAP)
        return mbl_charsmap_apply(&m->map, text, size, out);
    if (step->what == MBL_T5_JOIN_SPACES)
        return join_spaces(text, size, out);
    strip(step, &text, &size);
    return mbl_bytes_put(out, text, size);
}

mbl_status_t mbl_t5_normalize(const void *model, const char *text, size_t size, mbl_bytes_t *out) {
    const mbl_t5_model_t *m = model;
    mbl_bytes_t now = {0}, then = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bytes_put(&now, text, size), done);
    for (size_t i = 0; i < m->n_steps; i++) {
        then.n = 0;
        MBL_TRY_GOTO(apply(m, &m->step[i], &now, &then), done);
        mbl_bytes_t swap = now;
        now = then;
        then = swap;
    }
    status = mbl_bytes_put(out, now.data, now.n);
done:
    mbl_free(now.data);
    mbl_free(then.data);
    return status;
}

/* ---- words ---- */

typedef struct {
    const mbl_t5_model_t *m;
    mbl_bytes_t text; /* a part with U+2581 for its spaces and one before it */
    mbl_unigram_node_t *nodes;
    int32_t *piece;
    size_t room;
    mbl_encoding_t *e;
} words_t;

static mbl_status_t put_word(words_t *w, const char *text, size_t size) {
    size_t pieces = mbl_unigram_cut(&w->m->unigram, text, size, w->nodes, w->piece);
    for (size_t i = 0; i < pieces; i++)
        mbl_encoding_put(w->e, w->piece[i]);
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t c;
        n = mbl_utf8_decode(text + i, size - i, &c);
        mbl_encoding_note(w->e, c == 0x2581 ? " " : text + i, c == 0x2581 ? 1 : n);
    }
    return MBL_OK;
}

static bool is_space(const char *text, size_t size) {
    return size >= SPACE_BYTES && memcmp(text, MBL_T5_SPACE, SPACE_BYTES) == 0;
}

static mbl_status_t make_room(words_t *w, size_t size) {
    if (size + 1 <= w->room)
        return MBL_OK;
    mbl_free(w->nodes);
    mbl_free(w->piece);
    w->piece = NULL;
    w->room = 0;
    MBL_ALLOC(w->nodes, size + 1);
    MBL_ALLOC(w->piece, size + 1);
    w->room = size + 1;
    return MBL_OK;
}

/* A word is a U+2581 and what follows it up to the next. */
static mbl_status_t put_part(words_t *w, const char *part, size_t size) {
    w->text.n = 0;
    if (!is_space(part, size) && part[0] != ' ')
        MBL_TRY(mbl_bytes_put(&w->text, MBL_T5_SPACE, SPACE_BYTES));
    for (size_t i = 0; i < size; i++)
        MBL_TRY(part[i] == ' ' ? mbl_bytes_put(&w->text, MBL_T5_SPACE, SPACE_BYTES)
                               : mbl_bytes_put(&w->text, part + i, 1));
    MBL_TRY(make_room(w, w->text.n));
    const char *text = w->text.data;
    for (size_t begin = 0, end; begin < w->text.n && w->e->n < w->e->limit; begin = end) {
        end = begin + 1;
        while (end < w->text.n && !is_space(text + end, w->text.n - end))
            end++;
        MBL_TRY(put_word(w, text + begin, end - begin));
    }
    return MBL_OK;
}

/* The parts between white space, one after the other. */
static mbl_status_t put_parts(words_t *w, const char *text, size_t size) {
    for (size_t at = 0, end; at < size && w->e->n < w->e->limit; at = end) {
        size_t skip;
        while ((skip = space_first(text + at, size - at)) > 0)
            at += skip;
        uint32_t c;
        for (end = at; end < size && space_first(text + end, size - end) == 0;)
            end += mbl_utf8_decode(text + end, size - end, &c);
        if (end > at)
            MBL_TRY(put_part(w, text + at, end - at));
    }
    return MBL_OK;
}

mbl_status_t mbl_t5_words(const void *model, const char *text, size_t size, mbl_encoding_t *e) {
    words_t w = {.m = model, .e = e};
    mbl_status_t status = w.m->split_space ? put_parts(&w, text, size) : put_part(&w, text, size);
    mbl_free(w.text.data);
    mbl_free(w.nodes);
    mbl_free(w.piece);
    return status;
}
