/* What the files of CLIP's tokenizer share. */
#ifndef MBL_MODEL_CLIP_WORDS_H
#define MBL_MODEL_CLIP_WORDS_H

#include "model/text/bpe.h"
#include "model/text/tokenizer_internal.h"

/* mbl_tokenizer_kind_t's; the model is a mbl_bpe_t. */
mbl_status_t mbl_clip_normalize(const void *model, const char *text, size_t size, mbl_bytes_t *out);
mbl_status_t mbl_clip_words(const void *model, const char *text, size_t size, mbl_encoding_t *e);

#endif
