/* marble train as a user would start it: ranks agree, runs repeat bit for bit, what is reported of a run adds
 * up, a reward that never applies is left out, a checkpoint of another run is refused. */
#include "train_case.h"

#include "io/tar.h"

#include <fcntl.h>
#include <unistd.h>

static void every_rank_count_gives_the_same_run(void **state) {
    (void)state;
    train_well(1, "one", "");
    train_well(2, "two", "");
    train_well(4, "four", "");
    same_lines("one", "two", "metrics.jsonl", 1e-4, STEPS);
    same_lines("one", "four", "metrics.jsonl", 1e-4, STEPS);
    same_lines("one", "four", "eval.jsonl", 1e-4, 3);
    same_lines("one", "four", "advantages.jsonl", 2e-3, 3);
}

static void twice_is_the_same_bit_for_bit(void **state) {
    (void)state;
    train_well(2, "again", "");
    same_lines("two", "again", "metrics.jsonl", 0, STEPS);
    same_lines("two", "again", "eval.jsonl", 0, 3);
    same_lines("two", "again", "advantages.jsonl", 0, 3);
    same_checkpoint("two", "again", STEPS);
}

/* A line of gram.jsonl for every step: the same on any number of ranks, lengths those of metrics.jsonl. */
static void cosines_of_every_two_rewards(void **state) {
    (void)state;
    json_t *one = lines_of("one", "gram.jsonl"), *four = lines_of("four", "gram.jsonl"),
           *metrics = lines_of("one", "metrics.jsonl");
    assert_int_equal(json_array_size(one), STEPS);
    assert_int_equal(json_array_size(four), STEPS);
    size_t measured = 0;
    for (size_t step = 0; step < STEPS; step++) {
        json_t *names = field(one, step, "rewards"), *norms = field(one, step, "norm");
        size_t k = json_array_size(names);
        for (size_t i = 0; i < k; i++) {
            const char *name = json_string_value(json_array_get(names, i));
            const json_t *length = json_object_get(field(metrics, step, "grad_norm_by"), name);
            if (json_is_number(length))
                assert_near(json_number_value(json_array_get(norms, i)), json_number_value(length), 1e-6);
            for (size_t j = 0; j < k; j++) {
                const json_t *a = json_array_get(json_array_get(field(one, step, "cos"), i), j),
                             *b = json_array_get(json_array_get(field(four, step, "cos"), i), j);
                assert_int_equal(json_is_number(a), json_is_number(b));
                assert_near(json_number_value(a), json_number_value(b), 1e-3);
                if (i == j && json_is_number(a))
                    assert_near(json_number_value(a), 1, 0);
                measured += i != j && json_is_number(a) && json_number_value(a) != 0;
            }
        }
    }
    assert_true(measured >= 2 * STEPS);
    json_decref(one);
    json_decref(four);
    json_decref(metrics);
}

/* The images of the last of these steps, of all ranks: the advantages are those of its line. */
static void images_of_the_rollout(void **state) {
    char path[600];
    int64_t at = 0;
    size_t images = 0;
    bool more;
    mbl_tar_entry_t entry;
    (void)state;
    json_t *lines = lines_of("four", "advantages.jsonl"), *advantages = field(lines, 2, "advantage");
    snprintf(path, sizeof path, "%s/four/rollout.tar", folder);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    while (mbl_tar_next(fd, &at, &entry, &more) == MBL_OK && more) {
        char text[2048] = "", expected[40];
        const char *name;
        json_t *value;
        snprintf(expected, sizeof expected, "%06zu.%s", images / 2, images % 2 ? "json" : "png");
        assert_string_equal(entry.name, expected);
        if (images++ % 2 == 0)
            continue;
        assert_true(entry.size < sizeof text && pread(fd, text, entry.size, entry.offset) > 0);
        json_t *meta = json_loadb(text, entry.size, 0, NULL);
        assert_int_equal(json_integer_value(json_object_get(meta, "step")), 5);
        json_object_foreach(advantages, name, value) {
            const json_t *own = json_array_get(value, images / 2 - 1),
                         *kept = json_object_get(json_object_get(meta, "advantages"), name);
            assert_int_equal(json_is_number(own), json_is_number(kept));
            assert_near(json_number_value(own), json_number_value(kept), 1e-9);
            assert_int_equal(json_is_number(kept),
                             json_is_number(json_object_get(json_object_get(meta, "scores"), name)));
        }
        json_decref(meta);
    }
    assert_int_equal(images, 2 * IMAGES);
    close(fd);
    json_decref(lines);
}

