/* src/model/text/cut.c and mbl_tokenizer_measure: how many tokens a prompt has, and what of it is cut. */
#include "support.h"
#include "base/mem.h"
#include "model/text/cut.h"

#include <string.h>

static mbl_tokenizer_t *tokenizer; /* of the example's model: a token a word, 16 tokens a prompt */

static int open_tokenizer(void **state) {
    (void)state;
    return mbl_tokenizer_open(MBL_SOURCE_DIR "/deploy/examples/signs-base/tokenizer", &tokenizer) != MBL_OK;
}

static int close_tokenizer(void **state) {
    (void)state;
    mbl_tokenizer_close(tokenizer);
    return 0;
}

/* Encoded with as much room as it says it needs, no token is lost; with one less, one is. */
static void the_count_is_that_of_encoding(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "a cat",
                                        "a red sign that says \"K7\"",
                                        "three  blue\tcircles, and: more!",
                                        "it's <|endoftext|> within",
                                        "\xC3\x84pfel \xF0\x9F\x8D\x8E e\xCC\x81t\xC3\xA9 \xEF\xBF\xBD"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t wide[200], ids[200];
        size_t tokens, end, used = 0;
        char cut[100];
        assert_int_equal(mbl_tokenizer_measure(tokenizer, texts[i], 200, &tokens, cut, sizeof cut), MBL_OK);
        assert_string_equal(cut, "");
        assert_int_equal(mbl_tokenizer_encode(tokenizer, texts[i], 200, wide, &end), MBL_OK);
        for (size_t t = 0; t < 200; t++)
            used = wide[t] != wide[199] ? t + 1 : used; /* what is no padding */
        assert_int_equal(tokens, used + (wide[used] == wide[199]));
        if (tokens < 4)
            continue;
        assert_int_equal(mbl_tokenizer_encode(tokenizer, texts[i], tokens, ids, &end), MBL_OK);
        assert_memory_equal(ids, wide, tokens * sizeof *ids);
        assert_int_equal(mbl_tokenizer_measure(tokenizer, texts[i], tokens - 1, &used, cut, sizeof cut),
                         MBL_OK);
        assert_int_equal(used, tokens);
        assert_string_not_equal(cut, "");
    }
}

/* Words of this tokenizer are tokens, all else single bytes. */
static void what_is_cut_is_shown(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t length, tokens;
        const char *cut;
    } cases[] = {
        {"red blue green", 5, 5, ""},
        {"red blue green", 4, 5, "green"},
        {"red blue GREEN  circles", 4, 6, "green  circles"},
        {"red blue green", 3, 5, "blue green"},
        {"red blue green", 2, 5, "red blue green"},
        {"red xyz green", 4, 7, "xyz green"}, /* the word is cut within */
        {"red <|endoftext|> green", 3, 5, "<|endoftext|> green"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char cut[100];
        size_t tokens;
        assert_int_equal(
            mbl_tokenizer_measure(tokenizer, cases[i].text, cases[i].length, &tokens, cut, sizeof cut),
            MBL_OK);
        assert_int_equal(tokens, cases[i].tokens);
        assert_string_equal(cut, cases[i].cut);
    }
}

/* Characters stay whole. */
static void a_long_cut_ends_between_characters(void **state) {
    (void)state;
    char cut[8];
    size_t tokens;
    assert_int_equal(
        mbl_tokenizer_measure(tokenizer, "red \xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4", 3, &tokens, cut, sizeof cut),
        MBL_OK);
    assert_string_equal(cut, "\xC3\xA4\xC3\xA4\xC3\xA4");
}

static void the_first_three_are_kept(void **state) {
    (void)state;
    static const char *const prompts[] = {"red", "red blue",   "red blue green", "blue blue blue",
                                          "red", "red red red"};
    mbl_cuts_t cuts;
    size_t live = mbl_mem_live();
    assert_int_equal(mbl_cuts_find(tokenizer, "text_encoder", 3, prompts, 6, &cuts), MBL_OK);
    assert_int_equal(cuts.count, 4);
    assert_string_equal(cuts.encoder, "text_encoder");
    static const size_t which[] = {1, 2, 3}, tokens[] = {4, 5, 5};
    static const char *const texts[] = {"blue", "blue green", "blue blue"};
    for (size_t i = 0; i < MBL_CUTS_SHOWN; i++) {
        assert_int_equal(cuts.first[i].prompt, which[i]);
        assert_int_equal(cuts.first[i].tokens, tokens[i]);
        assert_string_equal(cuts.first[i].text, texts[i]);
    }
    assert_int_equal(mbl_cuts_find(tokenizer, "text_encoder", 16, prompts, 6, &cuts), MBL_OK);
    assert_int_equal(cuts.count, 0);
    assert_int_equal(mbl_mem_live(), live);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_count_is_that_of_encoding),
        cmocka_unit_test(what_is_cut_is_shown),
        cmocka_unit_test(a_long_cut_ends_between_characters),
        cmocka_unit_test(the_first_three_are_kept),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
