/* src/report: the page of a run has the numbers of its files, text stays text, and every tag is closed. */
#include "support.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/image.h"
#include "report/data.h"
#include "report/html.h"
#include "report/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HOSTILE "<b>\"x\" & 'y'</b>"
#define ESCAPED "&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;&lt;/b&gt;"

static char folder[256];

static char *in(const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

/* Two steps an epoch; reward "ocr" rises, the other has no score in the first step. */
static void write_metrics(size_t steps) {
    const size_t alone = steps == 8 ? 8 : 0; /* a step that trains "ocr" alone */
    FILE *out = fopen(in("metrics.jsonl"), "w");
    assert_non_null(out);
    for (size_t i = 1; i <= steps; i++) {
        json_t *line =
            json_pack("{s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:s,s:s}", "step", (int)i, "epoch",
                      (int)((i + 1) / 2), "loss", 1.0 / (double)i, "kl", 0.001 * (double)i, "lr", 1e-4,
                      "grad_norm", 0.5, "old_lag", 0.25, "cos_min", i % 4 || i == alone ? 0.125 : -0.125,
                      "samples_per_s", 8.0, "run", "00000000000000aa", "time", "2026-05-08T09:30:00Z");
        json_object_set_new(line, "reward",
                            json_pack("{s:f,s:o}", "ocr", 0.001 * (double)i, HOSTILE,
                                      i == 1 ? json_null() : json_real(-2.0)));
        json_object_set_new(line, "alpha", json_pack("{s:f,s:f}", "ocr", 0.75, HOSTILE, 0.25));
        json_object_set_new(line, "cos", json_pack("{s:f,s:f}", "ocr", 0.5, HOSTILE, i % 4 ? 0.125 : -0.125));
        if (i == alone)
            json_object_set_new(line, "trained", json_pack("{s:b,s:b}", "ocr", 1, HOSTILE, 0));
        json_object_set_new(line, "valid", json_pack("{s:i,s:i}", "ocr", 24, HOSTILE, 12));
        json_object_set_new(line, "failed", json_pack("{s:i,s:i}", "ocr", 0, HOSTILE, 1));
        json_object_set_new(line, "alarms", json_pack("{s:i,s:i}", "kl_high", 3, "non_finite", 0));
        json_object_set_new(line, "seconds",
                            json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "rollout", 1.0, "reward_wait", 0.5,
                                      "train", 1.25, "gram", 0.125, "qp", 0.125, "checkpoint", 0.0, "total",
                                      3.0));
        json_dumpf(line, out, 0);
        fputc('\n', out);
        json_decref(line);
    }
    fputs("{\"step\": 99, \"cut\": tr", out); /* what a kill leaves */
    fclose(out);
}

static void write_evals(void) {
    FILE *out = fopen(in("eval.jsonl"), "w");
    assert_non_null(out);
    json_t *base =
        json_pack("{s:i,s:{s:{s:f,s:f,s:i},s:{s:f,s:f,s:i}}}", "step", 0, "rewards", "ocr", "mean", 0.375,
                  "ci95", 0.0625, "prompts", 24, HOSTILE, "mean", -2.0, "ci95", 0.5, "prompts", 4);
    json_t *last =
        json_pack("{s:i,s:{s:{s:f,s:f,s:f,s:f,s:i},s:{s:f,s:f,s:f,s:f,s:i}}}", "step", 8, "rewards", "ocr",
                  "mean", 0.5, "ci95", 0.0625, "change", 0.125, "change_ci95", 0.03125, "prompts", 24,
                  HOSTILE, "mean", -2.5, "ci95", 0.5, "change", -0.5, "change_ci95", 0.75, "prompts", 4);
    json_dumpf(base, out, 0);
    fputc('\n', out);
    json_dumpf(last, out, 0);
    fputc('\n', out);
    fclose(out);
    json_decref(base);
    json_decref(last);
}

