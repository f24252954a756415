/* src/config: every kind of error with its message, defaults, --set, round trips, failing allocations,
 * mutated files. */
#include "config_case.h"
#include "base/rng.h"
#include "base/suggest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void defaults(void **state) {
    (void)state;
    mbl_config_t *config;
    assert_int_equal(parse("", NULL, &config), MBL_OK);
    assert_int_equal(config->seed, 42);
    assert_int_equal(config->precision, MBL_CONFIG_PRECISION_AUTO);
    assert_int_equal(config->model.lora.rank, 16);
    assert_int_equal(config->model.lora.targets.count, 8);
    assert_string_equal(config->model.lora.targets.items[3], "attn.to_out.0");
    assert_string_equal(config->model.lora.targets.items[7], "attn.to_add_out");
    assert_string_equal(config->model.path, "");
    assert_int_equal(config->prompts.groups, 24);
    assert_int_equal(config->prompts.group_size, 12);
    assert_int_equal(config->rollout.solver, MBL_SOLVER_DPM2);
    assert_near(config->rollout.shift, 3.0, 0);
    assert_near(config->train.lr, 3.0e-4, 0);
    assert_near(config->train.kl, 1.0e-4, 0);
    assert_near(config->train.timestep_fraction, 0.99, 0);
    assert_near(config->train.old_decay.rate, 0.001, 0);
    assert_near(config->train.adam_eps, 1e-8, 0);
    assert_int_equal(config->advantage.std, MBL_CONFIG_STD_AUTO);
    assert_int_equal(config->balance.method, MBL_METHOD_MARBLE);
    assert_int_equal(config->balance.common, MBL_CONFIG_COMMON_AUTO);
    assert_int_equal(config->checkpoint.keep.last, 3);
    assert_int_equal(config->checkpoint.keep.every, 0);
    assert_int_equal(config->checkpoint.keep.best.count, 0);
    assert_int_equal(config->alarms.on_alarm, MBL_ON_ALARM_WARN);
    assert_near(config->alarms.x0_norm_drift, 0.25, 0);
    assert_int_equal(config->log.level, MBL_LOG_INFO);
    assert_int_equal(config->rewards.count, 0);
    assert_int_equal(config->pretrain.model.dual_attention_layers.count, 0);
    mbl_config_free(config);
    assert_int_equal(parse("rewards: [{name: color}]", NULL, &config), MBL_OK);
    assert_int_equal(mbl_config_check_pretrain(config, 2), MBL_OK); /* all else is by default */
    mbl_config_free(config);
}

static void words_for_counts(void **state) {
    (void)state;
    mbl_config_t *config;
    char *json;
    assert_int_equal(parse("rollout: {micro_batch: auto}\ntrain: {micro_batch: 3, checkpoint_blocks: none}",
                           NULL, &config),
                     MBL_OK);
    assert_true(config->rollout.micro_batch == MBL_CONFIG_AUTO);
    assert_int_equal(config->train.micro_batch, 3);
    assert_true(config->train.checkpoint_blocks == MBL_CONFIG_NONE);
    assert_int_equal(mbl_config_json(config, &json), MBL_OK);
    assert_non_null(strstr(json, "\"micro_batch\": \"auto\""));
    assert_non_null(strstr(json, "\"checkpoint_blocks\": \"none\""));
    mbl_free(json);
    mbl_config_free(config);
    assert_int_equal(parse("", "train.checkpoint_blocks=all", &config), MBL_OK);
    assert_true(config->train.checkpoint_blocks == MBL_CONFIG_ALL);
    mbl_config_free(config);
    assert_int_equal(parse("train: {checkpoint_blocks: 5}", NULL, &config), MBL_OK);
    assert_int_equal(config->train.checkpoint_blocks, 5);
    mbl_config_free(config);
    assert_int_equal(parse("", NULL, &config), MBL_OK);
    assert_true(config->train.checkpoint_blocks == MBL_CONFIG_AUTO);
    assert_int_equal(config->train.micro_batch, 48);
    mbl_config_free(config);
}

