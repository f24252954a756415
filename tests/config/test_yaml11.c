/* src/config/yaml_write and the resolved run.yaml: what other readers of YAML, of version 1.1 (PyYAML), take
 * it for, and what comes back when they have written it again. */
#include "config_case.h"

#include "config/yaml.h"

#include <ctype.h>
#include <float.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *written(double value) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    mbl_yaml_write_number(out, value);
    fclose(out);
    return text;
}

/* [-+]?[0-9]+ or [-+]?[0-9]+\.[0-9]*([eE][-+][0-9]+)?: what YAML 1.1 in PyYAML takes for a number of base 10.
 */
static bool is_number_in_yaml11(const char *text) {
    text += *text == '-' || *text == '+';
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || (text[0] == '0' && digits > 1))
        return false;
    text += digits;
    if (!*text)
        return true;
    if (*text++ != '.')
        return false;
    text += strspn(text, "0123456789");
    if (*text == 'e' || *text == 'E') {
        if (text[1] != '-' && text[1] != '+')
            return false;
        text += 2;
        if (!isdigit((unsigned char)*text))
            return false;
        text += strspn(text, "0123456789");
    }
    return !*text;
}

static void numbers_are_numbers(void **state) {
    static const double values[] = {0,        1,      -3,     0.1,     1e-9,     1e-8,    1e-4,
                                    3e-4,     2.5e-7, 1e15,   1e16,    1e22,     1.5e300, DBL_MIN,
                                    DBL_MAX,  5e-324, -1e-30, 1 / 3.0, 1e15 + 1, 0.5,     123456.75,
                                    1e-5 / 3, 9.5e15, 1e100,  -7e-12};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char *text = written(values[i]);
        if (!is_number_in_yaml11(text) || strtod(text, NULL) != values[i])
            fail_msg("%.17g is written as %s", values[i], text);
        free(text);
    }
}

/* ---- words ---- */

static void truth_values_are_on_and_off(void **state) {
    static const char *const on[] = {"on", "\"on\"", "true", "True", "yes", "ON", "y"}, *const off[] = {
                                                                                            "off",   "'off'",
                                                                                            "false", "FALSE",
                                                                                            "no",    "Off"};
    char set[64];
    mbl_config_t *config;
    (void)state;
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < (side ? sizeof off / sizeof *off : sizeof on / sizeof *on); i++) {
            snprintf(set, sizeof set, "cuda.graphs=%s", side ? off[i] : on[i]);
            if (parse(full, set, &config) != MBL_OK)
                fail_msg("%s: %s", set, mbl_fail_message());
            assert_int_equal(config->cuda.graphs, side ? MBL_CONFIG_GRAPHS_OFF : MBL_CONFIG_GRAPHS_ON);
            mbl_config_free(config);
        }
    REFUSED(full, "cuda.graphs='true'", "\"true\" is not a choice", "on, off");
    REFUSED(full, "cuda.graphs=1", "is not a choice", "on, off");
    REFUSED(full, "device=true", "\"true\" is not a choice", "auto, cpu, cuda");
}

/* Any text through --set: quotes of both kinds, what YAML has meanings for, control characters. */
static void quoted_texts_come_back(void **state) {
    static const char *const texts[] = {
        "it's/base", "a \"b\" c", "x: #y",     "- a",      "back\\slash",
        "{a: b}",    "&a *b !c",  "tab\there", "\x01\x1f", "\xc3\xa4 \xe2\x82\xac",
        "  two  ",   "on",        "1e-3",      "",         "line\nbreak",
        "%d%s"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mbl_yaml_node_t *node = NULL;
        mbl_yaml_problem_t problem;
        char *quoted = mbl_yaml_quoted(texts[i]);
        assert_non_null(quoted);
        if (mbl_yaml_parse(quoted, strlen(quoted), 1, &node, &problem) != MBL_OK)
            fail_msg("%s: %s", quoted, problem.text);
        assert_string_equal(node->text, texts[i]);
        assert_true(node->quoted);
        mbl_yaml_free(node);
        mbl_free(quoted);
    }
}

