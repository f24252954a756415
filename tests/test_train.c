/* The whole program: ranks agree, runs repeat bit for bit, stop and go changes nothing, bad rewards are left
 * out. Runs build/marble as a user would. */
#include "runs.h"

#include <signal.h>
#include <unistd.h>

static const char config[] =
    "seed: 7\n"
    "precision: f32\n"
    "threads: 1\n"
    "model: {path: " MBL_SOURCE_DIR "/deploy/examples/signs-base, lora: {rank: 4, alpha: 8}}\n"
    "prompts: {source: signs, train_count: 200, test_count: 40, groups: 8, group_size: 6}\n"
    "rollout: {steps: 4, solver: euler, micro_batch: 12}\n"
    "train: {steps: 20, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 12, timestep_fraction: 0.5}\n"
    "rewards: [{name: ocr}, {name: count}, {name: color}, {name: clean}, {name: jpeg}]\n"
    "eval: {every: 10, prompts: 12, steps: 4}\n"
    "checkpoint: {every: 5, keep: 0}\n"
    "log: {level: warn, samples_every: 0, advantages_every: 8}\n";

static int make_folder(void **state) {
    char path[512];
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    write_whole(path, config, sizeof config - 1);
    return 0;
}

static void every_rank_count_gives_the_same_run(void **state) {
    (void)state;
    train_well(1, "one", "");
    train_well(2, "two", "");
    train_well(4, "four", "");
    same_lines("one", "two", "metrics.jsonl", 1e-4, 20);
    same_lines("one", "four", "metrics.jsonl", 1e-4, 20);
    same_lines("one", "four", "eval.jsonl", 1e-4, 3);
    same_lines("one", "four", "advantages.jsonl", 2e-3, 3);
}

static void twice_is_the_same_bit_for_bit(void **state) {
    (void)state;
    train_well(2, "again", "");
    same_lines("two", "again", "metrics.jsonl", 0, 20);
    same_checkpoint("two", "again", 20);
}

static void resume_continues_bit_for_bit(void **state) {
    (void)state;
    train_well(2, "halves", "--set train.steps=10");
    train_well(2, "halves", "--resume auto");
    same_lines("two", "halves", "metrics.jsonl", 0, 20);
    same_lines("two", "halves", "advantages.jsonl", 0, 3);
    same_checkpoint("two", "halves", 20);
}

/* Advantages as metrics.jsonl sums them up: as many as are valid, of that deviation, of mean 0 in every group
 * of 6, at steps 1, 9 and 17. */
static void advantages_of_every_picture(void **state) {
    (void)state;
    json_t *lines = lines_of("two", "advantages.jsonl"), *metrics = lines_of("two", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), 3);
    for (size_t j = 0; j < 3; j++) {
        json_t *line = json_array_get(lines, j), *metric = json_array_get(metrics, 8 * j), *column;
        const char *name;
        assert_int_equal(json_integer_value(json_object_get(line, "step")), 8 * j + 1);
        assert_int_equal(json_array_size(json_object_get(line, "prompt")), 48);
        json_object_foreach(json_object_get(line, "advantage"), name, column) {
            double sum = 0, squares = 0, valid = 0;
            assert_int_equal(json_array_size(column), 48);
            for (size_t i = 0; i < 48; i++) {
                json_t *one = json_array_get(column, i);
                valid += json_is_number(one);
                sum += json_number_value(one);
                squares += json_number_value(one) * json_number_value(one);
                if (i % 6 == 5)
                    assert_near(sum, 0, 0.005 * (double)(i + 1));
            }
            assert_near(valid, json_number_value(json_object_get(json_object_get(metric, "valid"), name)), 0);
            assert_near(valid > 0 ? sqrt(squares / valid) : 0,
                        json_number_value(json_object_get(json_object_get(metric, "advantage_std"), name)),
                        2e-3);
        }
    }
    json_decref(lines);
    json_decref(metrics);
}

/* The change that eval.jsonl tells is the difference of the means where the same pictures are valid: all of
 * them here. The base model has none. */
