/* src/config/yaml_words.c: what people get wrong in run.yaml, in words that say what to change; and names of
 * models on a hub where a folder is expected. */
#include "config_case.h"

#include "base/suggest.h"

#include <sys/stat.h>
#include <unistd.h>

static void tabs(void **state) {
    (void)state;
    REFUSED("seed: 1\ntrain:\n\tlr: 1e-4\n", NULL, "run.yaml:3", "a tab in front of \"lr: 1e-4\"",
            "expected spaces");
    REFUSED("train:\n  lr: 1e-4\n  \tbeta: 1\n", NULL, "run.yaml:3", "a tab in front of \"beta: 1\"");
    REFUSED("seed: @1\n", NULL, "run.yaml:1",
            "\"seed: @1\" has a tab where YAML takes none, or a value that begins");
}

static void indents(void **state) {
    (void)state;
    REFUSED("train:\n  lr: 1e-4\n    beta: 1\n", NULL, "run.yaml:3",
            "\"beta: 1\" is indented by 4, further than the line above (2)", "expected one indent");
    REFUSED("seed: 1\n\n# note\n  train: {lr: 1e-4}\n", NULL, "run.yaml:4",
            "is indented by 2 (the line above: 0)");
    REFUSED("train:\n    lr: 1e-4\n  beta: 1\n", NULL, "run.yaml:3",
            "\"beta: 1\" is indented by 2 (the line above: 4) and belongs to no section");
    REFUSED("rewards:\n  - {name: ocr}\n - {name: count}\n", NULL, "run.yaml:3",
            "\"- {name: count}\" is indented by 1");
}

static void brackets_quotes_and_colons(void **state) {
    (void)state;
    REFUSED("train: {lr: 1e-4\nseed: 3\n", NULL, "a { without its }, or a comma missing");
    REFUSED("rewards: [{name: ocr}\nseed: 3\n", NULL, "a [ without its ], or a comma missing");
    REFUSED("seed: \"42\ntrain: 3\n", NULL, "begins with a quote and has none at its end");
    REFUSED("model: path: x\n", NULL, "run.yaml:1", "has a second \": \"");
}

/* Any text that the parser refuses, wherever its problem lies: no crash, and some words. */
static void any_damage_has_words(void **state) {
    (void)state;
    char text[sizeof full];
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t i = 0; i < sizeof full - 1; i += 3)
        for (const char *c = "\t{[\"':@\n-"; *c; c++) {
            mbl_config_t *config = NULL;
            memcpy(text, full, sizeof full);
            text[i] = *c;
            if (parse(text, NULL, &config) == MBL_OK)
                mbl_config_free(config);
            else
                assert_true(strlen(mbl_fail_message()) > 10);
        }
    mbl_log_set_level(MBL_LOG_INFO);
}

static void names_on_a_hub(void **state) {
    (void)state;
    REFUSED("model: {path: stabilityai/stable-diffusion-3.5-medium}\n", NULL, "run.yaml:1", "model.path",
            "looks like a model's name on a hub", "expected the path of a folder");
    assert_true(mbl_is_hub_name("owner/name-3.5_x"));
    static const char *const others[] = {"name", "/abs/path", "./owner/name", "../name", "a/b/c", "owner/",
                                         "/",    "",          "my owner/name"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (mbl_is_hub_name(others[i]))
            fail_msg("%s", others[i]);
    char folder[256]; /* a folder that is there was meant, and what is in it mistyped */
    temporary_folder(folder);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(mkdir("owner", 0700), 0);
    assert_false(mbl_is_hub_name("owner/name"));
    assert_int_equal(chdir("/"), 0);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tabs),
        cmocka_unit_test(indents),
        cmocka_unit_test(brackets_quotes_and_colons),
        cmocka_unit_test(any_damage_has_words),
        cmocka_unit_test(names_on_a_hub),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
