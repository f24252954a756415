/* Bytes that grow: what the codecs write requests and reasons with. A failure for want of memory sticks until
 * mbl_proto_text_clear, so that a caller looks at `failed` once, at the end. */
#ifndef MBL_PROTO_TEXT_H
#define MBL_PROTO_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *data; /* not zero-terminated unless a zero was put */
    size_t size, room;
    bool failed;
} mbl_proto_text_t;

void mbl_proto_text_clear(mbl_proto_text_t *text); /* keeps its memory */
void mbl_proto_text_free(mbl_proto_text_t *text);

/* Room for `bytes` more, whose beginning is returned and which count as put; NULL without memory. */
char *mbl_proto_put_room(mbl_proto_text_t *text, size_t bytes);
void mbl_proto_put(mbl_proto_text_t *text, const void *bytes, size_t size);
void mbl_proto_puts(mbl_proto_text_t *text, const char *string);
/* printf, up to 1,000 bytes. */
void mbl_proto_putf(mbl_proto_text_t *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `string`, which is UTF-8, as a JSON string with its quotes, by jansson. */
void mbl_proto_put_quoted(mbl_proto_text_t *text, const char *string, size_t size);
void mbl_proto_put_base64(mbl_proto_text_t *text, const void *bytes, size_t size);
void mbl_proto_put_le32(mbl_proto_text_t *text, size_t value);

/* Whether `size` bytes are UTF-8. */
bool mbl_proto_is_utf8(const char *text, size_t size);
/* Copies at most `room` - 1 bytes of `text` into out, with a zero: controls, line ends and marks that turn
 * the direction of writing become spaces, what is not UTF-8 becomes '?', and no character is cut in two. What
 * a server sends goes to terminals, logs and a web page through this. Returns the bytes written without the
 * zero. */
size_t mbl_proto_printable(const char *text, size_t size, char *out, size_t room);

#endif