static void changes_are_from_the_base_model(void **state) {
    (void)state;
    json_t *lines = lines_of("two", "eval.jsonl"), *base = json_array_get(lines, 0);
    for (size_t i = 0; i < 3; i++) {
        const char *name;
        json_t *score;
        json_object_foreach(json_array_get(lines, i), name, score) {
            if (!json_is_object(score))
                continue;
            json_t *change = json_object_get(score, "change"), *before = json_object_get(base, name);
            assert_true((i > 0) == (change != NULL));
            if (change) {
                assert_near(json_number_value(change),
                            json_number_value(json_object_get(score, "mean")) -
                                json_number_value(json_object_get(before, "mean")),
                            1e-8);
                assert_true(json_number_value(json_object_get(score, "change_ci95")) >= 0);
            }
        }
    }
    json_decref(lines);
}

/* Starts a run, signals it once metrics.jsonl has some lines, and returns the exit code: SIGTERM to one
 * process, or SIGUSR1 to mpirun, which passes that one on and waits. */
static int train_and_stop(const char *out, int ranks) {
    char metrics[512], yaml[512], to[512], count[16];
    snprintf(metrics, sizeof metrics, "%s/%s/metrics.jsonl", folder, out);
    snprintf(yaml, sizeof yaml, "%s/run.yaml", folder);
    snprintf(to, sizeof to, "%s/%s", folder, out);
    snprintf(count, sizeof count, "%d", ranks);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
            _exit(99);
        if (ranks == 1)
            execl(MBL_BINARY_DIR "/marble", "marble", "train", yaml, "--out", to, (char *)NULL);
        else
            execl(MBL_SOURCE_DIR "/tests/with_ranks", "with_ranks", count, MBL_BINARY_DIR "/marble", "train",
                  yaml, "--out", to, (char *)NULL);
        _exit(99);
    }
    for (int i = 0, lines = 0; i < 6000 && lines < 3; i++) {
        FILE *file = fopen(metrics, "r");
        lines = 0;
        for (int c; file && (c = fgetc(file)) != EOF;)
            lines += c == '\n';
        if (file)
            fclose(file);
        usleep(10000);
    }
    kill(child, ranks == 1 ? SIGTERM : SIGUSR1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void a_signal_leaves_a_checkpoint_and_exit_75(void **state) {
    (void)state;
    assert_int_equal(train_and_stop("stopped", 1), 75);
    train_well(1, "stopped", "--resume auto");
    same_lines("one", "stopped", "metrics.jsonl", 0, 20);
    same_checkpoint("one", "stopped", 20);
    assert_int_equal(train_and_stop("stopped2", 2), 75);
    train_well(2, "stopped2", "--resume auto");
    same_lines("two", "stopped2", "metrics.jsonl", 0, 20);
    same_checkpoint("two", "stopped2", 20);
}

/* No count prompt has a text, and this run has count prompts only in name: ocr is N/A for every sample when
 * no prompt quotes one. */
static void a_reward_that_never_applies_is_left_out(void **state) {
    char path[512];
    (void)state;
    snprintf(path, sizeof path, "%s/plain.txt", folder);
    static const char plain[] =
        "three blue circles\ntwo red squares\none green triangle\nfour purple circles\ngreen above purple\n"
        "red above blue\ntwo blue squares\none red circle\n";
    write_whole(path, plain, sizeof plain - 1);
    char more[2048];
    snprintf(more, sizeof more,
             "--set prompts.source=file --set prompts.train=%s --set prompts.test=%s --set "
             "prompts.train_count=8 --set prompts.test_count=8 --set train.steps=3",
             path, path);
    train_well(2, "plain", more);
    json_t *lines = lines_of("plain", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), 3);
    for (size_t i = 0; i < 3; i++) {
        json_t *line = json_array_get(lines, i);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(line, "valid"), "ocr")), 0);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(line, "na"), "ocr")), 48);
        assert_near(json_number_value(json_object_get(json_object_get(line, "alpha_raw"), "ocr")), 0, 0);
        double sum = 0;
        const char *name;
        json_t *alpha;
        json_object_foreach(json_object_get(line, "alpha_raw"), name, alpha) sum += json_number_value(alpha);
        assert_near(sum, 1, 1e-8); /* written with nine digits */
        assert_int_equal(json_integer_value(json_object_get(line, "rewards_used")), 4);
    }
    json_decref(lines);
}

