/* Escaped text and embedded files. */
#include "report/html.h"

#include "base/unicode.h"

#include <stdint.h>
#include <string.h>

static const char *entity(uint32_t c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return c < 0x20 && c != '\n' && c != '\t' ? " " : NULL;
    }
}

void mbl_html_text(FILE *out, const char *text) {
    for (size_t left = strlen(text); left > 0;) {
        uint32_t c;
        char bytes[4];
        size_t used = mbl_utf8_decode(text, left, &c);
        const char *name = entity(c);
        if (name)
            fputs(name, out);
        else
            fwrite(bytes, 1, mbl_utf8_encode(c, bytes), out);
        text += used;
        left -= used;
    }
}

void mbl_html_data(FILE *out, const char *type, const void *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *at = bytes;
    fprintf(out, "data:%s;base64,", type);
    for (size_t i = 0; i < size; i += 3) {
        size_t n = size - i < 3 ? size - i : 3;
        uint32_t word =
            (uint32_t)at[i] << 16 | (n > 1 ? (uint32_t)at[i + 1] << 8 : 0) | (n > 2 ? at[i + 2] : 0u);
        for (size_t d = 0; d < 4; d++)
            fputc(d <= n ? digits[word >> (18 - 6 * d) & 63] : '=', out);
    }
}
