/* One checkpoint on disk: whole or not at all, with its trailer. */
#include "base/file.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20, WRITE_BYTES = 1 << 26 };

/* Text of one line, filled up with spaces, so that `tail -c 128` shows it. */
static void make_trailer(size_t size, const char *hex, char out[MBL_CKPT_TRAILER + 1]) {
    snprintf(out, MBL_CKPT_TRAILER + 1, "%-*s", MBL_CKPT_TRAILER, "");
    int n = snprintf(out, MBL_CKPT_TRAILER, "marble checkpoint v%d length %zu sha256 %s",
                     MBL_CHECKPOINT_VERSION, size, hex);
    out[n] = ' ';
    out[MBL_CKPT_TRAILER - 1] = '\n';
}

static mbl_status_t write_all(int fd, const char *path, const void *data, size_t size) {
    const unsigned char *at = data;
    while (size) {
        ssize_t n = write(fd, at, size < WRITE_BYTES ? size : WRITE_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path,
                            n ? strerror(errno) : "no progress");
        at += n;
        size -= (size_t)n;
    }
    return MBL_OK;
}

char *mbl_ckpt_folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return mbl_strdup(".");
    return mbl_format("%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* Some file systems cannot sync folders. */
mbl_status_t mbl_ckpt_sync_folder(const char *path) {
    char *folder = mbl_ckpt_folder_of(path);
    if (!folder)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) ? errno : 0;
    if (fd >= 0)
        close(fd);
    mbl_status_t status = MBL_OK;
    if (error)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be synced: %s", folder, strerror(error));
    mbl_free(folder);
    return status;
}

static mbl_status_t write_temporary(int fd, const char *path, const unsigned char *data, size_t size) {
    char hex[MBL_SHA256_HEX], trailer[MBL_CKPT_TRAILER + 1];
    MBL_TRY(write_all(fd, path, data, size));
    mbl_sha256_text(data, size, hex);
    make_trailer(size, hex, trailer);
    MBL_TRY(write_all(fd, path, trailer, MBL_CKPT_TRAILER));
    if (fsync(fd) != 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be synced: %s", path, strerror(errno));
    return MBL_OK;
}

mbl_status_t mbl_ckpt_write_file(const char *path, const unsigned char *data, size_t size) {
    char *temporary = mbl_format("%s.tmp", path);
    mbl_status_t status;
    if (!temporary)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", temporary, strerror(errno));
        mbl_free(temporary);
        return status;
    }
    status = write_temporary(fd, path, data, size);
    if (close(fd) != 0 && status == MBL_OK) /* quotas and network file systems report here */
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (status == MBL_OK && rename(temporary, path) != 0)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be put in place: %s", path, strerror(errno));
    if (status == MBL_OK)
        status = mbl_ckpt_sync_folder(path);
    else
        unlink(temporary);
    mbl_free(temporary);
    return status;
}

mbl_status_t mbl_ckpt_write_skeleton(const char *path, const unsigned char *data, size_t size) {
    char *temporary = mbl_format("%s.tmp", path);
    mbl_status_t status = MBL_OK;
    if (!temporary)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", temporary, strerror(errno));
        goto done;
    }
    status = write_all(fd, path, data, size);
    if (close(fd) != 0 && status == MBL_OK)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (status != MBL_OK)
        unlink(temporary);
done:
    mbl_free(temporary);
    return status;
}