static void every_method_runs_and_marble_is_never_against_a_reward(void **state) {
    (void)state;
    train_well(1, "equal", "--set balance.method=equal --set train.steps=3");
    train_well(1, "sum",
               "--set balance.method=weighted_sum --set balance.diagnostics_every=2 --set train.steps=3");
    train_well(1, "offset", "--set balance.common=offset --set train.steps=2");
    train_well(1, "gdpo", "--set balance.method=gdpo --set train.steps=1");
    static const char *const others[] = {"fixed", "pcgrad", "upgrad", "cagrad", "nash"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char set[64];
        snprintf(set, sizeof set, "--set balance.method=%s --set train.steps=1", others[i]);
        train_well(2, others[i], set);
    }
    json_t *lines = lines_of("one", "metrics.jsonl");
    for (size_t i = 0; i < json_array_size(lines); i++) {
        double least = json_number_value(json_object_get(json_array_get(lines, i), "cos_min"));
        if (!(least > 0)) {
            print_error("step %zu: cos_min %g\n", i + 1, least);
            fail();
        }
    }
    json_decref(lines);
    lines = lines_of("sum", "metrics.jsonl");
    assert_non_null(json_object_get(json_array_get(lines, 0), "cos_min"));
    assert_null(json_object_get(json_array_get(lines, 1), "cos_min"));
    assert_non_null(json_object_get(json_array_get(lines, 2), "cos_min"));
    json_decref(lines);
}

static double by(const json_t *line, const char *key, const char *reward) {
    return json_number_value(json_object_get(json_object_get(line, key), reward));
}

/* At the first step AdamW moves every weight by +-lr where its gradient is not tiny, so the step has a clear
 * cosine with every reward's gradient, also of those whose weight is 0: none under weighted_sum, some under
 * marble. */
static void the_step_is_compared_with_rewards_of_no_weight(void **state) {
    static const char *const methods[] = {"weighted_sum", "marble"}, *const rewards[] = {"ocr", "count",
                                                                                         "color", "clean",
                                                                                         "jpeg"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char more[256];
        snprintf(more, sizeof more, "--set balance.method=%s --set train.steps=1 --set train.kl=0",
                 methods[i]);
        train_well(1, "first", more);
        json_t *lines = lines_of("first", "metrics.jsonl"), *line = json_array_get(lines, 0);
        for (int k = 0; k < 5; k++) {
            double cosine = by(line, "cos", rewards[k]), of_step = by(line, "cos_step", rewards[k]);
            if (!(fabs(of_step) > 0.1 * fabs(cosine))) {
                print_error("%s: %s: cos %g, cos_step %g\n", methods[i], rewards[k], cosine, of_step);
                fail();
            }
        }
        json_decref(lines);
    }
}

static void several_updates_an_epoch(void **state) {
    (void)state;
    const char *more = "--set train.updates_per_epoch=2 --set train.inner_epochs=2 --set train.steps=8 --set "
                       "checkpoint.every=4";
    char half[512];
    snprintf(half, sizeof half, "%s --set train.steps=4", more);
    train_well(1, "updates", more);
    train_well(1, "updates2", half);
    snprintf(half, sizeof half, "%s --resume auto", more);
    train_well(1, "updates2", half);
    same_lines("updates", "updates2", "metrics.jsonl", 0, 8);
    same_checkpoint("updates", "updates2", 8);
}

static json_t *field(const json_t *lines, size_t i, const char *name) {
    return json_object_get(json_array_get(lines, i), name);
}

/* Solves at steps 1, 4 and 7 only; cosines where a step solves or diagnostics are due; the averaged alpha
 * stands in between. */
static void cached_steps(void **state) {
    const char *more = "--set balance.refresh_every=3 --set balance.diagnostics_every=4 --set train.steps=8";
    (void)state;
    train_well(1, "cached", more);
    train_well(2, "cached2", more);
    same_lines("cached", "cached2", "metrics.jsonl", 1e-4, 8);
    json_t *lines = lines_of("cached", "metrics.jsonl");
    for (size_t i = 0; i < 8; i++) {
        bool solved = i % 3 == 0;
        const char *name;
        json_t *alpha;
        assert_int_equal(json_is_true(field(lines, i, "refreshed")), solved);
        assert_int_equal(field(lines, i, "alpha_raw") != NULL, solved);
        assert_int_equal(field(lines, i, "cos_min") != NULL, solved || i == 4);
        json_object_foreach(field(lines, i, "alpha"), name, alpha)
            assert_near(json_number_value(alpha),
                        json_number_value(json_object_get(field(lines, i - i % 3, "alpha"), name)), 1e-12);
    }
    assert_true(json_number_value(field(lines, 4, "cos_min")) > -1);
    json_decref(lines);
}

