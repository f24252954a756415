/* Going on from checkpoints, as a user would: what may change on the way and what may not, another base
 * model, older files, which checkpoints stay, failures of the writer, limits and signals. A tiny model. On
 * GPUs what their memory has a part in, with fewer images.   ctest-backends: cuda */
#include "runs.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}\n"
    "rollout: {steps: 3, solver: euler, micro_batch: 8}\n"
    "train: {steps: 8, lr: 2.0e-3, beta: 1.0, micro_batch: 8, timestep_fraction: 0.7}\n"
    "rewards: [{name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 0, prompts: 4, steps: 2}\n"
    "checkpoint: {every: 1, keep: 0}\n"
    "log: {level: info, samples_every: 0}\n";

static const char gpu_config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: base/model, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 30, test_count: 8, groups: 2, group_size: 2}\n"
    "rollout: {steps: 2, solver: euler, micro_batch: 4, merge: never}\n"
    "train: {steps: 8, lr: 2.0e-3, beta: 1.0, micro_batch: 4, timestep_fraction: 0.5}\n"
    "rewards: [{name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 0, prompts: 1, steps: 1}\n"
    "checkpoint: {every: 1, keep: 0}\n"
    "log: {level: info, samples_every: 0}\n";

static int prepare(void **state) {
    (void)state;
    make_folder(on_gpu() ? gpu_config : config);
    make_tiny_model("base");
    train_well(1, "whole", "");
    return 0;
}

static char *in(const char *format, size_t step) {
    static char path[6][600];
    static int next;
    char *out = path[next++ % 6], name[300];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, format, step);
#pragma GCC diagnostic pop
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static void must_say(const char *out, const char *words) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s.log", folder, out);
    char *log = read_whole(path, NULL);
    if (!strstr(log, words)) {
        print_error("\"%s\" is not in:\n%s\n", words, log);
        fail();
    }
    free(log);
}

/* train into `out` from step 4 of the whole run with more options; the exit code. */
static int go_on(const char *out, const char *more) {
    char options[1024];
    snprintf(options, sizeof options, "--resume %s %s", in("whole/checkpoints/step-%06zu.h5", 4), more);
    return train(1, out, options);
}

static void changes_are_listed_and_applied(void **state) {
    (void)state;
    assert_int_equal(go_on("changed",
                           "--set train.lr=1e-3 --set balance.floor=0.05 --set train.steps=6 --set "
                           "rewards.1.weight=2"),
                     0);
    must_say("changed", "on resume, train.lr changes from 0.002 to 0.001");
    must_say("changed", "on resume, balance.floor changes from 0.0 to 0.05");
    must_say("changed", "on resume, train.steps changes from 8 to 6");
    must_say("changed", "on resume, rewards.1 changes from");
    json_t *lines = lines_of("changed", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), 2);
    json_t *line = json_array_get(lines, 0);
    assert_near(json_number_value(json_object_get(line, "lr")), 1e-3, 0);
    const char *name;
    json_t *alpha;
    json_object_foreach(json_object_get(line, "alpha_raw"), name, alpha)
        assert_true(json_number_value(alpha) >= 0.05 - 1e-12);
    json_decref(lines);
}

static void unchanged_says_nothing(void **state) {
    (void)state;
    assert_int_equal(go_on("same", ""), 0);
    char *log = read_whole(in("same.log", 0), NULL);
    assert_null(strstr(log, "on resume"));
    free(log);
    same_last_lines("whole", "same", "metrics.jsonl", 0, 4);
    same_checkpoint("whole", "same", 8);
}