static void write_sheet(size_t step, double score) {
    char name[64];
    mbl_image_t images[3], sheet;
    mbl_image_cells_t at;
    json_t *list = json_array();
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mbl_image_new(16, 16, &images[i]), MBL_OK);
        json_array_append_new(list, json_pack("{s:s,s:{s:f,s:n}}", "prompt", i == 1 ? HOSTILE : "plain",
                                              "scores", "ocr", score, HOSTILE));
    }
    mbl_image_sheet_cells(images, NULL, "step", 3, 2, 2, &at);
    assert_int_equal(mbl_image_sheet(images, NULL, "step", 3, 2, 2, &sheet), MBL_OK);
    snprintf(name, sizeof name, "samples/step-%06zu.png", step);
    assert_int_equal(mbl_image_write_png(in(name), &sheet), MBL_OK);
    json_t *about = json_pack("{s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I},s:o}", "cells", "columns",
                              (json_int_t)at.columns, "left", (json_int_t)at.left, "top", (json_int_t)at.top,
                              "step_x", (json_int_t)at.step_x, "step_y", (json_int_t)at.step_y, "width",
                              (json_int_t)at.width, "height", (json_int_t)at.height, "images", list);
    snprintf(name, sizeof name, "samples/step-%06zu.json", step);
    assert_int_equal(mbl_json_write(in(name), about), MBL_OK);
    json_decref(about);
    mbl_image_free(&sheet);
    for (size_t i = 0; i < 3; i++)
        mbl_image_free(&images[i]);
}

static int setup(void **state) {
    (void)state;
    static const char yaml[] = "seed: 5\nmodel: {path: gone/" HOSTILE "}\ntrain: {steps: 8, lr: 1.0e-04}\n"
                               "balance: {method: marble}\n";
    temporary_folder(folder);
    assert_int_equal(mkdir(in("samples"), 0777), 0);
    write_whole(in("run.yaml"), yaml, sizeof yaml - 1);
    write_metrics(8);
    write_evals();
    write_sheet(0, 0.25);
    write_sheet(4, 0.5);
    write_sheet(8, 0.75);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static char *report(const char *out) {
    char path[512];
    assert_int_equal(mbl_report_write(folder, out, path, sizeof path), MBL_OK);
    return read_whole(path, NULL);
}

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

static void must_have(const char *page, const char *part) {
    if (!strstr(page, part))
        fail_msg("the page has no \"%s\"", part);
}

/* Whether elements nest, as the void ones and those closed at once do not. */
static void check_nesting(const char *page) {
    static const char *const alone[] = {"meta", "img", "!doctype"};
    char open[64][16];
    size_t depth = 0;
    for (const char *at = strchr(page, '<'); at; at = strchr(at + 1, '<')) {
        char name[16];
        const char *end = strchr(at, '>');
        bool closes = at[1] == '/', single = end[-1] == '/';
        assert_non_null(end);
        assert_int_equal(sscanf(at + 1 + closes, "%15[!a-z0-9]", name), 1);
        for (size_t i = 0; i < sizeof alone / sizeof *alone; i++)
            single |= strcmp(name, alone[i]) == 0;
        if (closes) {
            if (depth == 0 || strcmp(open[depth - 1], name) != 0)
                fail_msg("</%s> at \"%.60s\" closes %s", name, at, depth ? open[depth - 1] : "nothing");
            depth--;
        } else if (!single) {
            assert_true(depth < 64);
            snprintf(open[depth++], sizeof open[0], "%s", name);
        }
    }
    assert_int_equal(depth, 0);
}

static void numbers_of_the_files(void **state) {
    (void)state;
    char *page = report(NULL);
    static const char *const parts[] = {"0.3750 <small>&#177; 0.0625",
                                        "0.5000 <small>&#177; 0.0625",
                                        "+0.1250 <small>&#177; 0.0312",
                                        ">better</td>",
                                        ">no clear change*</td>",
                                        "<b>1 of 2</b>",              /* rewards better */
                                        "<b>1 of 8</b>",              /* steps against one that they train, */
                                        "+0.062</td><td>1</td></tr>", /* which is this */
                                        "<b>192</b>", /* images: 8 steps of 3 s at 8 a second */
                                        "<b>24.0 s</b>",
                                        "training 10.0 s (41.7 %)",
                                        "rollout and scoring 12.0 s (50.0 %)",
                                        "<dd>144, and 4 that failed", /* scores of four epochs */
                                        "kl_high</dt><dd>3 steps",
                                        "<dt>train.lr</dt><dd>1.0e-04",
                                        "00000000000000aa",
                                        "ocr 0.25 &#8594; <span class=\"better\">0.75"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        must_have(page, parts[i]);
    assert_null(strstr(page, "non_finite</dt>"));
    free(page);
}

static void text_stays_text(void **state) {
    (void)state;
    char *page = report(NULL);
    check_nesting(page);
    assert_null(strstr(page, HOSTILE));
    must_have(page, "<p>" ESCAPED "</p>");              /* a prompt */
    must_have(page, "</span></span>" ESCAPED "</td>");  /* a reward */
    must_have(page, "aria-label=\"" ESCAPED "\"");      /* in an attribute */
    must_have(page, "model: {path: gone/" ESCAPED "}"); /* in run.yaml */
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "http")); /* nothing is loaded */
    free(page);
}

