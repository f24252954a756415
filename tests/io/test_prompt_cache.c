/* src/io/prompt_cache*: records come back as they were put; damage, a full disk, other encoders and other
 * processes cost what they touch and nothing else; the files are HDF5.
 *
 * ctest-wrap: fwrite */
#include "folder_case.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"
#include "io/prompt_cache.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utime.h>

enum { BYTES = 1000, MOST = 8 };
static const char group[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char other[] = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static bool full; /* the disk */
size_t __real_fwrite(const void *data, size_t size, size_t n, FILE *file);
size_t __wrap_fwrite(const void *data, size_t size, size_t n, FILE *file);
size_t __wrap_fwrite(const void *data, size_t size, size_t n, FILE *file) {
    if (!full)
        return __real_fwrite(data, size, n, file);
    errno = ENOSPC;
    return 0;
}

static mbl_prompt_key_t key_of(int i) {
    mbl_prompt_key_t key;
    memset(&key, 0, sizeof key);
    memcpy(&key, &(int){i * 17}, sizeof i); /* alike in all but few bits */
    return key;
}

static const unsigned char *record_of(int i) {
    static unsigned char record[BYTES];
    for (size_t b = 0; b < BYTES; b++)
        record[b] = (unsigned char)(b * 7 + (size_t)i * 31);
    return record;
}

static mbl_prompt_cache_t *open_cache(const char *of) {
    mbl_prompt_cache_t *cache = NULL;
    const mbl_prompt_cache_options_t options = {folder, of, "made by a test", BYTES};
    assert_int_equal(mbl_prompt_cache_open(&options, &cache), MBL_OK);
    return cache;
}

static void put(mbl_prompt_cache_t *cache, int first, int last) {
    for (int i = first; i < last; i++) {
        mbl_prompt_key_t key = key_of(i);
        assert_int_equal(mbl_prompt_cache_put(cache, &key, record_of(i)), MBL_OK);
    }
    assert_int_equal(mbl_prompt_cache_flush(cache), MBL_OK);
}

/* Whether record i is there and what was put. */
static bool has(mbl_prompt_cache_t *cache, int i) {
    unsigned char found[BYTES];
    mbl_prompt_key_t key = key_of(i);
    if (!mbl_prompt_cache_has(cache, &key))
        return false;
    if (!mbl_prompt_cache_read(cache, &key, found)) {
        assert_false(mbl_prompt_cache_has(cache, &key));
        return false;
    }
    assert_memory_equal(found, record_of(i), BYTES);
    return true;
}

static void fresh(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
    assert_int_equal(system(command), 0);
}

/* The path of the i-th file of a group, in the order of names; false where there are fewer. */
static bool file_at(const char *of, size_t index, char out[512]) {
    char path[400];
    struct dirent **names;
    bool found = false;
    snprintf(path, sizeof path, "%s/%.16s", folder, of);
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (names[i]->d_name[0] != '.' && index-- == 0) {
            snprintf(out, 512, "%s/%.100s", path, names[i]->d_name);
            found = true;
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return found;
}

static void records_come_back(void **state) {
    char path[512];
    (void)state;
    fresh();
    mbl_prompt_cache_t *cache = open_cache(group);
    assert_false(has(cache, 0));
    put(cache, 0, 5);
    put(cache, 5, 200); /* the table of keys grows */
    assert_int_equal(mbl_prompt_cache_count(cache), 200);
    assert_int_equal(mbl_prompt_cache_written(cache), 2);
    mbl_prompt_cache_close(cache);
    cache = open_cache(group);
    assert_int_equal(mbl_prompt_cache_count(cache), 200);
    assert_int_equal(mbl_prompt_cache_written(cache), 0);
    for (int i = 0; i < 200; i++)
        assert_true(has(cache, i));
    assert_false(has(cache, 200));
    mbl_prompt_cache_close(cache);
    cache = open_cache(other); /* other encoders: their own records */
    assert_int_equal(mbl_prompt_cache_count(cache), 0);
    put(cache, 3, 4);
    mbl_prompt_cache_close(cache);
    assert_true(file_at(group, 1, path) && !file_at(group, 2, path));
    assert_true(file_at(other, 0, path) && !file_at(other, 1, path));
}

/* What another process adds is found by name at once, and by everyone who opens the folder later; of two
 * files with one key the later one counts. */
static void two_at_one_time(void **state) {
    char name[MBL_PROMPT_CACHE_NAME];
    (void)state;
    fresh();
    mbl_prompt_cache_t *one = open_cache(group), *two = open_cache(group);
    put(one, 0, 3);
    put(two, 2, 6);
    assert_false(has(two, 0));
    mbl_prompt_cache_name(one, 0, name);
    assert_true(mbl_prompt_cache_take(two, name));
    assert_true(mbl_prompt_cache_take(two, name)); /* once */
    assert_false(mbl_prompt_cache_take(two, "000009-0123456789abcdef.h5"));
    for (int i = 0; i < 6; i++)
        assert_true(has(two, i));
    assert_int_equal(mbl_prompt_cache_count(two), 6);
    mbl_prompt_cache_close(one);
    mbl_prompt_cache_close(two);
    one = open_cache(group);
    assert_int_equal(mbl_prompt_cache_count(one), 6);
    mbl_prompt_cache_close(one);
}

static void flip(const char *path, size_t at) {
    size_t size;
    char *bytes = read_whole(path, &size);
    assert_in_range(at, 0, size - 1);
    bytes[at] = (char)(bytes[at] ^ 4);
    write_whole(path, bytes, size);
    free(bytes);
}

/* Where record i begins: it is found by what it holds. */
static size_t place_of(const char *path, int i) {
    size_t size, at = 0;
    char *bytes = read_whole(path, &size);
    while (at + BYTES <= size && memcmp(bytes + at, record_of(i), BYTES) != 0)
        at++;
    assert_true(at + BYTES <= size);
    free(bytes);
    return at;
}

/* One damaged record is lost, which is found out when it is read; what is put in its place counts. */
static void a_damaged_record(void **state) {
    char path[512];
    (void)state;
    fresh();
    mbl_prompt_cache_t *cache = open_cache(group);
    put(cache, 0, 5);
    mbl_prompt_cache_close(cache);
    assert_true(file_at(group, 0, path));
    flip(path, place_of(path, 2) + 500);
    cache = open_cache(group);
    assert_int_equal(mbl_prompt_cache_count(cache), 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(has(cache, i), i != 2);
    assert_int_equal(mbl_prompt_cache_count(cache), 4);
    put(cache, 2, 3);
    assert_true(has(cache, 2));
    mbl_prompt_cache_close(cache);
    cache = open_cache(group);
    for (int i = 0; i < 5; i++)
        assert_true(has(cache, i));
    mbl_prompt_cache_close(cache);
}

/* Every cut and every damage outside the records costs the file and no other; nothing crashes. */
static void damaged_files(void **state) {
    char path[512], second[512];
    size_t size;
    (void)state;
    fresh();
    mbl_prompt_cache_t *cache = open_cache(group);
    put(cache, 0, 3);
    put(cache, 3, 5);
    mbl_prompt_cache_close(cache);
    assert_true(file_at(group, 0, path) && file_at(group, 1, second));
    char *whole = read_whole(path, &size);
    for (size_t cut = 0; cut < size; cut += cut < size - 600 ? 1999 : 97) {
        write_whole(path, whole, cut);
        cache = open_cache(group);
        assert_int_equal(mbl_prompt_cache_count(cache), 2);
        mbl_prompt_cache_close(cache);
    }
    for (size_t at = size - 384; at < size; at++) { /* the end line says where all is */
        write_whole(path, whole, size);
        flip(path, at);
        cache = open_cache(group);
        assert_int_equal(mbl_prompt_cache_count(cache), 2);
        mbl_prompt_cache_close(cache);
    }
    write_whole(path, "", 0);
    write_whole(second, whole, size); /* under another name */
    cache = open_cache(group);
    assert_int_equal(mbl_prompt_cache_count(cache), 3);
    mbl_prompt_cache_close(cache);
    free(whole);
}

/* A file of other encoders among those of this group is none of theirs. */
static void a_file_of_others(void **state) {
    char path[512], to[512];
    size_t size;
    (void)state;
    fresh();
    mbl_prompt_cache_t *cache = open_cache(other);
    put(cache, 0, 2);
    mbl_prompt_cache_close(cache);
    cache = open_cache(group);
    put(cache, 5, 6);
    mbl_prompt_cache_close(cache);
    assert_true(file_at(other, 0, path));
    char *whole = read_whole(path, &size);
    snprintf(to, sizeof to, "%s/%.16s/000007-0123456789abcdef.h5", folder, group);
    write_whole(to, whole, size);
    free(whole);
    cache = open_cache(group);
    assert_int_equal(mbl_prompt_cache_count(cache), 1);
    assert_false(has(cache, 0));
    mbl_prompt_cache_close(cache);
}

/* A full disk fails the call and leaves no part of a file; so does a process that ended, for a day. */
static void full_disks_and_remains(void **state) {
    char path[512], remains[512];
    (void)state;
    fresh();
    mbl_prompt_cache_t *cache = open_cache(group);
    put(cache, 0, 2);
    mbl_prompt_key_t key = key_of(7);
    assert_int_equal(mbl_prompt_cache_put(cache, &key, record_of(7)), MBL_OK);
    full = true;
    mbl_status_t status = mbl_prompt_cache_flush(cache);
    full = false;
    assert_failed(status, MBL_ERR_IO, "No space left on device");
    assert_false(has(cache, 7));
    assert_true(file_at(group, 0, path) && !file_at(group, 1, path));
    put(cache, 7, 8);
    mbl_prompt_cache_close(cache);
    snprintf(remains, sizeof remains, "%s/%.16s/000009-0123456789abcdef.h5.tmp-123", folder, group);
    write_whole(remains, "half", 4);
    mbl_prompt_cache_close(open_cache(group));
    assert_int_equal(access(remains, F_OK), 0);
    assert_int_equal(utime(remains, &(struct utimbuf){1000, 1000}), 0);
    cache = open_cache(group);
    assert_int_not_equal(access(remains, F_OK), 0);
    assert_int_equal(mbl_prompt_cache_count(cache), 3);
    mbl_prompt_cache_close(cache);
}

/* HDF5 reads what the cache wrote. */
static void files_are_hdf5(void **state) {
    char path[512];
    unsigned char found[3 * BYTES], keys[3 * sizeof(mbl_prompt_key_t)];
    (void)state;
    fresh();
    mbl_prompt_cache_t *cache = open_cache(group);
    put(cache, 0, 3);
    mbl_prompt_cache_close(cache);
    assert_true(file_at(group, 0, path));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0 && H5Aexists(file, "about") > 0);
    hid_t records = H5Dopen2(file, "records", H5P_DEFAULT), table = H5Dopen2(file, "keys", H5P_DEFAULT);
    assert_true(H5Dread(records, H5T_NATIVE_UCHAR, H5S_ALL, H5S_ALL, H5P_DEFAULT, found) >= 0);
    assert_true(H5Dread(table, H5T_NATIVE_UCHAR, H5S_ALL, H5S_ALL, H5P_DEFAULT, keys) >= 0);
    for (int i = 0; i < 3; i++) {
        mbl_prompt_key_t key = key_of(i);
        assert_memory_equal(found + i * BYTES, record_of(i), BYTES);
        assert_memory_equal(keys + (size_t)i * sizeof key, &key, sizeof key);
    }
    H5Dclose(records);
    H5Dclose(table);
    H5Fclose(file);
}

static void failing_memory(void **state) {
    (void)state;
    fresh();
    mbl_prompt_cache_t *first = open_cache(group);
    put(first, 0, 1);
    mbl_prompt_cache_close(first);
    for (size_t at = 1;; at++) {
        mbl_prompt_cache_t *cache = NULL;
        const mbl_prompt_cache_options_t options = {folder, group, "", BYTES};
        mbl_prompt_key_t key = key_of(9);
        size_t live = mbl_mem_live();
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_prompt_cache_open(&options, &cache);
        if (status == MBL_OK)
            status = mbl_prompt_cache_put(cache, &key, record_of(9));
        if (status == MBL_OK)
            status = mbl_prompt_cache_flush(cache);
        bool reached = mbl_mem_count() > 0;
        mbl_mem_fail_at(0);
        mbl_prompt_cache_close(cache);
        assert_int_equal(mbl_mem_live(), live);
        if (status == MBL_OK && at > 40)
            break;
        assert_true(reached);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back), cmocka_unit_test(two_at_one_time),
        cmocka_unit_test(a_damaged_record),  cmocka_unit_test(damaged_files),
        cmocka_unit_test(a_file_of_others),  cmocka_unit_test(full_disks_and_remains),
        cmocka_unit_test(files_are_hdf5),    cmocka_unit_test(failing_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
