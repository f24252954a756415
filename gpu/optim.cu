/* AdamW and the weighted sum of gradients. */
#include "gpu/elem.h"

#include <math.h>

/* Loshchilov and Hutter, with the bias corrections folded into the step and the denominator. */
template <class R> struct adamw_t {
    R *w, *m, *v;
    R b1, b2, c1, c2, eps, rate, second, keep;
    double scale;
};

template <class R, class G, int V>
__global__ void __launch_bounds__(MBL_THREADS) adamw_step(adamw_t<R> a, const G *grad, size_t count) {
    const size_t i = ((size_t)blockIdx.x * MBL_THREADS + threadIdx.x) * V;
    if (i >= count)
        return;
    R w[V], m[V], v[V];
    G g[V];
    mbl_get<R, V>(w, a.w + i);
    mbl_get<R, V>(m, a.m + i);
    mbl_get<R, V>(v, a.v + i);
    mbl_get<G, V>(g, grad + i);
    MBL_UNROLL
    for (int l = 0; l < V; l++) {
        const R d = (R)((double)g[l] * a.scale);
        m[l] = a.b1 * m[l] + a.c1 * d;
        v[l] = a.b2 * v[l] + a.c2 * d * d;
        w[l] = a.keep * w[l] - a.rate * m[l] / (sqrt(v[l]) * a.second + a.eps);
    }
    mbl_put(a.w + i, w);
    mbl_put(a.m + i, m);
    mbl_put(a.v + i, v);
}

template <class R, class G> static mbl_status_t run_adamw(mbl_ops_t *ops, const mbl_adamw_args_t *args) {
    constexpr int V = 4;
    const double step = (double)args->step;
    const size_t n = mbl_tensor_count(args->w);
    adamw_t<R> a = {mbl_data<R>(args->w),
                    mbl_data<R>(args->m),
                    mbl_data<R>(args->v),
                    (R)args->beta1,
                    (R)args->beta2,
                    (R)(1 - args->beta1),
                    (R)(1 - args->beta2),
                    (R)args->eps,
                    (R)(args->lr / (1 - pow(args->beta1, step))),
                    (R)(1 / sqrt(1 - pow(args->beta2, step))),
                    (R)(1 - args->lr * args->weight_decay),
                    args->grad_scale};
    const G *g = mbl_data<G>(args->g);
    if (mbl_wide(args->w, V) && mbl_wide(args->m, V) && mbl_wide(args->v, V) && mbl_wide(args->g, V))
        MBL_LAUNCH((adamw_step<R, G, V>), (unsigned)mbl_ceil_div(n / V, MBL_THREADS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), a, g, n);
    else
        MBL_LAUNCH((adamw_step<R, G, 1>), (unsigned)mbl_ceil_div(n, MBL_THREADS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), a, g, n);
    return MBL_CUDA_LAUNCHED("adamw");
}

extern "C" mbl_status_t mbl_cuda_adamw(mbl_ops_t *ops, const mbl_adamw_args_t *args) {
    if (args->w->dtype == MBL_F64)
        return args->g->dtype == MBL_F64 ? run_adamw<double, double>(ops, args)
                                         : run_adamw<double, float>(ops, args);
    return args->g->dtype == MBL_F64 ? run_adamw<float, double>(ops, args)
                                     : run_adamw<float, float>(ops, args);
}

/* The coefficients that are not 0 travel with the launch, so a row with 0 is not read: a gradient that is not
 * finite can be left out. */
enum { MAX_ROWS = 128 };
typedef struct {
    double c[MAX_ROWS];
    unsigned short row[MAX_ROWS];
    int n;
} weights_t;

template <class R, int V>
__global__ void __launch_bounds__(MBL_THREADS)
    weighted_sum(R *y, const R *x, size_t stride, size_t count, weights_t weights) {
    const size_t i = ((size_t)blockIdx.x * MBL_THREADS + threadIdx.x) * V;
    if (i >= count)
        return;
    double sum[V] = {0};
    R v[V];
    for (int k = 0; k < weights.n; k++) {
        mbl_get<R, V>(v, x + weights.row[k] * stride + i);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            sum[l] += weights.c[k] * (double)v[l];
    }
    mbl_put(y + i, sum);
}

extern "C" mbl_status_t mbl_cuda_combine(mbl_ops_t *ops, const mbl_combine_args_t *args) {
    const mbl_tensor_t *x = args->x;
    const size_t rows = x->dim[0], n = x->dim[1];
    weights_t weights = {{0}, {0}, 0};
    MBL_REQUIRE(rows <= MAX_ROWS, "combine: %zu rows; the cuda backend takes %d", rows, MAX_ROWS);
    for (size_t k = 0; k < rows; k++)
        if (args->coefficient[k] != 0) {
            weights.c[weights.n] = args->coefficient[k];
            weights.row[weights.n++] = (unsigned short)k;
        }
    MBL_WITH_REAL(x->dtype, R, {
        constexpr int V = mbl_lanes<R>::count;
        if (mbl_wide(x, V) && mbl_wide(args->y, V))
            MBL_LAUNCH((weighted_sum<R, V>), (unsigned)mbl_ceil_div(n / V, MBL_THREADS), MBL_THREADS, 0,
                       mbl_cuda_stream(ops), mbl_data<R>(args->y), mbl_data<R>(x), x->stride[0], n, weights);
        else
            MBL_LAUNCH((weighted_sum<R, 1>), (unsigned)mbl_ceil_div(n, MBL_THREADS), MBL_THREADS, 0,
                       mbl_cuda_stream(ops), mbl_data<R>(args->y), mbl_data<R>(x), x->stride[0], n, weights);
    });
    return MBL_CUDA_LAUNCHED("combine");
}