static void values_reach_their_fields(void **state) {
    (void)state;
    mbl_config_t *config;
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(parse(full, NULL, &config), MBL_OK);
    assert_int_equal(config->seed, 7);
    assert_int_equal(config->device, MBL_CONFIG_DEVICE_CPU);
    assert_string_equal(config->model.path, here);
    assert_near(config->model.lora.alpha, 12.5, 0);
    assert_int_equal(config->model.lora.targets.count, 2);
    assert_string_equal(config->model.lora.targets.items[1], "attn.to_k");
    assert_int_equal(config->rollout.solver, MBL_SOLVER_EULER);
    assert_int_equal(config->train.old_decay.flat, 75);
    assert_near(config->train.old_decay.hold, 0.999, 0);
    assert_int_equal(config->rewards.count, 2);
    assert_string_equal(config->rewards.items[0].type, "ocr");
    assert_near(config->rewards.items[0].weight, 2, 0);
    assert_int_equal(config->rewards.items[0].on_failure, MBL_ON_FAILURE_SKIP);
    assert_null(config->rewards.items[0].options);
    assert_string_equal(config->rewards.items[1].name, "small");
    assert_string_equal(config->rewards.items[1].type, "jpeg");
    assert_int_equal(config->rewards.items[1].on_failure, MBL_ON_FAILURE_STOP);
    assert_string_equal(config->rewards.items[1].options,
                        "{\"quality\": 90, \"floor\": -1.5, \"tags\": [\"a\", \"b\", true, null]}");
    assert_near(config->limits.seconds, 900, 0);
    assert_int_equal(config->limits.micro_batch_bytes, (size_t)2 << 30);
    assert_near(config->limits.deadline, 1800, 0);
    assert_int_equal(config->pretrain.model.dual_attention_layers.count, 2);
    assert_int_equal(config->pretrain.model.dual_attention_layers.items[1], 2);
    char where[256];
    assert_string_equal(mbl_config_where(config, "train.lr", where, sizeof where), "run.yaml:10: train.lr");
    assert_string_equal(mbl_config_where(config, "train.kl", where, sizeof where), "run.yaml: train.kl");
    assert_string_equal(mbl_config_word("rollout.solver", MBL_SOLVER_DPM2), "dpm2");
    mbl_config_free(config);
}

static void overrides(void **state) {
    (void)state;
    const char *const sets[] = {"train.lr=2e-5",    "model.lora.targets=[a, b, c]", "rewards.1.weight=0.5",
                                "eval.solver=dpm1", "train.old_decay.flat=3",       "prompts.groups=5",
                                "prompts.groups=6"};
    mbl_config_t *config;
    assert_int_equal(mbl_config_parse(full, sizeof full - 1, "run.yaml", sets, 7, &config), MBL_OK);
    assert_near(config->train.lr, 2e-5, 0);
    assert_int_equal(config->model.lora.targets.count, 3);
    assert_string_equal(config->model.lora.targets.items[2], "c");
    assert_near(config->rewards.items[1].weight, 0.5, 0);
    assert_string_equal(config->rewards.items[1].name, "small");
    assert_int_equal(config->eval.solver, MBL_SOLVER_DPM1);
    assert_int_equal(config->train.old_decay.flat, 3);
    assert_near(config->train.old_decay.rate, 0.0075, 0);
    assert_int_equal(config->prompts.groups, 6);
    char where[256];
    assert_string_equal(mbl_config_where(config, "train.lr", where, sizeof where),
                        "--set train.lr=2e-5: train.lr");
    mbl_config_free(config);
    assert_int_equal(parse("", "rewards=[{name: ocr}, {name: count}]", &config), MBL_OK);
    assert_int_equal(config->rewards.count, 2);
    mbl_config_free(config);
    /* A wrong value in the file does not matter once it is overridden. */
    assert_int_equal(parse("train: {lr: fast}\n", "train.lr=0.5", &config), MBL_OK);
    mbl_config_free(config);
}

static void wrong_overrides(void **state) {
    (void)state;
    REFUSED(full, "train.lr=fast",
            "--set train.lr=fast: train.lr: \"fast\" is not a number; expected a number");
    REFUSED(full, "train.lrr=1", "--set train.lrr=1: train.lrr: unknown key; did you mean train.lr?");
    REFUSED(full, "train.lr", "--set train.lr: no KEY=VALUE");
    REFUSED(full, "=3", "no KEY=VALUE");
    REFUSED(full, "train.lr=", "the value is empty");
    REFUSED(full, "train.lr=[1", "--set train.lr=[1: the value is no YAML: ", "expected KEY=VALUE");
    REFUSED(full, "train.lr.x=1", "lies below a single value");
    REFUSED(full, "rewards.7.weight=1", "\"7\" is not a place in the list");
    REFUSED(full, "rewards.x.weight=1", "\"x\" is not a place in the list");
    REFUSED(full, "train..lr=1", "lies below a single value");
}

