/* Rewards of type python whose file misbehaves: a function that never returns, one that prints without end, a
 * file that cannot be loaded, many functions in one file, two rewards that are one function. */
#include "support.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "reward/reward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 2, SIDE = 4, MANY = 30 };

static char folder[256], path[400], log_path[400];
static uint8_t pixels[SIDE * SIDE * 3];
static mbl_image_t images[N];
static mbl_prompt_t prompts[N];
static const mbl_prompt_t *asked[N];

static int prepare(void **state) {
    (void)state;
    temporary_folder(folder);
    setenv("TMPDIR", folder, 1);
    snprintf(path, sizeof path, "%s/my_rewards.py", folder);
    snprintf(log_path, sizeof log_path, "%s/log.txt", folder);
    for (size_t i = 0; i < N; i++) {
        images[i] = (mbl_image_t){SIDE, SIDE, pixels};
        prompts[i] = (mbl_prompt_t){(char *)"a prompt", NULL};
        asked[i] = &prompts[i];
    }
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* What the log has said since it was opened; free it with mbl_free. */
static char *log_of(void) {
    char *text;
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    assert_int_equal(mbl_file_read(log_path, 1 << 22, &text, NULL), MBL_OK);
    unlink(log_path);
    return text;
}

static void assert_says(const char *text, const char *part) {
    if (!text || !strstr(text, part))
        fail_msg("\"%.2000s\": expected \"%s\" in it", text ? text : "", part);
}

static void begin_log(void) {
    unlink(log_path);
    assert_int_equal(mbl_log_open(log_path), MBL_OK);
}

static void say(const char *source) {
    write_whole(path, source, strlen(source));
}

static mbl_scorer_pool_t *open_pool(const char *const *names, size_t k, const char *more,
                                    mbl_reward_use_t use) {
    static char options[600];
    mbl_reward_spec_t specs[MANY];
    mbl_scorer_pool_t *pool;
    snprintf(options, sizeof options, "{\"file\": \"%.380s\", \"retries\": 0%s}", path, more);
    for (size_t i = 0; i < k; i++)
        specs[i] = (mbl_reward_spec_t){.name = names[i], .type = "python", .options = options, .use = use};
    assert_int_equal(mbl_scorer_pool_open(specs, k, 1, NULL, &pool), MBL_OK);
    return pool;
}

static void score(mbl_scorer_pool_t *pool, mbl_score_t *out) {
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, out), MBL_OK);
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
}

/* It costs its own scores only, within the deadline; the calls after the second one do not wait for it. */
static void test_a_function_that_never_returns(void **state) {
    (void)state;
    say("import time\n"
        "from marble_reward import reward\n"
        "\n"
        "@reward('one', images='raw')\n"
        "def one(images, prompts, metadata):\n"
        "    return [1] * len(images)\n"
        "\n"
        "@reward('stuck', images='raw')\n"
        "def stuck(images, prompts, metadata):\n"
        "    time.sleep(1000)\n");
    mbl_log_set_level(MBL_LOG_OFF);
    mbl_scorer_pool_t *pool =
        open_pool((const char *const[]){"one", "stuck"}, 2, ", \"deadline\": 9", MBL_REWARD_TRAINED);
    mbl_score_t scores[N * 2];
    for (int call = 0; call < 3; call++) {
        double start = mbl_now();
        score(pool, scores);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(scores[i * 2].state, MBL_SCORE_VALID);
            assert_near(scores[i * 2].value, 1, 0);
            assert_int_equal(scores[i * 2 + 1].state, MBL_SCORE_FAILED);
        }
        assert_true(mbl_now() - start < 9);
        assert_says(mbl_scorer_pool_failure(pool, 1),
                    call < 2 ? "took over 3 s for 2 images; its worker was ended "
                               "(a third of the key deadline)"
                             : "is not called for");
    }
    mbl_scorer_pool_close(pool);
    mbl_log_set_level(MBL_LOG_INFO);
}

