/* Attention on the CPU. A thread takes one head of one sample at a time and goes through its queries in
 * blocks, so that a block's scores stay in its cache and never more than a block of them exists per thread.
 * Scores lie with a query in every lane of a vector, [keys, queries]: maxima and sums then go down the
 * columns, and no lane waits for another. Multiplications and additions may fuse (CMakeLists.txt). bf16 is
 * widened to f32 on the way in. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/isa_ops.h"
#include "ops/cpu/small_gemm.h"
#include "ops/cpu/vector.h"
#include "base/mem.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Queries at a time: 96 x 1,300 scores in f32 are a quarter of an L2 cache. Keys whose exponentials are added
 * up before they go to the sum; vectors of queries that go down the keys together; bytes of a line of the
 * caches, and of an operand's head that is asked for ahead at most. */
enum { QUERIES = 96, KEYS = 64, GROUP = 2, LINE = 64, AHEAD = 32768 };

static size_t padded(size_t n, size_t size) {
    size_t lanes = MBL_LANE_BYTES / size;
    return (n + lanes - 1) / lanes * lanes;
}

/* The row of head h of token t in a pair of tensors [N,T1,D], [N,T-T1,D]: bytes from the start are counted in
 * elements, the tensor comes with it. */
static inline size_t merged_row(const mbl_tensor_t *out1, const mbl_tensor_t *out2, size_t n, size_t h,
                                size_t t, size_t d, const mbl_tensor_t **where) {
    size_t t1 = out1->dim[1];
    *where = t < t1 ? out1 : out2;
    return n * (*where)->stride[0] + (t < t1 ? t : t - t1) * (*where)->stride[1] + h * d;
}

#define LOG(x) _Generic((x), float : logf, double : log)(x)

#define MBL_TEMPLATE "ops/cpu/attention.inc"
#include "ops/cpu/each_type.h"

mbl_status_t MBL_ISA_NAME(mbl_cpu_attention)(mbl_ops_t *ops, const mbl_attention_args_t *args) {
    return MBL_BY_TYPE(args->q->dtype, attention, ops, args);
}

mbl_status_t MBL_ISA_NAME(mbl_cpu_attention_bwd)(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args) {
    return MBL_BY_TYPE(args->q->dtype, attention_bwd, ops, args);
}
