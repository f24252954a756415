/* src/run/aside and run_id: what came after an earlier step is kept, what is none of the run's is no part of
 * it, and latest.h5 follows. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint.h"
#include "io/jsonl.h"
#include "run/aside.h"
#include "run/run_id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char own[] = "00000000000000aa", other[] = "00000000000000bb";
static char folder[256];

static char *in(const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static bool there(const char *name) {
    return access(in(name), F_OK) == 0;
}

/* Of a branch of `run`, NULL: of the first. */
static void write_branch_step(size_t step, const char *run, const char *branch) {
    float value = (float)step;
    char path[512], text[32];
    const mbl_ckpt_item_t item = {"adapter/current", MBL_F32, 1, &value};
    snprintf(text, sizeof text, "%zu", step);
    const mbl_ckpt_attr_t attrs[] = {{"step", text}, {MBL_CKPT_RUN_KEY, run}, {MBL_CKPT_BRANCH_KEY, branch}};
    assert_int_equal(mbl_ckpt_path(in("checkpoints"), step, path, sizeof path), MBL_OK);
    assert_int_equal(mbl_ckpt_write(path, &item, 1, attrs, 1 + (size_t)(run != NULL) + (branch != NULL)),
                     MBL_OK);
}

static void write_step(size_t step, const char *run) {
    write_branch_step(step, run, NULL);
}

static void write_lines(const char *name, size_t n) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (size_t i = 1; i <= n; i++)
        fprintf(out, "{\"step\": %zu, \"run\": \"%s\"}\n", i, own);
    fclose(out);
    write_whole(in(name), text, size);
    free(text);
}

/* Six steps with checkpoints, lines and samples. */
static int setup(void **state) {
    (void)state;
    temporary_folder(folder);
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(mkdir(in("checkpoints"), 0777), 0);
    assert_int_equal(mkdir(in("samples"), 0777), 0);
    for (size_t step = 1; step <= 6; step++)
        write_step(step, own);
    assert_int_equal(mbl_ckpt_point_latest(in("checkpoints"), 6), MBL_OK);
    write_lines("metrics.jsonl", 7); /* one more than there is a checkpoint for */
    write_lines("eval.jsonl", 2);
    write_whole(in("samples/step-000002.png"), "x", 1);
    write_whole(in("samples/step-000004.png"), "x", 1);
    write_whole(in("samples/step-000004.json"), "x", 1);
    write_whole(in("samples/step-000004.txt"), "x", 1); /* somebody's own */
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mbl_log_set_level(MBL_LOG_INFO);
    remove_folder(folder);
    return 0;
}

static size_t latest(void) {
    size_t step = 0;
    return mbl_ckpt_pointed(in("checkpoints"), &step) ? step : 0;
}

static void later_steps_are_kept_aside(void **state) {
    const mbl_ckpt_lineage_t lineage = {.run = own};
    char path[512];
    bool found;
    (void)state;
    assert_int_equal(mbl_aside(folder, own, 2, true), MBL_OK);
    assert_int_equal(latest(), 2);
    for (int step = 1; step <= 6; step++) {
        char name[64];
        snprintf(name, sizeof name, "checkpoints/step-%06d.h5", step);
        assert_int_equal(there(name), step <= 2);
        snprintf(name, sizeof name, "aside-1/checkpoints/step-%06d.h5", step);
        assert_int_equal(there(name), step > 2);
    }
    assert_int_equal(mbl_ckpt_latest(in("aside-1/checkpoints"), &lineage, path, sizeof path, &found), MBL_OK);
    assert_true(found); /* whole */
    char *text = read_whole(in("aside-1/metrics.jsonl"), NULL);
    assert_int_equal(strncmp(text, "{\"step\": 3,", 11), 0);
    assert_non_null(strstr(text, "\"step\": 7,"));
    free(text);
    assert_false(there("aside-1/eval.jsonl")); /* it had no later line */
    assert_true(there("samples/step-000002.png") && there("aside-1/samples/step-000004.png"));
    assert_false(there("samples/step-000004.png"));
    assert_true(there("aside-1/samples/step-000004.json") && !there("samples/step-000004.json"));
    assert_true(there("samples/step-000004.txt"));
    /* and once more, from the new branch */
    write_step(3, own);
    assert_int_equal(mbl_ckpt_point_latest(in("checkpoints"), 3), MBL_OK);
    assert_int_equal(mbl_aside(folder, own, 1, true), MBL_OK);
    assert_true(there("aside-2/checkpoints/step-000002.h5") && there("aside-2/checkpoints/step-000003.h5"));
    assert_int_equal(latest(), 1);
    text = read_whole(in("branches.jsonl"), NULL);
    assert_int_equal(strncmp(text, "{\"step\": 2,", 11), 0);
    assert_non_null(strstr(text, "\n{\"step\": 1,"));
    free(text);
}

