/* marble inspect FILE.h5: text, JSON, one attribute, damaged files, through the command itself. */
#include "support.h"
#include "base/log.h"
#include "cli/commands.h"
#include "io/checkpoint.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256], path[512], printed[512];

static int setup(void **state) {
    (void)state;
    static const float weights[] = {3, -4, NAN};
    static const int64_t order[] = {7, -2};
    const mbl_ckpt_item_t items[] = {
        {"adapter/current", MBL_F32, 3, weights}, {"order", MBL_I64, 2, order}, {"empty", MBL_U8, 0, NULL}};
    const mbl_ckpt_attr_t attrs[] = {{"step", "12"}, {"config", "seed: 1\ndevice: cpu\n"}};
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/step-000012.h5", folder);
    snprintf(printed, sizeof printed, "%s/printed", folder);
    return mbl_ckpt_write(path, items, 3, attrs, 2) == MBL_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* The command with up to two options; what it prints, to be freed. */
static char *inspect(const char *first, const char *second, int want_code) {
    const char *argv[] = {"inspect", path, first, second, NULL};
    fflush(stdout);
    int kept = dup(1);
    assert_non_null(freopen(printed, "w", stdout));
    int code = mbl_cmd_inspect(first ? second ? 4 : 3 : 2, (char **)argv);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    assert_int_equal(code, want_code);
    return read_whole(printed, NULL);
}

static void text(void **state) {
    (void)state;
    char *out = inspect(NULL, NULL, 0);
    static const char *const parts[] = {
        "every digest verified",
        "step                     12\n",
        "2 lines; --attribute config prints them",
        "adapter/current                       f32            3             5            -4             3 ",
        "  3  1 not",
        "order                                 i64            2       7.28011            -2             7\n",
        "empty                                  u8            0\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(out, parts[i]))
            fail_msg("\"%s\" lacks \"%s\"", out, parts[i]);
    free(out);
}

static void json(void **state) {
    (void)state;
    char *out = inspect("--json", NULL, 0);
    json_t *root = json_loads(out, 0, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "kind")), "checkpoint");
    const json_t *attributes = json_object_get(root, "attributes");
    assert_string_equal(json_string_value(json_object_get(attributes, "step")), "12");
    json_t *list = json_object_get(root, "datasets");
    assert_int_equal(json_array_size(list), 3);
    json_t *weights = json_array_get(list, 0), *empty = json_array_get(list, 1);
    assert_near(json_number_value(json_object_get(weights, "norm")), 5, 0);
    assert_near(json_number_value(json_object_get(weights, "min")), -4, 0);
    assert_int_equal(json_integer_value(json_object_get(weights, "nonfinite")), 1);
    assert_true(json_is_null(json_object_get(empty, "min")));
    json_decref(root);
    free(out);
}

static void one_attribute(void **state) {
    (void)state;
    char *out = inspect("--attribute", "config", 0);
    assert_string_equal(out, "seed: 1\ndevice: cpu\n");
    free(out);
    out = inspect("--attribute", "none", 2);
    assert_string_equal(out, "");
    free(out);
}

/* A run's folder with metrics of nine steps, a checkpoint of the eighth, and the same checkpoint elsewhere.
 */
static void make_run(char *checkpoint, char *alone) {
    static const double mean[] = {0.3, 0.9}; /* sums to 1.2: a reward missed a step */
    static const int64_t seen[] = {1, 1};
    const mbl_ckpt_item_t items[] = {{"balance/alpha_mean", MBL_F64, 2, mean},
                                     {"balance/seen", MBL_I64, 2, seen}};
    const mbl_ckpt_attr_t attrs[] = {{"rewards", "ocr clean"}, {"step", "8"}};
    char command[600], metrics[2048] = "";
    snprintf(command, sizeof command, "mkdir -p %s/run/checkpoints", folder);
    assert_int_equal(system(command), 0);
    snprintf(checkpoint, 512, "%s/run/checkpoints/step-000008.h5", folder);
    snprintf(alone, 512, "%s/alone.h5", folder);
    assert_int_equal(mbl_ckpt_write(checkpoint, items, 2, attrs, 2), MBL_OK);
    assert_int_equal(mbl_ckpt_write(alone, items, 2, attrs, 2), MBL_OK);
    for (int step = 1; step <= 9; step++) /* clean takes no part in the third step, no solve in the second;
                                             the last two have the names of before alpha_ema */
        snprintf(metrics + strlen(metrics), sizeof metrics - strlen(metrics),
                 step == 2   ? "{\"step\": %d}\n"
                 : step == 3 ? "{\"step\": %d, \"alpha\": {\"ocr\": 0.5, \"clean\": null}}\n"
                 : step < 8
                     ? "{\"step\": %d, \"alpha\": {\"ocr\": 0.%d, \"clean\": 0.05}, \"alpha_ema\": {\"ocr\": "
                       "0.25}}\n"
                     : "{\"step\": %d, \"alpha_raw\": {\"ocr\": 0.%d, \"clean\": 0.05}, \"alpha\": {\"ocr\": "
                       "0.75}}\n",
                 step, step);
    snprintf(command, sizeof command, "%s/run/metrics.jsonl", folder);
    write_whole(command, metrics, strlen(metrics));
}

