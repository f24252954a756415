/* Tests of whole runs: build/marble started as a user would, its metrics and checkpoints compared. Everything
 * lies in `folder`, which the test's setup makes with make_folder. */
#ifndef MBL_TESTS_RUNS_H
#define MBL_TESTS_RUNS_H

#include "support.h"
#include "io/checkpoint.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static char folder[256];

static inline bool on_gpu(void) {
    return strcmp(test_backend(), "cuda") == 0;
}

/* `folder`, with `config` as its run.yaml. Ends the program as skipped where the test's backend is not to be
 * had. */
static inline void make_folder(const char *config) {
    char path[512];
    need_backend();
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    write_whole(path, config, strlen(config));
}

/* A model that was pretrained for a moment, in folder/NAME/model (base/model in run.yaml): a copy of the one
 * that the build folder has for all tests (make_tiny_model). */
static inline void make_tiny_model(const char *name) {
    char command[2048];
    const char *kind = on_gpu() ? "gpu" : "cpu";
    snprintf(command, sizeof command,
             "%s/tests/make_tiny_model %s/marble %s && cp -r %s/tiny-%s %s/%s && rm %s/%s/made",
             MBL_SOURCE_DIR, MBL_BINARY_DIR, kind, MBL_BINARY_DIR, kind, folder, name, folder, name);
    assert_int_equal(system(command), 0);
}

static inline int drop_folder(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* marble train on `ranks` ranks into folder/out, one without mpirun, on the backend of the test; returns the
 * exit code. */
static inline int train(int ranks, const char *out, const char *more) {
    char command[8192];
    char start[512] = "";
    if (ranks > 1)
        snprintf(start, sizeof start, "%s/tests/with_ranks %d ", MBL_SOURCE_DIR, ranks);
    snprintf(command, sizeof command,
             "%s%s/marble train %s/run.yaml --out '%s/%s' --set device=%s %s >'%s/%s.log' 2>&1", start,
             MBL_BINARY_DIR, folder, folder, out, test_backend(), more, folder, out);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void train_well(int ranks, const char *out, const char *more) {
    int code = train(ranks, out, more);
    if (code != 0) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s.log", folder, out);
        char *log = read_whole(path, NULL);
        print_error("exit %d\n%s\n", code, log);
        free(log);
        fail();
    }
}

/* metrics.jsonl or eval.jsonl as an array, without what times and rank counts may change and which run it is.
 */
static inline json_t *lines_of(const char *out, const char *file) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", folder, out, file);
    char *text = read_whole(path, NULL);
    json_t *lines = json_array();
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        json_object_del(object, "seconds");
        json_object_del(object, "samples_per_s");
        json_object_del(object, "time");
        json_object_del(object, "bytes_comm");
        json_object_del(object, "ranks");
        assert_int_equal(json_object_del(object, "run"), 0);
        json_array_append_new(lines, object);
    }
    free(text);
    return lines;
}

static inline void compare(const json_t *a, const json_t *b, double tolerance, const char *where) {
    const char *key;
    json_t *value;
    if (json_is_number(a) && json_is_number(b)) {
        double x = json_number_value(a), y = json_number_value(b);
        if (!(fabs(x - y) <= tolerance * fmax(fabs(x), fabs(y)) + (tolerance > 0 ? 1e-12 : 0))) {
            print_error("%s: %.12g against %.12g\n", where, x, y);
            fail();
        }
        return;
    }
    assert_int_equal(json_typeof(a), json_typeof(b));
    json_object_foreach((json_t *)(uintptr_t)a, key, value) {
        char path[256];
        snprintf(path, sizeof path, "%.150s.%.80s", where, key);
        assert_non_null(json_object_get(b, key));
        compare(value, json_object_get(b, key), tolerance, path);
    }
    assert_int_equal(json_array_size(a), json_array_size(b));
    for (size_t i = 0; i < json_array_size(a); i++) {
        char path[256];
        snprintf(path, sizeof path, "%.200s[%zu]", where, i);
        compare(json_array_get(a, i), json_array_get(b, i), tolerance, path);
    }
}

static inline void same_lines(const char *one, const char *other, const char *file, double tolerance,
                              size_t count) {
    json_t *a = lines_of(one, file), *b = lines_of(other, file);
    assert_int_equal(json_array_size(a), count);
    compare(a, b, tolerance, file);
    json_decref(a);
    json_decref(b);
}

/* The last `count` lines of one run against all lines of a run that went on from a checkpoint. */
static inline void same_last_lines(const char *one, const char *other, const char *file, double tolerance,
                                   size_t count) {
    json_t *a = lines_of(one, file), *b = lines_of(other, file);
    assert_int_equal(json_array_size(b), count);
    assert_true(json_array_size(a) >= count);
    while (json_array_size(a) > count)
        json_array_remove(a, 0);
    compare(a, b, tolerance, file);
    json_decref(a);
    json_decref(b);
}

static inline void same_checkpoint(const char *one, const char *other, size_t step) {
    char path[2][512];
    mbl_ckpt_t *ckpt[2];
    mbl_ckpt_item_t item[2];
    const char *out[2] = {one, other};
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s/checkpoints/step-%06zu.h5", folder, out[i], step);
        assert_int_equal(mbl_ckpt_open(path[i], &ckpt[i]), MBL_OK);
    }
    size_t n = 0;
    for (; mbl_ckpt_item(ckpt[0], n, &item[0]); n++) {
        assert_true(mbl_ckpt_item(ckpt[1], n, &item[1]));
        assert_string_equal(item[0].name, item[1].name);
        assert_int_equal(item[0].count, item[1].count);
        size_t bytes = item[0].count * mbl_dtype_size(item[0].dtype);
        void *data[2] = {malloc(bytes), malloc(bytes)};
        for (int i = 0; i < 2; i++)
            assert_int_equal(mbl_ckpt_read(ckpt[i], item[0].name, item[0].dtype, item[0].count, data[i]),
                             MBL_OK);
        if (memcmp(data[0], data[1], bytes) != 0) {
            print_error("%s of step %zu differs between %s and %s\n", item[0].name, step, one, other);
            fail();
        }
        free(data[0]);
        free(data[1]);
    }
    assert_true(n >= 9);
    mbl_ckpt_close(ckpt[0]);
    mbl_ckpt_close(ckpt[1]);
}

#endif
