/* Prompts' conditions: encoding, and the window of them that is on the device. */
#include "model/embeds.h"
#include "base/log.h"
#include "base/mem.h"

#include <string.h>

struct mbl_embeds {
    mbl_encoder_t encoder;
    mbl_ops_t *ops;
    const char *const *texts;
    size_t n, rows, bytes, small;
    unsigned char *host; /* [n, bytes] or NULL */
    mbl_prompt_cache_t *cache;
    const mbl_prompt_key_t *keys;
    mbl_conditions_t window; /* [rows] on the device */
    mbl_conditions_t shown;  /* the same, addressed by prompt */
    uint32_t *row;           /* [n]: of the window; MBL_CONDITIONS_NONE: not there */
    uint32_t *owner;         /* [rows]: the prompt there */
    uint64_t *used;          /* [rows]: the fetch that wanted it last */
    uint64_t fetch;
    unsigned char *record; /* one, on its way */
};

/* ---- records ---- */

static size_t context_bytes(const mbl_conditions_t *c) {
    return c->context.dim[1] * c->context.dim[2] * mbl_dtype_size(c->context.dtype);
}

static size_t pooled_bytes(const mbl_conditions_t *c) {
    return c->pooled.dim[1] * mbl_dtype_size(c->pooled.dtype);
}

mbl_encoder_t mbl_pipeline_encoder(mbl_pipeline_t *pipeline) {
    const mbl_dit_t *model = mbl_pipeline_model(pipeline);
    return (mbl_encoder_t){mbl_pipeline_ops(pipeline), mbl_dit_dtype(model), mbl_pipeline_text(pipeline),
                           mbl_dit_sizes(model)->context_width};
}

size_t mbl_embeds_bytes(const mbl_encoder_t *encoder) {
    size_t numbers = mbl_text_tokens(encoder->text) * encoder->width + mbl_text_pooled(encoder->text);
    return numbers * mbl_dtype_size(encoder->dtype);
}

static mbl_status_t make_room(const mbl_encoder_t *encoder, size_t n, mbl_conditions_t *out) {
    return mbl_conditions_sized(encoder->ops, encoder->dtype, n, mbl_text_tokens(encoder->text),
                                encoder->width, mbl_text_pooled(encoder->text), out);
}

mbl_status_t mbl_embeds_new(const mbl_encoder_t *encoder, const char *const *texts, size_t n, size_t small,
                            mbl_embeds_t **out) {
    mbl_status_t status;
    mbl_embeds_t *e;
    MBL_REQUIRE(encoder->text && n > 0 && n < MBL_CONDITIONS_NONE, "conditions of %zu prompts", n);
    MBL_ALLOC(e, 1);
    e->encoder = *encoder;
    e->ops = encoder->ops;
    e->texts = texts;
    e->n = n;
    e->small = small;
    e->bytes = mbl_embeds_bytes(encoder);
    MBL_ALLOC_GOTO(e->row, n, failed);
    MBL_ALLOC_GOTO(e->record, e->bytes, failed);
    for (size_t i = 0; i < n; i++)
        e->row[i] = MBL_CONDITIONS_NONE;
    *out = e;
    return MBL_OK;
failed:
    mbl_embeds_free(e);
    return status;
}

static void free_window(mbl_embeds_t *e) {
    mbl_conditions_free(e->ops, &e->window);
    mbl_free(e->owner);
    mbl_free(e->used);
    e->owner = NULL;
    e->used = NULL;
    e->rows = 0;
    for (size_t i = 0; e->row && i < e->n; i++)
        e->row[i] = MBL_CONDITIONS_NONE;
}

void mbl_embeds_free(mbl_embeds_t *e) {
    if (!e)
        return;
    free_window(e);
    mbl_free(e->row);
    mbl_free(e->record);
    mbl_free(e->host);
    mbl_free(e);
}

