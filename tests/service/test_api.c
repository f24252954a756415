/* src/service/api.c and what it answers by: every path of proto/openapi-service.yaml, from a folder that
 * grows, is cut back and goes away; hostile requests and folders. */
#include "service_case.h"

#include "base/mem.h"
#include "service/page.h"

#include <unistd.h>

static char folder[256], run[512], other[512];
static mbl_api_t api;

static int make(void **state) {
    (void)state;
    temporary_folder(folder);
    make_run(folder, "first", run, sizeof run);
    make_run(folder, "se\"co\\nd", other, sizeof other);
    const char *const both[] = {run, other};
    return mbl_api_open(both, 2, &api) != MBL_OK;
}

static int drop(void **state) {
    (void)state;
    mbl_api_close(&api);
    remove_folder(folder);
    return 0;
}

static json_int_t whole(const json_t *json, const char *key) {
    return json_integer_value(json_object_get(json, key));
}

static const char *text_of(const json_t *json, const char *key) {
    return json_string_value(json_object_get(json, key));
}

static void status_is_that_of_the_files(void **state) {
    (void)state;
    json_t *status = fetch_json(&api, "/api/status", "", 200), *rewards = json_object_get(status, "rewards");
    assert_int_equal(whole(status, "step"), 5);
    assert_int_equal(whole(status, "steps"), 10);
    assert_string_equal(text_of(status, "state"), "ended"); /* nobody works there */
    assert_string_equal(text_of(status, "id"), "3a78b7c709194b32");
    assert_string_equal(text_of(status, "name"), "first");
    assert_near(json_number_value(json_object_get(status, "seconds_per_step")), 2.5, 1e-12);
    assert_true(json_is_null(json_object_get(status, "seconds_left"))); /* of none that is over */
    assert_int_equal(json_array_size(rewards), 2);
    assert_near(json_number_value(json_object_get(json_array_get(rewards, 1), "weight")), 2.5, 0);
    assert_true(json_is_true(json_object_get(json_array_get(rewards, 1), "monitor")));
    assert_int_equal(whole(json_object_get(status, "lines"), "samples"), 1);
    json_decref(status);
    json_t *runs = fetch_json(&api, "/api/runs", "", 200), *second = json_object_get(runs, "runs");
    assert_int_equal(json_array_size(second), 2);
    assert_string_equal(text_of(json_array_get(second, 1), "name"), "se\"co\\nd");
    json_decref(runs);
}

static void a_live_run_adds_what_it_knows(void **state) {
    (void)state;
    api.facts = (mbl_api_facts_t){.live = true, .phase = MBL_PHASE_PAUSED, .ranks = 2, .control = true};
    json_t *status = fetch_json(&api, "/api/status", "run=0", 200), *phase = json_object_get(status, "phase");
    assert_string_equal(text_of(status, "state"), "paused");
    assert_string_equal(text_of(phase, "name"), "paused");
    assert_near(json_number_value(json_object_get(status, "seconds_left")), 12.5, 1e-9);
    assert_int_equal(whole(status, "ranks"), 2);
    json_decref(status);
    status = fetch_json(&api, "/api/status", "run=1", 200);
    assert_true(json_is_null(json_object_get(status, "phase")));
    assert_true(json_is_false(json_object_get(json_object_get(status, "control"), "allowed")));
    json_decref(status);
    api.facts = (mbl_api_facts_t){.live = false};
}

/* The steps of an answer, as a text. */
static void expect_steps(const char *path, const char *query, const char *expected, json_int_t next,
                         json_int_t total) {
    char text[200] = "";
    json_t *answer = fetch_json(&api, path, query, 200), *lines = json_object_get(answer, "lines");
    for (size_t i = 0, used = 0; i < json_array_size(lines); i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld", i ? " " : "",
                                 (long long)whole(json_array_get(lines, i), "step"));
    if (strcmp(text, expected) != 0 || whole(answer, "next") != next || whole(answer, "total") != total) {
        print_error("%s?%s: steps \"%s\", next %lld, total %lld; expected \"%s\", %lld, %lld\n", path, query,
                    text, (long long)whole(answer, "next"), (long long)whole(answer, "total"), expected,
                    (long long)next, (long long)total);
        fail();
    }
    json_decref(answer);
}

