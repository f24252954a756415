/* How far two vectors are apart, and checksums: one pass over them, a block for every segment, then one block
 * that adds the segments' numbers. Segments follow from the length alone, so sums are the same bits on every
 * device. What comes out goes to the host, a few bytes. */
#include "gpu/elem.h"
#include "ops/checksum.h"

enum { SEGMENTS = 512 };

/* A vector of n numbers in segments of `length`; part [segments,numbers]. */
template <class S> struct segments_t {
    size_t n, length;
    S *part;
};

/* The sum of every number over the block's threads to out[N]. */
template <class S, int N> __device__ inline void block_sum(S (&sum)[N], S *shared, S *out) {
    const unsigned lane = threadIdx.x % MBL_WARP, warp = threadIdx.x / MBL_WARP;
    MBL_UNROLL
    for (int i = 0; i < N; i++) {
        const S all = mbl_warp_sum(sum[i]);
        if (lane == 0)
            shared[warp * N + (unsigned)i] = all;
    }
    __syncthreads();
    if (threadIdx.x >= N)
        return;
    S all = 0;
    for (unsigned w = 0; w < MBL_WARPS; w++)
        all += shared[w * N + threadIdx.x];
    out[threadIdx.x] = all;
}

/* Numbers i .. i + V - 1 of a vector, zeros from `end` on. */
template <class T, int V, bool wide>
static __device__ __forceinline__ void numbers(T (&out)[V], const T *x, size_t i, size_t end) {
    if (wide && i + V <= end) {
        mbl_get<T, V>(out, x + i);
        return;
    }
    MBL_UNROLL
    for (int v = 0; v < V; v++)
        out[v] = i + (size_t)v < end ? x[i + (size_t)v] : 0;
}

template <class T, bool wide>
static __global__ void __launch_bounds__(MBL_THREADS)
    distance_part(segments_t<double> s, const T *x, const T *y) {
    constexpr int V = mbl_lanes<T>::count;
    MBL_SHARED(double, shared, 2 * MBL_WARPS);
    const size_t first = blockIdx.x * s.length, end = first + s.length < s.n ? first + s.length : s.n;
    double sum[2] = {0, 0};
    for (size_t i = first + threadIdx.x * V; i < end; i += MBL_THREADS * V) {
        T a[V], b[V];
        numbers<T, V, wide>(a, x, i, end);
        numbers<T, V, wide>(b, y, i, end);
        MBL_UNROLL
        for (int v = 0; v < V; v++) {
            const double d = (double)a[v] - (double)b[v];
            sum[0] = fma(d, d, sum[0]);
            sum[1] = fma((double)a[v], (double)a[v], sum[1]);
        }
    }
    block_sum<double, 2>(sum, shared, s.part + 2 * blockIdx.x);
}

/* Over the 32-bit words of a vector: V of them are 16 bytes. */
template <bool wide>
static __global__ void __launch_bounds__(MBL_THREADS)
    checksum_part(segments_t<uint64_t> s, const uint32_t *x) {
    constexpr int V = 4;
    MBL_SHARED(uint64_t, shared, MBL_WARPS);
    const size_t first = blockIdx.x * s.length, end = first + s.length < s.n ? first + s.length : s.n;
    uint64_t sum[1] = {0};
    for (size_t i = first + threadIdx.x * V; i < end; i += MBL_THREADS * V) {
        uint32_t word[V];
        if (wide && i + V <= end) {
            const uint4 four = *reinterpret_cast<const uint4 *>(x + i);
            word[0] = four.x, word[1] = four.y, word[2] = four.z, word[3] = four.w;
        } else {
            MBL_UNROLL
            for (int v = 0; v < V; v++)
                word[v] = i + (size_t)v < end ? x[i + (size_t)v] : 0;
        }
        MBL_UNROLL
        for (int v = 0; v < V; v++)
            sum[0] += i + (size_t)v < end ? mbl_checksum_word(i + (size_t)v, word[v]) : 0;
    }
    block_sum<uint64_t, 1>(sum, shared, s.part + blockIdx.x);
}

