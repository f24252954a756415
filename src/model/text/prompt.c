/* The text encoders of a folder together. */
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/text/prompt_internal.h"

#include <string.h>

enum { CLIPS = MBL_TEXT_CLIPS, PROMPTS_AT_ONCE = 64 };

const char *const mbl_text_encoder_names[] = {"text_encoder", "text_encoder_2", "text_encoder_3"};
static const char *const tokenizer_names[] = {"tokenizer", "tokenizer_2", "tokenizer_3"};

/* ---- opening ---- */

static mbl_status_t open_tokenizer(mbl_text_t *text, const char *folder, size_t i, const char *kind) {
    char *path = mbl_format("%s/%s", folder, tokenizer_names[i]);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", folder);
    mbl_status_t status = mbl_tokenizer_open(path, &text->tokenizer[i]);
    mbl_free(path);
    MBL_TRY(status);
    if (strcmp(mbl_tokenizer_kind(text->tokenizer[i]), kind) != 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s/ is a tokenizer of %s; expected one of %s", folder,
                        tokenizer_names[i], mbl_tokenizer_kind(text->tokenizer[i]), kind);
    return MBL_OK;
}

static mbl_status_t check_vocabulary(const mbl_text_t *text, const char *folder, size_t i, size_t known) {
    size_t vocab = text->blank ? 0 : mbl_tokenizer_vocab_size(text->tokenizer[i]);
    if (vocab > known)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s/ has %zu tokens, %s/ knows %zu; expected both of one model",
                        folder, tokenizer_names[i], vocab, mbl_text_encoder_names[i], known);
    return MBL_OK;
}

/* All CLIP encoders read as many tokens as the first one's tokenizer has. */
static mbl_status_t check_clip(mbl_text_t *text, size_t i) {
    const mbl_clip_config_t *config = mbl_clip_config(text->clip[i]);
    MBL_TRY(check_vocabulary(text, text->folder, i, config->vocab_size));
    if (text->clip_tokens > config->max_position_embeddings)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: tokenizer/: model_max_length: %zu; expected at most %s/'s max_position_embeddings "
            "%zu",
            text->folder, text->clip_tokens, mbl_text_encoder_names[i], config->max_position_embeddings);
    text->clip_width += config->hidden_size;
    text->pooled += config->projection_dim;
    return MBL_OK;
}

static mbl_status_t check_t5(mbl_text_t *text) {
    const mbl_t5_config_t *config = mbl_t5_config(text->t5);
    MBL_TRY(check_vocabulary(text, text->folder, CLIPS, config->vocab_size));
    if (config->d_model < text->clip_width)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: text_encoder_3/: d_model: %zu; expected at least the width of the others' states, "
            "%zu",
            text->folder, config->d_model, text->clip_width);
    text->t5_width = config->d_model;
    return MBL_OK;
}

/* The encoder that is not there (any more): from its files. */
static mbl_status_t open_encoder(mbl_text_t *text, size_t i) {
    bool low_memory = text->options.low_memory;
    char *path = mbl_format("%s/%s", text->folder, mbl_text_encoder_names[i]);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", text->folder);
    mbl_status_t status = MBL_OK;
    if (i < CLIPS && text->blank && !text->clip[i])
        status = mbl_clip_blank(text->ops, text->dtype, path, &text->clip[i]);
    else if (i == CLIPS && text->blank && !text->t5)
        status = mbl_t5_blank(text->ops, text->dtype, path, &text->t5);
    else if (i < CLIPS && !text->clip[i])
        status = mbl_clip_open(text->ops, text->dtype, path, low_memory, &text->clip[i]);
    else if (i == CLIPS && !text->t5)
        status = mbl_t5_open(text->ops, text->dtype, path, low_memory, &text->t5);
    mbl_free(path);
    return status;
}

static mbl_status_t open_encoders(mbl_text_t *text) {
    for (size_t i = 0; i < text->n_clips; i++)
        MBL_TRY(open_encoder(text, i));
    return text->has_t5 ? open_encoder(text, CLIPS) : MBL_OK;
}

/* Which encoders model_index.json names. */
static mbl_status_t read_index(const char *folder, bool named[CLIPS + 1]) {
    json_t *index = NULL;
    MBL_TRY(mbl_json_read_in(folder, "model_index.json", false, &index));
    for (size_t i = 0; i <= CLIPS; i++)
        named[i] = json_is_string(json_array_get(json_object_get(index, mbl_text_encoder_names[i]), 1));
    json_decref(index);
    if (!named[0])
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s/model_index.json: text_encoder: missing; expected a CLIP text encoder", folder);
    return MBL_OK;
}

mbl_status_t mbl_text_count_tokens(const char *folder, size_t max_tokens, size_t *out) {
    bool named[CLIPS + 1] = {false};
    mbl_text_t text = {0};
    MBL_TRY(read_index(folder, named));
    mbl_status_t status = open_tokenizer(&text, folder, 0, "CLIP");
    if (status == MBL_OK)
        *out = mbl_tokenizer_max_length(text.tokenizer[0]) + (named[1] || named[CLIPS] ? max_tokens : 0);
    mbl_tokenizer_close(text.tokenizer[0]);
    return status;
}