/* Advantages as metrics.jsonl sums them up: as many as are valid, of that deviation, of mean 0 in every
 * group, at steps 1, 3 and 5. */
static void advantages_of_every_image(void **state) {
    (void)state;
    json_t *lines = lines_of("two", "advantages.jsonl"), *metrics = lines_of("two", "metrics.jsonl");
    size_t applied = 0;
    assert_int_equal(json_array_size(lines), 3);
    for (size_t j = 0; j < 3; j++) {
        const char *name;
        json_t *column;
        assert_int_equal(json_integer_value(field(lines, j, "step")), 2 * j + 1);
        assert_int_equal(json_array_size(field(lines, j, "prompt")), IMAGES);
        json_object_foreach(field(lines, j, "advantage"), name, column) {
            double sum = 0, squares = 0, valid = 0;
            assert_int_equal(json_array_size(column), IMAGES);
            for (size_t i = 0; i < IMAGES; i++) {
                json_t *one = json_array_get(column, i);
                valid += json_is_number(one);
                sum += json_number_value(one);
                squares += json_number_value(one) * json_number_value(one);
                if (i % GROUP == GROUP - 1)
                    assert_near(sum, 0, 0.005 * (double)(i + 1));
            }
            assert_near(valid, by(metrics, 2 * j, "valid", name), 0);
            assert_near(valid > 0 ? sqrt(squares / valid) : 0, by(metrics, 2 * j, "advantage_std", name),
                        2e-3);
            applied += squares > 0;
        }
    }
    assert_int_equal(applied, 9); /* color, clean and jpeg at three steps */
    json_decref(lines);
    json_decref(metrics);
}

/* The change in eval.jsonl is the difference of the means where the same images are valid: all of
 * them here. The base model has none. */
static void changes_are_from_the_base_model(void **state) {
    (void)state;
    json_t *lines = lines_of("two", "eval.jsonl"),
           *base = json_object_get(json_array_get(lines, 0), "rewards");
    for (size_t i = 0; i < 3; i++) {
        const char *name;
        json_t *score, *rewards = json_object_get(json_array_get(lines, i), "rewards");
        assert_true(json_object_size(rewards) > 0);
        json_object_foreach(rewards, name, score) {
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

/* Where no prompt quotes a text, ocr applies to no sample: it is left out, and the others share the whole of
 * alpha. */
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
             "prompts.train_count=8 --set prompts.test_count=8 --set train.steps=3 --set "
             "'rewards=[{name: ocr}, {name: color}, {name: clean}, {name: jpeg}]'",
             path, path);
    train_well(2, "plain", more);
    json_t *lines = lines_of("plain", "metrics.jsonl");
    assert_int_equal(json_array_size(lines), 3);
    for (size_t i = 0; i < 3; i++) {
        assert_near(by(lines, i, "valid", "ocr"), 0, 0);
        assert_near(by(lines, i, "na", "ocr"), IMAGES, 0);
        assert_near(by(lines, i, "alpha_raw", "ocr"), 0, 0);
        double sum = 0;
        const char *name;
        json_t *alpha;
        json_object_foreach(field(lines, i, "alpha_raw"), name, alpha) sum += json_number_value(alpha);
        assert_near(sum, 1, 1e-8); /* written with nine digits */
        assert_int_equal(json_integer_value(field(lines, i, "rewards_used")), 3);
    }
    json_decref(lines);
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
        cmocka_unit_test(cosines_of_every_two_rewards),
        cmocka_unit_test(images_of_the_rollout),
        cmocka_unit_test(advantages_of_every_image),
        cmocka_unit_test(changes_are_from_the_base_model),
        cmocka_unit_test(a_reward_that_never_applies_is_left_out),
        cmocka_unit_test(a_checkpoint_of_another_run_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, drop_folder);
}