/* out[N] = the sums over segments of part [segments,N]. */
template <class S, int N>
static __global__ void __launch_bounds__(MBL_THREADS) segments_sum(S *out, const S *part, size_t segments) {
    MBL_SHARED(S, shared, N * MBL_WARPS);
    S sum[N] = {0};
    for (size_t i = threadIdx.x; i < segments; i += MBL_THREADS)
        MBL_UNROLL
    for (int j = 0; j < N; j++)
        sum[j] += part[i * N + (size_t)j];
    block_sum<S, N>(sum, shared, out);
}

/* Cuts n numbers, of which `lanes` are 16 bytes; scratch memory for N numbers of every segment and for their
 * sums, which lie in front. */
template <class S, int N>
static mbl_status_t cut(mbl_ops_t *ops, size_t n, size_t lanes, segments_t<S> *out, unsigned *blocks) {
    const size_t step = MBL_THREADS * lanes, length = mbl_ceil_div(mbl_ceil_div(n, step), SEGMENTS) * step;
    const size_t segments = mbl_ceil_div(n, length);
    void *work;
    MBL_TRY(mbl_cuda_workspace(ops, (segments + 1) * N * sizeof(S), &work));
    *out = {n, length, (S *)work + N};
    *blocks = (unsigned)segments;
    return MBL_OK;
}

/* The segments' numbers, added, to the host. */
template <class S, int N>
static mbl_status_t finish(mbl_ops_t *ops, const segments_t<S> &s, unsigned blocks, void *host,
                           const char *what) {
    S *out = s.part - N;
    MBL_LAUNCH((segments_sum<S, N>), 1, MBL_THREADS, 0, mbl_cuda_stream(ops), out, (const S *)s.part,
               (size_t)blocks);
    MBL_TRY(MBL_CUDA_LAUNCHED(what));
    return ops->table->copy(ops, host, MBL_HOST, out, MBL_DEVICE, N * sizeof(S));
}

extern "C" mbl_status_t mbl_cuda_distance(mbl_ops_t *ops, const mbl_distance_args_t *args) {
    segments_t<double> s;
    unsigned blocks;
    const bool wide = ((uintptr_t)args->x->data | (uintptr_t)args->y->data) % 16 == 0;
    MBL_WITH_REAL(args->x->dtype, T, {
        MBL_TRY((cut<double, 2>(ops, args->x->dim[0], mbl_lanes<T>::count, &s, &blocks)));
        if (wide)
            MBL_LAUNCH((distance_part<T, true>), blocks, MBL_THREADS, 0, mbl_cuda_stream(ops), s,
                       mbl_data<T>(args->x), mbl_data<T>(args->y));
        else
            MBL_LAUNCH((distance_part<T, false>), blocks, MBL_THREADS, 0, mbl_cuda_stream(ops), s,
                       mbl_data<T>(args->x), mbl_data<T>(args->y));
    });
    return finish<double, 2>(ops, s, blocks, args->sums->data, "distance");
}

extern "C" mbl_status_t mbl_cuda_checksum(mbl_ops_t *ops, const mbl_checksum_args_t *args) {
    segments_t<uint64_t> s;
    unsigned blocks;
    const size_t words = args->x->dim[0] * mbl_dtype_size(args->x->dtype) / sizeof(uint32_t);
    MBL_TRY((cut<uint64_t, 1>(ops, words, 4, &s, &blocks)));
    if ((uintptr_t)args->x->data % 16 == 0)
        MBL_LAUNCH((checksum_part<true>), blocks, MBL_THREADS, 0, mbl_cuda_stream(ops), s,
                   mbl_data<uint32_t>(args->x));
    else
        MBL_LAUNCH((checksum_part<false>), blocks, MBL_THREADS, 0, mbl_cuda_stream(ops), s,
                   mbl_data<uint32_t>(args->x));
    return finish<uint64_t, 1>(ops, s, blocks, args->sum->data, "checksum");
}