/* Those of the encoders that are named; a blank one only looks at the first, for its length. */
static mbl_status_t open_tokenizers(mbl_text_t *text) {
    for (size_t i = 0; i < (text->blank ? 1 : text->n_clips); i++)
        MBL_TRY(open_tokenizer(text, text->folder, i, "CLIP"));
    if (text->has_t5 && !text->blank)
        MBL_TRY(open_tokenizer(text, text->folder, CLIPS, "T5"));
    text->clip_tokens = mbl_tokenizer_max_length(text->tokenizer[0]);
    if (text->blank) {
        mbl_tokenizer_close(text->tokenizer[0]);
        text->tokenizer[0] = NULL;
    }
    return MBL_OK;
}

static mbl_status_t open_all(mbl_text_t *text) {
    bool named[CLIPS + 1] = {false};
    size_t tokens = text->options.max_tokens ? text->options.max_tokens : MBL_TEXT_TOKENS;
    MBL_REQUIRE(tokens >= 2 && tokens <= MBL_TEXT_TOKENS_MOST, "%zu tokens of a prompt; expected 2 to %d",
                tokens, MBL_TEXT_TOKENS_MOST);
    MBL_TRY(read_index(text->folder, named));
    while (text->n_clips < CLIPS && named[text->n_clips])
        text->n_clips++;
    text->has_t5 = named[CLIPS] && !text->options.without_t5;
    MBL_TRY(open_tokenizers(text));
    text->t5_tokens = named[1] || named[CLIPS] ? tokens : 0;
    MBL_TRY(open_encoders(text));
    for (size_t i = 0; i < text->n_clips; i++)
        MBL_TRY(check_clip(text, i));
    return text->has_t5 ? check_t5(text) : MBL_OK;
}

static mbl_status_t open_as(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                            const mbl_text_options_t *options, bool blank, mbl_text_t **out) {
    mbl_text_t *text;
    MBL_ALLOC(text, 1);
    text->blank = blank;
    text->ops = ops;
    text->dtype = dtype;
    if (options)
        text->options = *options;
    text->folder = mbl_strdup(folder);
    mbl_status_t status =
        text->folder ? open_all(text) : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", folder);
    if (status != MBL_OK) {
        mbl_text_close(text);
        return status;
    }
    *out = text;
    return MBL_OK;
}

mbl_status_t mbl_text_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                           const mbl_text_options_t *options, mbl_text_t **out) {
    return open_as(ops, dtype, folder, options, false, out);
}

mbl_status_t mbl_text_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                            const mbl_text_options_t *options, mbl_text_t **out) {
    return open_as(ops, dtype, folder, options, true, out);
}

void mbl_text_release(mbl_text_t *text) {
    for (size_t i = 0; i < CLIPS; i++) {
        mbl_clip_close(text->clip[i]);
        text->clip[i] = NULL;
    }
    mbl_t5_close(text->t5);
    text->t5 = NULL;
}

void mbl_text_close(mbl_text_t *text) {
    if (!text)
        return;
    mbl_text_release(text);
    for (size_t i = 0; i <= CLIPS; i++)
        mbl_tokenizer_close(text->tokenizer[i]);
    mbl_free(text->folder);
    mbl_free(text);
}

size_t mbl_text_tokens(const mbl_text_t *text) {
    return text->clip_tokens + text->t5_tokens;
}

size_t mbl_text_width(const mbl_text_t *text) {
    return text->has_t5 ? text->t5_width : text->clip_width;
}

size_t mbl_text_pooled(const mbl_text_t *text) {
    return text->pooled;
}

bool mbl_text_has_t5(const mbl_text_t *text) {
    return text->has_t5;
}

/* ---- encoding ---- */

/* Token 0 everywhere in a blank one. */
static mbl_status_t tokenize(const mbl_text_t *text, size_t i, const char *prompt, size_t tokens,
                             int32_t *ids, size_t *end) {
    if (!text->blank)
        return mbl_tokenizer_encode(text->tokenizer[i], prompt, tokens, ids, end);
    memset(ids, 0, tokens * sizeof *ids);
    *end = tokens - 1;
    return MBL_OK;
}

/* The position whose state is the pooled one. Folders from before transformers knew CLIP's end token have 2
 * there, and the highest id is meant. */
static size_t end_of(const mbl_clip_config_t *clip, const int32_t *ids, size_t tokens, size_t end) {
    if (clip->eos_token_id != 2) {
        for (size_t t = 0; t < tokens; t++)
            if (ids[t] == clip->eos_token_id)
                return t;
        return end;
    }
    size_t best = 0;
    for (size_t t = 1; t < tokens; t++)
        if (ids[t] > ids[best])
            best = t;
    return best;
}

/* Tokens first..first+count-1 and columns from `column` on of a context [n,T,W]. */
static mbl_tensor_t part_of(const mbl_tensor_t *context, size_t first, size_t count, size_t column,
                            size_t width) {
    mbl_tensor_t part = *context;
    part.own = false;
    part.data = (char *)part.data + (first * part.stride[1] + column) * mbl_dtype_size(part.dtype);
    part.dim[1] = count;
    part.dim[2] = width;
    return part;
}

