/* What marble train does and says of steps that are not as they seem: numbers that are not finite, steps that
 * train nothing, rewards that collapse, scores of nobody and intervals of few. */
#include "small_run.h"

/* folder/NAME: the example's model with the first 2000 weights of a tensor set to 3.4e38, so that what it
 * computes is not finite, or (nan) to NaN. */
static void make_hot_model(const char *name, const char *tensor, bool nan) {
    char path[1024];
    size_t size, length = 0, begin;
    snprintf(path, sizeof path, "cp -r %s/deploy/examples/signs-base %s/%s", MBL_SOURCE_DIR, folder, name);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof path, "%s/%s/transformer/diffusion_pytorch_model.safetensors", folder, name);
    char *file = read_whole(path, &size);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | (unsigned char)file[i];
    json_t *header = json_loadb(file + 8, length, 0, NULL);
    const json_t *offsets = json_object_get(json_object_get(header, tensor), "data_offsets");
    begin = 8 + length + (size_t)json_integer_value(json_array_get(offsets, 0));
    for (size_t i = 0; i < 2000; i++)
        memcpy(file + begin + 2 * i, nan ? "\xC0\x7F" : "\x7F\x7F", 2);
    json_decref(header);
    assert_int_equal(truncate(path, 0), 0);
    write_whole(path, file, size);
    free(file);
}

static json_t *last_line(const char *out, const char *file) {
    json_t *lines = lines_of(out, file),
           *line = json_incref(json_array_get(lines, json_array_size(lines) - 1));
    json_decref(lines);
    assert_non_null(line);
    return line;
}

static size_t alarms(const char *out, const char *name) {
    json_t *line = last_line(out, "metrics.jsonl");
    const json_t *count = json_object_get(json_object_get(line, "alarms"), name);
    assert_non_null(count);
    size_t n = (size_t)json_integer_value(count);
    json_decref(line);
    return n;
}

static void weights_that_are_no_numbers_are_refused(void **state) {
    (void)state;
    char more[1024];
    make_hot_model("nan", "transformer_blocks.1.attn.to_q.weight", true);
    snprintf(more, sizeof more, "--set model.path=%s/nan", folder);
    assert_int_equal(train(1, "refused", more), 1);
    check_times("refused.log", "tensor transformer_blocks.1.attn.to_q.weight: element [0, 0] is nan", 1);
    snprintf(more, sizeof more, "%s/refused", folder);
    assert_int_not_equal(access(more, F_OK), 0); /* and no folder is made */
}

/* Steps that are not finite move nothing; on every rank alike, so many in a row end the run, and the
 * checkpoint from before them stays the newest. */
static void steps_that_are_not_finite_are_left_out(void **state) {
    char more[2048];
    (void)state;
    make_hot_model("hot", "proj_out.weight", false);
    for (int ranks = 1; ranks <= 2; ranks++) {
        char out[16], log[32];
        snprintf(out, sizeof out, "hot%d", ranks);
        snprintf(log, sizeof log, "hot%d.log", ranks);
        train_well(1, out, "--set train.steps=3");
        snprintf(more, sizeof more,
                 "--resume auto --set train.steps=30 --set model.path=%s/hot --set "
                 "checkpoint.other_base=accept --set "
                 "alarms.non_finite=4",
                 folder);
        assert_int_equal(train(ranks, out, more), 1);
        check_times(log, "left out: not finite", 4);
        check_times(log, "alarms.non_finite allows no more", 1);
        check_times(log, "step 4: alarm non_finite", 1);
        check_times(log, "the last good checkpoint is", 1);
        check_times(log, "step-000003.h5; resume from it", 1);
        assert_int_equal(alarms(out, "non_finite"), 4);
        json_t *line = last_line(out, "metrics.jsonl");
        assert_int_equal(json_integer_value(json_object_get(line, "step")), 7);
        assert_true(json_is_null(json_object_get(line, "loss")));
        assert_true(json_is_null(json_object_get(line, "grad_norm")));
        assert_true(json_is_null(json_object_get(json_object_get(line, "alpha"), "jpeg")));
        json_decref(line);
        snprintf(more, sizeof more, "%s/%s/checkpoints/step-000004.h5", folder, out);
        assert_int_not_equal(access(more, F_OK), 0);
    }
}

