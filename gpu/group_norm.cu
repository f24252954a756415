/* Group norm of images, channels last. A thread takes 16 bytes of channels over a span of tokens: the means
 * and squares of its channels there (those of one group together where that can be), then a block for each
 * group puts the spans together in f64, in their order, and the result is written with the threads as
 * before. */
#include "gpu/act.h"
#include "gpu/elem.h"

enum { SPAN = 32, AHEAD = 4 }; /* tokens of a thread; how many of them it has under way at a time */

template <class T> struct group_norm_t {
    T *y;
    const T *x, *weight, *bias;
    REAL *piece; /* [N,spans,D / P,2]: mean, and the sum of squares about it, of P channels */
    REAL *stat;  /* [N,groups,2]: mean, rstd */
    size_t samples, tokens, width, spans, groups, per; /* per: channels of a group */
    double eps;
};

/* Where a thread works: V channels from j on, tokens first.. of sample n. */
typedef struct {
    size_t n, span, first, last, j;
    bool any;
} place_t;

template <class T, int V> __device__ inline place_t place_of(const group_norm_t<T> &a) {
    const size_t i = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x, across = a.width / V;
    place_t p;
    p.j = i % across * V;
    p.span = i / across % a.spans;
    p.n = i / across / a.spans;
    p.first = p.span * SPAN;
    p.last = p.first + SPAN < a.tokens ? p.first + SPAN : a.tokens;
    p.any = p.n < a.samples;
    return p;
}

/* Rows t.. of x, as far as there are any: of those beyond, the last one again. */
template <class T, int V>
__device__ inline void get_rows(REAL (&out)[AHEAD][V], const T *x, size_t width, int t, int rows) {
    MBL_UNROLL
    for (int k = 0; k < AHEAD; k++)
        mbl_get<T, V>(out[k], x + (size_t)(t + k < rows ? t + k : rows - 1) * width);
}

/* Numbers are taken relative to the first one: squares of values far from zero would lose their digits. */
template <class T, int V, int P>
__global__ void __launch_bounds__(MBL_THREADS) group_pieces(group_norm_t<T> a) {
    const place_t p = place_of<T, V>(a);
    if (!p.any)
        return;
    const T *x = a.x + (p.n * a.tokens + p.first) * a.width + p.j;
    const int rows = (int)(p.last - p.first);
    REAL v[V], start[V / P], sum[V / P] = {0}, square[V / P] = {0};
    mbl_get<T, V>(v, x);
    MBL_UNROLL
    for (int k = 0; k < V / P; k++)
        start[k] = v[k * P];
    for (int t = 0; t < rows; t += AHEAD) {
        REAL ahead[AHEAD][V];
        get_rows(ahead, x, a.width, t, rows);
        MBL_UNROLL
        for (int k = 0; k < AHEAD; k++) {
            MBL_UNROLL
            for (int l = 0; l < V; l++) {
                const REAL c = t + k < rows ? ahead[k][l] - start[l / P] : 0;
                sum[l / P] += c;
                square[l / P] += c * c;
            }
        }
    }
    REAL *out = a.piece + 2 * ((p.n * a.spans + p.span) * (a.width / P) + p.j / P);
    MBL_UNROLL
    for (int k = 0; k < V / P; k++) {
        const REAL mean = sum[k] / (REAL)(rows * P), rest = square[k] - sum[k] * mean;
        out[2 * k] = start[k] + mean;
        out[2 * k + 1] = rest > 0 ? rest : 0;
    }
}

/* The sum over the block in a fixed order, to all of its threads. */
__device__ inline double block_total(double x, double *shared) {
    x = mbl_warp_sum(x);
    if (threadIdx.x % MBL_WARP == 0)
        shared[threadIdx.x / MBL_WARP] = x;
    __syncthreads();
    x = 0;
    for (int w = 0; w < MBL_WARPS; w++)
        x += shared[w];
    __syncthreads();
    return x;
}

/* Numbers in a piece of a span. */
template <class T> __device__ inline double piece_count(const group_norm_t<T> &a, size_t span, size_t P) {
    const size_t left = a.tokens - span * SPAN;
    return (double)(left < (size_t)SPAN ? left : (size_t)SPAN) * (double)P;
}

