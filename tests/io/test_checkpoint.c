/* src/io/checkpoint: what is written comes back; damage of every kind is refused with a message and never
 * crashes; a full disk and kill -9 leave the previous checkpoint good. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "io/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 300000 }; /* more than one chunk */

typedef struct {
    float *weights;
    double moments[5];
    int64_t order[3];
    uint8_t flags[4];
    char *config;
    mbl_ckpt_item_t items[5];
    mbl_ckpt_attr_t attrs[4];
} content_t;

static char step_text[32];

static void make_content(content_t *c, size_t step, size_t count) {
    *c = (content_t){
        .moments = {1.0, -2.5, NAN, INFINITY, 4e-320}, .order = {INT64_MIN, 0, 7}, .flags = {0, 255, 1, 2}};
    c->weights = malloc(count * sizeof *c->weights);
    mbl_rng_t rng = mbl_rng(step, MBL_RNG_INIT, 0, 0);
    mbl_rng_normal(&rng, c->weights, count);
    c->config = malloc(100001); /* beyond what a compact attribute holds */
    memset(c->config, 'x', 100000);
    c->config[100000] = 0;
    snprintf(step_text, sizeof step_text, "%zu", step);
    mbl_ckpt_item_t items[] = {{"adapter/current", MBL_F32, count, c->weights},
                               {"optimizer/m", MBL_F64, 5, c->moments},
                               {"order", MBL_I64, 3, c->order},
                               {"rewards/deep/flags", MBL_U8, 4, c->flags},
                               {"empty", MBL_F32, 0, NULL}};
    mbl_ckpt_attr_t attrs[] = {
        {"step", step_text}, {"config", c->config}, {"empty", ""}, {"name", "K\xc3\xa4se \"7\"\n"}};
    memcpy(c->items, items, sizeof items);
    memcpy(c->attrs, attrs, sizeof attrs);
}

static mbl_status_t write_content(const content_t *c, const char *path) {
    return mbl_ckpt_write(path, c->items, 5, c->attrs, 4);
}

static void free_content(content_t *c) {
    free(c->weights);
    free(c->config);
}

static mbl_status_t write_step(const char *folder, size_t step, size_t count) {
    char path[512];
    content_t c;
    MBL_TRY(mbl_ckpt_path(folder, step, path, sizeof path));
    make_content(&c, step, count);
    mbl_status_t status = write_content(&c, path);
    free_content(&c);
    return status;
}

