/* What a cache of encoded prompts goes by. */
#include "base/file.h"
#include "base/mem.h"
#include "model/digest.h"
#include "model/text/prompt_internal.h"

#include <stdio.h>
#include <string.h>

static const mbl_st_t *file_of(const mbl_text_t *text, size_t encoder) {
    return encoder < MBL_TEXT_CLIPS ? mbl_clip_file(text->clip[encoder]) : mbl_t5_file(text->t5);
}

static bool is_there(const mbl_text_t *text, size_t encoder) {
    return encoder < MBL_TEXT_CLIPS ? text->clip[encoder] != NULL : text->t5 != NULL;
}

size_t mbl_text_bytes(const mbl_text_t *text) {
    size_t bytes = 0;
    for (size_t i = 0; i <= MBL_TEXT_CLIPS; i++)
        for (size_t t = 0; is_there(text, i) && t < mbl_st_count(file_of(text, i)); t++)
            bytes += mbl_st_at(file_of(text, i), t)->bytes;
    return bytes;
}

/* The configuration, byte by byte, and every tensor. */
static mbl_status_t add_encoder(const mbl_text_t *text, size_t encoder, mbl_sha256_t *sha) {
    char digest[MBL_SHA256_HEX], *config = NULL;
    size_t size = 0;
    char *path = mbl_format("%s/%s/config.json", text->folder, mbl_text_encoder_names[encoder]);
    mbl_status_t status = path ? mbl_file_read(path, 1 << 20, &config, &size)
                               : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", text->folder);
    mbl_free(path);
    MBL_TRY(status);
    mbl_sha256_text(config, size, digest);
    mbl_free(config);
    mbl_sha256_update(sha, digest, sizeof digest);
    MBL_TRY(mbl_digest_tensors(file_of(text, encoder), text->ops->threads, text->ops->stop, digest));
    mbl_sha256_update(sha, digest, sizeof digest);
    return MBL_OK;
}

mbl_status_t mbl_text_digest(const mbl_text_t *text, char out[MBL_SHA256_HEX]) {
    char line[256];
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    int n = snprintf(line, sizeof line, "marble prompts 1 %s %s %zu %zu %zu %zu %zu %d\n",
                     text->ops->table->name, mbl_dtype_name(text->dtype), text->clip_tokens, text->t5_tokens,
                     text->clip_width, text->t5_width, text->pooled, text->has_t5);
    mbl_sha256_update(&sha, line, (size_t)n);
    for (size_t i = 0; i <= MBL_TEXT_CLIPS; i++)
        if (is_there(text, i))
            MBL_TRY(add_encoder(text, i, &sha));
    mbl_sha256_hex(&sha, out);
    return MBL_OK;
}

mbl_status_t mbl_text_key(const mbl_text_t *text, const char *prompt, unsigned char out[MBL_SHA256_BYTES]) {
    size_t most = text->clip_tokens > text->t5_tokens ? text->clip_tokens : text->t5_tokens, end;
    mbl_status_t status = MBL_OK;
    mbl_sha256_t sha;
    int32_t *ids;
    MBL_ALLOC(ids, most);
    mbl_sha256_init(&sha);
    for (size_t i = 0; i <= MBL_TEXT_CLIPS && status == MBL_OK; i++) {
        size_t tokens = i < MBL_TEXT_CLIPS ? text->clip_tokens : text->t5_tokens;
        if (!text->tokenizer[i])
            continue;
        status = mbl_tokenizer_encode(text->tokenizer[i], prompt, tokens, ids, &end);
        mbl_sha256_update(&sha, ids, tokens * sizeof *ids);
    }
    mbl_free(ids);
    if (status == MBL_OK)
        mbl_sha256_final(&sha, out);
    return status;
}
