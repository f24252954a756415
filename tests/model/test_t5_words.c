/* src/model/text/t5_words: ids of `tokenizers` with a small tokenizer of T5's structure
 * (tests/golden/make_tokens.py), what a prompt loses, damaged files, failing memory. */
#include "folder_case.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MBL_SOURCE_DIR "/tests/golden/t5_tokens"

/* The folder with `whole` as its tokenizer.json. */
static void write_folder(json_t *whole) {
    char path[300];
    json_t *config = read_json(GOLDEN "/tokenizer_config.json");
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    assert_int_equal(mbl_json_write(path, whole), MBL_OK);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    assert_int_equal(mbl_json_write(path, config), MBL_OK);
    json_decref(config);
    json_decref(whole);
}

/* The file with words cut at white space, as transformers 5 saves it. */
static json_t *split_form(void) {
    json_t *whole = read_json(GOLDEN "/tokenizer.json");
    json_t *steps = json_object_get(json_object_get(whole, "normalizer"), "normalizers");
    json_object_set(whole, "normalizer", json_array_get(steps, 0));
    json_t *metaspace = json_incref(json_object_get(whole, "pre_tokenizer"));
    json_object_set_new(whole, "pre_tokenizer",
                        json_pack("{s:s, s:[{s:s}, o]}", "type", "Sequence", "pretokenizers", "type",
                                  "WhitespaceSplit", metaspace));
    return whole;
}

static json_t *bytes_form(void) {
    json_t *whole = read_json(GOLDEN "/tokenizer.json");
    json_object_set_new(json_object_get(whole, "model"), "byte_fallback", json_true());
    return whole;
}

static void expect_golden_ids(const char *path, const char *form) {
    static char text[16384];
    mbl_tokenizer_t *t;
    json_t *golden = read_json(GOLDEN "/cases.json"), *one;
    size_t length = (size_t)json_integer_value(json_object_get(golden, "length")), i, own = 0;
    assert_int_equal(mbl_tokenizer_open(path, &t), MBL_OK);
    assert_int_equal(mbl_tokenizer_max_length(t), length);
    assert_string_equal(mbl_tokenizer_kind(t), "T5");
    json_t *cases = json_object_get(golden, "cases");
    assert_in_range(json_array_size(cases), 200, 1000);
    json_array_foreach(cases, i, one) {
        int32_t ids[64];
        size_t end;
        unhex(json_string_value(json_object_get(one, "hex")), text);
        json_t *want = json_object_get(one, form);
        own += want != NULL;
        want = want ? want : json_object_get(one, "file");
        assert_int_equal(mbl_tokenizer_encode(t, text, length, ids, &end), MBL_OK);
        for (size_t k = 0; k < length; k++) {
            json_int_t expected = k < json_array_size(want) ? json_integer_value(json_array_get(want, k)) : 0;
            if (ids[k] != expected)
                fail_msg("%s: \"%s\": id %zu is %d, expected %lld", form, text, k, ids[k],
                         (long long)expected);
        }
        assert_int_equal(ids[end], 1);
    }
    assert_in_range(own, 1, json_array_size(cases));
    json_decref(golden);
    mbl_tokenizer_close(t);
}

static void ids_of_tokenizers(void **state) {
    (void)state;
    expect_golden_ids(GOLDEN, "file");
    write_folder(split_form());
    expect_golden_ids(folder, "split");
    write_folder(bytes_form());
    expect_golden_ids(folder, "bytes");
}

/* The end token stays whatever the length, and what is left out is shown. */
static void cut_prompts(void **state) {
    (void)state;
    static const char text[] = "one two three  four five six";
    mbl_tokenizer_t *t;
    int32_t whole[40], ids[40];
    char cut[100];
    size_t tokens, end;
    assert_int_equal(mbl_tokenizer_open(GOLDEN, &t), MBL_OK);
    assert_int_equal(mbl_tokenizer_encode(t, text, 40, whole, &end), MBL_OK);
    assert_int_equal(mbl_tokenizer_measure(t, text, 40, &tokens, cut, sizeof cut), MBL_OK);
    assert_int_equal(tokens, end + 1);
    assert_string_equal(cut, "");
    for (size_t length = 2; length <= tokens; length++) {
        size_t again;
        assert_int_equal(mbl_tokenizer_encode(t, text, length, ids, &end), MBL_OK);
        assert_int_equal(end, length - 1);
        assert_memory_equal(ids, whole, (length - 1) * sizeof *ids);
        assert_int_equal(mbl_tokenizer_measure(t, text, length, &again, cut, sizeof cut), MBL_OK);
        assert_int_equal(again, tokens);
        const char *tail = strlen(cut) > 0 ? strstr(" one two three four five six", cut) : NULL;
        if (length < tokens && (!tail || strcmp(tail, cut) != 0))
            fail_msg("%zu of %zu tokens: \"%s\" is cut, expected an end of the text", length, tokens, cut);
    }
    assert_int_equal(mbl_tokenizer_encode(t, text, 1, ids, &end), MBL_ERR_ARG);
    assert_int_equal(mbl_tokenizer_encode(t, "\xff", 8, ids, &end), MBL_ERR_ARG);
    assert_int_equal(mbl_tokenizer_encode(t, "", 3, ids, &end), MBL_OK);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 0);
    mbl_tokenizer_close(t);
}

