/* Prompt sets: what a run trains and is evaluated on. One prompt is a sentence and, for scorers, metadata in
 * JSON. */
#ifndef MBL_DATA_PROMPTS_H
#define MBL_DATA_PROMPTS_H

#include "base/sha256.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *text;     /* the sentence, UTF-8 */
    char *metadata; /* a JSON object, or NULL */
} mbl_prompt_t;

/* Where some of a set come from. */
typedef struct {
    char *name;
    double weight; /* of its share of an epoch's prompts, beside the others' */
    size_t count;
} mbl_prompt_source_t;
enum { MBL_PROMPT_SOURCES = 32 };

typedef struct {
    mbl_prompt_t *items; /* [count], distinct sentences, of each source */
    size_t count;
    mbl_prompt_source_t *sources; /* [n_sources]; none: they come from one place */
    size_t n_sources;
    uint32_t *source; /* [count]: of each prompt; NULL without sources */
} mbl_prompts_t;

/* `source` "signs": `count` sentences of the signs world (0: all of the split), drawn with (seed, split)
 * where split 0 is train and 1 is test (the two never share a sentence, see mbl_signs_held_out); of every
 * four, two are texts, one a count and one a horizon, as long as there are some left; path ignored;
 * ERR_CONFIG where there are fewer. `source` "file": one prompt a line from `path`, a file or a pipe (.txt
 * plain, .jsonl objects with "prompt" and anything else, which becomes the metadata), without the white space
 * around it; blank lines and repeated prompts are passed over; all of them, or with a `count` the first ones.
 * Errors name file, line and what is expected: ERR_CONFIG, ERR_IO, ERR_FORMAT. Free with mbl_prompts_free. */
mbl_status_t mbl_prompts_load(const char *source, const char *path, uint64_t seed, int split, size_t count,
                              mbl_prompts_t *out);
void mbl_prompts_free(mbl_prompts_t *prompts);
/* Frees all but the first `most`. */
void mbl_prompts_cut(mbl_prompts_t *prompts, size_t most);
/* Keeps the prompts of one split (0 train, 1 test), where `share` of them, in (0, 1), are test prompts: a
 * prompt is one or the other by its text alone, so that no text of any file, set or run is both. Not for a
 * set with sources. */
void mbl_prompts_split(mbl_prompts_t *prompts, double share, int split);
/* Adds a source of that name to a set of such: behind the others' prompts. Takes `more` over, also on
 * failure.
 */
mbl_status_t mbl_prompts_add(mbl_prompts_t *prompts, mbl_prompts_t *more, const char *name, double weight);
/* Spreads each source's prompts, in their order, over the whole set, so that its beginning has all of them.
 */
mbl_status_t mbl_prompts_mix(mbl_prompts_t *prompts);
/* Of all texts and metadata in their order, and of the sources' names, weights and prompts: two sets of one
 * digest are the same. */
void mbl_prompts_digest(const mbl_prompts_t *prompts, char out[MBL_SHA256_HEX]);

#endif
