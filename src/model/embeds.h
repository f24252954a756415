/* What a transformer is given of a set of prompts, of which no more than what is needed next lies on the
 * device: a prompt of a large model takes megabytes. The rest is read from a cache (io/prompt_cache.h) or,
 * where there is none, from host memory. All calls are local. */
#ifndef MBL_MODEL_EMBEDS_H
#define MBL_MODEL_EMBEDS_H

#include "io/prompt_cache.h"
#include "model/pipeline.h"

typedef struct mbl_embeds mbl_embeds_t;

/* What encodes: text encoders, for a transformer that takes a context so wide, in its compute type. */
typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_text_t *text;
    size_t width;
} mbl_encoder_t;
mbl_encoder_t mbl_pipeline_encoder(mbl_pipeline_t *pipeline);

/* Of n prompts, whose texts and encoders stay the caller's; nothing is encoded yet. A set of at most `small`
 * bytes is kept on the device as a whole. Free with mbl_embeds_free. */
mbl_status_t mbl_embeds_new(const mbl_encoder_t *encoder, const char *const *texts, size_t n, size_t small,
                            mbl_embeds_t **out);
void mbl_embeds_free(mbl_embeds_t *embeds); /* NULL is fine */

/* Bytes of a prompt: context and pooled states, one behind the other, as the backend has them. */
size_t mbl_embeds_bytes(const mbl_encoder_t *encoder);

/* Where prompts are read from: host memory, [n] records, zeros at first, which this returns for the caller to
 * fill (NULL without memory; freed with the rest); or a cache with the key of each prompt [n], both the
 * caller's, which must outlive the embeds. */
unsigned char *mbl_embeds_host(mbl_embeds_t *embeds);
void mbl_embeds_read_from(mbl_embeds_t *embeds, mbl_prompt_cache_t *cache, const mbl_prompt_key_t *keys);

enum { MBL_EMBEDS_AT_ONCE = 64 }; /* prompts that are encoded together */

/* Encodes texts[which[0..n-1]] and gives each record to put(context, i, record) with i from which; ERR_*
 * of put ends it. `progress` (or NULL) hears after every few prompts how many are done. */
typedef struct {
    mbl_status_t (*put)(void *context, size_t i, const void *record);
    void (*progress)(void *context, size_t done);
    void *context;
} mbl_embeds_sink_t;
mbl_status_t mbl_embeds_encode(const mbl_encoder_t *encoder, const char *const *texts, const uint32_t *which,
                               size_t n, const mbl_embeds_sink_t *sink);

/* Makes room on the device for at least `rows` prompts at one time; for all of a small set, which is brought
 * there at once and stays, and is never read again. Not while what was fetched is in use. */
mbl_status_t mbl_embeds_room(mbl_embeds_t *embeds, size_t rows);
/* How many that makes room for, of a set of n prompts of so many bytes. */
size_t mbl_embeds_rows(size_t n, size_t bytes, size_t small, size_t rows);
/* Brings prompts index[0..n-1] to the device where they are not there yet, in the place of others: no more
 * different ones than there is room for. A record that the cache has lost is encoded again. */
mbl_status_t mbl_embeds_fetch(mbl_embeds_t *embeds, const uint32_t *index, size_t n);
/* By prompt, for mbl_conditions_gather; of those that were fetched last. */
const mbl_conditions_t *mbl_embeds_conditions(const mbl_embeds_t *embeds);

#endif
