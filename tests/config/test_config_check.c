/* src/config/check and method: what keys of run.yaml mean together, and what of it is refused.
 */
#include "config_case.h"
#include "ops/list.h"

static void one_group_has_no_halves(void) {
    static const char *const sets[] = {"balance.shrink=average", "balance.alpha_halves=5"};
    for (size_t i = 0; i < 2; i++) {
        char text[600];
        const char *keys[] = {"prompts={source: signs, groups: 1, group_size: 6}", sets[i], NULL};
        mbl_config_t *config;
        assert_int_equal(mbl_config_parse(full, strlen(full), "run.yaml", keys, 2, &config), MBL_OK);
        assert_int_equal(mbl_config_check(config, 1), MBL_ERR_CONFIG);
        snprintf(text, sizeof text,
                 "prompts.groups: 1 with %.*s, which compares two halves of a step's groups; "
                 "expected at least 2 groups",
                 (int)strcspn(sets[i], "="), sets[i]);
        const char *part = text;
        check_parts(mbl_fail_message(), &part, 1);
        mbl_config_free(config);
    }
}

#include <math.h>
#include <stdlib.h>

/* Keys of other methods, or of what the run does not have, are refused where they are not at their default.
 */
static void keys_that_say_nothing(void) {
    static const char *const unknown[][2] = {
        {"balance={cagrad_c: 0.4}",
         "balance.cagrad_c: has no meaning with balance.method: marble; expected it "
         "left out, or balance.method: cagrad"},
        {"balance={weighted: mean, method: equal}", "or balance.method: weighted_sum"},
        {"balance={refresh_every: 10, method: weighted_sum}",
         "balance.refresh_every: has no meaning with balance.method: weighted_sum; expected it left out, or "
         "a "
         "method with one gradient per reward, such as marble"},
        {"balance={gram_fraction: 0.5, method: gdpo}", "balance.gram_fraction: has no meaning"},
        {"balance={on_refresh: smooth, method: equal}",
         "balance.on_refresh: has no meaning with balance.method: equal; expected it left out, or a method "
         "that "
         "solves, such as marble"},
        {"balance={rho: 0.5, method: fixed}", "balance.rho: has no meaning"},
        {"balance={shrink: average, method: equal}", "balance.shrink: average with balance.method: equal"},
        {"train={kl: 0, kl_fraction: 0.5}",
         "train.kl_fraction: has no meaning with train.kl: 0; expected it left out, or a train.kl above 0"},
        {"constraint={rate: 0.1}",
         "constraint.rate: has no meaning with no reward with a min; expected it left "
         "out, or a min of a reward"},
        {"constraint={penalty: 1}", "constraint.penalty: has no meaning"},
        {"constraint={smooth: 0.1}", "constraint.smooth: has no meaning"},
        {"constraint={most: 1}", "constraint.most: has no meaning"}};
    static const char *const known[] = {
        "balance={cagrad_c: 0.4, method: cagrad}",
        "balance={cagrad_c: 0.5}",
        "balance={weighted: mean, method: weighted_sum}",
        "balance={weighted: sum}",
        "balance={refresh_every: 10, gram_fraction: 0.5, method: equal}",
        "balance={refresh_every: 10, method: fixed}",
        "balance={rho: 0.5, on_refresh: smooth, method: nash}",
        "balance={rho: 0.5, refresh_every: 3, method: marble_reference}",
        "balance={refresh_every: 1, gram_fraction: 1, rho: 0.7, on_refresh: raw, method: gdpo}",
        "train={kl: 0, kl_fraction: 1}",
        "train={kl: 0.1, kl_fraction: 0.5}",
        "constraint={rate: 0.5, penalty: 10, smooth: 0.5, most: 10}"};
    mbl_config_t *config;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        check_refused(unknown[i][0], 1, unknown[i][1]);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(parse(full, known[i], &config), MBL_OK);
        if (mbl_config_check(config, 1) != MBL_OK)
            fail_msg("%s: %s", known[i], mbl_fail_message());
        mbl_config_free(config);
    }
}

