/* Unicode by utf8proc, in the form tokenizers ask for it. */
#include "base/unicode.h"

#include <string.h>
#include <utf8proc.h>

/* utf8proc_iterate does not say how long a broken piece is, so this is our own. */
size_t mbl_utf8_decode(const char *text, size_t size, uint32_t *out) {
    const unsigned char *s = (const unsigned char *)text;
    uint32_t c = s[0];
    if (c < 0x80) {
        *out = c;
        return 1;
    }
    *out = 0xfffd;
    size_t need = c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 0;
    if (need == 0)
        return 1;
    /* The second byte's range keeps out overlong forms, surrogates and what lies beyond U+10FFFF. */
    unsigned low = c == 0xe0   ? 0xa0
                   : c == 0xf0 ? 0x90
                               : 0x80,
             high = c == 0xed   ? 0x9f
                    : c == 0xf4 ? 0x8f
                                : 0xbf;
    c &= need == 1 ? 0x1f : need == 2 ? 0x0f : 0x07;
    for (size_t i = 1; i <= need; i++) {
        if (i >= size || s[i] < low || s[i] > high)
            return i;
        c = c << 6 | (s[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *out = c;
    return need + 1;
}

bool mbl_utf8_valid(const char *text, size_t size) {
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t c;
        n = mbl_utf8_decode(text + i, size - i, &c);
        if (c == 0xfffd && (n < 3 || memcmp(text + i, "\xef\xbf\xbd", 3) != 0))
            return false;
    }
    return true;
}

size_t mbl_utf8_encode(uint32_t c, char out[4]) {
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

bool mbl_unicode_letter(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool mbl_unicode_number(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool mbl_unicode_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x85 || /* controls by category, yet White_Space */
           (utf8proc_category((utf8proc_int32_t)c) >= UTF8PROC_CATEGORY_ZS &&
            utf8proc_category((utf8proc_int32_t)c) <= UTF8PROC_CATEGORY_ZP);
}

uint32_t mbl_unicode_lower(uint32_t c) {
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

bool mbl_unicode_cluster_ends(uint32_t before, uint32_t next, int32_t *state) {
    return utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)next, state);
}

/* Insertion sort of combining marks by class, stable; starters (class 0) stay where they are. */
static void order_marks(utf8proc_int32_t *text, size_t n) {
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t c = text[i];
        int class = utf8proc_get_property(c)->combining_class;
        size_t j = i;
        for (; class > 0 && j > 0 && utf8proc_get_property(text[j - 1])->combining_class > class; j--)
            text[j] = text[j - 1];
        text[j] = c;
    }
}

size_t mbl_unicode_nfc(const uint32_t *in, size_t n, uint32_t *out) {
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_int32_t *text = (utf8proc_int32_t *)out;
    size_t m = 0, plain = 0;
    while (plain < n && in[plain] < 0x300)
        plain++;
    if (plain == n) {
        if (n > 0)
            memmove(out, in, n * sizeof *in);
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        utf8proc_ssize_t k =
            utf8proc_decompose_char((utf8proc_int32_t)in[i], text + m, MBL_NFC_GROWTH, options, NULL);
        if (k <= 0 || k > MBL_NFC_GROWTH) { /* no character: stays as it is */
            text[m] = (utf8proc_int32_t)in[i];
            k = 1;
        }
        m += (size_t)k;
    }
    order_marks(text, m);
    utf8proc_ssize_t k = utf8proc_normalize_utf32(text, (utf8proc_ssize_t)m, options);
    return k < 0 ? m : (size_t)k;
}

size_t mbl_unicode_width(uint32_t c) {
    return c < 0x20 ? 0 : (size_t)utf8proc_charwidth((utf8proc_int32_t)c);
}
