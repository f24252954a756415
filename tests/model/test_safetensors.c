/* src/model/safetensors: round trips, a file of the Python package, every kind of damage, shards, failing
 * memory and full disks. */
#include "folder_case.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/digest.h"
#include "model/staging.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void expect_open_fails(const char *path, mbl_status_t status, const char *part) {
    mbl_st_t *st = NULL;
    mbl_status_t got = mbl_st_open(path, &st);
    assert_failed(got, status, part);
    assert_null(st);
}

/* ---- good files ---- */

static void round_trip_of_every_type(void **state) {
    (void)state;
    uint8_t u8[3] = {0, 7, 255};
    int32_t i32[2] = {-5, 1 << 30};
    int64_t i64[2] = {INT64_MIN, 77};
    float f32[6] = {1.5f, -0.0f, 3e38f, 1e-40f, -7, 0.1f};
    double f64[4] = {0.1, -1e300, 5e-324, 2};
    uint16_t bf16[5] = {0x3f80, 0xc000, 0x0001, 0x7f7f, 0x8000};
    const mbl_st_tensor_t tensors[] = {
        {"u8", MBL_U8, 1, {3}, u8},           {"i32", MBL_I32, 2, {1, 2}, i32},
        {"bf16", MBL_BF16, 1, {5}, bf16},     {"f32", MBL_F32, 3, {1, 2, 3}, f32},
        {"i64", MBL_I64, 1, {2}, i64},        {"f64", MBL_F64, 2, {2, 2}, f64},
        {"scalar", MBL_F32, 0, {0}, f32},     {"empty", MBL_F32, 2, {0, 9}, NULL},
        {"a \"name\"\n", MBL_U8, 1, {1}, u8},
    };
    enum { N = sizeof tensors / sizeof tensors[0] };
    const char *const metadata[] = {"format", "pt", "k\xc3\xa4se", "x \"y\"", NULL};
    assert_int_equal(mbl_st_write(in_folder("all.safetensors"), tensors, N, metadata), MBL_OK);
    mbl_st_t *st;
    assert_int_equal(mbl_st_open(in_folder("all.safetensors"), &st), MBL_OK);
    assert_int_equal(mbl_st_count(st), N);
    for (size_t i = 0; i < N; i++) {
        const mbl_st_entry_t *entry = mbl_st_find(st, tensors[i].name);
        assert_non_null(entry);
        assert_int_equal(entry->dtype, tensors[i].dtype);
        assert_int_equal(entry->ndim, tensors[i].ndim);
        for (int d = 0; d < entry->ndim; d++)
            assert_int_equal(entry->dim[d], tensors[i].dim[d]);
        if (entry->bytes > 0)
            assert_memory_equal(entry->data, tensors[i].data, entry->bytes);
        assert_int_equal((uintptr_t)entry->data % mbl_dtype_size(entry->dtype), 0);
    }
    assert_string_equal(mbl_st_metadata(st, "k\xc3\xa4se"), "x \"y\"");
    assert_null(mbl_st_metadata(st, "absent"));
    assert_null(mbl_st_find(st, "absent"));
    float back[6];
    double back64[4];
    assert_int_equal(mbl_st_read_f32(st, "f32", back, 6), MBL_OK);
    assert_memory_equal(back, f32, sizeof f32);
    assert_int_equal(mbl_st_read_f64(st, "f64", back64, 4), MBL_OK);
    assert_memory_equal(back64, f64, sizeof f64);
    assert_int_equal(mbl_st_read_f32(st, "bf16", back, 5), MBL_OK);
    assert_true(back[0] == 1.0f && back[1] == -2.0f);
    assert_int_equal(mbl_st_read_f32(st, "f32", back, 5), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "all.safetensors: tensor f32: 6 elements; expected 5"));
    assert_int_equal(mbl_st_read_f32(st, "i32", back, 2), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "dtype I32"));
    assert_int_equal(mbl_st_read_f64(st, "nowhere", back64, 2), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "tensor nowhere: missing"));
    mbl_st_close(st);
}

