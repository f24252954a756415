/* CLIP's words: text in normal form C and lower case, cut by CLIP's pattern. */
#include "base/mem.h"
#include "base/unicode.h"
#include "model/text/clip_words.h"

#include <string.h>

/* Characters as they are read, and in normal form C. */
static mbl_status_t make_characters(size_t size, uint32_t **raw, uint32_t **text) {
    size_t room = (size + 16) * MBL_NFC_GROWTH;
    MBL_ALLOC(*raw, 2 * room);
    *text = *raw + room;
    return MBL_OK;
}

/* Characters that the library `tokenizers` leaves as they are, because its normal form C is that of Unicode 9
 * and they, or their combining class, came later (up to Unicode 16). First and last of each range. */
static const uint32_t late[][2] = {
    {0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0xece, 0xece},     {0x1715, 0x1715},   {0x1abf, 0x1ace},
    {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x105c9, 0x105c9}, {0x105e4, 0x105e4}, {0x10d24, 0x10d27},
    {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10efc, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11380, 0x113e2}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16121, 0x1612f}, {0x16d63, 0x16d6a}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}};

static bool is_late(uint32_t c) {
    for (size_t i = 0; i < sizeof late / sizeof late[0] && late[i][0] <= c; i++)
        if (c <= late[i][1])
            return true;
    return false;
}

/* Normal form C of what lies between late characters. out: room for MBL_NFC_GROWTH n. */
static size_t compose(const uint32_t *in, size_t n, uint32_t *out) {
    size_t m = 0;
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin; end < n && !is_late(in[end]);)
            end++;
        m += mbl_unicode_nfc(in + begin, end - begin, out + m);
        while (end < n && is_late(in[end]))
            out[m++] = in[end++];
    }
    return m;
}

static mbl_status_t put_character(mbl_bytes_t *out, uint32_t c) {
    char bytes[4];
    return mbl_bytes_put(out, bytes, mbl_utf8_encode(c, bytes));
}

mbl_status_t mbl_clip_normalize(const void *model, const char *text, size_t size, mbl_bytes_t *out) {
    (void)model;
    uint32_t *raw = NULL, *composed = NULL;
    size_t n = 0;
    MBL_TRY(make_characters(size, &raw, &composed));
    for (size_t i = 0; i < size;)
        i += mbl_utf8_decode(text + i, size - i, &raw[n++]);
    n = compose(raw, n, composed);
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < n && status == MBL_OK; i++) {
        status = put_character(out, composed[i] == 0x130 ? 'i' : mbl_unicode_lower(composed[i]));
        if (status == MBL_OK && composed[i] == 0x130) /* the one character whose lower case is two */
            status = put_character(out, 0x307);
    }
    mbl_free(raw);
    return status;
}

/* ---- words ---- */

typedef struct {
    const mbl_bpe_t *bpe;
    uint32_t *text;
    char *word;
    void *scratch;
    int32_t *piece;
    mbl_encoding_t *e;
} words_t;

static void put_word(words_t *w, const uint32_t *text, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += mbl_utf8_encode(text[i], w->word + bytes);
    if (bytes == 0 || w->e->n >= w->e->limit)
        return;
    size_t pieces = mbl_bpe_word(w->bpe, w->word, bytes, w->scratch, w->piece);
    for (size_t i = 0; i < pieces; i++)
        mbl_encoding_put(w->e, w->piece[i]);
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

/* A marker that came about by lower-casing, and is no added token, is three words. */
static void put_text(words_t *w, size_t n) {
    for (size_t i = 0; i < n && w->e->n < w->e->limit;) {
        const uint32_t *text = w->text + i;
        bool marker;
        size_t length = word_length(text, n - i, &marker);
        if (marker) {
            put_word(w, text, 2);
            put_word(w, text + 2, length - 4);
            put_word(w, text + length - 2, 2);
        } else if (!mbl_unicode_space(text[0])) {
            put_word(w, text, length);
        }
        for (size_t j = 0; j < length; j++) {
            char bytes[4];
            mbl_encoding_note(w->e, bytes, mbl_utf8_encode(text[j], bytes));
        }
        i += length;
    }
}

mbl_status_t mbl_clip_words(const void *model, const char *text, size_t size, mbl_encoding_t *e) {
    words_t w = {.bpe = model, .e = e};
    mbl_arena_t arena = {0};
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        w.text = mbl_arena_take(&arena, size, sizeof *w.text);
        w.word = mbl_arena_take(&arena, size, 1);
        w.piece = mbl_arena_take(&arena, size, sizeof *w.piece);
        w.scratch = mbl_arena_take(&arena, mbl_bpe_scratch_size(1), size);
        if (pass == 0) {
            arena = (mbl_arena_t){mbl_calloc(arena.used, 1), arena.used, 0};
            if (!arena.base)
                return MBL_FAIL(MBL_ERR_MEM, "no memory for a prompt of %zu bytes", size);
        }
    }
    for (size_t i = 0; i < size;)
        i += mbl_utf8_decode(text + i, size - i, &w.text[n++]);
    put_text(&w, n);
    mbl_free(arena.base);
    return MBL_OK;
}
