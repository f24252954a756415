/* RMS norm of queries and keys with the split into heads, forward and backward. A head of a token is taken by
 * a group of lanes, 16 bytes a lane where it can be: four tokens of a head of 64 in a warp in bf16. A block
 * takes some tokens of one head, the grid has an axis for each of heads, tokens and samples: no thread
 * divides to find its place. */
#include "gpu/elem.h"

enum { CHUNK = 64 };

template <class T> struct heads_t {
    T *part[2]; /* forward: q, k; backward: dq, dk */
    T *dqkv;    /* backward only */
    const T *qkv, *weight[2];
    REAL *rstd[2];     /* [N,T,H] (or NULL) */
    size_t row, d_row; /* rows of qkv and of dqkv are so far apart */
    size_t tokens, heads, head, all, first;
    REAL eps, share; /* share: 1 / head */
    int shift;       /* a group has 2^shift lanes */
};

/* Where a head of a token is. */
typedef struct {
    size_t merged, d_merged, split, rstd; /* offsets in qkv and dqkv, in q or k, and in rstd */
} place_t;

template <class T>
__device__ inline place_t place_of(const heads_t<T> &a, size_t n, size_t token, unsigned part, size_t h) {
    const size_t at = n * a.tokens + token, column = (part * a.heads + h) * a.head;
    return {at * a.row + column, at * a.d_row + column,
            ((n * a.heads + h) * a.all + a.first + token) * a.head, at * a.heads + h};
}

/* A pointer of a kernel's arguments by selection: an index that only the block knows would put the arguments
 * into local memory, and the pointer's accesses would no longer be known to be of global memory. */
template <class P> __device__ inline P *pick(P *const (&of)[2], unsigned i) {
    return i == 0 ? of[0] : of[1];
}

/* A thread's part of the work: blockIdx is q's heads and then k's, tokens, sample. */
typedef struct {
    unsigned part;
    size_t lane, token;
    place_t at; /* of the first token where `there` is false */
    bool there; /* all lanes of a warp take part in its sums */
} work_t;
template <class T> __device__ inline work_t work_of(const heads_t<T> &a) {
    work_t w;
    w.part = blockIdx.x >= a.heads;
    w.lane = threadIdx.x & ((1u << a.shift) - 1);
    w.token = ((size_t)blockIdx.y * MBL_THREADS + threadIdx.x) >> a.shift;
    w.there = w.token < a.tokens;
    w.at = place_of(a, blockIdx.z, w.there ? w.token : 0, w.part, blockIdx.x - w.part * a.heads);
    return w;
}

