/* src/run/prompt_report.c: what marble train, encode, eval, sample and inspect say of prompts before they do
 * anything. */
#include "small_run.h"

static const char long_line[] = "one two three four five six seven eight nine ten red circles\n";

/* build/marble with the words of `more`, all it prints into folder/NAME.log; returns the exit code. */
static int marble(const char *name, const char *more) {
    char command[4096];
    snprintf(command, sizeof command, "%s/marble %s >%s/%s.log 2>&1", MBL_BINARY_DIR, more, folder, name);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_sound_run_has_its_table_and_no_warning(void **state) {
    (void)state;
    train_well(1, "sound", "--set prompts.train_count=16 --set prompts.test_count=8");
    both_say("sound", "reward applies to  training prompts  held-out prompts\n");
    both_say("sound", "ocr                         8 of 16            4 of 8\n");
    both_say("sound", "jpeg                       16 of 16            8 of 8\n");
    check_times("sound.log", "applies to none", 0);
    check_times("sound.log", "tokens", 0);
}

static void rewards_without_prompts_are_named(void **state) {
    char more[2048];
    (void)state;
    write_lines("idle.txt", "image 1\nimage 2\nimage 3\nthree blue circles\n");
    snprintf(more, sizeof more, "%s --set 'rewards=[{name: ocr},{name: count}]'", prompts_of("idle.txt"));
    train_well(1, "idle", more);
    both_say("idle", "warning: reward ocr applies to none of the 4 training prompts");
    both_say("idle", "warning: reward ocr applies to none of the 4 held-out prompts");
    check_times("idle.log", "reward count applies to none", 0);
    check_times("idle.log", "cannot change the weights", 0);
}

/* The whole run, and one stage of two. */
static void steps_that_train_nothing_are_named(void **state) {
    char more[2048];
    (void)state;
    write_lines("none.txt", "image 1\nimage 2\nthree blue circles\n");
    snprintf(more, sizeof more, "%s --set 'rewards=[{name: ocr}]'", prompts_of("none.txt"));
    train_well(1, "none", more);
    both_say("none", "no reward that steps 1 to 2 train applies to any of the training prompts");
    snprintf(more, sizeof more,
             "%s --set 'rewards=[{name: ocr},{name: count}]' --set "
             "'stages=[{steps: 1, rewards: [count]},{steps: 1, rewards: [ocr]}]'",
             prompts_of("none.txt"));
    train_well(1, "stage", more);
    both_say("stage", "no reward that steps 2 to 2 train applies to any of the training prompts");
    check_times("stage.log", "steps 1 to", 0);
}

static void more_groups_than_prompts_are_said(void **state) {
    (void)state;
    write_lines("few.txt", "three blue circles\ntwo red squares\n");
    train_well(1, "few", prompts_of("few.txt"));
    both_say(
        "few",
        "prompts.groups: 4 prompts per epoch, but there are only 2 training prompts: some are used 2 times");
}

static void long_prompts_are_counted_and_shown(void **state) {
    char more[2048], lines[1024] = "three blue circles\n";
    (void)state;
    for (int i = 0; i < 5; i++)
        sprintf(lines + strlen(lines), "%d %s", i, long_line);
    write_lines("long.txt", lines);
    train_well(1, "long", prompts_of("long.txt"));
    both_say("long", "5 of 6 training prompts have more than the 16 tokens that text_encoder reads");
    both_say("long", "5 of 6 held-out prompts have more than the 16 tokens");
    check_times("long.log", "is cut off before: ", 6);
    check_times("long.log", "prompt 2, ", 2);
    snprintf(more, sizeof more,
             "sample --model %s/deploy/examples/signs-base --prompts %s/long.txt --prompt 'a cat' "
             "--steps 1 --threads 1 --out %s/images",
             MBL_SOURCE_DIR, folder, folder);
    assert_int_equal(marble("sample", more), 0);
    check_times("sample.log", "5 of 7 prompts have more than the 16 tokens", 1);
    check_times("sample.log", "prompt 3, ", 1);
    snprintf(more, sizeof more, "inspect %s/deploy/examples/signs-base --prompts %s/long.txt", MBL_SOURCE_DIR,
             folder);
    assert_int_equal(marble("inspect", more), 0);
    check_times("inspect.log", "long.txt: 6 prompts\n", 1);
    check_times("inspect.log", "text_encoder: reads 16 tokens; 5 prompts have more\n", 1);
    check_times("inspect.log", "is cut off before: ", 3);
    snprintf(more, sizeof more,
             "eval %s/run.yaml --prompts %s/long.txt --set eval.prompts=6 --set device=cpu", folder, folder);
    assert_int_equal(marble("eval", more), 0);
    check_times("eval.log", "5 of 6 prompts of long have more than the 16 tokens", 1);
    snprintf(more, sizeof more, "encode %s/run.yaml %s --set device=cpu --set prompts.cache=%s/cache", folder,
             prompts_of("long.txt"), folder);
    assert_int_equal(marble("encode", more), 0);
    check_times("encode.log", "5 of 6 training prompts have more than the 16 tokens that text_encoder reads",
                1);
    check_times("encode.log", "5 of 6 held-out prompts have more than the 16 tokens", 1);
    check_times("encode.log", "is cut off before: ", 6);
}

/* Only where a reward reads text. */
static void other_quotes_are_near_misses(void **state) {
    char more[2048];
    (void)state;
    write_lines("quotes.txt", "a red sign that says \"K1\"\na red sign that says \xE2\x80\x9CK2\xE2\x80\x9D\n"
                              "a red sign that says 'K3'\nit's a cat\n");
    train_well(1, "quotes", prompts_of("quotes.txt"));
    both_say("quotes", "2 of 4 training prompts quote text, but not in straight double quotes");
    check_times("quotes.log", "the first: a red sign that says \xE2\x80\x9CK2\xE2\x80\x9D", 2);
    snprintf(more, sizeof more, "%s --set 'rewards=[{name: clean}]'", prompts_of("quotes.txt"));
    train_well(1, "unread", more);
    check_times("unread.log", "quote text, but not in straight double quotes", 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_run_has_its_table_and_no_warning),
        cmocka_unit_test(rewards_without_prompts_are_named),
        cmocka_unit_test(steps_that_train_nothing_are_named),
        cmocka_unit_test(more_groups_than_prompts_are_said),
        cmocka_unit_test(long_prompts_are_counted_and_shown),
        cmocka_unit_test(other_quotes_are_near_misses),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
