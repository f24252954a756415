/* Runs at the limits of the configuration: as many rewards as there may be, with the longest names, through
 * every method, checkpoint and resume; micro-batches cut to bytes; many LoRA targets. */
#include "train_case.h"

#include "rl/types.h"

/* The options for MBL_MAX_REWARDS rewards with names of 32 letters, of two images each. */
static void all_rewards(char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "--set 'rewards=[");
    for (int k = 0; k < MBL_MAX_REWARDS; k++)
        used += (size_t)snprintf(out + used, size - used,
                                 "%s{name: a_reward_with_the_longest_name%02d, type: %s}", k ? ", " : "", k,
                                 k % 2 ? "jpeg" : "clean");
    snprintf(out + used, size - used,
             "]' --set prompts.groups=2 --set prompts.group_size=2 --set eval.every=0 --set eval.prompts=2 "
             "--set eval.steps=1 --set checkpoint.every=1 --set rollout.steps=2 --set log.samples_every=2 "
             "--set 'checkpoint.keep.best=[]'");
}

/* marble train with options of any length. */
static void run_well(const char *out, const char *options) {
    char script[1024], path[512];
    size_t size = strlen(options) + 2048;
    char *text = malloc(size);
    snprintf(text, size, "exec %s/marble train %s/run.yaml --out %s/%s --set device=%s %s\n", MBL_BINARY_DIR,
             folder, folder, out, test_backend(), options);
    snprintf(path, sizeof path, "%s/script", folder);
    write_whole(path, text, strlen(text));
    free(text);
    snprintf(script, sizeof script, "sh %s/script >%s/%s.log 2>&1", folder, folder, out);
    if (system(script) == 0)
        return;
    snprintf(path, sizeof path, "%s/%s.log", folder, out);
    char *log = read_whole(path, NULL);
    fail_msg("%s", log);
}

static void all_rewards_with_every_method(void **state) {
    static const char *const methods[] = {"marble", "equal",  "weighted_sum", "fixed", "pcgrad",
                                          "upgrad", "cagrad", "nash",         "gdpo",  "marble_reference"};
    char rewards[8192], options[9000];
    (void)state;
    all_rewards(rewards, sizeof rewards);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        const char *more = i > 0 ? "" : "--set balance.alpha_halves=1 ";
        for (int steps = 1; steps <= 2; steps++) { /* the second from the first's checkpoint */
            snprintf(options, sizeof options, "%s %s--set balance.method=%s --set train.steps=%d %s", rewards,
                     more, methods[i], steps, steps > 1 ? "--resume auto" : "");
            run_well(methods[i], options);
        }
        json_t *lines = lines_of(methods[i], "metrics.jsonl");
        assert_int_equal(json_array_size(lines), 2);
        assert_int_equal(json_object_size(field(lines, 1, "reward")), MBL_MAX_REWARDS);
        for (size_t j = 0; j < 2; j++)
            assert_true(isfinite(number_at(lines, j, "grad_norm")) && number_at(lines, j, "grad_norm") > 0);
        json_decref(lines);
    }
}

static bool log_has(const char *out, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.log", folder, out);
    char *log = read_whole(path, NULL);
    bool has = strstr(log, text) != NULL;
    if (!has)
        print_error("\"%s\" is not in:\n%s\n", text, log);
    free(log);
    return has;
}

/* Bytes of an image's activations, from the message that refuses less. */
static size_t bytes_of_one(const char *key) {
    char path[512], after[64];
    snprintf(path, sizeof path, "%s/one.log", folder);
    char *log = read_whole(path, NULL);
    snprintf(after, sizeof after, "(%s) take ", key);
    const char *at = strstr(log, after);
    assert_non_null(at);
    size_t bytes = strtoul(at + strlen(after), NULL, 10);
    free(log);
    return bytes;
}

/* marble plan counts the same. */
static void plan_says(size_t bytes, size_t images) {
    char command[1024], said[128];
    snprintf(command, sizeof command,
             "%s/marble plan %s/run.yaml --gpu h100 --set limits.micro_batch_bytes=%zu --set "
             "train.checkpoint_blocks=none >%s/plan.log 2>&1",
             MBL_BINARY_DIR, folder, bytes, folder);
    assert_int_equal(system(command), 0);
    snprintf(said, sizeof said, " %zu of a training micro-batch", images);
    assert_true(log_has("plan", said));
}