static void file_of_the_python_package(void **state) {
    (void)state;
    mbl_st_t *st;
    assert_int_equal(mbl_st_open(MBL_SOURCE_DIR "/tests/golden/types.safetensors", &st), MBL_OK);
    assert_int_equal(mbl_st_count(st), 9);
    float f32[24];
    double f64[24];
    assert_int_equal(mbl_st_read_f64(st, "f64", f64, 24), MBL_OK);
    assert_int_equal(mbl_st_read_f32(st, "f32", f32, 24), MBL_OK);
    for (int i = 0; i < 24; i++) {
        assert_true(f64[i] == i * 0.375 - 3.5);
        assert_true(f32[i] == (float)f64[i]);
    }
    assert_int_equal(mbl_st_read_f32(st, "bf16", f32, 24), MBL_OK);
    for (int i = 0; i < 24; i++) /* these values need at most 8 bits */
        assert_true(f32[i] == (float)f64[i]);
    const float half[7] = {0, -0.0f, 1, -2.5f, 65504, 0x1p-24f, 3 * 0x1p-20f};
    assert_int_equal(mbl_st_read_f32(st, "f16", f32, 10), MBL_ERR_FORMAT); /* for what comes after these */
    assert_memory_equal(f32, half, sizeof half);
    assert_non_null(
        strstr(mbl_fail_message(), "types.safetensors: tensor f16: element [7] is inf; expected"));
    assert_string_equal(mbl_st_find(st, "f16")->type, "F16");
    int64_t i64[6];
    memcpy(i64, mbl_st_find(st, "i64")->data, sizeof i64);
    assert_true(i64[0] == -2 * (INT64_C(1) << 40) && i64[5] == 3 * (INT64_C(1) << 40));
    assert_int_equal(mbl_st_find(st, "scalar")->ndim, 0);
    assert_int_equal(mbl_st_find(st, "empty")->bytes, 0);
    assert_string_equal(mbl_st_metadata(st, "na\xc3\xafve"), "\xc3\xbcn\xc3\xaf"
                                                             "code");
    mbl_st_close(st);
}

/* One number that is none among 3 x 5000, at every kind of place, in every type; and 1e300, which f32 does
 * not hold. */
/* Every finite half as IEEE 754 defines it, whole, by rows, and again after its pages were given back. */
static void halves_and_rows(void **state) {
    (void)state;
    enum { ROWS = 62, COLUMNS = 1024, N = ROWS * COLUMNS };
    static const char header[] =
        "{\"h\": {\"dtype\": \"F16\", \"shape\": [62, 1024], \"data_offsets\": [0, 126976]}}";
    static float all[N], row[COLUMNS];
    static double wide[COLUMNS], want[N];
    static unsigned char file[8 + sizeof header - 1 + 2 * N];
    file[0] = (unsigned char)(sizeof header - 1);
    memcpy(file + 8, header, sizeof header - 1);
    for (size_t i = 0; i < N; i++) {
        uint16_t bits = (uint16_t)(i < N / 2 ? i : 0x8000 + i - N / 2);
        int exponent = bits >> 10 & 31, fraction = bits & 1023;
        want[i] = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        want[i] = bits & 0x8000 ? -want[i] : want[i];
        memcpy(file + 8 + sizeof header - 1 + 2 * i, &bits, 2);
    }
    char path[300];
    mbl_st_t *st;
    snprintf(path, sizeof path, "%s/halves.safetensors", folder);
    write_whole(path, file, sizeof file);
    assert_int_equal(mbl_st_open(path, &st), MBL_OK);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(mbl_st_read_f32(st, "h", all, N), MBL_OK);
        for (size_t i = 0; i < N; i++)
            if ((double)all[i] != want[i] || !signbit(all[i]) != !signbit(want[i]))
                fail_msg("half %zu: %g, expected %g", i, (double)all[i], want[i]);
        for (size_t r = 0; r < ROWS; r++) {
            assert_int_equal(mbl_st_read_row_f32(st, "h", r, row, COLUMNS), MBL_OK);
            assert_int_equal(mbl_st_read_row_f64(st, "h", r, wide, COLUMNS), MBL_OK);
            assert_memory_equal(row, all + r * COLUMNS, sizeof row);
            assert_memory_equal(wide, want + r * COLUMNS, sizeof wide);
        }
        mbl_st_release(st, "h");
    }
    assert_int_equal(mbl_st_read_row_f32(st, "h", ROWS, row, COLUMNS), MBL_ERR_ARG);
    assert_int_equal(mbl_st_read_row_f32(st, "h", 0, row, COLUMNS - 1), MBL_ERR_ARG);
    assert_int_equal(mbl_st_read_row_f32(st, "none", 0, row, COLUMNS), MBL_ERR_ARG);
    mbl_st_close(st);
}

