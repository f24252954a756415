/* Prompts that are longer than what a text encoder reads. */
#ifndef MBL_MODEL_CUT_H
#define MBL_MODEL_CUT_H

#include "model/text/tokenizer.h"

enum { MBL_CUTS_SHOWN = 3, MBL_CUT_TEXT = 100 };

typedef struct {
    const char *encoder; /* "text_encoder" */
    size_t limit;        /* tokens that it reads */
    size_t count;        /* prompts with more of them; the first ones: */
    struct {
        size_t prompt, tokens; /* which, from 0; how many it has */
        char text[MBL_CUT_TEXT];
    } first[MBL_CUTS_SHOWN];
} mbl_cuts_t;

/* Looks through n prompts. */
mbl_status_t mbl_cuts_find(const mbl_tokenizer_t *tokenizer, const char *encoder, size_t limit,
                           const char *const *prompts, size_t n, mbl_cuts_t *out);

#endif
