/* Rewards of type python: the user's functions in a process of their own, which is started anew when it dies
 * and does not outlive this one. */
#include "support.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "reward/reward.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 12, SIDE = 4, K = 2 };

static const char file[] = "from marble_reward import reward\n"
                           "\n"
                           "@reward('bright', range=(0, 1), images='raw')\n"
                           "def bright(images, prompts, metadata):\n"
                           "    return [sum(i.data) / len(i.data) / 255 for i in images]\n"
                           "\n"
                           "@reward('weight', images='raw')\n"
                           "def weight(images, prompts, metadata):\n"
                           "    if 'broken' in prompts:\n"
                           "        raise RuntimeError('the scale is broken')\n"
                           "    return [m.get('weight') for m in metadata]\n";

static char folder[256], path[400], options[K][600];
static uint8_t pixels[N][SIDE * SIDE * 3];
static mbl_image_t images[N];
static mbl_prompt_t prompts[N];
static const mbl_prompt_t *asked[N];
static char texts[N][32], metadata[N][32];
static mbl_reward_spec_t specs[K];

static int prepare(void **state) {
    (void)state;
    temporary_folder(folder);
    setenv("TMPDIR", folder, 1);
    snprintf(path, sizeof path, "%s/my_rewards.py", folder);
    write_whole(path, file, sizeof file - 1);
    for (size_t i = 0; i < N; i++) {
        memset(pixels[i], (int)(i * 20), sizeof pixels[i]);
        snprintf(texts[i], sizeof texts[i], "prompt %zu", i);
        snprintf(metadata[i], sizeof metadata[i], "{\"weight\": %zu}", i);
        images[i] = (mbl_image_t){SIDE, SIDE, pixels[i]};
        prompts[i] = (mbl_prompt_t){texts[i], i % 3 ? metadata[i] : NULL};
        asked[i] = &prompts[i];
    }
    for (size_t k = 0; k < K; k++) {
        static const char *const names[K] = {"bright", "kilos"};
        snprintf(options[k], sizeof options[k],
                 "{\"file\": \"%.380s\", \"batch\": 5, \"retries\": 8, \"deadline\": 10%s}", path,
                 k ? ", \"output\": \"weight\"" : "");
        specs[k] = (mbl_reward_spec_t){.name = names[k], .type = "python", .options = options[k]};
    }
    mbl_log_set_level(MBL_LOG_ERROR);
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static void check_scores(mbl_scorer_pool_t *pool) {
    mbl_score_t scores[N * K];
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(scores[i * K].state, MBL_SCORE_VALID);
        assert_near(scores[i * K].value, (double)i * 20 / 255, 1e-6);
        assert_int_equal(scores[i * K + 1].state, i % 3 ? MBL_SCORE_VALID : MBL_SCORE_NA);
        assert_near(scores[i * K + 1].value, i % 3 ? (double)i : 0, 0);
    }
}

/* Processes whose parent is `parent`; the first of them into *first. */
static size_t children_of(pid_t parent, pid_t *first) {
    DIR *proc = opendir("/proc");
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char name[300], line[512] = "";
        int pid = atoi(entry->d_name), found = 0;
        if (pid <= 0)
            continue;
        snprintf(name, sizeof name, "/proc/%d/stat", pid);
        FILE *stat = fopen(name, "r");
        char *end = stat && fgets(line, sizeof line, stat) ? strrchr(line, ')') : NULL;
        char how = 0;
        if (end && sscanf(end + 1, " %c %d", &how, &found) == 2 && found == parent && how != 'Z') {
            n++;
            *first = pid;
        }
        if (stat)
            fclose(stat);
    }
    closedir(proc);
    return n;
}

static bool is_gone(pid_t pid) {
    for (int i = 0; i < 1000; i++) {
        char name[64], line[256], how = 0;
        snprintf(name, sizeof name, "/proc/%d/stat", pid);
        FILE *stat = fopen(name, "r");
        if (!stat)
            return true;
        char *end = fgets(line, sizeof line, stat) ? strrchr(line, ')') : NULL;
        fclose(stat);
        if (end && sscanf(end + 1, " %c", &how) == 1 && how == 'Z')
            return true;
        usleep(10000);
    }
    return false;
}

