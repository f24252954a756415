/* The Gram matrix on the CPU, in f64 and in an order that depends on the length alone. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/rows.h"

#include <string.h>

enum { LANES = 8, TILE = 4, COLUMNS = 512, SEGMENTS = 64 };
typedef double lanes_t __attribute__((vector_size(LANES * sizeof(double))));

#define MBL_TEMPLATE "ops/cpu/reduce.inc"
#define MBL_TEMPLATE_REAL
#include "ops/cpu/each_type.h"

/* The columns are cut into at most 64 segments of whole blocks; each gives a partial matrix, and these are
 * added in order. */
mbl_status_t mbl_cpu_gram(mbl_ops_t *ops, const mbl_gram_args_t *args) {
    const mbl_tensor_t *x = args->x;
    size_t rows = x->dim[0], n = x->dim[1], blocks = (n + COLUMNS - 1) / COLUMNS;
    size_t per_segment = (blocks + SEGMENTS - 1) / SEGMENTS * COLUMNS;
    size_t segments = n ? (n + per_segment - 1) / per_segment : 0;
    double *partial, *gram = args->gram->data;
    void *work;
    MBL_TRY(mbl_cpu_workspace(ops, (segments + 1) * rows * rows * sizeof(double), &work));
    partial = work;
    memset(partial, 0, segments * rows * rows * sizeof(double));
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t s = 0; s < segments; s++)
        for (size_t first = s * per_segment; first < n && first < (s + 1) * per_segment; first += COLUMNS)
            MBL_BY_REAL(x->dtype, gram_block, x, first, n - first < COLUMNS ? n - first : COLUMNS,
                        partial + s * rows * rows);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t s = 0; s < segments; s++)
                sum += partial[s * rows * rows + i * rows + j];
            gram[i * args->gram->stride[0] + j] = gram[j * args->gram->stride[0] + i] = sum;
        }
    return MBL_OK;
}