static mbl_status_t encode_clips(mbl_text_t *text, const char *const *prompts, size_t n, int32_t *ids,
                                 size_t *end, const mbl_tensor_t *context, const mbl_tensor_t *pooled) {
    size_t tokens = text->clip_tokens, column = 0, pooled_column = 0;
    for (size_t c = 0; c < text->n_clips; c++) {
        const mbl_clip_config_t *config = mbl_clip_config(text->clip[c]);
        for (size_t i = 0; i < n; i++) {
            int32_t *row = ids + i * tokens;
            MBL_TRY(tokenize(text, c, prompts[i], tokens, row, &end[i]));
            end[i] = end_of(config, row, tokens, end[i]);
        }
        mbl_tensor_t hidden = part_of(context, 0, tokens, column, config->hidden_size),
                     last = mbl_tensor_columns(pooled, pooled_column, config->projection_dim);
        MBL_TRY(mbl_clip_forward(text->clip[c], ids, end, n, tokens, &hidden, &last));
        column += config->hidden_size;
        pooled_column += config->projection_dim;
    }
    return MBL_OK;
}

static mbl_status_t encode_t5(mbl_text_t *text, const char *const *prompts, size_t n, int32_t *ids,
                              const mbl_tensor_t *context) {
    size_t tokens = text->t5_tokens, end;
    if (!text->has_t5)
        return MBL_OK;
    for (size_t i = 0; i < n; i++)
        MBL_TRY(tokenize(text, CLIPS, prompts[i], tokens, ids + i * tokens, &end));
    mbl_tensor_t states = part_of(context, text->clip_tokens, tokens, 0, context->dim[2]);
    return mbl_t5_forward(text->t5, ids, n, tokens, &states);
}

static mbl_status_t check_shapes(const mbl_text_t *text, size_t n, const mbl_tensor_t *context,
                                 const mbl_tensor_t *pooled) {
    size_t width = mbl_text_width(text);
    MBL_REQUIRE(n > 0 && context->ndim == 3 && context->dim[0] == n &&
                    context->dim[1] == mbl_text_tokens(text) &&
                    (text->has_t5 ? context->dim[2] == width : context->dim[2] >= width) &&
                    pooled->ndim == 2 && pooled->dim[0] == n && pooled->dim[1] == text->pooled,
                "conditions of %zu prompts: expected %zu tokens, %zu wide, pooled %zu", n,
                mbl_text_tokens(text), width, text->pooled);
    return MBL_OK;
}

mbl_status_t mbl_text_encode(mbl_text_t *text, const char *const *prompts, size_t n,
                             const mbl_tensor_t *context, const mbl_tensor_t *pooled) {
    mbl_status_t status;
    int32_t *ids = NULL;
    size_t *end = NULL, at_once = n < PROMPTS_AT_ONCE ? n : PROMPTS_AT_ONCE;
    size_t longest = text->clip_tokens > text->t5_tokens ? text->clip_tokens : text->t5_tokens;
    MBL_TRY(check_shapes(text, n, context, pooled));
    mbl_ops_part(text->ops, "a text encoder's activations", "a smaller prompts.max_tokens");
    MBL_TRY(open_encoders(text));
    MBL_ALLOC_GOTO(ids, at_once * longest, done);
    MBL_ALLOC_GOTO(end, at_once, done);
    /* right of CLIP's states, and without T5 below them, there are zeros */
    MBL_TRY_GOTO(mbl_tensor_zero(text->ops, context), done);
    for (size_t first = 0; first < n; first += at_once) {
        size_t some = n - first < at_once ? n - first : at_once;
        mbl_log_progress("encoding the prompts", first, n);
        mbl_tensor_t states = mbl_tensor_rows(context, first, some),
                     last = mbl_tensor_rows(pooled, first, some);
        MBL_TRY_GOTO(encode_clips(text, prompts + first, some, ids, end, &states, &last), done);
        MBL_TRY_GOTO(encode_t5(text, prompts + first, some, ids, &states), done);
    }
    status = MBL_OK;
done:
    mbl_log_progress(NULL, 0, 0);
    mbl_ops_part(text->ops, NULL, NULL);
    mbl_free(ids);
    mbl_free(end);
    return status;
}

mbl_status_t mbl_text_cuts(const mbl_text_t *text, size_t encoder, const char *const *prompts, size_t n,
                           mbl_cuts_t *out) {
    *out = (mbl_cuts_t){0};
    if (encoder < text->n_clips)
        return mbl_cuts_find(text->tokenizer[encoder], mbl_text_encoder_names[encoder], text->clip_tokens,
                             prompts, n, out);
    if (encoder == text->n_clips && text->has_t5)
        return mbl_cuts_find(text->tokenizer[CLIPS], mbl_text_encoder_names[CLIPS], text->t5_tokens, prompts,
                             n, out);
    return MBL_OK;
}
