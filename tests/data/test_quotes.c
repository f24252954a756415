/* src/data/quotes.c: quoted text in straight double quotes, in others, and apostrophes. */
#include "support.h"
#include "data/quotes.h"

static void kinds_of_quotes(void **state) {
    (void)state;
    static const struct {
        const char *prompt;
        mbl_quotes_t kind;
    } cases[] = {
        {"a red sign that says \"K7\"", MBL_QUOTES_STRAIGHT},
        {"\"K7\"", MBL_QUOTES_STRAIGHT},
        {"a \"K7\" beside a 'B2'", MBL_QUOTES_STRAIGHT},
        {"a sign that says 'K7'", MBL_QUOTES_OTHER},
        {"'Open', says the door", MBL_QUOTES_OTHER},
        {"a sign: 'it's open'", MBL_QUOTES_OTHER},
        {"a sign that says \xE2\x80\x9CK7\xE2\x80\x9D", MBL_QUOTES_OTHER},
        {"ein Schild: \xE2\x80\x9EK7\xE2\x80\x9C", MBL_QUOTES_OTHER},
        {"un panneau \xC2\xABK7\xC2\xBB", MBL_QUOTES_OTHER},
        {"a sign that says \xE2\x80\x98K7\xE2\x80\x99", MBL_QUOTES_OTHER},
        {"a sign that says `K7`", MBL_QUOTES_OTHER},
        {"a sign that says ''K7''", MBL_QUOTES_OTHER},
        {"a cat", MBL_QUOTES_NONE},
        {"", MBL_QUOTES_NONE},
        {"don't say it isn't", MBL_QUOTES_NONE},
        {"the dogs' bowls and the cats' toys", MBL_QUOTES_NONE},
        {"it\xE2\x80\x99s a dog\xE2\x80\x99s life", MBL_QUOTES_NONE},
        {"rock 'n roll of the '90s, the dogs at five", MBL_QUOTES_NONE},
        {"a 6\" ruler", MBL_QUOTES_NONE},
        {"an empty sign \"\"", MBL_QUOTES_NONE},
        {"the end '", MBL_QUOTES_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (mbl_quotes_in(cases[i].prompt) != cases[i].kind)
            fail_msg("%s: kind %d, expected %d", cases[i].prompt, (int)mbl_quotes_in(cases[i].prompt),
                     (int)cases[i].kind);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kinds_of_quotes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
