/* Unicode over generated tables. */
#include "base/unicode.h"
#include "base/unicode_tables.h"

#include <string.h>

enum {
    HANGUL_S = 0xac00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11a7,
    HANGUL_L_COUNT = 19,
    HANGUL_V_COUNT = 21,
    HANGUL_T_COUNT = 28,
    HANGUL_S_COUNT = HANGUL_L_COUNT * HANGUL_V_COUNT * HANGUL_T_COUNT
};

/* ---- UTF-8 ---- */

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

size_t mbl_utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)(lead[n] | c);
    return n;
}

/* ---- properties ---- */

/* The row of a table of (first, last, ...) rows that holds c, or NULL. */
static const int32_t *row_of(const int32_t *table, size_t rows, size_t width, uint32_t c) {
    size_t low = 0, high = rows;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const int32_t *row = table + middle * width;
        if ((int32_t)c < row[0])
            high = middle;
        else if ((int32_t)c > row[1])
            low = middle + 1;
        else
            return row;
    }
    return NULL;
}
#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define ROW_OF(table, c) row_of((table)[0], ROWS(table), sizeof((table)[0]) / sizeof(int32_t), (c))

bool mbl_unicode_letter(uint32_t c) {
    if (c < 0x80)
        return (c | 32) >= 'a' && (c | 32) <= 'z';
    return ROW_OF(unicode_letters, c) != NULL;
}

bool mbl_unicode_number(uint32_t c) {
    if (c < 0x80)
        return c >= '0' && c <= '9';
    return ROW_OF(unicode_numbers, c) != NULL;
}

bool mbl_unicode_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

/* Runs of step 2 interleave with other runs (U+0100 and U+0101), so neighbours are tried too. */
uint32_t mbl_unicode_lower(uint32_t c) {
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    for (size_t i = 0; i < ROWS(unicode_lower); i++) {
        const int32_t *row = unicode_lower[i];
        if ((int32_t)c < row[0])
            break;
        if ((int32_t)c <= row[1] && ((int32_t)c - row[0]) % row[2] == 0)
            return (uint32_t)((int32_t)c + row[3]);
    }
    return c;
}

/* ---- normal form C ---- */

static int class_of(uint32_t c) {
    const int32_t *row = c < 0x300 ? NULL : ROW_OF(unicode_classes, c);
    return row ? row[2] : 0;
}

static const int32_t *decomposition_of(uint32_t c) {
    size_t low = 0, high = ROWS(unicode_decompositions);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((int32_t)c == unicode_decompositions[middle][0])
            return unicode_decompositions[middle];
        if ((int32_t)c < unicode_decompositions[middle][0])
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static size_t decompose(uint32_t c, uint32_t *out) {
    if (c >= HANGUL_S && c < HANGUL_S + HANGUL_S_COUNT) {
        uint32_t s = c - HANGUL_S, t = s % HANGUL_T_COUNT;
        out[0] = HANGUL_L + s / (HANGUL_V_COUNT * HANGUL_T_COUNT);
        out[1] = HANGUL_V + s / HANGUL_T_COUNT % HANGUL_V_COUNT;
        out[2] = HANGUL_T + t;
        return t ? 3 : 2;
    }
    const int32_t *row = c < 0xc0 ? NULL : decomposition_of(c);
    if (!row) {
        out[0] = c;
        return 1;
    }
    size_t n = decompose((uint32_t)row[1], out); /* only the first part may decompose further */
    if (row[2])
        out[n++] = (uint32_t)row[2];
    return n;
}

/* Insertion sort of combining marks by class, stable, starters fixed. */
static void order_marks(uint32_t *text, size_t n) {
    for (size_t i = 1; i < n; i++) {
        uint32_t c = text[i];
        int class = class_of(c);
        size_t j = i;
        for (; class > 0 && j > 0 && class_of(text[j - 1]) > class; j--)
            text[j] = text[j - 1];
        text[j] = c;
    }
}

/* The character made of a and b, or 0. */
static uint32_t composed(uint32_t a, uint32_t b) {
    if (a >= HANGUL_L && a < HANGUL_L + HANGUL_L_COUNT && b >= HANGUL_V && b < HANGUL_V + HANGUL_V_COUNT)
        return HANGUL_S + ((a - HANGUL_L) * HANGUL_V_COUNT + b - HANGUL_V) * HANGUL_T_COUNT;
    if (a >= HANGUL_S && a < HANGUL_S + HANGUL_S_COUNT && (a - HANGUL_S) % HANGUL_T_COUNT == 0 &&
        b > HANGUL_T && b < HANGUL_T + HANGUL_T_COUNT)
        return a + b - HANGUL_T;
    for (size_t i = 0; b >= 0x300 && i < ROWS(unicode_decompositions); i++) {
        const int32_t *row = unicode_decompositions[i];
        if (row[3] && row[1] == (int32_t)a && row[2] == (int32_t)b)
            return (uint32_t)row[0];
    }
    return 0;
}

static size_t compose(uint32_t *text, size_t n) {
    size_t out = 0, starter = SIZE_MAX;
    int last = 0; /* class of the character before, counted from the starter */
    for (size_t i = 0; i < n; i++) {
        int class = class_of(text[i]);
        bool adjacent = starter != SIZE_MAX && out == starter + 1;
        uint32_t joined = starter != SIZE_MAX && (adjacent || (last < class && last != 0))
                              ? composed(text[starter], text[i])
                              : 0;
        if (joined) {
            text[starter] = joined;
            continue;
        }
        if (class == 0)
            starter = out;
        last = class;
        text[out++] = text[i];
    }
    return out;
}

size_t mbl_unicode_nfc(const uint32_t *in, size_t n, uint32_t *out) {
    size_t m = 0, plain = 0;
    while (plain < n && in[plain] < 0x300)
        plain++;
    if (plain == n) {
        if (n > 0)
            memmove(out, in, n * sizeof *in);
        return n;
    }
    for (size_t i = 0; i < n; i++)
        m += decompose(in[i], out + m);
    order_marks(out, m);
    return compose(out, m);
}
