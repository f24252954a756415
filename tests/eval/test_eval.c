/* marble eval in one process: the same numbers as the run reported, and what it refuses before anything is
 * drawn. */
#include "eval_case.h"

/* From the run's own noise, its last evaluation again. */
static void as_the_run_reported(void **state) {
    static const char *const rewards[] = {"count", "color", "clean"};
    (void)state;
    eval_well(1, "--checkpoint b/checkpoints/latest.h5 --set seed=8 --json");
    json_t *found = json_in("printed"), *lines = lines_of("b", "eval.jsonl");
    const json_t *last = json_object_get(json_array_get(lines, json_array_size(lines) - 1), "rewards");
    const json_t *first = json_object_get(json_array_get(lines, 0), "rewards");
    assert_true(json_array_size(lines) == 2);
    for (size_t k = 0; k < 3; k++) {
        assert_near(number(json_object_get(found, "trained"), rewards[k], "mean"),
                    number(last, rewards[k], "mean"), 1e-7);
        assert_near(number(json_object_get(found, "difference"), rewards[k], "mean"),
                    number(last, rewards[k], "change"), 1e-7);
        assert_near(number(json_object_get(found, "base"), rewards[k], "mean"),
                    number(first, rewards[k], "mean"), 1e-7);
    }
    /* the weights themselves are another adapter than their average */
    eval_well(1, "--checkpoint b/checkpoints/latest.h5 --set seed=8 --adapter current --json");
    json_t *current = json_in("printed");
    assert_true(number(json_object_get(current, "trained"), "clean", "mean") !=
                number(json_object_get(found, "trained"), "clean", "mean"));
    json_decref(found);
    json_decref(current);
    json_decref(lines);
}

static void the_base_alone(void **state) {
    (void)state;
    eval_well(1, "--set eval.prompts=3");
    must_have("printed",
              "test: 3 images of each, 3 prompts (the first of 8; --set eval.prompts=8 takes all), 1 "
              "seed\n");
    char *text = read_in("printed");
    assert_null(strstr(text, "z-score"));
    free(text);
}

