/* Prompts to what a transformer is given of them, by the text encoders of a folder, as
 * StableDiffusion3Pipeline puts them together: the states of two CLIP encoders side by side, filled up with
 * zeros to the width of the context; behind them, as more tokens, T5's, or zeros where there is no T5; and
 * the pooled states of the CLIP encoders side by side. A folder with one CLIP encoder and no other has that
 * one's tokens alone. */
#ifndef MBL_MODEL_PROMPT_H
#define MBL_MODEL_PROMPT_H

#include "base/sha256.h"
#include "model/text/cut.h"
#include "ops/ops.h"

typedef struct mbl_text mbl_text_t;

typedef struct {
    size_t max_tokens; /* that T5 reads, 0: MBL_TEXT_TOKENS; they count without T5 too */
    bool low_memory;   /* one layer of an encoder on the device at one time; they are read for every call of
                          encode */
    bool without_t5;   /* zeros for T5's tokens where the folder has it */
} mbl_text_options_t;
enum { MBL_TEXT_TOKENS = 256, MBL_TEXT_TOKENS_MOST = 512 };

/* model_index.json of `folder` says which encoders there are. Errors name the folder's part that does not fit
 * the others: ERR_CONFIG, or those of opening an encoder or a tokenizer. options NULL: all as above says.
 * Close with mbl_text_close. */
mbl_status_t mbl_text_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                           const mbl_text_options_t *options, mbl_text_t **out);
/* The same from the folder's small files alone: encoders without weights and no tokenizers, so that prompts
 * are encoded as if of any tokens. For counting (ops/cost_model.h); nothing but mbl_text_encode, its sizes
 * and mbl_text_close works on it. */
mbl_status_t mbl_text_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                            const mbl_text_options_t *options, mbl_text_t **out);
/* Takes the encoders off the device until mbl_text_encode needs them again; tokenizers and sizes stay. */
void mbl_text_release(mbl_text_t *text);
void mbl_text_close(mbl_text_t *text);

/* Tokens of the context that a folder's text encoders make, from its small files alone. */
mbl_status_t mbl_text_count_tokens(const char *folder, size_t max_tokens, size_t *out);
size_t mbl_text_tokens(const mbl_text_t *text); /* of the context */
size_t mbl_text_width(const mbl_text_t *text);  /* of the states: the context's own width is at least that */
size_t mbl_text_pooled(const mbl_text_t *text);
bool mbl_text_has_t5(const mbl_text_t *text); /* then the context is exactly that wide */

/* context [n,tokens,W >= width], pooled [n,pooled] ct, both written whole. ERR_ARG for a prompt that is not
 * UTF-8.
 */
mbl_status_t mbl_text_encode(mbl_text_t *text, const char *const *prompts, size_t n,
                             const mbl_tensor_t *context, const mbl_tensor_t *pooled);

/* What a cache of encoded prompts goes by: bytes of the encoders' weights; what all conditions depend on, a
 * digest of encoders, lengths, compute type and backend (which reads all weights; while the encoders are
 * open); and what those of one prompt depend on besides, a digest of its tokens. */
size_t mbl_text_bytes(const mbl_text_t *text);
mbl_status_t mbl_text_digest(const mbl_text_t *text, char out[MBL_SHA256_HEX]);
mbl_status_t mbl_text_key(const mbl_text_t *text, const char *prompt, unsigned char out[MBL_SHA256_BYTES]);

/* Of which prompts text encoder `encoder` (0, ...) reads only the beginning; out->encoder is NULL past the
 * last encoder. */
mbl_status_t mbl_text_cuts(const mbl_text_t *text, size_t encoder, const char *const *prompts, size_t n,
                           mbl_cuts_t *out);

#endif
