/* src/cli/args: values of every kind, and what is refused with which message. */
#include "support.h"
#include "base/mem.h"
#include "cli/args.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    bool json;
    const char *out, *sampler, *report;
    size_t steps;
    double scale;
    mbl_arg_texts_t sets, rest;
} options_t;

/* Splits `line` at blanks and parses it. */
static mbl_status_t parse(const char *line, options_t *o) {
    static const char *const samplers[] = {"euler", "dpm2", NULL};
    static char words[256];
    char *argv[32], *save = NULL;
    int argc = 0;
    bool helped;
    *o = (options_t){.steps = 16, .scale = 1};
    const mbl_arg_t args[] = {{"json", MBL_ARG_FLAG, &o->json, NULL, "j", 0, 0, 0, NULL},
                              {"out", MBL_ARG_TEXT, &o->out, "DIR", "o", true, 0, 0, NULL},
                              {"steps", MBL_ARG_COUNT, &o->steps, "N", "n", 0, 1, 256, NULL},
                              {"scale", MBL_ARG_NUMBER, &o->scale, "X", "x", 0, 0, 0, NULL},
                              {"sampler", MBL_ARG_CHOICE, &o->sampler, "S", "s", 0, 0, 0, samplers},
                              {"report", MBL_ARG_OUT, &o->report, "[FILE]", "r", 0, 0, 0, NULL},
                              {"set", MBL_ARG_TEXTS, &o->sets, "KEY=VALUE", "v", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"sample", "RUN.yaml", "Draws.", args, sizeof args / sizeof *args, 1, 1};
    snprintf(words, sizeof words, "sample %s", line);
    for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    return mbl_args_parse(&spec, argc, argv, &o->rest, &helped);
}

static void values(void **state) {
    (void)state;
    options_t o;
    assert_int_equal(
        parse("--out d --json --set a.b=1 run.yaml --set=c=2 --steps=9 --scale -1.5 --sampler dpm2", &o),
        MBL_OK);
    assert_true(o.json);
    assert_string_equal(o.out, "d");
    assert_int_equal(o.steps, 9);
    assert_near(o.scale, -1.5, 0);
    assert_string_equal(o.sampler, "dpm2");
    assert_int_equal(o.sets.count, 2);
    assert_string_equal(o.sets.items[0], "a.b=1");
    assert_string_equal(o.sets.items[1], "c=2");
    assert_int_equal(o.rest.count, 1);
    assert_string_equal(o.rest.items[0], "run.yaml");
    mbl_free(o.sets.items);
    mbl_free(o.rest.items);
    assert_int_equal(parse("--out d -- --json", &o), MBL_OK);
    assert_string_equal(o.rest.items[0], "--json");
    assert_null(o.report);
    assert_false(o.json);
    assert_int_equal(o.steps, 16);
    mbl_free(o.rest.items);
}

/* A file to write: named, or standard output where no name follows. */
static void outputs(void **state) {
    static const struct {
        const char *line, *report;
    } cases[] = {{"--out d run.yaml --report", "-"},
                 {"--report --out d run.yaml", "-"},
                 {"--report r.json --out d run.yaml", "r.json"},
                 {"--report=r.json --out d run.yaml", "r.json"},
                 {"--out d --report - run.yaml", "-"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options_t o;
        assert_int_equal(parse(cases[i].line, &o), MBL_OK);
        assert_string_equal(o.report, cases[i].report);
        assert_string_equal(o.out, "d");
        assert_string_equal(o.rest.items[0], "run.yaml");
        mbl_free(o.rest.items);
    }
}

static void refusals(void **state) {
    (void)state;
    const struct {
        const char *line, *message;
    } cases[] = {
        {"--out d run.yaml --stpes 3", "sample: --stpes: unknown option; did you mean --steps?"},
        {"--out d run.yaml --steps ten",
         "sample: --steps: \"ten\" is not a whole number; expected a whole number in [1, 256]"},
        {"--out d run.yaml --steps 0",
         "sample: --steps: \"0\" is out of range; expected a whole number in [1, 256]"},
        {"--out d run.yaml --steps -3", "--steps: \"-3\" is out of range"},
        {"--out d run.yaml --steps 1.5", "--steps: \"1.5\" is not a whole number"},
        {"--out d run.yaml --scale 0x3", "--scale: \"0x3\" is not a number"},
        {"--out d run.yaml --scale nan", "--scale: \"nan\" is not a number"},
        {"--out d run.yaml --sampler sde", "--sampler: \"sde\" is not a choice; expected one of euler, dpm2"},
        {"--out d run.yaml --steps", "--steps: has no value; expected --steps N"},
        {"--out --json run.yaml", "--out: has no value; expected --out DIR"},
        {"--out d --report run.yaml", "RUN.yaml is missing"}, /* taken as what to write */
        {"--out d run.yaml --json=yes", "--json: takes no value"},
        {"--out d --out e run.yaml", "--out: given twice"},
        {"run.yaml --set a=1", "sample: --out DIR is missing"},
        {"--out d --set a=1", "sample: RUN.yaml is missing; expected marble sample RUN.yaml"},
        {"--out d a.yaml b.yaml", "\"b.yaml\" is one argument too many"},
        {"--out d -j run.yaml", "\"-j\": options are written in full"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options_t o;
        size_t live = mbl_mem_live();
        mbl_status_t status = parse(cases[i].line, &o);
        if (status != MBL_ERR_USAGE || !strstr(mbl_fail_message(), cases[i].message))
            fail_msg("%s: %s \"%s\", expected ERR_USAGE with \"%s\"", cases[i].line, mbl_status_name(status),
                     mbl_fail_message(), cases[i].message);
        assert_int_equal(mbl_mem_live(), live);
    }
}

/* What a script's variable that is not set leaves: no path, no name. A phrase may be empty. */
static void empty_strings(void **state) {
    char empty[] = "", out[] = "--out", report[] = "--report", set[] = "--set", steps[] = "--steps",
         say[] = "--say", yaml[] = "run.yaml", d[] = "d", equals[] = "--out=", command[] = "sample";
    char *const lines[][4] = {{out, empty, yaml}, {equals, yaml},  {report, empty, yaml},
                              {set, empty, yaml}, {out, d, empty}, {steps, empty, yaml}};
    static const char *const words[] = {"--out: is given an empty string; expected --out DIR",
                                        "--out: is given an empty string",
                                        "--report: is given an empty string",
                                        "--set: is given an empty string",
                                        "\"\": an empty string is no RUN.yaml",
                                        "--steps: is given an empty string"};
    (void)state;
    for (size_t i = 0; i <= sizeof lines / sizeof *lines; i++) {
        const char *dir = NULL, *file = NULL;
        size_t n = 0;
        bool helped;
        mbl_arg_texts_t sets = {0}, says = {0}, rest = {0};
        const mbl_arg_t args[] = {{"out", MBL_ARG_TEXT, &dir, "DIR", "o", 0, 0, 0, NULL},
                                  {"steps", MBL_ARG_COUNT, &n, "N", "n", 0, 1, 256, NULL},
                                  {"report", MBL_ARG_OUT, &file, "[FILE]", "r", 0, 0, 0, NULL},
                                  {"say", MBL_ARG_PHRASES, &says, "TEXT", "s", 0, 0, 0, NULL},
                                  {"set", MBL_ARG_TEXTS, &sets, "KEY=VALUE", "v", 0, 0, 0, NULL}};
        const mbl_args_t spec = {"sample", "RUN.yaml", "Draws.", args, sizeof args / sizeof *args, 1, 1};
        char *argv[5] = {command, say, empty, say, yaml};
        int argc = 5;
        if (i < sizeof lines / sizeof *lines)
            for (argc = 1; argc < 4 && lines[i][argc - 1]; argc++)
                argv[argc] = lines[i][argc - 1];
        else
            argv[3] = yaml, argc = 4;
        mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
        if (i == sizeof lines / sizeof *lines) {
            assert_int_equal(status, MBL_OK);
            assert_int_equal(says.count, 1);
            assert_string_equal(says.items[0], "");
            mbl_free(says.items);
            mbl_free(rest.items);
        } else if (status != MBL_ERR_USAGE || !strstr(mbl_fail_message(), words[i])) {
            fail_msg("%s: \"%s\", expected \"%s\"", mbl_status_name(status), mbl_fail_message(), words[i]);
        }
    }
}

static void allocations_may_fail(void **state) {
    (void)state;
    for (size_t n = 1; n <= 2; n++) {
        options_t o;
        size_t live = mbl_mem_live();
        mbl_mem_fail_at(n);
        mbl_status_t status = parse("--out d --set a=1 run.yaml", &o);
        mbl_mem_fail_at(0);
        assert_int_equal(status, MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(values), cmocka_unit_test(outputs),
                                       cmocka_unit_test(refusals), cmocka_unit_test(empty_strings),
                                       cmocka_unit_test(allocations_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