static void lines_by_their_steps(void **state) {
    (void)state;
    expect_steps("/api/metrics", "", "1 2 3 4 5", 6, 5);
    expect_steps("/api/metrics", "from=3", "3 4 5", 6, 3);
    expect_steps("/api/metrics", "from=2&to=3", "2 3", 4, 2);
    expect_steps("/api/metrics", "from=6", "", 6, 0);
    expect_steps("/api/metrics", "from=9&to=2", "", 9, 0);
    expect_steps("/api/metrics", "points=2", "2 5", 6, 5);
    expect_steps("/api/metrics", "points=1", "5", 6, 5);
    expect_steps("/api/metrics", "points=100&run=1", "1 2 3 4 5", 6, 5);
    expect_steps("/api/eval", "", "0 4", 5, 2);
    expect_steps("/api/gram", "", "1", 2, 1);
    int code;
    char line[1024], *text = fetch_answer(&api, "/api/metrics", "from=2&to=2", 7, &code, NULL), all[1200];
    snprintf(all, sizeof all, "{\"run\":0,\"next\":3,\"total\":1,\"lines\":[%s]}",
             metrics_line(line, sizeof line, 2)); /* as it is in the file, in pieces of any size */
    assert_string_equal(text, all);
    free(text);
}

static void pieces_of_any_size_are_the_same(void **state) {
    (void)state;
    int code;
    char *expected = fetch_answer(&api, "/api/metrics", "", 1 << 16, &code, NULL);
    for (size_t room = 1; room < 70; room++) {
        char *text = fetch_answer(&api, "/api/metrics", "", room, &code, NULL);
        assert_string_equal(text, expected);
        free(text);
    }
    free(expected);
}

static void advantages_and_images(void **state) {
    (void)state;
    int code;
    json_t *answer = fetch_json(&api, "/api/advantages", "", 200), *line = json_object_get(answer, "line");
    assert_int_equal(whole(line, "step"), 5);
    assert_int_equal(json_array_size(json_object_get(answer, "steps")), 2);
    json_decref(answer);
    answer = fetch_json(&api, "/api/advantages", "step=4", 200);
    assert_int_equal(whole(json_object_get(answer, "line"), "step"), 1);
    json_decref(answer);
    answer = fetch_json(&api, "/api/advantages", "step=0", 200);
    assert_true(json_is_null(json_object_get(answer, "line")));
    json_decref(answer);
    answer = fetch_json(&api, "/api/rollout", "", 200);
    json_t *image = json_array_get(json_object_get(answer, "images"), 1);
    assert_int_equal(whole(answer, "step"), 5);
    assert_string_equal(text_of(image, "prompt"), "a <b>sign</b> & \"1\"");
    assert_near(json_number_value(json_object_get(json_object_get(image, "advantages"), "ocr")), -1.25, 0);
    json_decref(answer);
    answer = fetch_json(&api, "/api/samples", "", 200);
    json_t *sheet = json_array_get(json_object_get(answer, "samples"), 0);
    assert_string_equal(text_of(sheet, "id"), "000004");
    assert_true(json_is_true(json_object_get(sheet, "images")));
    assert_int_equal(whole(sheet, "bytes"), 9);
    json_decref(answer);
    answer = fetch_json(&api, "/api/samples/000004", "", 200);
    assert_int_equal(json_array_size(json_object_get(answer, "images")), 2);
    json_decref(answer);
    static const struct {
        const char *path, *text;
    } images[] = {{"/api/samples/000004.png", "PNG sheet"},
                  {"/api/rollout/0", "PNGbytes!!"},
                  {"/api/rollout/1", "JPEGbytes"}};
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        char *text = fetch_answer(&api, images[i].path, "", 3, &code, NULL);
        assert_int_equal(code, 200);
        assert_string_equal(text, images[i].text);
        free(text);
    }
}