/* With alarms.non_finite: 0 the run goes on to its end; its weights are those it began with. */
static void a_run_may_go_on_whatever_comes(void **state) {
    char more[2048];
    (void)state;
    snprintf(more, sizeof more, "--set train.steps=3 --set model.path=%s/hot --set alarms.non_finite=0",
             folder);
    train_well(1, "endless", more);
    check_times("endless.log", "left out: not finite", 3);
    check_times("endless.log", "alarm non_finite", 0);
    snprintf(more, sizeof more, "--set train.steps=1 --set model.path=%s/hot", folder);
    train_well(1, "one", more);
    snprintf(more, sizeof more,
             "%s/marble inspect --diff %s/endless/checkpoints/step-000003.h5 "
             "%s/one/checkpoints/step-000001.h5 | grep -c "
             "adapter/current >%s/differing",
             MBL_BINARY_DIR, folder, folder, folder);
    (void)!system(more);
    check_times("differing", "0\n", 1);
}

/* Nothing is ever trained. old_equals_new holds though the rollout policy lags and rounds. */
static void steps_that_train_nothing_raise_an_alarm(void **state) {
    char more[2048];
    (void)state;
    write_lines("idle.txt", "image 1\nimage 2\nimage 3\nimage 4\nimage 5\n");
    snprintf(more, sizeof more,
             "%s --set 'rewards=[{name: ocr},{name: count}]' --set train.steps=12 --set alarms.patience=5",
             prompts_of("idle.txt"));
    train_well(1, "idle", more);
    assert_int_equal(alarms("idle", "old_equals_new"), 10); /* from the third step on */
    assert_int_equal(alarms("idle", "no_score"), 8);        /* from the fifth */
    both_say("idle", "alarm no_score: no image of the last 5 steps has a score of ocr");
    strcat(more, " --set alarms.on_alarm=stop");
    assert_int_equal(train(1, "stopped", more), 1);
    check_times("stopped/log.txt", "report: ", 1); /* of what there is */
    json_t *line = last_line("stopped", "metrics.jsonl");
    assert_int_equal(json_integer_value(json_object_get(line, "step")), 3);
    json_decref(line);
    snprintf(more + strlen(more), sizeof more - strlen(more), " --set alarms.old_equals_new=0");
    assert_int_equal(train(1, "later", more), 1);
    line = last_line("later", "metrics.jsonl");
    assert_int_equal(json_integer_value(json_object_get(line, "step")), 5);
    json_decref(line);
}