static void cross_checks(void **state) {
    (void)state;
    mbl_config_t *config;
    assert_int_equal(parse(full, NULL, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 1), MBL_OK);
    assert_int_equal(mbl_config_check(config, 24), MBL_OK); /* an image each */
    assert_int_equal(mbl_config_check(config, 25), MBL_ERR_CONFIG);
    const char *part =
        "run.yaml:6: prompts.groups: 4 groups of 6 images for 25 ranks; every rank needs an image: start at "
        "most 24 ranks";
    check_parts(mbl_fail_message(), &part, 1);
    mbl_config_free(config);
    assert_int_equal(parse("model: {path: .}", NULL, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 1), MBL_ERR_CONFIG);
    part = "run.yaml: rewards: none (K = 0); expected a list such as";
    check_parts(mbl_fail_message(), &part, 1);
    mbl_config_free(config);
    check_refused("model.path=''", 1, "model.path: missing; expected the folder of a base model");
    check_refused("balance.floor=0.6", 1, "--set balance.floor=0.6: balance.floor: 0.6 with 2 rewards");
    check_refused("balance.method=cagrad", 1,
                  "run.yaml:19: balance.floor: 0.05 with balance.method: cagrad, which has no least alpha; "
                  "expected balance.floor: 0 or balance.method: marble or marble_reference");
    keys_that_say_nothing();
    check_refused("balance={method: gdpo, warmup: 3}", 1,
                  "balance.warmup: 3 with balance.method: gdpo, which has no first solve to wait for");
    check_refused("balance={method: marble_reference, gram_fraction: 0.5}", 1,
                  "balance.gram_fraction: not with balance.method: marble_reference; expected 1");
    check_refused("balance={method: marble_reference, common: apart}", 1, "expected together");
    check_refused("balance={method: marble_reference, on_refresh: smooth}", 1, "expected raw");
    assert_int_equal(parse(full, "balance.method=marble_reference", &config), MBL_OK);
    assert_int_equal(config->balance.refresh_every, 10); /* its own default */
    mbl_config_free(config);
    assert_int_equal(parse(full, "balance={method: marble_reference, refresh_every: 1}", &config), MBL_OK);
    assert_int_equal(config->balance.refresh_every, 1);
    assert_int_equal(mbl_config_check(config, 1), MBL_OK);
    mbl_config_free(config);
    check_refused("eval.negative=fog", 1, "eval.negative: a negative prompt, while eval.guidance is 1, none");
    check_refused("eval.skip_layers=[7, 8]", 1, "eval.skip_layers: 2 layers, while eval.guidance is 1, none");
    assert_int_equal(
        parse(full, "eval={guidance: 4.5, negative: \"fog: 'x'\", skip_layers: [7, 8]}", &config), MBL_OK);
    assert_string_equal(config->eval.negative, "fog: 'x'");
    assert_true(config->eval.skip_layers.count == 2 && config->eval.skip_layers.items[1] == 8);
    assert_int_equal(mbl_config_check(config, 1), MBL_OK);
    mbl_config_free(config);
    check_refused("prompts.source=file", 1, "run.yaml: 2 problems, all above");
    check_refused("prompts.train=/dev/null", 1, "prompts.train: a file, while prompts.source is signs");
    check_refused("prompts.train_count=3", 1, "prompts.groups: 4 of only 3 training sentences");
    check_refused("train.timestep_fraction=0.1", 1,
                  "0.1 of 8 rollout steps is no whole timestep; expected at least "
                  "0.125");
    check_refused("train.updates_per_epoch=500", 1, "500 updates of ");
    check_refused(
        "balance={common: offset, method: nash}", 1,
        "offset with balance.method: nash; expected balance.common: auto, or balance.method: marble");
    check_refused(
        "balance={common: apart, method: gdpo}", 1,
        "apart with balance.method: gdpo; expected balance.common: auto, or a method with one gradient");
    const char *limited = "rewards=[{name: jpeg}, {name: ocr, min: 0.8}]";
    const char *sets[][3] = {
        {limited, "balance={method: gdpo}",
         "rewards.1.min: 0.8 with balance.method: gdpo; expected a balance.method with one"},
        {limited, "balance={refresh_every: 2}",
         "rewards.1.min: 0.8 with balance.refresh_every: 2; expected balance.refresh_every: 1"},
        {limited, "balance={on_refresh: smooth}",
         "rewards.1.min: 0.8 with balance.on_refresh: smooth; expected"},
        {limited, "balance={common: offset}", "rewards.1.min: 0.8 with balance.common: offset; expected"},
        {limited, "balance={common: apart}",
         "rewards.1.min: 0.8 with balance.common: apart; expected balance.common: together, or auto,"},
        {limited, "balance={shrink: equal}",
         "balance.shrink: equal with rewards.1.min: 0.8; expected no reward"},
        {limited, "balance={guard: own_parts}",
         "own_parts with rewards.1.min: 0.8; expected balance.guard: off, or no reward with a min"},
        {"train.kl_fraction=0.5", "balance={method: marble_reference}", "train.kl_fraction: not with"},
        {"rewards=[{name: jpeg, group: a}, {name: ocr, min: 0.8, group: a}]", "balance={}",
         "rewards.1.min: 0.8 with rewards.1.group: a; expected no group with it"},
        {"rewards=[{name: ocr, min: 0.8}]", "balance={}",
         "rewards.0.min: 0.8 with a min of every reward; expected at least one reward without"},
        {"rewards=[{name: ocr, monitor: true}]", "balance={}",
         "rewards.0.monitor: true; expected at least one reward that is trained"},
        {"rewards=[{name: jpeg}, {name: ocr, monitor: true, on_failure: stop}]", "balance={}",
         "rewards.1.monitor: true; expected on_failure: skip"},
        {"rewards=[{name: jpeg}, {name: ocr, monitor: true}]", "balance={method: marble_reference}",
         "rewards.1.monitor: true; expected another balance.method"},
        {"rewards=[{name: jpeg, min: 0}, {name: count}, {name: ocr, monitor: true}]", "balance={}",
         "rewards.2.monitor: true; expected no reward with a min"}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const char *both[] = {sets[i][0], sets[i][1]};
        assert_int_equal(mbl_config_parse(full, sizeof full - 1, "run.yaml", both, 2, &config), MBL_OK);
        assert_int_equal(mbl_config_check(config, 1), MBL_ERR_CONFIG);
        check_parts(mbl_fail_message(), &sets[i][2], 1);
        mbl_config_free(config);
    }
    const char *monitored[] = {"rewards=[{name: jpeg}, {name: count}, {name: ocr, monitor: true}]",
                               "balance={floor: 0.5}"};
    assert_int_equal(mbl_config_parse(full, sizeof full - 1, "run.yaml", monitored, 2, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 1), MBL_OK);
    mbl_config_free(config);
    check_refused("balance={alpha_halves: 1, method: equal}", 1,
                  "balance.alpha_halves: 1 with balance.method: equal, which does not solve");
    check_refused("balance={shrink: equal, method: gdpo}", 1,
                  "balance.shrink: equal with balance.method: gdpo; expected a method that solves");
    check_refused("balance={guard: own_parts, refresh_every: 10}", 1,
                  "balance.guard: own_parts with balance.refresh_every: 10; expected balance.guard: off, or "
                  "balance.refresh_every: 1");
    check_refused("balance={guard: own_parts, gram_fraction: 0.5}", 1,
                  "balance.guard: own_parts with balance.gram_fraction: 0.5; expected");
    check_refused("balance={guard: own_parts, method: weighted_sum}", 1,
                  "balance.guard: own_parts with balance.method: weighted_sum; expected balance.guard: off, "
                  "or a method that solves");
    one_group_has_no_halves();
    check_refused(
        "balance={guard: own_parts, shrink: equal}", 1,
        "own_parts with balance.shrink: equal; expected balance.guard: off, or balance.shrink: off");
    check_refused("balance={method: marble_reference, kl: common}", 1,
                  "balance.kl: not with balance.method: marble_reference; expected apart");
}