static void what_the_state_would_not_survive_is_refused(void **state) {
    static const struct {
        const char *set, *words;
    } wrong[] = {
        {"seed=8", "seed was 7 and is now 8"},
        {"model.lora.rank=8", "model.lora.rank was 4 and is now 8"},
        {"model.lora.alpha=4", "model.lora.alpha was 8.0 and is now 4.0"},
        {"'model.lora.targets=[attn.to_q]'", "model.lora.targets was [\"attn.to_q\","},
        {"prompts.groups=5", "prompts.groups was 4 and is now 5"},
        {"prompts.train_count=31", "prompts.train_count was 30 and is now 31"},
        {"'rewards=[{name: clean}, {name: color}, {name: jpeg}]'", "rewards was [{\"name\":\"color\""}};
    char more[256];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(more, sizeof more, "--set %s", wrong[i].set);
        assert_int_equal(go_on("refused", more), 2);
        must_say("refused", wrong[i].words);
        must_say("refused", "1 key that cannot change on resume");
    }
    assert_int_equal(go_on("refused", "--set seed=8 --set prompts.groups=5"), 2);
    must_say("refused", "2 keys that cannot change on resume");
}

static void another_base_is_refused_unless_allowed(void **state) {
    char command[1024];
    (void)state;
    snprintf(command, sizeof command, "cp -r %s %s", in("base/model", 0), in("other", 0));
    assert_int_equal(system(command), 0);
    char *weights = in("other/transformer/diffusion_pytorch_model.safetensors", 0);
    size_t size;
    char *bytes = read_whole(weights, &size);
    bytes[size - 2] ^= 1; /* one bit of one weight */
    write_whole(weights, bytes, size);
    free(bytes);
    char set[700];
    snprintf(set, sizeof set, "--set model.path=%s", in("other", 0));
    assert_int_equal(go_on("refused", set), 2);
    must_say("refused", "step-000004.h5: made on another base model");
    must_say("refused", "checkpoint.other_base=accept");
    snprintf(set, sizeof set, "--set model.path=%s --set checkpoint.other_base=accept", in("other", 0));
    assert_int_equal(go_on("accepted", set), 0);
    must_say("accepted", "made on a base model with digest");
    snprintf(set, sizeof set, "--set model.path=%s", in("other", 0));
    snprintf(command, sizeof command, "%s/marble eval %s --checkpoint %s %s >%s 2>&1", MBL_BINARY_DIR,
             in("run.yaml", 0), in("whole/checkpoints/latest.h5", 0), set, in("refused.log", 0));
    assert_int_equal(WEXITSTATUS(system(command)), 2);
    must_say("refused", "made on another base model");
}

/* Checkpoints from before cached weights and alarms lack their datasets; a run that uses neither goes on from
 * them to the same bits. */
static void older_files_are_read(void **state) {
    static const char *const later[] = {"balance/cached_", "alarms/", "constraint/"};
    mbl_ckpt_t *ckpt;
    mbl_ckpt_item_t items[32], item;
    mbl_ckpt_attr_t attrs[16];
    size_t n = 0, n_attrs = 0;
    char more[700];
    (void)state;
    assert_int_equal(mbl_ckpt_open(in("whole/checkpoints/step-%06zu.h5", 4), &ckpt), MBL_OK);
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, &item); i++) {
        bool is_later = false;
        for (size_t j = 0; j < sizeof later / sizeof *later; j++)
            is_later |= strncmp(item.name, later[j], strlen(later[j])) == 0;
        if (is_later)
            continue;
        void *data = calloc(item.count, mbl_dtype_size(item.dtype));
        assert_int_equal(mbl_ckpt_read(ckpt, item.name, item.dtype, item.count, data), MBL_OK);
        item.data = data;
        items[n++] = item;
    }
    assert_int_equal(n, 9);
    while (mbl_ckpt_attr_at(ckpt, n_attrs, &attrs[n_attrs]))
        n_attrs++;
    assert_int_equal(mkdir(in("older", 0), 0777), 0);
    assert_int_equal(mbl_ckpt_write(in("older/step-%06zu.h5", 4), items, n, attrs, n_attrs), MBL_OK);
    mbl_ckpt_close(ckpt);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)items[i].data);
    snprintf(more, sizeof more, "--resume %s", in("older/step-%06zu.h5", 4));
    assert_int_equal(train(1, "from-older", more), 0);
    same_last_lines("whole", "from-older", "metrics.jsonl", 0, 4);
    assert_true(exists(in("from-older/checkpoints/step-%06zu.h5", 8)));
}

