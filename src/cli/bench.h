/* The benchmarks behind `marble bench`. A new one is a function mbl_bench_NAME in a file bench_*.c and a line
 * here. */
#ifndef MBL_CLI_BENCH_H
#define MBL_CLI_BENCH_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* name, one line for the help */
#define MBL_BENCHES(X)                                                                                       \
    X(matmul, "matrix products at the shapes of the signs model")                                            \
    X(attention, "attention forward and backward at the shapes of the signs model and of SD3.5")

/* What was asked for on the command line. */
typedef struct {
    const char *device;
    int threads; /* 0: all cores of the process */
    size_t runs; /* timed runs of a case, after two that are not */
    bool json;
} mbl_bench_t;

typedef struct {
    double median, min, max; /* seconds */
} mbl_bench_time_t;

/* A further figure of a case, by its name in the output. */
typedef struct {
    const char *name;
    double value;
} mbl_bench_figure_t;

/* Times run(context). Calls shorter than 2 ms are timed several at once. */
mbl_status_t mbl_bench_measure(const mbl_bench_t *bench, mbl_status_t (*run)(void *context), void *context,
                               mbl_bench_time_t *out);

/* One line: {"bench": .., "case": .., "ms": [median, min, max], figures}, or the same for people. */
mbl_status_t mbl_bench_print(const mbl_bench_t *bench, const char *name, const char *what,
                             const mbl_bench_time_t *time, const mbl_bench_figure_t *figures,
                             size_t n_figures);

#define MBL_BENCH_DECLARE(name, summary) mbl_status_t mbl_bench_##name(const mbl_bench_t *bench);
MBL_BENCHES(MBL_BENCH_DECLARE)
#undef MBL_BENCH_DECLARE

#endif
