/* Times several cases in turn: on a machine that others use, only figures from the same moments compare. */
#include "base/clock.h"
#include "base/mem.h"
#include "cli/bench/bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

double mbl_bench_now(const mbl_bench_t *bench) {
    struct timespec now = {0};
    if (!bench->cpu_time)
        return mbl_now();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* values are sorted. */
static double middle(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

mbl_bench_time_t mbl_bench_time(const double *seconds, size_t runs) {
    mbl_bench_time_t time = {seconds[0], seconds[0], seconds[0]};
    double *sorted = mbl_calloc(runs, sizeof *sorted);
    for (size_t i = 1; i < runs; i++) {
        time.min = seconds[i] < time.min ? seconds[i] : time.min;
        time.max = seconds[i] > time.max ? seconds[i] : time.max;
    }
    if (sorted) {
        memcpy(sorted, seconds, runs * sizeof *sorted);
        time.median = middle(sorted, runs);
    }
    mbl_free(sorted);
    return time;
}

double mbl_bench_ratio(const double *a, const double *b, size_t runs) {
    double *ratio = mbl_calloc(runs, sizeof *ratio), result = a[0] / b[0];
    for (size_t i = 0; ratio && i < runs; i++)
        ratio[i] = a[i] / b[i];
    if (ratio)
        result = middle(ratio, runs);
    mbl_free(ratio);
    return result;
}

mbl_status_t mbl_bench_alternate(const mbl_bench_t *bench, mbl_bench_case_t *cases, size_t n) {
    size_t before = bench->runs > 1 ? 2 : 1;
    for (size_t i = 0; i < n; i++)
        MBL_ALLOC(cases[i].seconds, bench->runs);
    for (size_t round = 0; round < before + bench->runs; round++)
        for (size_t i = 0; i < n; i++) {
            mbl_bench_case_t *one = &cases[round % 2 ? n - 1 - i : i];
            double start = mbl_bench_now(bench);
            MBL_TRY(one->run(one->context));
            if (round >= before)
                one->seconds[round - before] = mbl_bench_now(bench) - start;
        }
    return MBL_OK;
}

void mbl_bench_forget(mbl_bench_case_t *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        mbl_free(cases[i].seconds);
        cases[i].seconds = NULL;
    }
}