/* What run.yaml cannot hold, and so could not be resumed from, is refused before a step is made. */
static void folders_that_run_yaml_cannot_name_are_refused(void **state) {
    static const char *const names[] = {"caf\xe9", "new\nline", "\xef\xbf\xbd caf\xc3\xa9 it's"};
    char folder[256], here[512], path[512];
    mbl_config_t *config;
    (void)state;
    temporary_folder(folder);
    assert_non_null(getcwd(here, sizeof here));
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(mkdir(path, 0777), 0);
        assert_int_equal(chdir(path), 0);
        mbl_status_t status = parse("model: {path: .}\nrewards: [{name: ocr}]\n", NULL, &config);
        assert_int_equal(chdir(here), 0);
        assert_int_equal(status, i < 2 ? MBL_ERR_CONFIG : MBL_OK);
        if (i < 2)
            assert_non_null(strstr(mbl_fail_message(), "model.path: . lies in a folder whose name"));
        else
            mbl_config_free(config);
    }
    remove_folder(folder);
}

static void a_set_below_a_shorthand(void **state) {
    mbl_config_t *config;
    (void)state;
    const char *sets[] = {"checkpoint.keep=7", "checkpoint.keep.every=2"};
    assert_int_equal(mbl_config_parse(full, strlen(full), "run.yaml", sets, 2, &config), MBL_OK);
    assert_int_equal(config->checkpoint.keep.last, 7);
    assert_int_equal(config->checkpoint.keep.every, 2);
    mbl_config_free(config);
    static const char yaml[] = "model: {path: .}\nrewards: [{name: ocr}]\ncheckpoint: {keep: 5}\n";
    assert_int_equal(parse(yaml, "checkpoint.keep.every=4", &config), MBL_OK);
    assert_int_equal(config->checkpoint.keep.last, 5);
    assert_int_equal(config->checkpoint.keep.every, 4);
    mbl_config_free(config);
    REFUSED(yaml, "checkpoint.keep.evry=4", "did you mean checkpoint.keep.every?");
    REFUSED(full, "seed.x=4", "\"x\" lies below a single value");
}

/* ---- through PyYAML ---- */

/* "python3 file" of an interpreter that has PyYAML, NULL where there is none. */
static const char *python(void) {
    static const char *const pythons[] = {"python3", "/usr/bin/python3"};
    char command[128];
    for (size_t i = 0; i < sizeof pythons / sizeof *pythons; i++) {
        snprintf(command, sizeof command, "%s -c 'import yaml' 2>/dev/null", pythons[i]);
        if (system(command) == 0)
            return pythons[i];
    }
    return NULL;
}

static const char script[] = "import json, sys, yaml\n"
                             "tree = yaml.safe_load(open(sys.argv[1] + '/run.yaml'))\n"
                             "json.dump(tree, open(sys.argv[1] + '/python.json', 'w'))\n"
                             "yaml.safe_dump(tree, open(sys.argv[1] + '/again.yaml', 'w'))\n"
                             "yaml.safe_dump(tree, open(sys.argv[1] + '/flow.yaml', 'w'), "
                             "default_flow_style=True, allow_unicode=True)\n";

/* Every value of `ours`, the JSON of the configuration, is in Python's tree with the same type and value; a
 * whole number may be written for a real one. */
static void same_tree(const json_t *ours, const json_t *theirs, const char *where) {
    const char *key;
    json_t *value;
    size_t i;
    char path[256];
    if (json_is_number(ours) && json_is_number(theirs)) {
        if (json_number_value(ours) != json_number_value(theirs))
            fail_msg("%s: %.17g against %.17g", where, json_number_value(ours), json_number_value(theirs));
        return;
    }
    if (json_typeof(ours) != json_typeof(theirs)) {
        char *a = json_dumps(ours, JSON_ENCODE_ANY), *b = json_dumps(theirs, JSON_ENCODE_ANY);
        fail_msg("%s: %s against %s", where, a, b);
    }
    if (json_is_string(ours))
        assert_string_equal(json_string_value(ours), json_string_value(theirs));
    json_object_foreach((json_t *)(uintptr_t)ours, key, value) {
        snprintf(path, sizeof path, "%.150s.%.80s", where, key);
        if (!json_object_get(theirs, key))
            fail_msg("%s: missing", path);
        same_tree(value, json_object_get(theirs, key), path);
    }
    json_array_foreach(ours, i, value) {
        snprintf(path, sizeof path, "%.200s[%zu]", where, i);
        same_tree(value, json_array_get(theirs, i), path);
    }
    assert_int_equal(json_array_size(ours), json_array_size(theirs));
}

