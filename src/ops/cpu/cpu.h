/* Private to the cpu backend: its state, workspace, and the operations, one family a file. A handle is used
 * by one thread at a time. */
#ifndef MBL_OPS_CPU_CPU_H
#define MBL_OPS_CPU_CPU_H

#include "ops/cpu/isa.h"
#include "ops/ops.h"

typedef struct mbl_cpu_matmuls
    mbl_cpu_matmuls_t;                        /* matmul.c: own kernels, or oneDNN's engine and primitives */
typedef struct mbl_cpu_convs mbl_cpu_convs_t; /* conv.c: the same */

typedef struct {
    void *work; /* grown as asked, never shrunk */
    size_t work_bytes;
    mbl_cpu_isa_t isa; /* of the loops in isa_ops.h */
    mbl_cpu_matmuls_t *matmuls;
    mbl_cpu_convs_t *convs;
} mbl_cpu_t;

static inline mbl_cpu_t *mbl_cpu_of(mbl_ops_t *ops) {
    return ops->impl;
}

/* Scratch memory for the running operation: 64-byte aligned, content undefined, valid until the next call. */
mbl_status_t mbl_cpu_workspace(mbl_ops_t *ops, size_t bytes, void **out);

mbl_status_t mbl_cpu_matmuls_open(mbl_cpu_matmuls_t **out);
void mbl_cpu_matmuls_close(mbl_cpu_matmuls_t *matmuls); /* NULL is fine */
mbl_status_t mbl_cpu_convs_open(mbl_cpu_convs_t **out);
void mbl_cpu_convs_close(mbl_cpu_convs_t *convs); /* NULL is fine */

/* Loops take their number of threads from ops->threads: #pragma omp parallel for num_threads(ops->threads).
 */
#define MBL_CPU_OP(name, need) mbl_status_t mbl_cpu_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args);
MBL_OPS_LIST(MBL_CPU_OP)
#undef MBL_CPU_OP

#endif
