/* A checkpoint whose trailer another program has cut off gets it again, if what is inside is whole. */
#include "base/copy.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* That a file is as long as HDF5 says it is (its superblock, versions 0 to 3): one that was cut off is not
 * shown to HDF5, which may crash on it. */
static mbl_status_t check_length(const char *path) {
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    static const size_t end_at[] = {40, 44, 28,
                                    28}; /* by version: where the end of the file stands (format II.A) */
    unsigned char head[64] = {0};
    struct stat about;
    uint64_t end = 0;
    FILE *file = fopen(path, "rb");
    bool there = file && fread(head, 1, sizeof head, file) == sizeof head && fstat(fileno(file), &about) == 0;
    if (file)
        fclose(file);
    if (!there || memcmp(head, signature, sizeof signature) != 0 || head[8] > 3)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: no HDF5 file; expected a checkpoint of marble", path);
    for (int i = 7; i >= 0; i--)
        end = end << 8 | head[end_at[head[8]] + (size_t)i];
    if (end != (uint64_t)about.st_size)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: cut off or longer than written: %lld bytes, expected the %llu of HDF5's file",
                        path, (long long)about.st_size, (unsigned long long)end);
    return MBL_OK;
}

/* Every digest inside is verified, for the message in the file itself, and in the copy that takes its place
 * with a trailer: nothing that another program writes meanwhile is vouched for. */
static mbl_status_t rewrite(const char *path) {
    char *copy = mbl_format("%s.tmp", path);
    if (!copy)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    mbl_status_t status = mbl_ckpt_verify_inside(path);
    if (status == MBL_OK)
        status = mbl_file_copy(path, copy);
    if (status == MBL_OK)
        status = mbl_ckpt_verify_inside(copy);
    if (status == MBL_OK)
        status = mbl_ckpt_finish_file(path);
    if (status != MBL_OK)
        unlink(copy);
    mbl_free(copy);
    return status;
}

mbl_status_t mbl_ckpt_repair(const char *path, bool *repaired) {
    char file[PATH_MAX], real[PATH_MAX], reason[700];
    mbl_ckpt_vouch_t vouch = MBL_CKPT_BY_NOTHING;
    MBL_REQUIRE(path && repaired, "a repair without path");
    MBL_TRY(mbl_ckpt_follow(path, file, sizeof file));
    if (!realpath(file, real))
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_ckpt_verify_file(real, &vouch);
    mbl_fail_quiet(0);
    snprintf(reason, sizeof reason, "%s", mbl_fail_message());
    *repaired = false;
    if (status == MBL_OK && vouch == MBL_CKPT_BY_TRAILER)
        return MBL_OK;
    if (status != MBL_OK &&
        vouch != MBL_CKPT_BY_NOTHING) /* it has a trailer that says the content is another */
        return MBL_FAIL(status, "%s", reason);
    MBL_TRY(check_length(real));
    MBL_TRY(rewrite(real));
    *repaired = true;
    return MBL_OK;
}
