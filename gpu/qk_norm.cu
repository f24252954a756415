/* RMS norm of queries and keys with the split into heads, forward and backward. A head of a token is taken by
 * a group of lanes, 16 bytes a lane where it can be: four heads of 64 in a warp in bf16. */
#include "gpu/elem.h"

enum { CHUNK = 64 };

template <class T> struct heads_t {
    T *part[3]; /* forward: q, k, v; backward: dq, dk, dv */
    T *dqkv;    /* backward only */
    const T *qkv, *weight[2];
    REAL *rstd[2]; /* [N,T,H] (or NULL) */
    size_t tokens, heads, head, all, first, items;
    REAL eps;
    int lanes; /* of a group */
};

/* Where the item-th head is: items go through the rows of qkv, in each through q, k and v, in each through
 * the heads. */
typedef struct {
    size_t row, merged, split, rstd; /* offsets in qkv, in q, k or v, and in rstd */
    unsigned part;
} place_t;

template <class T> __device__ inline place_t place_of(const heads_t<T> &a, size_t item) {
    const size_t h = item % a.heads, rest = item / a.heads, row = rest / 3;
    place_t p;
    p.part = (unsigned)(rest % 3);
    p.row = row;
    p.merged = rest * a.heads * a.head + h * a.head;
    p.split = ((row / a.tokens * a.heads + h) * a.all + a.first + row % a.tokens) * a.head;
    p.rstd = row * a.heads + h;
    return p;
}

/* A pointer of a kernel's arguments by selection: an index that only the thread knows would put the arguments
 * into local memory, and the pointer's accesses would no longer be known to be of global memory. */
template <class P> __device__ inline P *pick(P *const (&of)[3], unsigned i) {
    return i == 0 ? of[0] : i == 1 ? of[1] : of[2];
}
template <class P> __device__ inline P *pick(P *const (&of)[2], unsigned i) {
    return i == 0 ? of[0] : of[1];
}

