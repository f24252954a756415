/* The server's program is part of this one (CMakeLists.txt makes mbl_marble_reward_py of
 * proto/python/marble_reward.py), so it is there wherever marble is. */
#include "reward/remote/child_folder.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

extern const unsigned char mbl_marble_reward_py[];
extern const size_t mbl_marble_reward_py_size;

enum { SOCKET_PATH_MAX = 100 };
static const char prefix[] = "marble-reward-";
static const char *const names[] = {"marble_reward.py", "s", "lock"};
enum { PROGRAM, SOCKET, LOCK, NAMES };

static void remove_all(const char *path) {
    char *name;
    for (size_t i = 0; i < NAMES; i++) {
        if ((name = mbl_format("%s/%s", path, names[i])))
            unlink(name);
        mbl_free(name);
    }
    rmdir(path);
}

/* Takes the lock of a folder; -1: it has none, or somebody holds it (errno is EWOULDBLOCK then). */
static int take_lock(const char *path, int flags) {
    char *name = mbl_format("%s/%s", path, names[LOCK]);
    int file = name ? open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600) : -1;
    mbl_free(name);
    if (file >= 0 && flock(file, LOCK_EX | LOCK_NB)) {
        int why = errno;
        close(file);
        errno = why;
        file = -1;
    }
    return file;
}

/* Folders that this user's runs left behind because they were killed. One without a lock is being made. */
static void remove_left_behind(const char *base) {
    DIR *folder = opendir(base);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat about;
        if (strncmp(entry->d_name, prefix, sizeof prefix - 1) != 0)
            continue;
        char *path = mbl_format("%s/%s", base, entry->d_name);
        if (path && lstat(path, &about) == 0 && S_ISDIR(about.st_mode) && about.st_uid == geteuid()) {
            int lock = take_lock(path, 0);
            if (lock >= 0) {
                remove_all(path);
                close(lock);
            }
        }
        mbl_free(path);
    }
    if (folder)
        closedir(folder);
}

/* A new folder with its lock, which another run that removes what was left behind may be the first to take:
 * then it removes the folder. A file system without locks does without. */
static mbl_status_t make_locked(const char *base, const char *reward, mbl_child_folder_t *out) {
    enum { TRIES = 10 };
    for (int tries = 0; tries < TRIES; tries++) {
        mbl_free(out->path);
        out->path = mbl_format("%s/%sXXXXXX", base, prefix);
        if (!out->path)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
        if (!mkdtemp(out->path)) {
            mbl_status_t status =
                MBL_FAIL(MBL_ERR_IO, "reward %s: %s cannot be made: %s", reward, out->path, strerror(errno));
            mbl_free(out->path);
            out->path = NULL;
            return status;
        }
        out->lock = take_lock(out->path, O_CREAT);
        if (out->lock >= 0 || errno != EWOULDBLOCK)
            break;
    }
    return MBL_OK;
}

/* In TMPDIR, or in /tmp where the path of a socket there would be too long. */
mbl_status_t mbl_child_folder_make(const char *reward, mbl_child_folder_t *out) {
    const char *base = getenv("TMPDIR");
    base = base && *base && strlen(base) < SOCKET_PATH_MAX - 30 ? base : "/tmp";
    *out = (mbl_child_folder_t){.lock = -1};
    remove_left_behind(base);
    MBL_TRY(make_locked(base, reward, out));
    out->program = mbl_format("%s/%s", out->path, names[PROGRAM]);
    out->url = mbl_format("unix:%s/%s", out->path, names[SOCKET]);
    if (!out->program || !out->url)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a path");
    return mbl_file_write(out->program, mbl_marble_reward_py, mbl_marble_reward_py_size);
}

void mbl_child_folder_remove(mbl_child_folder_t *folder) {
    if (folder->path)
        remove_all(folder->path);
    if (folder->lock >= 0)
        close(folder->lock);
    mbl_free(folder->url);
    mbl_free(folder->program);
    mbl_free(folder->path);
    *folder = (mbl_child_folder_t){.lock = -1};
}
