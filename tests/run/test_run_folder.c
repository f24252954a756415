/* A run's folder as a user meets it: one run in it, one process, what an earlier step leaves, closed
 * terminals, places that cannot be written. A tiny model, one thread. */
#include "runs.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 2, alpha: 4}}\n"
    "prompts: {source: signs, train_count: 8, test_count: 2, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, micro_batch: 4}\n"
    "train: {steps: 2, micro_batch: 4, timestep_fraction: 0.5}\n"
    "rewards: [{name: color}, {name: clean}]\n"
    "eval: {every: 0, prompts: 2, steps: 1}\n"
    "checkpoint: {every: 1, keep: 0}\n"
    "log: {level: info, samples_every: 0}\n";

static int prepare(void **state) {
    (void)state;
    make_folder(config);
    make_tiny_model("base");
    return 0;
}

static char *in(const char *name) {
    static char path[6][600];
    static int next;
    char *out = path[next++ % 6];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static bool there(const char *name) {
    return access(in(name), F_OK) == 0;
}

static void must_say(const char *log, const char *words) {
    char *text = read_whole(in(log), NULL);
    if (!strstr(text, words))
        fail_msg("\"%s\" is not in:\n%s", words, text);
    free(text);
}

/* A command of the program in `folder`; its output in log. */
static int marble(const char *words, const char *log) {
    char command[2048];
    snprintf(command, sizeof command, "cd %s && %s/marble %s >%s 2>&1", folder, MBL_BINARY_DIR, words, log);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* The run that a line or a checkpoint names. */
static void run_of(const char *out, char id[64]) {
    char path[300];
    snprintf(path, sizeof path, "%s/metrics.jsonl", out);
    char *text = read_whole(in(path), NULL), *at = strstr(text, "\"run\": \"");
    assert_non_null(at);
    snprintf(id, 64, "%.16s", at + 8);
    free(text);
    snprintf(path, sizeof path, "inspect --attribute run %s/checkpoints/latest.h5", out);
    assert_int_equal(marble(path, "id"), 0);
    text = read_whole(in("id"), NULL);
    assert_int_equal(strncmp(text, id, 16), 0);
    free(text);
    snprintf(path, sizeof path, "%s/run.yaml", out);
    must_say(path, id);
}

static size_t steps_in(const char *name) {
    char *text = read_whole(in(name), NULL);
    size_t lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    free(text);
    return lines;
}

static void a_second_run_is_refused_or_moves_the_first(void **state) {
    char first[64], second[64];
    (void)state;
    train_well(1, "one", "");
    run_of("one", first);
    assert_int_equal(train(1, "one", "--set seed=8"), 2);
    must_say("one.log", "one: holds a run already, ");
    must_say("one.log",
             "up to step 2; expected --resume auto to go on with it, another --out, or --overwrite to move");
    assert_int_equal(train(1, "one", "--resume auto --overwrite"), 2);
    assert_int_equal(steps_in("one/metrics.jsonl"), 2);
    train_well(1, "one", "--set seed=8 --overwrite");
    run_of("one", second);
    assert_string_not_equal(first, second);
    run_of("one.1", second);
    assert_string_equal(first, second);
    assert_false(there("one/lock") || there("one.1/lock"));
    /* a file to go on from that is not there: no folder is made for it */
    assert_int_equal(train(1, "none", "--resume nowhere.h5"), 2);
    must_say("none.log", "--resume nowhere.h5: cannot be opened");
    assert_false(there("none"));
}

static void an_earlier_step_leaves_the_later_ones_aside(void **state) {
    char before[64], after[64], more[700];
    (void)state;
    train_well(1, "branch", "--set train.steps=4");
    run_of("branch", before);
    snprintf(more, sizeof more, "--resume %s --set train.steps=3 --set train.lr=1e-3",
             in("branch/checkpoints/step-000002.h5"));
    train_well(1, "branch", more);
    must_say("branch.log",
             "resumes from step 2; the 2 checkpoints of later steps (up to 4), their lines and samples are");
    must_say("branch/log.txt", "are kept in");
    run_of("branch", after);
    assert_string_equal(before, after);
    assert_true(there("branch/aside-1/checkpoints/step-000004.h5") &&
                there("branch/checkpoints/step-000003.h5"));
    assert_false(there("branch/checkpoints/step-000004.h5"));
    assert_int_equal(steps_in("branch/aside-1/metrics.jsonl"), 2);
    assert_int_equal(steps_in("branch/metrics.jsonl"), 3);
    /* what was moved aside does not come back among the lines of the branch that took its place, neither */
    char *old = in("branch/aside-1/checkpoints/step-000004.h5"),
         *back = in("branch/checkpoints/step-000004.h5");
    snprintf(more, sizeof more, "cp %s %s && rm %s", old, back, in("branch/checkpoints/latest.h5"));
    assert_int_equal(system(more), 0);
    snprintf(more, sizeof more, "--resume %s --set train.steps=5", back);
    assert_int_equal(train(1, "branch", more), 2);
    must_say("branch.log", "step 4 of a branch that this run left when it went back to an earlier step");
    train_well(1, "branch", "--resume auto --set train.steps=4 --set train.lr=1e-3");
    must_say("branch.log", "step-000004.h5: of a branch that this run left");
    must_say("branch.log", "at step 3");
    run_of("branch", after);
    assert_string_equal(before, after);
    /* nor from where it lies */
    snprintf(more, sizeof more, "--resume %s", in("branch/aside-1/checkpoints/step-000004.h5"));
    assert_int_equal(train(1, "branch", more), 2);
    must_say("branch.log", "that does not lie in");
    assert_int_equal(steps_in("branch/metrics.jsonl"), 4);
    /* a checkpoint of that run is none of another's folder */
    snprintf(more, sizeof more, "--resume %s", in("one.1/checkpoints/step-000001.h5"));
    assert_int_equal(train(1, "branch", more), 2);
    must_say("branch.log", "expected another --out, or a checkpoint of that run");
    train_well(1, "fork", more);
    must_say("fork.log", "a new run, ");
    run_of("fork", after);
    assert_string_not_equal(before, after);
}

static void without_a_checkpoint_its_lines_are_kept(void **state) {
    (void)state;
    train_well(1, "anew", "");
    remove_folder(in("anew/checkpoints"));
    train_well(1, "anew", "--resume auto --set train.steps=1");
    must_say("anew.log",
             "found no checkpoint to resume from: the run begins anew at step 1; the lines up to step 2");
    assert_int_equal(steps_in("anew/aside-1/metrics.jsonl"), 2);
    assert_int_equal(steps_in("anew/metrics.jsonl"), 1);
}

/* A run without end into folder/name that resumes `from`, once it has written a checkpoint. */
static pid_t start_endless(const char *name, const char *from, const char *every) {
    char yaml[600], out[600], latest[300], lock[300];
    snprintf(yaml, sizeof yaml, "%s", in("run.yaml"));
    snprintf(out, sizeof out, "%s", in(name));
    snprintf(latest, sizeof latest, "%s/checkpoints/latest.h5", name);
    snprintf(lock, sizeof lock, "%s/lock", name);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(99);
        execl(MBL_BINARY_DIR "/marble", "marble", "train", yaml, "--out", out, "--set", "train.steps=100000",
              "--set", every, "--resume", from, NULL);
        _exit(99);
    }
    for (int i = 0; i < 3000 && !(there(latest) && there(lock)); i++)
        usleep(10000);
    return child;
}

static pid_t start_busy(void) {
    return start_endless("busy", "auto", "checkpoint.every=1");
}

static void must_be_killed(pid_t child) {
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

/* A run that begins with another one's checkpoint keeps its start, whenever it is killed. */
static void a_fork_keeps_its_start(void **state) {
    char from[600];
    (void)state;
    train_well(1, "parent", "");
    snprintf(from, sizeof from, "%s", in("parent/checkpoints/step-000001.h5"));
    must_be_killed(start_endless("young", from, "checkpoint.every=90000"));
    assert_true(there("young/checkpoints/step-000001.h5"));
    remove_folder(in("parent"));
    train_well(1, "young", "--resume auto");
    must_say("young.log", "young/checkpoints/step-000001.h5 at step 1");
    assert_int_equal(steps_in("young/metrics.jsonl"), 1);
}

static void must_end_with_a_checkpoint(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 75)
        fail_msg("status %d, expected exit code 75", status);
    assert_false(there("busy/lock"));
    must_say("busy/log.txt", "go on with: marble train ");
}

static void one_process_at_a_time(void **state) {
    char words[64];
    (void)state;
    pid_t child = start_busy();
    assert_int_equal(train(1, "busy", "--resume auto"), 1);
    snprintf(words, sizeof words, "another marble works in it, pid %d on host", (int)child);
    must_say("busy.log", words);
    assert_int_equal(marble("train run.yaml --out busy --overwrite", "busy.log"), 1);
    must_say("busy.log", words);
    assert_int_equal(marble("stop busy", "busy.log"), 0);
    must_end_with_a_checkpoint(child);
    assert_int_equal(marble("stop busy", "busy.log"), 2);
    must_say("busy.log", "nobody works in it");
    child = start_busy();
    kill(child, SIGHUP); /* its terminal closes */
    must_end_with_a_checkpoint(child);
    must_be_killed(start_busy()); /* the lock stays, and is taken over */
    assert_true(there("busy/lock"));
    train_well(1, "busy", "--resume auto --set train.steps=1");
    must_say("busy.log", "busy/lock: taken over from pid ");
    assert_false(there("busy/lock"));
}

/* The folder that marble is started in is not moved away under it, nor one above. */
static void the_folder_one_is_in(void **state) {
    static const char *const outs[] = {".", "..", "$PWD", "../../here"};
    char command[1600];
    (void)state;
    train_well(1, "here", "");
    for (size_t i = 0; i < 4; i++) {
        snprintf(command, sizeof command, "cd %s/%s && %s/marble train %s --out %s --overwrite >%s 2>&1",
                 in("here"),
                 i == 1   ? "samples"
                 : i == 3 ? "checkpoints"
                          : "",
                 MBL_BINARY_DIR, in("run.yaml"), outs[i], in("here.log"));
        assert_int_equal(WEXITSTATUS(system(command)), 2);
        must_say("here.log", "is the folder that marble was started in, or lies above it");
    }
    assert_false(there("here.1") || there("..1") || there("here/..1"));
    snprintf(command, sizeof command, "cd %s && %s/marble train %s --out . >%s 2>&1", in("here"),
             MBL_BINARY_DIR, in("run.yaml"), in("here.log"));
    assert_int_equal(WEXITSTATUS(system(command)), 2);
    must_say("here.log", "to go on with it, or another --out\n");
}

/* RUN.yaml that lies in a run's folder goes on there; a finished run adds nothing. */
static void from_its_own_yaml(void **state) {
    (void)state;
    assert_int_equal(marble("train run.yaml --out 'my runs/it'\"'\"'s'", "own.log"), 0);
    struct stat before, after;
    assert_int_equal(stat(in("my runs/it's/metrics.jsonl"), &before), 0);
    assert_int_equal(marble("train \"my runs/it's/run.yaml\"", "own.log"), 2);
    must_say("own.log", "--overwrite to move it to 'my runs/it'\\''s.1'");
    assert_int_equal(marble("train \"my runs/it's/run.yaml\" --resume auto", "own.log"), 0);
    must_say("own.log", "there is nothing left to do");
    assert_int_equal(stat(in("my runs/it's/metrics.jsonl"), &after), 0);
    assert_true(before.st_size == after.st_size);
    assert_int_equal(steps_in("my runs/it's/eval.jsonl"), 2);
    assert_int_equal(marble("train \"my runs/it's/run.yaml\" --resume auto --set train.steps=3", "own.log"),
                     0);
    assert_int_equal(steps_in("my runs/it's/metrics.jsonl"), 3);
    must_say("my runs/it's/run.yaml", "/run.yaml\n");
    char *yaml = read_whole(in("my runs/it's/run.yaml"), NULL);
    assert_null(strstr(yaml, "it's/run.yaml")); /* what it was begun with stays named */
    free(yaml);
}

/* runs/NAME is not shared by two files of that name. */
static void by_default_a_folder_belongs_to_its_file(void **state) {
    (void)state;
    char command[1200];
    snprintf(command, sizeof command, "mkdir %s %s && cp %s %s && cp %s %s", in("a"), in("b"), in("run.yaml"),
             in("a/config.yaml"), in("run.yaml"), in("b/config.yaml"));
    assert_int_equal(system(command), 0);
    assert_int_equal(marble("train a/config.yaml", "default.log"), 0);
    assert_true(there("runs/config/metrics.jsonl"));
    assert_int_equal(marble("train b/config.yaml --resume auto", "default.log"), 2);
    must_say("default.log", "runs/config: holds the run of ");
    assert_int_equal(marble("train b/config.yaml", "default.log"), 2); /* nor is that run offered */
    must_say("default.log", "runs/config: holds the run of ");
    must_say("default.log",
             "expected --out with a folder of its own (or, to go on with that run from here, ");
    assert_int_equal(marble("train a/config.yaml", "default.log"), 2);
    must_say("default.log", "holds a run already, ");
    assert_int_equal(marble("train a/config.yaml --resume auto", "default.log"), 0);
    assert_int_equal(marble("train b/config.yaml --resume auto --out runs/config", "default.log"), 0);
}

static void terminals_that_are_not_there(void **state) {
    (void)state;
    char command[1024];
    snprintf(command, sizeof command, "cd %s && %s/marble train run.yaml --out closed <&- >&- 2>&-", folder,
             MBL_BINARY_DIR);
    assert_int_equal(system(command), 0);
    char *lines = read_whole(in("closed/metrics.jsonl"), NULL),
         *evals = read_whole(in("closed/eval.jsonl"), NULL);
    for (char *save = NULL, *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        assert_int_equal(line[0], '{');
    assert_null(strstr(evals, "\nreward"));
    free(lines);
    free(evals);
    must_say("closed/log.txt", "standard error takes no more lines (Bad file descriptor)");
    must_say("closed/log.txt", "standard output takes no more lines");
    snprintf(command, sizeof command,
             "cd %s && { %s/marble train run.yaml --out piped 2>&1; echo $? >code; } | true", folder,
             MBL_BINARY_DIR);
    assert_int_equal(system(command), 0);
    must_say("code", "0\n");
    assert_int_equal(steps_in("piped/metrics.jsonl"), 2);
    must_say("piped/log.txt", "takes no more lines (Broken pipe)");
}

/* Found before the first step; a sheet of samples costs no run. */
static void what_cannot_be_written(void **state) {
    (void)state;
    assert_int_equal(mkdir(in("full"), 0777), 0);
    write_whole(in("full/checkpoints"), "x", 1);
    assert_int_equal(train(1, "full", ""), 1);
    must_say("full.log", "full/checkpoints: the folder cannot be made: there is a file of that name");
    assert_false(there("full/metrics.jsonl") || there("full/lock"));
    assert_int_equal(mkdir(in("sheet"), 0777), 0);
    assert_int_equal(mkdir(in("sheet/samples"), 0777), 0);
    assert_int_equal(mkdir(in("sheet/samples/step-000001.png"), 0777), 0);
    train_well(1, "sheet", "--set log.samples_every=1");
    must_say("sheet.log", "1 sheet of samples lost so far, the run goes on");
    assert_int_equal(steps_in("sheet/metrics.jsonl"), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_run_is_refused_or_moves_the_first),
        cmocka_unit_test(an_earlier_step_leaves_the_later_ones_aside),
        cmocka_unit_test(without_a_checkpoint_its_lines_are_kept),
        cmocka_unit_test(a_fork_keeps_its_start),
        cmocka_unit_test(one_process_at_a_time),
        cmocka_unit_test(the_folder_one_is_in),
        cmocka_unit_test(from_its_own_yaml),
        cmocka_unit_test(by_default_a_folder_belongs_to_its_file),
        cmocka_unit_test(terminals_that_are_not_there),
        cmocka_unit_test(what_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
