/* src/base/file: files appear whole or not at all, and what is no file is written into, never replaced. */
#include "folder_case.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_pipe_stays_a_pipe(void **state) {
    struct stat info;
    char got[64] = "";
    (void)state;
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(mbl_file_write(in_folder("pipe"), "through the pipe", 16) == MBL_OK ? 0 : 1);
    int fd = open(in_folder("pipe"), O_RDONLY), status;
    assert_true(fd >= 0);
    for (size_t n = 0; n < 16;) {
        ssize_t more = read(fd, got + n, sizeof got - 1 - n);
        assert_true(more > 0);
        n += (size_t)more;
    }
    close(fd);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_string_equal(got, "through the pipe");
    assert_int_equal(lstat(in_folder("pipe"), &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
}

/* A link to /dev/null stands for /dev/stdout and the like, which are links too. */
static void a_link_to_a_device_stays_a_link(void **state) {
    struct stat info;
    (void)state;
    assert_int_equal(symlink("/dev/null", in_folder("null")), 0);
    assert_int_equal(mbl_file_write(in_folder("null"), "x", 1), MBL_OK);
    assert_int_equal(lstat(in_folder("null"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(symlink("/dev/full", in_folder("full")), 0);
        assert_int_equal(mbl_file_write(in_folder("full"), "x", 1), MBL_ERR_IO);
        assert_non_null(strstr(mbl_fail_message(), "full: writing failed: No space left"));
    }
}

static void files_appear_whole(void **state) {
    size_t size;
    mbl_file_writer_t writer;
    (void)state;
    assert_int_equal(mbl_file_write(in_folder("a"), "first", 5), MBL_OK);
    assert_int_equal(mbl_file_begin(in_folder("a"), &writer), MBL_OK);
    assert_int_equal(mbl_file_put(&writer, "second", 6), MBL_OK);
    char *text = read_whole(in_folder("a"), &size);
    assert_string_equal(text, "first");
    free(text);
    mbl_file_discard(&writer);
    text = read_whole(in_folder("a"), &size);
    assert_string_equal(text, "first");
    free(text);
    assert_int_equal(mbl_file_begin(in_folder("a"), &writer), MBL_OK);
    assert_int_equal(mbl_file_put(&writer, "third", 5), MBL_OK);
    assert_int_equal(mbl_file_commit(&writer), MBL_OK);
    text = read_whole(in_folder("a"), &size);
    assert_string_equal(text, "third");
    free(text);
    assert_int_equal(mbl_file_write(folder, "x", 1), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "cannot be written: Is a directory"));
    char command[400];
    snprintf(command, sizeof command, "! ls '%s' | grep -q tmp", folder);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_stays_a_pipe),
        cmocka_unit_test(a_link_to_a_device_stays_a_link),
        cmocka_unit_test(files_appear_whole),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