/* What becomes of the common part unless it is said: offset where marble can allow for it, whatever else is
 * asked for, but for rewards with a min. */
static void the_common_part_by_method(void **state) {
    static const struct {
        const char *balance, *rewards, *text; /* NULL: nothing to say */
        mbl_common_t common;
    } cases[] = {
        {"{}", "[{name: ocr}]", "offset with marble", MBL_COMMON_OFFSET},
        {"{common: auto, refresh_every: 10, shrink: average}", "[{name: ocr}]", "offset with marble",
         MBL_COMMON_OFFSET},
        {"{gram_fraction: 0.1, on_refresh: smooth, warmup: 3}", "[{name: ocr}]", "offset with marble",
         MBL_COMMON_OFFSET},
        {"{guard: own_parts, floor: 0.1}", "[{name: ocr}]", "offset with marble", MBL_COMMON_OFFSET},
        {"{}", "[{name: ocr}, {name: jpeg, min: -1}]", "together with marble", MBL_COMMON_TOGETHER},
        {"{method: nash}", "[{name: ocr}]", "together with nash", MBL_COMMON_TOGETHER},
        {"{method: marble_reference}", "[{name: ocr}]", "together with marble_reference",
         MBL_COMMON_TOGETHER},
        {"{method: weighted_sum}", "[{name: ocr}]", NULL, MBL_COMMON_TOGETHER},
        {"{common: together}", "[{name: ocr}]", NULL, MBL_COMMON_TOGETHER},
        {"{common: apart, refresh_every: 10, shrink: equal}", "[{name: ocr}]", NULL, MBL_COMMON_APART},
        {"{common: offset, gram_fraction: 0.5}", "[{name: ocr}]", NULL, MBL_COMMON_OFFSET}};
    char balance[128], rewards[128], text[64];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_config_t *config;
        const char *sets[] = {balance, rewards};
        snprintf(balance, sizeof balance, "balance=%s", cases[i].balance);
        snprintf(rewards, sizeof rewards, "rewards=%s", cases[i].rewards);
        assert_int_equal(mbl_config_parse(full, sizeof full - 1, "run.yaml", sets, 2, &config), MBL_OK);
        assert_int_equal(mbl_config_check(config, 1), MBL_OK);
        assert_int_equal(mbl_config_common(config, config->balance.method), cases[i].common);
        assert_int_equal(mbl_config_common_text(config, text, sizeof text), cases[i].text != NULL);
        if (cases[i].text)
            assert_string_equal(text, cases[i].text);
        mbl_config_free(config);
    }
}