/* What nobody has scored is null and "-", in every file and table. */
static void scores_of_nobody_are_null(void **state) {
    (void)state;
    json_t *line = last_line("idle", "metrics.jsonl");
    assert_true(json_is_null(json_object_get(json_object_get(line, "reward"), "ocr")));
    assert_true(json_is_null(json_object_get(json_object_get(line, "advantage_std"), "ocr")));
    json_decref(line);
    line = last_line("idle", "eval.jsonl");
    const json_t *ocr = json_object_get(json_object_get(line, "rewards"), "ocr");
    static const char *const keys[] = {"mean", "ci95", "change", "change_ci95"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_true(json_is_null(json_object_get(ocr, keys[i])));
    assert_int_equal(json_integer_value(json_object_get(ocr, "n")), 0);
    json_decref(line);
    check_times("idle.log", "step 12/12  ocr -  count -  |", 1);
    check_times("idle.log", "eval at step 12  ocr -  count -\n", 1);
    check_times("idle.log", "0.000", 0);
    both_say("idle", "ocr                 -         -         -                      0   no interval\n");
}

/* A reward's entry under a key of a line. */
static const json_t *of_reward(const json_t *line, const char *key, const char *reward) {
    const json_t *found = json_object_get(json_object_get(line, key), reward);
    if (!found)
        fail_msg("no %s.%s", key, reward);
    return found;
}

/* No number stands for what was not computed: of steps without any usable reward, of a reward without a score
 * among others, of a KL term that is off. */
static void what_was_not_computed_is_null(void **state) {
    static const char *const whole[] = {"loss", "cos_min", "cos_part_min", "cos_mean", "cos_var"};
    static const char *const each[] = {"cos", "cos_part", "cos_step", "grad_norm_by"};
    static const char *const weights[] = {"alpha", "alpha_ema", "alpha_raw"};
    char more[2048];
    (void)state;
    json_t *line = last_line("idle", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++)
        if (!json_is_null(json_object_get(line, whole[i])))
            fail_msg("%s is no null", whole[i]);
    for (size_t i = 0; i < 4; i++)
        assert_true(json_is_null(of_reward(line, each[i], "ocr")));
    for (size_t i = 0; i < 3; i++)
        assert_true(json_is_null(of_reward(line, weights[i], "ocr")));
    assert_int_equal(json_integer_value(json_object_get(line, "rewards_used")), 0);
    json_decref(line);
    check_times("idle.log", "alpha", 0);
    snprintf(more, sizeof more, "%s --set 'rewards=[{name: ocr},{name: jpeg}]' --set train.kl=0",
             prompts_of("idle.txt"));
    train_well(1, "half", more);
    line = last_line("half", "metrics.jsonl");
    for (size_t i = 0; i < 4; i++) {
        assert_true(json_is_null(of_reward(line, each[i], "ocr")));
        assert_true(json_is_number(of_reward(line, each[i], "jpeg")));
    }
    for (size_t i = 0; i < 5; i++)
        assert_true(json_is_number(json_object_get(line, whole[i])));
    assert_true(json_is_null(json_object_get(line, "kl")));
    assert_true(json_real_value(of_reward(line, "alpha", "ocr")) ==
                0); /* it takes no part: that is its share */
    assert_true(json_real_value(of_reward(line, "alpha", "jpeg")) == 1);
    json_decref(line);
    snprintf(more, sizeof more, "%s --set 'rewards=[{name: ocr, min: 0.5},{name: jpeg}]'",
             prompts_of("idle.txt"));
    train_well(1, "limited", more);
    line = last_line("limited", "metrics.jsonl");
    assert_true(json_is_null(json_object_get(of_reward(line, "constraint", "ocr"), "gap")));
    assert_true(json_is_number(json_object_get(line, "kl")));
    json_decref(line);
}

/* One prompt has no interval, however many images it has, and few have one that is marked. */
static void few_prompts_are_marked(void **state) {
    (void)state;
    train_well(1, "single", "--set eval.prompts=1 --set 'rewards=[{name: jpeg}]'");
    check_times("single/log.txt", "1   no interval\n", 1);
    check_times("single.log", "better", 0);
    check_times("single.log", "+-", 0);
    json_t *line = last_line("single", "eval.jsonl");
    const json_t *jpeg = json_object_get(json_object_get(line, "rewards"), "jpeg");
    assert_true(json_is_number(json_object_get(jpeg, "mean")));
    assert_true(json_is_null(json_object_get(jpeg, "ci95")));
    json_decref(line);
    write_lines("alone.txt", "three blue circles\n");
    char more[1200];
    snprintf(more, sizeof more,
             "%s --set eval.prompts=8 --set prompts.groups=1 --set 'rewards=[{name: jpeg}]'",
             prompts_of("alone.txt"));
    train_well(1, "alone", more);
    both_say("alone", "8   no interval\n");
    check_times("alone.log", "better", 0);
    check_times("alone.log", "+-", 0);
    write_lines("two.txt", "three blue circles\ntwo red circles\n");
    snprintf(more, sizeof more,
             "%s --set eval.prompts=8 --set prompts.groups=1 --set 'rewards=[{name: jpeg}]'",
             prompts_of("two.txt"));
    train_well(1, "two", more);
    both_say("two", "* from fewer than 8 prompts");
    line = last_line("two", "eval.jsonl");
    jpeg = json_object_get(json_object_get(line, "rewards"), "jpeg");
    assert_int_equal(json_integer_value(json_object_get(jpeg, "n")), 8);
    assert_int_equal(json_integer_value(json_object_get(jpeg, "prompts")), 2);
    json_decref(line);
    train_well(1, "seven", "--set eval.prompts=7 --set 'rewards=[{name: jpeg}]'");
    both_say("seven", "* from fewer than 8 prompts");
    check_times("seven.log", "* ", 2); /* the interval in the table, and what it means */
    train_well(1, "eight", "--set eval.prompts=8 --set 'rewards=[{name: jpeg}]'");
    check_times("eight.log", "*", 0);
}

/* A learning rate that destroys the model is not only seen in the images. */
static void a_collapse_of_rewards_raises_an_alarm(void **state) {
    (void)state;
    train_well(1, "sound", "--set train.steps=8 --set alarms.patience=3");
    assert_int_equal(alarms("sound", "reward_collapse"), 0);
    train_well(1, "burnt", "--set train.steps=8 --set train.lr=1 --set alarms.patience=3");
    assert_true(alarms("burnt", "reward_collapse") > 0);
    both_say("burnt", "alarm reward_collapse: the mean of ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_that_are_no_numbers_are_refused),
        cmocka_unit_test(steps_that_are_not_finite_are_left_out),
        cmocka_unit_test(a_run_may_go_on_whatever_comes),
        cmocka_unit_test(steps_that_train_nothing_raise_an_alarm),
        cmocka_unit_test(scores_of_nobody_are_null),
        cmocka_unit_test(what_was_not_computed_is_null),
        cmocka_unit_test(few_prompts_are_marked),
        cmocka_unit_test(a_collapse_of_rewards_raises_an_alarm),
    };
    return cmocka_run_group_tests(tests, prepare_small, drop_folder);
}
