/* src/base/memory_left: what the kernel calls available, and what is left below the limits of control groups.
 */
#include "support.h"

#include "base/file.h"
#include "base/memory_left.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char root[256];

static void put(const char *path, const char *text) {
    char file[512], parent[512];
    snprintf(file, sizeof file, "%s/%s", root, path);
    snprintf(parent, sizeof parent, "%s", file);
    *strrchr(parent, '/') = 0;
    assert_int_equal(mbl_folder_make(parent), MBL_OK);
    write_whole(file, text, strlen(text));
}

static int make_root(void **state) {
    (void)state;
    temporary_folder(root);
    return 0;
}

static int drop_root(void **state) {
    (void)state;
    remove_folder(root);
    return 0;
}

static void of_the_kernel(void **state) {
    (void)state;
    assert_true(mbl_memory_left(root) == SIZE_MAX && mbl_memory_most(root) == SIZE_MAX);
    put("proc/meminfo", "MemTotal:       16 kB\nMemFree:        3 kB\nMemAvailable:    5000 kB\n");
    assert_int_equal(mbl_memory_left(root), 5000 * 1024);
    assert_int_equal(mbl_memory_most(root), 5000 * 1024);
    put("proc/meminfo", "MemAvailable:    5000 kB\nSwapTotal: 900 kB\nSwapFree:    700 kB\n");
    assert_int_equal(mbl_memory_left(root), 5000 * 1024);
    assert_int_equal(mbl_memory_most(root), 5700 * 1024);
    const size_t here = mbl_memory_left("");
    assert_true(here > 0 && here < SIZE_MAX);
}

static void version_2(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 5000 kB\n");
    put("proc/self/cgroup", "0::/slurm/job_7\n");
    put("sys/fs/cgroup/slurm/job_7/memory.max", "max\n");
    put("sys/fs/cgroup/slurm/job_7/memory.current", "1000\n");
    assert_int_equal(mbl_memory_left(root), 5000 * 1024);
    put("sys/fs/cgroup/slurm/job_7/memory.max", "400000\n");
    assert_int_equal(mbl_memory_left(root), 399000);
    put("sys/fs/cgroup/slurm/memory.max", "300000\n"); /* a group around it */
    put("sys/fs/cgroup/slurm/memory.current", "250000\n");
    assert_int_equal(mbl_memory_left(root), 50000);
    put("sys/fs/cgroup/slurm/memory.stat", "anon 1\nfile 2\ninactive_file 40000\n");
    assert_int_equal(mbl_memory_left(root), 90000);
    put("sys/fs/cgroup/slurm/memory.current", "310000\n");
    put("sys/fs/cgroup/slurm/memory.stat", "inactive_file 0\n");
    assert_int_equal(mbl_memory_left(root), 0);
}

static void version_1(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 5000 kB\n");
    put("proc/self/cgroup", "4:cpu,cpuacct:/a\n3:memory:/docker/x\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "70000\n");
    assert_int_equal(mbl_memory_left(root), 5000 * 1024);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "100000\n");
    put("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 20000\n");
    assert_int_equal(mbl_memory_left(root), 50000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(of_the_kernel, make_root, drop_root),
        cmocka_unit_test_setup_teardown(version_2, make_root, drop_root),
        cmocka_unit_test_setup_teardown(version_1, make_root, drop_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