static void pyyaml_reads_and_writes_the_same(void **state) {
    char folder[256], path[400], base[400], command[1200], *text;
    mbl_config_t *config, *again;
    const char *interpreter = python();
    (void)state;
    if (!interpreter) {
        print_message("no PyYAML here\n");
        skip();
    }
    temporary_folder(folder);
    snprintf(base, sizeof base,
             "%s/it's a \"base\": #1, %%s & folder of a very long name that is folded by those who fold",
             folder);
    snprintf(command, sizeof command, "mkdir \"$BASE\"");
    assert_int_equal(setenv("BASE", base, 1), 0);
    assert_int_equal(system(command), 0);
    char *quoted = mbl_yaml_quoted(base), *set = mbl_format("model.path=%s", quoted);
    const char *sets[] = {
        set,
        "train.adam_eps=1e-9",
        "train.lr=1e-4",
        "train.kl=0",
        "train.beta=1",
        "cuda.graphs=off",
        "rollout.merge=never",
        "rewards.0.min=1e-7",
        "rewards.1.options={tiny: 1e-9, huge: 1.5e300, whole: 2.0, n: 12, yes: 'no', null: ~, text: "
        "\"1.5\", list: [on, '0777', '12:30:45', 2024-01-01], deep: {a: [1e22, -0.5]}}",
        "model.lora.targets=[attn.to_q, 'on', '1.5', 'null', 'a: b', \"it's\"]",
        "stages=[{steps: 10, rewards: [ocr], weights: [1e-3]}, {steps: 20, rewards: [ocr, small]}]"};
    if (mbl_config_parse(full, sizeof full - 1, "run.yaml", sets, sizeof sets / sizeof *sets, &config) !=
        MBL_OK)
        fail_msg("%s", mbl_fail_message());
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    assert_int_equal(mbl_config_write(config, path, NULL), MBL_OK);
    snprintf(path, sizeof path, "%s/script.py", folder);
    write_whole(path, script, strlen(script));
    snprintf(command, sizeof command, "%s %s %s", interpreter, path, folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(mbl_config_json(config, &text), MBL_OK);
    snprintf(path, sizeof path, "%s/python.json", folder);
    json_t *ours = json_loads(text, 0, NULL), *theirs = json_load_file(path, 0, NULL);
    assert_non_null(ours);
    assert_non_null(theirs);
    same_tree(ours, theirs, "run.yaml");
    json_decref(ours);
    json_decref(theirs);
    static const char *const names[] = {"run", "again", "flow"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *back;
        snprintf(path, sizeof path, "%s/%s.yaml", folder, names[i]);
        if (mbl_config_load(path, NULL, 0, &again) != MBL_OK)
            fail_msg("%s: %s", names[i], mbl_fail_message());
        assert_int_equal(mbl_config_json(again, &back), MBL_OK);
        json_t *was = json_loads(text, 0, NULL), *is = json_loads(back, 0, NULL);
        if (!json_equal(was, is)) /* the order of options may be another */
            fail_msg("%s:\n%s\nagainst\n%s", names[i], back, text);
        json_decref(was);
        json_decref(is);
        mbl_free(back);
        mbl_config_free(again);
    }
    mbl_free(text);
    mbl_free(set);
    mbl_free(quoted);
    mbl_config_free(config);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_numbers),
        cmocka_unit_test(truth_values_are_on_and_off),
        cmocka_unit_test(quoted_texts_come_back),
        cmocka_unit_test(a_set_below_a_shorthand),
        cmocka_unit_test(pyyaml_reads_and_writes_the_same),
        cmocka_unit_test(folders_that_run_yaml_cannot_name_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