/* Stops after step 5, in the middle of the window that step 4 opened; diagnostics change no step. */
static void resume_between_solves(void **state) {
    const char *more = "--set balance.refresh_every=3 --set balance.diagnostics_every=0 --set train.steps=8";
    char half[512], again[512];
    (void)state;
    snprintf(half, sizeof half, "%s --set train.steps=5", more);
    snprintf(again, sizeof again, "%s --resume auto", more);
    train_well(2, "window", more);
    train_well(2, "window2", half);
    train_well(2, "window2", again);
    same_lines("window", "window2", "metrics.jsonl", 0, 8);
    same_checkpoint("window", "window2", 8);
    json_t *lines = lines_of("window", "metrics.jsonl"), *other = lines_of("cached2", "metrics.jsonl");
    for (size_t i = 0; i <= 4;
         i++) /* of step 5 all gradients against one pass; AdamW then magnifies rounding */
        assert_near(json_number_value(field(lines, i, "grad_norm")),
                    json_number_value(field(other, i, "grad_norm")),
                    1e-6 * json_number_value(field(other, i, "grad_norm")));
    json_decref(lines);
    json_decref(other);
}

/* The same rows whatever the number of ranks; the direction is that of all rows also where diagnostics form
 * all gradients of them. */
static void weights_from_a_part_of_the_rows(void **state) {
    const char *more = "--set balance.gram_fraction=0.5 --set train.steps=4 --set balance.on_refresh=smooth "
                       "--set balance.diagnostics_every=";
    char with[512], without[512];
    (void)state;
    snprintf(with, sizeof with, "%s3", more);
    snprintf(without, sizeof without, "%s0", more);
    train_well(1, "part", with);
    train_well(2, "part2", with);
    train_well(1, "part3", without);
    same_lines("part", "part2", "metrics.jsonl", 1e-4, 4);
    json_t *lines = lines_of("part", "metrics.jsonl"), *other = lines_of("part3", "metrics.jsonl");
    for (size_t i = 0; i < 4; i++) {
        assert_near(json_number_value(field(lines, i, "gram_share")), 0.5, 1e-12);
        assert_int_equal(field(lines, i, "cos_min") != NULL, i % 3 == 0);
    }
    double norm = json_number_value(field(other, 0, "grad_norm")); /* AdamW then magnifies rounding */
    assert_near(json_number_value(field(lines, 0, "grad_norm")), norm, 1e-6 * norm);
    json_decref(lines);
    json_decref(other);
}

/* Two steps of equal weights, then a window of two steps that step 3 opens, from the first solution on; color
 * and clean share an objective. Stopping in the warm-up or within the window changes nothing. */
static void warm_up_and_groups(void **state) {
    const char *more =
        "--set balance.warmup=2 --set balance.refresh_every=2 --set rewards.2.group=looks --set "
        "rewards.3.group=looks --set train.steps=5 --set balance.diagnostics_every=0";
    char half[512], again[512];
    (void)state;
    snprintf(again, sizeof again, "%s --resume auto", more);
    train_well(2, "warm", more);
    for (size_t stop = 1; stop < 4; stop += 2) {
        char out[16];
        snprintf(out, sizeof out, "warm%zu", stop);
        snprintf(half, sizeof half, "%s --set train.steps=%zu", more, stop);
        train_well(2, out, half);
        train_well(2, out, again);
        same_lines("warm", out, "metrics.jsonl", 0, 5);
        same_checkpoint("warm", out, 5);
    }
    json_t *lines = lines_of("warm", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++) {
        const json_t *alpha = field(lines, i, "alpha"), *raw = field(lines, i, "alpha_raw");
        assert_int_equal(json_is_true(field(lines, i, "refreshed")), i % 2 == 0);
        assert_near(json_number_value(json_object_get(alpha, "color")),
                    json_number_value(json_object_get(alpha, "clean")), 1e-8);
        if (i == 0) {
            assert_near(json_number_value(json_object_get(raw, "jpeg")), 0.25, 1e-8);
            assert_near(json_number_value(json_object_get(raw, "color")), 0.125, 1e-8);
        }
        if (i == 2) /* the first solution starts the average */
            compare(alpha, raw, 1e-8, "alpha");
    }
    json_decref(lines);
}

