/* What the files of prompt.h share. */
#ifndef MBL_MODEL_PROMPT_INTERNAL_H
#define MBL_MODEL_PROMPT_INTERNAL_H

#include "model/text/clip.h"
#include "model/text/prompt.h"
#include "model/text/t5.h"

enum { MBL_TEXT_CLIPS = 2 };

/* Names of the parts in a folder; the last is T5's. */
extern const char *const mbl_text_encoder_names[MBL_TEXT_CLIPS + 1];

struct mbl_text {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    char *folder;
    mbl_text_options_t options;
    bool has_t5, blank; /* blank: encoders without weights, no tokenizers */
    mbl_clip_t *clip[MBL_TEXT_CLIPS];
    mbl_t5_t *t5;
    mbl_tokenizer_t *tokenizer[MBL_TEXT_CLIPS + 1];
    size_t n_clips;
    size_t clip_tokens, t5_tokens; /* of the context; t5_tokens 0: none, of a folder with one encoder */
    size_t clip_width, pooled, t5_width;
};

#endif
