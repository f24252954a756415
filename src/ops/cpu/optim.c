/* AdamW and the weighted sum of gradients on the CPU. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/rows.h"

#define MBL_TEMPLATE "ops/cpu/optim.inc"
#define MBL_TEMPLATE_REAL
#include "ops/cpu/each_type.h"

/* Loshchilov and Hutter, with the bias corrections folded into the step and the denominator. */
#define ADAMW(name, real, grad, root)                                                                        \
    static void name(mbl_ops_t *ops, const mbl_adamw_args_t *args) {                                         \
        size_t n = mbl_tensor_count(args->w);                                                                \
        real *w = args->w->data, *m = args->m->data, *v = args->v->data;                                     \
        const grad *g = args->g->data;                                                                       \
        double step = (double)args->step, scale = args->grad_scale;                                          \
        real b1 = (real)args->beta1, b2 = (real)args->beta2, eps = (real)args->eps;                          \
        real c1 = (real)(1 - args->beta1), c2 = (real)(1 - args->beta2);                                     \
        real rate = (real)(args->lr / (1 - pow(args->beta1, step)));                                         \
        real second = (real)(1 / sqrt(1 - pow(args->beta2, step)));                                          \
        real keep = (real)(1 - args->lr * args->weight_decay);                                               \
        _Pragma("omp parallel for simd num_threads(ops->threads) schedule(static)") for (size_t i = 0;       \
                                                                                         i < n; i++) {       \
            real d = (real)((double)g[i] * scale);                                                           \
            m[i] = b1 * m[i] + c1 * d;                                                                       \
            v[i] = b2 * v[i] + c2 * d * d;                                                                   \
            w[i] = keep * w[i] - rate * m[i] / (root(v[i]) * second + eps);                                  \
        }                                                                                                    \
    }
ADAMW(adamw_f32_of_f32, float, float, sqrtf)
ADAMW(adamw_f32_of_f64, float, double, sqrtf)
ADAMW(adamw_f64_of_f64, double, double, sqrt)

mbl_status_t mbl_cpu_adamw(mbl_ops_t *ops, const mbl_adamw_args_t *args) {
    if (args->w->dtype == MBL_F64)
        adamw_f64_of_f64(ops, args);
    else if (args->g->dtype == MBL_F64)
        adamw_f32_of_f64(ops, args);
    else
        adamw_f32_of_f32(ops, args);
    return MBL_OK;
}

mbl_status_t mbl_cpu_combine(mbl_ops_t *ops, const mbl_combine_args_t *args) {
    MBL_BY_REAL(args->y->dtype, combine, ops, args);
    return MBL_OK;
}
