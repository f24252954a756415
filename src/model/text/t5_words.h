/* What the files of T5's tokenizer share. */
#ifndef MBL_MODEL_T5_WORDS_H
#define MBL_MODEL_T5_WORDS_H

#include "model/text/charsmap.h"
#include "model/text/unigram.h"

/* What tokenizer.json asks for before the model, in its order. */
typedef struct {
    enum { MBL_T5_CHARSMAP, MBL_T5_STRIP, MBL_T5_JOIN_SPACES } what;
    bool left, right; /* strip: which sides */
} mbl_t5_step_t;
enum { MBL_T5_STEPS = 8 };

typedef struct {
    mbl_unigram_t unigram;
    mbl_charsmap_t map;
    mbl_t5_step_t step[MBL_T5_STEPS];
    size_t n_steps;
    bool split_space; /* words end at any white space, which is dropped, before spaces become U+2581 */
} mbl_t5_model_t;

#define MBL_T5_SPACE "\xe2\x96\x81" /* U+2581, a space as pieces have it */

/* mbl_tokenizer_kind_t's; the model is a mbl_t5_model_t. */
mbl_status_t mbl_t5_normalize(const void *model, const char *text, size_t size, mbl_bytes_t *out);
mbl_status_t mbl_t5_words(const void *model, const char *text, size_t size, mbl_encoding_t *e);

#endif