static void nothing_later_is_nothing_to_do(void **state) {
    (void)state;
    assert_int_equal(mbl_aside(folder, own, 6, true), MBL_OK);
    assert_false(there("aside-1"));
    assert_int_equal(latest(), 6);
    char *text = read_whole(in("metrics.jsonl"), NULL);
    assert_non_null(strstr(text, "\"step\": 7")); /* cut when the file is opened */
    free(text);
    assert_int_equal(unlink(in("checkpoints/latest.h5")), 0);
    assert_int_equal(mbl_aside(folder, own, 6, true), MBL_OK);
    assert_int_equal(latest(), 6);
}

/* A checkpoint from elsewhere, a copy of step 2 say: nothing in the folder is it. */
static void from_elsewhere(void **state) {
    (void)state;
    assert_int_equal(unlink(in("checkpoints/step-000002.h5")), 0);
    assert_int_equal(mbl_aside(folder, own, 2, true), MBL_OK);
    assert_int_equal(latest(), 0);
    assert_true(there("checkpoints/step-000001.h5") && there("aside-1/checkpoints/step-000003.h5"));
}

static void what_is_none_of_it_is_moved_too(void **state) {
    (void)state;
    write_step(1, other);
    write_step(2, NULL); /* of an older version: may be one */
    char *path = in("checkpoints/step-000003.h5");
    write_whole(path, "damaged", 7);
    write_whole(in("checkpoints/step-000004.h5"), "", 0);
    assert_int_equal(unlink(in("checkpoints/step-000005.h5")), 0);
    assert_int_equal(mkdir(in("checkpoints/step-000005.h5"), 0777), 0);
    assert_int_equal(mbl_aside(folder, own, 6, false), MBL_OK);
    assert_true(there("checkpoints/step-000001.h5") && there("checkpoints/step-000003.h5"));
    assert_true(there("aside-1/checkpoints/step-000004.h5") && there("aside-1/checkpoints/step-000005.h5"));
    assert_int_equal(mbl_aside(folder, own, 6, true), MBL_OK);
    assert_true(there("aside-2/checkpoints/step-000001.h5") && there("aside-2/checkpoints/step-000003.h5"));
    assert_true(there("checkpoints/step-000002.h5") && there("checkpoints/step-000006.h5"));
    assert_int_equal(latest(), 6);
    assert_int_equal(mbl_aside(folder, own, 6, true), MBL_OK);
    assert_false(there("aside-3"));
}

/* Files of other runs and of branches that were left are moved aside wherever they stand, each named once,
 * and then count for nothing that is kept. */
