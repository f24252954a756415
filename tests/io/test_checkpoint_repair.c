/* src/io/checkpoint_seal and checkpoint_repair: checkpoints that another program has opened for writing are
 * whole by the digest inside them, what it has changed is noticed, and a trailer is written again only over
 * content that verifies. */
#include "support.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 300000 };
static char folder[256], path[400];
static float numbers[N];

static int prepare(void **state) {
    (void)state;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    for (size_t i = 0; i < N; i++)
        numbers[i] = (float)i * 0.5f - 7;
    mbl_fail_quiet(1);
    return 0;
}

static int tidy(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static const mbl_ckpt_item_t items[] = {{"adapter/current", MBL_F32, N, numbers},
                                        {"optimizer/m", MBL_F32, 5, numbers}};
static const mbl_ckpt_attr_t attrs[] = {{"kind", "train"}, {"step", "1"}};

static void write_fresh(void) {
    assert_int_equal(mbl_ckpt_write(path, items, 2, attrs, 2), MBL_OK);
}

/* Opens for writing as other programs do, changes something or nothing, and closes. */
static void open_for_writing(void (*change)(hid_t file)) {
    mbl_ckpt_quiet_hdf5();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, false, true);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, access);
    assert_true(file >= 0);
    if (change)
        change(file);
    assert_true(H5Fclose(file) >= 0);
    H5Pclose(access);
}

static void check_content(bool trailer) {
    mbl_ckpt_t *ckpt;
    static float back[N];
    if (mbl_ckpt_open(path, &ckpt) != MBL_OK)
        fail_msg("%s", mbl_fail_message());
    assert_int_equal(mbl_ckpt_has_trailer(ckpt), trailer);
    assert_int_equal(mbl_ckpt_read(ckpt, "adapter/current", MBL_F32, N, back), MBL_OK);
    assert_memory_equal(back, numbers, sizeof numbers);
    assert_string_equal(mbl_ckpt_attr(ckpt, "step"), "1");
    mbl_ckpt_close(ckpt);
}

static void refused(mbl_status_t status, const char *part) {
    /* HDF5's own checksum may meet a flipped bit first: an error of reading */
    if ((status != MBL_ERR_FORMAT && status != MBL_ERR_IO) || !strstr(mbl_fail_message(), part) ||
        !strstr(mbl_fail_message(), "step-000001.h5"))
        fail_msg("%s \"%s\", expected ERR_FORMAT with \"%s\"", mbl_status_name(status), mbl_fail_message(),
                 part);
}

/* Neither opens nor is repaired, and stays as it is. */
static void stays_refused(const char *open_part, const char *repair_part) {
    size_t before, after;
    bool repaired = true;
    mbl_ckpt_t *ckpt;
    char *was = read_whole(path, &before);
    refused(mbl_ckpt_open(path, &ckpt), open_part);
    refused(mbl_ckpt_repair(path, &repaired), repair_part);
    assert_false(repaired);
    char *is = read_whole(path, &after);
    assert_int_equal(before, after);
    assert_memory_equal(was, is, before);
    free(was);
    free(is);
    char temporary[420];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    assert_false(mbl_file_exists(temporary));
}

static void repair_well(bool wanted) {
    bool repaired;
    if (mbl_ckpt_repair(path, &repaired) != MBL_OK)
        fail_msg("%s", mbl_fail_message());
    assert_int_equal(repaired, wanted);
}

static void opened_and_closed_is_whole(void **state) {
    char newest[512], log[300];
    bool found;
    (void)state;
    write_fresh();
    check_content(true);
    repair_well(false);
    open_for_writing(NULL);
    snprintf(log, sizeof log, "%s/log", folder);
    assert_int_equal(mbl_log_open(log), MBL_OK);
    check_content(false);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    char *said = read_whole(log, NULL);
    assert_non_null(
        strstr(said, "step-000001.h5: another program has opened it for writing and cut off its trailer"));
    assert_non_null(strstr(said, "marble inspect --repair"));
    free(said);
    assert_int_equal(mbl_ckpt_latest(folder, NULL, newest, sizeof newest, &found), MBL_OK);
    assert_true(found);
    repair_well(true);
    check_content(true);
    repair_well(false);
}