/* A digest and a load leave none of a large file's pages in memory. */
static void pages_are_given_back(void **state) {
    (void)state;
    enum { N = 12 << 20 };
    char digest[MBL_SHA256_HEX];
    mbl_ops_t *ops;
    mbl_st_t *st;
    mbl_tensor_t weights;
    uint16_t *values = mbl_calloc(N, sizeof *values);
    assert_non_null(values);
    const mbl_st_tensor_t tensors[] = {{"a", MBL_BF16, 1, {N / 4}, values}, {"b", MBL_BF16, 1, {N}, values}};
    assert_int_equal(mbl_st_write(in_folder("large.safetensors"), tensors, 2, NULL), MBL_OK);
    assert_int_equal(mbl_ops_open("cpu", 1, &ops), MBL_OK);
    assert_int_equal(mbl_tensor_new(ops, MBL_BF16, &weights, 1, (size_t)N), MBL_OK);
    assert_int_equal(mbl_st_open(in_folder("large.safetensors"), &st), MBL_OK);
    const size_t before = resident("RssFile");
    assert_int_equal(mbl_digest_tensors(st, 1, NULL, digest), MBL_OK);
    assert_in_range(resident("RssFile"), 0, before + (1 << 20));
    assert_int_equal(mbl_staging_load(ops, st, "b", &weights, 0), MBL_OK);
    assert_in_range(resident("RssFile"), 0, before + (2 << 20));
    mbl_st_close(st);
    mbl_tensor_free(ops, &weights);
    mbl_ops_close(ops);
    mbl_free(values);
}

static void what_is_not_finite_is_named(void **state) {
    (void)state;
    enum { ROWS = 3, COLUMNS = 5000, N = ROWS * COLUMNS };
    static float f32[N];
    static double f64[N], back[N];
    static uint16_t bf16[N];
    static const size_t places[] = {0, 4095, 4096, 9999, N - 1};
    static const double values[] = {NAN, INFINITY, -INFINITY, 1e300};
    for (size_t p = 0; p < 8; p++) {
        size_t at_fault = places[p % 5], v = p % 4;
        char says[100];
        f64[at_fault] = values[v];
        f32[at_fault] = (float)values[v];
        bf16[at_fault] = isnan(values[v]) ? 0x7fc0 : values[v] > 0 ? 0x7f80 : 0xff80;
        const mbl_st_tensor_t tensors[] = {{"f32", MBL_F32, 2, {ROWS, COLUMNS}, f32},
                                           {"f64", MBL_F64, 2, {ROWS, COLUMNS}, f64},
                                           {"bf16", MBL_BF16, 2, {ROWS, COLUMNS}, bf16}};
        assert_int_equal(mbl_st_write(in_folder("odd.safetensors"), tensors, 3, NULL), MBL_OK);
        mbl_st_t *st;
        assert_int_equal(mbl_st_open(in_folder("odd.safetensors"), &st), MBL_OK);
        for (int t = 0; t < 3; t++) {
            bool holds = t == 1 && values[v] == 1e300; /* f64 does */
            snprintf(says, sizeof says, "odd.safetensors: tensor %s: element [%zu, %zu] is %g; expected",
                     tensors[t].name, at_fault / COLUMNS, at_fault % COLUMNS,
                     t == 1 ? values[v] : (double)(float)values[v]);
            assert_int_equal(mbl_st_read_f32(st, tensors[t].name, (float *)(void *)back, N), MBL_ERR_FORMAT);
            assert_non_null(strstr(mbl_fail_message(), says));
            assert_int_equal(mbl_st_read_f64(st, tensors[t].name, back, N), holds ? MBL_OK : MBL_ERR_FORMAT);
        }
        mbl_st_close(st);
        f64[at_fault] = 0;
        f32[at_fault] = 0;
        bf16[at_fault] = 0;
    }
}

/* ---- damaged files ---- */

/* Writes a file of the given header, of `data` bytes behind it, claiming a header of `claimed` bytes (0:
 * true). */
static void write_st(const char *path, const char *header, size_t data, uint64_t claimed) {
    size_t length = strlen(header), size = 8 + length + data;
    unsigned char *bytes = calloc(1, size);
    assert_non_null(bytes);
    uint64_t number = claimed ? claimed : length;
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(number >> 8 * i);
    memcpy(bytes + 8, header, length);
    write_whole(path, bytes, size);
    free(bytes);
}

