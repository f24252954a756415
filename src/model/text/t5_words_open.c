/* T5's tokenizer from its tokenizer.json. What the file asks for and is not done here is refused by name. */
#include "base/mem.h"
#include "model/text/t5_words.h"

#include <math.h>
#include <string.h>

/* ---- normalizer ---- */

static const char *type_of(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "none";
}

static mbl_status_t add_step(const char *path, const json_t *step, mbl_t5_model_t *m) {
    const char *type = type_of(step);
    mbl_t5_step_t made = {.what = MBL_T5_CHARSMAP};
    if (m->n_steps == MBL_T5_STEPS)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: normalizer: more than %d steps", path, MBL_T5_STEPS);
    if (strcmp(type, "Precompiled") == 0) {
        const char *text = json_string_value(json_object_get(step, "precompiled_charsmap"));
        if (!text || m->map.unit)
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: normalizer: precompiled_charsmap: %s; expected one text",
                            path, text ? "there twice" : "missing");
        MBL_TRY(mbl_charsmap_read(&m->map, path, text));
    } else if (strcmp(type, "Strip") == 0) {
        made.what = MBL_T5_STRIP;
        made.left = json_is_true(json_object_get(step, "strip_left"));
        made.right = json_is_true(json_object_get(step, "strip_right"));
    } else if (strcmp(type, "Replace") == 0) {
        const char *pattern = json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex")),
                   *content = json_string_value(json_object_get(step, "content"));
        made.what = MBL_T5_JOIN_SPACES;
        if (!pattern || !content || strcmp(pattern, " {2,}") != 0 || strcmp(content, MBL_T5_SPACE) != 0)
            return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                            "%s: normalizer: Replace \"%.40s\" by \"%.40s\"; expected \" {2,}\" by "
                            "\"" MBL_T5_SPACE "\"",
                            path, pattern ? pattern : "(no Regex)", content ? content : "(none)");
    } else {
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: normalizer: %.40s; expected Precompiled, Strip or Replace",
                        path, type);
    }
    m->step[m->n_steps++] = made;
    return MBL_OK;
}

static mbl_status_t read_normalizer(const char *path, const json_t *normalizer, mbl_t5_model_t *m) {
    size_t i;
    json_t *step;
    if (!normalizer || json_is_null(normalizer))
        return MBL_OK;
    if (strcmp(type_of(normalizer), "Sequence") != 0)
        return add_step(path, normalizer, m);
    json_array_foreach(json_object_get(normalizer, "normalizers"), i, step) {
        MBL_TRY(add_step(path, step, m));
    }
    return MBL_OK;
}

/* ---- words ---- */

/* Files of before prepend_scheme say add_prefix_space; files of before split always do. */
static mbl_status_t check_metaspace(const char *path, const json_t *step) {
    const char *mark = json_string_value(json_object_get(step, "replacement")),
               *scheme = json_string_value(json_object_get(step, "prepend_scheme"));
    bool always =
        scheme ? strcmp(scheme, "always") == 0 : json_is_true(json_object_get(step, "add_prefix_space"));
    if (!mark || strcmp(mark, MBL_T5_SPACE) != 0 || !always || json_is_false(json_object_get(step, "split")))
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: pre_tokenizer: Metaspace: replacement \"%.8s\", prepend_scheme %.20s, split %s; "
                        "expected \"" MBL_T5_SPACE "\", always, true",
                        path, mark ? mark : "(none)",
                        scheme   ? scheme
                        : always ? "always"
                                 : "never",
                        json_is_false(json_object_get(step, "split")) ? "false" : "true");
    return MBL_OK;
}

static mbl_status_t read_pre_tokenizer(const char *path, const json_t *given, mbl_t5_model_t *m) {
    json_t *all = json_object_get(given, "pretokenizers");
    size_t n = strcmp(type_of(given), "Sequence") == 0 ? json_array_size(all) : 1;
    const json_t *first = all ? json_array_get(all, 0) : given,
                 *last = all ? json_array_get(all, n - 1) : given;
    m->split_space = n == 2 && strcmp(type_of(first), "WhitespaceSplit") == 0;
    if (n == 0 || n > (m->split_space ? 2u : 1u) || strcmp(type_of(last), "Metaspace") != 0)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: pre_tokenizer: %zu steps, the first %.40s; expected Metaspace, or "
                        "WhitespaceSplit and Metaspace",
                        path, n, type_of(first));
    return check_metaspace(path, last);
}

/* ---- the model ---- */

static mbl_status_t read_pieces(const char *path, const json_t *vocab, mbl_t5_model_t *m) {
    size_t i, bytes = 0;
    json_t *piece;
    json_array_foreach(vocab, i, piece) {
        bytes += json_string_length(json_array_get(piece, 0));
    }
    MBL_TRY(mbl_unigram_init(&m->unigram, json_array_size(vocab), bytes));
    json_array_foreach(vocab, i, piece) {
        const json_t *text = json_array_get(piece, 0), *score = json_array_get(piece, 1);
        if (json_string_length(text) == 0 || !json_is_number(score) || !isfinite(json_number_value(score)))
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: model.vocab[%zu]: expected a text and its score", path, i);
        mbl_unigram_add(&m->unigram, json_string_value(text), json_string_length(text),
                        json_number_value(score));
    }
    return MBL_OK;
}