static void wrong_values(void **state) {
    (void)state;
    REFUSED(
        "seed: 1\ntrain:\n  lr: fast\n", NULL,
        "run.yaml:3: train.lr: \"fast\" is not a number; expected a number in (0, 1], for instance 3.0e-4");
    REFUSED("train: {lr: 7}", NULL, "run.yaml:1: train.lr: 7 is out of range; expected a number in (0, 1]");
    REFUSED("train: {lr: 0}", NULL, "0 is out of range", "(0, 1]");
    REFUSED("train: {ema: 1}", NULL, "train.ema: 1 is out of range", "[0, 1)");
    REFUSED("train: {lr: nan}", NULL, "\"nan\" is not a number");
    REFUSED("train: {lr: 0x1p-4}", NULL, "is not a number");
    REFUSED("train: {lr: 1e999}", NULL, "is not a number");
    REFUSED("\n\nseed: 1.5", NULL, "run.yaml:3: seed: 1.5 is not a whole number",
            "at least 0, for instance 42");
    REFUSED("seed: -1", NULL, "seed: -1 is out of range");
    REFUSED("seed: 99999999999999999999999", NULL, "out of range");
    REFUSED("seed:", NULL, "run.yaml:1: seed: \"\" is empty; expected a whole number");
    REFUSED("prompts: {group_size: 1}", NULL, "prompts.group_size: 1 is out of range", "[2, 4096]");
    REFUSED("rollout: {micro_batch: 0}", NULL, "rollout.micro_batch: 0 is out of range",
            "[1, 65536] or auto");
    REFUSED("rollout: {micro_batch: all}", NULL, "rollout.micro_batch: \"all\" is not a whole number");
    REFUSED("train: {checkpoint_blocks: some}", NULL,
            "train.checkpoint_blocks: \"some\" is not a whole number",
            "in [0, 64] or auto or all or none, for instance auto");
    REFUSED("train: {checkpoint_blocks: 18446744073709551615}", NULL, "is out of range");
    REFUSED("eval: {prompts: 0}", NULL, "eval.prompts: 0 is out of range");
    REFUSED("rollout: {solver: dpm3}", NULL,
            "run.yaml:1: rollout.solver: \"dpm3\" is not a choice; did you mean dpm1?; expected one of "
            "euler, dpm1, "
            "dpm2");
    REFUSED("rollout: {solver: sde}", NULL, "\"sde\" is not supported by this version", "euler");
    REFUSED("train: [1]", NULL,
            "run.yaml:1: train: a list is not a mapping; expected keys of train: steps, lr, ");
    REFUSED("train: {lr: [1]}", NULL, "train.lr: a list is not a single value; expected a number");
    REFUSED("model: {lora: {targets: attn}}", NULL, "model.lora.targets: \"attn\" is not a list",
            "[attn.to_q");
    REFUSED("model: {lora: {targets: []}}", NULL, "a list of 0; expected 1 to 64 names");
    REFUSED("checkpoint: {keep: some}", NULL, "checkpoint.keep: \"some\" is not a whole number");
    REFUSED("checkpoint: {keep: {last: -1}}", NULL, "checkpoint.keep.last: -1 is out of range");
    REFUSED("checkpoint: {keep: [1]}", NULL, "checkpoint.keep: a list is not a mapping", "last, every, best");
    REFUSED("checkpoint: {other_base: yes}", NULL, "checkpoint.other_base: \"yes\" is not a choice");
    REFUSED("limits: {seconds: 3 weeks}", NULL, "limits.seconds: \"3 weeks\" is not a number", "2 h");
    REFUSED("limits: {micro_batch_bytes: 3 MB}", NULL, "is not a whole number", "512 MiB");
    REFUSED("pretrain: {model: {dual_attention_layers: [0, x]}}", NULL, "\"x\" is not a whole number",
            "[0, 1]");
    REFUSED("[1, 2]", NULL, "run.yaml:1: a list; expected a mapping of keys");
    REFUSED("hello", NULL, "run.yaml:1: \"hello\"; expected a mapping of keys");
}

