/* CLIP's byte-level BPE tokenizer (vocab.json + merges.txt), as transformers' CLIPTokenizer without ftfy:
 * lower case, whitespace collapsed, words split by CLIP's pattern, </w> at word ends, <|startoftext|> and
 * <|endoftext|> around. */
#ifndef MBL_MODEL_TOKENIZER_H
#define MBL_MODEL_TOKENIZER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mbl_tokenizer mbl_tokenizer_t;

/* Reads vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json of `folder`
 * (model_max_length, pad token). */
mbl_status_t mbl_tokenizer_open(const char *folder, mbl_tokenizer_t **out);
void mbl_tokenizer_close(mbl_tokenizer_t *tokenizer);
size_t mbl_tokenizer_max_length(const mbl_tokenizer_t *tokenizer);
size_t mbl_tokenizer_vocab_size(const mbl_tokenizer_t *tokenizer); /* 1 + the highest id */

/* length >= 2. ids [length]: start, tokens (cut to fit), end, then the pad token. *end: position of the
 * (first) end token. Any UTF-8 text, also broken. */
mbl_status_t mbl_tokenizer_encode(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                  int32_t *ids, size_t *end);

/* How many tokens the whole text has, its first and last among them. Into cut [size] goes what a `length` of
 * them leaves out: the text from the first word on that does not fit whole, as the tokenizer sees it (lower
 * case, normal form C), as far as there is room; "" where all fits. */
mbl_status_t mbl_tokenizer_measure(const mbl_tokenizer_t *tokenizer, const char *text, size_t length,
                                   size_t *tokens, char *cut, size_t size);

/* Writes a fresh tokenizer folder (vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json):
 * all single bytes, every word as one token, model_max_length = tokens. Words are lower-cased ASCII without
 * spaces; a word that CLIP's pattern would split ("7a") is ERR_ARG. Loads in transformers' CLIPTokenizer. */
mbl_status_t mbl_tokenizer_create(const char *folder, const char *const *words, size_t n_words,
                                  size_t tokens);

#endif
