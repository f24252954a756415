/* marble inspect MODEL_DIR --prompts FILE: which prompts the text encoders of a model read only the beginning
 * of, without opening its weights. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "data/prompts.h"
#include "model/text/cut.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mbl_status_t no_memory(const char *path) {
    return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to describe it", path);
}

static json_t *cuts_json(const mbl_cuts_t *cuts) {
    json_t *first = json_array();
    for (size_t i = 0; i < cuts->count && i < MBL_CUTS_SHOWN; i++)
        json_array_append_new(
            first, json_pack("{s:I, s:I, s:s}", "prompt", (json_int_t)cuts->first[i].prompt + 1, "tokens",
                             (json_int_t)cuts->first[i].tokens, "cut", cuts->first[i].text));
    return json_pack("{s:s, s:I, s:I, s:o}", "name", cuts->encoder, "tokens", (json_int_t)cuts->limit, "cut",
                     (json_int_t)cuts->count, "first", first);
}

/* Appends what the encoder beside FOLDER/TOKENIZER cuts, where there is that folder. */
static mbl_status_t add_encoder(const char *folder, const char *tokenizer, const char *encoder,
                                const char *const *texts, size_t n, json_t *out) {
    char *path = mbl_format("%s/%s", folder, tokenizer),
         *vocab = mbl_format("%s/%s/vocab.json", folder, tokenizer),
         *whole = mbl_format("%s/%s/tokenizer.json", folder, tokenizer);
    mbl_tokenizer_t *t = NULL;
    mbl_cuts_t cuts;
    mbl_status_t status = path && vocab && whole ? MBL_OK : no_memory(folder);
    if (status == MBL_OK && (mbl_file_exists(vocab) || mbl_file_exists(whole))) {
        status = mbl_tokenizer_open(path, &t);
        if (status == MBL_OK)
            status = mbl_cuts_find(t, encoder, mbl_tokenizer_max_length(t), texts, n, &cuts);
        if (status == MBL_OK && json_array_append_new(out, cuts_json(&cuts)) != 0)
            status = no_memory(folder);
        mbl_tokenizer_close(t);
    }
    mbl_free(path);
    mbl_free(vocab);
    mbl_free(whole);
    return status;
}

static mbl_status_t add_encoders(const char *folder, const mbl_prompts_t *prompts, json_t *out) {
    static const char *const names[][2] = {
        {"tokenizer", "text_encoder"}, {"tokenizer_2", "text_encoder_2"}, {"tokenizer_3", "text_encoder_3"}};
    const char **texts;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(texts, prompts->count);
    for (size_t i = 0; i < prompts->count; i++)
        texts[i] = prompts->items[i].text;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == MBL_OK; i++)
        status = add_encoder(folder, names[i][0], names[i][1], texts, prompts->count, out);
    mbl_free(texts);
    if (status == MBL_OK && json_array_size(out) == 0)
        status = MBL_FAIL(
            MBL_ERR_USAGE,
            "%s: no tokenizer/ with a vocab.json or tokenizer.json; expected a model in the diffusers layout",
            folder);
    return status;
}

static void print_text(const json_t *root) {
    const json_t *encoder, *one;
    size_t i, j;
    printf("%s: %lld prompts\n", json_string_value(json_object_get(root, "path")),
           (long long)json_integer_value(json_object_get(root, "prompts")));
    json_array_foreach(json_object_get(root, "encoders"), i, encoder) {
        printf("%s: reads %lld tokens; %lld prompts have more\n",
               json_string_value(json_object_get(encoder, "name")),
               (long long)json_integer_value(json_object_get(encoder, "tokens")),
               (long long)json_integer_value(json_object_get(encoder, "cut")));
        json_array_foreach(json_object_get(encoder, "first"), j, one)
            printf("  prompt %lld, %lld tokens, is cut off before: %s\n",
                   (long long)json_integer_value(json_object_get(one, "prompt")),
                   (long long)json_integer_value(json_object_get(one, "tokens")),
                   json_string_value(json_object_get(one, "cut")));
    }
}

mbl_status_t mbl_inspect_prompts(const char *folder, const char *path, bool json) {
    mbl_prompts_t prompts;
    MBL_TRY(mbl_prompts_load("file", path, 0, 0, 0, &prompts));
    json_t *encoders = json_array();
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:o}", "kind", "prompts", "path", path, "model", folder,
                             "prompts", (json_int_t)prompts.count, "encoders", encoders);
    mbl_status_t status = root ? add_encoders(folder, &prompts, encoders) : no_memory(path);
    char *text = status == MBL_OK && json ? json_dumps(root, 0) : NULL;
    if (text)
        puts(text);
    else if (status == MBL_OK && !json)
        print_text(root);
    else if (status == MBL_OK)
        status = no_memory(path);
    free(text);
    json_decref(root);
    mbl_prompts_free(&prompts);
    if (status == MBL_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = MBL_FAIL(MBL_ERR_IO, "inspect: the answer cannot be written: %s", strerror(errno));
    return status;
}
