/* What the backward passes of attention need of every query: its log-sum-exp and the product of the output
 * with its gradient. A few neighbouring lanes take one row. */
#include "gpu/attention.h"

enum { ROUND = 128 }; /* queries of the largest tile: padding up to there needs no bounds checks */

template <class T, class R, int V>
static __global__ void __launch_bounds__(MBL_THREADS)
    attention_stats(attention_call_t<T, R> x, R *stats, R unit, int lanes) {
    size_t i = ((size_t)blockIdx.x * MBL_THREADS + threadIdx.x) / (size_t)lanes;
    const int lane = (int)threadIdx.x % lanes;
    const size_t all = (size_t)x.heads * (size_t)x.padded, heads = (size_t)x.n_heads;
    const bool real = i < all; /* every lane takes part in the sum */
    i = real ? i : all - 1;
    const int h = (int)(i % heads), t = (int)(i / heads % (size_t)x.padded);
    const int head = (int)(i / heads / (size_t)x.padded) * x.n_heads + h;
    R sum = 0;
    if (t < x.tokens) {
        const T *out = mbl_row(merged_rows(x, x.saved, head), t),
                *dout = mbl_row(merged_rows(x, x.dout, head), t);
        for (int c = lane * V; c < x.d; c += lanes * V) {
            R a[V], b[V];
            mbl_get<T, V>(a, out + c);
            mbl_get<T, V>(b, dout + c);
            MBL_UNROLL
            for (int j = 0; j < V; j++)
                sum = fma(a[j], b[j], sum);
        }
    }
    sum = mbl_lanes_sum(sum, lanes);
    if (!real || lane != 0)
        return;
    R *to = stats + 2 * ((size_t)head * (size_t)x.padded + (size_t)t);
    to[0] = t < x.tokens ? unit * x.lse[(size_t)head * (size_t)x.tokens + (size_t)t] : (R)INFINITY;
    to[1] = sum;
}

/* Lanes for a row of `pieces` loads: a power of two. */
static int lanes_for(int pieces) {
    int lanes = 1;
    while (lanes < pieces && lanes < MBL_WARP)
        lanes *= 2;
    return lanes;
}

template <class T, class R>
static mbl_status_t run(mbl_ops_t *ops, attention_call_t<T, R> &x, R unit, bool whole) {
    constexpr int V = mbl_lanes<T>::count;
    void *stats;
    x.padded = (int)mbl_ceil_div((size_t)x.tokens, ROUND) * ROUND;
    size_t rows = (size_t)x.heads * (size_t)x.padded;
    MBL_TRY(mbl_cuda_workspace(ops, 2 * rows * sizeof(R), &stats));
    x.stats = (const R *)stats;
    int lanes = lanes_for(whole ? x.d / V : x.d);
    unsigned blocks = (unsigned)mbl_ceil_div(rows * (size_t)lanes, MBL_THREADS);
    if (whole)
        MBL_LAUNCH((attention_stats<T, R, V>), dim3(blocks), dim3(MBL_THREADS), 0, mbl_cuda_stream(ops), x,
                   (R *)stats, unit, lanes);
    else
        MBL_LAUNCH((attention_stats<T, R, 1>), dim3(blocks), dim3(MBL_THREADS), 0, mbl_cuda_stream(ops), x,
                   (R *)stats, unit, lanes);
    return MBL_CUDA_LAUNCHED("attention_bwd");
}

mbl_status_t mbl_cuda_attention_stats(mbl_ops_t *ops, attention_call_t<float, float> &x, float unit,
                                      bool whole) {
    return run(ops, x, unit, whole);
}
mbl_status_t mbl_cuda_attention_stats(mbl_ops_t *ops, attention_call_t<double, double> &x, double unit,
                                      bool whole) {
    return run(ops, x, unit, whole);
}
mbl_status_t mbl_cuda_attention_stats(mbl_ops_t *ops, attention_call_t<__nv_bfloat16, float> &x, float unit,
                                      bool whole) {
    return run(ops, x, unit, whole);
}