static mbl_status_t publish(const char *folder, size_t step, size_t last) {
    const mbl_ckpt_keep_t keep = {.last = last};
    return mbl_ckpt_publish(folder, step, &keep);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static char *in(const char *folder, const char *name) {
    static char path[4][512];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static void round_trip(void **state) {
    (void)state;
    char folder[256];
    content_t c;
    temporary_folder(folder);
    char *path = in(folder, "a.h5");
    make_content(&c, 7, COUNT);
    assert_int_equal(write_content(&c, path), MBL_OK);
    assert_false(exists(in(folder, "a.h5.tmp")));
    mbl_ckpt_t *ckpt;
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    for (int i = 0; i < 5; i++) {
        size_t size = c.items[i].dtype == MBL_F32 ? 4 : c.items[i].dtype == MBL_U8 ? 1 : 8;
        unsigned char *back = calloc(c.items[i].count + 1, size);
        assert_int_equal(mbl_ckpt_read(ckpt, c.items[i].name, c.items[i].dtype, c.items[i].count, back),
                         MBL_OK);
        if (c.items[i].count)
            assert_memory_equal(back, c.items[i].data, c.items[i].count * size);
        free(back);
    }
    for (int i = 0; i < 4; i++)
        assert_string_equal(mbl_ckpt_attr(ckpt, c.attrs[i].key), c.attrs[i].value);
    assert_null(mbl_ckpt_attr(ckpt, "nothing"));
    static const char *const names[] = {"adapter/current", "empty", "optimizer/m", "order",
                                        "rewards/deep/flags"};
    mbl_ckpt_item_t item;
    for (size_t i = 0; i < 5; i++) {
        assert_true(mbl_ckpt_item(ckpt, i, &item));
        assert_string_equal(item.name, names[i]);
    }
    assert_false(mbl_ckpt_item(ckpt, 5, &item));
    mbl_ckpt_attr_t attr;
    assert_true(mbl_ckpt_attr_at(ckpt, 3, &attr));
    assert_string_equal(attr.key, "step");
    assert_string_equal(attr.value, "7");
    assert_false(mbl_ckpt_attr_at(ckpt, 4, &attr));
    mbl_ckpt_close(ckpt);
    free_content(&c);
    remove_folder(folder);
}

static void same_content_same_bytes(void **state) {
    (void)state;
    char folder[256];
    content_t c;
    size_t n, m;
    temporary_folder(folder);
    make_content(&c, 7, COUNT);
    assert_int_equal(write_content(&c, in(folder, "a.h5")), MBL_OK);
    sleep(1); /* a time stamp in the file would differ */
    assert_int_equal(write_content(&c, in(folder, "b.h5")), MBL_OK);
    char *a = read_whole(in(folder, "a.h5"), &n), *b = read_whole(in(folder, "b.h5"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    free_content(&c);
    remove_folder(folder);
}

static void wrong_reads_are_reported(void **state) {
    (void)state;
    char folder[256];
    content_t c;
    float out[8];
    mbl_ckpt_t *ckpt;
    temporary_folder(folder);
    make_content(&c, 7, 8);
    assert_int_equal(write_content(&c, in(folder, "a.h5")), MBL_OK);
    assert_int_equal(mbl_ckpt_open(in(folder, "a.h5"), &ckpt), MBL_OK);
    assert_int_equal(mbl_ckpt_read(ckpt, "adapter/current", MBL_F32, 7, out), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "dataset adapter/current is 8 x f32; expected 7 x f32"));
    assert_int_equal(mbl_ckpt_read(ckpt, "adapter/current", MBL_F64, 8, out), MBL_ERR_FORMAT);
    assert_int_equal(mbl_ckpt_read(ckpt, "adapter/old", MBL_F32, 8, out), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "a.h5: has no dataset adapter/old"));
    mbl_ckpt_close(ckpt);
    free_content(&c);
    remove_folder(folder);
}

static void wrong_content_is_refused(void **state) {
    (void)state;
    char folder[256];
    float x[2] = {1, 2};
    temporary_folder(folder);
    char *path = in(folder, "a.h5");
    mbl_ckpt_item_t bad[] = {{"", MBL_F32, 2, x},     {"/a", MBL_F32, 2, x}, {"a//b", MBL_F32, 2, x},
                             {"a/", MBL_F32, 2, x},   {"a", MBL_BF16, 2, x}, {"a", MBL_F64, SIZE_MAX / 4, x},
                             {"a", MBL_F32, 2, NULL}, {NULL, MBL_F32, 2, x}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(mbl_ckpt_write(path, &bad[i], 1, NULL, 0), MBL_ERR_ARG);
    mbl_ckpt_attr_t attrs[] = {
        {"a", "1"}, {"a", "2"}, {"format_version", "3"}, {"attributes_sha256", "x"}, {"b", NULL}};
    assert_int_equal(mbl_ckpt_write(path, NULL, 0, attrs, 2), MBL_ERR_ARG);
    for (size_t i = 2; i < 5; i++)
        assert_int_equal(mbl_ckpt_write(path, NULL, 0, &attrs[i], 1), MBL_ERR_ARG);
    mbl_ckpt_item_t clash[] = {{"a", MBL_F32, 2, x}, {"a/b", MBL_F32, 2, x}};
    assert_int_equal(mbl_ckpt_write(path, clash, 2, NULL, 0), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "store dataset a/b"));
    assert_false(exists(path));
    assert_int_equal(mbl_ckpt_write(in(folder, "none/a.h5"), clash, 1, NULL, 0), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "No such file or directory"));
    remove_folder(folder);
}

/* Opens a file in a child of its own and gives its status; a crash or a hang fails the test. */
static mbl_status_t open_in_child(const char *path) {
    pid_t child = fork();
    if (child == 0) {
        mbl_ckpt_t *ckpt = NULL;
        alarm(10);
        mbl_log_set_level(MBL_LOG_OFF);
        mbl_status_t status = mbl_ckpt_open(path, &ckpt);
        mbl_ckpt_close(ckpt);
        _exit((int)status);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    if (!WIFEXITED(code))
        fail_msg("%s: ended by signal %d", path, WTERMSIG(code));
    return (mbl_status_t)WEXITSTATUS(code);
}

static void must_be_refused(const char *path, const char *what, size_t at) {
    mbl_status_t status = open_in_child(path);
    if (status != MBL_ERR_FORMAT && status != MBL_ERR_IO)
        fail_msg("%s at %zu: status %s; expected ERR_FORMAT or ERR_IO", what, at, mbl_status_name(status));
}

static void damage_is_refused(void **state) {
    (void)state;
    char folder[256];
    size_t n;
    temporary_folder(folder);
    assert_int_equal(write_step(folder, 1, 20000), MBL_OK);
    char *whole = read_whole(in(folder, "step-000001.h5"), &n), *path = in(folder, "damaged.h5");
    mbl_rng_t rng = mbl_rng(3, MBL_RNG_STUDY, 0, 0);
    for (uint32_t i = 0; i < 300; i++) {
        /* a third each: the header, anywhere, the trailer */
        size_t at = i % 3 == 0   ? mbl_rng_below(&rng, 2048)
                    : i % 3 == 1 ? mbl_rng_below(&rng, (uint32_t)n)
                                 : n - 1 - mbl_rng_below(&rng, 128);
        char kept = whole[at];
        whole[at] = (char)(kept ^ (1 << mbl_rng_below(&rng, 8)));
        write_whole(path, whole, n);
        must_be_refused(path, "flipped bit", at);
        whole[at] = kept;
    }
    /* MARBLE_PROOF=long: every byte of the header, 1,000 anywhere behind it, every byte of the trailer */
    for (size_t i = 0, header = 4096; getenv("MARBLE_PROOF") && i < header + 1000 + 128; i++) {
        size_t at = i < header          ? i
                    : i < header + 1000 ? header + mbl_rng_below(&rng, (uint32_t)(n - header - 128))
                                        : n - 128 + (i - header - 1000);
        char kept = whole[at];
        whole[at] = (char)(kept ^ (1 << mbl_rng_below(&rng, 8)));
        write_whole(path, whole, n);
        must_be_refused(path, "flipped bit", at);
        whole[at] = kept;
    }
    for (uint32_t i = 0; i < 60; i++) {
        size_t length = i < 3 ? i * 64 : mbl_rng_below(&rng, (uint32_t)n);
        write_whole(path, whole, length);
        must_be_refused(path, "cut", length);
    }
    write_whole(path, whole, n - 1);
    must_be_refused(path, "cut", n - 1);
    char *longer = calloc(n + 10, 1);
    memcpy(longer, whole, n);
    write_whole(path, longer, n + 10);
    must_be_refused(path, "longer", n + 10);
    free(longer);
    free(whole);
    remove_folder(folder);
}

/* Damage under a trailer that fits it: what the digests inside are for. */
static void inner_digests_work(void **state) {
    (void)state;
    char folder[256], hex[MBL_SHA256_HEX];
    size_t n;
    mbl_ckpt_t *ckpt;
    temporary_folder(folder);
    assert_int_equal(write_step(folder, 1, 1000), MBL_OK);
    char *path = in(folder, "step-000001.h5"), *whole = read_whole(path, &n);
    char *text = memmem(whole, n, "xxxxxxxxxxxxxxxx", 16), *trailer = whole + n - 128;
    static const double moment = -2.5;
    char *number = memmem(whole, n, &moment, sizeof moment);
    assert_non_null(text);
    assert_non_null(number);
    for (int i = 0; i < 2; i++) {
        char *byte = i == 0 ? text + 5 : number;
        *byte ^= 1;
        mbl_sha256_text(whole, n - 128, hex);
        memcpy(strstr(trailer, "sha256 ") + 7, hex, 64);
        write_whole(path, whole, n);
        assert_int_not_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
        assert_non_null(strstr(mbl_fail_message(), i == 0 ? "are not those that marble wrote: one was"
                                                          : "HDF5 cannot read dataset optimizer/m"));
        *byte ^= 1;
    }
    free(whole);
    remove_folder(folder);
}

static void not_files_are_refused(void **state) {
    (void)state;
    char folder[256];
    mbl_ckpt_t *ckpt;
    temporary_folder(folder);
    assert_int_equal(mbl_ckpt_open(in(folder, "none.h5"), &ckpt), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), "none.h5: cannot be opened: No such file"));
    assert_int_equal(mbl_ckpt_open(folder, &ckpt), MBL_ERR_IO);
    assert_int_equal(mkfifo(in(folder, "pipe.h5"), 0600), 0);
    must_be_refused(in(folder, "pipe.h5"), "pipe", 0);
    remove_folder(folder);
}

