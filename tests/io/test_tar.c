/* src/io/tar.c: archives that tar reads, and reads back itself. Hostile ones: tests/service/test_api.c. */
#include "support.h"

#include "io/tar.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256], path[300];

static void write_and_read(void **state) {
    mbl_file_writer_t writer;
    mbl_tar_entry_t entry;
    char big[1500], longest[MBL_TAR_NAME + 1], command[700];
    bool found;
    int64_t at = 0;
    (void)state;
    memset(big, 'b', sizeof big);
    memset(longest, 'n', sizeof longest);
    longest[MBL_TAR_NAME - 1] = 0;
    assert_int_equal(mbl_file_begin(path, &writer), MBL_OK);
    assert_int_equal(mbl_tar_put(&writer, "000000.txt", "five!", 5), MBL_OK);
    assert_int_equal(mbl_tar_put(&writer, "empty", "", 0), MBL_OK);
    assert_int_equal(mbl_tar_put(&writer, longest, big, sizeof big), MBL_OK);
    assert_int_equal(mbl_tar_end(&writer), MBL_OK);
    assert_int_equal(mbl_file_commit(&writer), MBL_OK);
    int fd = open(path, O_RDONLY);
    static const size_t sizes[] = {5, 0, 1500};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mbl_tar_next(fd, &at, &entry, &found), MBL_OK);
        assert_true(found);
        assert_int_equal(entry.size, sizes[i]);
        if (i == 0) {
            char text[6] = "";
            assert_int_equal(pread(fd, text, 5, entry.offset), 5);
            assert_string_equal(text, "five!");
        }
    }
    assert_string_equal(entry.name, longest);
    assert_int_equal(mbl_tar_next(fd, &at, &entry, &found), MBL_OK);
    assert_false(found);
    close(fd);
    snprintf(command, sizeof command,
             "cd '%s' && tar xf a.tar && [ \"$(cat 000000.txt)\" = 'five!' ] && [ ! -s empty ] && "
             "[ \"$(wc -c <%s)\" -eq 1500 ]",
             folder, longest);
    assert_int_equal(system(command), 0);
}

static void what_is_no_entry(void **state) {
    mbl_file_writer_t writer;
    mbl_tar_entry_t entry;
    char longer[MBL_TAR_NAME + 1], block[512] = "x";
    bool found;
    int64_t at = 0;
    (void)state;
    memset(longer, 'n', sizeof longer);
    longer[MBL_TAR_NAME] = 0;
    assert_int_equal(mbl_file_begin(path, &writer), MBL_OK);
    assert_failed(mbl_tar_put(&writer, longer, "", 0), MBL_ERR_ARG, "at most 99 letters");
    write_whole(path, block, sizeof block);
    int fd = open(path, O_RDONLY);
    assert_int_equal(mbl_tar_next(fd, &at, &entry, &found), MBL_ERR_FORMAT);
    close(fd);
    write_whole(path, block, 100);
    fd = open(path, O_RDONLY);
    assert_int_equal(mbl_tar_next(fd, &at, &entry, &found), MBL_ERR_FORMAT);
    close(fd);
}

static int make(void **state) {
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/a.tar", folder);
    return 0;
}

static int drop(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(write_and_read), cmocka_unit_test(what_is_no_entry)};
    return cmocka_run_group_tests_name("tar", tests, make, drop);
}
