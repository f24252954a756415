/* How far two vectors are apart, and checksums, on the CPU: the same for any number of threads. */
#include "ops/checksum.h"
#include "ops/cpu/cpu.h"

#include <string.h>

enum { PIECE = 4096 };

#define MBL_TEMPLATE "ops/cpu/vectors.inc"
#define MBL_TEMPLATE_REAL
#include "ops/cpu/each_type.h"

/* Sums of pieces, added in their order. */
mbl_status_t mbl_cpu_distance(mbl_ops_t *ops, const mbl_distance_args_t *args) {
    const size_t n = args->x->dim[0], pieces = (n + PIECE - 1) / PIECE;
    double *sums = args->sums->data, *part;
    void *work;
    MBL_TRY(mbl_cpu_workspace(ops, pieces * 2 * sizeof *part, &work));
    part = work;
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t p = 0; p < pieces; p++)
        MBL_BY_REAL(args->x->dtype, distance_piece, args->x->data, args->y->data, p * PIECE,
                    n - p * PIECE < PIECE ? n - p * PIECE : PIECE, part + 2 * p);
    sums[0] = sums[1] = 0;
    for (size_t p = 0; p < pieces; p++) {
        sums[0] += part[2 * p];
        sums[1] += part[2 * p + 1];
    }
    return MBL_OK;
}

mbl_status_t mbl_cpu_checksum(mbl_ops_t *ops, const mbl_checksum_args_t *args) {
    const size_t words = args->x->dim[0] * mbl_dtype_size(args->x->dtype) / sizeof(uint32_t);
    const char *from = args->x->data;
    uint64_t sum = 0;
#pragma omp parallel for num_threads(ops->threads) schedule(static) reduction(+ : sum)
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, from + i * sizeof word, sizeof word);
        sum += mbl_checksum_word(i, word);
    }
    memcpy(args->sum->data, &sum, sizeof sum);
    return MBL_OK;
}
