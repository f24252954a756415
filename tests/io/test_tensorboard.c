/* src/io/tensorboard: framing, sums and messages, read back by a reader of this test's own and
 * compared with what TensorBoard's library writes (golden/event.hex). That
 * TensorBoard's library reads the same, tests/proofs/event_files.py shows. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/tensorboard.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>

static char folder[256];

static int setup(void **state) {
    (void)state;
    temporary_folder(folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* The i-th file by name; false past the last. */
static bool file_of(size_t i, char path[512]) {
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort);
    bool found = false;
    for (int j = 0, seen = 0; j < n; j++) {
        if (names[j]->d_name[0] != '.' && (size_t)seen++ == i) {
            snprintf(path, 512, "%s/%s", folder, names[j]->d_name);
            found = true;
        }
        free(names[j]);
    }
    free(names);
    return found;
}

/* ---- a reader ---- */

typedef struct {
    const uint8_t *at, *end;
} span_t;

typedef struct {
    unsigned field, wire;
    uint64_t number;
    span_t bytes;
} field_t;

static uint64_t varint_of(span_t *s) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(s->at < s->end && shift < 64);
        value |= (uint64_t)(*s->at & 0x7f) << shift;
        if (!(*s->at++ & 0x80))
            return value;
    }
}

static bool next_field(span_t *s, field_t *out) {
    if (s->at == s->end)
        return false;
    uint64_t key = varint_of(s);
    size_t size = 0;
    *out = (field_t){.field = (unsigned)(key >> 3), .wire = key & 7};
    if (out->wire == 0) {
        out->number = varint_of(s);
        return true;
    }
    size = out->wire == 2 ? (size_t)varint_of(s) : out->wire == 1 ? 8 : 4;
    assert_true((size_t)(s->end - s->at) >= size);
    out->bytes = (span_t){s->at, s->at + size};
    for (size_t i = 0; out->wire != 2 && i < size; i++)
        out->number |= (uint64_t)s->at[i] << 8 * i;
    s->at += size;
    return true;
}

/* The n-th field of that number within a message. */
static field_t find(span_t message, unsigned number, size_t n) {
    field_t field;
    while (next_field(&message, &field))
        if (field.field == number && n-- == 0)
            return field;
    fail_msg("no field %u", number);
    return field;
}

static double real_of(field_t field) {
    double value;
    float single;
    uint32_t bits = (uint32_t)field.number;
    memcpy(&value, &field.number, sizeof value);
    memcpy(&single, &bits, sizeof single);
    return field.wire == 1 ? value : (double)single;
}

static bool text_is(field_t field, const char *text) {
    size_t size = (size_t)(field.bytes.end - field.bytes.at);
    return size == strlen(text) && memcmp(field.bytes.at, text, size) == 0;
}