static void damage_is_named(void **state) {
    (void)state;
#define ENTRY(dtype, shape, offsets) "\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets
    static const struct {
        const char *header, *part;
        size_t data;
        uint64_t claimed;
    } cases[] = {
        {"{}      ", "truncated", 0, 9},
        {"{}      ", "truncated", 0, UINT64_MAX},
        {"{}      ", "truncated", 0, (uint64_t)1 << 63},
        {"[]      ", "does not begin with {", 0, 0},
        {"{\"a\":  ", "not valid JSON", 0, 0},
        {"{} trailing", "not valid JSON", 0, 0},
        {"{\"a\":{},\"a\":{}}", "duplicate", 0, 0},
        {"{\"a\\u0000b\":{}}", "not valid JSON", 0, 0},
        {"{\"\xff\xfe\":{}}", "not valid JSON", 0, 0},
        {"{\"a\":7}    ", "no object", 0, 0},
        {"{\"a\":{" ENTRY("F8_E4M3FN", "[4]", "[0,4]") "}}", "dtype \"F8_E4M3FN\"", 4, 0},
        {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", "dtype", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}}", "at most 8", 4, 0},
        {"{\"a\":{" ENTRY("F32", "4", "[0,4]") "}}", "shape must be an array", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[-1]", "[0,4]") "}}", "dimension 0", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1.0]", "[0,4]") "}}", "dimension 0", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[99999999999999999999]", "[0,4]") "}}", "not valid JSON", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[4611686018427387905]", "[0,4]") "}}", "larger than any memory", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[4294967296,4294967296]", "[0,0]") "}}", "larger than any memory", 0, 0},
        {"{\"a\":{" ENTRY("F32", "[2]", "[0,4]") "}}", "4 bytes of data, its shape and dtype need 8", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[4,0]") "}}", "data_offsets [4, 0]", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[-4,0]") "}}", "data_offsets [-4, 0]", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[2,6]") "}}", "data_offsets [2, 6] in 4 bytes", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[0]") "}}", "must be two numbers", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "{}") "}}", "must be two numbers", 4, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[0,4]") "},\"b\":{" ENTRY("F32", "[1]", "[0,4]") "}}", "overlaps", 4,
         0},
        {"{\"a\":{" ENTRY("F32", "[2]", "[0,8]") "},\"b\":{" ENTRY("F32", "[1]", "[4,8]") "}}", "overlaps", 8,
         0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[4,8]") "}}", "follows a hole", 8, 0},
        {"{\"a\":{" ENTRY("F32", "[1]", "[0,4]") "}}", "4 bytes of data belong to no tensor", 8, 0},
        {"{\"__metadata__\":[]}", "__metadata__ is no object", 0, 0},
        {"{\"__metadata__\":{\"k\":1}}", "__metadata__.k is no string", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_st(in_folder("bad.safetensors"), cases[i].header, cases[i].data, cases[i].claimed);
        expect_open_fails(in_folder("bad.safetensors"), MBL_ERR_FORMAT, cases[i].part);
        assert_non_null(strstr(mbl_fail_message(), "bad.safetensors"));
    }
    enum { DEEP = 100000 };
    char *deep = calloc(1, DEEP + 1);
    assert_non_null(deep);
    memset(deep, '[', DEEP);
    memcpy(deep, "{\"a\":", 5);
    write_st(in_folder("bad.safetensors"), deep, 0, 0);
    free(deep);
    expect_open_fails(in_folder("bad.safetensors"), MBL_ERR_FORMAT, "not valid JSON");
    expect_open_fails(in_folder("nowhere.safetensors"), MBL_ERR_IO, "cannot be opened");
    expect_open_fails(folder, MBL_ERR_IO, "holds neither");
    expect_open_fails("/dev/null", MBL_ERR_IO, "not a regular file");
}

static void any_truncation_is_found(void **state) {
    (void)state;
    size_t size;
    char *bytes = read_whole(MBL_SOURCE_DIR "/tests/golden/types.safetensors", &size);
    for (size_t n = 0; n < size; n++) {
        mbl_st_t *st;
        write_whole(in_folder("cut.safetensors"), bytes, n);
        mbl_status_t status = mbl_st_open(in_folder("cut.safetensors"), &st);
        if (status != MBL_ERR_FORMAT)
            fail_msg("cut to %zu of %zu bytes: %s", n, size, mbl_status_name(status));
    }
    free(bytes);
}

