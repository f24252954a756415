/* Runs on a folder as it is published, with three text encoders and a vae: training, evaluation, resume and
 * ranks on images that the vae decodes, larger than latents and not square.   ctest-backends: cuda
 */
#include "runs.h"

static const char config[] = "seed: 7\n"
                             "precision: f32\n"
                             "threads: 1\n"
                             "model: {path: model, lora: {rank: 2, alpha: 4}}\n"
                             "prompts: {source: file, train: prompts.txt, test: prompts.txt, groups: 2, "
                             "group_size: 2, max_tokens: 28}\n"
                             "rollout: {steps: 2, solver: euler, height: 32, width: 48, micro_batch: 3}\n"
                             "train: {steps: 2, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 2, "
                             "timestep_fraction: 0.5}\n"
                             "rewards: [{name: clean}, {name: jpeg}]\n"
                             "eval: {every: 2, prompts: 3, steps: 2}\n"
                             "checkpoint: {every: 1, keep: 0}\n"
                             "log: {level: info, samples_every: 2}\n";

static int prepare(void **state) {
    (void)state;
    char command[2048];
    make_folder(config);
    snprintf(
        command, sizeof command,
        "cd '%s' && mkdir model 'model/vae copy' && cp -r %s/tests/golden/prompt/* model && cp -r "
        "%s/tests/golden/pipeline/* model && printf 'a red sign\\ntwo blue circles\\nthree\\n' >prompts.txt",
        folder, MBL_SOURCE_DIR, MBL_SOURCE_DIR);
    return system(command);
}

static char *log_of(const char *out) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.log", folder, out);
    return read_whole(path, NULL);
}

static void log_has(const char *out, const char *text) {
    char *log = log_of(out);
    if (!strstr(log, text))
        fail_msg("%s.log lacks \"%s\":\n%s", out, text, log);
    free(log);
}

/* Width and height that a PNG begins with. */
static void png_size(const char *path, unsigned *width, unsigned *height) {
    size_t size;
    unsigned char *bytes = (unsigned char *)read_whole(path, &size);
    assert_in_range(size, 24, 10000000);
    *width = (unsigned)(bytes[18] << 8 | bytes[19]);
    *height = (unsigned)(bytes[22] << 8 | bytes[23]);
    free(bytes);
}

/* Images of another shape than the model was made for, through scorers, sheets and evaluation; a run that was
 * stopped goes on to the bit. */
static void trains_and_resumes(void **state) {
    (void)state;
    train_well(1, "whole", "");
    log_has("whole", "not read, as model_index.json names it as no part: expected.safetensors, vae copy/");
    json_t *lines = lines_of("whole", "metrics.jsonl"), *evals = lines_of("whole", "eval.jsonl");
    assert_int_equal(json_array_size(lines), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *line = json_array_get(lines, i), *reward = json_object_get(line, "reward");
        assert_true(json_number_value(json_object_get(line, "grad_norm")) > 0);
        assert_true(json_number_value(json_object_get(reward, "jpeg")) < -0.3);
        assert_true(json_number_value(json_object_get(reward, "clean")) > 0);
    }
    assert_int_equal(json_array_size(evals), 2);
    json_decref(lines);
    json_decref(evals);
    train_well(1, "parts", "--set train.steps=1");
    train_well(1, "parts", "--resume auto");
    same_lines("whole", "parts", "metrics.jsonl", 0, 2);
    same_checkpoint("whole", "parts", 2);
}

static void ranks_agree(void **state) {
    (void)state;
    train_well(1, "one", "--set eval.every=0 --set checkpoint.every=0");
    train_well(2, "two", "--set eval.every=0 --set checkpoint.every=0 --set rollout.decode_bytes=1");
    same_lines("one", "two", "metrics.jsonl", 2e-4, 2);
}

static void samples_are_decoded(void **state) {
    (void)state;
    char command[2048], path[512];
    unsigned width, height;
    snprintf(command, sizeof command,
             "cd '%s' && MARBLE_DEVICE=%s %s/marble sample --model model --prompt 'a red sign' --out drawn "
             "--steps 2 >sample.log 2>&1",
             folder, test_backend(), MBL_BINARY_DIR);
    if (system(command) != 0)
        fail_msg("%s", log_of("sample"));
    snprintf(path, sizeof path, "%s/drawn/000.png", folder);
    png_size(path, &width, &height);
    assert_true(width == 64 && height == 64); /* what the model was made for: 8 times its latents */
}

static void sizes_that_cannot_be(void **state) {
    (void)state;
    assert_int_equal(train(1, "bad", "--set rollout.width=40"), 2);
    log_has("bad", "images of 32 x 40 pixels (height x width); expected multiples of 16");
    log_has("bad", "rollout.height");
    assert_int_equal(train(1, "bad", "--set rollout.width=208"), 2);
    log_has("bad", "up to 192");
    assert_int_equal(train(1, "bad", "--set rollout.width=0"), 2);
    log_has("bad", "rollout.height: 32 and rollout.width: 0; expected both or neither");
    assert_int_equal(train(1, "bad", "--set rollout.decode_tile=6"), 2);
    log_has("bad", "rollout.decode_tile: 6; expected a multiple of 4");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(trains_and_resumes), cmocka_unit_test(ranks_agree),
                                       cmocka_unit_test(samples_are_decoded),
                                       cmocka_unit_test(sizes_that_cannot_be)};
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
