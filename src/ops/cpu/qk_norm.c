/* RMS norm of queries and keys, with their split into heads. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/isa_ops.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vector.h"

#include <string.h>

/* Tokens whose norms are taken at once, and those whose heads follow each other: these stay in the first
 * cache, and a head's rows are written in one run. */
enum { ROWS = 4, TOKENS = 16 };

#define MBL_TEMPLATE "ops/cpu/qk_norm.inc"
#include "ops/cpu/each_type.h"

MBL_ISA_SLOT(qk_norm, qkv)

/* Sums over the batch are formed in a fixed number of pieces, added in order, whatever the thread count. */
mbl_status_t MBL_ISA_NAME(mbl_cpu_qk_norm_bwd)(mbl_ops_t *ops, const mbl_qk_norm_bwd_args_t *args) {
    void *partial = NULL;
    if (args->dweight_q) {
        size_t bytes = args->qkv->dim[0] * 2 * args->dq->dim[3] * sizeof(double);
        MBL_TRY(mbl_cpu_workspace(ops, bytes, &partial));
        memset(partial, 0, bytes);
    }
    MBL_BY_TYPE(args->qkv->dtype, qk_norm_bwd, ops, args, partial);
    return MBL_OK;
}
