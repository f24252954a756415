/* src/io/jsonl: whole lines as stated, cutting back to a step, damaged ends, full disks. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/jsonl.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[256], path[512];

static int setup(void **state) {
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static void assert_content(const char *want) {
    char *text = read_whole(path, NULL);
    assert_string_equal(text, want);
    free(text);
}

static void write_steps(mbl_jsonl_t *jsonl, int first, int last) {
    for (int step = first; step <= last; step++)
        assert_int_equal(mbl_jsonl_write(jsonl, json_pack("{si}", "step", step)), MBL_OK);
}

static void lines_read_as_stated(void **state) {
    (void)state;
    mbl_jsonl_t *jsonl;
    assert_int_equal(mbl_jsonl_open(path, -1, &jsonl), MBL_OK);
    json_t *object =
        json_pack("{si so so so so}", "step", 3, "loss", mbl_jsonl_real(1.0 / 3), "bad", mbl_jsonl_real(NAN),
                  "huge", mbl_jsonl_real(-INFINITY), "alpha",
                  json_pack("{so so}", "ocr", mbl_jsonl_real(1), "jpeg", mbl_jsonl_real(1e-300)));
    assert_int_equal(mbl_jsonl_write(jsonl, object), MBL_OK);
    assert_content("{\"step\": 3, \"loss\": 0.333333333, \"bad\": null, \"huge\": null, "
                   "\"alpha\": {\"ocr\": 1.0, \"jpeg\": 1e-300}}\n"); /* before close: flushed as written */
    assert_int_equal(mbl_jsonl_write(jsonl, NULL), MBL_ERR_MEM);
    mbl_jsonl_close(jsonl);
}

static void resuming_cuts_later_steps(void **state) {
    (void)state;
    mbl_jsonl_t *jsonl;
    assert_int_equal(mbl_jsonl_open(path, 100, &jsonl), MBL_OK); /* absent: made */
    write_steps(jsonl, 1, 5);
    mbl_jsonl_close(jsonl);
    assert_int_equal(mbl_jsonl_open(path, 3, &jsonl), MBL_OK);
    assert_content("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n");
    write_steps(jsonl, 4, 4);
    mbl_jsonl_close(jsonl);
    assert_content("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n{\"step\": 4}\n");
    assert_int_equal(mbl_jsonl_open(path, 0, &jsonl), MBL_OK);
    mbl_jsonl_close(jsonl);
    assert_content("");
}

static void fresh_run_empties(void **state) {
    (void)state;
    mbl_jsonl_t *jsonl;
    write_whole(path, "{\"step\": 0}\n", 12);
    assert_int_equal(mbl_jsonl_open(path, -1, &jsonl), MBL_OK);
    mbl_jsonl_close(jsonl);
    assert_content("");
}

static void damaged_lines_go(void **state) {
    (void)state;
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"{\"step\": 1}\n{\"step\": 2, \"lo", "{\"step\": 1}\n"},
        {"{\"step\": 1}\n{\"step\": 2}", "{\"step\": 1}\n{\"step\": 2}\n"},
        {"{\"step\": 1}\n\n[1]\n{\"step\": 2}\n", "{\"step\": 1}\n{\"step\": 2}\n"},
        {"{\"note\": \"kept\"}\n{\"step\": 9}\n{\"step\": 2}\n", "{\"note\": \"kept\"}\n{\"step\": 2}\n"},
        {"{\"step\": 1.5}\n", "{\"step\": 1.5}\n"},
        {"\xff\xfe\n", ""},
    };
    mbl_log_set_level(MBL_LOG_ERROR);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mbl_jsonl_t *jsonl;
        write_whole(path, cases[i].before, strlen(cases[i].before));
        assert_int_equal(mbl_jsonl_open(path, 2, &jsonl), MBL_OK);
        mbl_jsonl_close(jsonl);
        assert_content(cases[i].after);
    }
    mbl_log_set_level(MBL_LOG_INFO);
    char temporary[600];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    assert_int_not_equal(access(temporary, F_OK), 0);
}