/* Every micro-batch solves in step 1, then one of 8 at steps 3 and 5; stopping between two of them changes
 * nothing, and neither does the number of ranks. */
static void the_released_method(void **state) {
    const char *more =
        "--set balance.method=marble_reference --set balance.refresh_every=2 --set train.steps=5 "
        "--set balance.diagnostics_every=3";
    char half[512], again[512];
    (void)state;
    snprintf(half, sizeof half, "%s --set train.steps=4 --set checkpoint.every=4", more);
    snprintf(again, sizeof again, "%s --resume auto", more);
    train_well(1, "reference", more);
    train_well(2, "reference2", more);
    train_well(2, "reference3", half);
    train_well(2, "reference3", again);
    same_lines("reference", "reference2", "metrics.jsonl", 1e-4, 5);
    same_lines("reference2", "reference3", "metrics.jsonl", 0, 5);
    same_checkpoint("reference2", "reference3", 5);
    json_t *lines = lines_of("reference", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(json_is_true(field(lines, i, "refreshed")), i % 2 == 0);
        assert_int_equal(field(lines, i, "cos_min") != NULL, i % 3 == 0);
        if (i % 2 == 0)
            assert_near(json_number_value(field(lines, i, "gram_share")), i == 0 ? 1 : 0.125, 1e-12);
    }
    json_decref(lines);
}

static void pretrain_well(const char *out, const char *more) {
    char command[2048];
    snprintf(command, sizeof command,
             "%s/marble pretrain %s/deploy/examples/pretrain.yaml --out %s/%s --set threads=1 --set "
             "pretrain.warmup=2 --set pretrain.batch=8 --set "
             "pretrain.model.num_layers=2 --set eval.prompts=4 --set eval.steps=2 --set "
             "pretrain.eval_every=0 %s >%s/%s.log 2>&1",
             MBL_BINARY_DIR, MBL_SOURCE_DIR, folder, out, more, folder, out);
    assert_int_equal(system(command), 0);
}

static void pretraining_resumes_bit_for_bit(void **state) {
    (void)state;
    pretrain_well("base", "--set pretrain.steps=6");
    pretrain_well("base2", "--set pretrain.steps=3");
    pretrain_well("base2", "--set pretrain.steps=6 --resume auto");
    same_lines("base", "base2", "metrics.jsonl", 0, 6);
    char path[2][512];
    size_t size[2];
    const char *out[2] = {"base", "base2"};
    char *weights[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s/model/transformer/diffusion_pytorch_model.safetensors",
                 folder, out[i]);
        weights[i] = read_whole(path[i], &size[i]);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(weights[0], weights[1], size[0]);
    free(weights[0]);
    free(weights[1]);
}

/* Either half of the rows gives an alpha of its own; the step is that of all rows. */
static void alpha_of_two_halves(void **state) {
    (void)state;
    train_well(2, "halved", "--set balance.alpha_halves=2 --set train.steps=3");
    json_t *lines = lines_of("halved", "metrics.jsonl"), *other = lines_of("two", "metrics.jsonl");
    assert_null(field(lines, 1, "alpha_halves"));
    for (size_t i = 0; i < 3; i += 2) {
        const char *name;
        json_t *pair;
        double sum[2] = {0}, difference = 0;
        json_object_foreach(field(lines, i, "alpha_halves"), name, pair) {
            double a = json_number_value(json_array_get(pair, 0)),
                   b = json_number_value(json_array_get(pair, 1));
            sum[0] += a;
            sum[1] += b;
            difference += fabs(a - b);
            assert_near(json_number_value(json_object_get(field(lines, i, "alpha_variance"), name)),
                        (a - b) * (a - b) / 2, 1e-8);
        }
        assert_near(sum[0], 1, 1e-7);
        assert_near(sum[1], 1, 1e-7);
        assert_true(difference > 1e-3);
    }
    double norm = json_number_value(field(other, 0, "grad_norm"));
    assert_near(json_number_value(field(lines, 0, "grad_norm")), norm, 1e-6 * norm);
    compare(field(lines, 0, "cos"), field(other, 0, "cos"), 1e-5, "cos");
    json_decref(lines);
    json_decref(other);
}