static void wrong_keys(void **state) {
    (void)state;
    REFUSED("train:\n  lrr: 1\n", NULL, "run.yaml:2: train.lrr: unknown key; did you mean train.lr?",
            "keys of train: steps, lr, beta, kl, kl_fraction, clip, ");
    REFUSED("trian: {lr: 1}", NULL, "run.yaml:1: trian: unknown key; did you mean train?",
            "keys at the top: seed, device, precision, threads, cuda, model, prompts, ");
    REFUSED("group_size: 12", NULL, "group_size: unknown key; did you mean prompts.group_size?");
    REFUSED("train.lr: 1", NULL, "train.lr: unknown key");
    REFUSED("train: {lr: 0.1, steps: 3,\n  lr: 0.2}", NULL,
            "run.yaml:2: train.lr: given twice (first in line 1); keep one");
    REFUSED("balance: {weights: x}", NULL, "run.yaml:1: balance.weights: not supported by this version");
    REFUSED("alarms: {no_varianc: 1}", NULL,
            "alarms.no_varianc: unknown key; did you mean alarms.no_variance?");
    REFUSED("alarms: {on_alarm: ignore}", NULL, "alarms.on_alarm: \"ignore\"", "warn, stop");
    REFUSED("cuda: {graphs: maybe}", NULL, "cuda.graphs: \"maybe\" is not a choice", "on, off");
    REFUSED("alarms: {scorer_failed: 2}", NULL, "alarms.scorer_failed: 2 is out of range", "[0, 1]");
    REFUSED("balance: {rho: 1}", NULL, "balance.rho: 1 is out of range");
}

static void wrong_yaml(void **state) {
    (void)state;
    REFUSED("a: [1\nb: 2\n", NULL, "run.yaml:", "not a YAML configuration: ");
    REFUSED("seed: &x 3\neval: {seed: *x}\n", NULL, "run.yaml:2: not a YAML configuration: aliases");
    REFUSED("seed: 3\n---\nseed: 4\n", NULL, "run.yaml:2: ", "a second document");
    REFUSED("? [a, b]\n: 3\n", NULL, "a key that is a list");
    REFUSED("seed: \"a\\0b\"", NULL, "a zero byte inside a value");
    REFUSED("a: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", NULL, "run.yaml:1: ", "nested deeper than 16 levels");
    REFUSED("seed: \x01\n", NULL, "not a YAML configuration: control characters are not allowed");
    char *big = malloc((1 << 20) + 2);
    memset(big, '#', (1 << 20) + 1);
    big[(1 << 20) + 1] = 0;
    REFUSED(big, NULL, "larger than 1 MiB");
    free(big);
}

