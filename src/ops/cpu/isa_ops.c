/* Calls of operations that are compiled once for each instruction set go to the backend's. */
#include "ops/cpu/isa_ops.h"
#include "ops/cpu/cpu.h"

#if defined(__x86_64__)
#define ISA_OP(op)                                                                                           \
    mbl_status_t mbl_cpu_##op##_portable(mbl_ops_t *ops, const mbl_##op##_args_t *args);                     \
    mbl_status_t mbl_cpu_##op##_avx2(mbl_ops_t *ops, const mbl_##op##_args_t *args);                         \
    mbl_status_t mbl_cpu_##op##_avx512(mbl_ops_t *ops, const mbl_##op##_args_t *args);                       \
    mbl_status_t mbl_cpu_##op(mbl_ops_t *ops, const mbl_##op##_args_t *args) {                               \
        switch (mbl_cpu_of(ops)->isa) {                                                                      \
        case MBL_CPU_AVX512:                                                                                 \
            return mbl_cpu_##op##_avx512(ops, args);                                                         \
        case MBL_CPU_AVX2:                                                                                   \
            return mbl_cpu_##op##_avx2(ops, args);                                                           \
        default:                                                                                             \
            return mbl_cpu_##op##_portable(ops, args);                                                       \
        }                                                                                                    \
    }
#else
#define ISA_OP(op)                                                                                           \
    mbl_status_t mbl_cpu_##op##_portable(mbl_ops_t *ops, const mbl_##op##_args_t *args);                     \
    mbl_status_t mbl_cpu_##op(mbl_ops_t *ops, const mbl_##op##_args_t *args) {                               \
        return mbl_cpu_##op##_portable(ops, args);                                                           \
    }
#endif
MBL_ISA_OPS(ISA_OP)
