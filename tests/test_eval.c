/* marble eval, as a user would: two checkpoints against the base and each other, on one rank and on several;
 * the same numbers as the run reported; what it refuses before anything is drawn. */
#include "runs.h"

#include <unistd.h>

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}\n"
    "rollout: {steps: 3, solver: euler, micro_batch: 8}\n"
    "train: {steps: 3, lr: 1.0e-2, beta: 1.0, micro_batch: 8, timestep_fraction: 0.7, old_decay: {rate: 1, "
    "hold: 0.5}}\n"
    "rewards: [{name: count}, {name: color}, {name: clean}]\n"
    "eval: {every: 3, prompts: 12, steps: 2, seed: 99}\n"
    "checkpoint: {every: 3, keep: 0}\n"
    "log: {level: warn, samples_every: 0}\n";
static const char prompts[] = "three blue circles\na red sign that says \"K7\"\ngreen above purple\n";

static int prepare(void **state) {
    char path[512];
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    write_whole(path, config, sizeof config - 1);
    snprintf(path, sizeof path, "%s/few.txt", folder);
    write_whole(path, prompts, sizeof prompts - 1);
    make_tiny_model("base");
    train_well(1, "a", "");
    train_well(1, "b", "--set seed=8 --set model.lora.rank=2 --set train.lr=3e-2");
    return 0;
}

/* marble eval run.yaml in the test's folder; its exit code. What it prints goes to folder/printed and
 * folder/said. */
static int eval(int ranks, const char *arguments) {
    char command[4096];
    snprintf(command, sizeof command,
             "cd %s && OMP_NUM_THREADS=1 %s/tests/with_ranks %d %s/marble eval run.yaml %s >printed 2>said",
             folder, MBL_SOURCE_DIR, ranks, MBL_BINARY_DIR, arguments);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *read_in(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return read_whole(path, NULL);
}

static void must_have(const char *file, const char *words) {
    char *text = read_in(file);
    if (!strstr(text, words))
        fail_msg("\"%s\" is not in %s:\n%s", words, file, text);
    free(text);
}

static void eval_well(int ranks, const char *arguments) {
    int code = eval(ranks, arguments);
    if (code != 0)
        fail_msg("exit %d of marble eval %s\n%s", code, arguments, read_in("said"));
}

static json_t *json_in(const char *name) {
    char *text = read_in(name);
    json_t *out = json_loads(text, 0, NULL);
    if (!out)
        fail_msg("%s: not JSON: %s", name, text);
    free(text);
    return out;
}

static double number(const json_t *object, const char *reward, const char *key) {
    const json_t *value = json_object_get(json_object_get(object, reward), key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void several_ranks_say_the_same(void **state) {
    static const char two[] =
        "--checkpoint a/checkpoints/latest.h5 --checkpoint b=b/checkpoints/step-000003.h5 "
        "--prompts test --prompts few.txt --seeds 5,6 --resamples 500";
    static const char *const names[] = {"1.json", "2.json", "3.json"};
    json_t *found[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "%s --json %s --markdown table.md", two, names[i]);
        eval_well(i + 1, arguments);
        found[i] = json_in(names[i]);
        compare(found[0], found[i], 1e-5, names[i]);
    }
    must_have("printed", "b: b/checkpoints/step-000003.h5, step 3, adapter ema\n");
    must_have("printed", "test: 24 pictures of each, 8 prompts, 2 seeds\n");
    must_have("printed", "few: 24 pictures of each, 3 prompts, 2 seeds\n");
    must_have("printed", "b against a@3\n");
    must_have("table.md", "### b against a@3\n\n| reward | difference |");
    const json_t *entrants = json_object_get(found[0], "entrants"), *all = json_object_get(found[0], "all");
    assert_int_equal(json_array_size(entrants), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(entrants, 1), "name")), "a@3");
    assert_int_equal(json_array_size(json_object_get(all, "pairs")), 3);
    /* b against base is b against a and a against base, picture by picture */
    double difference[3];
    for (size_t i = 0; i < 3; i++) {
        const json_t *pair = json_object_get(json_array_get(json_object_get(all, "pairs"), i), "rewards");
        difference[i] = number(pair, "clean", "mean");
        assert_true(difference[i] != 0);
        assert_near(number(pair, "count", "n"), 2 * (3 + 4), 0); /* of twelve pictures: two prompts, one */
    }
    assert_near(difference[1], difference[0] + difference[2], 1e-8);
    for (int i = 0; i < 3; i++)
        json_decref(found[i]);
}

