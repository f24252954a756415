/* latest.h5 where there are no symbolic links, or where it cannot be written at all; checkpoints of other
 * runs; what is no checkpoint.
 *
 * ctest-wrap: symlink rename */
#include "support.h"
#include "base/log.h"
#include "io/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct { bool no_links, no_renames; } broken;

int __real_symlink(const char *target, const char *link);
int __wrap_symlink(const char *target, const char *link);
int __wrap_symlink(const char *target, const char *link) {
    errno = EPERM;
    return broken.no_links ? -1 : __real_symlink(target, link);
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    errno = EIO;
    return broken.no_renames && strstr(to, "latest.h5") ? -1 : __real_rename(from, to);
}

static char folder[256];

static int setup(void **state) {
    (void)state;
    memset(&broken, 0, sizeof broken);
    temporary_folder(folder);
    mbl_log_set_level(MBL_LOG_OFF);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mbl_log_set_level(MBL_LOG_INFO);
    remove_folder(folder);
    return 0;
}

static char *in(const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static bool there(size_t step) {
    char path[512];
    assert_int_equal(mbl_ckpt_path(folder, step, path, sizeof path), MBL_OK);
    return access(path, F_OK) == 0;
}

/* A checkpoint of `run` (NULL: it names none), and of a branch of it (NULL: the first). */
static void write_branch(size_t step, const char *run, const char *branch) {
    float value = (float)step;
    char path[512], text[32];
    const mbl_ckpt_item_t item = {"adapter/current", MBL_F32, 1, &value};
    snprintf(text, sizeof text, "%zu", step);
    const mbl_ckpt_attr_t attrs[] = {{"step", text}, {MBL_CKPT_RUN_KEY, run}, {MBL_CKPT_BRANCH_KEY, branch}};
    assert_int_equal(mbl_ckpt_path(folder, step, path, sizeof path), MBL_OK);
    assert_int_equal(mbl_ckpt_write(path, &item, 1, attrs, 1 + (size_t)(run != NULL) + (run && branch)),
                     MBL_OK);
}

static void write_step(size_t step, const char *run) {
    write_branch(step, run, NULL);
}

static mbl_status_t publish(size_t step, size_t last) {
    const mbl_ckpt_keep_t keep = {.last = last};
    return mbl_ckpt_publish(folder, step, &keep);
}

/* The step that `auto` goes on from. */
static size_t latest_of(const mbl_ckpt_lineage_t *lineage) {
    char path[512];
    bool found = false;
    assert_int_equal(mbl_ckpt_latest(folder, lineage, path, sizeof path, &found), MBL_OK);
    return found ? strtoul(strrchr(path, '-') + 1, NULL, 10) : 0;
}

static size_t latest(const char *run) {
    const mbl_ckpt_lineage_t lineage = {.run = run};
    return latest_of(&lineage);
}

static void must_be_step(const char *name, const char *step) {
    mbl_ckpt_t *ckpt;
    assert_int_equal(mbl_ckpt_open(in(name), &ckpt), MBL_OK);
    assert_string_equal(mbl_ckpt_attr(ckpt, "step"), step);
    mbl_ckpt_close(ckpt);
}

/* A small file does the work of the link, and `keep` works. */
static void without_links(void **state) {
    struct stat about;
    (void)state;
    broken.no_links = true;
    for (size_t step = 1; step <= 4; step++) {
        write_step(step, NULL);
        assert_int_equal(publish(step, 2), MBL_OK);
    }
    assert_int_equal(lstat(in("latest.h5"), &about), 0);
    assert_true(S_ISREG(about.st_mode) && about.st_size < 128);
    must_be_step("latest.h5", "4");
    assert_false(there(2));
    assert_true(there(3));
    assert_int_equal(publish(3, 0), MBL_OK); /* an earlier one, as after --resume FILE */
    assert_int_equal(latest(NULL), 3);
    broken.no_links = false; /* moved to another file system: a link again */
    assert_int_equal(publish(4, 0), MBL_OK);
    assert_int_equal(lstat(in("latest.h5"), &about), 0);
    assert_true(S_ISLNK(about.st_mode));
    assert_int_equal(latest(NULL), 4);
}

/* latest.h5 cannot be moved: the checkpoint is whole, and found without it. */
static void without_latest(void **state) {
    (void)state;
    write_step(1, NULL);
    assert_int_equal(publish(1, 0), MBL_OK);
    broken.no_renames = true;
    write_step(2, NULL);
    assert_int_equal(publish(2, 0), MBL_OK);
    assert_int_not_equal(access(in("latest.h5"), F_OK), 0);
    assert_int_equal(latest(NULL), 2);
}

static void other_runs_are_passed_over(void **state) {
    const mbl_ckpt_lineage_t another = {.run = "cccc"};
    mbl_ckpt_origin_t origin;
    char path[512];
    bool found;
    (void)state;
    write_step(1, "aaaa");
    write_step(2, NULL);
    write_step(3, "aaaa");
    write_step(4, "bbbb");
    assert_int_equal(latest("aaaa"), 3);
    assert_int_equal(latest("bbbb"), 4);
    assert_int_equal(latest(NULL), 4);
    assert_int_equal(latest("cccc"), 2); /* names none: may be any run's */
    assert_int_equal(publish(4, 0), MBL_OK);
    assert_int_equal(latest("aaaa"), 3); /* whatever latest.h5 says */
    assert_int_equal(mbl_ckpt_origin(in("latest.h5"), &origin), MBL_OK);
    assert_string_equal(origin.run, "bbbb");
    assert_int_equal(mbl_ckpt_origin(in("step-000002.h5"), &origin), MBL_OK);
    assert_string_equal(origin.run, "");
    assert_int_equal(unlink(in("step-000002.h5")), 0);
    assert_int_equal(mbl_ckpt_latest(folder, &another, path, sizeof path, &found), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "of the 3 checkpoints"));
}