/* Keys of earlier versions: what is always done now may stay in a file, the rest is refused with a reason. */
static void keys_that_are_gone(void **state) {
    mbl_config_t *config;
    (void)state;
    const char *parts[] = {"run.yaml:1: balance.metric: \"adam\" is not supported any longer",
                           "tests/study/README.md", "expected plain, or leave the key out"};
    refused("balance: {metric: adam}", NULL, parts, 3);
    refused("balance: {metric: [plain]}", NULL, parts + 2, 1);
    REFUSED("seed: 1", "balance.metric=adam", "--set balance.metric=adam: balance.metric: \"adam\"");
    assert_int_equal(parse("balance: {metric: plain, rho: 0.25}", NULL, &config), MBL_OK);
    assert_near(config->balance.rho, 0.25, 0);
    mbl_config_free(config);
}

/* Keys that have another name now are read under both. */
static void keys_of_another_name(void **state) {
    mbl_config_t *config;
    (void)state;
    assert_int_equal(parse("pretrain: {pictures: 300}", NULL, &config), MBL_OK);
    assert_int_equal(config->pretrain.images, 300);
    mbl_config_free(config);
    assert_int_equal(parse("pretrain: {images: 300}", "pretrain.pictures=5", &config), MBL_OK);
    assert_int_equal(config->pretrain.images, 5);
    mbl_config_free(config);
    REFUSED("seed: 1", "pretrain.pictures=many", "pretrain.pictures: \"many\" is not a whole number");
}

static void which_checkpoints_stay(void **state) {
    static const struct {
        const char *set;
        size_t last, every, best;
    } good[] = {{"checkpoint.keep=7", 7, 0, 0},
                {"checkpoint.keep.every=100", 3, 100, 0},
                {"checkpoint.keep={last: 2, every: 50, best: ocr}", 2, 50, 1},
                {"checkpoint={every: 10, keep: {best: [count, ocr]}}", 3, 0, 2}};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        mbl_config_t *config;
        assert_int_equal(
            parse("model: {path: .}\nrewards: [{name: ocr}, {name: count}]\n", good[i].set, &config), MBL_OK);
        assert_int_equal(config->checkpoint.keep.last, good[i].last);
        assert_int_equal(config->checkpoint.keep.every, good[i].every);
        assert_int_equal(config->checkpoint.keep.best.count, good[i].best);
        assert_int_equal(mbl_config_check(config, 1), MBL_OK);
        if (good[i].best)
            assert_string_equal(config->checkpoint.keep.best.items[good[i].best - 1], "ocr");
        mbl_config_free(config);
    }
    check_refused("checkpoint={every: 5, keep: {best: jpeg}, other_base: accept}", 1,
                  "checkpoint.keep.best: \"jpeg\" is not a reward of this run");
    check_refused("checkpoint={every: 15, keep: {best: ocr}}", 1,
                  "expected eval.every to be a multiple of checkpoint.every");
}