/* With parallel writers the file is laid out first, and digested when all have written. */
static void a_file_finished_later_is_whole_too(void **state) {
    (void)state;
    assert_int_equal(mbl_ckpt_make(path, items, 2, attrs, 2, NULL, mbl_ckpt_write_skeleton), MBL_OK);
    assert_int_equal(mbl_ckpt_finish_file(path), MBL_OK);
    check_content(true);
    open_for_writing(NULL);
    check_content(false);
    size_t size;
    write_fresh();
    char *once = read_whole(path, &size);
    assert_int_equal(mbl_ckpt_make(path, items, 2, attrs, 2, NULL, mbl_ckpt_write_skeleton), MBL_OK);
    assert_int_equal(mbl_ckpt_finish_file(path), MBL_OK);
    size_t again_size;
    char *again = read_whole(path, &again_size);
    assert_int_equal(size, again_size);
    assert_memory_equal(once, again, size);
    free(once);
    free(again);
}

/* ---- changed ---- */

static void change_a_value(hid_t file) {
    float value = 1234;
    hsize_t at = 77, one = 1;
    hid_t data = H5Dopen2(file, "adapter/current", H5P_DEFAULT), space = H5Dget_space(data);
    hid_t memory = H5Screate_simple(1, &one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, NULL, &one, NULL);
    assert_true(H5Dwrite(data, H5T_IEEE_F32LE, memory, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(data);
}

static void put_number(hid_t object, const char *name) {
    int value = 3;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attr = H5Acreate2(object, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attr >= 0 && H5Awrite(attr, H5T_NATIVE_INT, &value) >= 0);
    H5Aclose(attr);
    H5Sclose(space);
}

static void add_an_attribute(hid_t file) {
    put_number(file, "mine");
}

static void add_a_dataset(hid_t file) {
    hsize_t n = 4;
    hid_t space = H5Screate_simple(1, &n, NULL);
    hid_t data = H5Dcreate2(file, "mine", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(data >= 0 && H5Dwrite(data, H5T_IEEE_F32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    H5Dclose(data);
    H5Sclose(space);
}

static void note_on_a_dataset(hid_t file) {
    hid_t data = H5Dopen2(file, "optimizer/m", H5P_DEFAULT);
    put_number(data, "note");
    H5Dclose(data);
}

static void changes_are_noticed(void **state) {
    static const char hint[] = "marble inspect --repair";
    (void)state;
    write_fresh();
    open_for_writing(change_a_value);
    stays_refused(hint, "dataset adapter/current is damaged");
    write_fresh();
    open_for_writing(add_an_attribute);
    stays_refused(hint, "attribute");
    write_fresh();
    open_for_writing(add_a_dataset);
    stays_refused(hint, "dataset mine is damaged");
    /* what is no value of marble's changes nothing: the digests of all values vouch, once they have been
     * asked */
    mbl_ckpt_t *ckpt;
    write_fresh();
    open_for_writing(note_on_a_dataset);
    refused(mbl_ckpt_open(path, &ckpt), hint);
    repair_well(true);
    check_content(true);
    open_for_writing(NULL);
    check_content(false); /* the digest inside is of the file as it is now */
}

static void what_is_cut_off_or_flipped_is_refused(void **state) {
    size_t size;
    mbl_ckpt_t *ckpt;
    (void)state;
    write_fresh();
    open_for_writing(NULL);
    char *whole = read_whole(path, &size);
    static const size_t left[] = {0, 1, 8, 63, 200, 4096, N};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        write_whole(path, whole, left[i]);
        stays_refused(left[i] ? "cut off, or no checkpoint" : "",
                      left[i] < 64 ? "no HDF5 file" : "cut off or longer than written");
    }
    write_whole(path, whole, size - 1);
    stays_refused("cut off, or no checkpoint", "cut off or longer than written");
    const char *value = memmem(whole, size, numbers + 1000, 64);
    assert_non_null(value);
    whole[value - whole] ^= 1;
    write_whole(path, whole, size);
    stays_refused("marble inspect --repair", "dataset adapter/current");
    whole[value - whole] ^= 1;
    write_whole(path, whole, size);
    check_content(false);
    /* a trailer that says another thing is not written over */
    write_fresh();
    char *with = read_whole(path, &size);
    value = memmem(with, size, numbers + 1000, 64);
    with[value - with] ^= 1;
    write_whole(path, with, size);
    stays_refused("damaged: its bytes have digest", "damaged: its bytes have digest");
    free(with);
    free(whole);
    write_whole(path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n", 65);
    refused(mbl_ckpt_open(path, &ckpt), "a pointer of git-lfs");
}

static void put_text(hid_t file, const char *key, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text));
    if (H5Aexists(file, key) > 0)
        H5Adelete(file, key);
    hid_t attribute = H5Acreate2(file, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void change_step(hid_t file) {
    put_text(file, "step", "2");
}

static void add_note(hid_t file) {
    put_text(file, "note", "mine");
}

/* Which of them it was is not known; a new one shows among the names. */
static void delete_a_dataset(hid_t file) {
    assert_true(H5Ldelete(file, "optimizer/m", H5P_DEFAULT) >= 0);
}

/* What is left has its digests, but a dataset is gone. */
static void a_deleted_dataset_is_not_repaired(void **state) {
    (void)state;
    write_fresh();
    open_for_writing(delete_a_dataset);
    stays_refused("marble inspect --repair", "has 1 datasets; expected the 2 that marble wrote");
}

static void changed_attributes_are_not_repaired(void **state) {
    (void)state;
    write_fresh();
    open_for_writing(change_step);
    stays_refused("marble inspect --repair",
                  "its attributes (kind, step) are not those that marble wrote: one "
                  "was changed, added or left out");
    write_fresh();
    open_for_writing(add_note);
    stays_refused("marble inspect --repair", "its attributes (kind, note, step) are not those");
}

/* Checkpoints of versions that put no digest inside. */
static void older_files_are_repaired_by_their_datasets(void **state) {
    size_t size;
    mbl_ckpt_t *ckpt;
    (void)state;
    write_fresh();
    open_for_writing(NULL);
    char *whole = read_whole(path, &size), *text = memmem(whole, size, "marble: sha256", 14);
    assert_non_null(text);
    memcpy(text, "(no)", 4);
    write_whole(path, whole, size);
    free(whole);
    refused(mbl_ckpt_open(path, &ckpt), "marble inspect --repair");
    repair_well(true);
    check_content(true);
}

static void links_stay_links(void **state) {
    char link[400], target[64] = "";
    bool repaired;
    (void)state;
    write_fresh();
    open_for_writing(NULL);
    snprintf(link, sizeof link, "%s/latest.h5", folder);
    assert_int_equal(symlink("step-000001.h5", link), 0);
    assert_int_equal(mbl_ckpt_repair(link, &repaired), MBL_OK);
    assert_true(repaired);
    assert_int_equal(readlink(link, target, sizeof target - 1), 14);
    assert_string_equal(target, "step-000001.h5");
    check_content(true);
}

static void no_memory_is_survived(void **state) {
    size_t live = mbl_mem_live(), failures = 0;
    (void)state;
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t at = 1;; at++) {
        bool repaired;
        write_fresh();
        open_for_writing(NULL);
        size_t before = mbl_mem_count();
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_ckpt_repair(path, &repaired);
        mbl_mem_fail_at(0);
        assert_int_equal(mbl_mem_live(), live);
        if (mbl_mem_count() - before < at)
            break;
        failures += status != MBL_OK;
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        mbl_ckpt_t *ckpt; /* as it was, or repaired: the last thing to fail is the sync of the folder */
        assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
        mbl_ckpt_close(ckpt);
    }
    mbl_log_set_level(MBL_LOG_INFO);
    assert_true(failures > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opened_and_closed_is_whole),
        cmocka_unit_test(a_file_finished_later_is_whole_too),
        cmocka_unit_test(changes_are_noticed),
        cmocka_unit_test(what_is_cut_off_or_flipped_is_refused),
        cmocka_unit_test(changed_attributes_are_not_repaired),
        cmocka_unit_test(a_deleted_dataset_is_not_repaired),
        cmocka_unit_test(older_files_are_repaired_by_their_datasets),
        cmocka_unit_test(links_stay_links),
        cmocka_unit_test(no_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, prepare, tidy);
}
