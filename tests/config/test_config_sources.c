/* src/config/sources: several files of training prompts in run.yaml; what goes together with them. */
#include "config_case.h"
#include "folder_case.h"

static void write_files(void **state) {
    (void)state;
    write_whole(in_folder("ocr.txt"), "a\n", 2);
    write_whole(in_folder("gen eval.jsonl"), "{\"prompt\": \"b\"}\n", 16);
}

#define HEAD "model: {path: .}\nrewards: [{name: ocr}]\nprompts: {source: file, groups: 4"

static void sources_are_read(void **state) {
    char text[2048], *before, *after;
    mbl_config_t *config, *again;
    write_files(state);
    snprintf(text, sizeof text,
             HEAD ", test_share: 0.1, sources: [{file: %s, weight: 2.5, name: signs}, {file: '%s'}]}\n",
             in_folder("ocr.txt"), in_folder("gen eval.jsonl"));
    assert_int_equal(parse(text, NULL, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 3), MBL_OK);
    assert_int_equal(config->prompts.sources.count, 2);
    const mbl_config_prompt_source_t *items = config->prompts.sources.items;
    assert_string_equal(items[0].name, "signs");
    assert_string_equal(items[1].name, "gen-eval");
    assert_near(items[0].weight, 2.5, 0);
    assert_near(items[1].weight, 1, 0);
    assert_near(config->prompts.test_share, 0.1, 0);
    assert_int_equal(mbl_config_json(config, &before), MBL_OK);
    assert_int_equal(parse(before, NULL, &again), MBL_OK);
    assert_int_equal(mbl_config_json(again, &after), MBL_OK);
    assert_string_equal(before, after);
    mbl_config_free(again);
    assert_int_equal(mbl_config_write(config, in_folder("run.yaml"), NULL), MBL_OK);
    assert_int_equal(mbl_config_load(in_folder("run.yaml"), NULL, 0, &again), MBL_OK);
    mbl_free(after);
    assert_int_equal(mbl_config_json(again, &after), MBL_OK);
    assert_string_equal(before, after);
    mbl_free(before);
    mbl_free(after);
    mbl_config_free(again);
    mbl_config_free(config);
}

/* Logged as problems, each with what is expected. */
static void what_is_none(void **state) {
    char text[1024];
    write_files(state);
    snprintf(text, sizeof text, HEAD ", test_share: 0.1}\n");
    REFUSED(text, "prompts.sources=x",
            "prompts.sources: \"x\" is not a list; expected a list of prompt files");
    REFUSED(text, "prompts.sources=[]", "prompts.sources: a list of 0; expected 1 to 32");
    REFUSED(text, "prompts.sources=[a]",
            "prompts.sources.0: \"a\" is not a mapping; expected {file: ocr.txt");
    REFUSED(text, "prompts.sources=[{weight: 2}]", "prompts.sources.0: has no file");
    REFUSED(text, "prompts.sources=[{file: nowhere.txt}]",
            "prompts.sources.0.file: \"nowhere.txt\" does not");
    REFUSED(text, "prompts.sources=[{fil: a}]", "prompts.sources.0.fil: unknown key; did you mean file?");
    REFUSED(text, "prompts.sources=[{name: a b}]", "prompts.sources.0.name: \"a b\" is not a name");
    REFUSED(text, "prompts.sources=[{weight: 0}]", "prompts.sources.0.weight: 0 is out of range");
    REFUSED(text, "prompts.sources=[{weight: 1, weight: 2}]", "prompts.sources.0.weight: given twice");
    REFUSED(text, "prompts.test_share=1", "prompts.test_share: 1 is out of range");
    snprintf(text, sizeof text, HEAD ", sources: [{file: %s}, {file: %s}]}\n", in_folder("ocr.txt"),
             in_folder("ocr.txt"));
    REFUSED(text, "seed=1", "prompts.sources.1.name: \"ocr\" is the name of prompts.sources.0 too");
}

static void check_says(const char *text, const char *says) {
    mbl_config_t *config;
    assert_int_equal(parse(text, NULL, &config), MBL_OK);
    assert_failed(mbl_config_check(config, 1), MBL_ERR_CONFIG, says);
    mbl_config_free(config);
}

static void what_does_not_go_together(void **state) {
    char text[2048];
    const char *file = in_folder("ocr.txt");
    write_files(state);
    snprintf(text, sizeof text, HEAD ", sources: [{file: %s}]}\n", file);
    check_says(text,
               "prompts.test: missing; prompts.source: file needs the path of a .txt or .jsonl file, or "
               "prompts.test_share");
    snprintf(text, sizeof text, HEAD ", sources: [{file: %s}], train: %s, test: %s}\n", file, file, file);
    check_says(text, "prompts.train: a file, while there is prompts.sources; expected one of the two");
    snprintf(text, sizeof text, HEAD ", train: %s, test: %s, test_share: 0.5}\n", file, file);
    check_says(text, "prompts.test: a file, while there is prompts.test_share; expected one of the two");
    check_says("model: {path: .}\nrewards: [{name: ocr}]\nprompts: {test_share: 0.5}\n",
               "prompts.test_share: 0.5, while prompts.source is signs; expected prompts.test_count");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sources_are_read),
        cmocka_unit_test(what_is_none),
        cmocka_unit_test(what_does_not_go_together),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
