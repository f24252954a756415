/* Whole files and folders. */
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char lfs_start[] = "version https://git-lfs.github.com/spec/";
enum { LFS_BYTES = 1024 }; /* pointers are shorter (git-lfs' own limit) */

bool mbl_is_lfs_pointer(const void *data, size_t size) {
    return size < LFS_BYTES && size > sizeof lfs_start && memcmp(data, lfs_start, sizeof lfs_start - 1) == 0;
}

mbl_status_t mbl_lfs_pointer_found(const char *path, const void *data, size_t size) {
    char text[LFS_BYTES + 1] = "";
    unsigned long long bytes = 0;
    memcpy(text, data, size < LFS_BYTES ? size : LFS_BYTES);
    const char *line = strstr(text, "\nsize ");
    if (line)
        (void)sscanf(line, "\nsize %llu", &bytes);
    return MBL_FAIL(MBL_ERR_FORMAT,
                    "%s: a pointer of git-lfs, not the file itself (of %llu bytes), which has not been "
                    "fetched; expected the "
                    "file: git lfs pull",
                    path, bytes);
}

mbl_status_t mbl_file_read(const char *path, size_t limit, char **out, size_t *size) {
    mbl_status_t status = MBL_OK;
    char *data = NULL;
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (!file)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: not a regular file", path);
        goto done;
    }
    if ((uintmax_t)info.st_size > limit) {
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: %lld bytes; expected at most %zu", path,
                          (long long)info.st_size, limit);
        goto done;
    }
    size_t n = (size_t)info.st_size;
    MBL_ALLOC_GOTO(data, n + 1, done);
    if (fread(data, 1, n, file) != n) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: reading stopped early: %s", path,
                          ferror(file) ? strerror(errno) : "the file got shorter");
        goto done;
    }
    if (mbl_is_lfs_pointer(data, n)) {
        status = mbl_lfs_pointer_found(path, data, n);
        goto done;
    }
    *out = data;
    if (size)
        *size = n;
    data = NULL;
done:
    mbl_free(data);
    fclose(file);
    return status;
}

/* What is left of a file of unknown size. */
static mbl_status_t read_on(FILE *file, const char *path, size_t limit, char **out, size_t *size) {
    char *data = NULL;
    size_t room = 0, n = 0;
    do {
        size_t more = room ? 2 * room : 1 << 16;
        char *grown = more <= 2 * limit + (1 << 17) ? mbl_realloc(data, room, more, 1) : NULL;
        if (!grown) {
            mbl_free(data);
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for %zu bytes", path, more);
        }
        data = grown;
        room = more;
        n += fread(data + n, 1, room - 1 - n, file);
    } while (n == room - 1 && n <= limit);
    mbl_status_t status = MBL_OK;
    if (n > limit)
        status = MBL_FAIL(MBL_ERR_FORMAT, "%s: more than the %zu bytes that are read", path, limit);
    else if (ferror(file))
        status = MBL_FAIL(MBL_ERR_IO, "%s: reading stopped early: %s", path, strerror(errno));
    if (status != MBL_OK) {
        mbl_free(data);
        return status;
    }
    data[n] = 0;
    *out = data;
    if (size)
        *size = n;
    return MBL_OK;
}

mbl_status_t mbl_file_read_stream(const char *path, size_t limit, char **out, size_t *size) {
    struct stat info;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))
        return mbl_file_read(path, limit, out, size);
    FILE *file = fopen(path, "rb");
    if (!file)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    mbl_status_t status = read_on(file, path, limit, out, size);
    fclose(file);
    return status;
}

/* /dev/stdout, /dev/null, a named pipe: written into, never replaced by a file of that name. */
static bool is_no_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

mbl_status_t mbl_file_begin(const char *path, mbl_file_writer_t *out) {
    bool into = is_no_file(path);
    mbl_file_writer_t writer = {mbl_strdup(path),
                                into ? NULL : mbl_format("%s.tmp-%ld", path, (long)getpid()), NULL};
    mbl_status_t status = MBL_OK;
    if (!writer.path || (!writer.temporary && !into))
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for the path %s", path);
    else if (!(writer.file = fopen(into ? path : writer.temporary, "wb")))
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (status == MBL_OK) {
        *out = writer;
        return MBL_OK;
    }
    mbl_free(writer.path);
    mbl_free(writer.temporary);
    return status;
}

mbl_status_t mbl_file_put(mbl_file_writer_t *writer, const void *data, size_t size) {
    if (size == 0 || fwrite(data, 1, size, writer->file) == size)
        return MBL_OK;
    mbl_status_t status = MBL_FAIL(MBL_ERR_IO, "%s: writing failed: %s", writer->path, strerror(errno));
    mbl_file_discard(writer);
    return status;
}

/* The rename itself reaches the disk only when the folder is synced. */
static void sync_folder_of(const char *path) {
    char *folder = mbl_strdup(path);
    if (!folder)
        return;
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    mbl_free(folder);
}

mbl_status_t mbl_file_commit(mbl_file_writer_t *writer) {
    bool good = fflush(writer->file) == 0 && (!writer->temporary || fsync(fileno(writer->file)) == 0);
    int error = errno;
    if (fclose(writer->file) != 0 && good) {
        good = false;
        error = errno;
    }
    writer->file = NULL;
    if (good && writer->temporary && rename(writer->temporary, writer->path) != 0) {
        good = false;
        error = errno;
    }
    mbl_status_t status = MBL_OK;
    if (good && writer->temporary)
        sync_folder_of(writer->path);
    if (!good)
        status = MBL_FAIL(MBL_ERR_IO, "%s: writing failed: %s", writer->path, strerror(error));
    if (good) {
        mbl_free(writer->temporary);
        writer->temporary = NULL;
    }
    mbl_file_discard(writer);
    return status;
}

void mbl_file_discard(mbl_file_writer_t *writer) {
    if (writer->file)
        fclose(writer->file);
    if (writer->temporary)
        unlink(writer->temporary);
    mbl_free(writer->temporary);
    mbl_free(writer->path);
    *writer = (mbl_file_writer_t){0};
}

mbl_status_t mbl_file_write(const char *path, const void *data, size_t size) {
    mbl_file_writer_t writer;
    MBL_TRY(mbl_file_begin(path, &writer));
    MBL_TRY(mbl_file_put(&writer, data, size));
    return mbl_file_commit(&writer);
}

mbl_status_t mbl_folder_make(const char *path) {
    char *part = mbl_strdup(path);
    if (!part)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the path %s", path);
    mbl_status_t status = MBL_OK;
    for (char *end = part + 1; status == MBL_OK && *part; end++) {
        char kept = *end;
        if (kept != '/' && kept != 0)
            continue;
        *end = 0;
        if (mkdir(part, 0777) != 0 && (errno != EEXIST || !mbl_folder_exists(part)))
            status = MBL_FAIL(MBL_ERR_IO, "%s: the folder cannot be made: %s", part,
                              errno == EEXIST ? "there is a file of that name" : strerror(errno));
        *end = kept;
        if (kept == 0)
            break;
    }
    mbl_free(part);
    return status;
}

bool mbl_file_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool mbl_folder_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}
