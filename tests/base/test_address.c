/* src/base/address.c: the words of service.listen. */
#include "support.h"

#include "base/address.h"

#include <string.h>

static void addresses(void **state) {
    static const struct {
        const char *text;
        mbl_address_kind_t kind;
        const char *host;
        unsigned short port;
    } good[] = {{"auto", MBL_ADDRESS_AUTO, "", 0},
                {"off", MBL_ADDRESS_OFF, "", 0},
                {"127.0.0.1:0", MBL_ADDRESS_TCP, "127.0.0.1", 0},
                {"localhost:80", MBL_ADDRESS_TCP, "localhost", 80},
                {"[::1]:8080", MBL_ADDRESS_TCP, "::1", 8080},
                {"0.0.0.0:65535", MBL_ADDRESS_TCP, "0.0.0.0", 65535},
                {"unix:/tmp/x", MBL_ADDRESS_UNIX, "", 0}};
    static const char *const bad[] = {
        "",      ":80",   "localhost", "localhost:",          "localhost:x", "::1:80", "h:65536",
        "unix:", "[]:80", "[::1:80",   "http://localhost:80", "a b:80",      "u@h:80", "on"};
    mbl_address_t address;
    char longest[200] = "unix:";
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(mbl_address_read(good[i].text, &address));
        assert_int_equal(address.kind, good[i].kind);
        assert_string_equal(address.host, good[i].host);
        assert_int_equal(address.port, good[i].port);
    }
    assert_string_equal(address.path, "/tmp/x");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (mbl_address_read(bad[i], &address))
            fail_msg("\"%s\" is taken for an address", bad[i]);
    memset(longest + 5, 'x', 107);
    assert_true(mbl_address_read(longest, &address));
    longest[5 + 107] = 'x';
    assert_false(mbl_address_read(longest, &address));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(addresses)};
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
