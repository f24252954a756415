/* src/io/checkpoint_read.c behind the trailer: files whose digest is right and whose content is not what
 * marble writes are refused by name and overrun nothing. tests/proofs/fuzz_content.c makes such files at
 * random. */
#include "support.h"
#include "io/checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ODD_VERSION = 1, ODD_TEXT = 2, ODD_DIGEST = 4, NOT_STORED = 8, NO_SPACE = 16 };

static void put(hid_t object, const char *key, hid_t type, hsize_t count, const void *value) {
    hid_t space = count ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR);
    hid_t attr = H5Acreate2(object, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attr, type, value) >= 0);
    H5Aclose(attr);
    H5Sclose(space);
}

static hid_t text_type(size_t length) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, length);
    return type;
}

static void put_attributes(hid_t file, unsigned odd) {
    static const int version[64] = {MBL_CHECKPOINT_VERSION};
    static const char texts[4096] = "7";
    const mbl_ckpt_attr_t step = {"step", "7"};
    char digest[MBL_SHA256_HEX];
    hid_t type = text_type(2), hex = text_type(MBL_SHA256_HEX - 1);
    put(file, MBL_CKPT_VERSION_KEY, H5T_NATIVE_INT, odd & ODD_VERSION ? 64 : 0, version);
    put(file, "step", type, odd & ODD_TEXT ? 2000 : 0, texts);
    mbl_ckpt_attrs_digest(&step, 1, digest);
    put(file, MBL_CKPT_ATTRS_KEY, hex, 0, digest);
    H5Tclose(type);
    H5Tclose(hex);
}

static void put_dataset(hid_t file, unsigned odd) {
    static const float values[4] = {1, 2, 3, 4};
    char digest[100 * MBL_SHA256_HEX] = "";
    hsize_t count = odd & NOT_STORED ? (hsize_t)1 << 50 : 4;
    hid_t space = odd & NO_SPACE ? H5Screate(H5S_NULL) : H5Screate_simple(1, &count, NULL);
    hid_t hex = text_type(MBL_SHA256_HEX - 1);
    hid_t data = H5Dcreate2(file, "m", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (!(odd & (NOT_STORED | NO_SPACE)))
        assert_true(H5Dwrite(data, H5T_IEEE_F32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    mbl_sha256_text(values, sizeof values, digest);
    put(data, MBL_CKPT_DIGEST_KEY, hex, odd & ODD_DIGEST ? 100 : 0, digest);
    H5Dclose(data);
    H5Sclose(space);
    H5Tclose(hex);
}

static void write_odd(const char *path, unsigned odd) {
    void *memory = NULL;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    mbl_ckpt_quiet_hdf5();
    H5Pset_fapl_core(access, 1 << 16, false);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    put_attributes(file, odd);
    put_dataset(file, odd);
    assert_true(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0);
    ssize_t size = H5Fget_file_image(file, NULL, 0);
    assert_true(H5Fget_vfd_handle(file, H5P_DEFAULT, &memory) >= 0);
    assert_int_equal(mbl_ckpt_write_file(path, *(unsigned char **)memory, (size_t)size), MBL_OK);
    H5Fclose(file);
    H5Pclose(access);
}

static void check(unsigned odd, const char *reason) {
    char folder[256], path[300];
    mbl_ckpt_t *ckpt = NULL;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/odd.h5", folder);
    write_odd(path, odd);
    mbl_status_t status = mbl_ckpt_open(path, &ckpt), want = reason ? MBL_ERR_FORMAT : MBL_OK;
    if (status != want || (reason && !strstr(mbl_fail_message(), reason)))
        fail_msg("oddity %u: status %d, \"%s\"; expected %d with \"%s\"", odd, (int)status,
                 status == MBL_OK ? "" : mbl_fail_message(), (int)want, reason ? reason : "");
    if (status == MBL_OK)
        assert_string_equal(mbl_ckpt_attr(ckpt, "step"), "7");
    mbl_ckpt_close(ckpt);
    remove_folder(folder);
}

static void nothing_odd_is_read(void **state) {
    (void)state;
    check(0, NULL);
}

static void several_values_in_one_are_refused(void **state) {
    (void)state;
    check(ODD_VERSION, "attribute format_version is not 1");
    check(ODD_TEXT, "attribute step cannot be read as text");
    check(ODD_DIGEST, "dataset m is damaged");
}

static void missing_values_are_refused(void **state) {
    (void)state;
    check(NOT_STORED, "dataset m: 1125899906842624 elements, of which the file has no more than 0");
    check(NO_SPACE, "dataset m is not a list");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_odd_is_read),
        cmocka_unit_test(several_values_in_one_are_refused),
        cmocka_unit_test(missing_values_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
