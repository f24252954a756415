/* src/base/file: files appear whole or not at all, and what is no file is written into, never replaced. */
#include "support.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[256];

static const char *in(const char *name) {
    static char path[4][400];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static int prepare(void **state) {
    (void)state;
    temporary_folder(folder);
    mbl_fail_quiet(1);
    return 0;
}

static int tidy(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static void a_pipe_stays_a_pipe(void **state) {
    struct stat info;
    char got[64] = "";
    (void)state;
    assert_int_equal(mkfifo(in("pipe"), 0600), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(mbl_file_write(in("pipe"), "through the pipe", 16) == MBL_OK ? 0 : 1);
    int fd = open(in("pipe"), O_RDONLY), status;
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
    assert_int_equal(lstat(in("pipe"), &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
}

/* A link to /dev/null stands for /dev/stdout and the like, which are links too. */
static void a_link_to_a_device_stays_a_link(void **state) {
    struct stat info;
    (void)state;
    assert_int_equal(symlink("/dev/null", in("null")), 0);
    assert_int_equal(mbl_file_write(in("null"), "x", 1), MBL_OK);
    assert_int_equal(lstat(in("null"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(symlink("/dev/full", in("full")), 0);
        assert_int_equal(mbl_file_write(in("full"), "x", 1), MBL_ERR_IO);
        assert_non_null(strstr(mbl_fail_message(), "full: writing failed: No space left"));
    }
}

static void files_appear_whole(void **state) {
    size_t size;
    mbl_file_writer_t writer;
    (void)state;
    assert_int_equal(mbl_file_write(in("a"), "first", 5), MBL_OK);
    assert_int_equal(mbl_file_begin(in("a"), &writer), MBL_OK);
    assert_int_equal(mbl_file_put(&writer, "second", 6), MBL_OK);
    char *text = read_whole(in("a"), &size);
    assert_string_equal(text, "first");
    free(text);
    mbl_file_discard(&writer);
    text = read_whole(in("a"), &size);
    assert_string_equal(text, "first");
    free(text);
    assert_int_equal(mbl_file_begin(in("a"), &writer), MBL_OK);
    assert_int_equal(mbl_file_put(&writer, "third", 5), MBL_OK);
    assert_int_equal(mbl_file_commit(&writer), MBL_OK);
    text = read_whole(in("a"), &size);
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
    return cmocka_run_group_tests(tests, prepare, tidy);
}
