/* src/base/sha256: the vectors of FIPS 180-4 and NIST's long-message example, cut at every place. */
#include "support.h"
#include "base/sha256.h"

#include <string.h>

static void known_answers(void **state) {
    (void)state;
    static const struct {
        const char *text, *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs"
         "mnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char hex[MBL_SHA256_HEX];
        mbl_sha256_text(cases[i].text, strlen(cases[i].text), hex);
        assert_string_equal(hex, cases[i].digest);
    }
}

static void a_million_letters(void **state) {
    (void)state;
    char block[1000], hex[MBL_SHA256_HEX];
    mbl_sha256_t sha;
    memset(block, 'a', sizeof block);
    mbl_sha256_init(&sha);
    for (int i = 0; i < 1000; i++)
        mbl_sha256_update(&sha, block, sizeof block);
    mbl_sha256_hex(&sha, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void pieces_equal_the_whole(void **state) {
    (void)state;
    unsigned char data[200];
    char whole[MBL_SHA256_HEX], parts[MBL_SHA256_HEX];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 37);
    for (size_t size = 0; size <= sizeof data; size++) {
        mbl_sha256_text(data, size, whole);
        for (size_t cut = 0; cut <= size; cut++) {
            mbl_sha256_t sha;
            mbl_sha256_init(&sha);
            mbl_sha256_update(&sha, data, cut);
            mbl_sha256_update(&sha, data + cut, size - cut);
            mbl_sha256_hex(&sha, parts);
            assert_string_equal(parts, whole);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(a_million_letters),
        cmocka_unit_test(pieces_equal_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
