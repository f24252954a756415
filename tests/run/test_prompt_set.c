/* src/run/prompt_set.c: how much of a file is taken, and other prompts at resume, in whole runs of marble
 * train. */
#include "small_run.h"

static const char signs[] =
    "a red sign that says \"K1\"\na red sign that says \"K2\"\na red sign that says \"K3\"\n"
    "a red sign that says \"K4\"\nthree blue circles\ntwo red squares\ngreen above purple\n";
enum { SIGNS = 7 };

/* The number of prompts and the digest that the last line of eval.jsonl names. */
static size_t set_of(const char *out, char digest[32]) {
    json_t *lines = lines_of(out, "eval.jsonl");
    const json_t *set = json_object_get(json_array_get(lines, json_array_size(lines) - 1), "prompts");
    size_t count = (size_t)json_integer_value(json_object_get(set, "count"));
    const char *text = json_string_value(json_object_get(set, "sha256"));
    assert_non_null(text);
    snprintf(digest, 32, "%s", text);
    json_decref(lines);
    return count;
}

/* All of a file, whatever train_count says, which is said; prompts.limit takes the first ones. */
static void files_are_taken_whole(void **state) {
    char more[2048], digest[3][32];
    (void)state;
    write_lines("p.txt", signs);
    train_well(1, "whole", prompts_of("p.txt"));
    assert_int_equal(set_of("whole", digest[0]), SIGNS);
    check_times("whole.log", "train_count", 0);
    check_times("whole/run.yaml", "train_count", 0);
    snprintf(more, sizeof more, "%s --set prompts.train_count=3", prompts_of("p.txt"));
    train_well(1, "counted", more);
    assert_int_equal(set_of("counted", digest[1]), SIGNS);
    both_say("counted", "prompts.train_count: 3 is ignored with prompts.source: file");
    check_times("counted.log", "or the first prompts.limit of them", 1);
    snprintf(more, sizeof more, "%s --set prompts.limit=4", prompts_of("p.txt"));
    train_well(1, "limited", more);
    assert_int_equal(set_of("limited", digest[2]), 4);
    assert_string_equal(digest[0], digest[1]);
    assert_string_not_equal(digest[0], digest[2]);
}

static void a_limit_is_for_files(void **state) {
    (void)state;
    assert_int_equal(train(1, "signs", "--set prompts.limit=4"), 2);
    check_times("signs.log", "prompts.limit: 4, while prompts.source is signs", 1);
}

/* What the state holds of prompts goes by their place: others are refused, with numbers, or accepted. */
static void other_prompts_need_word_of_it(void **state) {
    char more[2048];
    (void)state;
    write_lines("p.txt", signs);
    train_well(1, "run", prompts_of("p.txt"));
    write_lines("p.txt", "two red squares\nthree blue circles\n");
    snprintf(more, sizeof more, "%s --resume auto --set train.steps=3", prompts_of("p.txt"));
    assert_int_equal(train(1, "run", more), 2);
    both_say("run", "made with 7 prompts of prompts.train;");
    check_times("run.log", "p.txt has 2 (sha256 ", 2);
    check_times("run.log", "expected the same files, or --accept prompts", 1);
    strcat(more, " --accept prompts");
    train_well(1, "run", more);
    check_times("run.log", "made with 7 prompts of prompts.", 2);
    check_times("run.log", "error: ", 0);
    check_times("run.log", "made with 7 prompts of prompts.test;", 1);
    snprintf(more, sizeof more, "%s --resume auto --set train.steps=4", prompts_of("p.txt"));
    train_well(1, "run", more); /* from here on they are the run's */
    check_times("run.log", "made with", 0);
}

/* As many as before, but one word of one is another. */
static void one_word_is_enough(void **state) {
    char more[2048], *other = strdup(signs);
    (void)state;
    write_lines("p.txt", signs);
    train_well(1, "word", prompts_of("p.txt"));
    memcpy(strstr(other, "K3"), "K9", 2);
    write_lines("p.txt", other);
    free(other);
    snprintf(more, sizeof more, "%s --resume auto --set train.steps=3", prompts_of("p.txt"));
    assert_int_equal(train(1, "word", more), 2);
    check_times("word.log", "has 7 others (sha256 ", 2);
    write_lines("p.txt", signs); /* back again */
    train_well(1, "word", more);
}

/* White space and line ends are no part of prompts, and a file may be called otherwise. */
static void the_same_prompts_are_the_same(void **state) {
    char more[2048], spaced[1024], *at = spaced;
    (void)state;
    for (const char *c = signs; *c; c++)
        at += sprintf(at, *c == '\n' ? " \r\n\r\n" : "%c", *c);
    write_lines("p.txt", signs);
    write_lines("q.txt", spaced);
    train_well(1, "same", prompts_of("p.txt"));
    snprintf(more, sizeof more, "%s --resume auto --set train.steps=3", prompts_of("q.txt"));
    train_well(1, "same", more);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_taken_whole),         cmocka_unit_test(a_limit_is_for_files),
        cmocka_unit_test(other_prompts_need_word_of_it), cmocka_unit_test(one_word_is_enough),
        cmocka_unit_test(the_same_prompts_are_the_same),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
