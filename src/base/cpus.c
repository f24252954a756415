/* Affinity mask, control groups, and threads. */
#include "base/cpus.h"

#include "base/cgroup.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CPUS = 1 << 20, MOST_THREADS = 4096 };

static uint64_t hash(uint64_t h, const void *data, size_t n) { /* FNV-1a */
    for (const unsigned char *c = data; n > 0; n--, c++)
        h = (h ^ *c) * 0x100000001b3u;
    return h;
}

static const uint64_t hash_start = 0xcbf29ce484222325u;

/* ---- mask ---- */

/* The kernel refuses a set that is smaller than its own, which may hold more than cpu_set_t's 1,024. */
static bool read_mask(size_t cpus, mbl_cpus_t *out) {
    cpu_set_t *set = CPU_ALLOC(cpus);
    size_t size = CPU_ALLOC_SIZE(cpus);
    if (!set)
        return false;
    CPU_ZERO_S(size, set);
    bool good = sched_getaffinity(0, size, set) == 0;
    if (good) {
        out->count = (size_t)CPU_COUNT_S(size, set);
        out->mask = hash(hash_start, set, size);
    }
    CPU_FREE(set);
    return good;
}

void mbl_cpus_find(mbl_cpus_t *out) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    *out = (mbl_cpus_t){.online = online > 0 ? (size_t)online : 1};
    for (size_t cpus = 1024; cpus <= MOST_CPUS && !read_mask(cpus, out); cpus *= 2)
        if (errno != EINVAL)
            break;
    if (out->count == 0)
        out->count = out->online;
    out->quota = mbl_cpus_quota("", &out->group);
}

/* ---- control groups ---- */

typedef struct {
    double quota; /* least so far; 0: none */
    uint64_t group;
} least_t;

static void consider(const char *group, double quota, double period, least_t *least) {
    if (!(quota > 0 && period > 0) || (least->quota > 0 && least->quota <= quota / period))
        return;
    *least = (least_t){quota / period, hash(hash_start, group, strlen(group))};
}

/* v2: "max 100000" or "QUOTA PERIOD" in cpu.max; v1: -1 or the quota, and the period, each in its file. */
static void read_group(void *context, const char *group, bool v2) {
    char line[64];
    double quota = 0, period = 0;
    if (v2) {
        if (mbl_cgroup_line(group, "cpu.max", line, sizeof line) &&
            sscanf(line, "%lf %lf", &quota, &period) == 2)
            consider(group, quota, period, context);
        return;
    }
    if (!mbl_cgroup_line(group, "cpu.cfs_quota_us", line, sizeof line) || sscanf(line, "%lf", &quota) != 1)
        return;
    if (mbl_cgroup_line(group, "cpu.cfs_period_us", line, sizeof line) && sscanf(line, "%lf", &period) == 1)
        consider(group, quota, period, context);
}

double mbl_cpus_quota(const char *root, uint64_t *group) {
    least_t least = {0, 0};
    mbl_cgroup_walk(root, "cpu", read_group, &least);
    *group = least.group;
    return least.quota;
}

/* ---- threads ---- */

/* The first number of "8" or "8,2"; 0 where there is none. */
static size_t number_of(const char *text) {
    char *end;
    if (!text)
        return 0;
    long value = strtol(text, &end, 10);
    while (*end == ' ')
        end++;
    return end == text || (*end && *end != ',') || value < 1 ? 0 : (size_t)value;
}

static const char *plural(size_t n) {
    return n == 1 ? "" : "s";
}

static void say(mbl_threads_t *out, size_t count, const char *reason) {
    count = count < MOST_THREADS ? count : MOST_THREADS;
    out->count = (int)count;
    out->by_mask = false;
    snprintf(out->text, sizeof out->text, "%zu thread%s: %s", count, plural(count), reason);
}

void mbl_threads_choose(size_t asked, const char *environment, const mbl_cpus_t *cpus, size_t same_mask,
                        size_t same_group, mbl_threads_t *out) {
    char reason[160], ranks[60] = "";
    size_t of_mask = cpus->count / (same_mask ? same_mask : 1);
    double of_quota = cpus->quota / (double)(same_group ? same_group : 1);
    bool by_quota = cpus->quota > 0 && of_quota < (double)(of_mask ? of_mask : 1);
    size_t sharing = by_quota ? same_group : same_mask;
    if (sharing > 1)
        snprintf(ranks, sizeof ranks, ", for %zu ranks", sharing);
    if (asked) {
        say(out, asked, "the key threads");
    } else if (number_of(environment)) {
        say(out, number_of(environment), "OMP_NUM_THREADS");
    } else if (by_quota) {
        snprintf(reason, sizeof reason, "the control group grants %.4g CPUs%s", cpus->quota, ranks);
        say(out, of_quota > 1 ? (size_t)of_quota : 1, reason);
    } else {
        snprintf(reason, sizeof reason, "%zu of %zu CPU%s in the affinity mask%s", cpus->count, cpus->online,
                 plural(cpus->online), ranks);
        say(out, of_mask ? of_mask : 1, reason);
        out->by_mask = true;
    }
}

void mbl_threads_alone(mbl_threads_t *out) {
    mbl_cpus_t cpus;
    mbl_cpus_find(&cpus);
    mbl_threads_choose(0, getenv("OMP_NUM_THREADS"), &cpus, 1, 1, out);
}