unsigned char *mbl_embeds_host(mbl_embeds_t *e) {
    if (!e->host)
        e->host = mbl_calloc(e->n, e->bytes);
    return e->host;
}

void mbl_embeds_read_from(mbl_embeds_t *e, mbl_prompt_cache_t *cache, const mbl_prompt_key_t *keys) {
    e->cache = cache;
    e->keys = keys;
}

/* ---- encoding ---- */

/* What a batch of prompts becomes on its way to records. */
typedef struct {
    mbl_conditions_t made;
    unsigned char *context, *pooled, *record;
    const char *texts[MBL_EMBEDS_AT_ONCE];
} batch_t;

static mbl_status_t encode_batch(const mbl_encoder_t *encoder, batch_t *b, const char *const *texts,
                                 const uint32_t *which, size_t n, const mbl_embeds_sink_t *sink) {
    mbl_ops_t *ops = encoder->ops;
    const mbl_conditions_t some = mbl_conditions_rows(&b->made, 0, n);
    size_t wide = context_bytes(&some), narrow = pooled_bytes(&some);
    for (size_t i = 0; i < n; i++)
        b->texts[i] = texts[which[i]];
    MBL_TRY(mbl_text_encode(encoder->text, b->texts, n, &some.context, &some.pooled));
    MBL_TRY(mbl_tensor_download(ops, &some.context, b->context));
    MBL_TRY(mbl_tensor_download(ops, &some.pooled, b->pooled));
    for (size_t i = 0; i < n; i++) {
        memcpy(b->record, b->context + i * wide, wide);
        memcpy(b->record + wide, b->pooled + i * narrow, narrow);
        MBL_TRY(sink->put(sink->context, which[i], b->record));
    }
    return MBL_OK;
}

mbl_status_t mbl_embeds_encode(const mbl_encoder_t *encoder, const char *const *texts, const uint32_t *which,
                               size_t n, const mbl_embeds_sink_t *sink) {
    mbl_status_t status = MBL_OK;
    size_t at_once = n < MBL_EMBEDS_AT_ONCE ? n : MBL_EMBEDS_AT_ONCE, some;
    batch_t b = {.context = NULL};
    if (n == 0)
        return MBL_OK;
    MBL_TRY_GOTO(make_room(encoder, at_once, &b.made), done);
    MBL_ALLOC_GOTO(b.context, at_once * context_bytes(&b.made), done);
    MBL_ALLOC_GOTO(b.pooled, at_once * pooled_bytes(&b.made), done);
    MBL_ALLOC_GOTO(b.record, mbl_embeds_bytes(encoder), done);
    for (size_t first = 0; first < n; first += some) {
        some = n - first < at_once ? n - first : at_once;
        MBL_TRY_GOTO(encode_batch(encoder, &b, texts, which + first, some, sink), done);
        if (sink->progress)
            sink->progress(sink->context, first + some);
    }
done:
    mbl_conditions_free(encoder->ops, &b.made);
    mbl_free(b.context);
    mbl_free(b.pooled);
    mbl_free(b.record);
    return status;
}

/* ---- on the device ---- */

static mbl_status_t keep_record(void *context, size_t i, const void *record) {
    mbl_embeds_t *e = context;
    (void)i;
    memcpy(e->record, record, e->bytes);
    return MBL_OK;
}

/* What the cache has lost; and into it, for the next run, where that can be. */
static mbl_status_t encode_again(mbl_embeds_t *e, uint32_t prompt) {
    const mbl_embeds_sink_t sink = {keep_record, NULL, e};
    mbl_status_t status = mbl_embeds_encode(&e->encoder, e->texts, &prompt, 1, &sink);
    mbl_text_release(e->encoder.text);
    MBL_TRY(status);
    mbl_fail_quiet(1);
    status = mbl_prompt_cache_put(e->cache, &e->keys[prompt], e->record);
    if (status == MBL_OK)
        status = mbl_prompt_cache_flush(e->cache);
    mbl_fail_quiet(0);
    if (status != MBL_OK)
        MBL_WARN("the prompt that was encoded again could not be put into the cache: %s", mbl_fail_message());
    return MBL_OK;
}

