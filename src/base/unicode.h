/* As much Unicode as tokenizers need: UTF-8, letters and numbers, lower case of single characters, normal
 * form C. */
#ifndef MBL_BASE_UNICODE_H
#define MBL_BASE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The next character of `text` (size > 0 bytes left) and the bytes it took. What is not UTF-8 gives U+FFFD,
 * once for every longest piece that could have begun a character (as most decoders do). */
size_t mbl_utf8_decode(const char *text, size_t size, uint32_t *out);
/* Whether all of it is UTF-8. */
bool mbl_utf8_valid(const char *text, size_t size);
/* Writes 1-4 bytes, returns how many. */
size_t mbl_utf8_encode(uint32_t c, char out[4]);

bool mbl_unicode_letter(uint32_t c); /* general category L */
bool mbl_unicode_number(uint32_t c); /* N */
bool mbl_unicode_space(uint32_t c);  /* White_Space */
uint32_t mbl_unicode_lower(uint32_t c);
size_t mbl_unicode_width(uint32_t c); /* columns of a terminal that it takes */

/* Whether a character as a reader sees it (an extended grapheme cluster) ends between these two, which follow
 * each other; *state is 0 before the first pair of a text and kept from pair to pair. */
bool mbl_unicode_cluster_ends(uint32_t before, uint32_t next, int32_t *state);

/* Normal form C of n characters into out, which has room for 4 n; returns how many there are. */
enum { MBL_NFC_GROWTH = 4 };
size_t mbl_unicode_nfc(const uint32_t *in, size_t n, uint32_t *out);

#endif
