/* Tokenizers of text encoders, equal to transformers' in every id.
 *   CLIP: byte-level byte pairs (vocab.json + merges.txt, or tokenizer.json alone), as CLIPTokenizer without
 *         ftfy: lower case, white space collapsed, words split by CLIP's pattern, </w> at word ends,
 *         <|startoftext|> and <|endoftext|> around.
 *   T5:   unigrams (tokenizer.json), as the file says: sentencepiece's precompiled normalization, spaces as
 *         U+2581, </s> behind. */
#ifndef MBL_MODEL_TOKENIZER_H
#define MBL_MODEL_TOKENIZER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mbl_tokenizer mbl_tokenizer_t;

/* Reads `folder`: the files above, tokenizer_config.json (model_max_length, special tokens) and
 * special_tokens_map.json. */
mbl_status_t mbl_tokenizer_open(const char *folder, mbl_tokenizer_t **out);
void mbl_tokenizer_close(mbl_tokenizer_t *tokenizer);
size_t mbl_tokenizer_max_length(const mbl_tokenizer_t *tokenizer);
size_t mbl_tokenizer_vocab_size(const mbl_tokenizer_t *tokenizer); /* 1 + the highest id */

const char *mbl_tokenizer_kind(const mbl_tokenizer_t *tokenizer); /* "CLIP", "T5" */

/* length >= 2. ids [length]: start (CLIP), tokens (cut to fit), end, then the pad token. *end: position of
 * the (first) end token. ERR_ARG for text that is not UTF-8. */
mbl_status_t mbl_tokenizer_encode(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                  int32_t *ids, size_t *end);

/* How many tokens the whole text has, its first and last among them. Into cut [size] goes what a `length` of
 * them leaves out: the text from the first word on that does not fit whole, as the tokenizer sees it (CLIP's:
 * in lower case), as far as there is room; "" where all fits. */
mbl_status_t mbl_tokenizer_measure(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                   size_t *tokens, char *cut, size_t size);

/* Writes a fresh tokenizer folder (vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json):
 * all single bytes, every word as one token, model_max_length = tokens. Words are lower-cased ASCII without
 * spaces; a word that CLIP's pattern would split ("7a") is ERR_ARG. Loads in transformers' CLIPTokenizer. */
mbl_status_t mbl_tokenizer_create(const char *folder, const char *const *words, size_t n_words,
                                  size_t tokens);

#endif
