/* marble train and pretrain stopped and resumed, by their own end, by a signal or by an alarm: the rest is
 * that of the unbroken run, bit for bit. On emulated GPUs signals, and pretraining.
 * ctest-backends: cuda */
#include "train_case.h"

#include <signal.h>
#include <unistd.h>

static void resume_continues_bit_for_bit(void **state) {
    (void)state;
    train_well(2, "two", "");
    stop_and_go(2, "halves", "", 3, "two", STEPS);
    same_lines("two", "halves", "advantages.jsonl", 0, 3);
    same_lines("two", "halves", "eval.jsonl", 0, 3);
}

static void several_updates_an_epoch(void **state) {
    const char *more = "--set train.updates_per_epoch=2 --set train.inner_epochs=2 --set train.steps=8 --set "
                       "checkpoint.every=4";
    (void)state;
    train_well(1, "updates", more);
    stop_and_go(1, "updates2", more, 4, "updates", 8);
}

/* How many steps metrics.jsonl of a run holds. */
static size_t steps_of(const char *out) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, out);
    FILE *file = fopen(path, "r");
    size_t lines = 0;
    for (int c; file && (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    if (file)
        fclose(file);
    return lines;
}

/* Starts a run without end, signals it once metrics.jsonl has some lines, and returns the exit code: SIGTERM
 * to one process, or SIGUSR1 to mpirun, which passes that one on and waits. */
static int train_and_stop(const char *out, int ranks) {
    char yaml[512], to[512], count[16], device[64];
    snprintf(yaml, sizeof yaml, "%s/run.yaml", folder);
    snprintf(to, sizeof to, "%s/%s", folder, out);
    snprintf(count, sizeof count, "%d", ranks);
    snprintf(device, sizeof device, "device=%s", test_backend());
    const char *const words[] = {"with_ranks",
                                 count,
                                 MBL_BINARY_DIR "/marble",
                                 "train",
                                 yaml,
                                 "--out",
                                 to,
                                 "--set",
                                 device,
                                 "--set",
                                 "train.steps=100000",
                                 "--set",
                                 "checkpoint.every=100000",
                                 "--set",
                                 "eval.every=0",
                                 NULL};
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
            _exit(99);
        if (ranks == 1)
            execv(words[2], (char **)(uintptr_t)(words + 2));
        else
            execv(MBL_SOURCE_DIR "/tests/with_ranks", (char **)(uintptr_t)words);
        _exit(99);
    }
    for (int i = 0; i < 6000 && steps_of(out) < 2; i++)
        usleep(10000);
    kill(child, ranks == 1 ? SIGTERM : SIGUSR1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* The checkpoint is of the last step reported; two steps more are those of a run that nothing stopped. */
static void a_signal_leaves_a_checkpoint_and_exit_75(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        char out[32], whole[32], more[256], path[512];
        snprintf(out, sizeof out, "stopped%d", ranks);
        snprintf(whole, sizeof whole, "unstopped%d", ranks);
        assert_int_equal(train_and_stop(out, ranks), 75);
        size_t stopped = steps_of(out);
        snprintf(path, sizeof path, "%s/%s/checkpoints/step-%06zu.h5", folder, out, stopped);
        assert_int_equal(access(path, F_OK), 0);
        snprintf(more, sizeof more, "--set eval.every=0 --set train.steps=%zu --resume auto", stopped + 2);
        train_well(ranks, out, more);
        train_well(ranks, whole, more);
        same_lines(whole, out, "metrics.jsonl", 0, stopped + 2);
        same_checkpoint(whole, out, stopped + 2);
    }
}

/* A healthy run has none; a limit that any step passes stops after the first epoch with its checkpoint, or is
 * only logged and counted, over a resume too. */
static void alarms_are_logged_counted_and_obeyed(void **state) {
    const char *more = "--set alarms.alpha_collapse=0.01 --set alarms.patience=2 --set train.steps=5";
    char half[512], path[512];
    const char *name;
    json_t *count;
    (void)state;
    train_well(1, "healthy",
               "--set 'rewards=[{name: color}, {name: clean}, {name: jpeg}]' --set train.steps=12");
    json_t *lines = lines_of("healthy", "metrics.jsonl");
    assert_true(json_object_size(field(lines, 11, "alarms")) >= 10);
    json_object_foreach(field(lines, 11, "alarms"), name, count) {
        if (json_integer_value(count) != 0)
            fail_msg("%s was found in a healthy run", name);
    }
    json_decref(lines);
    snprintf(half, sizeof half, "%s --set alarms.on_alarm=stop", more);
    assert_int_equal(train(2, "stopped", half), 1);
    snprintf(path, sizeof path, "%s/stopped.log", folder);
    char *log = read_whole(path, NULL);
    if (!strstr(log, "step 2: alarm alpha_collapse: ") || !strstr(log, "stopped, as alarms.on_alarm is stop"))
        fail_msg("%s", log);
    free(log);
    train_well(2, "alarm", more);
    stop_and_go(2, "alarm2", more, 2, "alarm", 5);
    same_checkpoint("alarm", "alarm2", 2);
    lines = lines_of("alarm2", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++)
        assert_near(by(lines, i, "alarms", "alpha_collapse"), i, 0);
    json_decref(lines);
}

static void pretrain_well(const char *out, const char *more) {
    char command[2048];
    const char *smaller = on_gpu() ? "--set pretrain.model.num_attention_heads=1 --set "
                                     "pretrain.model.attention_head_dim=16 --set "
                                     "pretrain.model.caption_projection_dim=16 --set pretrain.batch=4 --set "
                                     "pretrain.model.joint_attention_dim=16 --set "
                                     "pretrain.model.pooled_projection_dim=16 --set "
                                     "pretrain.model.text_tokens=12 --set "
                                     "pretrain.model.text_layers=1 --set eval.prompts=1 --set eval.steps=1"
                                   : "";
    snprintf(
        command, sizeof command,
        "%s/marble pretrain %s/deploy/examples/pretrain.yaml --out %s/%s --set device=%s --set threads=1 "
        "--set pretrain.warmup=2 --set pretrain.batch=8 --set pretrain.model.num_layers=2 --set "
        "pretrain.model.num_attention_heads=2 --set pretrain.model.caption_projection_dim=64 --set "
        "pretrain.model.patch_size=8 --set eval.prompts=4 --set eval.steps=2 --set pretrain.eval_every=0 "
        "%s %s >%s/%s.log 2>&1",
        MBL_BINARY_DIR, MBL_SOURCE_DIR, folder, out, test_backend(), smaller, more, folder, out);
    assert_int_equal(system(command), 0);
}

static void pretraining_resumes_bit_for_bit(void **state) {
    (void)state;
    pretrain_well("plain", "--set pretrain.steps=6");
    pretrain_well("plain2", "--set pretrain.steps=3");
    pretrain_well("plain2", "--set pretrain.steps=6 --resume auto");
    same_lines("plain", "plain2", "metrics.jsonl", 0, 6);
    const char *out[2] = {"plain", "plain2"};
    char *weights[2];
    size_t size[2];
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s/model/transformer/diffusion_pytorch_model.safetensors", folder,
                 out[i]);
        weights[i] = read_whole(path, &size[i]);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(weights[0], weights[1], size[0]);
    free(weights[0]);
    free(weights[1]);
}

int main(void) {
    const struct CMUnitTest on_gpus[] = {
        cmocka_unit_test(a_signal_leaves_a_checkpoint_and_exit_75),
        cmocka_unit_test(pretraining_resumes_bit_for_bit),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resume_continues_bit_for_bit),
        cmocka_unit_test(several_updates_an_epoch),
        cmocka_unit_test(a_signal_leaves_a_checkpoint_and_exit_75),
        cmocka_unit_test(alarms_are_logged_counted_and_obeyed),
        cmocka_unit_test(pretraining_resumes_bit_for_bit),
    };
    return on_gpu() ? cmocka_run_group_tests(on_gpus, prepare, drop_folder)
                    : cmocka_run_group_tests(tests, prepare, drop_folder);
}