/* A copy of a run's step 4 as a version wrote it whose section `section` of the configuration began with
 * other words than those it `drops` (which may be none). */
static void write_section(const char *run, const char *section, const char *name, const char *begins,
                          const char *drops) {
    mbl_ckpt_t *ckpt;
    mbl_ckpt_item_t items[32], item;
    mbl_ckpt_attr_t attrs[16];
    size_t n = 0, n_attrs = 0;
    char config[8192] = "", path[300], key[64];
    snprintf(path, sizeof path, "%s/checkpoints/step-000004.h5", in(run, 0));
    snprintf(key, sizeof key, "\"%s\":", section);
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    for (; mbl_ckpt_item(ckpt, n, &item); items[n++] = item) {
        void *data = calloc(item.count, mbl_dtype_size(item.dtype));
        assert_int_equal(mbl_ckpt_read(ckpt, item.name, item.dtype, item.count, data), MBL_OK);
        item.data = data;
    }
    for (; mbl_ckpt_attr_at(ckpt, n_attrs, &attrs[n_attrs]); n_attrs++) {
        const char *value = attrs[n_attrs].value, *at = strstr(value, key);
        if (strcmp(attrs[n_attrs].key, "config") != 0)
            continue;
        assert_non_null(at);
        at = strchr(at, '{') + 1;
        const char *rest = strstr(at, drops);
        assert_non_null(rest);
        snprintf(config, sizeof config, "%.*s%s%.*s%s", (int)(at - value), value, begins, (int)(rest - at),
                 at, rest + strlen(drops));
        attrs[n_attrs].value = config;
    }
    assert_true(strlen(config) > 0);
    assert_int_equal(mkdir(in(name, 0), 0777), 0);
    snprintf(path, sizeof path, "%s/step-000004.h5", in(name, 0));
    assert_int_equal(mbl_ckpt_write(path, items, n, attrs, n_attrs), MBL_OK);
    mbl_ckpt_close(ckpt);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)items[i].data);
}

static void write_as_version(const char *name, const char *begins, const char *drops) {
    write_section("whole", "balance", name, begins, drops);
}

/* A run of before there were two schedules goes on by its own, unless another is asked for. */
static void the_schedule_is_that_of_the_checkpoint(void **state) {
    char more[700];
    (void)state;
    assert_int_equal(train(1, "linear", "--set rollout.schedule=linear --set train.steps=5"), 0);
    write_section("linear", "rollout", "unnamed", "", "\"schedule\": \"linear\",");
    snprintf(more, sizeof more, "--set train.steps=5 --resume %s", in("unnamed/step-%06zu.h5", 4));
    assert_int_equal(train(1, "from-unnamed", more), 0);
    must_say("from-unnamed", "rollout.schedule: linear, by which the checkpoint's run drew its images");
    same_last_lines("linear", "from-unnamed", "metrics.jsonl", 0, 1);
    same_last_lines("linear", "from-unnamed", "eval.jsonl", 0, 1);
    char *yaml = read_whole(in("from-unnamed/run.yaml", 0), NULL);
    assert_non_null(strstr(yaml, "schedule: linear"));
    free(yaml);
    snprintf(more, sizeof more, "--set train.steps=5 --set rollout.schedule=diffusers --resume %s",
             in("unnamed/step-%06zu.h5", 4));
    assert_int_equal(train(1, "to-diffusers", more), 0);
    must_say("to-diffusers", "on resume, rollout.schedule changes from linear to diffusers");
}

/* The length of a direction of a run. */
static double norm_of(const char *run, size_t line) {
    json_t *lines = lines_of(run, "metrics.jsonl");
    double norm = json_number_value(json_object_get(json_array_get(lines, line), "grad_norm"));
    json_decref(lines);
    assert_true(norm > 0);
    return norm;
}