/* A newer version says so; a newer file is not called damaged. */
static void newer_version_is_named(void **state) {
    (void)state;
    char folder[256];
    size_t n;
    mbl_ckpt_t *ckpt;
    temporary_folder(folder);
    assert_int_equal(write_step(folder, 1, 10), MBL_OK);
    char *path = in(folder, "step-000001.h5"), *whole = read_whole(path, &n);
    char *version = whole + n - 128 + strlen("marble checkpoint v");
    assert_int_equal(*version, '1');
    *version = '2';
    write_whole(path, whole, n);
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "format version 2; this marble reads 1"));
    free(whole);
    remove_folder(folder);
}

static void spoil(const char *path) {
    size_t n;
    char *whole = read_whole(path, &n);
    whole[n / 2] ^= 4;
    write_whole(path, whole, n);
    free(whole);
}

static void newest_good_is_found(void **state) {
    (void)state;
    char folder[256], out[512];
    bool found = true;
    mbl_ckpt_t *ckpt;
    temporary_folder(folder);
    assert_int_equal(mbl_ckpt_latest(in(folder, "nowhere"), NULL, out, sizeof out, &found), MBL_OK);
    assert_false(found);
    assert_int_equal(mbl_ckpt_latest(folder, NULL, out, sizeof out, &found), MBL_OK);
    assert_false(found);
    for (size_t step = 10; step <= 30; step += 10)
        assert_int_equal(write_step(folder, step, 100), MBL_OK);
    assert_int_equal(mbl_ckpt_latest(folder, NULL, out, sizeof out, &found), MBL_OK);
    assert_true(found);
    assert_string_equal(out, in(folder, "step-000030.h5"));
    spoil(in(folder, "step-000030.h5"));
    assert_int_equal(mbl_ckpt_latest(folder, NULL, out, sizeof out, &found), MBL_OK);
    assert_string_equal(out, in(folder, "step-000020.h5"));
    assert_int_equal(mbl_ckpt_open(in(folder, "step-000030.h5"), &ckpt), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "step-000030.h5: damaged"));
    assert_non_null(strstr(mbl_fail_message(), "newest good checkpoint beside it is"));
    assert_non_null(strstr(mbl_fail_message(), "step-000020.h5"));
    spoil(in(folder, "step-000020.h5"));
    spoil(in(folder, "step-000010.h5"));
    assert_int_equal(mbl_ckpt_latest(folder, NULL, out, sizeof out, &found), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "all 3 checkpoints"));
    remove_folder(folder);
}

