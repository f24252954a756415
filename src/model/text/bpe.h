/* Byte-level byte-pair encoding as CLIP has it: every byte of a word is a symbol (the last one a different
 * symbol, with </w>), then the pair of lowest rank is merged, leftmost first, until none is left. */
#ifndef MBL_MODEL_BPE_H
#define MBL_MODEL_BPE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t pair; /* left << 32 | right */
    int32_t rank;  /* -1: free */
    int32_t id;    /* the token of both */
} mbl_bpe_merge_t;

typedef struct {
    int32_t byte[256], last[256]; /* tokens of a byte inside a word and at its end */
    mbl_bpe_merge_t *slot;        /* open addressing, n_slots a power of two */
    size_t n_slots, n_merges;
} mbl_bpe_t;

/* The character CLIP writes for a byte in vocab.json: UTF-8, up to 2 bytes and a 0. */
void mbl_bpe_byte_text(unsigned char byte, char out[3]);

mbl_status_t mbl_bpe_init(mbl_bpe_t *bpe, size_t merges); /* room for so many; free with mbl_bpe_clear */
void mbl_bpe_clear(mbl_bpe_t *bpe);
/* The next merge, of the next rank. A pair already there keeps its rank. */
void mbl_bpe_add(mbl_bpe_t *bpe, int32_t left, int32_t right, int32_t id);

/* Scratch for words of up to n bytes: mbl_bpe_scratch_size(n) bytes, 8-byte aligned. */
size_t mbl_bpe_scratch_size(size_t n);
/* Tokens of a word of n > 0 bytes into out (room for n); returns how many. */
size_t mbl_bpe_word(const mbl_bpe_t *bpe, const char *word, size_t n, void *scratch, int32_t *out);

#endif