/* A run of before balance.common was auto goes on as it balanced, whether its checkpoint says so or is older
 * than the key, unless another definition is asked for. */
static void the_common_part_is_that_of_the_checkpoint(void **state) {
    static const char *const names[] = {"named", "nameless"}, *const drops[] = {"",
                                                                                "\"common\": \"together\","};
    char more[700], file[64];
    (void)state;
    assert_int_equal(train(1, "joint", "--set balance.common=together --set train.steps=5"), 0);
    for (int i = 0; i < 2; i++) {
        write_section("joint", "balance", names[i], "", drops[i]);
        snprintf(more, sizeof more, "--set train.steps=5 --resume %s/step-000004.h5", in(names[i], 0));
        snprintf(file, sizeof file, "from-%s", names[i]);
        assert_int_equal(train(1, file, more), 0);
        must_say(file, "balance.common: together, by which the checkpoint's run balanced its gradients");
        same_last_lines("joint", file, "metrics.jsonl", 0, 1);
        snprintf(file, sizeof file, "from-%s/run.yaml", names[i]);
        char *yaml = read_whole(in(file, 0), NULL);
        assert_non_null(strstr(yaml, "common: together"));
        free(yaml);
    }
    snprintf(more, sizeof more, "--set train.steps=5 --set balance.common=auto --resume %s",
             in("joint/checkpoints/step-%06zu.h5", 4));
    assert_int_equal(train(1, "to-offset", more), 0);
    must_say("to-offset", "on resume, balance.common changes from together to auto");
    must_say("to-offset", "balance.common: auto, which is offset with marble");
    assert_true(fabs(norm_of("joint", 4) - norm_of("to-offset", 0)) > 1e-6 * norm_of("joint", 4));
    snprintf(more, sizeof more, "--set train.steps=5 --set balance.method=equal --resume %s",
             in("joint/checkpoints/step-%06zu.h5", 4));
    assert_int_equal(train(1, "to-equal", more), 0); /* together by default too: nothing to keep */
    must_say("to-equal", "balance.common: auto, which is together with equal");
}

static const json_t *field_of(json_t *lines, size_t i, const char *key) {
    return json_object_get(json_array_get(lines, i), key);
}

/* Between two solves, a run that balances other gradients from here on solves at once, and averages anew; one
 * that does not goes on with its cached weights. `auto` of the checkpoint is what it meant there. */
static void another_balance_solves_anew(void **state) {
    static const struct {
        const char *name, *set, *says;
    } cases[] = {
        {"cached-same", "--set balance.common=offset", NULL},
        {"cached-together", "--set balance.common=together",
         "balance.common changes from auto, which was offset with marble to together"},
        {"cached-pcgrad", "--set balance.method=pcgrad",
         "from auto, which was offset with marble to auto, which is together with pcgrad"},
        {"cached-limit",
         "--set balance.refresh_every=1 --set 'rewards=[{name: color}, {name: clean, min: 0}, {name: jpeg}]'",
         "from auto, which was offset with marble to auto, which is together with marble"},
        {"cached-weights", "--set rewards.0.weight=5", "balanced in another way (weights of the rewards)"},
        {"cached-kl", "--set balance.kl=common", "balanced in another way (balance.kl)"},
        {"cached-shrink", "--set balance.shrink=equal", "balanced in another way (balance.shrink)"},
        {"cached-floor", "--set balance.floor=0.2", "balanced in another way (balance.floor)"},
        {"cached-guard", "--set balance.refresh_every=1 --set balance.guard=own_parts",
         "balanced in another way (balance.guard)"}};
    char more[900];
    (void)state;
    assert_int_equal(train(1, "cached", "--set balance.refresh_every=9 --set train.steps=5"), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(more, sizeof more, "--set balance.refresh_every=9 --set train.steps=5 %s --resume %s",
                 cases[i].set, in("cached/checkpoints/step-%06zu.h5", 4));
        assert_int_equal(train(1, cases[i].name, more), 0);
        json_t *lines = lines_of(cases[i].name, "metrics.jsonl");
        assert_int_equal(json_is_true(field_of(lines, 0, "refreshed")), cases[i].says != NULL);
        if (cases[i].says) {
            must_say(cases[i].name, cases[i].says);
            must_say(cases[i].name, "gradients are balanced in another way");
            assert_near(json_number_value(json_object_get(field_of(lines, 0, "alpha_ema"), "jpeg")),
                        json_number_value(json_object_get(field_of(lines, 0, "alpha"), "jpeg")), 1e-12);
        } else {
            same_last_lines("cached", cases[i].name, "metrics.jsonl", 0, 1);
        }
        json_decref(lines);
    }
}