/* The bitwise definition, for the table of the writer. */
static uint32_t masked_sum(const uint8_t *data, size_t size) {
    uint32_t c = ~0u;
    for (size_t i = 0; i < size; i++) {
        c ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
    }
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static uint64_t little(const uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

/* The n-th event of a file, sums checked; false past the last. */
static bool event_of(const char *text, size_t size, size_t n, span_t *out) {
    const uint8_t *at = (const uint8_t *)text, *end = at + size;
    for (size_t i = 0; at < end; i++) {
        size_t length = (size_t)little(at, 8);
        assert_int_equal(little(at + 8, 4), masked_sum(at, 8));
        assert_int_equal(little(at + 12 + length, 4), masked_sum(at + 12, length));
        *out = (span_t){at + 12, at + 12 + length};
        if (i == n)
            return true;
        at += length + 16;
    }
    return false;
}

/* ---- tests ---- */

static void sums_are_those_of_the_standard(void **state) {
    (void)state; /* RFC 3720, B.4: CRC-32C of "123456789" is e3069283 */
    uint32_t masked = masked_sum((const uint8_t *)"123456789", 9), sum = masked - 0xa282ead8u;
    assert_int_equal(sum >> 17 | sum << 15, 0xe3069283u);
}

/* Byte by byte what TensorBoard's own library writes of the same values, and its sum. */
static void same_as_golden(span_t event) {
    size_t length, n = 0;
    unsigned sum;
    char *text = read_whole(MBL_SOURCE_DIR "/tests/golden/event.hex", &length), *bytes;
    for (size_t i = 0; i < length; i++)
        if (text[i] != '\n')
            text[n++] = text[i];
    text[n] = 0;
    assert_int_equal(sscanf(text + n - 8, "%8x", &sum), 1);
    text[n - 8] = 0;
    bytes = malloc(n);
    unhex(text, bytes);
    assert_int_equal(event.end - event.at, (n - 8) / 2);
    assert_memory_equal(event.at, bytes, (n - 8) / 2);
    assert_int_equal(masked_sum(event.at, (n - 8) / 2), sum);
    free(bytes);
    free(text);
}

static void every_kind_of_value(void **state) {
    (void)state;
    mbl_tensorboard_t *board;
    char path[512];
    size_t size;
    span_t event;
    const double counts[4] = {0, 3, 1, 0};
    const mbl_tensorboard_bins_t bins = {-4, 4, -1.5, 9.25, counts, 4};
    char note[400];
    memset(note, 'n', sizeof note - 1); /* longer than a length of one byte says */
    note[sizeof note - 1] = 0;
    assert_int_equal(mbl_tensorboard_open(folder, 0, &board), MBL_OK);
    mbl_tensorboard_scalar(board, "loss", 0.25);
    mbl_tensorboard_png(board, "samples", 20, 300, "PNG", 3);
    mbl_tensorboard_text(board, "config", note);
    mbl_tensorboard_histogram(board, "advantage/ocr", &bins);
    assert_int_equal(mbl_tensorboard_write(board, 300), MBL_OK);
    mbl_tensorboard_scalar(board, "loss", 0.125);
    assert_int_equal(mbl_tensorboard_write(board, 301), MBL_OK);
    mbl_tensorboard_close(board);
    assert_true(file_of(0, path));
    char *text = read_whole(path, &size);
    assert_true(event_of(text, size, 0, &event));
    assert_true(text_is(find(event, 3, 0), "brain.Event:2"));
    assert_true(event_of(text, size, 1, &event));
    assert_int_equal(find(find(event, 7, 0).bytes, 1, 0).number, 1);
    assert_true(event_of(text, size, 2, &event));
    assert_int_equal(find(event, 2, 0).number, 300);
    assert_true(real_of(find(event, 1, 0)) > 1.7e9); /* seconds since 1970 */
    span_t summary = find(event, 5, 0).bytes, value = find(summary, 1, 0).bytes;
    assert_true(text_is(find(value, 1, 0), "loss"));
    assert_true(real_of(find(value, 2, 0)) == 0.25);
    value = find(find(summary, 1, 1).bytes, 4, 0).bytes;
    assert_true(find(value, 1, 0).number == 300 && find(value, 2, 0).number == 20);
    assert_true(text_is(find(value, 4, 0), "PNG"));
    value = find(summary, 1, 2).bytes;
    assert_true(text_is(find(find(value, 8, 0).bytes, 8, 0), note));
    assert_true(text_is(find(find(find(value, 9, 0).bytes, 1, 0).bytes, 1, 0), "text"));
    value = find(find(summary, 1, 3).bytes, 5, 0).bytes;
    assert_true(real_of(find(value, 1, 0)) == -2 && real_of(find(value, 2, 0)) == 2); /* filled bins */
    assert_true(real_of(find(value, 3, 0)) == 4 && real_of(find(value, 4, 0)) == -1.5);
    field_t filled = find(value, 7, 0);
    assert_int_equal(filled.bytes.end - filled.bytes.at, 2 * sizeof(double));
    assert_true(event_of(text, size, 3, &event) && !event_of(text, size, 4, &event));
    assert_true(event_of(text, size, 2, &event));
    same_as_golden((span_t){event.at + 9, event.end}); /* without the time */
    free(text);
}

static void numbers_of_a_line(void **state) {
    (void)state;
    mbl_tensorboard_t *board;
    char path[512];
    size_t size;
    span_t event;
    json_t *line =
        json_loads("{\"step\": 7, \"loss\": 0.5, \"kl\": null, \"time\": \"now\", \"reward\": {\"ocr\": 2,"
                   " \"jpeg\": null}, \"remote\": {\"ocr\": {\"p50\": 1.5}}}",
                   0, NULL);
    static const char *const tags[] = {"train/loss", "reward/ocr", "remote/ocr/p50"};
    const double values[] = {0.5, 2, 1.5};
    assert_int_equal(mbl_tensorboard_open(folder, 0, &board), MBL_OK);
    mbl_tensorboard_numbers(board, "train", line);
    assert_int_equal(mbl_tensorboard_write(board, 7), MBL_OK);
    mbl_tensorboard_close(board);
    json_decref(line);
    assert_true(file_of(0, path));
    char *text = read_whole(path, &size);
    assert_true(event_of(text, size, 2, &event));
    span_t summary = find(event, 5, 0).bytes;
    for (size_t i = 0; i < 3; i++) {
        span_t value = find(summary, 1, i).bytes;
        assert_true(text_is(find(value, 1, 0), tags[i]));
        assert_true(real_of(find(value, 2, 0)) == values[i]);
    }
    field_t field;
    size_t n = 0;
    while (next_field(&summary, &field))
        n++;
    assert_int_equal(n, 3);
    free(text);
}

/* In the order of their names, though all are made within a second; the second one voids steps from 5 on. */
static void a_start_is_a_file(void **state) {
    (void)state;
    mbl_tensorboard_t *board;
    char path[512];
    size_t size;
    span_t event;
    const uint64_t next[] = {0, 5, 3};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mbl_tensorboard_open(folder, next[i], &board), MBL_OK);
        mbl_tensorboard_close(board);
    }
    for (size_t i = 0; i < 3; i++) {
        assert_true(file_of(i, path));
        char *text = read_whole(path, &size);
        assert_true(event_of(text, size, 1, &event));
        if (next[i])
            assert_int_equal(find(event, 2, 0).number, next[i]);
        free(text);
    }
    assert_false(file_of(3, path));
}