static void groups_are_objectives(void **state) {
    static const char yaml[] =
        "model: {path: .}\nrewards:\n  - {name: ocr, group: looks}\n  - {name: count}\n"
        "  - {name: jpeg, group: looks}\nprompts: {groups: 4}\n";
    const char *const sets[] = {"balance.floor=0.5", "balance.floor=0.6", "balance.method=gdpo"};
    const char *const parts[] = {"", "balance.floor: 0.6 with 2 objectives; expected at most 1 / 2",
                                 "run.yaml: 2 problems"}; /* one a reward */
    char *json;
    (void)state;
    for (int i = 0; i < 3; i++) {
        mbl_config_t *config;
        size_t of[3];
        assert_int_equal(parse(yaml, sets[i], &config), MBL_OK);
        assert_int_equal(mbl_config_objectives(config, of), 2);
        assert_true(of[0] == 0 && of[1] == 1 && of[2] == 0);
        assert_int_equal(mbl_config_json(config, &json), MBL_OK);
        assert_non_null(strstr(json, "\"group\": \"looks\""));
        mbl_free(json);
        assert_int_equal(mbl_config_check(config, 1), i == 0 ? MBL_OK : MBL_ERR_CONFIG);
        if (i > 0)
            check_parts(mbl_fail_message(), &parts[i], 1);
        mbl_config_free(config);
    }
    REFUSED("rewards: [{name: ocr, group: 'a b'}]", NULL, "rewards.0.group: \"a b\" is not a name");
}

static void unregistered_rewards(void **state) {
    (void)state;
    mbl_config_t *config;
    const char *yaml = "model: {path: .}\nrewards:\n  - {name: ocr}\n  - {name: cuont}\n";
    assert_int_equal(parse(yaml, NULL, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, 1), MBL_ERR_CONFIG);
    const char *const parts[] = {("run.yaml:4: rewards.1.name: \"cuont\" is not a registered reward; did you "
                                  "mean count?; expected one of "),
                                 "ocr", "jpeg"};
    check_parts(mbl_fail_message(), parts, 3);
    mbl_config_free(config);
    check_refused("rewards.1.type=nothing", 1,
                  "rewards.1.type: \"nothing\" is not a registered reward; expected");
    if (mbl_ops_cuda.missing)
        check_refused("device=cuda", 1,
                      "--set device=cuda: device: cuda is not built in; expected auto or cpu");
}

static void pretrain_checks(void **state) {
    (void)state;
    const struct {
        const char *set, *part;
    } cases[] = {
        {"pretrain.batch=1", "pretrain.batch: 1 images for 2 ranks; start at most 1 ranks"},
        {"pretrain.warmup=2000", "pretrain.warmup: 2000; expected at most pretrain.steps 1000"},
        {"pretrain.model.num_attention_heads=8", "caption_projection_dim: 128; expected 256"},
        {"pretrain.model.sample_size=16", "sample_size: 16; expected 32"},
        {"pretrain.model.in_channels=4", "in_channels: 4; expected 3"},
        {"pretrain.model.patch_size=5", "sample_size: 32; expected a multiple of patch_size 5"},
        {"pretrain.model.pos_embed_max_size=4", "pos_embed_max_size: 4; expected at least 8"},
        {"pretrain.model.num_layers=2", "dual_attention_layers: 2; expected less than num_layers 2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_config_t *config;
        assert_int_equal(parse(full, cases[i].set, &config), MBL_OK);
        assert_int_equal(mbl_config_check_pretrain(config, 2), MBL_ERR_CONFIG);
        check_parts(mbl_fail_message(), &cases[i].part, 1);
        mbl_config_free(config);
    }
    const char *part =
        "run.yaml: rewards: none (K = 0); expected a list such as"; /* evaluations score them */
    mbl_config_t *config;
    assert_int_equal(parse("pretrain: {steps: 200}", NULL, &config), MBL_OK);
    assert_int_equal(mbl_config_check_pretrain(config, 2), MBL_ERR_CONFIG);
    check_parts(mbl_fail_message(), &part, 1);
    mbl_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_checks),           cmocka_unit_test(the_common_part_by_method),
        cmocka_unit_test(keys_that_are_gone),     cmocka_unit_test(keys_of_another_name),
        cmocka_unit_test(which_checkpoints_stay), cmocka_unit_test(groups_are_objectives),
        cmocka_unit_test(unregistered_rewards),   cmocka_unit_test(pretrain_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