/* One value of tokenizer.json replaced: a path of keys and numbers, and JSON (NULL: taken away). */
static void set_at(json_t *root, const char *path, const char *value) {
    char copy[100], *key, *rest = copy;
    json_t *at = root;
    snprintf(copy, sizeof copy, "%s", path);
    while ((key = strtok_r(rest, ".", &rest))) {
        json_t *made = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
        if (*rest)
            at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
        else if (json_is_array(at))
            json_array_set(at, (size_t)atoi(key), made);
        else if (made)
            json_object_set(at, key, made);
        else
            json_object_del(at, key);
        json_decref(made);
        assert_non_null(at);
    }
}

static void damaged_files(void **state) {
    (void)state;
    static const struct {
        const char *path, *value, *part;
        mbl_status_t status;
    } cases[] = {
        {"model.vocab", "[]", "model.vocab: missing or empty", MBL_ERR_FORMAT},
        {"model.vocab.7", "[\"x\"]", "model.vocab[7]: expected a text and its score", MBL_ERR_FORMAT},
        {"model.vocab.7", "[\"\", 1]", "model.vocab[7]: expected", MBL_ERR_FORMAT},
        {"model.unk_id", NULL, "model.unk_id: missing; expected a number", MBL_ERR_FORMAT},
        {"model.unk_id", "100000", "model.unk_id: no token's number", MBL_ERR_FORMAT},
        {"normalizer", "{\"type\": \"Lowercase\"}", "normalizer: Lowercase; expected Precompiled",
         MBL_ERR_UNSUPPORTED},
        {"normalizer.normalizers.0.precompiled_charsmap", "\"AAAA\"", "precompiled_charsmap: a trie of",
         MBL_ERR_FORMAT},
        {"normalizer.normalizers.0.precompiled_charsmap", NULL, "precompiled_charsmap: missing",
         MBL_ERR_FORMAT},
        {"normalizer.normalizers.2.content", "\"_\"", "Replace \" {2,}\" by \"_\"; expected",
         MBL_ERR_UNSUPPORTED},
        {"pre_tokenizer", "{\"type\": \"Whitespace\"}",
         "pre_tokenizer: 1 steps, the first Whitespace; expected", MBL_ERR_UNSUPPORTED},
        {"pre_tokenizer", NULL, "pre_tokenizer: 1 steps, the first none", MBL_ERR_UNSUPPORTED},
        {"pre_tokenizer.prepend_scheme", "\"first\"", "prepend_scheme first, split true; expected",
         MBL_ERR_UNSUPPORTED},
        {"pre_tokenizer.split", "false", "split false; expected", MBL_ERR_UNSUPPORTED},
        {"pre_tokenizer.replacement", "\"_\"", "replacement \"_\"", MBL_ERR_UNSUPPORTED},
        {"post_processor.single", "[]", "post_processor: TemplateProcessing; expected", MBL_ERR_UNSUPPORTED},
        {"post_processor.single.1.SpecialToken.id", "\"</t>\"", "token \"</t>\": missing", MBL_ERR_FORMAT},
        {"added_tokens.0.content", "\"\"", "added token 0: content: missing or empty", MBL_ERR_FORMAT},
        {"added_tokens.0.id", "-1", "not a token's number", MBL_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *whole = read_json(GOLDEN "/tokenizer.json");
        mbl_tokenizer_t *t;
        set_at(whole, cases[i].path, cases[i].value);
        write_folder(whole);
        mbl_status_t status = mbl_tokenizer_open(folder, &t);
        assert_failed(status, cases[i].status, cases[i].part);
    }
    char path[300];
    mbl_tokenizer_t *t;
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    remove(path);
    snprintf(path, sizeof path, "%s/spiece.model", folder);
    write_whole(path, "x", 1);
    assert_int_equal(mbl_tokenizer_open(folder, &t), MBL_ERR_UNSUPPORTED);
    assert_non_null(strstr(mbl_fail_message(), "expected tokenizer.json beside it"));
    remove(path);
}

/* Files of before prepend_scheme are taken as they were meant. */
static void older_metaspace(void **state) {
    (void)state;
    json_t *whole = read_json(GOLDEN "/tokenizer.json");
    set_at(whole, "pre_tokenizer",
           "{\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", \"add_prefix_space\": true}");
    write_folder(whole);
    expect_golden_ids(folder, "file");
}

static void survives_failing_memory(void **state) {
    (void)state;
    size_t live = mbl_mem_live(), n = 1;
    write_folder(split_form());
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_tokenizer_t *t = NULL;
        int32_t ids[8];
        size_t end;
        mbl_mem_fail_at(n);
        status = mbl_tokenizer_open(folder, &t);
        if (status == MBL_OK)
            status = mbl_tokenizer_encode(t, "one <extra_id_0> Big Thing two", 8, ids, &end);
        mbl_mem_fail_at(0);
        mbl_tokenizer_close(t);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 20, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_tokenizers),       cmocka_unit_test(cut_prompts),
        cmocka_unit_test(damaged_files),           cmocka_unit_test(older_metaspace),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