static size_t folders_left(void) {
    DIR *all = opendir(folder);
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(all));)
        n += strncmp(entry->d_name, "marble-reward-", 14) == 0;
    closedir(all);
    return n;
}

/* A run that is killed takes its server, and the server's workers, with it. First, while there is one thread.
 */
static void test_it_does_not_outlive_the_run(void **state) {
    (void)state;
    int ready[2];
    char byte;
    pid_t server = 0, worker = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t run = fork();
    if (run == 0) {
        mbl_scorer_pool_t *pool;
        bool open = mbl_scorer_pool_open(specs, K, 1, NULL, &pool) == MBL_OK;
        if (write(ready[1], open ? "y" : "n", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(children_of(run, &server), 1); /* both rewards share it */
    assert_int_equal(children_of(server, &worker), 1);
    assert_int_equal(folders_left(), 1);
    kill(run, SIGKILL);
    waitpid(run, NULL, 0);
    assert_true(is_gone(server));
    assert_true(is_gone(worker));
    assert_int_equal(folders_left(), 0);
}

/* Where the server was killed as well, the next run removes its folder, and not that of a run that lives. */
static void test_folders_of_killed_runs_are_removed(void **state) {
    (void)state;
    char left[400], lock[440], other[440];
    mbl_scorer_pool_t *pools[2];
    snprintf(left, sizeof left, "%s/marble-reward-killed", folder);
    snprintf(lock, sizeof lock, "%s/lock", left);
    snprintf(other, sizeof other, "%s/marble-reward-other", folder); /* has no lock: who knows what it is */
    assert_int_equal(mkdir(left, 0700), 0);
    assert_int_equal(mkdir(other, 0700), 0);
    write_whole(lock, "", 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pools[i]), MBL_OK);
    assert_int_equal(folders_left(), 3);
    assert_int_equal(access(left, F_OK), -1);
    for (int i = 0; i < 2; i++) {
        check_scores(pools[i]);
        mbl_scorer_pool_close(pools[i]);
    }
    assert_int_equal(folders_left(), 1);
    rmdir(other);
}

static void test_scores_and_a_server_that_dies(void **state) {
    (void)state;
    mbl_scorer_pool_t *pool;
    pid_t first = 0, second = 0, none;
    size_t before = mbl_mem_live();
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
    check_scores(pool);
    assert_int_equal(children_of(getpid(), &first), 1);
    kill(first, SIGKILL);
    check_scores(pool); /* by the next one */
    assert_int_equal(children_of(getpid(), &second), 1);
    assert_int_not_equal(first, second);
    double start = mbl_now();
    mbl_scorer_pool_close(pool);
    assert_true(mbl_now() - start < 5);
    assert_int_equal(children_of(getpid(), &none), 0);
    assert_int_equal(mbl_mem_live(), before);
}

/* Ctrl-C, and the SIGTERM of a job that is to end, reach the server too, which leaves them to the run: that
 * still wants scores. */
static void test_signals_of_a_job_are_for_the_run(void **state) {
    (void)state;
    mbl_scorer_pool_t *pool;
    pid_t server = 0, worker = 0, now = 0;
    assert_int_equal(mbl_scorer_pool_open(specs, K, 1, NULL, &pool), MBL_OK);
    assert_int_equal(children_of(getpid(), &server), 1);
    assert_int_equal(children_of(server, &worker), 1);
    const int signals[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < 2; i++) {
        kill(server, signals[i]);
        kill(worker, signals[i]);
    }
    check_scores(pool);
    assert_int_equal(children_of(getpid(), &now), 1);
    assert_int_equal(now, server);
    mbl_scorer_pool_close(pool);
    assert_int_equal(children_of(getpid(), &now), 0);
}

/* What the function raises is why the score failed, at once and without another try; the other reward, which
 * comes from the same calls or from a server of its own, has its score. */
static void test_a_function_that_raises(void **state) {
    (void)state;
    mbl_scorer_pool_t *pool;
    mbl_score_t score[K];
    mbl_traffic_t traffic[K];
    mbl_prompt_t broken = {(char *)"broken", NULL};
    const mbl_prompt_t *one = &broken;
    mbl_reward_spec_t own[K] = {specs[0], specs[1]};
    char other[600];
    bool served[K];
    snprintf(other, sizeof other, "{\"file\": \"%.380s\", \"output\": \"weight\", \"retries\": 8}", path);
    own[1].on_failure = MBL_ON_FAILURE_STOP;
    for (int apart = 0; apart < 2; apart++) {
        if (apart)
            own[1].options = other;     /* another batch: a server of its own */
        mbl_log_set_level(MBL_LOG_OFF); /* while no other thread logs */
        assert_int_equal(mbl_scorer_pool_open(own, K, 1, NULL, &pool), MBL_OK);
        assert_int_equal(mbl_scorer_pool_submit(pool, images, &one, 1, score), MBL_OK);
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_ERR_REWARD);
        assert_non_null(strstr(mbl_fail_message(), "reward kilos failed"));
        assert_non_null(strstr(mbl_fail_message(),
                               "\"weight\" raised RuntimeError (my_rewards.py:10): the scale is broken"));
        assert_int_equal(score[0].state, MBL_SCORE_VALID);
        assert_int_equal(score[1].state, MBL_SCORE_FAILED);
        mbl_scorer_pool_traffic(pool, traffic, served);
        assert_near(traffic[1].retried, 0, 0);
        mbl_scorer_pool_close(pool);
    }
    mbl_log_set_level(MBL_LOG_ERROR);
}

/* A file that cannot be loaded, an interpreter that is none and a reward that is not there end the opening.
 */
static void test_what_cannot_start(void **state) {
    (void)state;
    char bad[400], text[700];
    snprintf(bad, sizeof bad, "%s/bad.py", folder);
    write_whole(bad, "import no_such_package\n", 23);
    static const char *const says[] = {
        "beauty", "the interpreter /no/such cannot be started: there is no such program (key python)",
        "bad.py: its Python server (python3) ended (exit code 1)"};
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t i = 0; i < 3; i++) {
        mbl_scorer_pool_t *pool = NULL;
        pid_t none;
        size_t before = mbl_mem_live();
        double start = mbl_now();
        if (i == 2)
            snprintf(text, sizeof text, "{\"file\": \"%.380s\", \"start\": 60}", bad);
        else
            snprintf(text, sizeof text,
                     i == 0 ? "{\"file\": \"%.380s\", \"output\": \"beauty\", \"start\": 20}"
                            : "{\"file\": \"%.380s\", \"python\": \"/no/such\", \"start\": 60}",
                     path);
        mbl_reward_spec_t spec = {.name = "x", .type = "python", .options = text};
        assert_int_equal(mbl_scorer_pool_open(&spec, 1, 1, NULL, &pool), MBL_ERR_REWARD);
        if (!strstr(mbl_fail_message(), says[i]))
            fail_msg("\"%s\": expected %s in it", mbl_fail_message(), says[i]);
        assert_true(mbl_now() - start < 30); /* it does not wait for what has ended */
        assert_int_equal(children_of(getpid(), &none), 0);
        assert_int_equal(mbl_mem_live(), before);
    }
    mbl_log_set_level(MBL_LOG_ERROR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_does_not_outlive_the_run),
        cmocka_unit_test(test_folders_of_killed_runs_are_removed),
        cmocka_unit_test(test_scores_and_a_server_that_dies),
        cmocka_unit_test(test_signals_of_a_job_are_for_the_run),
        cmocka_unit_test(test_a_function_that_raises),
        cmocka_unit_test(test_what_cannot_start),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
