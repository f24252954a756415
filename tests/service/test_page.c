/* The page inside the program: whole, asking for nothing from elsewhere, and writing texts as texts only.
 * What it does in a browser is for another test. */
#include "support.h"
#include "rl/alarms.h"
#include "service/page.h"

#include <stdlib.h>
#include <string.h>

/* The page with a 0 behind it. */
static char *page_text(void) {
    char *text = malloc(mbl_page_size + 1);
    assert_non_null(text);
    memcpy(text, mbl_page, mbl_page_size);
    text[mbl_page_size] = 0;
    return text;
}

static void test_whole(void **state) {
    (void)state;
    char *text = page_text();
    assert_int_equal(strlen(text), mbl_page_size);
    assert_memory_equal(text, "<!doctype html>", 15);
    assert_string_equal(text + mbl_page_size - 8, "</html>\n");
    assert_null(strstr(text, "/*here:")); /* where the parts go */
    const char *parts[] = {"color-scheme: dark", "Chart.js v3",      "class Columns",
                           "class Feed",         "function addPlot", "page.start()"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(text, parts[i]))
            fail_msg("the page lacks \"%s\"", parts[i]);
    free(text);
}

/* Every address in it is a name: of an author, a licence, a format. */
static void test_offline(void **state) {
    (void)state;
    const char *names[] = {"https://www.chartjs.org", "https://github.com/kurkle/color",
                           "http://www.w3.org/2000/svg"};
    char *text = page_text();
    for (const char *at = text; (at = strstr(at, "http")) != NULL; at++) {
        if (strncmp(at, "http://", 7) != 0 && strncmp(at, "https://", 8) != 0)
            continue;
        bool known = false;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            known = known || strncmp(at, names[i], strlen(names[i])) == 0;
        if (!known)
            fail_msg("the page has an address: %.60s", at);
    }
    assert_non_null(strstr(text, "content=\"default-src 'none'"));
    free(text);
}

/* A prompt with markup stays text because no script of the page (the last element) makes markup from text. */
static void test_texts_stay_texts(void **state) {
    (void)state;
    const char *ways[] = {"innerHTML",    "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                          "new Function", "srcdoc",    "DOMParser"};
    char *text = page_text(), *scripts = strstr(text, "'use strict';\n(() => {");
    assert_non_null(scripts);
    assert_non_null(strstr(scripts, "textContent"));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strstr(scripts, ways[i]))
            fail_msg("the page's scripts use %s", ways[i]);
    free(text);
}

/* What each alarm means is said beside it. */
static void test_alarms_have_words(void **state) {
    (void)state;
    char *text = page_text(), key[64];
    for (int i = 0; i < MBL_ALARMS; i++) {
        snprintf(key, sizeof key, "  %s: '", mbl_alarm_name((mbl_alarm_t)i));
        if (!strstr(text, key))
            fail_msg("the page does not say what the alarm %s means", mbl_alarm_name((mbl_alarm_t)i));
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_offline),
                                       cmocka_unit_test(test_texts_stay_texts),
                                       cmocka_unit_test(test_alarms_have_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
