/* src/run/rundir: a warning where the checkpoints to come may not fit, a lock that was lost.
 *
 * ctest-wrap: statvfs */
#include "support.h"
#include "base/log.h"
#include "run/rundir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static unsigned long free_mb;

int __wrap_statvfs(const char *path, struct statvfs *out);
int __wrap_statvfs(const char *path, struct statvfs *out) {
    (void)path;
    memset(out, 0, sizeof *out);
    out->f_frsize = 1000;
    out->f_bavail = 1000 * free_mb;
    return 0;
}

static char folder[256], log_path[300];

static mbl_config_t *parse(const char *keep) {
    mbl_config_t *config;
    char text[200];
    snprintf(text, sizeof text, "rewards: [{name: clean}]\ncheckpoint: {every: 10, keep: %s}\n", keep);
    assert_int_equal(mbl_config_parse(text, strlen(text), "test", NULL, 0, &config), MBL_OK);
    return config;
}

/* Whether `mb` left on the disk are called too few for steps 0 to 100 at every tenth, of 10 MB each. */
static bool warns(const char *keep, unsigned long mb) {
    mbl_rundir_t rundir = {.path = folder};
    mbl_config_t *config = parse(keep);
    free_mb = mb;
    unlink(log_path);
    assert_int_equal(mbl_log_open(log_path), MBL_OK);
    assert_int_equal(mbl_lock_take(folder, &rundir.lock), MBL_OK);
    mbl_rundir_space(&rundir, config, 10000000, 0, 100, 10);
    mbl_lock_release(rundir.lock);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    mbl_config_free(config);
    char *text = read_whole(log_path, NULL);
    bool warned = strstr(text, "checkpoints of 10 MB will be kept") != NULL;
    free(text);
    return warned;
}

static void room_for_what_stays_and_one_more(void **state) {
    static const struct {
        const char *keep;
        unsigned long enough;
    } cases[] = {
        {"0", 110}, {"3", 40}, {"{last: 3, every: 50}", 60}, {"{last: 3, best: clean}", 50}, {"200", 110}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (warns(cases[i].keep, cases[i].enough) || !warns(cases[i].keep, cases[i].enough - 1))
            fail_msg("keep: %s: expected a warning below %lu MB, and none from there on", cases[i].keep,
                     cases[i].enough);
    }
}

static void a_lost_lock_ends_the_run(void **state) {
    mbl_rundir_t rundir = {.path = folder};
    char path[300];
    mbl_holder_t other;
    char text[MBL_HOLDER_TEXT];
    (void)state;
    assert_int_equal(mbl_rundir_held(&rundir), MBL_OK); /* ranks without one */
    assert_int_equal(mbl_lock_take(folder, &rundir.lock), MBL_OK);
    assert_int_equal(mbl_rundir_held(&rundir), MBL_OK);
    mbl_holder_self(&other);
    snprintf(other.host, sizeof other.host, "elsewhere");
    mbl_holder_write(&other, text);
    snprintf(path, sizeof path, "%s/lock", folder);
    write_whole(path, text, strlen(text));
    mbl_lock_beat(rundir.lock);
    assert_int_equal(mbl_rundir_held(&rundir), MBL_ERR_BUSY);
    mbl_rundir_close(&rundir);
    assert_int_equal(access(path, F_OK), 0); /* it is the other's */
    assert_int_equal(unlink(path), 0);
}

static int setup(void **state) {
    (void)state;
    temporary_folder(folder);
    snprintf(log_path, sizeof log_path, "%s/log.txt", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(room_for_what_stays_and_one_more),
                                       cmocka_unit_test(a_lost_lock_ends_the_run)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
