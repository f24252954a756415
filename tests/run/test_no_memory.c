/* Every allocation of marble's own fails in turn, through a short run, a resumed one, inspect, export and
 * eval: a clear error, nothing leaked, and no file left that is not whole. A stride keeps the test short;
 * MARBLE_PROOF=long takes every one. */
#include "runs.h"

#include "base/log.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "train/loop.h"

#include <unistd.h>

enum { SHORT_TRIES = 60 };

static const char config_text[] =
    "seed: 7\n"
    "device: cpu\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 2, alpha: 4}}\n"
    "prompts: {source: signs, train_count: 4, test_count: 2, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, micro_batch: 4}\n"
    "train: {steps: 2, micro_batch: 4, timestep_fraction: 0.5}\n"
    "rewards: [{name: color}, {name: clean}]\n"
    "eval: {every: 1, prompts: 2, steps: 1}\n"
    "checkpoint: {every: 1, keep: {last: 2, best: clean}}\n"
    "log: {level: error, samples_every: 1}\n";

static char yaml[512], out[512], checkpoint[512], lora[512], peft[512], merged[512];

static int prepare(void **state) {
    (void)state;
    make_folder(config_text);
    make_tiny_model("base");
    snprintf(yaml, sizeof yaml, "%s/run.yaml", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    snprintf(checkpoint, sizeof checkpoint, "%s/out/checkpoints/latest.h5", folder);
    snprintf(lora, sizeof lora, "--lora=%s/lora.safetensors", folder);
    snprintf(peft, sizeof peft, "--peft=%s/peft", folder);
    snprintf(merged, sizeof merged, "--merged=%s/merged", folder);
    return 0;
}

static int remove_run(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf %s", out);
    return system(command);
}

static mbl_status_t train_to(const char *steps, const char *resume) {
    mbl_comm_t *comm;
    mbl_config_t *config;
    mbl_status_t status = mbl_comm_open("self", 0, &comm);
    if (status != MBL_OK)
        return status;
    status = mbl_config_load(yaml, &steps, 1, &config);
    if (status == MBL_OK) {
        status = mbl_config_check(config, 1);
        if (status == MBL_OK)
            status =
                mbl_train(config, comm, &(mbl_train_options_t){.folder = {.path = out, .resume = resume}});
        mbl_config_free(config);
    }
    mbl_comm_close(comm);
    return status;
}

static mbl_status_t fresh_run(void) {
    if (remove_run() != 0) /* what an earlier one left would be refused */
        return MBL_ERR_IO;
    return train_to("train.steps=1", NULL);
}

static mbl_status_t resumed_run(void) {
    return train_to("train.steps=2", "auto");
}

/* A command by its exit code; what it prints goes nowhere. */
static mbl_status_t command(int (*run)(int, char **), int n, const char *const *words) {
    char *argv[8];
    for (int i = 0; i < n; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    return run(n, argv) == 0 ? MBL_OK : MBL_ERR_MEM;
}

static mbl_status_t inspect(void) {
    const char *const words[] = {"inspect", checkpoint}, *const json[] = {"inspect", "--json", checkpoint};
    const char *const diff[] = {"inspect", "--diff", checkpoint, checkpoint};
    mbl_status_t status = command(mbl_cmd_inspect, 2, words);
    if (status == MBL_OK)
        status = command(mbl_cmd_inspect, 3, json);
    return status == MBL_OK ? command(mbl_cmd_inspect, 4, diff) : status;
}

static mbl_status_t export_all(void) {
    const char *const words[] = {"export", checkpoint, lora, peft, merged, "--force"};
    return command(mbl_cmd_export, 6, words);
}

static mbl_status_t compare_it(void) {
    const char *const words[] = {"eval", yaml, "--checkpoint", checkpoint, "--resamples=100", "--json"};
    return command(mbl_cmd_eval, 6, words);
}

/* Standard output to nowhere and back. */
static int hush(void) {
    fflush(stdout);
    int kept = dup(1);
    assert_non_null(freopen("/dev/null", "w", stdout));
    return kept;
}

static void speak(int kept) {
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
}

typedef struct {
    size_t tries, failures;
} tally_t;

/* `before` makes the world that `run` starts from, each time. */
static void fail_each(const char *name, mbl_status_t (*run)(void), mbl_status_t (*before)(void)) {
    const char *proof = getenv("MARBLE_PROOF");
    tally_t tally = {0, 0};
    mbl_log_set_level(MBL_LOG_OFF);
    int kept = hush();
    mbl_status_t ready = before ? before() : MBL_OK;
    size_t live = mbl_mem_live(), count = mbl_mem_count();
    mbl_status_t status = run();
    count = mbl_mem_count() - count;
    size_t left = mbl_mem_live(), stride = proof && strcmp(proof, "long") == 0 ? 1 : count / SHORT_TRIES + 1;
    size_t at = 1, reported = 0;
    for (; status == MBL_OK && left == live && at <= count; at += stride, tally.tries++) {
        if (before && (remove_run() != 0 || before() != MBL_OK))
            break;
        mbl_mem_fail_at(at);
        mbl_status_t failed = run();
        mbl_mem_fail_at(0);
        mbl_log_set_level(MBL_LOG_OFF); /* the run's configuration has set it */
        left = mbl_mem_live();
        tally.failures += failed != MBL_OK;
        reported += failed == MBL_ERR_MEM;
        if (failed != MBL_OK && failed != MBL_ERR_MEM)
            break;
    }
    speak(kept);
    mbl_log_set_level(MBL_LOG_INFO);
    print_message("%s: %zu allocations, %zu failed in turn, %zu reported, the others harmless\n", name, count,
                  tally.tries, tally.failures);
    assert_int_equal(ready, MBL_OK);
    assert_int_equal(status, MBL_OK);
    if (left != live)
        fail_msg("%s: allocation %zu: %zu blocks leaked", name, at - stride, left - live);
    if (at <= count)
        fail_msg("%s: allocation %zu: neither ERR_MEM nor success: %s", name, at, mbl_fail_message());
    assert_true(tally.failures * 2 > tally.tries); /* a few are harmless: a folder that is not synced */
    assert_int_equal(reported, tally.failures);
}

static void train_survives(void **state) {
    (void)state;
    fail_each("train", fresh_run, NULL);
}

static void resume_survives(void **state) {
    (void)state;
    fail_each("resume", resumed_run, fresh_run);
}

static void inspect_survives(void **state) {
    (void)state;
    assert_int_equal(fresh_run(), MBL_OK);
    fail_each("inspect", inspect, NULL);
}

static void export_survives(void **state) {
    (void)state;
    assert_int_equal(fresh_run(), MBL_OK);
    fail_each("export", export_all, NULL);
}

static void eval_survives(void **state) {
    (void)state;
    assert_int_equal(fresh_run(), MBL_OK);
    fail_each("eval", compare_it, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(train_survives),   cmocka_unit_test(resume_survives),
        cmocka_unit_test(inspect_survives), cmocka_unit_test(export_survives),
        cmocka_unit_test(eval_survives),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
