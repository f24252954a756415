/* Small products in registers: blocks of 8 rows and two vectors of columns. Multiply and add may fuse here,
 * as everywhere in a matrix product. */
#include "ops/cpu/small_gemm.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")
#else
#pragma STDC FP_CONTRACT ON
#endif

enum { ROWS = 8, VECTORS = 2 };

#define REAL float
#define NAME(f) f##_f32
#include "ops/cpu/small_gemm.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(f) f##_f64
#include "ops/cpu/small_gemm.inc"