/* A run that went from step 5 back to 2, then from 4 back to 3. */
static void of_branches_that_were_left(void **state) {
    const size_t back[] = {2, 3};
    const mbl_ckpt_lineage_t lineage = {.run = "aaaa", .back = back, .n = 2}, before = {"aaaa", back, 1};
    (void)state;
    write_branch(2, "aaaa", NULL);
    write_branch(3, "aaaa", "1");
    write_branch(4, "aaaa", "1");
    write_branch(5, "aaaa", NULL);
    assert_int_equal(latest_of(&before), 4);
    assert_int_equal(latest_of(&lineage), 3);
    write_branch(4, "aaaa", "2");
    assert_int_equal(latest_of(&lineage), 4);
    assert_int_equal(publish(5, 0), MBL_OK); /* whatever latest.h5 says */
    assert_int_equal(latest_of(&lineage), 4);
    write_branch(3, "aaaa", NULL);
    assert_int_equal(unlink(in("step-000004.h5")), 0);
    assert_int_equal(latest_of(&lineage), 2);
}

/* Called after a higher step than its own, it is not the newest one, whatever latest.h5 says. */
static void renamed_ones_are_passed_over(void **state) {
    (void)state;
    for (size_t step = 2; step <= 4; step++)
        write_step(step, "aaaa");
    assert_int_equal(rename(in("step-000002.h5"), in("step-000009.h5")), 0);
    assert_int_equal(latest("aaaa"), 4);
    assert_int_equal(publish(9, 0), MBL_OK);
    assert_int_equal(latest("aaaa"), 4);
}

/* Folders and empty files called like checkpoints take no place of those that `keep` holds. */
static void what_is_none_does_not_count(void **state) {
    size_t highest = 0;
    (void)state;
    assert_int_equal(mkdir(in("step-000090.h5"), 0777), 0);
    write_whole(in("step-000091.h5"), "", 0);
    assert_int_equal(latest(NULL), 0);
    for (size_t step = 1; step <= 3; step++) {
        write_step(step, NULL);
        assert_int_equal(publish(step, 2), MBL_OK);
    }
    assert_false(there(1));
    assert_true(there(2));
    assert_int_equal(latest(NULL), 3);
    assert_true(mbl_ckpt_highest(folder, &highest));
    assert_int_equal(highest, 3);
    assert_true(there(90) && there(91)); /* and are left alone */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_links, setup, teardown),
        cmocka_unit_test_setup_teardown(without_latest, setup, teardown),
        cmocka_unit_test_setup_teardown(other_runs_are_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(of_branches_that_were_left, setup, teardown),
        cmocka_unit_test_setup_teardown(renamed_ones_are_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_none_does_not_count, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