/* In AdamW's metric marble goes against no reward and evenly along those it needs, whatever `cos` is; one
 * rank or two, stopped or not. Cached steps go on with its weights. */
static void a_solve_in_the_metric_of_adamw(void **state) {
    (void)state;
    train_well(1, "metric1", "--set balance.metric=adam --set train.steps=4");
    train_well(2, "metric2", "--set balance.metric=adam --set train.steps=4 --set checkpoint.every=2");
    same_lines("metric1", "metric2", "metrics.jsonl", 1e-4, 4);
    train_well(2, "metric3", "--set balance.metric=adam --set train.steps=2 --set checkpoint.every=2");
    train_well(2, "metric3", "--set balance.metric=adam --set train.steps=4 --resume auto");
    same_lines("metric2", "metric3", "metrics.jsonl", 0, 4);
    same_checkpoint("metric2", "metric3", 4);
    json_t *lines = lines_of("metric2", "metrics.jsonl"), *plain = lines_of("two", "metrics.jsonl");
    double apart = 0;
    for (size_t i = 0; i < 4; i++) {
        const char *name;
        json_t *one;
        double low = 1;
        json_object_foreach(field(lines, i, "cos_metric"), name,
                            one) if (by(json_array_get(lines, i), "grad_norm_by", name) > 0) low =
            fmin(low, json_number_value(one));
        assert_true(low > 0 && low < 1);
        json_object_foreach(field(lines, i, "cos_metric"), name, one) {
            if (by(json_array_get(lines, i), "alpha_raw", name) > 1e-6)
                assert_near(json_number_value(one), low, 1e-6);
            apart = fmax(apart, fabs(json_number_value(one) - by(json_array_get(lines, i), "cos", name)));
        }
    }
    assert_true(apart > 0.02);
    assert_null(field(plain, 0, "cos_metric"));
    json_decref(lines);
    json_decref(plain);
    train_well(1, "metric4", "--set balance.metric=adam --set balance.refresh_every=2 --set train.steps=2");
    lines = lines_of("metric4", "metrics.jsonl");
    compare(field(lines, 1, "alpha"), field(lines, 0, "alpha_raw"), 1e-7, "alpha");
    assert_null(field(lines, 1, "cos_metric"));
    json_decref(lines);
}

/* A limit that nothing meets presses its reward into the direction, more with every epoch, over a resume too.
 */
static void a_reward_with_a_min(void **state) {
    const char *more = "--set rewards.0.min=0.99 --set constraint.penalty=0.1 --set train.steps=6";
    char half[512], again[512];
    (void)state;
    snprintf(half, sizeof half, "%s --set train.steps=3", more);
    snprintf(again, sizeof again, "%s --resume auto", more);
    train_well(2, "limit", more);
    train_well(2, "limit2", half);
    train_well(2, "limit2", again);
    same_lines("limit", "limit2", "metrics.jsonl", 0, 6);
    same_checkpoint("limit", "limit2", 6);
    json_t *lines = lines_of("limit", "metrics.jsonl");
    double last = 0;
    for (size_t i = 0; i < 6; i++) {
        const json_t *ocr = json_object_get(field(lines, i, "constraint"), "ocr");
        double multiplier = json_number_value(json_object_get(ocr, "multiplier"));
        double pressure = json_number_value(json_object_get(ocr, "pressure"));
        double alpha = json_number_value(json_object_get(field(lines, i, "alpha_raw"), "ocr"));
        assert_true(json_number_value(json_object_get(ocr, "gap")) > 0);
        assert_true(multiplier > last && pressure > multiplier);
        if (alpha != 0) /* else none of its groups varies */
            assert_near(alpha, pressure / (1 + pressure), 1e-7);
        last = multiplier;
    }
    json_decref(lines);
}

static json_int_t alarms_of(const json_t *lines, size_t i, const char *name) {
    return json_integer_value(json_object_get(field(lines, i, "alarms"), name));
}

/* A healthy run has none; a limit that any step passes stops after the first epoch with its checkpoint, or is
 * only told and counted, over a resume too. */
