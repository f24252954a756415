/* What a core can do at most, for benchmarks to hold their figures against. */
#ifndef MBL_OPS_CPU_PEAK_H
#define MBL_OPS_CPU_PEAK_H

#include "ops/cpu/isa.h"
#include "ops/tensor.h"

/* Multiplies and adds in registers alone, on the calling thread, with the instructions that products of this
 * type take: fused f32, or pairs of bf16. Returns the floating-point operations done, 0 where products take
 * instructions that this does not know (AMX). rest: a number that came out. */
double mbl_cpu_spin(mbl_cpu_isa_t isa, mbl_dtype_t dtype, size_t rounds, float *rest);

#endif
