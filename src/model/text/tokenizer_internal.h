/* What the tokenizers share. A tokenizer is a kind (CLIP's byte pairs, T5's unigrams) with its model, and the
 * added tokens, which are taken whole where a prompt quotes them. */
#ifndef MBL_MODEL_TOKENIZER_INTERNAL_H
#define MBL_MODEL_TOKENIZER_INTERNAL_H

#include "base/json.h"
#include "model/text/tokenizer.h"

/* Bytes that grow. Free `data` with mbl_free. */
typedef struct {
    char *data;
    size_t n, room;
} mbl_bytes_t;
mbl_status_t mbl_bytes_put(mbl_bytes_t *bytes, const char *data, size_t n);

/* The tokens of one prompt as they are found. */
typedef struct {
    int32_t *ids;    /* room for `limit` tokens; NULL: they are counted only */
    size_t n, limit; /* found; how many are asked for */
    char *cut;       /* while counting: the text from the first word that goes beyond `fits` tokens */
    size_t fits, cut_size, cut_used;
} mbl_encoding_t;
void mbl_encoding_put(mbl_encoding_t *e, int32_t id);
/* While counting: notes one character of what does not fit, as long as there is room. */
void mbl_encoding_note(mbl_encoding_t *e, const char *bytes, size_t n);

typedef struct {
    const char *name;
    /* A part of a prompt between added tokens, as the model sees it, appended to out. */
    mbl_status_t (*normalize)(const void *model, const char *text, size_t size, mbl_bytes_t *out);
    /* Normalized text to tokens. */
    mbl_status_t (*words)(const void *model, const char *text, size_t size, mbl_encoding_t *e);
    void (*close)(void *model);
} mbl_tokenizer_kind_t;

/* A token that is taken whole where a prompt quotes it: in the text as given, or in the normalized one.
 * lstrip, rstrip: with the white space before, behind it. */
typedef struct {
    char *text;
    size_t size;
    int32_t id;
    bool normalized, lstrip, rstrip;
} mbl_added_token_t;

typedef struct {
    mbl_added_token_t *token;
    size_t n, room;
    bool begins[2][256]; /* first bytes; of the normalized ones in the second row */
} mbl_added_t;

struct mbl_tokenizer {
    const mbl_tokenizer_kind_t *kind;
    void *model;
    mbl_added_t added;
    size_t max_length, vocab_size;
    int32_t start, end, pad; /* start -1: prompts begin with their first word */
};

/* ---- added.c ---- */

/* A token once more keeps its first flags. */
mbl_status_t mbl_added_add(mbl_added_t *added, const char *text, int32_t id, bool normalized, bool lstrip,
                           bool rstrip);
/* The same of an object {content, normalized, lstrip, rstrip, single_word} of `path`. */
mbl_status_t mbl_added_add_json(mbl_added_t *added, const char *path, const json_t *token, int32_t id);
void mbl_added_clear(mbl_added_t *added);
/* The first token of that kind quoted in text from `from` on, the longest of those at one place: its id, and
 * where it begins and ends with the white space it takes (not before `from`). False: there is none. */
bool mbl_added_find(const mbl_added_t *added, bool normalized, const char *text, size_t size, size_t from,
                    int32_t *id, size_t *begin, size_t *end);

/* ---- tokenizer_read.c ---- */

/* A number of a token that is one; `path` is for the message. */
mbl_status_t mbl_token_id(const char *path, const char *token, const json_t *value, int32_t *out);

/* ---- clip_words.c, t5_words.c: fill kind, model, added, vocab_size, start, end, pad ---- */

/* config, map: tokenizer_config.json and special_tokens_map.json, NULL where there is none; whole:
 * tokenizer.json, read where vocab.json is missing, else NULL. */
mbl_status_t mbl_clip_words_open(const char *folder, const json_t *config, const json_t *map,
                                 const json_t *whole, mbl_tokenizer_t *t);
mbl_status_t mbl_t5_words_open(const char *folder, const json_t *config, const json_t *whole,
                               mbl_tokenizer_t *t);

#endif
