/* prompts.sources, prompts.test_share and rewards[].applies_to in whole runs of marble train. */
#include "small_run.h"

/* Twelve signs as plain text and eight counts as GenEval writes them. */
static void write_files(void) {
    char text[4096] = "", count[4096] = "";
    static const char *const words[] = {"one", "two", "three", "four"}, *const colors[] = {"red", "blue"};
    for (int i = 0; i < 12; i++)
        sprintf(text + strlen(text), "a red sign that says \"%c7\"\n", "CHKLMPTUXZ13"[i]);
    for (int i = 0; i < 8; i++)
        sprintf(count + strlen(count),
                "{\"tag\": \"counting\", \"include\": [{\"class\": \"circle\", \"count\": %d}], \"prompt\": "
                "\"%s %s circles\"}\n",
                i % 4 + 1, words[i % 4], colors[i / 4]);
    write_lines("signs.txt", text);
    write_lines("counts.jsonl", count);
}

/* Options of a run on both, three signs for a count. */
static const char *both(const char *more) {
    static char text[2048];
    snprintf(text, sizeof text,
             "--set prompts.source=file --set 'prompts.sources=[{file: %s/signs.txt, weight: 3}, {file: "
             "%s/counts.jsonl, name: geneval}]' --set prompts.test_share=0.3 --set log.advantages_every=1 %s",
             folder, folder, more);
    return text;
}

static int prepare(void **state) {
    int failed = prepare_small(state);
    write_files();
    return failed;
}

/* The images that a run drew: how many of them show signs, which are the first ten training prompts. */
static size_t signs_of(const char *out, size_t *all) {
    json_t *lines = lines_of(out, "advantages.jsonl"), *line, *prompt;
    size_t signs = 0, i, j;
    *all = 0;
    json_array_foreach(lines, i, line) {
        json_array_foreach(json_object_get(line, "prompt"), j, prompt) {
            signs += json_integer_value(prompt) < 10;
            ++*all;
        }
    }
    json_decref(lines);
    return signs;
}

static double of_source(const json_t *line, const char *source, const char *reward) {
    const json_t *rewards = json_object_get(json_object_get(line, "reward_by_source"), source),
                 *value = json_object_get(rewards, reward);
    if (!value)
        fail_msg("no reward_by_source.%s.%s", source, reward);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Every step's means by source make those of all images: three signs for a count. */
static void means_are_by_source(const char *out) {
    json_t *lines = lines_of(out, "metrics.jsonl"), *line;
    size_t i;
    assert_int_equal(json_array_size(lines), 2);
    json_array_foreach(lines, i, line) {
        const json_t *all = json_object_get(line, "reward");
        assert_true(isnan(of_source(line, "geneval", "ocr")));
        assert_near(of_source(line, "signs", "ocr"), json_number_value(json_object_get(all, "ocr")), 1e-12);
        const double signs = of_source(line, "signs", "clean"), counts = of_source(line, "geneval", "clean");
        assert_true(signs != counts);
        assert_near(0.75 * signs + 0.25 * counts, json_number_value(json_object_get(all, "clean")), 1e-9);
    }
    json_decref(lines);
}

/* Both kinds in every epoch, by weight; evaluations by source; the same on other ranks and after a resume. */
static void sources_by_weight(void **state) {
    size_t all, signs;
    (void)state;
    train_well(1, "both", both("--set eval.prompts=6"));
    both_say("both", "prompts of signs: 10 for training");
    both_say("both", ", 3 of the 4 in an epoch");
    both_say("both", ", 1 of the 4 in an epoch");
    signs = signs_of("both", &all);
    assert_int_equal(4 * signs, 3 * all);
    assert_int_equal(all, 2 * 8);
    means_are_by_source("both");
    json_t *lines = lines_of("both", "eval.jsonl");
    const json_t *last = json_array_get(lines, json_array_size(lines) - 1),
                 *sources = json_object_get(last, "sources");
    double ocr[2] = {0};
    static const char *const names[] = {"signs", "geneval"};
    for (int s = 0; s < 2; s++) {
        const json_t *one = json_object_get(json_object_get(sources, names[s]), "ocr");
        ocr[s] = json_number_value(json_object_get(one, "n"));
    }
    assert_true(ocr[0] > 0);
    assert_near(ocr[1], 0, 0); /* a count quotes nothing */
    assert_near(
        ocr[0],
        json_number_value(json_object_get(json_object_get(json_object_get(last, "rewards"), "ocr"), "n")), 0);
    json_decref(lines);
    train_well(3, "three", both("--set eval.prompts=6"));
    signs = signs_of("three", &all);
    assert_int_equal(4 * signs, 3 * all);
    same_lines("both", "three", "eval.jsonl", 1e-4, 2);
    means_are_by_source("three");
    train_well(1, "on", both("--set eval.prompts=6 --set train.steps=1"));
    train_well(1, "on", both("--set eval.prompts=6 --resume auto"));
    same_checkpoint("both", "on", 2);
}

/* Another weight is other prompts. */
static void a_resume_knows_the_sources(void **state) {
    char more[4096];
    (void)state;
    snprintf(more, sizeof more, "%s --set prompts.sources.0.weight=2",
             both("--set train.steps=3 --resume auto"));
    assert_int_equal(train(1, "both", more), 2);
    check_times("both.log", "prompts of prompts.train; the list prompts.sources has", 1);
}

static void rewards_apply_to_some(void **state) {
    (void)state;
    train_well(
        1, "some",
        both("--set 'rewards=[{name: ocr, applies_to: quoted}, {name: jpeg, applies_to: metadata.tag}, "
             "{name: clean, applies_to: \"regex:(one|two) \"}, {name: color}]'"));
    json_t *lines = lines_of("some", "metrics.jsonl");
    const json_t *valid = json_object_get(json_array_get(lines, 0), "valid");
    assert_near(json_number_value(json_object_get(valid, "jpeg")), 2, 0); /* of 8 images, those of a count */
    assert_near(json_number_value(json_object_get(valid, "ocr")), 6, 0);
    json_decref(lines);
    check_times("some/run.yaml", "on_failure: skip, applies_to: \"regex:(one|two) \"", 1);
    assert_int_equal(train(1, "nobody", both("--set 'rewards=[{name: jpeg, applies_to: metadata.tags}]'")),
                     2);
    check_times(
        "nobody.log",
        "rewards.0.applies_to: metadata.tags: no prompt has metadata with the key tags; keys there are: "
        "tag, include",
        1);
    assert_int_equal(train(1, "regex", both("--set 'rewards=[{name: jpeg, applies_to: \"regex:(a\"}]'")), 2);
    check_times(
        "regex.log",
        "rewards.0.applies_to: \"regex:(a\": the pattern does not compile, at letter 3: missing closing "
        "parenthesis",
        1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sources_by_weight),
        cmocka_unit_test(a_resume_knows_the_sources),
        cmocka_unit_test(rewards_apply_to_some),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
