/* src/model/text/tokenizer: ids of transformers' CLIPTokenizer (tests/golden/make_tokens.py), folders made
 * fresh, damaged folders, failing memory. With MARBLE_TOKENIZER=FOLDER it instead encodes the lines of its
 * input, one line of ids for each (tests/parity/clip_tokens.py). */
#include "support.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MBL_SOURCE_DIR "/tests/golden/clip_tokens"

static char folder[256];

static const char *at(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    temporary_folder(folder);
    mbl_fail_quiet(1);
    return 0;
}

static int drop_folder(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static void unhex(const char *hex, char *out) {
    unsigned byte;
    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        *out++ = (char)byte;
    *out = 0;
}

static void ids_of_transformers(void **state) {
    (void)state;
    static char text[8192];
    json_t *golden;
    mbl_tokenizer_t *t;
    assert_int_equal(mbl_json_read(GOLDEN "/cases.json", &golden), MBL_OK);
    assert_int_equal(mbl_tokenizer_open(GOLDEN, &t), MBL_OK);
    size_t length = (size_t)json_integer_value(json_object_get(golden, "length"));
    json_t *cases = json_object_get(golden, "cases"), *one;
    assert_int_equal(mbl_tokenizer_max_length(t), length);
    assert_in_range(json_array_size(cases), 60, 1000);
    size_t i;
    json_array_foreach(cases, i, one) {
        int32_t ids[64];
        size_t end;
        unhex(json_string_value(json_object_get(one, "hex")), text);
        assert_int_equal(mbl_tokenizer_encode(t, text, length, ids, &end), MBL_OK);
        json_t *want = json_object_get(one, "ids");
        size_t first = 0;
        while (json_integer_value(json_array_get(want, first)) != 49407)
            first++;
        for (size_t k = 0; k < length; k++)
            if (ids[k] != json_integer_value(json_array_get(want, k)))
                fail_msg("\"%s\": id %zu is %d, expected %lld", text, k, ids[k],
                         (long long)json_integer_value(json_array_get(want, k)));
        assert_int_equal(end, first);
    }
    json_decref(golden);
    mbl_tokenizer_close(t);
}

static void fresh_words_are_single_tokens(void **state) {
    (void)state;
    static const char *const words[] = {
        "a",  "red", "sign", "signs", "that", "says", "in",    "three", "green", "circle", "circles",
        "ir", "rc",  "irc",  "e",     "7",    "\"",   "above", "ove",   "bov",   "sig",    "ggggggggg"};
    enum { N = sizeof words / sizeof words[0], LENGTH = 12 };
    char path[300];
    snprintf(path, sizeof path, "%s/fresh/tokenizer", folder);
    assert_int_equal(mbl_tokenizer_create(path, words, N, LENGTH), MBL_OK);
    mbl_tokenizer_t *t;
    assert_int_equal(mbl_tokenizer_open(path, &t), MBL_OK);
    assert_int_equal(mbl_tokenizer_max_length(t), LENGTH);
    int32_t ids[LENGTH], start = (int32_t)mbl_tokenizer_vocab_size(t) - 2;
    size_t end;
    for (int i = 0; i < N; i++) {
        assert_int_equal(mbl_tokenizer_encode(t, words[i], LENGTH, ids, &end), MBL_OK);
        if (end != 2)
            fail_msg("%s: %zu tokens, expected 1", words[i], end - 1);
        assert_int_equal(ids[0], start);
        assert_int_equal(ids[2], start + 1);
        assert_int_equal(ids[LENGTH - 1], start + 1);
    }
    /* a red sign that says " k 7 " */
    assert_int_equal(mbl_tokenizer_encode(t, "A red  sign that says \"K7\"", LENGTH, ids, &end), MBL_OK);
    assert_int_equal(end, 10);
    /* unknown words fall into letters, cut to fit */
    assert_int_equal(mbl_tokenizer_encode(t, "xyzzyxyzzyxyzzy", LENGTH, ids, &end), MBL_OK);
    assert_int_equal(end, LENGTH - 1);
    mbl_tokenizer_close(t);
    static const char *const bad[] = {"two words", "K", "7a", "", "na\xc3\xafve"};
    for (int i = 0; i < 5; i++) {
        mbl_status_t status = mbl_tokenizer_create(path, bad + i, 1, LENGTH);
        assert_int_equal(status, strcmp(bad[i], "K") == 0 ? MBL_OK : MBL_ERR_ARG);
    }
}

static void damaged_folders(void **state) {
    (void)state;
    static const char good[] =
        "{\"a\": 0, \"b</w>\": 1, \"ab</w>\": 2, \"<|startoftext|>\": 3, \"<|endoftext|>\": 4}";
    static const struct {
        const char *vocab, *merges, *part;
        mbl_status_t status;
    } cases[] = {
        {"{", "", "vocab.json:1: not valid JSON", MBL_ERR_FORMAT},
        {"[]", "", "vocab.json: holds no JSON object", MBL_ERR_FORMAT},
        {"{\"a\": 0}", "", "token \"<|startoftext|>\": missing", MBL_ERR_FORMAT},
        {"{\"<|startoftext|>\": -1, \"<|endoftext|>\": 1}", "", "not a token's number", MBL_ERR_FORMAT},
        {"{\"<|startoftext|>\": 0, \"<|endoftext|>\": 1, \"x\": 99999999999}", "", "token \"x\"",
         MBL_ERR_FORMAT},
        {good, "a b</w> c\n", "merges.txt:1", MBL_ERR_FORMAT},
        {good, "#version: 0.2\n\na b</w>\nab</w>\n", "merges.txt:4", MBL_ERR_FORMAT},
        {good, "a c</w>\n", "token \"c</w>\": missing", MBL_ERR_FORMAT},
        {good, NULL, "merges.txt: cannot be opened", MBL_ERR_IO},
        {NULL, "", "vocab.json: cannot be opened", MBL_ERR_IO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        remove(at("vocab.json"));
        remove(at("merges.txt"));
        if (cases[i].vocab)
            write_whole(at("vocab.json"), cases[i].vocab, strlen(cases[i].vocab));
        if (cases[i].merges)
            write_whole(at("merges.txt"), cases[i].merges, strlen(cases[i].merges));
        mbl_tokenizer_t *t;
        mbl_status_t status = mbl_tokenizer_open(folder, &t);
        if (status != cases[i].status || !strstr(mbl_fail_message(), cases[i].part))
            fail_msg("case %zu: %s \"%s\", expected \"%s\"", i, mbl_status_name(status), mbl_fail_message(),
                     cases[i].part);
    }
    write_whole(at("vocab.json"), good, strlen(good));
    write_whole(at("merges.txt"), "a b</w>\r\n", 9);
    mbl_tokenizer_t *t;
    int32_t ids[4];
    size_t end;
    assert_int_equal(mbl_tokenizer_open(folder, &t), MBL_OK);
    assert_int_equal(mbl_tokenizer_max_length(t), 77);
    assert_int_equal(mbl_tokenizer_encode(t, "ab", 4, ids, &end), MBL_OK);
    assert_int_equal(ids[1], 2);
    assert_int_equal(mbl_tokenizer_encode(t, "ab", 1, ids, &end), MBL_ERR_ARG);
    mbl_tokenizer_close(t);
}

static void any_bytes_encode(void **state) {
    (void)state;
    mbl_tokenizer_t *t;
    assert_int_equal(mbl_tokenizer_open(GOLDEN, &t), MBL_OK);
    mbl_rng_t rng = mbl_rng(3, MBL_RNG_STUDY, 0, 0);
    static const char common[] = "aZ '<|\xcc\x81\xe0\xa5\x98\xf0\x9d\x85\x9f\xcd\x84 7\n";
    for (int round = 0; round < 20000; round++) {
        char text[200];
        int32_t ids[300];
        size_t n = mbl_rng_below(&rng, sizeof text), end;
        for (size_t i = 0; i < n; i++)
            text[i] = mbl_rng_below(&rng, 3) ? common[mbl_rng_below(&rng, sizeof common - 1)]
                                             : (char)(1 + mbl_rng_below(&rng, 255));
        text[n] = 0;
        assert_int_equal(mbl_tokenizer_encode(t, text, 300, ids, &end), MBL_OK);
        assert_in_range(end, 1, 299);
        for (int i = 0; i < 300; i++)
            assert_in_range(ids[i], 0, 49407);
    }
    mbl_tokenizer_close(t);
}

static void survives_failing_memory(void **state) {
    (void)state;
    size_t live = mbl_mem_live(), n = 1;
    static const char *const words[] = {"red", "blue"};
    char path[300];
    snprintf(path, sizeof path, "%s/memory", folder);
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        mbl_tokenizer_t *t = NULL;
        int32_t ids[8];
        size_t end;
        mbl_mem_fail_at(n);
        status = mbl_tokenizer_create(path, words, 2, 8);
        if (status == MBL_OK)
            status = mbl_tokenizer_open(path, &t);
        if (status == MBL_OK)
            status = mbl_tokenizer_encode(t, "red blue", 8, ids, &end);
        mbl_mem_fail_at(0);
        mbl_tokenizer_close(t);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 100, 10000);
}

static int encode_input(const char *path) {
    mbl_tokenizer_t *t;
    if (mbl_tokenizer_open(path, &t) != MBL_OK)
        return 1;
    char *line = NULL;
    size_t capacity = 0, length = mbl_tokenizer_max_length(t), end;
    int32_t *ids = calloc(length, sizeof *ids);
    for (ssize_t n; ids && (n = getline(&line, &capacity, stdin)) > 0;) {
        line[n - 1] = line[n - 1] == '\n' ? 0 : line[n - 1];
        if (mbl_tokenizer_encode(t, line, length, ids, &end) != MBL_OK)
            return 1;
        for (size_t i = 0; i < length; i++)
            printf("%d%c", ids[i], i + 1 < length ? ' ' : '\n');
    }
    free(ids);
    free(line);
    mbl_tokenizer_close(t);
    return 0;
}

int main(void) {
    const char *path = getenv("MARBLE_TOKENIZER");
    if (path)
        return encode_input(path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_transformers),     cmocka_unit_test(fresh_words_are_single_tokens),
        cmocka_unit_test(damaged_folders),         cmocka_unit_test(any_bytes_encode),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