/* A file that takes no more than `bytes` (0: any number). */
static void limit_files(rlim_t bytes) {
    static struct rlimit kept;
    if (bytes) {
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, kept.rlim_max}), 0);
    } else {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    }
}

/* Room for two lines of 12 bytes and half of the third: the others are held in memory, the file ends with a
 * whole line, and when there is room again all stand in it in order. */
static void full_disk_costs_no_line(void **state) {
    (void)state;
    mbl_jsonl_t *jsonl;
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(mbl_jsonl_open(path, -1, &jsonl), MBL_OK);
    write_steps(jsonl, 1, 2);
    limit_files(30);
    write_steps(jsonl, 3, 5);
    assert_int_equal(mbl_jsonl_held(jsonl), 3);
    assert_content("{\"step\": 1}\n{\"step\": 2}\n");
    limit_files(0);
    write_steps(jsonl, 6, 6);
    assert_int_equal(mbl_jsonl_held(jsonl), 0);
    assert_content(
        "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n{\"step\": 4}\n{\"step\": 5}\n{\"step\": 6}\n");
    limit_files(80);
    write_steps(jsonl, 7, 8);
    limit_files(0);
    mbl_jsonl_close(jsonl); /* at the end too */
    mbl_log_set_level(MBL_LOG_INFO);
    char *text = read_whole(path, NULL);
    assert_non_null(strstr(text, "{\"step\": 6}\n{\"step\": 7}\n{\"step\": 8}\n"));
    free(text);
}

/* What is cut off can be kept before. */
static void later_lines_are_copied(void **state) {
    char aside[600];
    (void)state;
    static const char before[] = "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n{\"step\": 4, \"lo";
    snprintf(aside, sizeof aside, "%s/aside.jsonl", folder);
    write_whole(path, before, sizeof before - 1);
    assert_int_equal(mbl_jsonl_copy_later(path, 2, aside), MBL_OK);
    assert_content(before);
    char *text = read_whole(aside, NULL);
    assert_string_equal(text, "{\"step\": 3}\n{\"step\": 4, \"lo\n");
    free(text);
    snprintf(aside, sizeof aside, "%s/none/aside.jsonl", folder);
    assert_int_equal(mbl_jsonl_copy_later(path, 2, aside), MBL_ERR_IO);
}

static void bad_places_are_reported(void **state) {
    (void)state;
    mbl_jsonl_t *jsonl;
    char elsewhere[600];
    snprintf(elsewhere, sizeof elsewhere, "%s/none/metrics.jsonl", folder);
    assert_int_equal(mbl_jsonl_open(elsewhere, -1, &jsonl), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "none/metrics.jsonl: cannot be opened: No such file"));
    assert_int_equal(mbl_jsonl_open(folder, 5, &jsonl), MBL_ERR_IO);
}

static void no_memory_is_survived(void **state) {
    (void)state;
    size_t live = mbl_mem_live(), failures = 0;
    mbl_log_set_level(MBL_LOG_OFF);
    write_whole(path, "{\"step\": 1}\n{\"step\": 2}\n", 24);
    for (size_t at = 1;; at++) {
        mbl_jsonl_t *jsonl = NULL;
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_jsonl_open(path, 1, &jsonl);
        mbl_mem_fail_at(0);
        if (status == MBL_OK) {
            mbl_jsonl_close(jsonl);
            assert_int_equal(mbl_mem_live(), live);
            break;
        }
        assert_int_equal(status, MBL_ERR_MEM);
        assert_int_equal(mbl_mem_live(), live);
        failures++;
    }
    mbl_log_set_level(MBL_LOG_INFO);
    assert_int_equal(failures, 3);
    assert_content("{\"step\": 1}\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_read_as_stated, setup, teardown),
        cmocka_unit_test_setup_teardown(resuming_cuts_later_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(fresh_run_empties, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_lines_go, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk_costs_no_line, setup, teardown),
        cmocka_unit_test_setup_teardown(later_lines_are_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_places_are_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(no_memory_is_survived, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