/* The log has how it began, and how many lines are left out. */
static void test_a_function_that_prints_without_end(void **state) {
    (void)state;
    say("from marble_reward import reward\n"
        "\n"
        "@reward('talks', images='raw')\n"
        "def talks(images, prompts, metadata):\n"
        "    print('\\n'.join(f'line {i}' for i in range(20000)))\n"
        "    return [0] * len(images)\n");
    begin_log();
    mbl_score_t scores[N];
    mbl_scorer_pool_t *pool = open_pool((const char *const[]){"talks"}, 1, "", MBL_REWARD_TRAINED);
    score(pool, scores);
    assert_int_equal(scores[0].state, MBL_SCORE_VALID);
    mbl_scorer_pool_close(pool);
    char *text = log_of();
    assert_true(strlen(text) < 300 * 60);
    assert_says(text, "reward talks: line 150\n");
    assert_says(text, " lines of its Python server are left out here");
    mbl_free(text);
}

/* A monitor holds up no run: not at its start either, where its file's server ends. */
static void test_a_monitor_that_cannot_load(void **state) {
    (void)state;
    say("import no_such_package\n");
    begin_log();
    double start = mbl_now();
    mbl_score_t scores[N];
    mbl_scorer_pool_t *pool = open_pool((const char *const[]){"watched"}, 1, "", MBL_REWARD_MONITOR);
    score(pool, scores);
    assert_int_equal(scores[0].state, MBL_SCORE_FAILED);
    assert_true(mbl_now() - start < 60); /* the default of `start` is 300 s */
    assert_says(mbl_scorer_pool_failure(pool, 0),
                "my_rewards.py: its Python server (python3) ended (exit code 1)");
    mbl_scorer_pool_close(pool);
    char *text = log_of();
    assert_says(text, "it is a monitor, so the run begins without it");
    assert_says(text, "No module named 'no_such_package'");
    mbl_free(text);
}

/* Each has three outputs at the server. */
static void test_thirty_rewards_in_a_file(void **state) {
    (void)state;
    static char texts[MANY][8];
    const char *names[MANY];
    mbl_score_t scores[N * MANY];
    say("from marble_reward import reward\n"
        "\n"
        "def make(k):\n"
        "    @reward(f'r{k}', images='raw')\n"
        "    def one(images, prompts, metadata):\n"
        "        return [k] * len(images)\n"
        "\n"
        "for k in range(30):\n"
        "    make(k)\n");
    for (size_t k = 0; k < MANY; k++) {
        snprintf(texts[k], sizeof texts[k], "r%zu", k);
        names[k] = texts[k];
    }
    mbl_log_set_level(MBL_LOG_ERROR);
    mbl_scorer_pool_t *pool = open_pool(names, MANY, "", MBL_REWARD_TRAINED);
    score(pool, scores);
    for (size_t k = 0; k < N * MANY; k++) {
        assert_int_equal(scores[k].state, MBL_SCORE_VALID);
        assert_near(scores[k].value, (double)(k % MANY), 0);
    }
    mbl_scorer_pool_close(pool);
    mbl_log_set_level(MBL_LOG_INFO);
}

/* No server is started for it. */
static void test_two_rewards_that_are_one_function(void **state) {
    (void)state;
    char options[2][600];
    mbl_scorer_pool_t *pool;
    for (int i = 0; i < 2; i++)
        snprintf(options[i], sizeof options[i], "{\"file\": \"%.380s\"%s}", path,
                 i ? ", \"output\": \"bright\"" : "");
    const mbl_reward_spec_t specs[] = {{.name = "other", .type = "python", .options = options[0]},
                                       {.name = "bright", .type = "python", .options = options[0]},
                                       {.name = "light", .type = "python", .options = options[1]}};
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(mbl_scorer_pool_open(specs, 3, 1, NULL, &pool), MBL_ERR_CONFIG);
    assert_says(mbl_fail_message(), "rewards bright and light: both are the function \"bright\" of one file");
    mbl_log_set_level(MBL_LOG_INFO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_function_that_never_returns),
        cmocka_unit_test(test_a_function_that_prints_without_end),
        cmocka_unit_test(test_a_monitor_that_cannot_load),
        cmocka_unit_test(test_thirty_rewards_in_a_file),
        cmocka_unit_test(test_two_rewards_that_are_one_function),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
