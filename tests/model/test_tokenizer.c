/* src/model/text/tokenizer: ids of transformers' CLIPTokenizer (tests/golden/make_tokens.py), folders made
 * fresh, damaged folders, failing memory. With MARBLE_TOKENIZER=FOLDER it instead encodes the lines of its
 * input, each a text in hexadecimal, one line of ids for each (tests/parity/tokens.py);
 * MARBLE_TOKENIZER_LENGTH is how many, else the folder's model_max_length. */
#include "folder_case.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/unicode.h"
#include "model/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MBL_SOURCE_DIR "/tests/golden/clip_tokens"

/* The id at k that transformers has: `ids` and padding behind; ids_2, where they are given, are those of the
 * second text encoder's tokenizer, else it has the first one's, an end and its own padding. */
static int32_t expected_id(const json_t *one, bool second, size_t k) {
    json_t *ids = json_object_get(one, "ids"), *other = json_object_get(one, "ids_2");
    json_t *own = second && other ? other : ids;
    if (k < json_array_size(own))
        return (int32_t)json_integer_value(json_array_get(own, k));
    return second && (other || k > json_array_size(ids)) ? 0 : 49407;
}

static void expect_golden_ids(const char *path, const json_t *golden, bool second) {
    static char text[16384];
    mbl_tokenizer_t *t;
    assert_int_equal(mbl_tokenizer_open(path, &t), MBL_OK);
    size_t length = (size_t)json_integer_value(json_object_get(golden, "length")), i;
    json_t *cases = json_object_get(golden, "cases"), *one;
    assert_int_equal(mbl_tokenizer_max_length(t), length);
    assert_int_equal(mbl_tokenizer_vocab_size(t), 49408);
    assert_string_equal(mbl_tokenizer_kind(t), "CLIP");
    assert_in_range(json_array_size(cases), 200, 1000);
    json_array_foreach(cases, i, one) {
        int32_t ids[64];
        size_t end;
        unhex(json_string_value(json_object_get(one, "hex")), text);
        assert_int_equal(mbl_tokenizer_encode(t, text, length, ids, &end), MBL_OK);
        for (size_t k = 0; k < length; k++)
            if (ids[k] != expected_id(one, second, k))
                fail_msg("%s: \"%s\": id %zu is %d, expected %d", path, text, k, ids[k],
                         expected_id(one, second, k));
        for (size_t k = 0; k < end; k++)
            assert_int_not_equal(ids[k], 49407);
        assert_int_equal(ids[end], 49407);
    }
    mbl_tokenizer_close(t);
}

/* A folder of the golden vocabulary: as vocab.json and merges.txt, or as tokenizer.json alone, with the
 * merges as lines or as pairs. `config` is its tokenizer_config.json. */
static void write_json(const char *name, json_t *json) {
    assert_int_equal(mbl_json_write(in_folder(name), json), MBL_OK);
    json_decref(json);
}

static json_t *merges_of(char *lines, bool pairs) {
    json_t *merges = json_array();
    for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
        char *space = strchr(line, ' ');
        if (line[0] == '#' && strncmp(line, "#version", 8) == 0)
            continue;
        json_array_append_new(merges, pairs ? json_pack("[s%, s]", line, (size_t)(space - line), space + 1)
                                            : json_string(line));
    }
    return merges;
}

static void make_whole(const char *name, const json_t *config, bool pairs) {
    char path[64], file[96];
    char *lines = read_whole(GOLDEN "/merges.txt", NULL);
    json_t *added = json_array(), *token;
    const char *id;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), id, token) {
        json_t *copy = json_copy(token);
        json_object_set_new(copy, "id", json_integer(atoi(id)));
        json_array_append_new(added, copy);
    }
    snprintf(path, sizeof path, "%s", name);
    assert_int_equal(mbl_folder_make(in_folder(path)), MBL_OK);
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    write_json(file, json_pack("{s:o, s:{s:s, s:s, s:o, s:o}}", "added_tokens", added, "model", "type", "BPE",
                               "end_of_word_suffix", "</w>", "vocab", read_json(GOLDEN "/vocab.json"),
                               "merges", merges_of(lines, pairs)));
    snprintf(file, sizeof file, "%s/tokenizer_config.json", path);
    json_t *rest = json_copy((json_t *)config);
    json_object_del(rest, "added_tokens_decoder");
    write_json(file, rest);
    free(lines);
}

