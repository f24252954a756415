/* marble eval on several ranks: two checkpoints against the base and each other, the same on one rank, two
 * and three; on emulated GPUs on one and two.   ctest-backends: cuda */
#include "eval_case.h"

static void several_ranks_say_the_same(void **state) {
    static const char two[] =
        "--checkpoint a/checkpoints/latest.h5 --checkpoint b=b/checkpoints/step-000003.h5 "
        "--prompts test --prompts few.txt --seeds 5,6 --resamples 500";
    static const char *const names[] = {"1.json", "2.json", "3.json"};
    json_t *found[3];
    int counts = on_gpu() ? 2 : 3;
    (void)state;
    for (int i = 0; i < counts; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "%s --json %s --markdown table.md", two, names[i]);
        eval_well(i + 1, arguments);
        found[i] = json_in(names[i]);
        compare(found[0], found[i], 1e-5, names[i]);
    }
    must_have("printed", "b: b/checkpoints/step-000003.h5, step 3, adapter ema\n");
    must_have("printed", "test: 24 images of each, 8 prompts, 2 seeds\n");
    must_have("printed", "few: 24 images of each, 3 prompts, 2 seeds\n");
    must_have("printed", "b against a@3\n");
    must_have("table.md", "### b against a@3\n\n| reward | difference |");
    const json_t *candidates = json_object_get(found[0], "candidates"),
                 *all = json_object_get(found[0], "all");
    assert_int_equal(json_array_size(candidates), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(candidates, 1), "name")), "a@3");
    assert_int_equal(json_array_size(json_object_get(all, "pairs")), 3);
    /* b against base is b against a and a against base, image by image */
    double difference[3];
    for (size_t i = 0; i < 3; i++) {
        const json_t *pair = json_object_get(json_array_get(json_object_get(all, "pairs"), i), "rewards");
        difference[i] = number(pair, "clean", "mean");
        assert_true(difference[i] != 0);
        assert_near(number(pair, "count", "n"), 2 * (3 + 4), 0); /* of twelve images: two prompts, one */
    }
    assert_near(difference[1], difference[0] + difference[2], 1e-8);
    for (int i = 0; i < counts; i++)
        json_decref(found[i]);
}

static void another_base(void **state) {
    (void)state;
    must_refuse_another_base(2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_ranks_say_the_same),
        cmocka_unit_test(another_base),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