static void wrong_rewards(void **state) {
    (void)state;
    REFUSED("rewards: []", NULL, "run.yaml:1: rewards: a list of 0; expected 1 to 64, such as [{name: ocr}]");
    REFUSED("rewards: ocr", NULL, "rewards: \"ocr\" is not a list; expected a list of rewards such as");
    REFUSED("rewards: [ocr]", NULL, "rewards.0: \"ocr\" is not a mapping; expected {name: ocr}");
    REFUSED("rewards: [{type: ocr}]", NULL, "rewards.0: has no name; expected {name: ocr}");
    REFUSED("rewards: [{name: 'a b'}]", NULL, "rewards.0.name: \"a b\" is not a name");
    REFUSED("rewards:\n- {name: ocr}\n- {name: count}\n- {name: ocr}\n", NULL,
            "run.yaml:4: rewards.2.name: \"ocr\" is the name of rewards.0 too");
    REFUSED("rewards: [{name: ocr, wieght: 1}]", NULL, "rewards.0.wieght: unknown key; did you mean weight?",
            "goes below options");
    REFUSED("rewards: [{name: ocr, quality: 1}]", NULL, "rewards.0.quality: unknown key",
            "goes below options");
    REFUSED("rewards: [{name: ocr, url: x}]", NULL, "rewards.0.url: no key of ocr",
            "it belongs to rewards with type: remote");
    REFUSED("rewards: [{name: a, type: remote, ulr: x}]", NULL,
            "rewards.0.ulr: unknown key; did you mean url?");
    REFUSED("rewards: [{name: a, type: remote, options: {ulr: x}}]", NULL,
            "rewards.0.options.ulr: no key of remote; did you mean url?");
    REFUSED("rewards: [{name: a, type: remote, url: x, options: {url: y}}]", NULL,
            "rewards.0.options.url: given twice");
    REFUSED("rewards: [{name: a, type: remote, url: [x]}]", NULL, "rewards.0.url: a list; expected a text");
    REFUSED("rewards: [{name: a, type: remote, urls: x}]", NULL,
            "rewards.0.urls: expected a list of 1 to 32 texts");
    REFUSED("rewards: [{name: a, type: remote, batch: 0}]", NULL, "rewards.0.batch: 0 is out of range");
    REFUSED("rewards: [{name: a, type: remote, protocol: grpc}]", NULL, "rewards.0.protocol: \"grpc\"",
            "oip, unirl");
    REFUSED("rewards: [{name: a, type: remote, deadline: soon}]", NULL, "rewards.0.deadline: \"soon\"");
    REFUSED("rewards: [{name: a, type: python, file: no/such.py}]", NULL, "rewards.0.file: \"no/such.py\"",
            "does not exist");
    REFUSED("rewards: [{name: a, type: judge, scale: [5, 1]}]", NULL,
            "rewards.0.scale: expected [low, high]");
    REFUSED("rewards: [{name: ocr, min_valid: 2}]", NULL, "rewards.0.min_valid: 2 is out of range");
    REFUSED("rewards: [{name: ocr, monitor: maybe}]", NULL, "rewards.0.monitor: \"maybe\"", "false, true");
    REFUSED("rewards: [{name: ocr, range: [1, 0]}]", NULL, "rewards.0.range: expected [low, high]");
    REFUSED("rewards: [{name: ocr, range: [a, 0]}]", NULL, "rewards.0.range: \"a\" is not a number");
    REFUSED("rewards: [{name: ocr, weight: -1}]", NULL, "rewards.0.weight: -1 is out of range",
            "(0, 1000000]");
    REFUSED("rewards: [{name: ocr, on_failure: zero}]", NULL, "rewards.0.on_failure: \"zero\"", "skip, stop");
    REFUSED("rewards: [{name: ocr, min: high}]", NULL, "rewards.0.min: \"high\" is not a number");
    REFUSED("rewards: [{name: ocr, options: 3}]", NULL, "rewards.0.options: 3 is not a mapping");
    REFUSED("rewards: [{name: ocr, name: ocr}]", NULL, "rewards.0.name: given twice");
}

static void missing_files(void **state) {
    (void)state;
    mbl_config_t *config = NULL;
    assert_int_equal(mbl_config_load("/nonexistent/run.yaml", NULL, 0, &config), MBL_ERR_CONFIG);
    const char *const parts[] = {"/nonexistent/run.yaml: cannot be opened (No such file",
                                 "expected a configuration"};
    check_parts(mbl_fail_message(), parts, 2);
    assert_int_equal(mbl_config_load("/tmp", NULL, 0, &config), MBL_ERR_CONFIG);
    assert_null(config);
    REFUSED("seed: 1\nmodel: {path: no/such/model}\n", NULL,
            "run.yaml:2: model.path: \"no/such/model\" does not exist, neither from here nor beside the "
            "configuration; expected the path of a folder");
    REFUSED("prompts: {source: file, train: no.txt}", NULL, "prompts.train: \"no.txt\" does not exist");
    REFUSED("prompts: {source: file, train: /}", NULL,
            "prompts.train: \"/\" is a folder; expected the path of a file");
    REFUSED("model: {path: /dev/null}", NULL, "\"/dev/null\" is not a folder");
}

/* A path that is only found beside the file. */
static void paths_beside_the_file(void **state) {
    (void)state;
    char folder[256], path[300], prompts[300];
    mbl_config_t *config;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    snprintf(prompts, sizeof prompts, "%s/words-for-test.txt", folder);
    write_whole(prompts, "a\n", 2);
    const char *text = "prompts: {source: file, train: words-for-test.txt}\n";
    write_whole(path, text, strlen(text));
    assert_int_equal(mbl_config_load(path, NULL, 0, &config), MBL_OK);
    assert_int_equal(access(config->prompts.train, R_OK), 0);
    assert_int_equal(config->prompts.train[0], '/');
    assert_non_null(strstr(config->prompts.train, "/words-for-test.txt"));
    mbl_config_free(config);
    remove_folder(folder);
}