/* Sums every byte the reader hands out, so that a sanitizer sees any range that is not there. */
static unsigned touch(const mbl_st_t *st) {
    unsigned sum = 0;
    for (size_t i = 0; i < mbl_st_count(st); i++) {
        const mbl_st_entry_t *entry = mbl_st_at(st, i);
        size_t count = entry->bytes / mbl_dtype_size(entry->dtype);
        float *values = calloc(count + 1, sizeof *values);
        assert_non_null(values);
        for (size_t b = 0; b < entry->bytes; b++)
            sum += ((const unsigned char *)entry->data)[b];
        if (mbl_st_read_f32(st, entry->name, values, count) == MBL_OK && count > 0)
            sum += values[count - 1] > 0;
        free(values);
    }
    return sum;
}

/* Bytes flipped, digits and brackets swapped, pieces cut out and doubled: never a crash, never a leak. */
static void mutations_never_crash(void **state) {
    (void)state;
    enum { ROUNDS = 20000 };
    size_t size, accepted = 0, live = mbl_mem_live();
    char *bytes = read_whole(MBL_SOURCE_DIR "/tests/golden/types.safetensors", &size);
    char *mutant = calloc(1, 2 * size);
    assert_non_null(mutant);
    mbl_rng_t rng = mbl_rng(5, MBL_RNG_STUDY, 0, 0);
    static const char alphabet[] = "0123456789-[]{},:\"eF\\u";
    for (int round = 0; round < ROUNDS; round++) {
        size_t n = size, header = 8 + (unsigned char)bytes[0] + 256u * (unsigned char)bytes[1];
        memcpy(mutant, bytes, size);
        for (uint32_t edits = 1 + mbl_rng_below(&rng, 3); edits > 0; edits--) {
            size_t from = mbl_rng_below(&rng, (uint32_t)header), length = 1 + mbl_rng_below(&rng, 24);
            switch (mbl_rng_below(&rng, 4)) {
            case 0:
                mutant[from] = (char)mbl_rng_below(&rng, 256);
                break;
            case 1:
                mutant[from] = alphabet[mbl_rng_below(&rng, sizeof alphabet - 1)];
                break;
            case 2:
                if (from + length < n)
                    memmove(mutant + from, mutant + from + length, n - from - length), n -= length;
                break;
            default:
                if (from + length < n && n + length <= 2 * size)
                    memmove(mutant + from + length, mutant + from, n - from), n += length;
            }
        }
        mbl_st_t *st;
        write_whole(in_folder("mutant.safetensors"), mutant, n);
        mbl_status_t status = mbl_st_open(in_folder("mutant.safetensors"), &st);
        if (status == MBL_OK) {
            touch(st);
            mbl_st_close(st);
            accepted++;
        } else {
            assert_int_equal(status, MBL_ERR_FORMAT);
        }
    }
    free(mutant);
    free(bytes);
    assert_int_equal(mbl_mem_live(), live);
    assert_in_range(accepted, 1, ROUNDS / 2); /* some only change a name or a digit that is free */
}

/* ---- sets ---- */

static void write_index(const char *map) {
    char text[1024];
    int n = snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": 24}, \"weight_map\": %s}", map);
    write_whole(in_folder("model.safetensors.index.json"), text, (size_t)n);
}