static void copy_golden(const char *name, const char *to) {
    char from[512];
    size_t size;
    snprintf(from, sizeof from, GOLDEN "/%s", name);
    char *data = read_whole(from, &size);
    write_whole(in_folder(to), data, size);
    free(data);
}

/* Both text encoders of Stable Diffusion 3, in each form that their tokenizers are published in. */
static void ids_of_transformers(void **state) {
    (void)state;
    json_t *golden = read_json(GOLDEN "/cases.json"), *first = read_json(GOLDEN "/tokenizer_config.json"),
           *second = read_json(GOLDEN "/config_2.json");
    expect_golden_ids(GOLDEN, golden, false);
    assert_int_equal(mbl_folder_make(in_folder("second")), MBL_OK);
    copy_golden("vocab.json", "second/vocab.json");
    copy_golden("merges.txt", "second/merges.txt");
    copy_golden("config_2.json", "second/tokenizer_config.json");
    expect_golden_ids(in_folder("second"), golden, true);
    make_whole("whole", first, true);
    expect_golden_ids(in_folder("whole"), golden, false);
    make_whole("whole_2", second, false);
    expect_golden_ids(in_folder("whole_2"), golden, true);
    json_decref(golden);
    json_decref(first);
    json_decref(second);
}

/* Before added_tokens_decoder, special_tokens_map.json had the flags. */
static void flags_of_the_map(void **state) {
    (void)state;
    json_t *golden = read_json(GOLDEN "/cases.json"), *config = read_json(GOLDEN "/config_2.json");
    json_t *map = json_object();
    const char *key;
    json_t *token;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, token) {
        int id = atoi(key);
        json_object_set(map, id == 0 ? "pad_token" : id == 49406 ? "bos_token" : "eos_token", token);
    }
    json_object_del(config, "added_tokens_decoder");
    assert_int_equal(mbl_folder_make(in_folder("mapped")), MBL_OK);
    copy_golden("vocab.json", "mapped/vocab.json");
    copy_golden("merges.txt", "mapped/merges.txt");
    write_json("mapped/special_tokens_map.json", map);
    write_json("mapped/tokenizer_config.json", config);
    expect_golden_ids(in_folder("mapped"), golden, true);
    json_decref(golden);
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
        {"+{\"model\": {}}", NULL, "tokenizer.json: model.type: missing", MBL_ERR_FORMAT},
        {"+{\"model\": {\"type\": \"WordPiece\"}}", NULL,
         "\"WordPiece\"; expected BPE (CLIP) or Unigram (T5)", MBL_ERR_UNSUPPORTED},
        {"+{\"model\": {\"type\": \"BPE\"}}", NULL, "end_of_word_suffix: none; expected CLIP's",
         MBL_ERR_UNSUPPORTED},
        {"+{\"model\": {\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\", \"vocab\": "
         "{\"<|startoftext|>\": 0, "
         "\"<|endoftext|>\": 1}, \"merges\": [\"a b c\"]}}",
         NULL, "tokenizer.json: model.merges:0: \"a b c\"; expected two tokens", MBL_ERR_FORMAT},
        {"+{\"model\": {\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\", \"vocab\": "
         "{\"<|startoftext|>\": 0, "
         "\"<|endoftext|>\": 1}}, \"added_tokens\": [{\"id\": 2, \"content\": \"x\", \"single_word\": "
         "true}]}",
         NULL, "added token \"x\": single_word: true; expected false", MBL_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        remove(in_folder("vocab.json"));
        remove(in_folder("merges.txt"));
        remove(in_folder("tokenizer.json"));
        if (cases[i].vocab && cases[i].vocab[0] == '+') /* a + before what is tokenizer.json's */
            write_whole(in_folder("tokenizer.json"), cases[i].vocab + 1, strlen(cases[i].vocab) - 1);
        else if (cases[i].vocab)
            write_whole(in_folder("vocab.json"), cases[i].vocab, strlen(cases[i].vocab));
        if (cases[i].merges)
            write_whole(in_folder("merges.txt"), cases[i].merges, strlen(cases[i].merges));
        mbl_tokenizer_t *t;
        mbl_status_t status = mbl_tokenizer_open(folder, &t);
        assert_failed(status, cases[i].status, cases[i].part);
    }
    remove(in_folder("tokenizer.json"));
    write_whole(in_folder("vocab.json"), good, strlen(good));
    write_whole(in_folder("merges.txt"), "a b</w>\r\n", 9);
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

