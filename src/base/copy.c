/* Copies of files and folders. */
#include "base/copy.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_BYTES = 1 << 20, MAX_DEPTH = 16 };

mbl_status_t mbl_file_copy(const char *from, const char *to) {
    unsigned char *block;
    mbl_file_writer_t writer;
    mbl_status_t status;
    FILE *file = fopen(from, "rb");
    if (!file)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", from, strerror(errno));
    MBL_ALLOC_GOTO(block, BLOCK_BYTES, close_file);
    MBL_TRY_GOTO(mbl_file_begin(to, &writer), free_block);
    for (size_t n; status == MBL_OK && (n = fread(block, 1, BLOCK_BYTES, file)) > 0;)
        status = mbl_file_put(&writer, block, n);
    if (status == MBL_OK && ferror(file)) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be read: %s", from, strerror(errno));
        mbl_file_discard(&writer);
    }
    if (status == MBL_OK)
        status = mbl_file_commit(&writer);
free_block:
    mbl_free(block);
close_file:
    fclose(file);
    return status;
}

static mbl_status_t copy_folder(const char *from, const char *to, const char *except, int depth);

static mbl_status_t copy_entry(const char *from, const char *to, const char *name, int depth) {
    char *source = mbl_format("%s/%s", from, name), *target = mbl_format("%s/%s", to, name);
    mbl_status_t status;
    if (!source || !target)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", from);
    else
        status = mbl_folder_exists(source) ? copy_folder(source, target, NULL, depth + 1)
                                           : mbl_file_copy(source, target);
    mbl_free(source);
    mbl_free(target);
    return status;
}

static mbl_status_t copy_folder(const char *from, const char *to, const char *except, int depth) {
    mbl_status_t status = MBL_OK;
    if (depth > MAX_DEPTH)
        return MBL_FAIL(MBL_ERR_IO, "%s: folders in folders, more than %d deep", from, MAX_DEPTH);
    DIR *dir = opendir(from);
    if (!dir)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", from, strerror(errno));
    status = mbl_folder_make(to);
    for (struct dirent *entry; status == MBL_OK && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && (!except || strcmp(name, except) != 0))
            status = copy_entry(from, to, name, depth);
    }
    closedir(dir);
    return status;
}

mbl_status_t mbl_folder_copy(const char *from, const char *to, const char *except) {
    MBL_REQUIRE(from && to, "folder_copy: from and to must be given");
    return copy_folder(from, to, except, 0);
}
