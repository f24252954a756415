/* Tests with one temporary folder for all of them, which expect failures: messages are not printed. */
#ifndef MBL_TESTS_FOLDER_CASE_H
#define MBL_TESTS_FOLDER_CASE_H

#include "support.h"

#include <stdio.h>

static char folder[256];

static inline int make_folder(void **state) {
    (void)state;
    temporary_folder(folder);
    mbl_fail_quiet(1);
    return 0;
}

static inline int drop_folder(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* The path of `name` in the folder; eight of them last at a time. */
static inline const char *in_folder(const char *name) {
    static char path[8][512];
    static size_t next;
    char *out = path[next++ % 8];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

#endif