static void refusals(void **state) {
    static const struct {
        int code;
        const char *arguments, *message;
    } cases[] = {
        {2, "--checkpoint none.h5",
         "--checkpoint: there is no file none.h5; expected one of marble train such as"},
        {1, "--checkpoint run.yaml", "run.yaml: cut off, or no checkpoint of marble"},
        {2, "--checkpoint base/checkpoints/latest.h5",
         "a checkpoint of kind \"pretrain\"; expected one of marble train"},
        {2, "--checkpoint =a/checkpoints/latest.h5", "expected FILE or NAME=FILE"},
        {2, "--checkpoint base=a/checkpoints/latest.h5", "the name base is taken; expected another"},
        {2, "--checkpoint a/checkpoints/latest.h5 --checkpoint x=a/checkpoints/latest.h5",
         "a/checkpoints/latest.h5 is given twice"},
        {2, "--checkpoint a/checkpoints/latest.h5 --set model.lora.rank=5",
         "--set: model.lora.rank is 5, in the checkpoint a/checkpoints/latest.h5 it is "},
        {2, "--lora none.safetensors",
         "--lora: there is no file or folder none.safetensors; expected a LoRA"},
        {2, "--lora =few.txt", "--lora: \"=few.txt\"; expected FILE or NAME=FILE"},
        {1, "--lora few.txt", "few.txt"},
        {2, "--prompts drawbench", "--prompts: \"drawbench\" is no set of prompts; expected test or train"},
        {2, "--prompts none.txt", "--prompts: there is no file none.txt; expected test or train"},
        {2, "--prompts few.txt --prompts ./few.txt --prompts ./few.txt",
         "--prompts: ./few.txt is given twice"},
        {2, "--seeds 1,x",
         "--seeds: \"1,x\": \"x\" is no whole number up to 2^53; expected a list such as 1,2,3"},
        {2, "--seeds 1,,2", "--seeds: \"1,,2\": \"\" is no whole number"},
        {2, "--seeds -1", "\"-1\" is no whole number"},
        {2, "--seeds 3,2,3", "3 is there twice; expected once"},
        {2, "--json none/x.json", "--json: none/x.json cannot be written: none/: No such file or directory"},
        {2, "--markdown a", "--markdown: a is a folder; expected a file in it"},
        {2, "--json --markdown", "both to standard output; expected a file for one of them"},
        {2, "--resamples 5", "--resamples: \"5\" is out of range"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = eval(1, cases[i].arguments);
        char *said = read_in("said"), *printed = read_in("printed");
        if (code != cases[i].code || !strstr(said, cases[i].message) || printed[0])
            fail_msg("marble eval %s: exit %d, expected %d and \"%s\":\n%s%s", cases[i].arguments, code,
                     cases[i].code, cases[i].message, said, printed);
        free(said);
        free(printed);
    }
}

/* Checkpoints of several layouts can be compared; one that RUN.yaml does not have is named. */
static void another_adapter_is_named(void **state) {
    (void)state;
    eval_well(1, "--checkpoint a/checkpoints/latest.h5 --set eval.prompts=2");
    char *said = read_in("said");
    assert_null(strstr(said, "model.lora"));
    free(said);
    eval_well(1, "--checkpoint b/checkpoints/latest.h5 --set eval.prompts=2");
    must_have("said",
              "b/checkpoints/latest.h5: model.lora.rank is 2 in the checkpoint, whose adapter is used; "
              "the configuration has 4");
}

/* A checkpoint's adapter, exported, is another candidate with the same images. */
static void adapters_of_others(void **state) {
    static const char *const rewards[] = {"count", "color", "clean"};
    char command[1024];
    (void)state;
    snprintf(command, sizeof command,
             "cd %s && %s/marble export a/checkpoints/latest.h5 --lora theirs.safetensors >/dev/null 2>&1",
             folder, MBL_BINARY_DIR);
    assert_int_equal(system(command), 0);
    eval_well(1, "--checkpoint a/checkpoints/latest.h5 --lora theirs.safetensors --json");
    json_t *found = json_in("printed");
    const json_t *second = json_array_get(json_object_get(found, "candidates"), 2);
    assert_string_equal(json_string_value(json_object_get(second, "name")), "theirs");
    assert_string_equal(json_string_value(json_object_get(second, "lora")), "theirs.safetensors");
    const json_t *scores = json_object_get(json_object_get(found, "all"), "scores");
    for (size_t k = 0; k < 3; k++) {
        double mean[3];
        for (size_t i = 0; i < 3; i++)
            mean[i] = number(json_object_get(json_array_get(scores, i), "rewards"), rewards[k], "mean");
        assert_near(mean[2], mean[1], 1e-5);
        assert_true(k != 2 || mean[1] != mean[0]); /* and not those of the base */
    }
    json_decref(found);
    eval_well(1, "--lora theirs.safetensors --set eval.prompts=2");
    must_have("printed", "theirs: theirs.safetensors\n");
}

/* What cannot be printed costs no file, and a file that cannot be written not the other one. */
static void a_closed_pipe_costs_no_file(void **state) {
    char command[1024];
    (void)state;
    snprintf(
        command, sizeof command,
        "cd %s && rm -f f.json f.md && %s/marble eval run.yaml --set device=%s --set eval.prompts=2 --json "
        "f.json --markdown f.md >/dev/full 2>said",
        folder, MBL_BINARY_DIR, test_backend());
    int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    must_have("said", "eval: the answer cannot be written: No space left on device");
    json_decref(json_in("f.json"));
    must_have("f.md", "| color |");
}

static void another_base(void **state) {
    (void)state;
    must_refuse_another_base(1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_run_reported),
        cmocka_unit_test(the_base_alone),
        cmocka_unit_test(refusals),
        cmocka_unit_test(another_adapter_is_named),
        cmocka_unit_test(adapters_of_others),
        cmocka_unit_test(a_closed_pipe_costs_no_file),
        cmocka_unit_test(another_base),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