template <class T, int V> __global__ void __launch_bounds__(MBL_THREADS) split_heads(heads_t<T> a) {
    const size_t thread = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    const size_t item = thread / (unsigned)a.lanes, lane = thread % (unsigned)a.lanes;
    const bool there = item < a.items; /* all lanes of a warp take part in its sums */
    const place_t p = place_of(a, there ? item : 0);
    const size_t first = lane * V, step = (size_t)a.lanes * V;
    const T *x = a.qkv + p.merged, *weight = p.part < 2 ? pick(a.weight, p.part) : NULL;
    T *y = pick(a.part, p.part) + p.split;
    REAL square = 0, v[V];
    for (size_t j = first; there && weight && j < a.head; j += step) {
        mbl_get<T, V>(v, x + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            square += v[l] * v[l];
    }
    square = mbl_lanes_sum(square, a.lanes);
    const REAL rstd = 1 / sqrt(square / (REAL)a.head + a.eps);
    for (size_t j = first; there && j < a.head; j += step) {
        REAL w[V];
        mbl_get<T, V>(v, x + j);
        if (weight) {
            mbl_get<T, V>(w, weight + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                v[l] = v[l] * rstd * w[l];
        }
        mbl_put(y + j, v);
    }
    REAL *kept = pick(a.rstd, p.part);
    if (there && weight && kept && lane == 0)
        kept[p.rstd] = rstd;
}

/* With c = x rstd and g = dy weight: dx = rstd (g - c mean(g c)). */
template <class T, int V> __global__ void __launch_bounds__(MBL_THREADS) merge_heads(heads_t<T> a) {
    const size_t thread = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    const size_t item = thread / (unsigned)a.lanes, lane = thread % (unsigned)a.lanes;
    const bool there = item < a.items;
    const place_t p = place_of(a, there ? item : 0);
    const size_t first = lane * V, step = (size_t)a.lanes * V;
    const T *dy = pick(a.part, p.part) + p.split, *x = a.qkv + p.merged,
            *weight = p.part < 2 ? pick(a.weight, p.part) : NULL;
    T *dx = a.dqkv + p.merged;
    const REAL rstd = weight ? pick(a.rstd, p.part)[p.rstd] : 0;
    REAL dot = 0, g[V], w[V], c[V];
    for (size_t j = first; there && weight && j < a.head; j += step) {
        mbl_get<T, V>(g, dy + j);
        mbl_get<T, V>(w, weight + j);
        mbl_get<T, V>(c, x + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            dot += g[l] * w[l] * (c[l] * rstd);
    }
    dot = mbl_lanes_sum(dot, a.lanes) / (REAL)a.head;
    for (size_t j = first; there && j < a.head; j += step) {
        mbl_get<T, V>(g, dy + j);
        if (weight) {
            mbl_get<T, V>(w, weight + j);
            mbl_get<T, V>(c, x + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                g[l] = rstd * (g[l] * w[l] - c[l] * rstd * dot);
        }
        mbl_put(dx + j, g);
    }
}

/* dweight [2,d] of a chunk of tokens of one sample, in f64: a warp takes every MBL_WARPS-th row of 32
 * columns, then the warps are added in order. blockIdx: chunk, sample, q or k. */
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
        for (size_t i = threadIdx.x / MBL_WARP; j < a.head && i < (last - first) * a.heads; i += MBL_WARPS) {
            const size_t row = sample * a.tokens + first + i / a.heads, h = i % a.heads;
            const place_t p = place_of(a, (row * 3 + part) * a.heads + h);
            sum += (double)mbl_load(dy[p.split + j]) *
                   ((double)mbl_load(a.qkv[p.merged + j]) * (double)rstd[p.rstd]);
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

/* The lanes a head of d elements needs, V each: a power of two, a warp at most. */
static int group_of(size_t d, size_t v) {
    int lanes = 1;
    while (lanes < MBL_WARP && (size_t)lanes * v < d)
        lanes *= 2;
    return lanes;
}

template <class T> static unsigned grid_of(const heads_t<T> &a) {
    return (unsigned)mbl_ceil_div(a.items * (size_t)a.lanes, MBL_THREADS);
}

extern "C" mbl_status_t mbl_cuda_qk_norm(mbl_ops_t *ops, const mbl_qk_norm_args_t *args) {
    const mbl_tensor_t *qkv = args->qkv, *q = args->q;
    MBL_WITH_TYPE(qkv->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        heads_t<T> a = {{mbl_data<T>(q), mbl_data<T>(args->k), mbl_data<T>(args->v)},
                        NULL,
                        mbl_data<T>(qkv),
                        {mbl_data<T>(args->weight_q), mbl_data<T>(args->weight_k)},
                        {mbl_data<REAL>(args->rstd_q), mbl_data<REAL>(args->rstd_k)},
                        qkv->dim[1],
                        q->dim[1],
                        q->dim[3],
                        q->dim[2],
                        args->first,
                        qkv->dim[0] * qkv->dim[1] * 3 * q->dim[1],
                        (REAL)args->eps,
                        0};
        bool wide = mbl_wide(q, V) && mbl_wide(args->k, V) && mbl_wide(args->v, V) && mbl_wide(qkv, V) &&
                    mbl_wide(args->weight_q, V) && mbl_wide(args->weight_k, V);
        a.lanes = group_of(a.head, wide ? V : 1);
        if (wide)
            MBL_LAUNCH((split_heads<T, V>), grid_of(a), MBL_THREADS, 0, mbl_cuda_stream(ops), a);
        else
            MBL_LAUNCH((split_heads<T, 1>), grid_of(a), MBL_THREADS, 0, mbl_cuda_stream(ops), a);
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
    const mbl_tensor_t *qkv = args->qkv, *dq = args->dq;
    MBL_WITH_TYPE(qkv->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        heads_t<T> a = {{mbl_data<T>(dq), mbl_data<T>(args->dk), mbl_data<T>(args->dv)},
                        mbl_data<T>(args->dqkv),
                        mbl_data<T>(qkv),
                        {mbl_data<T>(args->weight_q), mbl_data<T>(args->weight_k)},
                        {mbl_data<REAL>(args->rstd_q), mbl_data<REAL>(args->rstd_k)},
                        qkv->dim[1],
                        dq->dim[1],
                        dq->dim[3],
                        dq->dim[2],
                        args->first,
                        qkv->dim[0] * qkv->dim[1] * 3 * dq->dim[1],
                        0,
                        0};
        bool wide = mbl_wide(dq, V) && mbl_wide(args->dk, V) && mbl_wide(args->dv, V) && mbl_wide(qkv, V) &&
                    mbl_wide(args->dqkv, V) && mbl_wide(args->weight_q, V) && mbl_wide(args->weight_k, V);
        a.lanes = group_of(a.head, wide ? V : 1);
        if (args->dweight_q)
            MBL_TRY(weight_gradients(ops, a, args));
        if (wide)
            MBL_LAUNCH((merge_heads<T, V>), grid_of(a), MBL_THREADS, 0, mbl_cuda_stream(ops), a);
        else
            MBL_LAUNCH((merge_heads<T, 1>), grid_of(a), MBL_THREADS, 0, mbl_cuda_stream(ops), a);
    });
    return MBL_CUDA_LAUNCHED("qk_norm_bwd");
}