/* A sheet whose images are known by the file beside it; one that does not say all of it is as good as none.
 */
static void sheets_and_what_is_on_them(void **state) {
    static const char about[] =
        "{\"cells\": {\"columns\": 8, \"left\": 8, \"top\": 8, \"step_x\": 136, \"step_y\": 210, \"width\": "
        "128, "
        "\"height\": 128}, \"images\": [{\"prompt\": \"<i>one</i>\", \"scores\": {\"ocr\": null}}, "
        "{\"prompt\": \"two\", \"scores\": {\"ocr\": 0.5}}], \"step\": 3}";
    (void)state;
    append_text(run, "samples/step-000003.json", about);
    append_text(run, "samples/step-000002.json", "{\"images\": [{\"prompt\": \"two\"}], \"cells\": {}}");
    json_t *answer = fetch_json(&api, "/api/samples/000003", "", 200);
    assert_int_equal(whole(answer, "step"), 3);
    assert_int_equal(whole(json_object_get(answer, "cells"), "step_y"), 210);
    json_t *images = json_object_get(answer, "images");
    assert_int_equal(json_array_size(images), 2);
    assert_string_equal(text_of(json_array_get(images, 0), "prompt"), "<i>one</i>");
    assert_int_equal(whole(json_array_get(images, 1), "index"), 1);
    json_decref(answer);
    json_decref(fetch_json(&api, "/api/samples/000003/0", "", 404));
    json_decref(fetch_json(&api, "/api/samples/000002", "", 404));
    json_decref(fetch_json(&api, "/api/samples/000001", "", 404));
}

static void config_alarms_scorers_log(void **state) {
    (void)state;
    json_t *answer = fetch_json(&api, "/api/config", "", 200), *values = json_object_get(answer, "values");
    assert_null(strstr(text_of(answer, "yaml"), "secret")); /* of a URL */
    assert_non_null(strstr(text_of(answer, "yaml"), "@host:80/v2"));
    const json_t *train = json_object_get(values, "train");
    assert_near(json_number_value(json_object_get(train, "beta")), 0.1, 0);
    assert_int_equal(whole(train, "steps"), 10);
    assert_string_equal(text_of(json_object_get(values, "balance"), "shrink"), "off");
    json_decref(answer);
    answer = fetch_json(&api, "/api/alarms", "", 200);
    const json_t *events = json_object_get(answer, "events");
    assert_int_equal(json_array_size(events), 1);
    assert_int_equal(whole(json_array_get(events, 0), "step"), 4);
    assert_int_equal(whole(json_object_get(answer, "counts"), "old_drift"), 1);
    json_decref(answer);
    answer = fetch_json(&api, "/api/scorers", "", 200);
    const json_t *ocr = json_array_get(json_object_get(answer, "scorers"), 0);
    assert_string_equal(text_of(ocr, "name"), "ocr");
    assert_int_equal(whole(ocr, "valid"), 5 * 24);
    assert_int_equal(whole(json_array_get(json_object_get(answer, "scorers"), 1), "failed"), 5);
    json_decref(answer);
    answer = fetch_json(&api, "/api/log", "lines=2", 200);
    const json_t *lines = json_object_get(answer, "lines");
    assert_int_equal(json_array_size(lines), 2);
    assert_string_equal(json_string_value(json_array_get(lines, 0)), "second with http://***@h/x");
    assert_string_equal(json_string_value(json_array_get(lines, 1)), "third <script>");
    json_decref(answer);
}

