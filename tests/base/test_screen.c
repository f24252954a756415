/* src/base/screen through a pseudo terminal: bars, courses, lines cut to the width, messages above, terminals
 * that become narrower. tests/check_shell.py has whole runs. */
#include "support.h"
#include "base/screen.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static int terminal = -1, kept = -1;
static mbl_screen_t screen;

static void resize(unsigned short columns, unsigned short rows) {
    struct winsize size = {.ws_col = columns, .ws_row = rows};
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
}

/* Standard error becomes a terminal of 40 x 12. */
static int setup(void **state) {
    (void)state;
    struct termios raw;
    terminal = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int other = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(other >= 0 && tcgetattr(other, &raw) == 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(other, TCSANOW, &raw), 0);
    kept = dup(STDERR_FILENO);
    assert_int_equal(dup2(other, STDERR_FILENO), STDERR_FILENO);
    close(other);
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    unsetenv("NO_COLOR");
    resize(40, 12);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mbl_screen_close(&screen);
    assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
    close(kept);
    close(terminal);
    return 0;
}

/* What was written since the last time. */
static const char *written(void) {
    static char text[1 << 15];
    size_t used = 0;
    for (ssize_t n; (n = read(terminal, text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)n;
    text[used] = 0;
    return text;
}

static void must_be(const char *expected) {
    const char *found = written();
    if (strcmp(found, expected) == 0)
        return;
    print_message("the terminal got \"%s\", expected \"%s\"\n", found, expected);
    fail(); /* standard error is the terminal */
}

static void bars_and_courses(void **state) {
    (void)state;
    const mbl_log_look_t plain = {80, 24, false, false}, utf8 = {80, 24, false, true};
    const double values[] = {0, NAN, 7, 3.5};
    char out[64];
    assert_string_equal(mbl_screen_bar(&plain, 0.5, 8, out), "####....");
    assert_string_equal(mbl_screen_bar(&plain, -1, 2, out), "..");
    assert_string_equal(mbl_screen_bar(&plain, NAN, 2, out), "..");
    assert_string_equal(mbl_screen_bar(&utf8, 2, 2, out), "\u2588\u2588");
    assert_string_equal(mbl_screen_bar(&utf8, 0.75, 2, out), "\u2588\u258c"); /* and a half */
    assert_string_equal(mbl_screen_spark(&utf8, values, 4, out), "\u2581 \u2588\u2585");
    assert_string_equal(mbl_screen_spark(&plain, values, 4, out), "_ ^-");
}

static void lines_are_cut_to_the_width(void **state) {
    (void)state;
    resize(10, 12);
    assert_true(mbl_screen_open(&screen));
    mbl_log_table("0123456789abc\n\u4e00\u4e01\u4e02\u4e03\u4e04\n\033[1mbold text it is\033[0m\n");
    must_be("012345678\033[K\n\u4e00\u4e01\u4e02\u4e03\033[K\n\033[1mbold text\033[0m\033[K\n\033[K\n");
}

static void messages_scroll_above(void **state) {
    (void)state;
    assert_true(mbl_screen_open(&screen));
    mbl_log_table("one\ntwo\n");
    (void)written();
    mbl_log_at(MBL_LOG_WARN, "beware");
    must_be("\033[3A\r\033[Jmarble: warning: beware\none\033[K\ntwo\033[K\n\033[K\n");
    mbl_log_shown("a line that the table stands for");
    must_be("");
    mbl_log_table(NULL);
    must_be("\033[3A\r\033[J");
    mbl_log_at(MBL_LOG_WARN, "alone");
    must_be("marble: warning: alone\n");
}

static void phases(void **state) {
    (void)state;
    assert_true(mbl_screen_open(&screen));
    mbl_log_progress("rollout", 1, 4);
    must_be("rollout  \u2588\u2588\u2588\u2588\u2588\u2588" /* 24 columns, 6 of them */
            "\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7"
            "\u00b7\u00b7"
            "  1/4\033[K\n");
    mbl_log_progress("rollout", 2, 4); /* at once: not drawn again */
    must_be("");
    mbl_log_progress("loading", 0, 0);
    must_be("\033[1A\rloading ...\033[K\n");
    mbl_log_progress(NULL, 0, 0);
    must_be("\033[1A\r\033[J");
}

/* Lines of 39 columns take four rows each on a terminal that has become 10 columns wide. */
static void a_terminal_becomes_narrower(void **state) {
    (void)state;
    assert_true(mbl_screen_open(&screen));
    mbl_log_table("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nb\n");
    (void)written();
    resize(10, 12);
    mbl_log_table("c\n");
    must_be("\033[6A\rc\033[K\n\033[K\n\033[J");
    resize(10, 2); /* no room for a table: the phase alone */
    mbl_log_progress("load", 0, 0);
    must_be("\033[2A\rload ...\033[K\n\033[J");
}

static void nobody_wants_it(void **state) {
    (void)state;
    setenv("TERM", "dumb", 1);
    assert_false(mbl_screen_open(&screen));
    setenv("TERM", "xterm", 1);
    assert_true(mbl_screen_open(&screen));
    mbl_log_look_t look;
    mbl_log_set_quiet(true);
    assert_false(mbl_log_look(&look));
    mbl_log_table("x\n");
    mbl_log_progress("rollout", 0, 1);
    must_be("");
    mbl_log_set_quiet(false);
    mbl_log_set_level(MBL_LOG_WARN);
    mbl_log_table("x\n");
    must_be("");
    mbl_log_set_level(MBL_LOG_INFO);
    setenv("NO_COLOR", "1", 1);
    mbl_screen_close(&screen);
    assert_true(mbl_screen_open(&screen) && mbl_log_look(&look));
    assert_true(!look.color && look.utf8 && look.columns == 40 && look.rows == 12);
}

/* As under mpirun: standard error is a pipe, and a terminal behind it. */
static void a_pipe_with_a_terminal_behind_it(void **state) {
    (void)state;
    int ends[2];
    mbl_log_look_t look;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    assert_false(mbl_screen_open(&screen) || mbl_screen_there());
    setenv("MARBLE_TERMINAL", "90", 1);
    assert_false(mbl_screen_there());
    setenv("MARBLE_TERMINAL", "90x20", 1);
    assert_true(mbl_screen_there());
    assert_true(mbl_screen_open(&screen) && mbl_log_look(&look));
    assert_true(look.columns == 90 && look.rows == 20);
    unsetenv("MARBLE_TERMINAL");
    mbl_screen_close(&screen);
    close(ends[0]);
    close(ends[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_and_courses),
        cmocka_unit_test_setup_teardown(lines_are_cut_to_the_width, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_scroll_above, setup, teardown),
        cmocka_unit_test_setup_teardown(phases, setup, teardown),
        cmocka_unit_test_setup_teardown(a_terminal_becomes_narrower, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_wants_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pipe_with_a_terminal_behind_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