/* Half the images, or one, pass at once, and the steps are the same up to rounding. */
static void micro_batches_are_cut_to_bytes(void **state) {
    char options[256];
    (void)state;
    train_well(1, "uncut", "--set train.steps=2 --set log.level=info");
    assert_int_equal(train(1, "one", "--set limits.micro_batch_bytes=1000"), 2);
    assert_true(
        log_has("one", "limits.micro_batch_bytes: 1000 bytes; the activations of one image (rollout"));
    size_t rollout = bytes_of_one("rollout.micro_batch");
    snprintf(options, sizeof options, "--set train.checkpoint_blocks=none --set limits.micro_batch_bytes=%zu",
             rollout);
    assert_int_equal(train(1, "one", options), 2);
    size_t one = bytes_of_one("train.micro_batch");
    assert_true(one > rollout);
    snprintf(options, sizeof options, "--set train.checkpoint_blocks=none --set limits.micro_batch_bytes=%zu",
             one - 1);
    assert_int_equal(train(1, "one", options), 2);
    for (size_t images = 1; images <= 2; images++) {
        char said[128];
        snprintf(options, sizeof options,
                 "--set limits.micro_batch_bytes=%zu --set train.steps=2 --set log.level=info --set "
                 "train.checkpoint_blocks=none",
                 one * images);
        const char *out = images == 1 ? "cut1" : "cut2";
        train_well(1, out, options);
        snprintf(said, sizeof said, "train.micro_batch: %zu images at once instead of 4", images);
        assert_true(log_has(out, said));
        same_lines("uncut", out, "metrics.jsonl", 1e-3, 2);
        plan_says(one * images, images);
    }
}

/* Blocks made again change no bit of a run; with auto memory decides, and the steps are the same up to
 * rounding. */
static void blocks_made_again(void **state) {
    (void)state;
    train_well(1, "kept", "--set train.steps=2 --set train.checkpoint_blocks=none");
    train_well(1, "again", "--set train.steps=2 --set train.checkpoint_blocks=all");
    same_lines("kept", "again", "metrics.jsonl", 0, 2);
    train_well(1, "auto", "--set train.steps=2 --set train.micro_batch=auto --set rollout.micro_batch=auto");
    same_lines("kept", "auto", "metrics.jsonl", 1e-3, 2);
}

static void many_targets(void **state) {
    static const char *const names[] = {"attn.to_q",
                                        "attn.to_k",
                                        "attn.to_v",
                                        "attn.to_out.0",
                                        "attn.add_q_proj",
                                        "attn.add_k_proj",
                                        "attn.add_v_proj",
                                        "attn.to_add_out",
                                        "to_q",
                                        "to_k",
                                        "to_v",
                                        "to_out.0",
                                        "add_q_proj",
                                        "add_k_proj",
                                        "add_v_proj",
                                        "to_add_out",
                                        "ff.net.0.proj",
                                        "ff.net.2"};
    char options[2048] = "--set train.steps=1 --set 'model.lora.targets=[";
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        snprintf(options + strlen(options), sizeof options - strlen(options), "%s%s", i ? ", " : "",
                 names[i]);
    strcat(options, "]'");
    train_well(1, "targets", options);
    assert_int_equal(train(1, "long",
                           "--set 'model.lora.targets=[attn.to_q, "
                           "a.name.that.no.linear.has.however.long.it.may.be]'"),
                     2);
    assert_true(log_has("long", "a.name.that.no.linear.has.however.long.it.may.be"));
    assert_int_equal(train(1, "longer",
                           "--set 'model.lora.targets=[attn.to_q, "
                           "0123456789012345678901234567890123456789012345678901234567890123]'"),
                     2);
    assert_true(log_has("longer", "model.lora.targets: a name of 64 letters; expected at most 63"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_rewards_with_every_method),
        cmocka_unit_test(micro_batches_are_cut_to_bytes),
        cmocka_unit_test(blocks_made_again),
        cmocka_unit_test(many_targets),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
