/* The lock of a folder. */
#include "run/lock.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 60, RETRY_NS = 50000000, GUARD_STALE_S = 60 };

struct mbl_lock {
    char *path, *own,
        *guard_path; /* own: a name beside it that no other process uses; guard_path: see take_over */
    char text[MBL_HOLDER_TEXT];
    mbl_holder_t self;
    pthread_t thread;
    pthread_mutex_t guard;
    pthread_cond_t changed;
    bool beating, ending;
    atomic_bool lost;
};

/* ---- the file ---- */

/* ENOENT, or what else keeps it from being read; 0 with its text and time. */
static int read_lock(const char *path, char text[MBL_HOLDER_TEXT], time_t *when) {
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC), error = errno;
    if (fd < 0)
        return error;
    ssize_t n = fstat(fd, &about) == 0 ? read(fd, text, MBL_HOLDER_TEXT - 1) : -1;
    error = errno;
    close(fd);
    text[n > 0 ? n : 0] = 0;
    *when = about.st_mtime;
    return n < 0 ? error : 0;
}

static int write_own(const mbl_lock_t *lock, int flags, const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
    if (fd < 0)
        return errno;
    size_t size = strlen(lock->text);
    int error = write(fd, lock->text, size) == (ssize_t)size && fsync(fd) == 0 ? 0 : errno ? errno : EIO;
    if (close(fd) != 0 && !error)
        error = errno;
    return error;
}

/* 0, EEXIST when there is one, or why it cannot be made. *now: the time by the file system's clock. An answer
 * that NFS lost looks like a failure of link; the number of names then says that it was none. */
static int make(const mbl_lock_t *lock, const char *path, time_t *now) {
    struct stat about;
    int error = write_own(lock, O_TRUNC, lock->own);
    if (!error && stat(lock->own, &about) == 0)
        *now = about.st_mtime;
    if (!error && link(lock->own, path) != 0) {
        error = errno;
        if (stat(lock->own, &about) == 0 && about.st_nlink == 2)
            error = 0;
    }
    unlink(lock->own);
    if (error && error != EEXIST && error != ENOSPC && error != EDQUOT && error != ENOENT)
        error = write_own(lock, O_EXCL, path); /* no links here */
    return error;
}

/* ---- others' ---- */

/* The same host after a start: its clock since then is what the other one has missed. */
static bool was_before_boot(const mbl_holder_t *holder, const mbl_holder_t *self, double age) {
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    return strcmp(holder->host, self->host) == 0 && strcmp(holder->boot, self->boot) != 0 &&
           age > 3 * MBL_LOCK_BEAT_S && age > (double)up.tv_sec;
}

/* Whether what stands in a lock has ended, as said in `why`; else who it is stands there. */
static bool is_stale(const char *text, double age, const mbl_holder_t *self, char why[MBL_HOLDER_TEXT]) {
    mbl_holder_t holder;
    const char *reason = "";
    char name[MBL_HOLDER_TEXT] = "a process whose lock cannot be read";
    mbl_holder_state_t state = MBL_HOLDER_UNKNOWN;
    if (mbl_holder_read(text, &holder)) {
        state = mbl_holder_state(&holder, self, &reason);
        if (state == MBL_HOLDER_UNKNOWN && was_before_boot(&holder, self, age)) {
            state = MBL_HOLDER_ENDED;
            reason = "this host has been started again since";
        }
        mbl_holder_name(&holder, name);
    }
    bool old = age > MBL_LOCK_STALE_S;
    if (state == MBL_HOLDER_ENDED)
        snprintf(why, MBL_HOLDER_TEXT, "%.400s: %s", name, reason);
    else if (state == MBL_HOLDER_UNKNOWN)
        snprintf(why, MBL_HOLDER_TEXT, "%.400s: its last sign of life is %.0f s old%s", name, age,
                 old ? "" : ", and it would count as ended after 180 s");
    else
        snprintf(why, MBL_HOLDER_TEXT, "%.400s", name);
    return state == MBL_HOLDER_ENDED || (state == MBL_HOLDER_UNKNOWN && old);
}

static mbl_status_t busy(const char *path, const char *who) {
    return MBL_FAIL(
        MBL_ERR_BUSY,
        "%.*s: another marble works in it, %s; expected another --out, or that one to end (marble stop says "
        "how)",
        (int)(strrchr(path, '/') - path), path, who);
}

/* Puts this process into a stale lock. Only one does so at a time, by a second file, and looks once more
 * then; the lock itself is replaced, so that there is no moment without one. *mine: done. */
static mbl_status_t take_over(const mbl_lock_t *lock, const char *text, const char *why, bool *mine) {
    char found[MBL_HOLDER_TEXT];
    time_t when = 0, now = time(NULL);
    int error = make(lock, lock->guard_path, &now);
    if (error == EEXIST) { /* another one is about to; it may have died over it */
        if (read_lock(lock->guard_path, found, &when) == 0 && difftime(now, when) > GUARD_STALE_S)
            unlink(lock->guard_path);
        return MBL_OK;
    }
    if (error)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", lock->guard_path, strerror(error));
    if (read_lock(lock->path, found, &when) == 0 && strcmp(found, text) == 0) {
        error = write_own(lock, O_TRUNC, lock->own);
        if (!error && rename(lock->own, lock->path) != 0)
            error = errno;
        *mine = !error;
    }
    unlink(lock->own);
    unlink(lock->guard_path);
    if (*mine)
        MBL_WARN("%s: taken over from %s", lock->path, why);
    return error ? MBL_FAIL(MBL_ERR_IO, "%s: a stale lock, and it cannot be replaced: %s", lock->path,
                            strerror(error))
                 : MBL_OK;
}

