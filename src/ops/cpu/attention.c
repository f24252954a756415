/* Attention on the CPU. A thread takes one head of one sample at a time and goes through its queries in
 * blocks, so that a block's scores stay in its cache and never more than a block of them exists per thread.
 * bf16 is widened to f32 on the way in. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/small_gemm.h"
#include "ops/cpu/vecmath.h"
#include "base/mem.h"

#include <omp.h>
#include <string.h>

enum { QUERIES = 96 }; /* rows of scores at a time; 96 x 1,300 in f32 is a quarter of an L2 cache */

static size_t padded(size_t n, size_t size) {
    size_t lanes = MBL_LANE_BYTES / size;
    return (n + lanes - 1) / lanes * lanes;
}

/* The row of head h of token t in a pair of outputs [N,T1,D], [N,T-T1,D]: bytes from the start are counted in
 * elements, the tensor comes with it. */
static inline size_t merged_row(const mbl_tensor_t *out1, const mbl_tensor_t *out2, size_t n, size_t h,
                                size_t t, size_t d, const mbl_tensor_t **where) {
    size_t t1 = out1->dim[1];
    *where = t < t1 ? out1 : out2;
    return n * (*where)->stride[0] + (t < t1 ? t : t - t1) * (*where)->stride[1] + h * d;
}

static inline float exp_of_float(float x) {
    return mbl_expf(x);
}
static inline double exp_of_double(double x) {
    return exp(x);
}
#define EXP(x) _Generic((x), float : exp_of_float, double : exp_of_double)(x)
#define LOG(x) _Generic((x), float : logf, double : log)(x)

#define MBL_TEMPLATE "ops/cpu/attention.inc"
#include "ops/cpu/each_type.h"

mbl_status_t mbl_cpu_attention(mbl_ops_t *ops, const mbl_attention_args_t *args) {
    return MBL_BY_TYPE(args->q->dtype, attention, ops, args);
}

mbl_status_t mbl_cpu_attention_bwd(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args) {
    return MBL_BY_TYPE(args->q->dtype, attention_bwd, ops, args);
}
