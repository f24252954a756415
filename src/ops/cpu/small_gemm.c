/* Small products in registers: blocks of some rows and two vectors of columns, as many as the registers hold.
 * Multiply and add may fuse here, as everywhere in a matrix product. */
#include "ops/cpu/small_gemm.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")
#else
#pragma STDC FP_CONTRACT ON
#endif

/* 32 registers with AVX-512, else 16; vectors wider than the registers are taken apart badly. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define ROWS 8
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define ROWS 6
#else
#define VECTOR_BYTES 16
#define ROWS 6
#endif
enum { VECTORS = 2 };
_Static_assert(MBL_LANE_BYTES % VECTOR_BYTES == 0, "columns come in whole vectors");

#define REAL float
#define NAME(f) f##_f32
#include "ops/cpu/small_gemm.inc"
#undef REAL
#undef NAME

#define REAL double
#define NAME(f) f##_f64
#include "ops/cpu/small_gemm.inc"