static void all_problems_are_reported(void **state) {
    (void)state;
    char folder[256], path[300],
        yaml[4000] = "rewards: [{name: ocr, weight: x}]\ntrain: {lr: fast, clip: 0}\n";
    mbl_config_t *config = NULL;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/log.txt", folder);
    for (int i = 0; i < 30; i++)
        snprintf(yaml + strlen(yaml), sizeof yaml - strlen(yaml), "unknown_%02d: 1\n", i);
    assert_int_equal(mbl_log_open(path), MBL_OK);
    assert_int_equal(parse(yaml, NULL, &config), MBL_ERR_CONFIG);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    char *log = read_whole(path, NULL);
    const char *const parts[] = {
        "run.yaml:1: rewards.0.weight: \"x\"",  "run.yaml:2: train.lr: \"fast\"",
        "run.yaml:2: train.clip: 0 is out of",  "run.yaml:3: unknown_00: unknown key",
        "run.yaml:19: unknown_16: unknown key", "run.yaml: 33 problems, the first 20 above"};
    check_parts(log, parts, 6);
    assert_null(strstr(log, "unknown_17"));
    free(log);
    remove_folder(folder);
}

static void written_file_loads_equal(void **state) {
    (void)state;
    char folder[256], path[300], *before, *after, *from_json;
    mbl_config_t *config, *again;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    const char *sets[] = {"train.lr=0.123456789012345678", "model.lora.targets=[\"a\\\"b\\\\c\", 'x: #y']",
                          "rewards.0.min=0.25",
                          ("stages=[{steps: 10, rewards: [ocr], weights: [0.1], method: nash}, "
                           "{steps: 20, rewards: [ocr, small]}]")};
    assert_int_equal(mbl_config_parse(full, sizeof full - 1, "run.yaml", sets, 4, &config), MBL_OK);
    assert_int_equal(mbl_config_write(config, path, NULL), MBL_OK);
    assert_int_equal(mbl_config_load(path, NULL, 0, &again), MBL_OK);
    assert_int_equal(mbl_config_json(config, &before), MBL_OK);
    assert_int_equal(mbl_config_json(again, &after), MBL_OK);
    assert_string_equal(before, after);
    assert_near(again->train.lr, config->train.lr, 0);
    assert_near(again->rewards.items[0].min, 0.25, 0);
    assert_true(isnan(again->rewards.items[1].min));
    assert_string_equal(again->model.lora.targets.items[0], "a\"b\\c");
    assert_string_equal(again->model.lora.targets.items[1], "x: #y");
    mbl_config_free(again);
    assert_int_equal(mbl_config_parse(before, strlen(before), "checkpoint", NULL, 0, &again), MBL_OK);
    assert_int_equal(mbl_config_json(again, &from_json), MBL_OK);
    assert_string_equal(before, from_json);
    char *text = read_whole(path, NULL);
    const char *const parts[] = {"\nseed: 7  # at least 0; ",
                                 "\ntrain:  # loss and optimizer\n",
                                 "\n  old_decay:  # ",
                                 "\n    hold: 0.999  # [0, 1]; largest h\n",
                                 "\nlimits:",
                                 "\n  seconds: 900  # ",
                                 "\n  - {steps: 20, rewards: ["};
    check_parts(text, parts, 7);
    free(text);
    mbl_free(before);
    mbl_free(after);
    mbl_free(from_json);
    mbl_config_free(again);
    assert_int_equal(mbl_config_write(config, "/nonexistent/run.yaml", NULL), MBL_ERR_IO);
    mbl_config_free(config);
    remove_folder(folder);
}

