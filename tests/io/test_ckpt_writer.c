/* src/io/ckpt_writer.c: writes beside a thread that goes on computing: their content, what may change when,
 * one write at a time, failures reported once, closing in the middle of one. A gate in rename holds a write
 * open for as long as a test needs it. Under the thread sanitizer (preset tsan) data that both threads touch
 * at once fails the test too.
 *
 * ctest-wrap: rename */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/ckpt_writer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT = 40000 };

/* ---- the gate ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool shut;
    size_t waiting;
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0};

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    pthread_mutex_lock(&gate.lock);
    gate.waiting++;
    pthread_cond_broadcast(&gate.changed);
    while (gate.shut)
        pthread_cond_wait(&gate.changed, &gate.lock);
    gate.waiting--;
    pthread_mutex_unlock(&gate.lock);
    return __real_rename(from, to);
}

static void shut_gate(bool shut) {
    pthread_mutex_lock(&gate.lock);
    gate.shut = shut;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* Until a write stands at the shut gate. */
static void wait_at_gate(void) {
    pthread_mutex_lock(&gate.lock);
    while (gate.waiting == 0)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

/* ---- a job ---- */

typedef struct {
    float weights[COUNT];
    int64_t counter;
    char step[32], folder[300];
    mbl_ckpt_item_t items[2];
    mbl_ckpt_attr_t attrs[2];
    mbl_ckpt_job_t job;
} content_t;

static float weight(size_t step, size_t i) {
    return (float)(step * 1000) + (float)(i % 977);
}

static void fill(content_t *c, size_t step) {
    for (size_t i = 0; i < COUNT; i++)
        c->weights[i] = weight(step, i);
    c->counter = (int64_t)step;
    snprintf(c->step, sizeof c->step, "%zu", step);
    c->job.step = step;
}

static content_t *new_content(const char *folder) {
    content_t *c = calloc(1, sizeof *c);
    assert_non_null(c);
    snprintf(c->folder, sizeof c->folder, "%s", folder);
    c->items[0] = (mbl_ckpt_item_t){"adapter/current", MBL_F32, COUNT, c->weights};
    c->items[1] = (mbl_ckpt_item_t){"counter", MBL_I64, 1, &c->counter};
    c->attrs[0] = (mbl_ckpt_attr_t){"kind", "test"};
    c->attrs[1] = (mbl_ckpt_attr_t){"step", c->step};
    c->job =
        (mbl_ckpt_job_t){.folder = c->folder, .items = c->items, .n = 2, .attrs = c->attrs, .n_attrs = 2};
    return c;
}

static char *in(const char *folder, const char *name) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bool exists(const char *folder, const char *name) {
    struct stat st;
    return lstat(in(folder, name), &st) == 0;
}

/* The file holds what fill() made for `step`, and latest.h5 is it. */
static void check_file(const char *folder, size_t step) {
    char path[512];
    float *weights = calloc(COUNT, sizeof *weights);
    int64_t counter = -1;
    mbl_ckpt_t *ckpt;
    assert_int_equal(mbl_ckpt_path(folder, step, path, sizeof path), MBL_OK);
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    assert_int_equal(strtoul(mbl_ckpt_attr(ckpt, "step"), NULL, 10), step);
    assert_int_equal(mbl_ckpt_read(ckpt, "adapter/current", MBL_F32, COUNT, weights), MBL_OK);
    assert_int_equal(mbl_ckpt_read(ckpt, "counter", MBL_I64, 1, &counter), MBL_OK);
    mbl_ckpt_close(ckpt);
    for (size_t i = 0; i < COUNT; i++)
        if (weights[i] != weight(step, i))
            fail_msg("step %zu, weight %zu: %g, want %g", step, i, (double)weights[i],
                     (double)weight(step, i));
    assert_int_equal(counter, step);
    free(weights);
}

typedef struct {
    char folder[256];
    content_t *content;
    mbl_ckpt_writer_t *writer;
    size_t live;
} fixture_t;

static int open_fixture(void **state) {
    fixture_t *w = calloc(1, sizeof *w);
    assert_non_null(w);
    temporary_folder(w->folder);
    w->content = new_content(w->folder);
    w->live = mbl_mem_live();
    assert_int_equal(mbl_ckpt_writer_open(&w->writer), MBL_OK);
    *state = w;
    return 0;
}

static int close_fixture(void **state) {
    fixture_t *w = *state;
    shut_gate(false);
    mbl_ckpt_writer_close(w->writer);
    assert_int_equal(mbl_mem_live(), w->live);
    remove_folder(w->folder);
    free(w->content);
    free(w);
    return 0;
}

/* ---- tests ---- */

/* A write ends, its data change and the next begins, as in a run with a checkpoint at every step. */
static void data_may_change_between_writes(void **state) {
    fixture_t *w = *state;
    for (size_t step = 1; step <= 5; step++) {
        fill(w->content, step);
        assert_int_equal(mbl_ckpt_writer_start(w->writer, &w->content->job), MBL_OK);
        assert_int_equal(mbl_ckpt_writer_result(w->writer, true), MBL_OK);
    }
    fill(w->content, 99);
    for (size_t step = 1; step <= 5; step++)
        check_file(w->folder, step);
    char target[64] = "";
    assert_true(readlink(in(w->folder, "latest.h5"), target, sizeof target - 1) > 0);
    assert_string_equal(target, "step-000005.h5");
}

/* While a write goes on: no file of its name, nothing to report, no second write; the caller's thread is
 * free.
 */
static void one_write_at_a_time(void **state) {
    fixture_t *w = *state;
    fill(w->content, 1);
    shut_gate(true);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &w->content->job), MBL_OK);
    wait_at_gate();
    assert_false(exists(w->folder, "step-000001.h5"));
    assert_int_equal(mbl_ckpt_writer_result(w->writer, false), MBL_OK);
    mbl_fail_quiet(1);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &w->content->job), MBL_ERR_INTERNAL);
    mbl_fail_quiet(0);
    shut_gate(false);
    assert_int_equal(mbl_ckpt_writer_result(w->writer, true), MBL_OK);
    check_file(w->folder, 1);
}

