/* Opening a tokenizer's folder: which kind it is, and its length. */
#include "base/file.h"
#include "base/mem.h"
#include "model/text/tokenizer_internal.h"

#include <string.h>

enum {
    DEFAULT_LENGTH = 77,
    LONGEST = 1 << 16, /* a model_max_length beyond this means "none" */
    IDS_LIMIT = 1 << 24
};

mbl_status_t mbl_token_id(const char *path, const char *token, const json_t *value, int32_t *out) {
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= IDS_LIMIT)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: token \"%.40s\": %s; expected a number from 0 to %d", path,
                        token, value ? "not a token's number" : "missing", IDS_LIMIT - 1);
    *out = (int32_t)id;
    return MBL_OK;
}

static mbl_status_t has(const char *folder, const char *name, bool *out) {
    char *path = mbl_format("%s/%s", folder, name);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    *out = mbl_file_exists(path);
    mbl_free(path);
    return MBL_OK;
}

/* tokenizer.json, where it is what there is. */
static mbl_status_t read_whole(const char *folder, json_t **out) {
    bool vocab = false, whole = false, pieces = false;
    MBL_TRY(has(folder, "vocab.json", &vocab));
    MBL_TRY(has(folder, "tokenizer.json", &whole));
    MBL_TRY(has(folder, "spiece.model", &pieces));
    if (!vocab && !whole && pieces)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: has spiece.model alone; expected tokenizer.json beside it, which transformers' "
                        "T5TokenizerFast saves",
                        folder);
    return !vocab && whole ? mbl_json_read_in(folder, "tokenizer.json", false, out) : MBL_OK;
}

/* CLIP's older folders are vocab.json and merges.txt; otherwise all is in tokenizer.json. */
static mbl_status_t fill(mbl_tokenizer_t *t, const char *folder, const json_t *config, const json_t *map,
                         const json_t *whole) {
    const char *type = "BPE";
    double length = json_number_value(json_object_get(config, "model_max_length"));
    t->max_length = length >= 2 && length <= LONGEST ? (size_t)length : DEFAULT_LENGTH;
    if (whole) {
        type = json_string_value(json_object_get(json_object_get(whole, "model"), "type"));
        if (!type)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s/tokenizer.json: model.type: missing; expected BPE or Unigram",
                            folder);
    }
    if (strcmp(type, "Unigram") == 0)
        return mbl_t5_words_open(folder, config, whole, t);
    if (strcmp(type, "BPE") == 0)
        return mbl_clip_words_open(folder, config, map, whole, t);
    return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                    "%s/tokenizer.json: model.type: \"%.40s\"; expected BPE (CLIP) or Unigram (T5)", folder,
                    type);
}

/* Tokens that are looked for in normalized text are normalized like it. */
static mbl_status_t normalize_added(mbl_tokenizer_t *t) {
    for (size_t i = 0; i < t->added.n; i++) {
        mbl_added_token_t *token = &t->added.token[i];
        mbl_bytes_t normal = {0};
        if (!token->normalized)
            continue;
        mbl_status_t status = t->kind->normalize(t->model, token->text, token->size, &normal);
        if (status == MBL_OK)
            status = mbl_bytes_put(&normal, "", 1);
        if (status != MBL_OK) {
            mbl_free(normal.data);
            return status;
        }
        mbl_free(token->text);
        token->text = normal.data;
        token->size = normal.n - 1;
        t->added.begins[1][(unsigned char)token->text[0]] = token->size > 0;
    }
    return MBL_OK;
}

mbl_status_t mbl_tokenizer_open(const char *folder, mbl_tokenizer_t **out) {
    mbl_status_t status;
    json_t *config = NULL, *map = NULL, *whole = NULL;
    mbl_tokenizer_t *t;
    MBL_ALLOC(t, 1);
    t->start = -1;
    MBL_TRY_GOTO(mbl_json_read_in(folder, "tokenizer_config.json", true, &config), done);
    MBL_TRY_GOTO(mbl_json_read_in(folder, "special_tokens_map.json", true, &map), done);
    MBL_TRY_GOTO(read_whole(folder, &whole), done);
    MBL_TRY_GOTO(fill(t, folder, config, map, whole), done);
    MBL_TRY_GOTO(normalize_added(t), done);
    *out = t;
    t = NULL;
done:
    json_decref(config);
    json_decref(map);
    json_decref(whole);
    mbl_tokenizer_close(t);
    return status;
}