static mbl_status_t upload(mbl_embeds_t *e, uint32_t prompt, uint32_t row) {
    const unsigned char *record = e->record;
    mbl_conditions_t to = mbl_conditions_rows(&e->window, row, 1);
    if (e->host)
        record = e->host + prompt * e->bytes;
    else if (!e->cache)
        return MBL_FAIL(MBL_ERR_INTERNAL, "prompt %u was never encoded", prompt);
    else if (!mbl_prompt_cache_read(e->cache, &e->keys[prompt], e->record))
        MBL_TRY(encode_again(e, prompt));
    MBL_TRY(mbl_tensor_upload(e->ops, &to.context, record));
    MBL_TRY(mbl_tensor_upload(e->ops, &to.pooled, record + context_bytes(&to)));
    if (e->owner[row] != MBL_CONDITIONS_NONE)
        e->row[e->owner[row]] = MBL_CONDITIONS_NONE;
    e->owner[row] = prompt;
    e->row[prompt] = row;
    return MBL_OK;
}

mbl_status_t mbl_embeds_fetch(mbl_embeds_t *e, const uint32_t *index, size_t n) {
    uint32_t next = 0;
    e->fetch++;
    for (size_t i = 0; i < n; i++) {
        MBL_REQUIRE(index[i] < e->n, "prompt %u of %zu", index[i], e->n);
        if (e->row[index[i]] != MBL_CONDITIONS_NONE)
            e->used[e->row[index[i]]] = e->fetch;
    }
    for (size_t i = 0; i < n; i++) {
        if (e->row[index[i]] != MBL_CONDITIONS_NONE)
            continue;
        while (next < e->rows && e->used[next] == e->fetch)
            next++;
        MBL_REQUIRE(next < e->rows, "more prompts at once than the %zu there is room for", e->rows);
        MBL_TRY(upload(e, index[i], next));
        e->used[next] = e->fetch;
    }
    return MBL_OK;
}

static mbl_status_t fetch_all(mbl_embeds_t *e) {
    for (uint32_t i = 0; i < e->n; i++)
        MBL_TRY(upload(e, i, i));
    mbl_free(e->host); /* never read again */
    e->host = NULL;
    return MBL_OK;
}

static bool is_small(size_t n, size_t bytes, size_t small) {
    return n <= small / bytes;
}

size_t mbl_embeds_rows(size_t n, size_t bytes, size_t small, size_t rows) {
    return is_small(n, bytes, small) || rows >= n ? n : rows;
}

mbl_status_t mbl_embeds_room(mbl_embeds_t *e, size_t rows) {
    mbl_status_t status;
    bool small = is_small(e->n, e->bytes, e->small);
    rows = mbl_embeds_rows(e->n, e->bytes, e->small, rows);
    if (rows <= e->rows)
        return MBL_OK;
    free_window(e);
    mbl_ops_part(e->encoder.ops, "an epoch's encoded prompts",
                 "a smaller prompts.groups, eval.prompts or prompts.device_bytes");
    MBL_TRY_GOTO(make_room(&e->encoder, rows, &e->window), failed);
    mbl_ops_part(e->encoder.ops, NULL, NULL);
    MBL_ALLOC_GOTO(e->owner, rows, failed);
    MBL_ALLOC_GOTO(e->used, rows, failed);
    for (size_t i = 0; i < rows; i++)
        e->owner[i] = MBL_CONDITIONS_NONE;
    e->rows = rows;
    e->shown = e->window;
    e->shown.n = e->n;
    e->shown.row = e->row;
    return small ? fetch_all(e) : MBL_OK;
failed:
    free_window(e);
    return status;
}

const mbl_conditions_t *mbl_embeds_conditions(const mbl_embeds_t *e) {
    return &e->shown;
}
