/* Tests with one backend open for all of them, and those that have a folder besides. */
#ifndef MBL_TESTS_OPS_CASE_H
#define MBL_TESTS_OPS_CASE_H

#include "folder_case.h"

#include "ops/ops.h"

static mbl_ops_t *ops;

static inline int open_ops(void **state) {
    (void)state;
    return mbl_ops_open("cpu", 1, &ops) == MBL_OK ? 0 : -1;
}

static inline int close_ops(void **state) {
    (void)state;
    mbl_ops_close(ops);
    return 0;
}

static inline int open_ops_and_folder(const char *backend, int threads) {
    make_folder(NULL);
    return mbl_ops_open(backend, threads, &ops) == MBL_OK ? 0 : -1;
}

static inline int close_ops_and_folder(void **state) {
    close_ops(state);
    return drop_folder(state);
}

#endif
