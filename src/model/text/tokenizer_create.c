/* A fresh tokenizer folder whose words are single tokens. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/text/bpe.h"
#include "model/text/tokenizer.h"

#include <string.h>

enum { BYTES = 256, LONGEST_WORD = 63 };

typedef struct {
    mbl_bpe_t bpe;
    char **name; /* of every token so far */
    size_t n, capacity;
    json_t *vocab;
    char *merges; /* the lines of merges.txt */
    size_t merges_used;
} creation_t;

/* The number of the token of that name, a new one if there was none. */
static mbl_status_t token_of(creation_t *c, const char *name, int32_t *out) {
    const json_t *known = json_object_get(c->vocab, name);
    if (known) {
        *out = (int32_t)json_integer_value(known);
        return MBL_OK;
    }
    if (c->n >= c->capacity || !(c->name[c->n] = mbl_strdup(name)) ||
        json_object_set_new(c->vocab, name, json_integer((json_int_t)c->n)) != 0)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a vocabulary of %zu tokens", c->n + 1);
    *out = (int32_t)c->n++;
    return MBL_OK;
}

static mbl_status_t add_bytes(creation_t *c) {
    for (int last = 0; last < 2; last++) {
        for (int b = 0; b < BYTES; b++) {
            char text[3], name[8];
            mbl_bpe_byte_text((unsigned char)b, text);
            snprintf(name, sizeof name, "%s%s", text, last ? "</w>" : "");
            MBL_TRY(token_of(c, name, last ? &c->bpe.last[b] : &c->bpe.byte[b]));
        }
    }
    return MBL_OK;
}

/* Merges appended until the word is one token. They rank below all earlier ones, so words done before stay
 * whole. */
static mbl_status_t add_word(creation_t *c, const char *word) {
    int32_t piece[LONGEST_WORD];
    uint64_t scratch[LONGEST_WORD * 48 / 8];
    size_t length = strlen(word), letters = strspn(word, "abcdefghijklmnopqrstuvwxyz");
    if (length == 0 || length > LONGEST_WORD || (letters != length && length > 1) || word[0] <= ' ' ||
        word[0] >= 127)
        return MBL_FAIL(MBL_ERR_ARG, "\"%.80s\" is no word: 1 to %d small letters, or one sign", word,
                        LONGEST_WORD);
    while (mbl_bpe_word(&c->bpe, word, length, scratch, piece) > 1) {
        char name[2 * LONGEST_WORD];
        const char *left = c->name[piece[0]], *right = c->name[piece[1]];
        int32_t both = 0;
        snprintf(name, sizeof name, "%s%s", left, right);
        MBL_TRY(token_of(c, name, &both));
        mbl_bpe_add(&c->bpe, piece[0], piece[1], both);
        c->merges_used += (size_t)sprintf(c->merges + c->merges_used, "%s %s\n", left, right);
    }
    return MBL_OK;
}

static mbl_status_t write_text(const char *folder, const char *name, const char *text) {
    char *path = mbl_format("%s/%s", folder, name);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a file name");
    mbl_status_t status = mbl_file_write(path, text, strlen(text));
    mbl_free(path);
    return status;
}

static mbl_status_t write_json(const char *folder, const char *name, json_t *json) {
    char *path = mbl_format("%s/%s", folder, name);
    mbl_status_t status =
        path ? mbl_json_write(path, json) : MBL_FAIL(MBL_ERR_MEM, "no memory for a file name");
    mbl_free(path);
    json_decref(json);
    return status;
}

static mbl_status_t write_folder(creation_t *c, const char *folder, size_t tokens) {
    int32_t start = 0, end = 0;
    MBL_TRY(token_of(c, "<|startoftext|>", &start));
    MBL_TRY(token_of(c, "<|endoftext|>", &end));
    MBL_TRY(mbl_folder_make(folder));
    MBL_TRY(write_json(folder, "vocab.json", json_incref(c->vocab)));
    MBL_TRY(write_text(folder, "merges.txt", c->merges));
    MBL_TRY(
        write_json(folder, "special_tokens_map.json",
                   json_pack("{s:s, s:s, s:s, s:s}", "bos_token", "<|startoftext|>", "eos_token",
                             "<|endoftext|>", "pad_token", "<|endoftext|>", "unk_token", "<|endoftext|>")));
    return write_json(folder, "tokenizer_config.json",
                      json_pack("{s:s, s:b, s:I, s:s, s:s, s:s, s:s}", "tokenizer_class", "CLIPTokenizer",
                                "do_lower_case", 1, "model_max_length", (json_int_t)tokens, "bos_token",
                                "<|startoftext|>", "eos_token", "<|endoftext|>", "pad_token", "<|endoftext|>",
                                "unk_token", "<|endoftext|>"));
}

mbl_status_t mbl_tokenizer_create(const char *folder, const char *const *words, size_t n_words,
                                  size_t tokens) {
    MBL_REQUIRE(tokens >= 2, "a tokenizer for %zu tokens: at least 2 are needed", tokens);
    mbl_status_t status;
    creation_t c = {.vocab = json_object()};
    size_t letters = 0, lines = 64;
    for (size_t i = 0; i < n_words; i++) {
        letters += strlen(words[i]);
        lines += strlen(words[i]) * (strlen(words[i]) + 8); /* a line repeats the word so far */
    }
    c.capacity = 2 * BYTES + letters + 2;
    MBL_ALLOC_GOTO(c.name, c.capacity, done);
    MBL_ALLOC_GOTO(c.merges, lines, done);
    c.merges_used = (size_t)sprintf(c.merges, "#version: 0.2\n");
    MBL_TRY_GOTO(mbl_bpe_init(&c.bpe, letters + 1), done);
    MBL_TRY_GOTO(add_bytes(&c), done);
    for (size_t i = 0; i < n_words; i++)
        MBL_TRY_GOTO(add_word(&c, words[i]), done);
    MBL_TRY_GOTO(write_folder(&c, folder, tokens), done);
done:
    for (size_t i = 0; c.name && i < c.n; i++)
        mbl_free(c.name[i]);
    mbl_free(c.name);
    mbl_free(c.merges);
    mbl_bpe_clear(&c.bpe);
    json_decref(c.vocab);
    return status;
}
