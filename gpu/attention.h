/* Shared by the attention kernels: the arguments of a call. Private to gpu/attention*.cu. */
#ifndef MBL_GPU_ATTENTION_H
#define MBL_GPU_ATTENTION_H

#include "gpu/attention_engines.h"
#include "gpu/elem.h"
#include "gpu/rows.h"

static const double MBL_LOG2_E = 1.44269504088896340736;

/* One call. Heads are [heads,T,d] with heads = N H, merged rows [N,T1,H d] and [N,T-T1,H d]: rows of v lie
 * v_row apart, those of dv dv_row, the others' are dense. T is the element type, R that of statistics. */
template <class T, class R> struct attention_call_t {
    const T *q, *k, *v[2], *dout[2], *saved[2];
    T *out[2], *dq, *dk, *dv[2];
    size_t v_row, dv_row;
    R *lse;
    const R *bias;  /* [H,2T-1], or NULL */
    const R *stats; /* [heads,padded,2]: what mbl_cuda_attention_stats gives */
    R scale;        /* the tensor core kernels': of scores in powers of two */
    R factor;       /* scale itself */
    int n_heads, heads, tokens, split, d, padded;
    bool causal;
};

/* The rows of one head of a merged pair, `stride` apart or dense, and of a [heads,T,d] tensor. */
template <class P, class T, class R>
static __device__ __forceinline__ mbl_row_pair_t<P>
merged_rows(const attention_call_t<T, R> &x, P *const (&part)[2], int head, size_t stride) {
    size_t n = (size_t)(head / x.n_heads);
    size_t column = (size_t)(head % x.n_heads) * (size_t)x.d;
    size_t before = (size_t)x.split * stride;
    return {part[0] + n * before + column,
            part[1] + n * (size_t)(x.tokens - x.split) * stride + column - before, stride, x.split, x.tokens};
}
template <class P, class T, class R>
static __device__ __forceinline__ mbl_row_pair_t<P> merged_rows(const attention_call_t<T, R> &x,
                                                                P *const (&part)[2], int head) {
    return merged_rows(x, part, head, (size_t)x.n_heads * (size_t)x.d);
}
/* width: d if it is known to the compiler, else 0 */
template <int width, class P, class T, class R>
static __device__ __forceinline__ mbl_rows_t<P> head_rows(const attention_call_t<T, R> &x, P *heads,
                                                          int head) {
    return {heads + (size_t)head * (size_t)x.tokens * (size_t)x.d, width ? width : (size_t)x.d, x.tokens};
}

/* Sizes of a call from q [N,H,T,d] and the first part of the merged rows. */
template <class T, class R>
static inline void attention_sizes(attention_call_t<T, R> &x, const mbl_tensor_t *q,
                                   const mbl_tensor_t *part1) {
    x.n_heads = (int)q->dim[1];
    x.heads = (int)(q->dim[0] * q->dim[1]);
    x.tokens = (int)q->dim[2];
    x.d = (int)q->dim[3];
    x.split = (int)part1->dim[1];
}

template <class T, class R>
static inline void forward_call(attention_call_t<T, R> &x, const mbl_attention_args_t *args) {
    x = {};
    x.q = mbl_data<T>(args->q), x.k = mbl_data<T>(args->k);
    x.v[0] = mbl_data<T>(args->v1), x.v[1] = mbl_data<T>(args->v2 ? args->v2 : args->v1);
    x.v_row = args->v1->stride[1];
    x.out[0] = mbl_data<T>(args->out1), x.out[1] = mbl_data<T>(args->out2 ? args->out2 : args->out1);
    x.lse = mbl_data<R>(args->lse);
    x.bias = mbl_data<R>(args->bias);
    x.factor = (R)args->scale;
    x.causal = args->causal;
    attention_sizes(x, args->q, args->out1);
}

template <class T, class R>
static inline void backward_call(attention_call_t<T, R> &x, const mbl_attention_bwd_args_t *args) {
    x = {};
    x.q = mbl_data<T>(args->q), x.k = mbl_data<T>(args->k);
    x.v[0] = mbl_data<T>(args->v1), x.v[1] = mbl_data<T>(args->v2 ? args->v2 : args->v1);
    x.dq = mbl_data<T>(args->dq), x.dk = mbl_data<T>(args->dk);
    x.dv[0] = mbl_data<T>(args->dv1), x.dv[1] = mbl_data<T>(args->dv2 ? args->dv2 : args->dv1);
    x.v_row = args->v1->stride[1], x.dv_row = args->dv1->stride[1];
    x.dout[0] = mbl_data<T>(args->dout1), x.dout[1] = mbl_data<T>(args->dout2 ? args->dout2 : args->dout1);
    x.saved[0] = mbl_data<T>(args->out1), x.saved[1] = mbl_data<T>(args->out2 ? args->out2 : args->out1);
    x.lse = mbl_data<R>(args->lse);
    x.factor = (R)args->scale;
    attention_sizes(x, args->q, args->out1);
}

/* x.stats for the backward passes, in the operation's scratch memory: for every query {unit lse, dout . out},
 * and {infinity, 0} for those from T up to a multiple of 128. whole: merged rows can be read 16 bytes at a
 * time. */
mbl_status_t mbl_cuda_attention_stats(mbl_ops_t *ops, attention_call_t<float, float> &x, float unit,
                                      bool whole);
mbl_status_t mbl_cuda_attention_stats(mbl_ops_t *ops, attention_call_t<double, double> &x, double unit,
                                      bool whole);
mbl_status_t mbl_cuda_attention_stats(mbl_ops_t *ops, attention_call_t<__nv_bfloat16, float> &x, float unit,
                                      bool whole);

#endif