/* once: a group takes a head in one turn, so that memory is read once. */
template <class T, int V, bool once>
__global__ void __launch_bounds__(MBL_THREADS) split_heads(heads_t<T> a) {
    const work_t w = work_of(a);
    const size_t first = w.lane * V, step = (size_t)V << a.shift, end = w.there ? a.head : 0;
    const T *x = a.qkv + w.at.merged, *weight = pick(a.weight, w.part);
    T *y = pick(a.part, w.part) + w.at.split;
    REAL square = 0, v[V];
    for (size_t j = first; j < end; j += once ? end : step) {
        mbl_get<T, V>(v, x + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            square += v[l] * v[l];
    }
    square = mbl_lanes_sum(square, 1 << a.shift);
    const REAL rstd = 1 / sqrt(square * a.share + a.eps);
    for (size_t j = first; j < end; j += once ? end : step) {
        REAL by[V];
        if (!once)
            mbl_get<T, V>(v, x + j);
        if (weight) {
            mbl_get<T, V>(by, weight + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                v[l] = v[l] * rstd * by[l];
        }
        mbl_put(y + j, v);
    }
    REAL *kept = pick(a.rstd, w.part);
    if (w.there && weight && kept && w.lane == 0)
        kept[w.at.rstd] = rstd;
}

/* With c = x rstd and g = dy weight: dx = rstd (g - c mean(g c)). */
template <class T, int V, bool once>
__global__ void __launch_bounds__(MBL_THREADS) merge_heads(heads_t<T> a) {
    const work_t w = work_of(a);
    const size_t first = w.lane * V, step = (size_t)V << a.shift, end = w.there ? a.head : 0;
    const T *dy = pick(a.part, w.part) + w.at.split, *x = a.qkv + w.at.merged,
            *weight = pick(a.weight, w.part);
    T *dx = a.dqkv + w.at.d_merged;
    const REAL rstd = weight ? pick(a.rstd, w.part)[w.at.rstd] : 0;
    REAL dot = 0, g[V], by[V], c[V];
    for (size_t j = first; j < end; j += once ? end : step) {
        mbl_get<T, V>(g, dy + j);
        if (!weight)
            continue;
        mbl_get<T, V>(by, weight + j);
        mbl_get<T, V>(c, x + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            dot += g[l] * by[l] * (c[l] * rstd);
    }
    dot = mbl_lanes_sum(dot, 1 << a.shift) * a.share;
    for (size_t j = first; j < end; j += once ? end : step) {
        if (!once)
            mbl_get<T, V>(g, dy + j);
        if (!once && weight) {
            mbl_get<T, V>(by, weight + j);
            mbl_get<T, V>(c, x + j);
        }
        if (weight) {
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                g[l] = rstd * (g[l] * by[l] - c[l] * rstd * dot);
        }
        mbl_put(dx + j, g);
    }
}

/* dweight [2,d] of a chunk of tokens of one sample, in f64: a warp takes every MBL_WARPS-th token and
 * of its heads 32 columns, then the warps are added in order. blockIdx: chunk, sample, q or k. */
template <class T>
__global__ void __launch_bounds__(MBL_THREADS) head_weights(heads_t<T> a, double *partial, size_t chunks) {
    MBL_SHARED(double, shared, MBL_THREADS);
    const size_t sample = blockIdx.y, first = (size_t)blockIdx.x * CHUNK, lane = threadIdx.x % MBL_WARP;
    const size_t last = first + CHUNK < a.tokens ? first + CHUNK : a.tokens;
    const unsigned part = blockIdx.z;
    const T *dy = pick(a.part, part);
    const REAL *rstd = pick(a.rstd, part);
    for (size_t column = 0; column < a.head; column += MBL_WARP) {
        const size_t j = column + lane;
        double sum = 0;
        for (size_t token = first + threadIdx.x / MBL_WARP; j < a.head && token < last; token += MBL_WARPS) {
            const place_t p = place_of(a, sample, token, part, 0);
            const T *g = dy + p.split + j, *x = a.qkv + p.merged + j;
            const REAL *r = rstd + p.rstd;
            for (size_t h = 0; h < a.heads; h++, g += a.all * a.head, x += a.head, r++)
                sum += (double)mbl_load(*g) * ((double)mbl_load(*x) * (double)*r);
        }
        shared[threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.x < MBL_WARP && j < a.head) {
            for (unsigned w = 1; w < MBL_WARPS; w++)
                sum += shared[w * MBL_WARP + lane];
            partial[((part * gridDim.y + sample) * chunks + blockIdx.x) * a.head + j] = sum;
        }
        __syncthreads();
    }
}

template <class R>
__global__ void __launch_bounds__(MBL_THREADS)
    add_head_weights(R *dweight_q, R *dweight_k, const double *partial, size_t chunks, size_t head) {
    const size_t j = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    R *y = blockIdx.y ? dweight_k : dweight_q;
    double sum = 0;
    if (j >= head)
        return;
    for (size_t c = 0; c < chunks; c++)
        sum += partial[(blockIdx.y * chunks + c) * head + j];
    y[j] = (R)((double)y[j] + sum);
}

/* The lanes a head of d elements needs, V each: 2^(what is given), a warp at most. */
static int shift_of(size_t d, size_t v) {
    int shift = 0;
    while ((1 << shift) < MBL_WARP && (v << shift) < d)
        shift++;
    return shift;
}

template <class T> static dim3 grid_of(const heads_t<T> &a, size_t samples) {
    return dim3((unsigned)(2 * a.heads), (unsigned)mbl_ceil_div(a.tokens << a.shift, MBL_THREADS),
                (unsigned)samples);
}

/* What both directions have; v: elements taken at a time. */
template <class T>
static heads_t<T> heads_of(const mbl_tensor_t *qkv, const mbl_tensor_t *q, const mbl_tensor_t *k,
                           const mbl_tensor_t *weight_q, const mbl_tensor_t *weight_k, size_t first,
                           size_t v) {
    heads_t<T> a = {};
    a.part[0] = mbl_data<T>(q), a.part[1] = mbl_data<T>(k);
    a.qkv = mbl_data<T>(qkv);
    a.weight[0] = mbl_data<T>(weight_q), a.weight[1] = mbl_data<T>(weight_k);
    a.row = qkv->stride[1];
    a.tokens = qkv->dim[1], a.heads = q->dim[1], a.head = q->dim[3], a.all = q->dim[2], a.first = first;
    a.share = 1 / (REAL)a.head;
    a.shift = shift_of(a.head, v);
    return a;
}

#define LAUNCH_HEADS(kernel, V)                                                                              \
    do {                                                                                                     \
        if (a.head <= (size_t)V << a.shift)                                                                  \
            MBL_LAUNCH((kernel<T, V, true>), grid_of(a, qkv->dim[0]), MBL_THREADS, 0, mbl_cuda_stream(ops),  \
                       a);                                                                                   \
        else                                                                                                 \
            MBL_LAUNCH((kernel<T, V, false>), grid_of(a, qkv->dim[0]), MBL_THREADS, 0, mbl_cuda_stream(ops), \
                       a);                                                                                   \
    } while (0)

extern "C" mbl_status_t mbl_cuda_qk_norm(mbl_ops_t *ops, const mbl_qk_norm_args_t *args) {
    const mbl_tensor_t *qkv = args->qkv;
    MBL_WITH_TYPE(qkv->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        const bool wide = mbl_wide(args->q, V) && mbl_wide(args->k, V) && mbl_wide(qkv, V) &&
                          mbl_wide(args->weight_q, V) && mbl_wide(args->weight_k, V);
        heads_t<T> a =
            heads_of<T>(qkv, args->q, args->k, args->weight_q, args->weight_k, args->first, wide ? V : 1);
        a.rstd[0] = mbl_data<REAL>(args->rstd_q), a.rstd[1] = mbl_data<REAL>(args->rstd_k);
        a.eps = (REAL)args->eps;
        if (wide)
            LAUNCH_HEADS(split_heads, V);
        else
            LAUNCH_HEADS(split_heads, 1);
    });
    return MBL_CUDA_LAUNCHED("qk_norm");
}

template <class T>
static mbl_status_t weight_gradients(mbl_ops_t *ops, const heads_t<T> &a,
                                     const mbl_qk_norm_bwd_args_t *args) {
    const size_t samples = args->qkv->dim[0], chunks = mbl_ceil_div(a.tokens, CHUNK);
    void *partial;
    MBL_TRY(mbl_cuda_workspace(ops, 2 * samples * chunks * a.head * sizeof(double), &partial));
    MBL_LAUNCH(head_weights<T>, dim3((unsigned)chunks, (unsigned)samples, 2), MBL_THREADS, 0,
               mbl_cuda_stream(ops), a, (double *)partial, chunks);
    MBL_LAUNCH(add_head_weights<REAL>, dim3((unsigned)mbl_ceil_div(a.head, MBL_THREADS), 2), MBL_THREADS, 0,
               mbl_cuda_stream(ops), mbl_data<REAL>(args->dweight_q), mbl_data<REAL>(args->dweight_k),
               (const double *)partial, samples * chunks, a.head);
    return MBL_OK;
}

extern "C" mbl_status_t mbl_cuda_qk_norm_bwd(mbl_ops_t *ops, const mbl_qk_norm_bwd_args_t *args) {
    const mbl_tensor_t *qkv = args->qkv;
    MBL_WITH_TYPE(qkv->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        const bool wide = mbl_wide(args->dq, V) && mbl_wide(args->dk, V) && mbl_wide(qkv, V) &&
                          mbl_wide(args->dqkv, V) && mbl_wide(args->weight_q, V) &&
                          mbl_wide(args->weight_k, V);
        heads_t<T> a =
            heads_of<T>(qkv, args->dq, args->dk, args->weight_q, args->weight_k, args->first, wide ? V : 1);
        a.rstd[0] = mbl_data<REAL>(args->rstd_q), a.rstd[1] = mbl_data<REAL>(args->rstd_k);
        a.dqkv = mbl_data<T>(args->dqkv);
        a.d_row = args->dqkv->stride[1];
        if (args->dweight_q)
            MBL_TRY(weight_gradients(ops, a, args));
        if (wide)
            LAUNCH_HEADS(merge_heads, V);
        else
            LAUNCH_HEADS(merge_heads, 1);
    });
    return MBL_CUDA_LAUNCHED("qk_norm_bwd");
}
