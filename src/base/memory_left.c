/* Memory that is left, by the kernel and by control groups. */
#include "base/memory_left.h"

#include "base/cgroup.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The number after `name` in a file of lines "NAME NUMBER", times `unit`; `otherwise` where it is not there.
 */
static size_t number_in(const char *path, const char *name, size_t unit, size_t otherwise) {
    char line[256];
    uint64_t value;
    const size_t n = strlen(name);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, n) == 0 && sscanf(line + n, "%" SCNu64, &value) == 1) {
            otherwise = value > SIZE_MAX / unit ? SIZE_MAX : (size_t)value * unit;
            break;
        }
    if (file)
        fclose(file);
    return otherwise;
}

static bool read_bytes(const char *group, const char *file, size_t *out) {
    char line[64];
    uint64_t value;
    if (!mbl_cgroup_line(group, file, line, sizeof line) || sscanf(line, "%" SCNu64, &value) != 1)
        return false;
    *out = (size_t)value;
    return true;
}

/* No limit is "max" in v2 and a number near 2^63 in v1: then it is more than is ever available. */
static void consider(void *context, const char *group, bool v2) {
    size_t *least = context, limit, used;
    char path[1200];
    if (!read_bytes(group, v2 ? "memory.max" : "memory.limit_in_bytes", &limit) ||
        !read_bytes(group, v2 ? "memory.current" : "memory.usage_in_bytes", &used))
        return;
    snprintf(path, sizeof path, "%s/memory.stat", group);
    const size_t cache = number_in(path, v2 ? "inactive_file " : "total_inactive_file ", 1, 0);
    used -= cache < used ? cache : used;
    const size_t left = limit > used ? limit - used : 0;
    if (left < *least)
        *least = left;
}

static size_t of_kernel(const char *root, const char *name, size_t otherwise) {
    char path[1100];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    return number_in(path, name, 1024, otherwise);
}

size_t mbl_memory_most(const char *root) {
    const size_t left = mbl_memory_left(root), swap = of_kernel(root, "SwapFree:", 0);
    return left > SIZE_MAX - swap ? SIZE_MAX : left + swap;
}

size_t mbl_memory_left(const char *root) {
    size_t least = of_kernel(root, "MemAvailable:", SIZE_MAX);
    mbl_cgroup_walk(root, "memory", consider, &least);
    return least;
}