/* The third image is the first of the second row; all are shown at 140 pixels, those of a cell have 32. */
static void images_are_cut_from_the_sheets(void **state) {
    (void)state;
    char *page = report(NULL), part[200];
    mbl_image_cells_t at;
    mbl_image_t image = {16, 16, NULL}, images[3] = {image, image, image};
    mbl_image_sheet_cells(images, NULL, "step", 3, 2, 2, &at);
    assert_int_equal(count(page, "class=\"image before\""), 3);
    assert_int_equal(count(page, "class=\"image after\""), 3);
    assert_int_equal(count(page, "data:image/png;base64,iVBOR"), 2);
    snprintf(part, sizeof part, "background-position:-%.1fpx -%.1fpx", 4.375 * (double)at.left,
             4.375 * (double)(at.top + at.step_y));
    assert_int_equal(count(page, part), 2);
    must_have(page, "left step 0, right step 8");
    free(page);
    assert_int_equal(remove(in("samples/step-000000.json")), 0); /* a run of an older version */
    page = report(NULL);
    check_nesting(page);
    assert_int_equal(count(page, "<img "), 2);
    free(page);
}

static void charts_are_written_too(void **state) {
    (void)state;
    static const char *const names[] = {"report/rewards.png", "report/alpha.png", "report/cosines.png"};
    char *page = report(in("elsewhere.html"));
    mbl_image_t image;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mbl_image_read_png(in(names[i]), &image), MBL_OK);
        assert_true(image.width >= 800 && image.height >= 400);
        mbl_image_free(&image);
    }
    free(page);
}

/* Ten thousand steps: the page stays small, and its curves have the values of the lines. */
static void a_long_run(void **state) {
    (void)state;
    write_metrics(10000);
    char *page = report(NULL);
    check_nesting(page);
    assert_true(strlen(page) < 400000);
    must_have(page, "<b>2500 of 10000</b>");
    free(page);
}

/* Values that differ in their last bits only, as means of equal ones do: an axis of such a width has no ticks
 * to walk along. */
static void a_curve_without_height(void **state) {
    (void)state;
    const double x[] = {1, 2, 3}, y[] = {0.1, 0.1 + 1e-17, nextafter(0.1, 1)},
                 large[] = {3e9, 3e9, nextafter(3e9, 4e9)};
    const double *const all[] = {y, large};
    for (size_t i = 0; i < 2; i++) {
        mbl_svg_series_t series = {.x = x, .y = all[i], .n = 3};
        mbl_svg_chart_t chart = {
            .title = "flat", .width = 300, .height = 200, .x0 = 1, .x1 = 3, .y0 = NAN, .y1 = NAN};
        char *text;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        mbl_svg_chart(out, &chart, &series, 1);
        fclose(out);
        assert_true(size < 3000);
        assert_true(count(text, "class=\"end\"") >= 2);
        free(text);
    }
}