/* What scorers take is written beside the other keys and read again; a question may have several lines. */
static void keys_of_scorers_load_equal(void **state) {
    (void)state;
    static const char yaml[] = "rewards:\n"
                               "  - {name: a, type: remote, urls: ['http://x:1', \"unix:/s\"], model: m, "
                               "output: 'q\"1', deadline: 2 min,\n"
                               "     in_flight: 3, token_env: T, range: [-1, 2.5], images: jpeg, hedge: 0, "
                               "monitor: true, min_valid: 0.25}\n"
                               "  - {name: b, type: judge, url: 'https://y', pattern: '(\\d)', scale: [1, "
                               "5], schema: {type: object, n: [1]},\n"
                               "     options: {question: \"one\\ntwo: {prompt}\"}}\n"
                               "  - {name: jpeg}\n";
    char folder[256], path[300], *before, *after;
    mbl_config_t *config, *again;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    assert_int_equal(mbl_config_parse(yaml, sizeof yaml - 1, "run.yaml", NULL, 0, &config), MBL_OK);
    assert_int_equal(mbl_config_write(config, path, NULL), MBL_OK);
    assert_int_equal(mbl_config_load(path, NULL, 0, &again), MBL_OK);
    assert_int_equal(mbl_config_json(config, &before), MBL_OK);
    assert_int_equal(mbl_config_json(again, &after), MBL_OK);
    assert_string_equal(before, after);
    const mbl_reward_spec_t *items = again->rewards.items;
    assert_near(items[0].low, -1, 0);
    assert_near(items[0].high, 2.5, 0);
    assert_near(items[0].min_valid, 0.25, 0);
    assert_true(items[0].use == MBL_REWARD_MONITOR && items[1].use == MBL_REWARD_TRAINED);
    assert_true(isnan(items[2].low) && !items[2].options);
    json_t *first = json_loads(items[0].options, 0, NULL), *second = json_loads(items[1].options, 0, NULL);
    assert_near(json_number_value(json_object_get(first, "deadline")), 120, 0);
    assert_int_equal(json_array_size(json_object_get(first, "urls")), 2);
    assert_string_equal(json_string_value(json_object_get(second, "question")), "one\ntwo: {prompt}");
    json_decref(first);
    json_decref(second);
    mbl_free(before);
    mbl_free(after);
    mbl_config_free(config);
    mbl_config_free(again);
    remove_folder(folder);
}

static void help_names_every_key(void **state) {
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(mbl_config_help(NULL, out), MBL_OK);
    fclose(out);
    const char *const parts[] = {
        "--set KEY=VALUE",
        "train.old_decay.hold",
        "balance.floor",
        "pretrain.model.qk_norm",
        "marble | equal | weighted_sum | fixed | pcgrad | upgrad | cagrad | nash | gdpo | marble_reference",
        "[default: 3.0e-4]",
        "(0, 1]",
        "optimizer steps",
        "auto | together | apart | offset",
        "stages  ",
        "\n      marble_reference what MARBLE's released code does"};
    check_parts(text, parts, 11);
    for (mbl_method_t method = 0; method < MBL_METHODS; method++) {
        char line[300];
        snprintf(line, sizeof line, "\n      %-16s %s\n", mbl_method_name(method), mbl_method_help(method));
        const char *part = line;
        check_parts(text, &part, 1);
        mbl_method_t found = MBL_METHODS;
        assert_true(mbl_method_find(mbl_method_name(method), &found));
        assert_int_equal(found, method);
    }
    free(text);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    char folder[256], path[300], copy[300];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    snprintf(copy, sizeof copy, "%s/copy.yaml", folder);
    write_whole(path, full, sizeof full - 1);
    const char *sets[] = {"train.lr=1e-3", "eval.steps=9", "rewards.0.weight=3",
                          "stages=[{steps: 30, rewards: [ocr, small], weights: [1, 2], method: nash}]"};
    size_t live = mbl_mem_live(), n = 0;
    mbl_status_t status = MBL_ERR_MEM;
    mbl_log_set_level(MBL_LOG_OFF);
    while (status != MBL_OK && n < 2000) {
        mbl_config_t *config = NULL;
        char *json = NULL;
        mbl_mem_fail_at(++n);
        status = mbl_config_load(path, sets, 4, &config);
        if (status == MBL_OK)
            status = mbl_config_write(config, copy, NULL);
        if (status == MBL_OK)
            status = mbl_config_json(config, &json);
        mbl_mem_fail_at(0);
        if (status != MBL_OK && status != MBL_ERR_MEM)
            fail_msg("allocation %zu: status %s (%s)", n, mbl_status_name(status), mbl_fail_message());
        mbl_free(json);
        mbl_config_free(config);
        if (mbl_mem_live() != live)
            fail_msg("allocation %zu: %zu blocks left, expected %zu", n, mbl_mem_live(), live);
    }
    mbl_log_set_level(MBL_LOG_INFO);
    assert_int_equal(status, MBL_OK);
    assert_true(n > 100); /* fewer would mean that most are not seen */
    remove_folder(folder);
}

