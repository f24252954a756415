/* src/model/text/charsmap: the map of tests/golden/t5_tokens, which sentencepiece made, and damaged ones. */
#include "support.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/text/charsmap.h"

#include <stdlib.h>
#include <string.h>

static char *golden; /* in base64 */

static int read_golden(void **state) {
    (void)state;
    json_t *root;
    mbl_fail_quiet(1);
    if (mbl_json_read(MBL_SOURCE_DIR "/tests/golden/t5_tokens/tokenizer.json", &root) != MBL_OK)
        return -1;
    const json_t *steps = json_object_get(json_object_get(root, "normalizer"), "normalizers");
    golden = mbl_strdup(json_string_value(json_object_get(json_array_get(steps, 0), "precompiled_charsmap")));
    json_decref(root);
    return golden ? 0 : -1;
}

static int drop_golden(void **state) {
    (void)state;
    mbl_free(golden);
    return 0;
}

static void expect(const mbl_charsmap_t *map, const char *text, const char *expected) {
    mbl_bytes_t out = {0};
    assert_int_equal(mbl_charsmap_apply(map, text, strlen(text), &out), MBL_OK);
    assert_int_equal(mbl_bytes_put(&out, "", 1), MBL_OK);
    if (strcmp(out.data, expected) != 0)
        fail_msg("\"%s\": \"%s\", expected \"%s\"", text, out.data, expected);
    mbl_free(out.data);
}

static void replaces(void **state) {
    (void)state;
    mbl_charsmap_t map = {0};
    assert_int_equal(mbl_charsmap_read(&map, "golden", golden), MBL_OK);
    expect(&map, "", "");
    expect(&map, "plain", "plain");
    expect(&map, "\xef\xbc\xa1\xef\xac\x81\xc2\xbd",
           "Afi1\xe2\x81\x84"
           "2"); /* full width, ligature, half */
    expect(&map, "e\xcc\x81t\xc3\xa9", "\xc3\xa9t\xc3\xa9");
    expect(&map, "a\tb\nc\r\nd", "a b c d"); /* \r\n is one cluster, and becomes what \r does */
    expect(&map,
           "a\x01"
           "b\x7f",
           "ab");                              /* dropped */
    expect(&map, "\xef\xbc\xa1\xcc\x81", "A"); /* of a short cluster the shortest beginning counts */
    expect(&map, "\xef\xbc\xa1\xcc\x81\xcc\x81", "A\xcc\x81\xcc\x81"); /* a longer one goes by characters */
    expect(&map, "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80");
    mbl_charsmap_clear(&map);
}

static void refuse(const char *base64, const char *part) {
    mbl_charsmap_t map = {0};
    mbl_status_t status = mbl_charsmap_read(&map, "file", base64);
    assert_failed(status, MBL_ERR_FORMAT, part);
    mbl_charsmap_clear(&map);
}

static void refuses_what_is_damaged(void **state) {
    (void)state;
    refuse("", "a trie of 0 bytes in 0");
    refuse("!!!!", "not base64");
    refuse("AAAAA", "not base64");
    refuse("AAAAAA==", "a trie of 0 bytes in 4");
    refuse("CAAAAAAAAAA=", "a trie of 8 bytes in 8");
    refuse("AwAAAAAAAAA=", "a trie of 3 bytes in 8");
    refuse("BAAAAAAAAABB", "ends inside a text");
    refuse("BAAAAAAAAAD/AA==", "not UTF-8");
}

/* A map of any numbers is refused or knows something, and never reads beside its memory. */
static void any_map_is_safe(void **state) {
    (void)state;
    static const char signs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    mbl_rng_t rng = mbl_rng(8, MBL_RNG_STUDY, 0, 0);
    size_t length = strlen(golden), read = 0;
    char *damaged = mbl_strdup(golden);
    assert_non_null(damaged);
    for (int round = 0; round < 500; round++) {
        mbl_charsmap_t map = {0};
        memcpy(damaged, golden, length);
        for (int i = 0; i < 40; i++) /* behind the size of the trie, before the texts */
            damaged[8 + mbl_rng_below(&rng, (uint32_t)length * 2 / 3)] = signs[mbl_rng_below(&rng, 64)];
        if (mbl_charsmap_read(&map, "damaged", damaged) == MBL_OK) {
            mbl_bytes_t out = {0};
            char text[300];
            size_t n = 0;
            while (n < 290) {
                uint32_t c = 1 + mbl_rng_below(&rng, mbl_rng_below(&rng, 2) ? 0x180 : 0xd000);
                text[n] = (char)c;
                if (c < 0x80)
                    n++;
                else if (c < 0x800) {
                    text[n++] = (char)(0xc0 | c >> 6);
                    text[n++] = (char)(0x80 | (c & 63));
                } else {
                    text[n++] = (char)(0xe0 | c >> 12);
                    text[n++] = (char)(0x80 | (c >> 6 & 63));
                    text[n++] = (char)(0x80 | (c & 63));
                }
            }
            assert_int_equal(mbl_charsmap_apply(&map, text, n, &out), MBL_OK);
            mbl_free(out.data);
            read++;
        }
        mbl_charsmap_clear(&map);
    }
    mbl_free(damaged);
    assert_in_range(read, 100, 500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaces),
        cmocka_unit_test(refuses_what_is_damaged),
        cmocka_unit_test(any_map_is_safe),
    };
    return cmocka_run_group_tests(tests, read_golden, drop_golden);
}