/* Sums and ranges that overflow draw outside of the chart; SVG has no word for them. */
static void numbers_beyond_all_charts(void **state) {
    (void)state;
    const double x[] = {1, 2, 3}, y[] = {1e308, -1e308, 1.5e308};
    mbl_svg_series_t two[] = {{.x = x, .y = y, .n = 3}, {.x = x, .y = y, .n = 3}};
    for (int stacked = 0; stacked < 2; stacked++) {
        mbl_svg_chart_t chart = {.title = "far",
                                 .width = 300,
                                 .height = 200,
                                 .x0 = 1,
                                 .x1 = 3,
                                 .y0 = NAN,
                                 .y1 = NAN,
                                 .stacked = stacked};
        char *text;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        mbl_svg_chart(out, &chart, two, 2);
        fclose(out);
        assert_null(strstr(text, "inf"));
        assert_null(strstr(text, "nan"));
        free(text);
    }
}

static void curves(void **state) {
    (void)state;
    double x[100], y[100], smooth[100];
    for (size_t i = 0; i < 100; i++) {
        x[i] = (double)i;
        y[i] = i == 50 ? NAN : (double)(2 * i);
    }
    mbl_svg_smooth(y, 100, smooth);
    assert_near(smooth[20], 40, 1e-12); /* a straight line stays */
    assert_true(isfinite(smooth[50]));
    assert_int_equal(mbl_svg_shorten(x, y, 100, 25), 25);
    assert_near(y[1], 2 * (4 + 5 + 6 + 7) / 4.0, 1e-12);
    assert_near(x[1], 5.5, 1e-12);
    assert_near(y[12], 2 * (48 + 49 + 51) / 3.0, 1e-12);
    assert_int_equal(mbl_svg_shorten(x, y, 10, 25), 10);
}

static void folders_without_a_run(void **state) {
    (void)state;
    mbl_fail_quiet(1);
    assert_failed(mbl_report_write("/nowhere", NULL, NULL, 0), MBL_ERR_USAGE, "holds no run to report on");
    write_whole(in("metrics.jsonl"), "{\"step\": 1, \"loss\": 2}\n", 24);
    assert_failed(mbl_report_write(folder, NULL, NULL, 0), MBL_ERR_USAGE, "marble train");
    mbl_fail_quiet(0);
}

/* No evaluation, no samples, no run.yaml that can be read. */
static void a_run_that_has_just_begun(void **state) {
    (void)state;
    write_metrics(1);
    assert_int_equal(remove(in("eval.jsonl")), 0);
    write_whole(in("run.yaml"), "train: [", 8);
    remove_folder(in("samples"));
    char *page = report(NULL);
    check_nesting(page);
    assert_null(strstr(page, "<h2>Samples"));
    must_have(page, "train: [");
    free(page);
}

static void survives_missing_memory(void **state) {
    (void)state;
    mbl_log_set_level(MBL_LOG_OFF);
    size_t live = mbl_mem_live();
    mbl_status_t status = MBL_ERR_MEM;
    for (size_t n = 1; status != MBL_OK; n++) {
        mbl_mem_fail_at(n);
        status = mbl_report_write(folder, NULL, NULL, 0);
        assert_int_equal(mbl_mem_live(), live);
        if (n >= 1000 || (status == MBL_OK && n < 20))
            fail_msg("allocation %zu: status %d", n, status);
    }
    mbl_mem_fail_at(0);
    mbl_log_set_level(MBL_LOG_INFO);
    assert_int_equal(status, MBL_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_of_the_files, setup, teardown),
        cmocka_unit_test_setup_teardown(text_stays_text, setup, teardown),
        cmocka_unit_test_setup_teardown(images_are_cut_from_the_sheets, setup, teardown),
        cmocka_unit_test_setup_teardown(charts_are_written_too, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_run, setup, teardown),
        cmocka_unit_test(curves),
        cmocka_unit_test(a_curve_without_height),
        cmocka_unit_test(numbers_beyond_all_charts),
        cmocka_unit_test_setup_teardown(folders_without_a_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_run_that_has_just_begun, setup, teardown),
        cmocka_unit_test_setup_teardown(survives_missing_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