/* The next stage may balance otherwise: that is no change on resume. */
static void the_next_stage_is_no_change(void **state) {
    static const char stages[] =
        "--set train.steps=2 --set 'stages=[{steps: 1, rewards: [color, clean]}, {steps: 1, "
        "rewards: [clean, jpeg], method: upgrad}]'";
    char more[700];
    (void)state;
    train_well(1, "stages", stages);
    snprintf(more, sizeof more, "%s --resume %s", stages, in("stages/checkpoints/step-%06zu.h5", 1));
    train_well(1, "second-stage", more);
    char *log = read_whole(in("second-stage.log", 0), NULL);
    assert_null(strstr(log, "on resume"));
    free(log);
    same_last_lines("stages", "second-stage", "metrics.jsonl", 0, 1);
}

/* balance.metric is gone: a checkpoint that says what all runs do goes on, one that solved otherwise does
 * not, but its adapter can still be exported. */
static void a_key_that_is_gone(void **state) {
    char more[700], command[1024];
    (void)state;
    write_as_version("plain", "\"metric\": \"plain\",", "");
    snprintf(more, sizeof more, "--resume %s", in("plain/step-%06zu.h5", 4));
    assert_int_equal(train(1, "from-plain", more), 0);
    same_last_lines("whole", "from-plain", "metrics.jsonl", 0, 4);
    write_as_version("adam", "\"metric\": \"adam\",", "");
    snprintf(more, sizeof more, "--resume %s", in("adam/step-%06zu.h5", 4));
    assert_int_equal(train(1, "from-adam", more), 2);
    must_say("from-adam", "balance.metric was \"adam\", which is not supported any longer");
    must_say("from-adam", "marble export");
    snprintf(command, sizeof command, "%s/marble export %s --lora %s >%s 2>&1", MBL_BINARY_DIR,
             in("adam/step-%06zu.h5", 4), in("adam.safetensors", 0), in("adam.log", 0));
    assert_int_equal(system(command), 0);
}

/* A checkpoint of before the KL term could be apart goes on by today's definitions, and its own are named. */
static void definitions_of_before(void **state) {
    char more[700];
    (void)state;
    write_as_version("before", "", "\"kl\": \"apart\",");
    snprintf(more, sizeof more, "--resume %s", in("before/step-%06zu.h5", 4));
    assert_int_equal(train(1, "from-before", more), 0);
    must_say("from-before",
             "was written by a version without balance.kl: before this version every reward's gradient");
    same_last_lines("whole", "from-before", "metrics.jsonl", 0, 4);
}

/* A copy of the whole run's step 4 in which element 77 of a vector is `value`. */
static void write_poisoned(const char *name, const char *vector, float value) {
    mbl_ckpt_t *ckpt;
    mbl_ckpt_item_t items[32], item;
    mbl_ckpt_attr_t attrs[16];
    size_t n = 0, n_attrs = 0;
    assert_int_equal(mbl_ckpt_open(in("whole/checkpoints/step-%06zu.h5", 4), &ckpt), MBL_OK);
    for (; mbl_ckpt_item(ckpt, n, &item); items[n++] = item) {
        void *data = calloc(item.count, mbl_dtype_size(item.dtype));
        assert_int_equal(mbl_ckpt_read(ckpt, item.name, item.dtype, item.count, data), MBL_OK);
        if (strcmp(item.name, vector) == 0)
            ((float *)data)[77] = value;
        item.data = data;
    }
    while (mbl_ckpt_attr_at(ckpt, n_attrs, &attrs[n_attrs]))
        n_attrs++;
    assert_int_equal(mbl_ckpt_write(in(name, 0), items, n, attrs, n_attrs), MBL_OK);
    mbl_ckpt_close(ckpt);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)items[i].data);
}

