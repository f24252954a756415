/* How many threads a process gets: masks of small and of very large hosts, control groups of both versions as
 * trees of files, and who shares them. ctest-wrap: sched_getaffinity */
#include "support.h"

#include "base/cpus.h"
#include "base/file.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* A host whose kernel holds `kernel` CPUs, of which the process may use `allowed`, from `first` on. */
static size_t kernel, allowed, first;

int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    assert_int_equal(pid, 0);
    if (8 * size < kernel) {
        errno = EINVAL;
        return -1;
    }
    CPU_ZERO_S(size, set);
    for (size_t i = first; i < first + allowed; i++)
        CPU_SET_S(i, size, set);
    return 0;
}

static mbl_cpus_t on_host(size_t of_kernel, size_t from, size_t count) {
    mbl_cpus_t cpus;
    kernel = of_kernel;
    first = from;
    allowed = count;
    mbl_cpus_find(&cpus);
    return cpus;
}

static void masks(void **state) {
    (void)state;
    assert_int_equal(on_host(64, 0, 3).count, 3);
    assert_int_equal(on_host(2048, 0, 1500).count, 1500);
    assert_int_equal(on_host(8192, 8000, 100).count, 100);
    assert_true(on_host(2048, 0, 4).mask == on_host(2048, 0, 4).mask);
    assert_true(on_host(2048, 0, 4).mask != on_host(2048, 4, 4).mask);
    assert_true(on_host((size_t)1 << 30, 0, 4).count >= 1); /* nobody says: the CPUs that are online */
}

static int chosen(size_t asked, const char *environment, size_t count, double quota, size_t same_mask,
                  size_t same_group, const char *reason) {
    mbl_threads_t threads;
    mbl_cpus_t cpus = {.online = 64, .count = count, .quota = quota};
    mbl_threads_choose(asked, environment, &cpus, same_mask, same_group, &threads);
    if (!strstr(threads.text, reason))
        print_error("\"%s\" lacks \"%s\"\n", threads.text, reason);
    assert_non_null(strstr(threads.text, reason));
    return threads.count;
}

static void order(void **state) {
    (void)state;
    assert_int_equal(chosen(5, "8", 64, 2, 4, 4, "5 threads: the key threads"), 5);
    assert_int_equal(chosen(0, "8", 64, 2, 4, 4, "8 threads: OMP_NUM_THREADS"), 8);
    assert_int_equal(chosen(0, "8,2", 64, 2, 4, 4, "OMP_NUM_THREADS"), 8);
    assert_int_equal(chosen(0, "1", 64, 0, 1, 1, "1 thread: OMP_NUM_THREADS"), 1);
    assert_int_equal(chosen(0, NULL, 16, 0, 1, 1, "16 of 64 CPUs in the affinity mask"), 16);
    for (const char *const *bad = (const char *const[]){"", "0", "-3", "many", "4x", NULL}; *bad; bad++)
        assert_int_equal(chosen(0, *bad, 16, 0, 1, 1, "affinity mask"), 16);
    assert_int_equal(chosen(0, "99999999", 16, 0, 1, 1, "OMP_NUM_THREADS"), 4096);
}

static void sharing(void **state) {
    (void)state;
    assert_int_equal(
        chosen(0, NULL, 64, 0, 8, 8, "8 threads: 64 of 64 CPUs in the affinity mask, for 8 ranks"), 8);
    assert_int_equal(chosen(0, NULL, 8, 0, 1, 8, "8 threads: 8 of 64"),
                     8); /* ranks with masks of their own */
    assert_int_equal(chosen(0, NULL, 2, 0, 8, 8, "1 thread: 2 of 64"), 1);
    assert_int_equal(
        chosen(0, NULL, 64, 10, 2, 2, "5 threads: the control group grants 10 CPUs, for 2 ranks"), 5);
    assert_int_equal(chosen(0, NULL, 64, 2.5, 2, 1, "2 threads: the control group grants 2.5 CPUs"), 2);
    assert_int_equal(chosen(0, NULL, 64, 0.5, 1, 1, "1 thread: the control group grants 0.5 CPUs"), 1);
    assert_int_equal(chosen(0, NULL, 4, 100, 1, 1, "4 threads: 4 of 64"), 4);
}