/* A file system without room: whole events or none, and no failure of the run. */
static void a_full_disk_costs_events(void **state) {
    (void)state;
    mbl_tensorboard_t *board;
    char path[512];
    size_t size, n = 0;
    span_t event;
    struct rlimit before, small;
    assert_int_equal(mbl_tensorboard_open(folder, 0, &board), MBL_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 300;
    signal(SIGXFSZ, SIG_IGN);
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (uint64_t step = 1; step <= 20; step++) {
        mbl_tensorboard_scalar(board, "a/scalar", (double)step);
        assert_int_equal(mbl_tensorboard_write(board, step), MBL_OK);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    mbl_tensorboard_scalar(board, "a/scalar", 21);
    assert_int_equal(mbl_tensorboard_write(board, 21), MBL_OK);
    mbl_tensorboard_close(board);
    mbl_log_set_level(MBL_LOG_INFO);
    signal(SIGXFSZ, SIG_DFL);
    assert_true(file_of(0, path));
    char *text = read_whole(path, &size);
    while (event_of(text, size, n, &event))
        n++;
    assert_true(n > 3 && n < 20);
    event_of(text, size, n - 1, &event);
    assert_int_equal(find(event, 2, 0).number, 21);
    free(text);
}

static mbl_status_t all_of_it(void) {
    mbl_tensorboard_t *board;
    const double counts[2] = {1, 2};
    MBL_TRY(mbl_tensorboard_open(folder, 0, &board));
    mbl_tensorboard_scalar(board, "a", 1);
    mbl_tensorboard_text(board, "b", "text");
    mbl_tensorboard_histogram(board, "c", &(mbl_tensorboard_bins_t){0, 1, 1, 1, counts, 2});
    mbl_status_t status = mbl_tensorboard_write(board, 1);
    mbl_tensorboard_close(board);
    return status;
}

static void survives_missing_memory(void **state) {
    (void)state;
    mbl_log_set_level(MBL_LOG_OFF);
    assert_int_equal(all_of_it(), MBL_OK);
    size_t live = mbl_mem_live();
    bool failed = true;
    for (size_t n = 1; failed; n++) {
        mbl_mem_fail_at(n);
        failed = all_of_it() == MBL_ERR_MEM;
        assert_int_equal(mbl_mem_live(), live);
        assert_true(n < 100 && (failed || n > 4));
    }
    mbl_mem_fail_at(0);
    mbl_log_set_level(MBL_LOG_INFO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_standard),
        cmocka_unit_test_setup_teardown(every_kind_of_value, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_of_a_line, setup, teardown),
        cmocka_unit_test_setup_teardown(a_start_is_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_costs_events, setup, teardown),
        cmocka_unit_test_setup_teardown(survives_missing_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