/* The job itself is copied at the start; only what it points to has to stay. */
static void the_job_is_copied(void **state) {
    fixture_t *w = *state;
    mbl_ckpt_job_t *job = malloc(sizeof *job);
    fill(w->content, 3);
    shut_gate(true);
    *job = w->content->job;
    assert_int_equal(mbl_ckpt_writer_start(w->writer, job), MBL_OK);
    wait_at_gate();
    memset(job, 0xa5, sizeof *job);
    free(job);
    shut_gate(false);
    assert_int_equal(mbl_ckpt_writer_result(w->writer, true), MBL_OK);
    check_file(w->folder, 3);
}

/* The thread's failure, with its words, in the caller's thread; then the writer is as good as new. */
static void a_failure_is_reported_once(void **state) {
    fixture_t *w = *state;
    content_t *c = w->content;
    fill(c, 1);
    snprintf(c->folder, sizeof c->folder, "%.250s/none", w->folder);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &c->job), MBL_OK);
    mbl_fail_quiet(1);
    mbl_status_t first = mbl_ckpt_writer_result(w->writer, true);
    mbl_fail_quiet(0);
    assert_int_equal(first, MBL_ERR_IO);
    if (!strstr(mbl_fail_message(), "/none/step-000001.h5"))
        fail_msg("'%s' does not name the file", mbl_fail_message());
    assert_int_equal(mbl_ckpt_writer_result(w->writer, true), MBL_OK);
    assert_int_equal(mbl_ckpt_writer_result(w->writer, false), MBL_OK);
    snprintf(c->folder, sizeof c->folder, "%s", w->folder);
    fill(c, 2);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &c->job), MBL_OK);
    assert_int_equal(mbl_ckpt_writer_result(w->writer, true), MBL_OK);
    check_file(w->folder, 2);
}

static void *open_gate_later(void *context) {
    (void)context;
    usleep(50000);
    shut_gate(false);
    return NULL;
}

/* Close in the middle of a write: it returns when the file is there whole. */
static void close_waits_for_the_write(void **state) {
    fixture_t *w = *state;
    pthread_t other;
    fill(w->content, 7);
    shut_gate(true);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &w->content->job), MBL_OK);
    wait_at_gate();
    assert_int_equal(pthread_create(&other, NULL, open_gate_later, NULL), 0);
    mbl_ckpt_writer_close(w->writer);
    w->writer = NULL;
    fill(w->content, 99); /* nobody reads it any more */
    check_file(w->folder, 7);
    pthread_join(other, NULL);
}

/* Close right after the start, when the thread may not even have woken up, and with a failure unreported. */
static void close_at_once_loses_nothing(void **state) {
    fixture_t *w = *state;
    fill(w->content, 4);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &w->content->job), MBL_OK);
    mbl_ckpt_writer_close(w->writer);
    check_file(w->folder, 4);
    assert_int_equal(mbl_ckpt_writer_open(&w->writer), MBL_OK);
    snprintf(w->content->folder, sizeof w->content->folder, "%.250s/none", w->folder);
    assert_int_equal(mbl_ckpt_writer_start(w->writer, &w->content->job), MBL_OK);
    mbl_ckpt_writer_close(w->writer);
    w->writer = NULL;
    mbl_ckpt_writer_close(NULL);
}

static void nothing_written_has_nothing_to_report(void **state) {
    fixture_t *w = *state;
    assert_int_equal(mbl_ckpt_writer_result(w->writer, false), MBL_OK);
    assert_int_equal(mbl_ckpt_writer_result(w->writer, true), MBL_OK);
    mbl_mem_fail_at(1);
    mbl_ckpt_writer_t *second = NULL;
    mbl_fail_quiet(1);
    assert_int_equal(mbl_ckpt_writer_open(&second), MBL_ERR_MEM);
    mbl_fail_quiet(0);
    mbl_mem_fail_at(0);
    assert_null(second);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {WITH_FIXTURE(data_may_change_between_writes),
                                       WITH_FIXTURE(one_write_at_a_time),
                                       WITH_FIXTURE(the_job_is_copied),
                                       WITH_FIXTURE(a_failure_is_reported_once),
                                       WITH_FIXTURE(close_waits_for_the_write),
                                       WITH_FIXTURE(close_at_once_loses_nothing),
                                       WITH_FIXTURE(nothing_written_has_nothing_to_report)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
