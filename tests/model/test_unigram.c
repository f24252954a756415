/* src/model/text/unigram: the best cut against every cut there is, ties, unknown text. */
#include "support.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/text/unigram.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST = 12 };

typedef struct {
    const char *text;
    double score;
} piece_t;

static mbl_unigram_t make(const piece_t *pieces, size_t n, int32_t unknown, bool bytes) {
    mbl_unigram_t u;
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += strlen(pieces[i].text);
    assert_int_equal(mbl_unigram_init(&u, n, total), MBL_OK);
    for (size_t i = 0; i < n; i++)
        mbl_unigram_add(&u, pieces[i].text, strlen(pieces[i].text), pieces[i].score);
    mbl_unigram_finish(&u, unknown, bytes);
    return u;
}

static void expect(const mbl_unigram_t *u, const char *text, const char *ids) {
    mbl_unigram_node_t nodes[100];
    int32_t out[100];
    char found[400] = "";
    size_t n = mbl_unigram_cut(u, text, strlen(text), nodes, out);
    for (size_t i = 0; i < n; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%d", i ? " " : "", out[i]);
    if (strcmp(found, ids) != 0)
        fail_msg("\"%s\": %s, expected %s", text, found, ids);
}

/* The highest score of any cut of text[at..], by trying all. */
static double best_of_all(const piece_t *pieces, size_t n, double unknown, const char *text) {
    double best = *text ? -INFINITY : 0;
    bool single = false;
    for (size_t i = 0; *text && i < n; i++) {
        size_t size = strlen(pieces[i].text);
        if (strncmp(text, pieces[i].text, size) != 0)
            continue;
        single = single || size == 1;
        best = fmax(best, pieces[i].score + best_of_all(pieces, n, unknown, text + size));
    }
    return *text && !single ? fmax(best, unknown + best_of_all(pieces, n, unknown, text + 1)) : best;
}

static void best_of_every_cut(void **state) {
    (void)state;
    mbl_rng_t rng = mbl_rng(5, MBL_RNG_STUDY, 0, 0);
    for (int round = 0; round < 200; round++) {
        char texts[24][8];
        piece_t pieces[25] = {{"?", 0}};
        size_t n = 2 + mbl_rng_below(&rng, 23);
        for (size_t i = 1; i < n; i++) {
            size_t size = 1 + mbl_rng_below(&rng, 4);
            for (size_t k = 0; k < size; k++)
                texts[i - 1][k] = (char)('a' + mbl_rng_below(&rng, 3));
            texts[i - 1][size] = 0;
            pieces[i] = (piece_t){texts[i - 1], -1 - (double)mbl_rng_below(&rng, 1000) / 100};
            for (size_t k = 1; k < i; k++) /* each text once */
                if (strcmp(pieces[k].text, texts[i - 1]) == 0)
                    n = i;
        }
        if (n < 2)
            continue;
        mbl_unigram_t u = make(pieces, n, 0, false);
        for (int i = 0; i < 20; i++) {
            char text[LONGEST + 1];
            mbl_unigram_node_t nodes[LONGEST + 1];
            int32_t out[LONGEST];
            size_t size = 1 + mbl_rng_below(&rng, LONGEST);
            for (size_t k = 0; k < size; k++)
                text[k] = (char)('a' + mbl_rng_below(&rng, 4)); /* d is unknown */
            text[size] = 0;
            size_t count = mbl_unigram_cut(&u, text, size, nodes, out);
            assert_near(nodes[size].score, best_of_all(pieces, n, u.unknown_score, text), 1e-9);
            size_t known = 0, unknown = 0;
            for (size_t k = 0; k < count; k++) {
                known += out[k] ? strlen(pieces[out[k]].text) : 0;
                unknown += !out[k];
            }
            assert_in_range(size - known, unknown, size);
        }
        mbl_unigram_clear(&u);
    }
}

/* Of cuts of one score the first found stays: pieces are tried from the left, shorter ones first. */
static void ties(void **state) {
    (void)state;
    static const piece_t pieces[] = {{"?", 0},   {"a", -2}, {"aa", -3}, {"b", -1},
                                     {"ab", -3}, {"c", -1}, {"bc", -2}};
    mbl_unigram_t u = make(pieces, sizeof pieces / sizeof *pieces, 0, false);
    expect(&u, "aaa", "1 2");
    expect(&u, "aaaaa", "1 2 2");
    expect(&u, "ab", "4"); /* a b was found later */
    expect(&u, "bc", "6"); /* likewise */
    expect(&u, "", "");
    mbl_unigram_clear(&u);
}

static void unknown_text(void **state) {
    (void)state;
    static const piece_t pieces[] = {{"a", -1}, {"<unk>", 0},   {"\xe7\x8c\xab", -2}, {"<0xE7>", -9},
                                     {"x", -1}, {"<0x8C>", -9}, {"<0xAA>", -9},       {"a", -1.5}};
    enum { N = sizeof pieces / sizeof *pieces };
    mbl_unigram_t u = make(pieces, N, 1, false);
    expect(&u, "a", "7"); /* of a text that is there twice the last one */
    expect(&u, "azz\xe7\x8c\xabz", "7 1 2 1");
    expect(&u, "zz", "1");
    expect(&u, "z<unk>z", "1");
    expect(&u,
           "\xe7\x8c\xaa"
           "a",
           "1 7");
    mbl_unigram_clear(&u);
    u = make(pieces, N, 1, true);
    expect(&u,
           "\xe7\x8c\xaa"
           "a",
           "3 5 6 7");
    expect(&u, "\xe7\x8c\xad", "1"); /* one of its bytes has no piece */
    expect(&u, "<unk>", "1");
    mbl_unigram_clear(&u);
}

static void survives_failing_memory(void **state) {
    (void)state;
    for (size_t n = 1; n <= 3; n++) {
        mbl_unigram_t u;
        size_t live = mbl_mem_live();
        mbl_fail_quiet(1);
        mbl_mem_fail_at(n);
        assert_int_equal(mbl_unigram_init(&u, 5, 20), MBL_ERR_MEM);
        mbl_mem_fail_at(0);
        mbl_unigram_clear(&u);
        mbl_fail_quiet(0);
        assert_int_equal(mbl_mem_live(), live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_of_every_cut),
        cmocka_unit_test(ties),
        cmocka_unit_test(unknown_text),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