static void alpha_history(void **state) {
    char kept[512], checkpoint[512], alone[512];
    (void)state;
    memcpy(kept, path, sizeof kept);
    make_run(checkpoint, alone);
    memcpy(path, checkpoint, sizeof path);
    char *out = inspect(NULL, NULL, 0);
    static const char table[] =
        "alpha of the steps by metrics.jsonl of the run (7 steps)\n"
        "step        1       3       4       5       6       7       8   least    most\n"
        "ocr    0.1000  0.5000  0.4000  0.5000  0.6000  0.7000  0.8000  0.1000  0.8000\n"
        "clean  0.0500       -  0.0500  0.0500  0.0500  0.0500  0.0500  0.0500  0.0500\n"
        "\n"
        "alpha_ema, the average after each of them, and that in the checkpoint\n"
        "step        1       3       4       5       6       7       8   least    most  checkpoint\n"
        "ocr    0.2500  0.5000  0.2500  0.2500  0.2500  0.2500  0.7500  0.2500  0.7500      0.2500\n"
        "clean       -       -       -       -       -       -       -       -       -      0.7500\n";
    if (!strstr(out, table))
        fail_msg("\"%s\" is not in:\n%s", table, out);
    free(out);
    out = inspect("--json", NULL, 0);
    json_t *root = json_loads(out, 0, NULL);
    const json_t *alpha = json_object_get(root, "alpha"), *history = json_object_get(alpha, "history");
    assert_int_equal(json_array_size(history), 7);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(history, 6), "step")), 8);
    static const double average[] = {[5] = 0.25, [6] = 0.75}, used[] = {[5] = 0.7, [6] = 0.8};
    for (size_t i = 5; i < 7; i++) {
        const json_t *at = json_array_get(history, i);
        assert_near(json_number_value(json_object_get(json_object_get(at, "alpha"), "ocr")), used[i], 0);
        assert_near(json_number_value(json_object_get(json_object_get(at, "alpha_ema"), "ocr")), average[i],
                    0);
    }
    assert_near(json_number_value(json_object_get(json_object_get(alpha, "checkpoint"), "clean")), 0.75,
                1e-9);
    json_decref(root);
    free(out);
    memcpy(path, alone, sizeof path);
    out = inspect(NULL, NULL, 0);
    assert_non_null(strstr(out, "alpha_ema; there is no metrics.jsonl beside the checkpoint"));
    assert_non_null(strstr(out, "reward  checkpoint\nocr         0.2500\nclean       0.7500\n"));
    free(out);
    memcpy(path, kept, sizeof kept);
}

static void damaged(void **state) {
    (void)state;
    size_t n;
    char *whole = read_whole(path, &n);
    whole[n / 3] ^= 1;
    write_whole(path, whole, n);
    free(whole);
    char *out = inspect("--json", NULL, 1);
    assert_string_equal(out, "");
    assert_non_null(strstr(mbl_fail_message(), "step-000012.h5: damaged"));
    free(out);
}

static void differences(void **state) {
    (void)state;
    static const float weights[] = {3, -4, 1}, more[] = {3, -4, 2};
    static const int64_t order[] = {7, -2, 5}, three[] = {3};
    const mbl_ckpt_item_t a[] = {
        {"m", MBL_F32, 3, weights}, {"n", MBL_F32, 3, weights}, {"order", MBL_I64, 2, order}};
    const mbl_ckpt_item_t b[] = {{"m", MBL_F32, 3, more},
                                 {"n", MBL_F32, 3, weights},
                                 {"order", MBL_I64, 3, order},
                                 {"three", MBL_I64, 1, three}};
    const mbl_ckpt_attr_t of_a[] = {{"config", "{\"train\": {\"lr\": 0.1, \"steps\": 3}}"}, {"step", "1"}};
    const mbl_ckpt_attr_t of_b[] = {{"config", "{\"train\": {\"lr\": 0.2, \"steps\": 3}, \"seed\": 5}"},
                                    {"step", "1"}};
    char kept[512], other[600], option[700];
    memcpy(kept, path, sizeof kept);
    snprintf(other, sizeof other, "%s/a.h5", folder);
    snprintf(path, sizeof path, "%s/b.h5", folder);
    snprintf(option, sizeof option, "--diff=%s", other);
    assert_int_equal(mbl_ckpt_write(other, a, 3, of_a, 2), MBL_OK);
    assert_int_equal(mbl_ckpt_write(path, b, 4, of_b, 2), MBL_OK);
    char *out = inspect(option, NULL, 0);
    static const char *const parts[] = {
        "1 dataset equal to the bit",
        "config.train.lr                      0.1 -> 0.2\n",
        "config.seed                          null -> 5\n",
        "m                                    |a - b| / |b| 0.186, largest difference 1\n",
        "order                                2 numbers -> 3\n",
        "three                                only in b\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(out, parts[i]))
            fail_msg("\"%s\" is not in:\n%s", parts[i], out);
    assert_null(strstr(out, "train.steps"));
    free(out);
    out = inspect(option, "--json", 0);
    json_t *root = json_loads(out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(root, "equal")), 1);
    assert_int_equal(json_array_size(json_object_get(root, "attributes")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "datasets")), 3);
    json_decref(root);
    free(out);
    memcpy(path, kept, sizeof kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(text, setup, teardown),
        cmocka_unit_test_setup_teardown(json, setup, teardown),
        cmocka_unit_test_setup_teardown(one_attribute, setup, teardown),
        cmocka_unit_test_setup_teardown(alpha_history, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(differences, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