/* Whole files by their digests, with numbers that are none. */
static void vectors_that_are_not_finite_are_refused(void **state) {
    static const char *const vectors[] = {"adapter/current", "adapter/ema", "optimizer/v"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char more[700], says[100];
        write_poisoned("poisoned.h5", vectors[i], i ? INFINITY : NAN);
        snprintf(more, sizeof more, "--resume %s", in("poisoned.h5", 0));
        snprintf(says, sizeof says, "poisoned.h5: %s: element 77 is %s; expected a finite number", vectors[i],
                 i ? "inf" : "nan");
        assert_int_equal(train(1, "from-poisoned", more), 1);
        must_say("from-poisoned", says);
    }
}

static void the_newest_the_regular_and_the_best_stay(void **state) {
    size_t best = 0, at;
    double most = -INFINITY;
    (void)state;
    train_well(1, "kept", "--set 'checkpoint.keep={last: 2, every: 3, best: clean}' --set eval.every=1");
    json_t *lines = lines_of("kept", "eval.jsonl"), *line;
    json_array_foreach(lines, at, line) {
        double mean = json_number_value(
            json_object_get(json_object_get(json_object_get(line, "rewards"), "clean"), "mean"));
        json_int_t step = json_integer_value(json_object_get(line, "step"));
        if (step > 0 && step < 8 && mean > most) { /* the last checkpoint is written before its evaluation */
            most = mean;
            best = (size_t)step;
        }
    }
    json_decref(lines);
    for (size_t step = 1; step <= 8; step++)
        assert_int_equal(exists(in("kept/checkpoints/step-%06zu.h5", step)),
                         step >= 7 || step % 3 == 0 || step == best);
}

/* A folder where the temporary file should be: that checkpoint fails, the others do not. */
static void a_failed_write_is_logged_and_the_run_goes_on(void **state) {
    (void)state;
    train_well(1, "failing", "--set train.steps=2");
    assert_int_equal(mkdir(in("failing/checkpoints/step-%06zu.h5.tmp", 4), 0777), 0);
    train_well(1, "failing", "--resume auto");
    must_say("failing", "step-000004.h5.tmp: cannot be made: Is a directory");
    must_say("failing", "the checkpoint before that one stays the latest");
    assert_false(exists(in("failing/checkpoints/step-%06zu.h5", 4)));
    assert_true(exists(in("failing/checkpoints/step-%06zu.h5", 3)));
    same_lines("whole", "failing", "metrics.jsonl", 0, 8);
    same_checkpoint("whole", "failing", 8);
    train_well(1, "failing2", "--set train.steps=7");
    assert_int_equal(mkdir(in("failing2/checkpoints/step-%06zu.h5.tmp", 8), 0777), 0);
    assert_int_equal(train(1, "failing2", "--resume auto"), 1); /* the last one has to be there */
    mbl_ckpt_t *ckpt;
    assert_int_equal(mbl_ckpt_open(in("failing2/checkpoints/latest.h5", 0), &ckpt), MBL_OK);
    assert_string_equal(mbl_ckpt_attr(ckpt, "step"), "7");
    mbl_ckpt_close(ckpt);
}