static mbl_status_t acquire(const mbl_lock_t *lock) {
    for (int i = 0; i < TRIES; i++) {
        char text[MBL_HOLDER_TEXT], why[MBL_HOLDER_TEXT];
        time_t when = 0, now = time(NULL);
        bool mine = false;
        int error = make(lock, lock->path, &now);
        if (!error)
            return MBL_OK;
        if (error != EEXIST)
            return MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", lock->path, strerror(error));
        error = read_lock(lock->path, text, &when);
        if (error && error != ENOENT && error != ESTALE)
            return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read: %s", lock->path, strerror(error));
        if (error)
            continue;
        if (!is_stale(text, difftime(now, when), &lock->self, why))
            return busy(lock->path, why);
        MBL_TRY(take_over(lock, text, why, &mine));
        if (mine)
            return MBL_OK;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
    return busy(lock->path, "and others try to");
}

/* ---- the thread ---- */

void mbl_lock_beat(mbl_lock_t *lock) {
    char text[MBL_HOLDER_TEXT];
    time_t when;
    if (lock->lost)
        return;
    int error = read_lock(lock->path, text, &when);
    if (error == ENOENT)
        error = make(lock, lock->path, &when);
    else if (!error && strcmp(text, lock->text) == 0)
        (void)!utimensat(AT_FDCWD, lock->path, NULL, 0); /* by the clock of the file system */
    else if (!error)
        error = EEXIST;
    if (error != EEXIST)
        return; /* a file system that does not answer now may do so later */
    lock->lost = true;
    MBL_ERROR("%s: another process has taken it over; this run ends and writes nothing more there",
              lock->path);
}

static void *beat(void *context) {
    mbl_lock_t *lock = context;
    struct timespec next;
    pthread_mutex_lock(&lock->guard);
    while (!lock->ending) {
        clock_gettime(CLOCK_REALTIME, &next);
        next.tv_sec += MBL_LOCK_BEAT_S;
        if (pthread_cond_timedwait(&lock->changed, &lock->guard, &next) == ETIMEDOUT && !lock->ending)
            mbl_lock_beat(lock);
    }
    pthread_mutex_unlock(&lock->guard);
    return NULL;
}

static mbl_status_t start_beating(mbl_lock_t *lock) {
    sigset_t all, kept;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    int error = pthread_create(&lock->thread, NULL, beat, lock);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    lock->beating = error == 0;
    return error ? MBL_FAIL(MBL_ERR_MEM, "no thread for the lock of a run (error %d)", error) : MBL_OK;
}

/* ---- */

static void free_lock(mbl_lock_t *lock) {
    pthread_mutex_destroy(&lock->guard);
    pthread_cond_destroy(&lock->changed);
    mbl_free(lock->path);
    mbl_free(lock->own);
    mbl_free(lock->guard_path);
    mbl_free(lock);
}

static mbl_status_t new_lock(const char *folder, mbl_lock_t **out) {
    mbl_lock_t *lock;
    MBL_ALLOC(lock, 1);
    pthread_mutex_init(&lock->guard, NULL);
    pthread_cond_init(&lock->changed, NULL);
    mbl_holder_self(&lock->self);
    mbl_holder_write(&lock->self, lock->text);
    lock->path = mbl_format("%s/lock", folder);
    lock->own = mbl_format("%s/lock.%s.%lld.%lld", folder, lock->self.host, lock->self.pid, lock->self.start);
    lock->guard_path = mbl_format("%s/lock.taking", folder);
    if (!lock->path || !lock->own || !lock->guard_path) {
        free_lock(lock);
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its lock", folder);
    }
    *out = lock;
    return MBL_OK;
}

mbl_status_t mbl_lock_take(const char *folder, mbl_lock_t **out) {
    mbl_lock_t *lock;
    MBL_TRY(new_lock(folder, &lock));
    mbl_status_t status = acquire(lock);
    if (status != MBL_OK) {
        free_lock(lock);
        return status;
    }
    status = start_beating(lock);
    if (status != MBL_OK) {
        mbl_lock_release(lock);
        return status;
    }
    *out = lock;
    return MBL_OK;
}

mbl_status_t mbl_lock_look(const char *folder) {
    char text[MBL_HOLDER_TEXT], why[MBL_HOLDER_TEXT];
    mbl_lock_t *lock;
    time_t when = 0;
    MBL_TRY(new_lock(folder, &lock));
    bool held = read_lock(lock->path, text, &when) == 0 &&
                !is_stale(text, difftime(time(NULL), when), &lock->self, why);
    mbl_status_t status = held ? busy(lock->path, why) : MBL_OK;
    free_lock(lock);
    return status;
}

bool mbl_lock_lost(const mbl_lock_t *lock) {
    return lock->lost;
}

bool mbl_lock_holder(const char *folder, mbl_holder_t *out) {
    char text[MBL_HOLDER_TEXT];
    time_t when;
    char *path = mbl_format("%s/lock", folder);
    bool found = path && read_lock(path, text, &when) == 0 && mbl_holder_read(text, out);
    mbl_free(path);
    return found;
}

void mbl_lock_release(mbl_lock_t *lock) {
    char text[MBL_HOLDER_TEXT];
    time_t when;
    if (!lock)
        return;
    pthread_mutex_lock(&lock->guard);
    lock->ending = true;
    pthread_cond_broadcast(&lock->changed);
    pthread_mutex_unlock(&lock->guard);
    if (lock->beating)
        pthread_join(lock->thread, NULL);
    if (read_lock(lock->path, text, &when) == 0 && strcmp(text, lock->text) == 0)
        unlink(lock->path);
    free_lock(lock);
}
