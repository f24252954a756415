/* src/run/prompt_encode.c, prompt_cache_place.c and marble encode, in whole runs: with a cache and without,
 * whole sets on the device or an epoch's prompts at a time, on any number of ranks, a run is the same to the
 * bit; damage is said and mended. */
#include "small_run.h"

static const char few[] =
    "--set prompts.train_count=40 --set prompts.test_count=8 --set eval.guidance=2"; /* and a negative one */

/* Options of a run that reads from folder/NAME, no more on the device than it needs. */
static const char *cache_of(const char *name) {
    static char text[1024];
    snprintf(text, sizeof text, "%s --set prompts.device_bytes=0 --set prompts.cache=%s/%s", few, folder,
             name);
    return text;
}

static const char *without(void) {
    static char text[256];
    snprintf(text, sizeof text, "%s --set prompts.cache=off", few);
    return text;
}

static void same_runs(const char *one, const char *other) {
    same_lines(one, other, "metrics.jsonl", 0, 2);
    same_lines(one, other, "eval.jsonl", 0, 2);
    same_checkpoint(one, other, 2);
}

/* marble encode on some ranks; what it says goes to NAME.log. */
static int encode(int ranks, const char *name, const char *more) {
    char command[4096], start[512] = "";
    if (ranks > 1)
        snprintf(start, sizeof start, "%s/tests/with_ranks %d ", MBL_SOURCE_DIR, ranks);
    snprintf(command, sizeof command, "%s%s/marble encode %s/run.yaml --set device=%s %s >'%s/%s.log' 2>&1",
             start, MBL_BINARY_DIR, folder, test_backend(), more, folder, name);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void one_rank(void **state) {
    (void)state;
    train_well(1, "off", without());
    train_well(1, "filled", cache_of("cache"));
    check_times("filled.log", "prompts: 49 of 49 are encoded now, into ", 1);
    same_runs("off", "filled");
    train_well(1, "found", cache_of("cache"));
    check_times("found.log", "prompts: all 49 are in ", 1);
    check_times("found.log", "are encoded now", 0);
    same_runs("off", "found");
}

/* A resumed run goes on with or without it. */
static void a_run_that_goes_on(void **state) {
    char more[2048];
    (void)state;
    snprintf(more, sizeof more, "%s --set train.steps=1", without());
    train_well(1, "on", more);
    snprintf(more, sizeof more, "%s --resume auto", cache_of("cache"));
    train_well(1, "on", more);
    same_checkpoint("off", "on", 2);
}

static void three_ranks(void **state) {
    (void)state;
    train_well(3, "off3", without());
    train_well(3, "filled3", cache_of("cache3"));
    same_runs("off3", "filled3");
    check_times("filled3.log", "are encoded now", 1);
    assert_int_equal(encode(2, "two", cache_of("cache2")), 0); /* other ranks than those that train */
    check_times("two.log", "49 prompts in ", 1);
    check_times("two.log", ": 49 encoded now, in ", 1);
    train_well(3, "found3", cache_of("cache2"));
    check_times("found3.log", "prompts: all 49 are in ", 1);
    same_runs("off3", "found3");
}

/* One bit of every file of a cache, in the middle of a record. */
static void damage(const char *name) {
    char command[2048];
    snprintf(command, sizeof command,
             "for file in %s/%s/*/*.h5; do printf '\\377' | dd of=$file bs=1 seek=20000 conv=notrunc "
             "status=none; done",
             folder, name);
    assert_int_equal(system(command), 0);
}

/* A run that meets a damaged record encodes its prompt again; marble encode finds it before. */
static void damage_is_said_and_mended(void **state) {
    (void)state;
    assert_int_equal(encode(1, "good", cache_of("bad")), 0);
    damage("bad");
    assert_int_equal(encode(1, "mended", cache_of("bad")), 0);
    check_times("mended.log", "is damaged; its prompt is encoded again", 1);
    check_times("mended.log", ": 1 encoded now, 1 of them because their records were damaged", 1);
    assert_int_equal(encode(1, "again", cache_of("bad")), 0);
    check_times("again.log", ": 0 encoded now, in ", 1);
    assert_int_equal(encode(1, "worse", cache_of("worse")), 0);
    damage("worse");
    char all[2048]; /* every prompt is asked for */
    snprintf(all, sizeof all, "%s --set prompts.groups=40", cache_of("worse"));
    train_well(1, "worse-run", all);
    check_times("worse-run.log", "is damaged; its prompt is encoded again", 1);
    snprintf(all, sizeof all, "%s --set prompts.groups=40", without());
    train_well(1, "good-run", all);
    same_runs("good-run", "worse-run");
}

/* Where no cache can be, and where one is by default. */
static void bad_places(void **state) {
    char more[1024];
    (void)state;
    write_lines("file", "");
    snprintf(more, sizeof more, "%s --set prompts.cache=%s/file", few, folder);
    assert_int_equal(train(1, "file-run", more), 2);
    check_times("file-run.log", "is not a folder; expected one of auto | off | a folder", 1);
    snprintf(more, sizeof more, "%s --set prompts.cache=/proc/none", few);
    assert_int_equal(train(1, "proc", more), 1);
    check_times("proc.log", "prompts.cache: ", 1);
    assert_int_equal(encode(1, "no", without()), 2);
    check_times("no.log", "prompts.cache: off, so that there is no cache to encode into", 1);
    snprintf(more, sizeof more,
             "env -u HOME -u XDG_CACHE_HOME %s/marble encode %s/run.yaml >%s/home.log 2>&1", MBL_BINARY_DIR,
             folder, folder);
    assert_int_equal(WEXITSTATUS(system(more)), 2);
    check_times("home.log", "prompts.cache: auto, and neither XDG_CACHE_HOME nor HOME says where", 1);
    snprintf(more, sizeof more, "XDG_CACHE_HOME=%s/user %s/marble encode %s/run.yaml %s >%s/home.log 2>&1",
             folder, MBL_BINARY_DIR, folder, few, folder);
    assert_int_equal(WEXITSTATUS(system(more)), 0);
    check_times("home.log", "user/marble/prompts/", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank),    cmocka_unit_test(a_run_that_goes_on),
        cmocka_unit_test(three_ranks), cmocka_unit_test(damage_is_said_and_mended),
        cmocka_unit_test(bad_places),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
