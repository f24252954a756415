/* src/run/lock and holder: one writer in a folder, on file systems with and without links; locks of
 * processes, hosts and jobs that are no more are taken over, others are not.
 *
 * ctest-wrap: link */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "run/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool no_links, lost_answer;

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to) {
    if (no_links) {
        errno = EPERM;
        return -1;
    }
    int result = __real_link(from, to);
    if (result == 0 && lost_answer) { /* NFS: done, the answer lost, tried again */
        errno = EEXIST;
        return -1;
    }
    return result;
}

static char folder[256], path[300];

static int setup(void **state) {
    (void)state;
    no_links = lost_answer = false;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/lock", folder);
    mbl_log_set_level(MBL_LOG_OFF);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mbl_log_set_level(MBL_LOG_INFO);
    remove_folder(folder);
    return 0;
}

/* How many names the folder holds: locks leave nothing else behind. */
static void must_hold(const char *names) {
    char command[600], text[512] = "";
    snprintf(command, sizeof command, "ls %s | tr '\\n' ' '", folder);
    FILE *out = popen(command, "r");
    assert_non_null(out);
    if (!fgets(text, sizeof text, out))
        text[0] = 0;
    pclose(out);
    assert_string_equal(text, names);
}

static void take_and_release(void) {
    mbl_lock_t *lock;
    mbl_holder_t self, holder;
    mbl_holder_self(&self);
    assert_int_equal(mbl_lock_look(folder), MBL_OK);
    assert_int_equal(mbl_lock_take(folder, &lock), MBL_OK);
    must_hold("lock ");
    assert_true(mbl_lock_holder(folder, &holder));
    assert_int_equal(holder.pid, getpid());
    assert_string_equal(holder.host, self.host);
    assert_true(holder.start > 0 && holder.start == self.start);
    assert_false(mbl_lock_lost(lock));
    mbl_lock_release(lock);
    must_hold("");
    assert_false(mbl_lock_holder(folder, &holder));
}

static void one_at_a_time(void **state) {
    mbl_lock_t *lock, *second;
    (void)state;
    take_and_release();
    no_links = true;
    take_and_release();
    no_links = false;
    lost_answer = true;
    take_and_release();
    lost_answer = false;
    for (int i = 0; i < 2; i++) {
        no_links = i;
        assert_int_equal(mbl_lock_take(folder, &lock), MBL_OK);
        assert_int_equal(mbl_lock_take(folder, &second), MBL_ERR_BUSY);
        assert_int_equal(mbl_lock_look(folder), MBL_ERR_BUSY);
        char want[64];
        snprintf(want, sizeof want, "pid %d on host ", (int)getpid());
        if (!strstr(mbl_fail_message(), want) || !strstr(mbl_fail_message(), folder))
            fail_msg("\"%s\" lacks \"%s\"", mbl_fail_message(), want);
        must_hold("lock ");
        mbl_lock_release(lock);
    }
    mbl_lock_release(NULL);
    snprintf(path, sizeof path, "%s/none", folder);
    assert_int_equal(mbl_lock_look(path), MBL_OK);
    assert_int_equal(mbl_lock_take(path, &lock), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "none/lock: cannot be made: No such file"));
}

/* Many at once: exactly one gets it, each time. */
static void many_at_once(void **state) {
    enum { MANY = 8, ROUNDS = 20 };
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        pid_t child[MANY];
        int winners = 0, go[2], done[2], tried[2];
        char byte = 0;
        assert_int_equal(pipe(go), 0);
        assert_int_equal(pipe(done), 0);
        assert_int_equal(pipe(tried), 0);
        if (round % 2) { /* a stale one to be fought for */
            mbl_holder_t dead;
            char text[MBL_HOLDER_TEXT];
            mbl_holder_self(&dead);
            dead.start--;
            mbl_holder_write(&dead, text);
            write_whole(path, text, strlen(text));
        }
        for (int i = 0; i < MANY; i++) {
            child[i] = fork();
            if (child[i] == 0) {
                mbl_lock_t *lock;
                close(go[1]);
                close(done[1]);
                if (read(go[0], &byte, 1) < 0) /* until all may start */
                    _exit(9);
                mbl_status_t status = mbl_lock_take(folder, &lock);
                if (write(tried[1], "x", 1) != 1 || read(done[0], &byte, 1) < 0) /* until all have tried */
                    _exit(9);
                _exit(status == MBL_OK ? 1 : status == MBL_ERR_BUSY ? 0 : 8);
            }
        }
        close(go[0]);
        close(done[0]);
        close(go[1]);
        for (int i = 0; i < MANY; i++)
            assert_int_equal(read(tried[0], &byte, 1), 1);
        close(done[1]);
        close(tried[0]);
        close(tried[1]);
        for (int i = 0; i < MANY; i++) {
            int status;
            assert_int_equal(waitpid(child[i], &status, 0), child[i]);
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
            winners += WEXITSTATUS(status);
        }
        assert_int_equal(winners, 1);
        assert_int_equal(unlink(path), 0); /* the winner died with it */
    }
}