/* From the run's own noise, its last evaluation again. */
static void as_the_run_reported(void **state) {
    static const char *const rewards[] = {"count", "color", "clean"};
    (void)state;
    eval_well(1, "--checkpoint b/checkpoints/latest.h5 --set seed=8 --json");
    json_t *found = json_in("printed"), *lines = lines_of("b", "eval.jsonl");
    const json_t *last = json_array_get(lines, json_array_size(lines) - 1);
    assert_true(json_array_size(lines) == 2);
    for (size_t k = 0; k < 3; k++) {
        assert_near(number(json_object_get(found, "trained"), rewards[k], "mean"),
                    number(last, rewards[k], "mean"), 1e-7);
        assert_near(number(json_object_get(found, "difference"), rewards[k], "mean"),
                    number(last, rewards[k], "change"), 1e-7);
        assert_near(number(json_object_get(found, "base"), rewards[k], "mean"),
                    number(json_array_get(lines, 0), rewards[k], "mean"), 1e-7);
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
              "test: 3 pictures of each, 3 prompts (the first of 8; --set eval.prompts=8 takes all), 1 "
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
        {2, "--checkpoint none.h5", "--checkpoint: there is no file none.h5; one of marble train such as"},
        {1, "--checkpoint run.yaml", "run.yaml: cut off, or no checkpoint of marble"},
        {2, "--checkpoint base/checkpoints/latest.h5",
         "a checkpoint of kind \"pretrain\"; one of marble train"},
        {2, "--checkpoint =a/checkpoints/latest.h5", "FILE or NAME=FILE would be right"},
        {2, "--checkpoint base=a/checkpoints/latest.h5", "the name base is taken; another would be right"},
        {2, "--checkpoint a/checkpoints/latest.h5 --checkpoint x=a/checkpoints/latest.h5",
         "a/checkpoints/latest.h5 is given twice"},
        {2, "--prompts drawbench", "--prompts: \"drawbench\" is no set of prompts; test or train"},
        {2, "--prompts none.txt", "--prompts: there is no file none.txt; test or train"},
        {2, "--prompts few.txt --prompts ./few.txt --prompts ./few.txt",
         "--prompts: ./few.txt is given twice"},
        {2, "--seeds 1,x", "--seeds: \"1,x\": \"x\" is no whole number up to 2^53; a list such as 1,2,3"},
        {2, "--seeds 1,,2", "--seeds: \"1,,2\": \"\" is no whole number"},
        {2, "--seeds -1", "\"-1\" is no whole number"},
        {2, "--seeds 3,2,3", "3 is there twice; once would be right"},
        {2, "--json none/x.json", "--json: none/x.json cannot be written: none/: No such file or directory"},
        {2, "--markdown a", "--markdown: a is a folder; a file in it would be right"},
        {2, "--json --markdown", "both to standard output; a file for one of them would be right"},
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

/* Another base model is known by its tensors, and refused before anything is drawn. */
static void another_base(void **state) {
    char command[1024];
    (void)state;
    snprintf(command, sizeof command, "cd %s && cp -r base/model other", folder);
    assert_int_equal(system(command), 0);
    char path[512];
    size_t size;
    snprintf(path, sizeof path, "%s/other/transformer/diffusion_pytorch_model.safetensors", folder);
    char *bytes = read_whole(path, &size);
    bytes[size - 2] ^= 1;
    write_whole(path, bytes, size);
    free(bytes);
    for (int ranks = 1; ranks <= 2; ranks++) {
        assert_int_equal(eval(ranks, "--checkpoint a/checkpoints/latest.h5 --set model.path=other --json"),
                         2);
        must_have("said", "a/checkpoints/latest.h5: made on another base model: its model_digest is ");
        must_have("said", "/other is ");
        char *printed = read_in("printed");
        assert_null(strstr(printed, "base"));
        free(printed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_ranks_say_the_same),
        cmocka_unit_test(as_the_run_reported),
        cmocka_unit_test(the_base_alone),
        cmocka_unit_test(refusals),
        cmocka_unit_test(another_base),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