static void prometheus_text(void **state) {
    (void)state;
    int code;
    char *text = fetch_answer(&api, "/metrics", "", 4096, &code, NULL);
    assert_non_null(strstr(text, "\nmarble_reward{run=\"first\",reward=\"ocr\"} 0.255\n"));
    assert_non_null(strstr(text, "marble_step{run=\"se\\\"co\\\\nd\"} 5\n"));
    assert_non_null(strstr(text, "marble_scores_failed_total{run=\"first\",reward=\"jpeg\"} 5\n"));
    assert_non_null(strstr(text, "marble_state{run=\"first\",state=\"ended\"} 1\n"));
    assert_null(strstr(text, "marble_cos_min{")); /* null in the line */
    free(text);
}

static void the_page(void **state) {
    int code;
    size_t size;
    (void)state;
    char *text = fetch_answer(&api, "/", "", 4096, &code, &size);
    assert_int_equal(code, 200);
    assert_int_equal(size, mbl_page_size);
    assert_int_equal(memcmp(text, mbl_page, size), 0);
    free(text);
}

/* Everything is answered with a fault of 400 or 404 in JSON. */
static void hostile_requests(void **state) {
    static const struct {
        const char *path, *query;
        int code;
    } cases[] = {
        {"", "", 404},
        {"/api", "", 404},
        {"/api/status/", "", 404},
        {"/api/status", "run=2", 404},
        {"/api/status", "run=1001", 400},
        {"/api/status", "run=-1", 400},
        {"/api/status", "run=", 400},
        {"/api/status", "run", 400},
        {"/api/status", "run=0&run=0", 400},
        {"/api/status", "runn=0", 400},
        {"/api/status", "&", 400},
        {"/api/status", "=", 400},
        {"/api/status", "run=00000000000000000000000", 400},
        {"/api/metrics", "from=9007199254740992", 400},
        {"/api/metrics", "points=0", 400},
        {"/api/metrics", "from=1e3", 400},
        {"/api/metrics", "from=\xff\xfe", 400},
        {"/healthz", "x=1", 400},
        {"/api/samples/000004.tar", "", 404},
        {"/api/samples/4.png", "", 404},
        {"/api/samples/000005.png", "", 404},
        {"/api/samples/000004.png/", "", 404},
        {"/api/samples/000004/", "", 404},
        {"/api/samples/000004/2", "", 404},
        {"/api/samples/000004.json", "", 404},
        {"/api/samples/000004/0/0", "", 404},
        {"/api/samples/../run.yaml", "", 404},
        {"/api/samples/../../../etc/passwd", "", 404},
        {"/api/samples//000004.png", "", 404},
        {"/api/samples/9999999999999999999999.png", "", 404},
        {"/api/rollout/", "", 404},
        {"/api/rollout/-1", "", 404},
        {"/api/rollout/0x0", "", 404},
        {"/api/rollout/1", "run=7", 404},
        {"/run.yaml", "", 404},
        {"/service.json", "", 404},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *answer = fetch_json(&api, cases[i].path, cases[i].query, cases[i].code);
        assert_true(json_is_string(json_object_get(answer, "error")));
        json_decref(answer);
    }
}

static void a_run_goes_on_and_goes_back(void **state) {
    char path[600], line[1024], text[1200];
    (void)state;
    uint64_t before = api.views[1].metrics.generation;
    append_metrics(other, 6, 7);
    append_text(other, "metrics.jsonl", "{\"step\": 8, \"epo"); /* not whole yet */
    expect_steps("/api/metrics", "run=1&from=5", "5 6 7", 8, 3);
    append_text(other, "metrics.jsonl", "ch\": 8}\n[1, 2]\nnonsense\n{\"no\": \"step\"}\n");
    expect_steps("/api/metrics", "run=1&from=5", "5 6 7 8", 9, 4);
    assert_int_equal(api.views[1].metrics.generation, before);
    /* resumed from step 2: the shorter file takes the place of the old one, and goes on otherwise */
    snprintf(path, sizeof path, "%s/metrics.jsonl", other);
    assert_int_equal(unlink(path), 0);
    append_metrics(other, 1, 2);
    expect_steps("/api/metrics", "run=1", "1 2", 3, 2);
    assert_int_equal(api.views[1].metrics.generation, before + 1);
    /* cut in place and grown beyond where it was */
    snprintf(text, sizeof text, "%s\n", metrics_line(line, sizeof line, 1));
    write_whole(path, text, strlen(text));
    append_text(other, "metrics.jsonl", "{\"step\": 3, \"other\": 1}\n");
    append_metrics(other, 4, 6);
    expect_steps("/api/metrics", "run=1", "1 3 4 5 6", 7, 5);
    assert_int_equal(api.views[1].metrics.generation, before + 2);
    json_t *answer = fetch_json(&api, "/api/scorers", "run=1", 200); /* counted anew */
    assert_int_equal(whole(json_array_get(json_object_get(answer, "scorers"), 0), "valid"), 4 * 24);
    json_decref(answer);
    assert_int_equal(unlink(path), 0);
    expect_steps("/api/metrics", "run=1", "", 0, 0);
}