static void publishing(void **state) {
    (void)state;
    char folder[256], out[512], target[64] = "";
    bool found = false;
    mbl_ckpt_t *ckpt;
    temporary_folder(folder);
    write_whole(in(folder, "step-000001.h5.tmp"), "x", 1);
    write_whole(in(folder, "notes.txt"), "x", 1);
    for (size_t step = 1; step <= 5; step++) {
        assert_int_equal(write_step(folder, step, 100), MBL_OK);
        assert_int_equal(publish(folder, step, 3), MBL_OK);
    }
    assert_false(exists(in(folder, "step-000001.h5.tmp")));
    assert_true(exists(in(folder, "notes.txt")));
    assert_false(exists(in(folder, "step-000002.h5")));
    assert_true(exists(in(folder, "step-000003.h5")));
    assert_true(exists(in(folder, "step-000004.h5")));
    assert_true(readlink(in(folder, "latest.h5"), target, sizeof target - 1) > 0);
    assert_string_equal(target, "step-000005.h5");
    assert_int_equal(mbl_ckpt_open(in(folder, "latest.h5"), &ckpt), MBL_OK);
    assert_string_equal(mbl_ckpt_attr(ckpt, "step"), "5");
    mbl_ckpt_close(ckpt);
    /* a run resumed from an earlier step: what it publishes is the latest, whatever else is left */
    assert_int_equal(publish(folder, 3, 3), MBL_OK);
    assert_int_equal(mbl_ckpt_latest(folder, NULL, out, sizeof out, &found), MBL_OK);
    assert_string_equal(out, in(folder, "step-000003.h5"));
    assert_int_equal(publish(folder, 3, 1), MBL_OK);
    assert_false(exists(in(folder, "step-000005.h5")));
    assert_true(exists(in(folder, "step-000003.h5")));
    assert_int_equal(publish(folder, 9, 1), MBL_ERR_ARG);
    remove_folder(folder);
}

