/* The same limits between ranks: micro-batches far above the batch, fewer evaluated prompts than ranks. */
#include "train_case.h"

/* No room for images that are not there: these would be 90 GB. */
static void micro_batches_far_above_the_batch(void **state) {
    (void)state;
    train_well(2, "large",
               "--set train.steps=2 --set rollout.micro_batch=65536 --set train.micro_batch=65536");
    train_well(1, "large1", "--set train.steps=2 --set rollout.micro_batch=16 --set train.micro_batch=16");
    same_lines("large1", "large", "metrics.jsonl", 1e-3, 2);
}

static void fewer_prompts_than_ranks(void **state) {
    char path[512];
    (void)state;
    train_well(3, "few", "--set train.steps=1 --set eval.prompts=1 --set log.samples_every=1");
    train_well(1, "few1", "--set train.steps=1 --set eval.prompts=1 --set log.samples_every=1");
    same_lines("few1", "few", "eval.jsonl", 1e-3, 2);
    snprintf(path, sizeof path, "%s/few/samples/step-000001.png", folder);
    free(read_whole(path, NULL));
    snprintf(path, sizeof path, "%s/few/samples/step-000001.json", folder);
    json_t *about = json_load_file(path, 0, NULL), *eval = lines_of("few", "eval.jsonl");
    const json_t *image = json_array_get(json_object_get(about, "images"), 0);
    assert_int_equal(json_array_size(json_object_get(about, "images")), 1);
    assert_true(strlen(json_string_value(json_object_get(image, "prompt"))) > 0);
    const json_t *rewards = json_object_get(json_array_get(eval, 1), "rewards"); /* of one image: its score */
    compare(json_object_get(json_object_get(rewards, "jpeg"), "mean"),
            json_object_get(json_object_get(image, "scores"), "jpeg"), 1e-6, "jpeg");
    snprintf(path, sizeof path, "%s/few/report.html", folder);
    char *page = read_whole(path, NULL);
    assert_non_null(strstr(page, json_string_value(json_object_get(about, "run"))));
    free(page);
    json_decref(about);
    json_decref(eval);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(micro_batches_far_above_the_batch),
        cmocka_unit_test(fewer_prompts_than_ranks),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