static void sharded_sets(void **state) {
    (void)state;
    const float a[2] = {1, 2}, b[4] = {3, 4, 5, 6};
    const mbl_st_tensor_t first = {"a", MBL_F32, 1, {2}, a}, second = {"b", MBL_F32, 1, {4}, b};
    assert_int_equal(mbl_st_write(in_folder("m-1.safetensors"), &first, 1, NULL), MBL_OK);
    assert_int_equal(mbl_st_write(in_folder("m-2.safetensors"), &second, 1, NULL), MBL_OK);
    write_index("{\"a\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\"}");
    mbl_st_t *st;
    assert_int_equal(mbl_st_open(folder, &st), MBL_OK);
    float back[4];
    assert_int_equal(mbl_st_count(st), 2);
    assert_int_equal(mbl_st_read_f32(st, "b", back, 4), MBL_OK);
    assert_memory_equal(back, b, sizeof b);
    assert_int_equal(mbl_st_read_f32(st, "a", back, 2), MBL_OK);
    assert_memory_equal(back, a, sizeof a);
    mbl_st_close(st);
    static const struct {
        const char *map, *part;
        mbl_status_t status;
    } cases[] = {
        {"{\"a\": \"m-1.safetensors\", \"b\": \"m-3.safetensors\"}", "m-3.safetensors: cannot be opened",
         MBL_ERR_IO},
        {"{\"a\": \"m-1.safetensors\", \"b\": \"m-1.safetensors\"}", "tensor b is not in m-1.safetensors",
         MBL_ERR_FORMAT},
        {"{\"a\": \"m-2.safetensors\", \"b\": \"m-1.safetensors\"}", "tensor a is not in m-2.safetensors",
         MBL_ERR_FORMAT},
        {"{\"a\": \"../m-1.safetensors\"}", "is no file name", MBL_ERR_FORMAT},
        {"{\"a\": 5}", "is no file name", MBL_ERR_FORMAT},
        {"{}", "weight_map", MBL_ERR_FORMAT},
        {"7", "weight_map", MBL_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_index(cases[i].map);
        expect_open_fails(folder, cases[i].status, cases[i].part);
    }
    assert_int_equal(mbl_st_write(in_folder("m-2.safetensors"), &first, 1, NULL), MBL_OK);
    write_index("{\"a\": \"m-1.safetensors\", \"c\": \"m-2.safetensors\"}");
    expect_open_fails(folder, MBL_ERR_FORMAT, "tensor a is there twice");
}

/* ---- failing memory, failing disks ---- */

static void survives_failing_memory(void **state) {
    (void)state;
    const float a[2] = {1, 2};
    const mbl_st_tensor_t tensor = {"a", MBL_F32, 1, {2}, a};
    assert_int_equal(mbl_st_write(in_folder("s-1.safetensors"), &tensor, 1, NULL), MBL_OK);
    write_index("{\"a\": \"s-1.safetensors\"}");
    const char *paths[] = {MBL_SOURCE_DIR "/tests/golden/types.safetensors", folder};
    for (int p = 0; p < 2; p++) {
        size_t live = mbl_mem_live(), n = 1;
        for (;; n++) {
            mbl_st_t *st = NULL;
            mbl_mem_fail_at(n);
            mbl_status_t status = mbl_st_open(paths[p], &st);
            mbl_mem_fail_at(0);
            if (status == MBL_OK) {
                mbl_st_close(st);
                break;
            }
            assert_int_equal(status, MBL_ERR_MEM);
            assert_int_equal(mbl_mem_live(), live);
        }
        assert_in_range(n, 5, 100);
        assert_int_equal(mbl_mem_live(), live);
    }
}

static void full_disk_keeps_the_old_file(void **state) {
    (void)state;
    static float large[1 << 16];
    const float small[1] = {9};
    const mbl_st_tensor_t old = {"a", MBL_F32, 1, {1}, small}, new = {"a", MBL_F32, 1, {1 << 16}, large};
    assert_int_equal(mbl_st_write(in_folder("kept.safetensors"), &old, 1, NULL), MBL_OK);
    struct rlimit before, tight;
    getrlimit(RLIMIT_FSIZE, &before);
    tight = before;
    tight.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &tight);
    mbl_status_t status = mbl_st_write(in_folder("kept.safetensors"), &new, 1, NULL);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "kept.safetensors: writing failed"));
    mbl_st_t *st;
    float back;
    assert_int_equal(mbl_st_open(in_folder("kept.safetensors"), &st), MBL_OK);
    assert_int_equal(mbl_st_read_f32(st, "a", &back, 1), MBL_OK);
    assert_true(back == 9);
    mbl_st_close(st);
    char command[512];
    snprintf(command, sizeof command, "! ls '%s' | grep -q tmp", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(mbl_st_write(in_folder("no/such/folder.safetensors"), &old, 1, NULL), MBL_ERR_IO);
    const mbl_st_tensor_t twice[2] = {old, old};
    assert_int_equal(mbl_st_write(in_folder("twice.safetensors"), twice, 2, NULL), MBL_ERR_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_of_every_type),
        cmocka_unit_test(file_of_the_python_package),
        cmocka_unit_test(pages_are_given_back),
        cmocka_unit_test(halves_and_rows),
        cmocka_unit_test(what_is_not_finite_is_named),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(any_truncation_is_found),
        cmocka_unit_test(mutations_never_crash),
        cmocka_unit_test(sharded_sets),
        cmocka_unit_test(survives_failing_memory),
        cmocka_unit_test(full_disk_keeps_the_old_file),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
