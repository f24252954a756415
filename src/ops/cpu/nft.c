/* The DiffusionNFT loss and its seeds, per-sample linear combinations and noise on the CPU. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/rows.h"
#include "base/rng.h"

#define MBL_TEMPLATE "ops/cpu/nft.inc"
#define MBL_TEMPLATE_REAL
#include "ops/cpu/each_type.h"

mbl_status_t mbl_cpu_nft(mbl_ops_t *ops, const mbl_nft_args_t *args) {
    size_t samples = args->v->dim[0];
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < samples; i++)
        MBL_BY_REAL(args->v->dtype, nft_sample, args, i);
    return MBL_OK;
}

mbl_status_t mbl_cpu_rows_combine(mbl_ops_t *ops, const mbl_rows_combine_args_t *args) {
    size_t samples = args->y->dim[0];
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < samples; i++)
        MBL_BY_REAL(args->y->dtype, combine_row, args, i);
    return MBL_OK;
}

mbl_status_t mbl_cpu_normal(mbl_ops_t *ops, const mbl_normal_args_t *args) {
    const int64_t *sample = args->sample->data;
    size_t samples = args->y->dim[0], n = args->y->dim[1];
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < samples; i++) {
        mbl_rng_t rng =
            mbl_rng(args->seed, (mbl_rng_purpose_t)args->purpose, args->step, (uint64_t)sample[i]);
        if (args->y->dtype == MBL_F32) {
            mbl_rng_normal(&rng, MBL_ROW2(float, args->y, i), n);
            continue;
        }
        double *y = MBL_ROW2(double, args->y, i);
        float pair[2];
        for (size_t j = 0; j < n; j++) {
            if (j % 2 == 0)
                mbl_rng_normal2(&rng, pair);
            y[j] = (double)pair[j % 2];
        }
    }
    return MBL_OK;
}
