/* src/base/streams and what stands on it: closed descriptors, a reader that goes away, in the log and in
 * commands. */
#include "support.h"
#include "base/log.h"
#include "base/streams.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int exit_of(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* In a child with the descriptors of `closed` (a bit each) closed: no file opened later is one of the three,
 * and what was closed stays unusable. */
static int opened_with(int closed) {
    char byte = 0;
    for (int fd = 0; fd < 3; fd++)
        if (closed & 1 << fd)
            close(fd);
    mbl_streams_open();
    int file = open("/dev/zero", O_RDWR);
    if (file < 3)
        return 1;
    if (closed & 1 && read(0, &byte, 1) >= 0)
        return 2;
    for (int fd = 1; fd < 3; fd++)
        if (closed & 1 << fd && write(fd, &byte, 1) >= 0)
            return 2 + fd;
    return 0;
}

static void closed_descriptors_are_taken(void **state) {
    (void)state;
    for (int closed = 0; closed < 8; closed++) {
        pid_t child = fork();
        if (child == 0)
            _exit(opened_with(closed));
        assert_int_equal(exit_of(child), 0);
    }
}

/* The log goes on in its file when nobody reads the terminal any more, and says so once. */
static int log_without_reader(const char *path) {
    int ends[2];
    mbl_streams_open();
    if (pipe(ends) != 0 || mbl_log_open(path) != MBL_OK)
        return 1;
    dup2(ends[1], STDERR_FILENO);
    MBL_INFO("first");
    close(ends[0]); /* the reader's end */
    MBL_INFO("second");
    MBL_INFO("third");
    return mbl_log_open(NULL) != MBL_OK;
}

static void the_log_survives_its_terminal(void **state) {
    char folder[256], path[300];
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/log.txt", folder);
    pid_t child = fork();
    if (child == 0)
        _exit(log_without_reader(path));
    assert_int_equal(exit_of(child), 0);
    char *text = read_whole(path, NULL);
    const char *first = strstr(text, "first"),
               *note = strstr(text, "standard error takes no more lines (Broken pipe)");
    const char *third = strstr(text, "third");
    assert_non_null(strstr(text, "second"));
    assert_true(first && note && third && first < note && note < third);
    assert_null(strstr(note + 30, "takes no more lines"));
    free(text);
    remove_folder(folder);
}

/* A run's table at a full disk: noted in the log, where it stands too, and nothing that the run fails for. */
static int print_to_full_disk(const char *path) {
    if (mbl_log_open(path) != MBL_OK || !freopen("/dev/full", "w", stdout))
        return 1;
    mbl_log_print("one\ntwo\n");
    mbl_log_print("three\n");
    return mbl_log_open(NULL) != MBL_OK || fflush(stdout) != 0;
}

static void a_table_that_nobody_gets_is_in_the_log(void **state) {
    char folder[256], path[300];
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/log.txt", folder);
    pid_t child = fork();
    if (child == 0)
        _exit(print_to_full_disk(path));
    assert_int_equal(exit_of(child), 0);
    char *text = read_whole(path, NULL);
    assert_non_null(strstr(text, "warning: standard output takes no more lines (No space left on device)"));
    assert_non_null(strstr(text, " one\n"));
    assert_non_null(strstr(text, " three\n"));
    free(text);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_descriptors_are_taken),
        cmocka_unit_test(the_log_survives_its_terminal),
        cmocka_unit_test(a_table_that_nobody_gets_is_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