/* Any UTF-8 has ids, and what is no UTF-8 is refused. */
static void any_text_encodes(void **state) {
    (void)state;
    mbl_tokenizer_t *t;
    assert_int_equal(mbl_tokenizer_open(GOLDEN, &t), MBL_OK);
    mbl_rng_t rng = mbl_rng(3, MBL_RNG_STUDY, 0, 0);
    static const char common[] = "aZ '<|\xcc\x81\xe0\xa5\x98\xf0\x9d\x85\x9f\xcd\x84 7\n";
    size_t refused = 0;
    for (int round = 0; round < 20000; round++) {
        char text[200];
        int32_t ids[300];
        size_t n = mbl_rng_below(&rng, sizeof text), end;
        bool whole = round % 2 == 0;
        for (size_t i = 0; i < n; i++)
            text[i] = mbl_rng_below(&rng, 3) ? common[mbl_rng_below(&rng, sizeof common - 1)]
                                             : (char)(1 + mbl_rng_below(&rng, 255));
        text[n] = 0;
        for (size_t i = 0, step; whole && i < n; i += step) { /* what is broken becomes a sign */
            uint32_t c;
            step = mbl_utf8_decode(text + i, n - i, &c);
            if (c == 0xfffd)
                memset(text + i, '?', step);
        }
        mbl_status_t status = mbl_tokenizer_encode(t, text, 300, ids, &end);
        assert_int_equal(status, mbl_utf8_valid(text, n) ? MBL_OK : MBL_ERR_ARG);
        if (status == MBL_OK) {
            assert_in_range(end, 1, 299);
            for (int i = 0; i < 300; i++)
                assert_in_range(ids[i], 0, 49407);
        }
        refused += status != MBL_OK;
    }
    assert_in_range(refused, 5000, 10000);
    int32_t ids[8];
    size_t end;
    assert_int_equal(mbl_tokenizer_encode(t, "caf\xe9", 8, ids, &end), MBL_ERR_ARG);
    assert_non_null(strstr(mbl_fail_message(), "not UTF-8: \"caf\xe9\"; expected UTF-8"));
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
    const char *asked = getenv("MARBLE_TOKENIZER_LENGTH");
    size_t capacity = 0, end;
    size_t length = asked ? strtoul(asked, NULL, 10) : mbl_tokenizer_max_length(t);
    int32_t *ids = calloc(length, sizeof *ids);
    for (ssize_t n; ids && (n = getline(&line, &capacity, stdin)) > 0;) {
        line[n - 1] = line[n - 1] == '\n' ? 0 : line[n - 1];
        unhex(line, line);
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
        cmocka_unit_test(ids_of_transformers), cmocka_unit_test(fresh_words_are_single_tokens),
        cmocka_unit_test(damaged_folders),     cmocka_unit_test(any_text_encodes),
        cmocka_unit_test(flags_of_the_map),    cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
