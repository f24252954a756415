/* The operations whose files are compiled once for each instruction set (CMakeLists.txt):
 * mbl_cpu_attention_avx2 and so on. isa_ops.c has mbl_cpu_attention itself, which calls the one of the
 * backend's instruction set. */
#ifndef MBL_OPS_CPU_ISA_OPS_H
#define MBL_OPS_CPU_ISA_OPS_H

#define MBL_ISA_OPS(X)                                                                                       \
    X(attention)                                                                                             \
    X(attention_bwd)                                                                                         \
    X(gate_norm)                                                                                             \
    X(layer_norm)                                                                                            \
    X(layer_norm_affine)                                                                                     \
    X(layer_norm_bwd)                                                                                        \
    X(qk_norm)                                                                                               \
    X(qk_norm_bwd)                                                                                           \
    X(sample_grad)

#ifdef MBL_ISA
#define MBL_ISA_JOIN_(f, isa) f##_##isa
#define MBL_ISA_JOIN(f, isa) MBL_ISA_JOIN_(f, isa)
/* f_avx2 in a file that is compiled for avx2. */
#define MBL_ISA_NAME(f) MBL_ISA_JOIN(f, MBL_ISA)

#define MBL_ISA_OP(op)                                                                                       \
    mbl_status_t MBL_ISA_NAME(mbl_cpu_##op)(mbl_ops_t * ops, const mbl_##op##_args_t *args);
#include "ops/ops.h"
MBL_ISA_OPS(MBL_ISA_OP)
#undef MBL_ISA_OP

/* As MBL_CPU_SLOT of each_type.h. */
#define MBL_ISA_SLOT(op, operand)                                                                            \
    mbl_status_t MBL_ISA_NAME(mbl_cpu_##op)(mbl_ops_t * ops, const mbl_##op##_args_t *args) {                \
        MBL_BY_TYPE(args->operand->dtype, op, ops, args);                                                    \
        return MBL_OK;                                                                                       \
    }
#endif

#endif
