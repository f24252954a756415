/* The Gram matrix in f64. The columns are cut into at most 512 segments by their number alone; a block sums
 * the products of one segment for a pair of row groups, then one warp per number of the result adds the
 * segments' parts. Both orders are fixed, so the result is the same bits on every device. */
#include "gpu/elem.h"

enum { GROUP = 8, GRAM_THREADS = 128, GRAM_WARPS = GRAM_THREADS / MBL_WARP, SEGMENTS = 512 };

/* Rows [K,n] `stride` apart; a segment is `length` columns; part [K,K,segments]. */
template <class T> struct gram_call_t {
    const T *x;
    size_t stride, n, length;
    int k, segments;
    double *part;
};

/* V columns of a row from c on, zeros beyond the last; the same numbers whether they are read at once or one
 * by one. */
template <class T, int V, bool wide>
static __device__ __forceinline__ void columns(double (&out)[V], const gram_call_t<T> &x, int row, size_t c,
                                               size_t end) {
    MBL_UNROLL
    for (int v = 0; v < V; v++)
        out[v] = 0;
    if (row >= x.k)
        return;
    const T *from = x.x + (size_t)row * x.stride + c;
    if (wide && c + V <= end) {
        REAL read[V];
        mbl_get<T, V>(read, from);
        MBL_UNROLL
        for (int v = 0; v < V; v++)
            out[v] = (double)read[v];
        return;
    }
    MBL_UNROLL
    for (int v = 0; v < V; v++)
        if (c + (size_t)v < end)
            out[v] = (double)from[v];
}

/* Row groups of the pair blockIdx.y: (y, y) on the diagonal, else (i, j) with i > j. */
template <bool diagonal> static __device__ __forceinline__ void pair_of(int &i, int &j) {
    i = j = (int)blockIdx.y;
    if (!diagonal) {
        i = 1;
        for (j = (int)blockIdx.y; j >= i; i++)
            j -= i;
    }
}

template <class T, bool diagonal, bool wide>
static __global__ void __launch_bounds__(GRAM_THREADS) gram_part(gram_call_t<T> x) {
    constexpr int V = mbl_lanes<T>::count;
    MBL_SHARED(double, sums, GRAM_WARPS *GROUP *GROUP);
    int i0, j0;
    pair_of<diagonal>(i0, j0);
    i0 *= GROUP, j0 *= GROUP;
    const size_t first = blockIdx.x * x.length, end = first + x.length < x.n ? first + x.length : x.n;
    double sum[GROUP][GROUP];
    MBL_UNROLL
    for (int i = 0; i < GROUP; i++)
        MBL_UNROLL
    for (int j = 0; j < GROUP; j++)
        sum[i][j] = 0;
    for (size_t c = first + threadIdx.x * V; c < end; c += GRAM_THREADS * V) {
        double a[GROUP][V], b[V];
        MBL_UNROLL
        for (int i = 0; i < GROUP; i++)
            columns<T, V, wide>(a[i], x, i0 + i, c, end);
        MBL_UNROLL
        for (int j = 0; j < GROUP; j++) {
            if (!diagonal)
                columns<T, V, wide>(b, x, j0 + j, c, end);
            MBL_UNROLL
            for (int i = diagonal ? j : 0; i < GROUP; i++)
                MBL_UNROLL
            for (int v = 0; v < V; v++)
                sum[i][j] = fma(a[i][v], diagonal ? a[j][v] : b[v], sum[i][j]);
        }
    }
    const int lane = (int)threadIdx.x % MBL_WARP, warp = (int)threadIdx.x / MBL_WARP;
    MBL_UNROLL
    for (int i = 0; i < GROUP; i++)
        MBL_UNROLL
    for (int j = 0; j < (diagonal ? i + 1 : GROUP); j++) {
        double all = mbl_warp_sum(sum[i][j]);
        if (lane == 0)
            sums[(warp * GROUP + i) * GROUP + j] = all;
    }
    __syncthreads();
    const int i = (int)threadIdx.x / GROUP, j = (int)threadIdx.x % GROUP;
    if (i >= GROUP || (diagonal && j > i) || i0 + i >= x.k)
        return;
    double all = 0;
    for (int w = 0; w < GRAM_WARPS; w++)
        all += sums[(w * GROUP + i) * GROUP + j];
    x.part[((size_t)(i0 + i) * (size_t)x.k + (size_t)(j0 + j)) * (size_t)x.segments + blockIdx.x] = all;
}

/* gram [K,K] from the lower triangle of part: a warp per number. */
static __global__ void __launch_bounds__(MBL_THREADS)
    gram_sum(double *gram, const double *part, int k, int segments) {
    int at = (int)(blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP), lane = (int)threadIdx.x % MBL_WARP;
    int i = at / k, j = at % k;
    if (at >= k * k || j > i)
        return; /* whole warps */
    double sum = 0;
    for (int s = lane; s < segments; s += MBL_WARP)
        sum += part[(size_t)at * (size_t)segments + (size_t)s];
    sum = mbl_warp_sum(sum);
    if (lane == 0)
        gram[i * k + j] = gram[j * k + i] = sum;
}

template <class T, bool wide> static void launch(const gram_call_t<T> &x, cudaStream_t stream) {
    unsigned groups = (unsigned)mbl_ceil_div((size_t)x.k, GROUP), segments = (unsigned)x.segments;
    MBL_LAUNCH((gram_part<T, true, wide>), dim3(segments, groups), dim3(GRAM_THREADS), 0, stream, x);
    if (groups > 1)
        MBL_LAUNCH((gram_part<T, false, wide>), dim3(segments, groups * (groups - 1) / 2), dim3(GRAM_THREADS),
                   0, stream, x);
}

template <class T> static mbl_status_t run(mbl_ops_t *ops, const mbl_gram_args_t *args) {
    const mbl_tensor_t *t = args->x;
    size_t k = t->dim[0], step = GRAM_THREADS * mbl_lanes<T>::count, blocks = mbl_ceil_div(t->dim[1], step);
    size_t length = mbl_ceil_div(blocks, SEGMENTS) * step, segments = mbl_ceil_div(t->dim[1], length);
    bool wide = (uintptr_t)t->data % 16 == 0 && t->stride[0] * sizeof(T) % 16 == 0;
    cudaStream_t stream = mbl_cuda_stream(ops);
    void *work;
    /* How many rows there are changes from step to step (a common part for every distinct mask), and scratch
     * that grows costs all graphs: so it is taken for the next multiple of 16. */
    size_t rows = mbl_ceil_div(k, 16) * 16;
    MBL_TRY(mbl_cuda_workspace(ops, (segments + 1) * rows * rows * sizeof(double), &work));
    double *gram = (double *)work;
    gram_call_t<T> x = {(const T *)t->data, t->stride[0], t->dim[1], length, (int)k,
                        (int)segments,      gram + k * k};
    if (wide)
        launch<T, true>(x, stream);
    else
        launch<T, false>(x, stream);
    MBL_LAUNCH(gram_sum, dim3((unsigned)mbl_ceil_div(k * k, MBL_WARPS)), dim3(MBL_THREADS), 0, stream, gram,
               (const double *)x.part, (int)k, (int)segments);
    MBL_TRY(MBL_CUDA_LAUNCHED("gram"));
    return ops->table->copy(ops, args->gram->data, MBL_HOST, gram, MBL_DEVICE, k * k * sizeof(double));
}

mbl_status_t mbl_cuda_gram(mbl_ops_t *ops, const mbl_gram_args_t *args) {
    MBL_WITH_REAL(args->x->dtype, T, return run<T>(ops, args));
}
