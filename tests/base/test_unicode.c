/* src/base/unicode against Python's Unicode database (golden/make_unicode.py), and what is no UTF-8. */
#include "support.h"
#include "base/json.h"
#include "base/unicode.h"

#include <string.h>

#define GOLDEN MBL_SOURCE_DIR "/tests/golden/unicode.json"

enum { ROOM = 64 };

static size_t read_characters(const json_t *array, uint32_t *out) {
    size_t n = json_array_size(array);
    assert_true(n <= ROOM);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return n;
}

static void normal_form_c(void **state) {
    (void)state;
    json_t *root = read_json(GOLDEN), *cases = json_object_get(root, "nfc");
    assert_true(json_array_size(cases) > 300);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        uint32_t in[ROOM], want[ROOM], got[MBL_NFC_GROWTH * ROOM];
        size_t n = read_characters(json_array_get(json_array_get(cases, i), 0), in);
        size_t m = read_characters(json_array_get(json_array_get(cases, i), 1), want);
        size_t k = mbl_unicode_nfc(in, n, got);
        if (k != m || memcmp(got, want, m * sizeof *got) != 0)
            fail_msg("case %zu of unicode.json: %zu characters, expected %zu; first U+%04X, expected U+%04X",
                     i, k, m, got[0], want[0]);
    }
    json_decref(root);
}

static void kinds_and_lower_case(void **state) {
    (void)state;
    json_t *root = read_json(GOLDEN), *kinds = json_object_get(root, "kinds");
    assert_true(json_array_size(kinds) > 1500);
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const json_t *row = json_array_get(kinds, i);
        uint32_t c = (uint32_t)json_integer_value(json_array_get(row, 0));
        uint32_t lower = (uint32_t)json_integer_value(json_array_get(row, 2));
        char kind = json_string_value(json_array_get(row, 1))[0];
        char found = mbl_unicode_letter(c)   ? 'L'
                     : mbl_unicode_number(c) ? 'N'
                     : mbl_unicode_space(c)  ? 'S'
                                             : '-';
        if (found != kind || mbl_unicode_lower(c) != lower)
            fail_msg("U+%04X: kind %c, expected %c; lower case U+%04X, expected U+%04X", c, found, kind,
                     mbl_unicode_lower(c), lower);
    }
    json_decref(root);
}

/* One U+FFFD for every longest piece that could have begun a character, as Python's decoder gives. */
static void broken_utf8(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size, taken;
        uint32_t c;
    } cases[] = {
        {"A", 1, 1, 'A'},
        {"\xc3\xa9", 2, 2, 0xe9},
        {"\xe2\x82\xac", 3, 3, 0x20ac},
        {"\xf0\x9f\x98\x80", 4, 4, 0x1f600},
        {"\xc3", 1, 1, 0xfffd},             /* cut off */
        {"\xe2\x82", 2, 2, 0xfffd},         /* cut off after two */
        {"\xc0\xaf", 2, 1, 0xfffd},         /* overlong */
        {"\xed\xa0\x80", 3, 1, 0xfffd},     /* a surrogate */
        {"\xf4\x90\x80\x80", 4, 1, 0xfffd}, /* beyond U+10FFFF */
        {"\xf0\x9f\x98\x41", 4, 3, 0xfffd}, /* the last byte is none */
        {"\x80", 1, 1, 0xfffd},
        {"\xff", 1, 1, 0xfffd},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t c = 0;
        assert_int_equal(mbl_utf8_decode(cases[i].bytes, cases[i].size, &c), cases[i].taken);
        assert_int_equal(c, cases[i].c);
        char back[4];
        if (c != 0xfffd) {
            assert_int_equal(mbl_utf8_encode(c, back), cases[i].size);
            assert_memory_equal(back, cases[i].bytes, cases[i].size);
        }
        assert_int_equal(mbl_utf8_valid(cases[i].bytes, cases[i].size), c != 0xfffd);
    }
}

/* Where characters as a reader sees them end: marks, joined emoji, flags and syllables hold together. */
static void clusters(void **state) {
    (void)state;
    static const struct {
        uint32_t text[8];
        const char *ends; /* a bar where a cluster ends before the next character */
    } cases[] = {
        {{'a', 'b', 0}, "|"},
        {{'e', 0x301, 0x323, 'x', 0}, "..|"},
        {{'\r', '\n', '\n', 0}, ".|"},
        {{0x1f468, 0x200d, 0x1f469, 0x1f466, 0}, "..|"},
        {{0x1f1e9, 0x1f1ea, 0x1f1eb, 0x1f1f7, 0}, ".|."},
        {{0x1100, 0x1161, 0x11a8, 0x1100, 0}, "..|"},
        {{1, 0x301, 0}, "|"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t now = 0;
        for (size_t k = 0; cases[i].text[k + 1]; k++)
            if (mbl_unicode_cluster_ends(cases[i].text[k], cases[i].text[k + 1], &now) !=
                (cases[i].ends[k] == '|'))
                fail_msg("case %zu: between %zu and %zu, expected %s", i, k, k + 1, cases[i].ends);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normal_form_c),
        cmocka_unit_test(kinds_and_lower_case),
        cmocka_unit_test(broken_utf8),
        cmocka_unit_test(clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
