/* latest.h5, which names the newest checkpoint of its folder: a relative symbolic link or, on file systems
 * without links, a small file that says the same to marble (other readers of HDF5 cannot follow it). */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char latest_name[] = "latest.h5", note[] = "marble: the latest checkpoint is ";
enum { NOTE_ROOM = 128 };

bool mbl_ckpt_parse_step(const char *name, const char *suffix, size_t *step) {
    char again[64];
    if (sscanf(name, "step-%zu", step) != 1)
        return false;
    snprintf(again, sizeof again, "step-%06zu.h5%s", *step, suffix);
    return strcmp(again, name) == 0;
}

/* What `path` says where it is such a small file. */
static bool read_note(const char *path, char target[64]) {
    char text[NOTE_ROOM + 1] = "";
    size_t step, start = sizeof note - 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, NOTE_ROOM);
    close(fd);
    if (n <= (ssize_t)start || n == NOTE_ROOM || strncmp(text, note, start) != 0)
        return false;
    snprintf(target, 64, "%.*s", (int)strcspn(text + start, "\n"), text + start);
    return mbl_ckpt_parse_step(target, "", &step);
}

mbl_status_t mbl_ckpt_follow(const char *path, char *out, size_t size) {
    char target[64];
    const char *slash = strrchr(path, '/');
    int n = read_note(path, target)
                ? snprintf(out, size, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, target)
                : snprintf(out, size, "%s", path);
    return n >= 0 && (size_t)n < size ? MBL_OK : MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", path);
}

bool mbl_ckpt_pointed(const char *folder, size_t *step) {
    char target[64] = "";
    char *link = mbl_format("%s/%s", folder, latest_name);
    ssize_t length = link ? readlink(link, target, sizeof target - 1) : -1;
    bool found = link && (length > 0 || read_note(link, target)) && mbl_ckpt_parse_step(target, "", step);
    mbl_free(link);
    return found;
}

/* The first time says why latest.h5 is no link here. */
static mbl_status_t write_note(const char *link, const char *target, int why) {
    char text[NOTE_ROOM], before[64];
    bool first = !read_note(link, before);
    snprintf(text, sizeof text, "%s%s\n", note, target);
    MBL_TRY(mbl_file_write(link, text, strlen(text)));
    if (first)
        MBL_WARN("%s: this file system takes no symbolic links (%s); it is a small file that marble follows "
                 "and h5py "
                 "does not",
                 link, strerror(why));
    return MBL_OK;
}

static mbl_status_t point(const char *link, const char *temporary, const char *target) {
    if (unlink(temporary) != 0 && errno != ENOENT)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be removed: %s", temporary, strerror(errno));
    if (symlink(target, temporary) != 0)
        return write_note(link, target, errno);
    if (rename(temporary, link) != 0) {
        int error = errno;
        unlink(temporary);
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be pointed at %s: %s", link, target, strerror(error));
    }
    mbl_status_t status = mbl_ckpt_sync_folder(link);
    if (status != MBL_OK && status != MBL_ERR_MEM)
        MBL_WARN("%s; after a crash of this machine latest.h5 may be what it was before", mbl_fail_message());
    return status == MBL_ERR_MEM ? status : MBL_OK;
}

/* Without latest.h5 the newest good checkpoint is what a run goes on from, which is the one meant. */
static mbl_status_t do_without(const char *link, const char *target) {
    if (unlink(link) != 0 && errno != ENOENT)
        return MBL_FAIL(MBL_ERR_IO, "%s is whole, but %s cannot be pointed at it: %s", target, link,
                        strerror(errno));
    MBL_WARN("%s; %s is whole, and the newest one is found without latest.h5 too", mbl_fail_message(),
             target);
    return MBL_OK;
}

mbl_status_t mbl_ckpt_point_latest(const char *folder, size_t step) {
    char target[64];
    mbl_status_t status = MBL_OK;
    char *link = mbl_format("%s/%s", folder, latest_name);
    char *temporary = mbl_format("%s/%s.tmp", folder, latest_name);
    snprintf(target, sizeof target, "step-%06zu.h5", step);
    if (!link || !temporary) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory", folder);
    } else {
        mbl_fail_quiet(1);
        status = point(link, temporary, target);
        mbl_fail_quiet(0);
        if (status == MBL_ERR_MEM)
            status = MBL_FAIL(status, "%s: no memory", link);
        else if (status != MBL_OK)
            status = do_without(link, target);
    }
    mbl_free(link);
    mbl_free(temporary);
    return status;
}
