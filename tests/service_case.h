/* The folder of a run as the service's tests see it: written by hand, with lines like marble's own. */
#ifndef MBL_TESTS_SERVICE_CASE_H
#define MBL_TESTS_SERVICE_CASE_H

#include "support.h"

#include "io/tar.h"
#include "service/api.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A line of metrics.jsonl of two rewards, without its end. */
static inline char *metrics_line(char *out, size_t size, int step) {
    snprintf(out, size,
             "{\"step\": %d, \"epoch\": %d, \"loss\": %.3f, \"lr\": 0.0005, \"cos_min\": null, "
             "\"reward\": {\"ocr\": %.4f, \"jpeg\": null}, \"valid\": {\"ocr\": 24, \"jpeg\": 48}, "
             "\"na\": {\"ocr\": 24, \"jpeg\": 0}, \"failed\": {\"ocr\": 0, \"jpeg\": 1}, "
             "\"alarms\": {\"old_drift\": %d, \"no_score\": 0}, \"time\": \"2026-05-08T09:30:00Z\", "
             "\"seconds\": {\"rollout\": 1.5, \"total\": 2.5}, \"run\": \"3a78b7c709194b32\"}",
             step, step, 1.0 / step, 0.25 + 0.001 * step, step / 4);
    return out;
}

static inline void append_text(const char *folder, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static inline void append_metrics(const char *folder, int first, int last) {
    char line[1024];
    for (int step = first; step <= last; step++) {
        append_text(folder, "metrics.jsonl", metrics_line(line, sizeof line, step));
        append_text(folder, "metrics.jsonl", "\n");
    }
}

/* An archive of two images, one a PNG and one a JPEG by their names. */
static inline void write_images(const char *folder, const char *name, int step) {
    static const char meta[] = "{\"step\": %d, \"prompt\": \"a <b>sign</b> & \\\"%d\\\"\", \"scores\": "
                               "{\"ocr\": 0.5, \"jpeg\": null}, \"advantages\": {\"ocr\": -1.25}}";
    char path[600], text[400];
    mbl_file_writer_t writer;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mbl_file_begin(path, &writer), MBL_OK);
    for (int i = 0; i < 2; i++) {
        char entry[32];
        int n = snprintf(text, sizeof text, meta, step, i);
        snprintf(entry, sizeof entry, "%06d.%s", i, i ? "jpg" : "png");
        assert_int_equal(mbl_tar_put(&writer, entry, i ? "JPEGbytes" : "PNGbytes!!", i ? 9 : 10), MBL_OK);
        snprintf(entry, sizeof entry, "%06d.json", i);
        assert_int_equal(mbl_tar_put(&writer, entry, text, (size_t)n), MBL_OK);
    }
    assert_int_equal(mbl_tar_end(&writer), MBL_OK);
    assert_int_equal(mbl_file_commit(&writer), MBL_OK);
}

/* folder/NAME with five steps of ten, an evaluation, a sheet and its images. */
static inline void make_run(const char *folder, const char *name, char *out, size_t size) {
    static const char yaml[] =
        "# run: 3a78b7c709194b32\nseed: 42\ndevice: \"cpu\"\nmodel: {path: \"/models/x\", lora: {alpha: "
        "32}}\n"
        "train: {steps: 10, lr: 0.0005, beta: 1.0e-01}\nbalance: {shrink: \"off\", floor: -0}\n"
        "rewards:\n  - {name: \"ocr\", type: ocr, weight: 1, on_failure: skip}\n"
        "  - {name: \"jpeg\", type: remote, weight: 2.5, min: -1, monitor: true, "
        "options: {url: \"http://me:secret@host:80/v2\"}}\n";
    char path[600];
    snprintf(out, size, "%s/%s", folder, name);
    assert_int_equal(mkdir(out, 0755), 0);
    snprintf(path, sizeof path, "%s/samples", out);
    assert_int_equal(mkdir(path, 0755), 0);
    append_text(out, "run.yaml", yaml);
    append_metrics(out, 1, 5);
    append_text(out, "eval.jsonl",
                "{\"step\": 0, \"rewards\": {\"ocr\": {\"mean\": 0.375, \"ci95\": 0.1}, \"jpeg\": {\"mean\": "
                "null}}}\n{\"step\": 4, \"rewards\": {\"ocr\": {\"mean\": 0.5, \"ci95\": null}}}\n");
    append_text(out, "gram.jsonl",
                "{\"step\": 1, \"rewards\": [\"ocr\", \"jpeg\"], \"norm\": [1.5, 0.5], \"cos\": "
                "[[1.0, -0.25], [-0.25, 1.0]]}\n");
    append_text(out, "advantages.jsonl",
                "{\"step\": 1, \"prompt\": [3, 3], \"advantage\": {\"ocr\": [1.0, -1.0]}}\n"
                "{\"step\": 5, \"prompt\": [7, 7], \"advantage\": {\"ocr\": [0.5, null]}}\n");
    append_text(out, "log.txt", "first\nsecond with http://u:p@h/x\nthird <script>\n");
    append_text(out, "samples/step-000004.png", "PNG sheet");
    append_text(
        out, "samples/step-000004.json",
        "{\"cells\": {\"columns\": 8}, \"images\": [{\"prompt\": \"one\", \"scores\": {\"ocr\": 0.5}}, "
        "{\"prompt\": \"two\", \"scores\": {}}]}");
    write_images(out, "rollout.tar", 5);
}

/* The answer's bytes, read `room` at a time, with a 0 behind them; its code in *code. Free with free(). */
static inline char *fetch_answer(mbl_api_t *api, const char *path, const char *query, size_t room, int *code,
                                 size_t *size) {
    mbl_answer_t answer;
    assert_int_equal(mbl_api_get(api, path, query, &answer), MBL_OK);
    char *all = malloc(answer.size + room + 1);
    size_t done = 0, n = 1;
    assert_non_null(all);
    while (n > 0) {
        assert_int_equal(mbl_answer_read(&answer, all + done, room, &n), MBL_OK);
        done += n;
        assert_true(done <= answer.size);
    }
    assert_int_equal(done, answer.size);
    all[done] = 0;
    *code = answer.code;
    if (size)
        *size = done;
    mbl_answer_free(&answer);
    return all;
}

/* The same as JSON; fails unless it has that code. */
static inline json_t *fetch_json(mbl_api_t *api, const char *path, const char *query, int expected) {
    int code;
    char *text = fetch_answer(api, path, query, 4096, &code, NULL);
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json || code != expected) {
        print_error("%s?%s: %d, expected %d: %s\n%s\n", path, query, code, expected, text,
                    json ? "" : error.text);
        fail();
    }
    free(text);
    return json;
}

#endif