static mbl_status_t read_model(const char *path, const json_t *model, mbl_t5_model_t *m) {
    const json_t *vocab = json_object_get(model, "vocab"), *number = json_object_get(model, "unk_id");
    json_int_t unknown = json_is_integer(number) ? json_integer_value(number) : -1;
    size_t n = json_array_size(vocab);
    if (n == 0 || n > INT32_MAX)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: model.vocab: missing or empty; expected texts and scores", path);
    if (unknown < 0 || (size_t)unknown >= n)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: model.unk_id: %s; expected a number from 0 to %zu", path,
                        number ? "no token's number" : "missing", n - 1);
    MBL_TRY(read_pieces(path, vocab, m));
    mbl_unigram_finish(&m->unigram, (int32_t)unknown, json_is_true(json_object_get(model, "byte_fallback")));
    return MBL_OK;
}

/* ---- special tokens ---- */

/* The number of a token by its text, among the added ones or the pieces. */
static mbl_status_t number_of(const mbl_tokenizer_t *t, const char *path, const json_t *vocab,
                              const char *text, int32_t *out) {
    size_t i;
    json_t *piece;
    for (size_t k = 0; k < t->added.n; k++) {
        if (strcmp(t->added.token[k].text, text) == 0) {
            *out = t->added.token[k].id;
            return MBL_OK;
        }
    }
    json_array_foreach(vocab, i, piece) {
        if (strcmp(json_string_value(json_array_get(piece, 0)), text) == 0) {
            *out = (int32_t)i;
            return MBL_OK;
        }
    }
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: token \"%.40s\": missing", path, text);
}

/* The one token behind a prompt, by the template. */
static mbl_status_t read_template(mbl_tokenizer_t *t, const char *path, const json_t *whole,
                                  const json_t *vocab) {
    const json_t *template = json_object_get(whole, "post_processor");
    const json_t *single = json_object_get(template, "single");
    const char *end =
        json_string_value(json_object_get(json_object_get(json_array_get(single, 1), "SpecialToken"), "id"));
    if (strcmp(type_of(template), "TemplateProcessing") != 0 || json_array_size(single) != 2 ||
        !json_object_get(json_array_get(single, 0), "Sequence") || !end)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: post_processor: %.40s; expected TemplateProcessing of a text and its end token",
                        path, type_of(template));
    return number_of(t, path, vocab, end, &t->end);
}

/* A string, or an object with "content". */
static const char *pad_text(const json_t *config) {
    const json_t *value = json_object_get(config, "pad_token");
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    return text && *text ? text : "<pad>";
}

static mbl_status_t read_all(const char *path, const json_t *config, const json_t *whole, mbl_tokenizer_t *t,
                             mbl_t5_model_t *m) {
    const json_t *model = json_object_get(whole, "model"), *vocab = json_object_get(model, "vocab");
    size_t i;
    json_t *token;
    MBL_TRY(read_normalizer(path, json_object_get(whole, "normalizer"), m));
    MBL_TRY(read_pre_tokenizer(path, json_object_get(whole, "pre_tokenizer"), m));
    MBL_TRY(read_model(path, model, m));
    t->vocab_size = json_array_size(vocab);
    json_array_foreach(json_object_get(whole, "added_tokens"), i, token) {
        int32_t id = 0;
        MBL_TRY(mbl_token_id(path, "(added)", json_object_get(token, "id"), &id));
        MBL_TRY(mbl_added_add_json(&t->added, path, token, id));
        if ((size_t)id >= t->vocab_size)
            t->vocab_size = (size_t)id + 1;
    }
    MBL_TRY(read_template(t, path, whole, vocab));
    return number_of(t, path, vocab, pad_text(config), &t->pad);
}

static void close_model(void *model) {
    mbl_t5_model_t *m = model;
    if (m) {
        mbl_unigram_clear(&m->unigram);
        mbl_charsmap_clear(&m->map);
    }
    mbl_free(m);
}

static const mbl_tokenizer_kind_t t5_kind = {"T5", mbl_t5_normalize, mbl_t5_words, close_model};

mbl_status_t mbl_t5_words_open(const char *folder, const json_t *config, const json_t *whole,
                               mbl_tokenizer_t *t) {
    mbl_t5_model_t *m;
    char *path;
    MBL_ALLOC(m, 1);
    t->kind = &t5_kind;
    t->model = m;
    if (!(path = mbl_format("%s/tokenizer.json", folder)))
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
    mbl_status_t status = read_all(path, config, whole, t, m);
    mbl_free(path);
    return status;
}
