/* src/base/log.c: lines from before there is a file, tables, levels; src/base/version.c. */
#include "support.h"
#include "base/log.h"
#include "base/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256], path[300];

static int make(void **state) {
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/log.txt", folder);
    return 0;
}

static int drop(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* How often `what` stands in the file. */
static size_t times(const char *what) {
    char *text = read_whole(path, NULL);
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    free(text);
    return n;
}

static void early_lines_come_first_and_once(void **state) {
    (void)state;
    MBL_INFO("before");
    MBL_DEBUG("below the level");
    mbl_log_set_level(MBL_LOG_WARN);
    MBL_INFO("below it too");
    MBL_RECORD("made by %d", 7);
    mbl_log_set_level(MBL_LOG_INFO);
    assert_int_equal(mbl_log_open(path), MBL_OK);
    MBL_WARN("after");
    assert_int_equal(mbl_log_open(path), MBL_OK); /* the same again: nothing twice */
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    assert_int_equal(times("before\n"), 1);
    assert_int_equal(times("warning: after\n"), 1);
    assert_int_equal(times("below"), 0);
    assert_int_equal(times("made by 7\n"), 1);
    char *text = read_whole(path, NULL);
    assert_true(strstr(text, "before") < strstr(text, "after"));
    free(text);
}

static void a_table_is_in_the_file_line_by_line(void **state) {
    (void)state;
    assert_int_equal(mbl_log_open(path), MBL_OK);
    mbl_log_print("reward  base\nocr  0.5 %s\n");
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    assert_int_equal(times(" reward  base\n"), 1);
    assert_int_equal(times(" ocr  0.5 %s\n"), 1);
}

/* What has no room is counted; what is held fits whole. */
static void too_many_early_lines_are_counted(void **state) {
    (void)state;
    enum { LINES = 2000 };
    int saved = dup(2);
    assert_non_null(freopen("/dev/null", "w", stderr));
    for (int i = 0; i < LINES; i++)
        MBL_INFO("early line %04d", i);
    assert_int_not_equal(dup2(saved, 2), -1);
    close(saved);
    assert_int_equal(mbl_log_open(path), MBL_OK);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    size_t kept = times("early line "), lost = 0;
    char *text = read_whole(path, NULL), *note = strstr(text, "more lines from before");
    assert_non_null(note);
    while (note[-1] != '(')
        note--;
    assert_int_equal(sscanf(note, "%zu", &lost), 1);
    free(text);
    assert_in_range(kept, 500, LINES - 1);
    assert_int_equal(kept + lost, LINES);
}

static void the_build_has_a_name(void **state) {
    (void)state;
    assert_string_equal(mbl_version(), MBL_VERSION);
    for (const char *c = mbl_commit(); *c && *c != '-'; c++)
        assert_non_null(strchr("0123456789abcdef", *c));
}

/* A failure may be worded with the one before it. */
static void a_failure_may_quote_the_last_one(void **state) {
    (void)state;
    (void)MBL_FAIL(MBL_ERR_IO, "the disk is full");
    (void)MBL_FAIL(MBL_ERR_IO, "step 3: %s; one sheet is lost", mbl_fail_message());
    assert_string_equal(mbl_fail_message(), "step 3: the disk is full; one sheet is lost");
}

/* What rank 0 logs for all stays unsaid elsewhere, unless it turns out that rank 0 did not meet with it. */
static void a_failure_of_another_rank_alone(void **state) {
    (void)state;
    assert_int_equal(mbl_log_open(path), MBL_OK);
    mbl_log_set_rank(1, 2);
    MBL_FAIL(MBL_ERR_CONFIG, "only here");
    assert_int_equal(times("only here"), 0);
    mbl_fail_show();
    mbl_fail_show();
    assert_int_equal(times("[rank 1] error: only here"), 1);
    MBL_FAIL(MBL_ERR_IO, "said at once");
    mbl_fail_show();
    assert_int_equal(times("said at once"), 1);
    MBL_FAIL(MBL_ERR_USAGE, "replaced");
    mbl_fail_quiet(1);
    MBL_FAIL(MBL_ERR_IO, "by a quiet one");
    mbl_fail_quiet(0);
    mbl_fail_show();
    assert_int_equal(times("replaced") + times("by a quiet one"), 0);
    mbl_log_set_rank(0, 1);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(early_lines_come_first_and_once, make, drop),
        cmocka_unit_test_setup_teardown(a_table_is_in_the_file_line_by_line, make, drop),
        cmocka_unit_test_setup_teardown(too_many_early_lines_are_counted, make, drop),
        cmocka_unit_test(the_build_has_a_name),
        cmocka_unit_test(a_failure_may_quote_the_last_one),
        cmocka_unit_test_setup_teardown(a_failure_of_another_rank_alone, make, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
