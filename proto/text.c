/* Bytes that grow, and text made fit to be shown. */
#include "proto/text.h"
#include "base/mem.h"
#include "base/unicode.h"

#include <jansson.h>
#include <nettle/base64.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mbl_proto_text_clear(mbl_proto_text_t *text) {
    text->size = 0;
    text->failed = false;
}

void mbl_proto_text_free(mbl_proto_text_t *text) {
    mbl_free(text->data);
    *text = (mbl_proto_text_t){0};
}

char *mbl_proto_put_room(mbl_proto_text_t *text, size_t bytes) {
    size_t need;
    if (text->failed || !mbl_add(text->size, bytes, &need)) {
        text->failed = true;
        return NULL;
    }
    if (need > text->room) {
        size_t room = text->room > need / 2 ? text->room * 2 : need;
        room = room < 256 ? 256 : room;
        char *data = mbl_realloc(text->data, text->room, room, 1);
        if (!data) {
            text->failed = true;
            return NULL;
        }
        text->data = data;
        text->room = room;
    }
    char *at = text->data + text->size;
    text->size = need;
    return at;
}

void mbl_proto_put(mbl_proto_text_t *text, const void *bytes, size_t size) {
    char *at = mbl_proto_put_room(text, size);
    if (at && size)
        memcpy(at, bytes, size);
}

void mbl_proto_puts(mbl_proto_text_t *text, const char *string) {
    mbl_proto_put(text, string, strlen(string));
}

void mbl_proto_putf(mbl_proto_text_t *text, const char *format, ...) {
    char line[1000];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)n >= sizeof line)
        text->failed = true;
    else
        mbl_proto_put(text, line, (size_t)n);
}

static int put_some(const char *bytes, size_t size, void *text) {
    mbl_proto_put(text, bytes, size);
    return ((mbl_proto_text_t *)text)->failed ? -1 : 0;
}

void mbl_proto_put_quoted(mbl_proto_text_t *text, const char *string, size_t size) {
    json_t *value = json_stringn(string, size);
    if (!value || json_dump_callback(value, put_some, text, JSON_ENCODE_ANY) != 0)
        text->failed = true;
    json_decref(value);
}

void mbl_proto_put_base64(mbl_proto_text_t *text, const void *bytes, size_t size) {
    if (size > SIZE_MAX / 2) { /* so that its length in base64 is a size_t */
        text->failed = true;
        return;
    }
    char *at = mbl_proto_put_room(text, BASE64_ENCODE_RAW_LENGTH(size));
    if (at && size)
        base64_encode_raw(at, size, bytes);
}

void mbl_proto_put_le32(mbl_proto_text_t *text, size_t value) {
    unsigned char bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(value >> 8 * i & 0xff);
    mbl_proto_put(text, bytes, sizeof bytes);
}

bool mbl_proto_is_utf8(const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t took = mbl_utf8_decode(text + at, size - at, &c);
        /* U+FFFD itself takes three bytes, EF BF BD; any other that gives it is broken. */
        if (c == 0xfffd && !(took == 3 && memcmp(text + at, "\xef\xbf\xbd", 3) == 0))
            return false;
        at += took;
    }
    return true;
}

/* Controls of C0 and C1, separators of lines and paragraphs, marks and overrides of direction, invisible
 * operators. */
static bool is_unfit(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xe0000 && c <= 0xe007f);
}

size_t mbl_proto_printable(const char *text, size_t size, char *out, size_t room) {
    size_t n = 0;
    for (size_t at = 0; at < size && n + 1 < room;) {
        uint32_t c;
        size_t took = mbl_utf8_decode(text + at, size - at, &c);
        bool broken = c == 0xfffd && !(took == 3 && memcmp(text + at, "\xef\xbf\xbd", 3) == 0);
        if (broken || is_unfit(c))
            out[n++] = broken ? '?' : ' ';
        else if (n + took < room) {
            memcpy(out + n, text + at, took);
            n += took;
        } else
            break;
        at += took;
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    if (room)
        out[n] = 0;
    return n;
}
