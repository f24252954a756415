/* Activations and their slopes, one number at a time, as loops over numbers and the ends of products take
 * them: mbl_act_value_f32(x, act), mbl_act_slope_f32 and the same in f64. With a constant `act` the switch
 * folds away. */
#ifndef MBL_OPS_CPU_ACT_H
#define MBL_OPS_CPU_ACT_H

#include "ops/cpu/vecmath.h"
#include "ops/ops.h"

#define mbl_exp_f32(x) mbl_expf(x)
#define mbl_exp_f64(x) exp(x)
#define mbl_erf_f32(x) mbl_erff(x)
#define mbl_erf_f64(x) erf(x)

#define REAL float
#define NAME(f) f##_f32
#include "ops/cpu/act.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(f) f##_f64
#include "ops/cpu/act.inc"
#undef REAL
#undef NAME

#define mbl_act_value_bf16 mbl_act_value_f32
#define mbl_act_slope_bf16 mbl_act_slope_f32

#endif
