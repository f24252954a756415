/* Group norm of images, channels last, on the CPU. The tokens of a sample are cut into chunks of fixed
 * length: every channel's mean and squares in a chunk by whole rows, then the chunks and the channels of a
 * group together in f64, so that neither the order nor the error depends on threads or grows with the
 * image. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vecmath.h"

enum { CHUNK = 64 };

static inline float silu_f32(float x) {
    return x * mbl_sigmoidf(x);
}
static inline float silu_bf16(float x) {
    return x * mbl_sigmoidf(x);
}
static inline double silu_f64(double x) {
    return x / (1 + exp(-x));
}

#define MBL_TEMPLATE "ops/cpu/group_norm.inc"
#include "ops/cpu/each_type.h"

mbl_status_t mbl_cpu_group_norm(mbl_ops_t *ops, const mbl_group_norm_args_t *args) {
    size_t samples = args->x->dim[0], width = args->x->dim[2];
    size_t chunks = (args->x->dim[1] + CHUNK - 1) / CHUNK;
    size_t size = mbl_dtype_size(mbl_dtype_stat(args->x->dtype));
    void *work;
    MBL_TRY(mbl_cpu_workspace(ops, samples * (chunks + 1) * 2 * width * size, &work));
    MBL_BY_TYPE(args->x->dtype, group_norm, ops, args, work);
    return MBL_OK;
}