/* As `train --overwrite` leaves it: the folder that was opened is gone, another one has its name. */
static void another_folder_in_its_place(void **state) {
    char old[600], path[700];
    uint64_t before = api.views[1].metrics.generation;
    (void)state;
    append_metrics(other, 1, 3);
    expect_steps("/api/metrics", "run=1", "1 2 3", 4, 3);
    snprintf(old, sizeof old, "%s-old", other);
    assert_int_equal(rename(other, old), 0);
    expect_steps("/api/metrics", "run=1", "1 2 3", 4, 3); /* until there is another */
    assert_int_equal(symlink(folder, other), 0);          /* a link is none */
    expect_steps("/api/metrics", "run=1", "1 2 3", 4, 3);
    assert_int_equal(unlink(other), 0);
    snprintf(path, sizeof path, "%s/metrics.jsonl", old);
    assert_int_equal(mkdir(other, 0777), 0);
    append_metrics(other, 1, 2);
    expect_steps("/api/metrics", "run=1", "1 2", 3, 2);
    assert_int_equal(api.views[1].metrics.generation, before + 1);
    json_t *answer = fetch_json(&api, "/api/samples", "run=1", 200);
    assert_int_equal(json_array_size(json_object_get(answer, "samples")), 0);
    json_decref(answer);
    answer = fetch_json(&api, "/api/config", "run=1", 200); /* no run.yaml: none, and no fault */
    assert_string_equal(text_of(answer, "yaml"), "");
    assert_true(json_is_null(json_object_get(answer, "values")));
    json_decref(answer);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/metrics.jsonl", other);
    assert_int_equal(unlink(path), 0);
    expect_steps("/api/metrics", "run=1", "", 0, 0);
    assert_int_equal(rmdir(other), 0);
    assert_int_equal(rename(old, other), 0);
    expect_steps("/api/metrics", "run=1", "", 0, 0);
}

/* An answer under way ends when its file is cut, and does not send other bytes. */
static void a_file_cut_amid_an_answer(void **state) {
    char path[600], piece[64];
    size_t n;
    mbl_answer_t answer;
    (void)state;
    append_metrics(other, 1, 3);
    assert_int_equal(mbl_api_get(&api, "/api/metrics", "run=1", &answer), MBL_OK);
    assert_int_equal(mbl_answer_read(&answer, piece, sizeof piece, &n), MBL_OK);
    snprintf(path, sizeof path, "%s/metrics.jsonl", other);
    assert_int_equal(truncate(path, 10), 0);
    mbl_status_t status = MBL_OK;
    while (status == MBL_OK && n > 0)
        status = mbl_answer_read(&answer, piece, sizeof piece, &n);
    assert_int_equal(status, MBL_ERR_IO);
    mbl_answer_free(&answer);
}