/* The two newest, every tenth, and those that are asked for by number. */
static void what_is_kept(void **state) {
    (void)state;
    char folder[256], name[32];
    static const size_t also[] = {3, 13};
    const mbl_ckpt_keep_t keep = {.last = 2, .every = 10, .n_also = 2, .also = also};
    temporary_folder(folder);
    for (size_t step = 1; step <= 25; step++) {
        assert_int_equal(write_step(folder, step, 10), MBL_OK);
        assert_int_equal(mbl_ckpt_publish(folder, step, &keep), MBL_OK);
    }
    for (size_t step = 1; step <= 25; step++) {
        snprintf(name, sizeof name, "step-%06zu.h5", step);
        bool stays = step % 10 == 0 || step == 3 || step == 13 || step >= 24;
        if (exists(in(folder, name)) != stays)
            fail_msg("%s %s", name, stays ? "is gone" : "is still there");
    }
    remove_folder(folder);
}

/* A write that hits a limit: refused with path and cause, the previous file untouched, nothing left over. */
static void check_failed_write(const char *folder, const char *cause) {
    size_t n, m;
    char *path = in(folder, "step-000001.h5");
    char *before = read_whole(path, &n);
    assert_int_equal(write_step(folder, 1, 4 * COUNT), MBL_ERR_IO);
    assert_non_null(strstr(mbl_fail_message(), path));
    assert_non_null(strstr(mbl_fail_message(), cause));
    assert_int_equal(write_step(folder, 2, 4 * COUNT), MBL_ERR_IO);
    char *after = read_whole(path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    assert_false(exists(in(folder, "step-000001.h5.tmp")));
    assert_false(exists(in(folder, "step-000002.h5.tmp")));
    assert_false(exists(in(folder, "step-000002.h5")));
    assert_int_equal(open_in_child(path), MBL_OK);
    free(before);
    free(after);
}

static void size_limit_keeps_the_previous(void **state) {
    (void)state;
    char folder[256];
    struct rlimit kept, limit;
    temporary_folder(folder);
    assert_int_equal(write_step(folder, 1, 1000), MBL_OK);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    limit = kept;
    limit.rlim_cur = 1 << 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    check_failed_write(folder, "File too large");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    remove_folder(folder);
}

/* The same on a file system of 1 MiB, where this user may mount one. */
static void full_disk_keeps_the_previous(void **state) {
    (void)state;
    char folder[256], command[600];
    temporary_folder(folder);
    snprintf(command, sizeof command, "mount -t tmpfs -o size=1m tmpfs '%s' 2>/dev/null", folder);
    if (geteuid() != 0 || system(command) != 0) {
        remove_folder(folder);
        print_message("no right to mount a small file system; the size limit above covers the same path\n");
        skip();
    }
    assert_int_equal(write_step(folder, 1, 1000), MBL_OK);
    check_failed_write(folder, "No space left on device");
    snprintf(command, sizeof command, "umount '%s'", folder);
    assert_int_equal(system(command), 0);
    remove_folder(folder);
}

static void write_for_ever(const char *folder) {
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t step = 1;; step++)
        if (write_step(folder, step, 50000) != MBL_OK || publish(folder, step, 2) != MBL_OK)
            _exit(1);
}

