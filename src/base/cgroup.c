/* Finding control groups. */
#include "base/cgroup.h"

#include <stdio.h>
#include <string.h>

enum { PATH = 1024 };

bool mbl_cgroup_line(const char *group, const char *file, char *line, int size) {
    char path[PATH + 64];
    snprintf(path, sizeof path, "%s/%s", group, file);
    FILE *in = fopen(path, "re");
    bool good = in && fgets(line, size, in);
    if (in)
        fclose(in);
    return good;
}

typedef struct {
    const char *root, *controller;
    mbl_cgroup_visit_t *visit;
    void *context;
} walk_t;

/* `path` below the mount and every group above it. Where a container shows a part of the tree only, the path
 * is not there and the mount itself is the container's group. */
static void visit_groups(const walk_t *walk, const char *mount, const char *path, bool v2) {
    char group[PATH];
    size_t top = strlen(mount);
    int n = snprintf(group, sizeof group, "%s%s", mount, strstr(path, "..") ? "" : path);
    if (n < 0 || (size_t)n >= sizeof group)
        return;
    for (;;) {
        size_t length = strlen(group);
        while (length > top && group[length - 1] == '/')
            group[--length] = 0;
        walk->visit(walk->context, group, v2);
        if (length <= top)
            return;
        *strrchr(group, '/') = 0;
    }
}

static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ','))
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == 0))
            return true;
    return false;
}

/* A line "ID:CONTROLLERS:PATH" of /proc/self/cgroup; v2's has no controllers. */
static void read_entry(const walk_t *walk, char *line) {
    char mount[PATH];
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return;
    *path++ = 0;
    controllers++;
    if (!*controllers) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", walk->root);
        visit_groups(walk, mount, path, true);
    } else if (has_word(controllers, walk->controller)) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", walk->root, controllers);
        visit_groups(walk, mount, path, false);
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", walk->root, walk->controller);
        visit_groups(walk, mount, path, false);
    }
}

void mbl_cgroup_walk(const char *root, const char *controller, mbl_cgroup_visit_t *visit, void *context) {
    char path[PATH], line[PATH];
    const walk_t walk = {root, controller, visit, context};
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        read_entry(&walk, line);
    if (file)
        fclose(file);
}