static void links_lead_nowhere(void **state) {
    char path[600], outside[600], name[640];
    (void)state;
    snprintf(outside, sizeof outside, "%s/outside.png", folder);
    write_whole(outside, "secret", 6);
    snprintf(path, sizeof path, "%s/samples/step-000006.png", run);
    assert_int_equal(symlink(outside, path), 0);
    json_decref(fetch_json(&api, "/api/samples/000006.png", "", 404));
    json_t *answer = fetch_json(&api, "/api/samples", "", 200);
    assert_int_equal(json_array_size(json_object_get(answer, "samples")), 1);
    json_decref(answer);
    assert_int_equal(unlink(path), 0);
    snprintf(name, sizeof name, "%s/log.txt", run);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(symlink(outside, name), 0);
    answer = fetch_json(&api, "/api/log", "", 200);
    assert_int_equal(json_array_size(json_object_get(answer, "lines")), 0);
    json_decref(answer);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(mkfifo(name, 0600), 0); /* which would wait for a writer */
    json_decref(fetch_json(&api, "/api/log", "", 200));
}

static void a_damaged_archive_is_passed_over(void **state) {
    char path[600];
    size_t size;
    (void)state;
    snprintf(path, sizeof path, "%s/rollout.tar", run);
    char *bytes = read_whole(path, &size);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (size_t at = 0; at < size; at += 3) {
        char other_byte = (char)~bytes[at];
        assert_int_equal(pwrite(fileno(file), &other_byte, 1, (off_t)at), 1);
        json_decref(fetch_json(&api, "/api/rollout", "", 200));
        assert_int_equal(pwrite(fileno(file), bytes + at, 1, (off_t)at), 1);
    }
    for (size_t cut = size / 100; cut > 0; cut--) {
        int code;
        assert_int_equal(ftruncate(fileno(file), (off_t)(100 * cut)), 0);
        json_decref(fetch_json(&api, "/api/rollout", "", 200));
        char *image = fetch_answer(&api, "/api/rollout/1", "", 64, &code, NULL);
        assert_true(code == 404 || strcmp(image, "JPEGbytes") == 0);
        free(image);
    }
    fclose(file);
    free(bytes);
}

static void no_memory_is_no_crash(void **state) {
    static const char *const paths[] = {"/api/status",     "/api/metrics",  "/api/samples/000004",
                                        "/api/config",     "/metrics",      "/api/log",
                                        "/api/advantages", "/api/rollout/0"};
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        for (size_t n = 1; n < 200; n++) {
            mbl_answer_t answer;
            size_t before = mbl_mem_count();
            mbl_mem_fail_at(n);
            mbl_fail_quiet(1);
            mbl_status_t status = mbl_api_get(&api, paths[i], "", &answer);
            mbl_fail_quiet(0);
            mbl_mem_fail_at(0);
            if (status == MBL_OK)
                mbl_answer_free(&answer);
            else
                assert_int_equal(status, MBL_ERR_MEM);
            if (mbl_mem_count() - before < n)
                break;
        }
}

static void a_folder_that_is_none(void **state) {
    mbl_api_t none;
    const char *path = "/nonexistent/run";
    (void)state;
    assert_failed(mbl_api_open(&path, 1, &none), MBL_ERR_IO, "expected the folder of a run");
    mbl_api_close(&none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_is_that_of_the_files),
        cmocka_unit_test(a_live_run_adds_what_it_knows),
        cmocka_unit_test(lines_by_their_steps),
        cmocka_unit_test(pieces_of_any_size_are_the_same),
        cmocka_unit_test(advantages_and_images),
        cmocka_unit_test(sheets_and_what_is_on_them),
        cmocka_unit_test(config_alarms_scorers_log),
        cmocka_unit_test(prometheus_text),
        cmocka_unit_test(the_page),
        cmocka_unit_test(hostile_requests),
        cmocka_unit_test(a_run_goes_on_and_goes_back),
        cmocka_unit_test(another_folder_in_its_place),
        cmocka_unit_test(a_file_cut_amid_an_answer),
        cmocka_unit_test(no_memory_is_no_crash),
        cmocka_unit_test(links_lead_nowhere),
        cmocka_unit_test(a_damaged_archive_is_passed_over),
        cmocka_unit_test(a_folder_that_is_none),
    };
    return cmocka_run_group_tests_name("api", tests, make, drop);
}