static void strangers_above_the_step(void **state) {
    char text[4096], log[512];
    const mbl_ckpt_keep_t keep = {.last = 2};
    (void)state;
    write_whole(in("branches.jsonl"), "{\"step\": 3}\n", 12);
    write_step(2, own);
    write_step(4, other); /* above the step that the run goes on from, as the next ones */
    write_step(5, own);   /* of the branch that it left at step 3 */
    write_whole(in("checkpoints/step-000006.h5"), "damaged", 7);
    snprintf(log, sizeof log, "%s", in("log.txt"));
    mbl_log_set_level(MBL_LOG_WARN);
    assert_int_equal(mbl_log_open(log), MBL_OK);
    assert_int_equal(mbl_aside(folder, own, 3, true), MBL_OK);
    assert_int_equal(mbl_aside(folder, own, 3, true), MBL_OK);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    mbl_log_set_level(MBL_LOG_OFF);
    char *said = read_whole(log, NULL);
    snprintf(text, sizeof text, "%s", said);
    free(said);
    static const char *const names[] = {"step-000004.h5: no checkpoint of this run (of another run)",
                                        "step-000005.h5: no checkpoint of this run (of a branch that",
                                        "step-000006.h5: no checkpoint of this run (damaged)"};
    for (size_t i = 0; i < 3; i++) {
        const char *at = strstr(text, names[i]);
        if (!at || strstr(at + 1, names[i]))
            fail_msg("\"%s\" does not stand once in:\n%s", names[i], text);
    }
    write_branch_step(4, own, "2");
    assert_int_equal(mbl_ckpt_publish(in("checkpoints"), 4, &keep), MBL_OK);
    assert_true(there("checkpoints/step-000003.h5") && there("checkpoints/step-000004.h5"));
    assert_false(there("checkpoints/step-000002.h5") || there("checkpoints/step-000005.h5"));
}

static void ids(void **state) {
    mbl_run_head_t head = {.from = "/a b/run\n.yaml"}, back;
    char text[MBL_RUN_HEAD], again[MBL_RUN_ID];
    (void)state;
    assert_int_equal(mbl_run_id_make(head.id), MBL_OK);
    assert_int_equal(mbl_run_id_make(again), MBL_OK);
    assert_true(mbl_run_id_is(head.id) && strcmp(head.id, again) != 0);
    assert_false(mbl_run_id_is("00000000000000AA") || mbl_run_id_is("0") || mbl_run_id_is(""));
    mbl_run_head_read(folder, &back); /* no run.yaml: the last line says it */
    assert_string_equal(back.id, own);
    assert_string_equal(back.from, "");
    mbl_run_head_write(&head, text);
    FILE *yaml = fopen(in("run.yaml"), "w"); /* as mbl_config_write does */
    fputs("# The resolved configuration\n", yaml);
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        fprintf(yaml, "# %s\n", line);
    fputs("# marble 0 on host: marble train x\nseed: 1\n", yaml);
    fclose(yaml);
    mbl_run_head_read(folder, &back);
    assert_string_equal(back.id, head.id);
    assert_string_equal(back.from, "/a b/run?.yaml");
    write_whole(in("run.yaml"), "seed: 1\n", 8);
    write_whole(in("metrics.jsonl"), "{\"step\": 1}\n{\"st", 16); /* an older version's */
    mbl_run_head_read(folder, &back);
    assert_string_equal(back.id, "");
}

static void the_last_line(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int step;
    } cases[] = {{"", -1},
                 {"\n\n", -1},
                 {"{\"step\": 1}\n{\"step\": 2}\n", 2},
                 {"{\"step\": 1}\n{\"step\": 2", 1},
                 {"{\"step\": 3}", 3},
                 {"[1]\n", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_whole(in("x.jsonl"), cases[i].text, strlen(cases[i].text));
        json_t *line = mbl_jsonl_last(in("x.jsonl")), *step = json_object_get(line, "step");
        assert_int_equal(json_is_integer(step) ? json_integer_value(step) : -1, cases[i].step);
        json_decref(line);
    }
    assert_null(mbl_jsonl_last(in("none.jsonl")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(later_steps_are_kept_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_later_is_nothing_to_do, setup, teardown),
        cmocka_unit_test_setup_teardown(from_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_none_of_it_is_moved_too, setup, teardown),
        cmocka_unit_test_setup_teardown(strangers_above_the_step, setup, teardown),
        cmocka_unit_test_setup_teardown(ids, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_line, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