/* ---- who is no more ---- */

static void write_lock(const mbl_holder_t *holder, int age) {
    char text[MBL_HOLDER_TEXT];
    struct timespec times[2];
    mbl_holder_write(holder, text);
    write_whole(path, text, strlen(text));
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= age;
    times[1] = times[0];
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void must(mbl_status_t want, const char *words) {
    mbl_lock_t *lock;
    mbl_status_t got = mbl_lock_take(folder, &lock);
    if (got == MBL_OK)
        mbl_lock_release(lock);
    if (got != want || (words && !strstr(mbl_fail_message(), words)))
        fail_msg("%s \"%s\", expected %s with \"%s\"", mbl_status_name(got), mbl_fail_message(),
                 mbl_status_name(want), words ? words : "");
    if (got == MBL_OK)
        must_hold("");
}

static void ended_processes_are_taken_over(void **state) {
    mbl_holder_t self, other;
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        mbl_lock_t *lock;
        _exit(mbl_lock_take(folder, &lock) != MBL_OK); /* dies with it */
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    must_hold("lock ");
    must(MBL_OK, NULL);
    mbl_holder_self(&self);
    other = self;
    other.start--; /* an earlier process of this number */
    write_lock(&other, 0);
    must(MBL_OK, NULL);
    child = fork(); /* one that nobody has waited for yet */
    if (child == 0)
        _exit(0);
    usleep(20000);
    other = self;
    other.pid = child;
    write_lock(&other, 0);
    must(MBL_OK, NULL);
    assert_int_equal(waitpid(child, &code, 0), child);
}

/* On another host, or where its processes cannot be seen, the time of the lock decides. */
static void others_are_judged_by_their_time(void **state) {
    mbl_holder_t self;
    (void)state;
    mbl_holder_self(&self);
    mbl_holder_t host = self, space = self, rebooted = self;
    snprintf(host.host, sizeof host.host, "elsewhere");
    snprintf(space.space, sizeof space.space, "pid:[1]");
    snprintf(rebooted.boot, sizeof rebooted.boot, "earlier");
    const mbl_holder_t *const cases[] = {&host, &space};
    for (size_t i = 0; i < 2; i++) {
        write_lock(cases[i], 10);
        must(MBL_ERR_BUSY, "its last sign of life is 1");
        write_lock(cases[i], MBL_LOCK_STALE_S - 10);
        must(MBL_ERR_BUSY, "would count as ended after 180 s");
        write_lock(cases[i], MBL_LOCK_STALE_S + 10);
        must(MBL_OK, NULL);
    }
    write_lock(&rebooted, 10);
    must(MBL_ERR_BUSY, NULL);
    write_lock(&rebooted, 1 << 30); /* before any boot */
    must(MBL_OK, NULL);
    write_whole(path, "?", 1); /* nothing readable, and new */
    must(MBL_ERR_BUSY, "a process whose lock cannot be read");
}

/* A squeue that prints `answer` and ends with `code`. */
static void make_squeue(const char *answer, int code) {
    char script[512], command[300];
    snprintf(command, sizeof command, "%s/bin", folder);
    mkdir(command, 0777);
    snprintf(command, sizeof command, "%s/bin/squeue", folder);
    snprintf(script, sizeof script,
             "#!/bin/sh\ncase $* in *--jobs*) echo '%s'; exit %d;; esac\necho RUNNING\n", answer, code);
    write_whole(command, script, strlen(script));
    assert_int_equal(chmod(command, 0777), 0);
}

static void must_with_squeue(mbl_status_t want, const char *answer, int code, const mbl_holder_t *holder) {
    make_squeue(answer, code);
    write_lock(holder, 10);
    mbl_lock_t *lock;
    mbl_status_t got = mbl_lock_take(folder, &lock);
    if (got == MBL_OK)
        mbl_lock_release(lock);
    if (got != want)
        fail_msg("squeue says \"%s\" with exit %d: %s, expected %s", answer, code, mbl_status_name(got),
                 mbl_status_name(want));
    unlink(path);
}

static void slurm_is_asked(void **state) {
    char search[2048];
    const char *before = getenv("PATH");
    char *kept = strdup(before ? before : "");
    mbl_holder_t other;
    (void)state;
    snprintf(search, sizeof search, "%s/bin:%s", folder, kept);
    setenv("PATH", search, 1);
    setenv("SLURM_JOB_ID", "12", 1);
    setenv("SLURM_CLUSTER_NAME", "here", 1);
    mbl_holder_self(&other);
    assert_string_equal(other.job, "12");
    snprintf(other.host, sizeof other.host, "elsewhere");
    must_with_squeue(MBL_ERR_BUSY, "", 0, &other); /* this very job: another step of it, maybe */
    assert_non_null(strstr(mbl_fail_message(), "(job 12 of Slurm)"));
    setenv("SLURM_RESTART_COUNT", "1", 1);
    must_with_squeue(MBL_OK, "", 0, &other); /* this job before it was started again */
    snprintf(other.job, sizeof other.job, "7");
    must_with_squeue(MBL_ERR_BUSY, "RUNNING", 0, &other);
    must_with_squeue(MBL_ERR_BUSY, "COMPLETING", 0, &other);
    must_with_squeue(MBL_OK, "NODE_FAIL", 0, &other);
    must_with_squeue(MBL_OK, "", 1, &other); /* invalid job id */
    snprintf(other.cluster, sizeof other.cluster, "there");
    must_with_squeue(MBL_ERR_BUSY, "", 1, &other); /* another cluster's jobs are not known here */
    unsetenv("SLURM_RESTART_COUNT");
    unsetenv("SLURM_CLUSTER_NAME");
    unsetenv("SLURM_JOB_ID");
    setenv("PATH", kept, 1);
    free(kept);
}

/* ---- what the thread does ---- */

static void beats(void **state) {
    mbl_lock_t *lock;
    mbl_holder_t self;
    struct stat about;
    (void)state;
    mbl_holder_self(&self);
    assert_int_equal(mbl_lock_take(folder, &lock), MBL_OK);
    write_lock(&self, 100);
    mbl_lock_beat(lock);
    assert_int_equal(stat(path, &about), 0);
    assert_true(difftime(time(NULL), about.st_mtime) < 50); /* renewed */
    assert_int_equal(unlink(path), 0);
    mbl_lock_beat(lock);
    assert_int_equal(stat(path, &about), 0); /* somebody had removed it */
    assert_false(mbl_lock_lost(lock));
    mbl_holder_t other = self;
    snprintf(other.host, sizeof other.host, "elsewhere");
    write_lock(&other, 0);
    mbl_lock_beat(lock);
    assert_true(mbl_lock_lost(lock));
    mbl_lock_release(lock);
    must_hold("lock "); /* the other's */
}

static void allocations_may_fail(void **state) {
    (void)state;
    size_t live = mbl_mem_live(), at = 1;
    for (;; at++) {
        mbl_lock_t *lock = NULL;
        mbl_mem_fail_at(at);
        mbl_status_t status = mbl_lock_take(folder, &lock);
        mbl_mem_fail_at(0);
        mbl_lock_release(lock);
        assert_int_equal(mbl_mem_live(), live);
        must_hold("");
        if (status == MBL_OK)
            break;
        assert_int_equal(status, MBL_ERR_MEM);
    }
    assert_int_equal(at, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(ended_processes_are_taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(others_are_judged_by_their_time, setup, teardown),
        cmocka_unit_test_setup_teardown(slurm_is_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(beats, setup, teardown),
        cmocka_unit_test_setup_teardown(allocations_may_fail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