static void alarms_are_told_counted_and_heeded(void **state) {
    const char *more = "--set alarms.alpha_collapse=0.01 --set alarms.patience=2 --set train.steps=5";
    char half[512], path[512];
    (void)state;
    json_t *lines = lines_of("one", "metrics.jsonl");
    const char *name;
    json_t *count;
    json_object_foreach(field(lines, json_array_size(lines) - 1, "alarms"), name, count) {
        if (json_integer_value(count) != 0)
            fail_msg("%s was found in a healthy run", name);
    }
    json_decref(lines);
    snprintf(half, sizeof half, "%s --set alarms.on_alarm=stop", more);
    assert_int_equal(train(2, "alarm", half), 1);
    snprintf(path, sizeof path, "%s/alarm.log", folder);
    char *log = read_whole(path, NULL);
    if (!strstr(log, "step 2: alarm alpha_collapse: ") || !strstr(log, "stopped, as alarms.on_alarm is stop"))
        fail_msg("%s", log);
    free(log);
    train_well(2, "alarm", more);
    train_well(2, "alarm2", "--set alarms.alpha_collapse=0.01 --set alarms.patience=2 --set train.steps=2");
    same_checkpoint("alarm", "alarm2", 2);
    snprintf(half, sizeof half, "%s --resume auto", more);
    train_well(2, "alarm2", half);
    same_lines("alarm", "alarm2", "metrics.jsonl", 0, 5);
    lines = lines_of("alarm2", "metrics.jsonl");
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(alarms_of(lines, i, "alpha_collapse"), i);
    json_decref(lines);
}

/* Three stages, of which the second begins amid an epoch: the others' rewards are scored but have no alpha,
 * every stage solves in its first step and starts its averages there. Stopping within a stage or between two
 * changes nothing, and neither does the number of ranks. */
static void stages_one_after_another(void **state) {
    const char *more = "--set train.updates_per_epoch=2 --set balance.refresh_every=9 --set "
                       "balance.diagnostics_every=4 --set checkpoint.every=2 --set log.level=info";
    const char *first = "{steps: 3, rewards: [ocr, clean, jpeg]}",
               *third = "{steps: 2, rewards: [ocr, count]}";
    const char *second = "rewards: [count, clean], method: weighted_sum, weights: [1, 3]}";
    static const int stage[] = {1, 1, 1, 2, 2, 2, 3, 3};
    char whole[1024], half[1024], path[512];
    (void)state;
    snprintf(whole, sizeof whole, "%s --set train.steps=8 --set 'stages=[%s, {steps: 3, %s, %s]'", more,
             first, second, third);
    train_well(2, "stages", whole);
    train_well(1, "stages1", whole);
    same_lines("stages", "stages1", "metrics.jsonl", 1e-4, 8);
    strcat(whole, " --resume auto");
    for (int steps = 4; steps < 8; steps += 2) {
        char out[32];
        snprintf(out, sizeof out, "stages%d", steps);
        snprintf(half, sizeof half, "%s --set train.steps=%d --set 'stages=[%s, {steps: %d, %s]'", more,
                 steps, first, steps - 3, second);
        train_well(2, out, half);
        train_well(2, out, whole);
        same_lines("stages", out, "metrics.jsonl", 0, 8);
        same_checkpoint("stages", out, 8);
    }
    json_t *lines = lines_of("stages", "metrics.jsonl");
    for (size_t i = 0; i < 8; i++) {
        const json_t *line = json_array_get(lines, i);
        assert_int_equal(json_integer_value(json_object_get(line, "stage")), stage[i]);
        assert_true(by(line, "reward", "color") > 0); /* scored all through */
        assert_int_equal(by(line, "valid", "jpeg"), 48);
        if (json_object_get(line, "alpha")) {
            const char *outside[][3] = {
                {"count", "color", "color"}, {"ocr", "jpeg", "color"}, {"clean", "jpeg", "color"}};
            for (int k = 0; k < 3; k++)
                assert_near(by(line, "alpha", outside[stage[i] - 1][k]), 0, 0);
        }
        if (stage[i] != 2)
            assert_int_equal(json_is_true(json_object_get(line, "refreshed")), i == 0 || i == 6);
    }
    assert_near(by(json_array_get(lines, 4), "alpha", "clean"), 3, 0);
    assert_true(fabs(by(json_array_get(lines, 4), "cos", "jpeg")) > 0); /* compared with all the same */
    compare(field(lines, 6, "alpha"), field(lines, 6, "alpha_raw"), 1e-8, "alpha");
    compare(field(lines, 7, "alpha"), field(lines, 6, "alpha_raw"), 1e-8, "alpha");
    json_decref(lines);
    snprintf(path, sizeof path, "%s/stages.log", folder);
    char *log = read_whole(path, NULL);
    if (!strstr(log, "step 4/8  stage 2/3 "))
        fail_msg("%s", log);
    free(log);
}

