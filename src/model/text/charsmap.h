/* sentencepiece's precompiled normalization (nmt_nfkc and others): a double-array trie of what is replaced,
 * and the texts it is replaced by. */
#ifndef MBL_MODEL_CHARSMAP_H
#define MBL_MODEL_CHARSMAP_H

#include "model/text/tokenizer_internal.h"

typedef struct {
    uint32_t *unit; /* of the trie */
    char *text;     /* replacements, each with a 0 behind it */
    size_t n_units, n_text;
} mbl_charsmap_t;

/* From base64, as tokenizer.json has it: bytes of the trie (u32), the trie, the texts. `path` is for the
 * message. Free with mbl_charsmap_clear. */
mbl_status_t mbl_charsmap_read(mbl_charsmap_t *map, const char *path, const char *base64);
void mbl_charsmap_clear(mbl_charsmap_t *map);

/* The normalized text appended to out. A grapheme cluster of up to 5 bytes is replaced whole, by what its
 * shortest known beginning stands for, and longer ones character by character: this is what the library
 * `tokenizers` does, and sentencepiece itself does not. */
mbl_status_t mbl_charsmap_apply(const mbl_charsmap_t *map, const char *text, size_t size, mbl_bytes_t *out);

#endif