/* ---- control groups ---- */

static char root[256];

static void put(const char *path, const char *text) {
    char file[512], parent[512];
    snprintf(file, sizeof file, "%s/%s", root, path);
    snprintf(parent, sizeof parent, "%s", file);
    *strrchr(parent, '/') = 0;
    assert_int_equal(mbl_folder_make(parent), MBL_OK);
    write_whole(file, text, strlen(text));
}

static double quota(uint64_t *group) {
    return mbl_cpus_quota(root, group);
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

static void version_2(void **state) {
    (void)state;
    uint64_t one, other;
    put("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
    assert_true(quota(&one) == 0); /* no such files */
    put("sys/fs/cgroup/slurm/job_7/step_0/cpu.max", "max 100000\n");
    assert_true(quota(&one) == 0);
    put("sys/fs/cgroup/slurm/job_7/cpu.max", "350000 100000\n"); /* a limit of a group around it counts */
    assert_true(quota(&one) == 3.5);
    put("sys/fs/cgroup/slurm/job_7/step_0/cpu.max", "200000 100000\n");
    assert_true(quota(&other) == 2);
    assert_true(one != other);
    put("sys/fs/cgroup/cpu.max", "100000 200000\n");
    assert_true(quota(&one) == 0.5);
}

/* A container sees its own group as the root: with a path of its own, of the host, or above what it sees. */
static void container(void **state) {
    (void)state;
    uint64_t group;
    put("sys/fs/cgroup/cpu.max", "800000 100000\n");
    for (const char *const *line = (const char *const[]){"0::/\n", "0::/docker/1234\n", "0::/../..\n", NULL};
         *line; line++) {
        put("proc/self/cgroup", *line);
        assert_true(quota(&group) == 8);
    }
}

static void version_1(void **state) {
    (void)state;
    uint64_t group;
    put("proc/self/cgroup", "5:cpuset:/\n4:cpuacct,cpu:/pod/one\n0::/\n");
    put("sys/fs/cgroup/cpu/pod/one/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/pod/one/cpu.cfs_period_us", "100000\n");
    assert_true(quota(&group) == 0);
    put("sys/fs/cgroup/cpu/pod/one/cpu.cfs_quota_us", "600000\n");
    assert_true(quota(&group) == 6);
    put("sys/fs/cgroup/cpuacct,cpu/pod/cpu.cfs_quota_us", "150000\n");
    put("sys/fs/cgroup/cpuacct,cpu/pod/cpu.cfs_period_us", "50000\n");
    assert_true(quota(&group) == 3);
}

static void odd_files(void **state) {
    (void)state;
    uint64_t group;
    put("proc/self/cgroup", "nonsense\n:\n7:cpu\n0::/a//b/\n");
    put("sys/fs/cgroup/a/b/cpu.max", "");
    put("sys/fs/cgroup/cpu.max", "0 0\n");
    assert_true(quota(&group) == 0);
    put("sys/fs/cgroup/a/cpu.max", "400000 100000\n");
    assert_true(quota(&group) == 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks),
        cmocka_unit_test(order),
        cmocka_unit_test(sharing),
        cmocka_unit_test_setup_teardown(version_2, make_root, drop_root),
        cmocka_unit_test_setup_teardown(container, make_root, drop_root),
        cmocka_unit_test_setup_teardown(version_1, make_root, drop_root),
        cmocka_unit_test_setup_teardown(odd_files, make_root, drop_root),
    };
    return cmocka_run_group_tests_name("cpus", tests, NULL, NULL);
}
