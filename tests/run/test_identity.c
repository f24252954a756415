/* src/run/identity.c: what log.txt, run.yaml, checkpoints and lines say of program, command, time and model.
 */
#include "small_run.h"

#include "base/version.h"

#include <time.h>

static void the_first_lines_of_a_log(void **state) {
    char host[256] = "", first[600], *text, path[1024];
    (void)state;
    train_well(1, "a run", "--set train.steps=1"); /* a name to quote */
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    snprintf(path, sizeof path, "%s/a run/log.txt", folder);
    text = read_whole(path, NULL);
    snprintf(first, sizeof first, "marble %s%s%s%s on %s, 1 rank: ", mbl_version(),
             *mbl_commit() ? " (commit " : "", mbl_commit(), *mbl_commit() ? ")" : "", host);
    assert_int_equal(strncmp(text + strlen("2026-01-01 00:00:00 "), first, strlen(first)), 0);
    assert_non_null(strstr(text, " --set train.steps=1\n"));
    assert_non_null(strstr(text, "a run' --set device=cpu"));
    assert_non_null(strstr(text, " a rank; "));
    assert_non_null(strstr(text, "signs-base (digest "));
    assert_non_null(strstr(text, ", 2412784 weights, 31744 of adapters trained\n"));
    free(text);
}

/* The head of log.txt does not depend on what is printed: version, command, device and model, what a run goes
 * on from and with which changes. */
static void a_quiet_run_has_them_too(void **state) {
    static const char *const always[] = {" rank: ",
                                         " a rank; ",
                                         "of adapters trained",
                                         "thread: ",
                                         "quiet/checkpoints/step-000001.h5 at step 1",
                                         "on resume, train.lr changes from "};
    (void)state;
    train_well(1, "quiet", "--set train.steps=1 --set log.level=error");
    check_times("quiet.log", "marble", 0); /* but for the table on standard output */
    train_well(1, "quiet", "--set train.steps=2 --set log.level=error --set train.lr=1e-5 --resume auto");
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        check_times("quiet/log.txt", always[i], i < 4 ? 2 : 1);
        check_times("quiet.log", always[i], 0);
    }
    check_times("quiet/log.txt", "step 1/1", 0);
    char more[1024];
    snprintf(more, sizeof more, "--set log.level=warn --resume %s/quiet/checkpoints/step-000001.h5", folder);
    train_well(1, "fork", more);
    check_times("fork/log.txt", ": a new run, ", 1);
}

/* A shell takes the command as it stands there. */
static void the_command_can_be_run_again(void **state) {
    char command[2048];
    (void)state;
    snprintf(command, sizeof command,
             "cd / && sed -n 's/^# marble .* ranks*: //p' '%s/a run/run.yaml' >%s/again.sh && sed -i 's/a "
             "run/another run/' "
             "%s/again.sh && sh %s/again.sh >%s/again.log 2>&1",
             folder, folder, folder, folder, folder);
    assert_int_equal(system(command), 0);
    same_checkpoint("a run", "another run", 1);
}

static void checkpoints_and_yaml_say_it_too(void **state) {
    char path[1024];
    mbl_ckpt_t *ckpt;
    (void)state;
    check_times("a run/run.yaml", "\n# marble ", 1);
    snprintf(path, sizeof path, "%s/a run/checkpoints/step-000001.h5", folder);
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    const char *by = mbl_ckpt_attr(ckpt, "made_by"), *with = mbl_ckpt_attr(ckpt, "made_with");
    assert_non_null(by);
    assert_non_null(strstr(by, " --set train.steps=1"));
    assert_non_null(with);
    assert_non_null(strstr(with, "31744 of adapters trained"));
    mbl_ckpt_close(ckpt);
    snprintf(path, sizeof path, "%s/marble train '%s/a run/run.yaml' --out '%s/from yaml' >%s/yaml.log 2>&1",
             MBL_BINARY_DIR, folder, folder, folder);
    assert_int_equal(system(path), 0); /* comments are no keys */
}

/* Seconds since 1970 of the last line's time. */
static time_t time_of(const char *file) {
    char path[1024];
    struct tm parts = {0};
    snprintf(path, sizeof path, "%s/a run/%s", folder, file);
    char *text = read_whole(path, NULL), *at = strstr(text, "\"time\": \"");
    assert_non_null(at);
    assert_non_null(strptime(at + strlen("\"time\": \""), "%Y-%m-%dT%H:%M:%SZ\"", &parts));
    free(text);
    return timegm(&parts);
}

static void lines_have_their_time(void **state) {
    (void)state;
    time_t now = time(NULL);
    assert_in_range(now - time_of("metrics.jsonl"), 0, 600);
    assert_in_range(now - time_of("eval.jsonl"), 0, 600);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_lines_of_a_log),     cmocka_unit_test(a_quiet_run_has_them_too),
        cmocka_unit_test(the_command_can_be_run_again), cmocka_unit_test(checkpoints_and_yaml_say_it_too),
        cmocka_unit_test(lines_have_their_time),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
