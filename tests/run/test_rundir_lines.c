/* src/run/rundir_lines: evaluations under an object of their own, older lines read too, sheets at a full
 * disk. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "run/rundir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char text[] = "rewards: [{name: step, type: clean}, {name: rewards, type: jpeg}]\n"
                           "checkpoint: {every: 1, keep: {last: 1, best: [step, rewards]}}\n";

static char folder[256];

static int setup(void **state) {
    (void)state;
    temporary_folder(folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static char *in(const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static mbl_config_t *parse(void) {
    mbl_config_t *config;
    assert_int_equal(mbl_config_parse(text, strlen(text), "test", NULL, 0, &config), MBL_OK);
    return config;
}

/* A reward may be called like a key of the line it is written into. */
static void rewards_of_any_name(void **state) {
    mbl_rundir_t rundir = {.path = folder};
    mbl_config_t *config = parse();
    json_t *lines;
    static const mbl_prompt_set_t set = {.prompts = {.count = 8}, .digest = "0123456789abcdef"};
    (void)state;
    mbl_log_set_level(MBL_LOG_WARN);
    assert_int_equal(mbl_jsonl_open(in("eval.jsonl"), -1, &rundir.evals), MBL_OK);
    for (size_t step = 1; step <= 3; step++) {
        const mbl_eval_score_t scores[] = {{.mean = (double)step, .n = 4}, {.mean = -(double)step, .n = 4}};
        assert_int_equal(mbl_rundir_eval(&rundir, step, config, &set, scores, step > 1 ? scores : NULL, NULL),
                         MBL_OK);
    }
    mbl_jsonl_close(rundir.evals);
    mbl_log_set_level(MBL_LOG_INFO);
    assert_int_equal(mbl_jsonl_read(in("eval.jsonl"), 2, &lines), MBL_OK);
    assert_int_equal(json_array_size(lines), 2);
    const json_t *rewards = mbl_rundir_rewards(json_array_get(lines, 1));
    assert_near(json_number_value(json_object_get(json_object_get(rewards, "step"), "mean")), 2, 0);
    assert_near(json_number_value(json_object_get(json_object_get(rewards, "rewards"), "change")), -2, 0);
    json_decref(lines);
    mbl_config_free(config);
}

/* Where a line does not say which rewards its step trained, that is all of them. */
static void who_is_trained(void **state) {
    json_t *some = json_pack("{s:{s:b,s:b}}", "trained", "step", 1, "rewards", 0), *old = json_object();
    (void)state;
    assert_true(mbl_rundir_trained(some, "step") && !mbl_rundir_trained(some, "rewards"));
    assert_true(mbl_rundir_trained(old, "step") && mbl_rundir_trained(old, "rewards"));
    json_decref(some);
    json_decref(old);
}

/* Lines from before, beside those of today: the best of either. */
static void older_lines_count(void **state) {
    static const char lines[] =
        "{\"step\": 1, \"rewards\": {\"mean\": 0.9}, \"clean\": {\"mean\": 0.1}}\n"
        "{\"step\": 2, \"rewards\": {\"rewards\": {\"mean\": 0.5}, \"step\": {\"mean\": 0.3}}}\n"
        "{\"step\": 3, \"rewards\": {\"rewards\": {\"mean\": 0.7}, \"step\": {\"mean\": 0.2}}}\n";
    mbl_config_t *config = parse();
    size_t steps[MBL_MAX_REWARDS], n;
    (void)state;
    write_whole(in("eval.jsonl"), lines, strlen(lines));
    assert_int_equal(mkdir(in("checkpoints"), 0777), 0);
    for (int step = 1; step <= 3; step++) {
        char name[64];
        snprintf(name, sizeof name, "checkpoints/step-%06d.h5", step);
        write_whole(in(name), "x", 1);
    }
    assert_int_equal(mbl_rundir_best(folder, config, 3, steps, &n), MBL_OK);
    assert_int_equal(n, 2);
    assert_int_equal(steps[0], 2); /* step */
    assert_int_equal(steps[1], 1); /* rewards, of an older line */
    mbl_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rewards_of_any_name, setup, teardown),
        cmocka_unit_test(who_is_trained),
        cmocka_unit_test_setup_teardown(older_lines_count, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