/* The first step of a stage is that of a run with its rewards alone. */
static void a_stage_is_a_run_of_its_rewards(void **state) {
    static const char *const methods[] = {"marble", "weighted_sum", "gdpo"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        char stage[512], alone[512];
        snprintf(
            stage, sizeof stage,
            "--set train.steps=1 --set 'stages=[{steps: 1, rewards: [jpeg, ocr], weights: [3, 1], method: "
            "%s}]'",
            methods[i]);
        snprintf(alone, sizeof alone,
                 "--set train.steps=1 --set balance.method=%s --set 'rewards=[{name: ocr}, {name: jpeg, "
                 "weight: 3}]'",
                 methods[i]);
        char one[32], other[32];
        snprintf(one, sizeof one, "stage_%s", methods[i]);
        snprintf(other, sizeof other, "alone_%s", methods[i]);
        train_well(1, one, stage);
        train_well(1, other, alone);
        json_t *a = lines_of(one, "metrics.jsonl"), *b = lines_of(other, "metrics.jsonl");
        double norm = json_number_value(field(b, 0, "grad_norm"));
        assert_true(norm > 0);
        assert_near(json_number_value(field(a, 0, "grad_norm")), norm, 1e-6 * norm);
        assert_near(by(json_array_get(a, 0), "cos", "jpeg"), by(json_array_get(b, 0), "cos", "jpeg"), 1e-6);
        json_decref(a);
        json_decref(b);
    }
}

static void a_checkpoint_of_another_run_is_refused(void **state) {
    char more[1024];
    (void)state;
    snprintf(more, sizeof more,
             "--set 'rewards=[{name: clean}, {name: jpeg}]' --resume %s/one/checkpoints/latest.h5", folder);
    assert_int_equal(train(1, "other", more), 2);
    snprintf(more, sizeof more, "--set model.lora.rank=8 --resume %s/one/checkpoints/latest.h5", folder);
    assert_int_not_equal(train(1, "other", more), 0);
    snprintf(more, sizeof more, "--resume %s/run.yaml", folder);
    assert_int_not_equal(train(1, "other", more), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_count_gives_the_same_run),
        cmocka_unit_test(twice_is_the_same_bit_for_bit),
        cmocka_unit_test(resume_continues_bit_for_bit),
        cmocka_unit_test(advantages_of_every_picture),
        cmocka_unit_test(changes_are_from_the_base_model),
        cmocka_unit_test(a_signal_leaves_a_checkpoint_and_exit_75),
        cmocka_unit_test(a_reward_that_never_applies_is_left_out),
        cmocka_unit_test(every_method_runs_and_marble_is_never_against_a_reward),
        cmocka_unit_test(the_step_is_compared_with_rewards_of_no_weight),
        cmocka_unit_test(several_updates_an_epoch),
        cmocka_unit_test(cached_steps),
        cmocka_unit_test(resume_between_solves),
        cmocka_unit_test(weights_from_a_part_of_the_rows),
        cmocka_unit_test(alpha_of_two_halves),
        cmocka_unit_test(a_solve_in_the_metric_of_adamw),
        cmocka_unit_test(a_reward_with_a_min),
        cmocka_unit_test(alarms_are_told_counted_and_heeded),
        cmocka_unit_test(the_released_method),
        cmocka_unit_test(warm_up_and_groups),
        cmocka_unit_test(stages_one_after_another),
        cmocka_unit_test(a_stage_is_a_run_of_its_rewards),
        cmocka_unit_test(a_checkpoint_of_another_run_is_refused),
        cmocka_unit_test(pretraining_resumes_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
