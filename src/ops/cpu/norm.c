/* Normalisations on the CPU: layer norm with and without modulation, RMS norm of queries and keys with the
 * split into heads, and the fused residual + layer norm. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/rows.h"

#include <string.h>

#define MBL_TEMPLATE "ops/cpu/norm.inc"
#include "ops/cpu/each_type.h"

MBL_CPU_SLOT(layer_norm, x)
MBL_CPU_SLOT(layer_norm_bwd, x)
MBL_CPU_SLOT(layer_norm_affine, x)
MBL_CPU_SLOT(gate_norm, x)
MBL_CPU_SLOT(qk_norm, qkv)

/* Sums over the batch are formed in a fixed number of pieces, added in order, whatever the thread count. */
mbl_status_t mbl_cpu_qk_norm_bwd(mbl_ops_t *ops, const mbl_qk_norm_bwd_args_t *args) {
    void *partial = NULL;
    if (args->dweight_q) {
        size_t bytes = args->qkv->dim[0] * 2 * args->dq->dim[3] * sizeof(double);
        MBL_TRY(mbl_cpu_workspace(ops, bytes, &partial));
        memset(partial, 0, bytes);
    }
    MBL_BY_TYPE(args->qkv->dtype, qk_norm_bwd, ops, args, partial);
    return MBL_OK;
}