/* Replaces, inserts, deletes or copies a few bytes of `text` in place; returns the new length. */
static size_t mutate(mbl_rng_t *rng, char *text, size_t n, size_t room) {
    static const char bytes[] = "{}[]:,#-\"'\n \t&*!|>%@~?=.0e9xN\xff\xc3";
    for (uint32_t k = 1 + mbl_rng_below(rng, 4); k > 0; k--) {
        size_t at = mbl_rng_below(rng, (uint32_t)n), from = mbl_rng_below(rng, (uint32_t)n);
        size_t span = 1 + mbl_rng_below(rng, 12);
        switch (mbl_rng_below(rng, 4)) {
        case 0:
            text[at] = bytes[mbl_rng_below(rng, sizeof bytes - 1)];
            break;
        case 1:
            text[at] = (char)mbl_rng_below(rng, 256);
            break;
        case 2:
            if (at + span < n) {
                memmove(text + at, text + at + span, n - at - span);
                n -= span;
            }
            break;
        default:
            if (n + span < room && from + span < n) {
                char piece[16];
                memcpy(piece, text + from, span);
                memmove(text + at + span, text + at, n - at);
                memcpy(text + at, piece, span);
                n += span;
            }
        }
    }
    return n;
}

static void mutated_files_never_crash(void **state) {
    (void)state;
    enum { ROOM = 4096, ROUNDS = 10000 };
    static char text[ROOM];
    size_t live = mbl_mem_live(), good = 0, bad = 0;
    mbl_log_set_level(MBL_LOG_OFF);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        mbl_rng_t rng = mbl_rng(1, MBL_RNG_STUDY, 0, round);
        mbl_config_t *config = NULL, *again = NULL;
        char *before, *after;
        memcpy(text, full, sizeof full - 1);
        size_t n = mutate(&rng, text, sizeof full - 1, ROOM);
        mbl_status_t status = mbl_config_parse(text, n, "run.yaml", NULL, 0, &config);
        assert_true(status == MBL_OK || status == MBL_ERR_CONFIG);
        status == MBL_OK ? good++ : bad++;
        if (status != MBL_OK)
            continue;
        /* What is accepted survives a round trip. */
        assert_int_equal(mbl_config_json(config, &before), MBL_OK);
        if (mbl_config_parse(before, strlen(before), "json", NULL, 0, &again) != MBL_OK)
            fail_msg("round %u: %s: %s", round, mbl_fail_message(), before);
        assert_int_equal(mbl_config_json(again, &after), MBL_OK);
        assert_string_equal(before, after);
        mbl_free(before);
        mbl_free(after);
        mbl_config_free(config);
        mbl_config_free(again);
    }
    mbl_log_set_level(MBL_LOG_INFO);
    print_message("mutations: %zu accepted, %zu refused\n", good, bad);
    assert_true(good > ROUNDS / 100 && bad > ROUNDS / 4);
    assert_int_equal(mbl_mem_live(), live);
}

static void edit_distances(void **state) {
    (void)state;
    assert_int_equal(mbl_edit_distance("", ""), 0);
    assert_int_equal(mbl_edit_distance("train", "train"), 0);
    assert_int_equal(mbl_edit_distance("trian", "train"), 1);
    assert_int_equal(mbl_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(mbl_edit_distance("", "abc"), 3);
    assert_int_equal(mbl_edit_distance("LR", "lr"), 0);
    const char *best = NULL;
    size_t distance = 0;
    mbl_suggest("xyz", "train", &best, &distance);
    assert_null(best);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(words_for_counts),
        cmocka_unit_test(values_reach_their_fields),
        cmocka_unit_test(overrides),
        cmocka_unit_test(wrong_overrides),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(wrong_keys),
        cmocka_unit_test(wrong_yaml),
        cmocka_unit_test(wrong_rewards),
        cmocka_unit_test(missing_files),
        cmocka_unit_test(paths_beside_the_file),
        cmocka_unit_test(all_problems_are_reported),
        cmocka_unit_test(written_file_loads_equal),
        cmocka_unit_test(keys_of_scorers_load_equal),
        cmocka_unit_test(help_names_every_key),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(mutated_files_never_crash),
        cmocka_unit_test(edit_distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