/* blockIdx: group, sample. P: channels of a piece. */
template <class T> __global__ void __launch_bounds__(MBL_THREADS) group_stats(group_norm_t<T> a, size_t P) {
    MBL_SHARED(double, shared, MBL_WARPS);
    const size_t g = blockIdx.x, n = blockIdx.y, row = a.width / P, mine = a.per / P;
    const REAL *piece = a.piece + 2 * (n * a.spans * row + g * mine);
    const double count = (double)a.tokens * (double)a.per;
    double sum = 0, square = 0;
    for (size_t i = threadIdx.x; i < a.spans * mine; i += MBL_THREADS)
        sum += piece_count(a, i / mine, P) * (double)piece[2 * (i / mine * row + i % mine)];
    const double mean = block_total(sum, shared) / count;
    for (size_t i = threadIdx.x; i < a.spans * mine; i += MBL_THREADS) {
        const REAL *one = piece + 2 * (i / mine * row + i % mine);
        const double apart = (double)one[0] - mean;
        square += (double)one[1] + piece_count(a, i / mine, P) * apart * apart;
    }
    const double variance = block_total(square, shared) / count;
    if (threadIdx.x == 0) {
        a.stat[2 * (n * a.groups + g)] = (REAL)mean;
        a.stat[2 * (n * a.groups + g) + 1] = (REAL)(1 / sqrt(variance + a.eps));
    }
}

template <class T, int V, bool SILU>
__global__ void __launch_bounds__(MBL_THREADS) group_apply(group_norm_t<T> a) {
    const place_t p = place_of<T, V>(a);
    if (!p.any)
        return;
    REAL mean[V], rstd[V], weight[V], bias[V];
    mbl_get<T, V>(weight, a.weight + p.j);
    mbl_get<T, V>(bias, a.bias + p.j);
    MBL_UNROLL
    for (int l = 0; l < V; l++) {
        const REAL *stat = a.stat + 2 * (p.n * a.groups + (p.j + (size_t)l) / a.per);
        mean[l] = stat[0];
        rstd[l] = stat[1];
    }
    const size_t at = (p.n * a.tokens + p.first) * a.width + p.j;
    const int rows = (int)(p.last - p.first);
    for (int t = 0; t < rows; t += AHEAD) {
        REAL ahead[AHEAD][V];
        get_rows(ahead, a.x + at, a.width, t, rows);
        MBL_UNROLL
        for (int k = 0; k < AHEAD; k++) {
            REAL out[V];
            MBL_UNROLL
            for (int l = 0; l < V; l++) {
                out[l] = (ahead[k][l] - mean[l]) * rstd[l] * weight[l] + bias[l];
                if (SILU)
                    out[l] = mbl_act_value(out[l], MBL_ACT_SILU);
            }
            if (t + k < rows)
                mbl_put(a.y + at + (size_t)(t + k) * a.width, out);
        }
    }
}

/* P: channels that are summed together, of one group: all of a thread's, half of them, or each by itself. */
template <class T, int V, int P> static void run(mbl_ops_t *ops, const group_norm_t<T> &a, bool silu) {
    const unsigned grid = (unsigned)mbl_ceil_div(a.samples * a.spans * (a.width / V), MBL_THREADS);
    const dim3 all((unsigned)a.groups, (unsigned)a.samples);
    MBL_LAUNCH((group_pieces<T, V, P>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
    MBL_LAUNCH(group_stats<T>, all, MBL_THREADS, 0, mbl_cuda_stream(ops), a, (size_t)P);
    if (silu)
        MBL_LAUNCH((group_apply<T, V, true>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
    else
        MBL_LAUNCH((group_apply<T, V, false>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
}

extern "C" mbl_status_t mbl_cuda_group_norm(mbl_ops_t *ops, const mbl_group_norm_args_t *args) {
    const mbl_tensor_t *x = args->x;
    const size_t samples = x->dim[0], width = x->dim[2], spans = mbl_ceil_div(x->dim[1], SPAN);
    const size_t per = width / args->groups, lanes = 16 / mbl_dtype_size(x->dtype);
    const bool wide = mbl_wide(x, lanes) && mbl_wide(args->y, lanes) && mbl_wide(args->weight, lanes) &&
                      mbl_wide(args->bias, lanes);
    const size_t piece = wide && per % lanes == 0 ? lanes : wide && per % (lanes / 2) == 0 ? lanes / 2 : 1;
    const size_t sums = samples * spans * (width / piece) * 2, stats = samples * args->groups * 2;
    void *work;
    MBL_TRY(mbl_cuda_workspace(ops, (sums + stats) * mbl_dtype_size(mbl_dtype_stat(x->dtype)), &work));
    MBL_WITH_TYPE(x->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        const group_norm_t<T> a = {mbl_data<T>(args->y),
                                   mbl_data<T>(x),
                                   mbl_data<T>(args->weight),
                                   mbl_data<T>(args->bias),
                                   (REAL *)work,
                                   (REAL *)work + sums,
                                   samples,
                                   x->dim[1],
                                   width,
                                   spans,
                                   args->groups,
                                   per,
                                   args->eps};
        if (!wide)
            run<T, 1, 1>(ops, a, args->silu);
        else if (piece == V)
            run<T, V, V>(ops, a, args->silu);
        else if (piece == V / 2)
            run<T, V, V / 2>(ops, a, args->silu);
        else
            run<T, V, 1>(ops, a, args->silu);
    });
    return MBL_CUDA_LAUNCHED("group_norm");
}
