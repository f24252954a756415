/* The control groups (v1 or v2) that a process is in. */
#ifndef MBL_BASE_CGROUP_H
#define MBL_BASE_CGROUP_H

#include <stdbool.h>

typedef void mbl_cgroup_visit_t(void *context, const char *group, bool v2);

/* Visits the folder of this process's group of `controller` ("cpu", "memory"), and of every group around it,
 * with /proc and /sys looked up below `root` ("" but for tests). */
void mbl_cgroup_walk(const char *root, const char *controller, mbl_cgroup_visit_t *visit, void *context);
/* The first line of a file of a group, with its end of line; false where there is none. */
bool mbl_cgroup_line(const char *group, const char *file, char *line, int size);

#endif