static void stalls_are_measured(void **state) {
    (void)state;
    char *text = read_whole(in("whole/metrics.jsonl", 0), NULL);
    size_t lines = 0;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *object = json_loads(line, 0, NULL), *seconds = json_object_get(object, "seconds");
        double stall = json_number_value(json_object_get(seconds, "checkpoint"));
        assert_true(lines == 0 ? stall >= 0 : stall > 0); /* of the checkpoint after the step before */
        assert_true(stall < json_number_value(json_object_get(seconds, "total")));
        json_decref(object);
        lines++;
    }
    assert_int_equal(lines, 8);
    free(text);
}

/* Exit 75 with a word, and the rest equals the whole run. */
static void must_stop_and_go_on(const char *out, int ranks, int code) {
    assert_int_equal(code, 75);
    must_say(out, "stopped "); /* at a step, or on a slow machine while the model was read */
    train_well(ranks, out, "--resume auto");
    same_lines("whole", out, "metrics.jsonl", ranks == 1 ? 0 : 1e-4, 8);
}

static void limits_of_time_stop_every_rank_alike(void **state) {
    char end[64];
    (void)state;
    must_stop_and_go_on("limited", 1, train(1, "limited", "--set limits.seconds=0.1"));
    must_stop_and_go_on("limited2", 2, train(2, "limited2", "--set limits.seconds=0.2"));
    if (on_gpu()) /* Slurm's end is a limit like this one */
        return;
    snprintf(end, sizeof end, "%lld", (long long)time(NULL) + 61);
    setenv("SLURM_JOB_END_TIME", end, 1);
    int code = train(1, "slurm", "--set limits.margin=60");
    unsetenv("SLURM_JOB_END_TIME");
    must_say("slurm", "Slurm ends this job in");
    if (code != 0) /* a slow machine stops, a fast one may be through within the second */
        must_stop_and_go_on("slurm", 1, code);
    setenv("SLURM_JOB_END_TIME", "1000000", 1); /* long ago */
    code = train(1, "late", "");
    unsetenv("SLURM_JOB_END_TIME");
    must_say("late", "SLURM_JOB_END_TIME: 1000000, the end of this job, has passed; expected a later time");
    must_say("late", "stopped while the model was read");
    must_stop_and_go_on("late", 1, code);
}

int main(void) {
    const struct CMUnitTest on_gpus[] = {
        cmocka_unit_test(changes_are_listed_and_applied),
        cmocka_unit_test(unchanged_says_nothing),
        cmocka_unit_test(older_files_are_read),
        cmocka_unit_test(the_schedule_is_that_of_the_checkpoint),
        cmocka_unit_test(the_common_part_is_that_of_the_checkpoint),
        cmocka_unit_test(another_balance_solves_anew),
        cmocka_unit_test(the_next_stage_is_no_change),
        cmocka_unit_test(a_key_that_is_gone),
        cmocka_unit_test(definitions_of_before),
        cmocka_unit_test(limits_of_time_stop_every_rank_alike),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_are_listed_and_applied),
        cmocka_unit_test(unchanged_says_nothing),
        cmocka_unit_test(what_the_state_would_not_survive_is_refused),
        cmocka_unit_test(another_base_is_refused_unless_allowed),
        cmocka_unit_test(older_files_are_read),
        cmocka_unit_test(the_schedule_is_that_of_the_checkpoint),
        cmocka_unit_test(the_common_part_is_that_of_the_checkpoint),
        cmocka_unit_test(another_balance_solves_anew),
        cmocka_unit_test(the_next_stage_is_no_change),
        cmocka_unit_test(a_key_that_is_gone),
        cmocka_unit_test(definitions_of_before),
        cmocka_unit_test(vectors_that_are_not_finite_are_refused),
        cmocka_unit_test(the_newest_the_regular_and_the_best_stay),
        cmocka_unit_test(a_failed_write_is_logged_and_the_run_goes_on),
        cmocka_unit_test(stalls_are_measured),
        cmocka_unit_test(limits_of_time_stop_every_rank_alike),
    };
    return on_gpu() ? cmocka_run_group_tests(on_gpus, prepare, drop_folder)
                    : cmocka_run_group_tests(tests, prepare, drop_folder);
}
