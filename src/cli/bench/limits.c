/* What the machine can do at most: copies of memory, multiplications in registers. */
#include "cli/bench/bench.h"
#include "ops/cpu/peak.h"

typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t dst, src;
} copy_t;

static mbl_status_t run_copy(void *context) {
    copy_t *copy = context;
    MBL_TRY(MBL_OP(copy->ops, convert, .dst = &copy->dst, .src = &copy->src));
    return copy->ops->table->sync(copy->ops);
}

mbl_status_t mbl_bench_copy(const mbl_bench_t *bench, mbl_ops_t *ops, double bytes, double *out) {
    copy_t copy = {.ops = ops};
    mbl_bench_time_t time;
    mbl_status_t status;
    size_t half = (size_t)(bytes / 2 / sizeof(float)) + 1;
    MBL_TRY_GOTO(mbl_bench_random(ops, MBL_F32, &copy.src, 1, 1, 1, half), done);
    MBL_TRY_GOTO(mbl_bench_random(ops, MBL_F32, &copy.dst, 1, 1, 1, half), done);
    MBL_TRY_GOTO(mbl_bench_measure(bench, run_copy, &copy, &time), done);
    *out = time.median;
done:
    mbl_tensor_free(ops, &copy.src);
    mbl_tensor_free(ops, &copy.dst);
    return status;
}

enum { SPIN_ROUNDS = 1 << 16, SPIN_TRIES = 5 };

typedef struct {
    mbl_cpu_isa_t isa;
    mbl_dtype_t dtype;
    int threads;
    double flops; /* of the last run */
    float rest;
} spin_t;

static mbl_status_t run_spin(void *context) {
    spin_t *spin = context;
    double flops = 0;
    float rest = 0;
#pragma omp parallel num_threads(spin->threads) reduction(+ : flops, rest)
    {
        float own;
        flops += mbl_cpu_spin(spin->isa, spin->dtype, SPIN_ROUNDS, &own);
        rest += own;
    }
    spin->flops = flops;
    spin->rest = rest;
    return MBL_OK;
}

mbl_status_t mbl_bench_peak(const mbl_bench_t *bench, mbl_ops_t *ops, mbl_dtype_t dtype, double *out) {
    spin_t spin = {.dtype = dtype, .threads = ops->threads};
    mbl_bench_time_t time;
    *out = 0;
    if (ops->table->space != MBL_HOST)
        return MBL_OK;
    MBL_TRY(mbl_cpu_isa(&spin.isa));
    for (int i = 0; i < SPIN_TRIES; i++) { /* the best of many: what another process took is no limit */
        MBL_TRY(mbl_bench_measure(bench, run_spin, &spin, &time));
        *out = spin.flops / time.min > *out ? spin.flops / time.min : *out;
    }
    return MBL_OK;
}