/* The trailer after what others have written; `path` is for messages. */
static mbl_status_t append_trailer(int fd, const char *path) {
    struct stat about;
    if (fstat(fd, &about) != 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read back: %s", path, strerror(errno));
    MBL_TRY(mbl_ckpt_seal_file(fd, path, (size_t)about.st_size));
    char hex[MBL_SHA256_HEX], trailer[MBL_CKPT_TRAILER + 1];
    unsigned char *block;
    size_t size = 0;
    ssize_t n;
    mbl_sha256_t sha;
    MBL_ALLOC(block, READ_BYTES);
    mbl_sha256_init(&sha);
    while ((n = read(fd, block, READ_BYTES)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0) {
            mbl_sha256_update(&sha, block, (size_t)n);
            size += (size_t)n;
        }
    mbl_free(block);
    if (n < 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read back: %s", path, strerror(errno));
    mbl_sha256_hex(&sha, hex);
    make_trailer(size, hex, trailer);
    MBL_TRY(write_all(fd, path, trailer, MBL_CKPT_TRAILER));
    if (fsync(fd) != 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be synced: %s", path, strerror(errno));
    return MBL_OK;
}

mbl_status_t mbl_ckpt_finish_file(const char *path) {
    char *temporary = mbl_format("%s.tmp", path);
    mbl_status_t status = MBL_OK;
    if (!temporary)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    int fd = open(temporary, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened again: %s", temporary, strerror(errno));
    else
        status = append_trailer(fd, path);
    if (fd >= 0 && close(fd) != 0 && status == MBL_OK)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (status == MBL_OK && rename(temporary, path) != 0)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be put in place: %s", path, strerror(errno));
    if (status == MBL_OK)
        status = mbl_ckpt_sync_folder(path);
    mbl_free(temporary);
    return status;
}

/* A file that does not end with a trailer: whole by the digest inside it, or something else. */
static mbl_status_t without_trailer(FILE *file, const char *path, size_t size, mbl_ckpt_vouch_t *vouch) {
    char head[1024];
    bool whole = false;
    rewind(file);
    if (mbl_is_lfs_pointer(head, fread(head, 1, sizeof head, file)))
        return mbl_lfs_pointer_found(path, head, size);
    MBL_TRY(mbl_ckpt_seal_check(fileno(file), path, size, &whole));
    *vouch = whole ? MBL_CKPT_BY_SEAL : MBL_CKPT_BY_NOTHING;
    if (whole)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_FORMAT,
                    "%s: cut off, or no checkpoint of marble: %zu bytes without the trailer that a whole one "
                    "ends with; after a change by another program: marble inspect --repair",
                    path, size);
}

static const char start[] = "marble checkpoint v";

static bool has_trailer(FILE *file, size_t size, char text[MBL_CKPT_TRAILER + 1]) {
    text[MBL_CKPT_TRAILER] = 0;
    return size >= MBL_CKPT_TRAILER && fseek(file, -(long)MBL_CKPT_TRAILER, SEEK_END) == 0 &&
           fread(text, 1, MBL_CKPT_TRAILER, file) == MBL_CKPT_TRAILER &&
           strncmp(text, start, strlen(start)) == 0;
}

static mbl_status_t read_trailer(const char *path, const char *text, size_t *length, char *hex) {
    char again[MBL_CKPT_TRAILER + 1];
    int version = 0;
    if (sscanf(text + strlen(start), "%d", &version) == 1 && version != MBL_CHECKPOINT_VERSION)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: format version %d; this marble reads %d", path, version,
                        MBL_CHECKPOINT_VERSION);
    if (sscanf(text + strlen(start), "%*d length %zu sha256 %64[0-9a-f]", length, hex) == 2) {
        make_trailer(*length, hex, again);
        if (strlen(hex) == MBL_SHA256_HEX - 1 && memcmp(text, again, MBL_CKPT_TRAILER) == 0)
            return MBL_OK;
    }
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: damaged: its trailer cannot be read", path);
}

static mbl_status_t compare_digest(FILE *file, const char *path, size_t length, const char *stated) {
    char hex[MBL_SHA256_HEX];
    unsigned char *block;
    mbl_sha256_t sha;
    MBL_ALLOC(block, READ_BYTES);
    mbl_sha256_init(&sha);
    rewind(file);
    for (size_t n; length && (n = fread(block, 1, length < READ_BYTES ? length : READ_BYTES, file)) > 0;
         length -= n)
        mbl_sha256_update(&sha, block, n);
    mbl_free(block);
    mbl_sha256_hex(&sha, hex);
    if (length)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read to its end: %s", path, strerror(errno));
    if (strcmp(hex, stated) != 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: damaged: its bytes have digest %s; expected %s", path, hex,
                        stated);
    return MBL_OK;
}

static mbl_status_t verify_open_file(FILE *file, const char *path, mbl_ckpt_vouch_t *vouch) {
    char hex[MBL_SHA256_HEX] = "", text[MBL_CKPT_TRAILER + 1] = "";
    struct stat about;
    size_t length = 0;
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode))
        return MBL_FAIL(MBL_ERR_IO, "%s: not a file", path);
    if (!has_trailer(file, (size_t)about.st_size, text))
        return without_trailer(file, path, (size_t)about.st_size, vouch);
    MBL_TRY(read_trailer(path, text, &length, hex));
    if (length != (size_t)about.st_size - MBL_CKPT_TRAILER)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: damaged: %zu bytes of content; expected %zu", path,
                        (size_t)about.st_size - MBL_CKPT_TRAILER, length);
    return compare_digest(file, path, length, hex);
}

mbl_status_t mbl_ckpt_verify_file(const char *path, mbl_ckpt_vouch_t *vouch) {
    *vouch = MBL_CKPT_BY_TRAILER;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not hold us up */
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    if (!file) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(error));
    }
    mbl_status_t status = verify_open_file(file, path, vouch);
    fclose(file);
    return status;
}