static void kill_keeps_the_latest_good(void **state) {
    (void)state;
    char folder[256], out[512];
    size_t most = 0;
    temporary_folder(folder);
    assert_int_equal(write_step(folder, 0, 50000), MBL_OK);
    assert_int_equal(publish(folder, 0, 2), MBL_OK);
    mbl_rng_t rng = mbl_rng(5, MBL_RNG_STUDY, 0, 0);
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0)
            write_for_ever(folder);
        usleep(1000 + mbl_rng_below(&rng, 60000));
        kill(child, SIGKILL);
        int code;
        assert_int_equal(waitpid(child, &code, 0), child);
        assert_true(WIFSIGNALED(code));
        mbl_ckpt_t *ckpt;
        bool found = false;
        assert_int_equal(mbl_ckpt_open(in(folder, "latest.h5"), &ckpt), MBL_OK);
        size_t step = strtoul(mbl_ckpt_attr(ckpt, "step"), NULL, 10);
        most = step > most ? step : most;
        mbl_ckpt_close(ckpt);
        assert_int_equal(mbl_ckpt_latest(folder, NULL, out, sizeof out, &found), MBL_OK);
        assert_true(found);
    }
    assert_true(most > 0); /* the child did write */
    remove_folder(folder);
}

/* Whichever allocation of ours fails: ERR_MEM, nothing lost, nothing left over. */
static void no_memory_is_survived(void **state) {
    (void)state;
    char folder[256];
    content_t c;
    temporary_folder(folder);
    char *path = in(folder, "step-000001.h5");
    make_content(&c, 1, 100);
    size_t live = mbl_mem_live(), failures = 0;
    mbl_log_set_level(MBL_LOG_OFF);
    for (size_t at = 1;; at++) {
        mbl_ckpt_t *ckpt = NULL;
        mbl_mem_fail_at(at);
        mbl_status_t status = write_content(&c, path);
        if (status == MBL_OK)
            status = publish(folder, 1, 1);
        if (status == MBL_OK)
            status = mbl_ckpt_open(path, &ckpt);
        mbl_ckpt_close(ckpt);
        mbl_mem_fail_at(0);
        assert_int_equal(mbl_mem_live(), live);
        if (status == MBL_OK)
            break;
        failures++;
        assert_true(at < 200);
    }
    mbl_log_set_level(MBL_LOG_INFO);
    assert_true(failures > 10);
    free_content(&c);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(same_content_same_bytes),
        cmocka_unit_test(wrong_reads_are_reported),
        cmocka_unit_test(wrong_content_is_refused),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(inner_digests_work),
        cmocka_unit_test(not_files_are_refused),
        cmocka_unit_test(newer_version_is_named),
        cmocka_unit_test(newest_good_is_found),
        cmocka_unit_test(publishing),
        cmocka_unit_test(what_is_kept),
        cmocka_unit_test(size_limit_keeps_the_previous),
        cmocka_unit_test(full_disk_keeps_the_previous),
        cmocka_unit_test(kill_keeps_the_latest_good),
        cmocka_unit_test(no_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
