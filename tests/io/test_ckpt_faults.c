/* Faults at every file-system call of a checkpoint, one after another: a full disk, an I/O error, half a
 * write, a crash after the call and in the middle of a write. The previous checkpoint or the new one always
 * loads, a failure is reported, and the next checkpoint succeeds and leaves nothing over.
 *
 * ctest-wrap: open write fsync close rename symlink unlink unlinkat opendir */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum { NONE, NO_SPACE, IO_ERROR, SHORT_WRITE, CRASH_AFTER, CRASH_WITHIN, KINDS } kind_t;
static const char *const kind_names[] = {"none",        "ENOSPC",      "EIO",
                                         "short write", "crash after", "crash within"};
enum { CRASHED = 99 };

static struct {
    bool armed;
    kind_t kind;
    size_t at, calls;
    const char *last;
} fault;

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t size);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_rename(const char *from, const char *to);
int __real_symlink(const char *target, const char *link);
int __real_unlink(const char *path);
int __real_unlinkat(int fd, const char *path, int flags);
DIR *__real_opendir(const char *path);

/* Whether this call is the one that fails; false too for kinds that let it happen first. */
static bool fails(const char *name, bool *now) {
    *now = fault.armed && ++fault.calls == fault.at;
    if (*now)
        fault.last = name;
    if (*now && (fault.kind == NO_SPACE || fault.kind == IO_ERROR)) {
        errno = fault.kind == NO_SPACE ? ENOSPC : EIO;
        return true;
    }
    return false;
}

static void happened(bool now) {
    if (now && (fault.kind == CRASH_AFTER || fault.kind == CRASH_WITHIN))
        _exit(CRASHED);
}

#define WRAP(name, call)                                                                                     \
    bool now;                                                                                                \
    if (fails(#name, &now))                                                                                  \
        return -1;                                                                                           \
    int result = call;                                                                                       \
    happened(now);                                                                                           \
    return result

int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    WRAP(open, __real_open(path, flags, mode));
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd) {
    WRAP(fsync, __real_fsync(fd));
}

int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    WRAP(rename, __real_rename(from, to));
}

int __wrap_symlink(const char *target, const char *link);
int __wrap_symlink(const char *target, const char *link) {
    WRAP(symlink, __real_symlink(target, link));
}

int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path) {
    WRAP(unlink, __real_unlink(path));
}

int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_unlinkat(int fd, const char *path, int flags) {
    WRAP(unlinkat, __real_unlinkat(fd, path, flags));
}

/* A close that fails has closed all the same. */
int __wrap_close(int fd);
int __wrap_close(int fd) {
    bool now, failed = fails("close", &now);
    int error = errno, result = __real_close(fd);
    happened(now);
    errno = error;
    return failed ? -1 : result;
}

DIR *__wrap_opendir(const char *path);
DIR *__wrap_opendir(const char *path) {
    bool now;
    if (fails("opendir", &now))
        return NULL;
    DIR *result = __real_opendir(path);
    happened(now);
    return result;
}

ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size) {
    bool now;
    if (fails("write", &now))
        return -1;
    size_t part = now && (fault.kind == SHORT_WRITE || fault.kind == CRASH_WITHIN) ? size / 2 : size;
    ssize_t result = __real_write(fd, data, part);
    happened(now);
    return result;
}

/* ---- the test ---- */

enum { COUNT = 20000 };

static mbl_status_t save(const char *folder, size_t step) {
    char path[512], text[32];
    float *values = malloc(COUNT * sizeof *values);
    const mbl_ckpt_item_t item = {"adapter/current", MBL_F32, COUNT, values};
    const mbl_ckpt_attr_t attr = {"step", text};
    const mbl_ckpt_keep_t keep = {.last = 1};
    for (size_t i = 0; i < COUNT; i++)
        values[i] = (float)(i * step);
    snprintf(text, sizeof text, "%zu", step);
    mbl_status_t status = mbl_ckpt_path(folder, step, path, sizeof path);
    if (status == MBL_OK)
        status = mbl_ckpt_write(path, &item, 1, &attr, 1);
    if (status == MBL_OK)
        status = mbl_ckpt_publish(folder, step, &keep);
    free(values);
    return status;
}

/* The step of the checkpoint that a run would go on from, after checking what is in it. */
static size_t step_to_resume(const char *folder, const char *what) {
    char path[512];
    bool found = false;
    mbl_ckpt_t *ckpt;
    float *values = malloc(COUNT * sizeof *values);
    if (mbl_ckpt_latest(folder, NULL, path, sizeof path, &found) != MBL_OK || !found)
        fail_msg("%s: no checkpoint left", what);
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    size_t step = strtoul(mbl_ckpt_attr(ckpt, "step"), NULL, 10);
    assert_int_equal(mbl_ckpt_read(ckpt, "adapter/current", MBL_F32, COUNT, values), MBL_OK);
    assert_near(values[COUNT - 1], (double)(float)((COUNT - 1) * step), 0);
    mbl_ckpt_close(ckpt);
    free(values);
    return step;
}

static size_t count_files(const char *folder) {
    size_t n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* Checkpoint 2 after checkpoint 1, with one fault; in a child, since some faults end it. Its exit code: the
 * status, or 99; *calls how far it came when nothing ended it. */
static int save_with_fault(const char *folder, kind_t kind, size_t at, size_t *calls) {
    int status, pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        mbl_log_set_level(MBL_LOG_OFF);
        fault.kind = kind;
        fault.at = at;
        fault.calls = 0;
        fault.armed = true;
        mbl_status_t saved = save(folder, 2);
        fault.armed = false;
        if (__real_write(pipes[1], &fault.calls, sizeof fault.calls) != sizeof fault.calls)
            _exit(98);
        _exit((int)saved);
    }
    close(pipes[1]);
    *calls = 0;
    if (read(pipes[0], calls, sizeof *calls) != sizeof *calls)
        *calls = at; /* it crashed there */
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("%s at call %zu: ended by signal %d", kind_names[kind], at, WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* One fault; false once the checkpoint makes fewer calls than `at`. */
static bool survives(kind_t kind, size_t at) {
    char folder[256], what[128];
    size_t calls;
    temporary_folder(folder);
    assert_int_equal(save(folder, 1), MBL_OK);
    int code = save_with_fault(folder, kind, at, &calls);
    snprintf(what, sizeof what, "%s at call %zu", kind_names[kind], at);
    size_t step = step_to_resume(folder, what);
    if (code == MBL_OK ? step != 2 : step != 1 && step != 2)
        fail_msg("%s: status %d, and a run would go on from step %zu", what, code, step);
    if (code != MBL_OK && code != CRASHED && code != MBL_ERR_IO)
        fail_msg("%s: %s; expected ERR_IO", what, mbl_status_name((mbl_status_t)code));
    assert_int_equal(save(folder, 3), MBL_OK);
    assert_int_equal(step_to_resume(folder, what), 3);
    assert_int_equal(count_files(folder), 2); /* step-000003.h5 and latest.h5 */
    remove_folder(folder);
    return calls >= at;
}

static void no_fault_loses_a_checkpoint(void **state) {
    size_t tried = 0;
    (void)state;
    mbl_log_set_level(MBL_LOG_OFF);
    for (kind_t kind = NO_SPACE; kind < KINDS; kind++)
        for (size_t at = 1; survives(kind, at); at++)
            tried++;
    mbl_log_set_level(MBL_LOG_INFO);
    print_message("%zu faults\n", tried);
    assert_true(tried >= 5 * 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_fault_loses_a_checkpoint)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
