/* Layer norm with and without modulation, and the fused residual before it: a warp for each row, which keeps
 * the row in registers where it fits. */
#include "gpu/elem.h"

template <class T> struct norm_t {
    T *y, *z;          /* the gated sum (only then), and the result */
    REAL *mean, *rstd; /* or NULL */
    const T *x, *gate, *h, *scale, *shift;
    size_t gate_stride, scale_stride, shift_stride; /* per sample */
    size_t rows, tokens, width;
    REAL eps;
    const T *gate2, *h2; /* or NULL */
    size_t gate2_stride;
};

/* V numbers of a row to be normalised. GATED: x + gate h + gate2 h2, which is also written to y, and rounded
 * as y is. */
template <class T, int V, bool GATED>
__device__ inline void norm_first(REAL (&out)[V], const norm_t<T> &a, size_t row, size_t sample, size_t j) {
    mbl_get<T, V>(out, a.x + row * a.width + j);
    if constexpr (GATED) {
        REAL gate[V], h[V];
        mbl_get<T, V>(gate, a.gate + sample * a.gate_stride + j);
        mbl_get<T, V>(h, a.h + row * a.width + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            out[l] = out[l] + gate[l] * h[l];
        if (a.h2) {
            mbl_get<T, V>(gate, a.gate2 + sample * a.gate2_stride + j);
            mbl_get<T, V>(h, a.h2 + row * a.width + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                out[l] = out[l] + gate[l] * h[l];
        }
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            out[l] = mbl_rounded<T>(out[l]);
        mbl_put(a.y + row * a.width + j, out);
    }
}

/* KEPT: how many times V numbers a lane keeps (0: it reads them again, for rows of any length). AFFINE: scale
 * and shift are a weight and a bias for all samples, without the 1 + of a modulation. */
template <class T, int V, int KEPT, bool GATED, bool AFFINE>
__global__ void __launch_bounds__(MBL_THREADS) norm_rows(norm_t<T> a) {
    size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP;
    if (row >= a.rows)
        return;
    size_t sample = AFFINE ? 0 : row / a.tokens;
    const size_t first = threadIdx.x % MBL_WARP * V, step = MBL_WARP * V;
    const int steps = KEPT ? KEPT : (int)((a.width + step - 1) / step);
    const T *again = GATED ? a.y : a.x;
    REAL kept[KEPT ? KEPT : 1][V], sum = 0, square = 0;
    MBL_UNROLL
    for (int i = 0; i < steps; i++) {
        size_t j = first + (size_t)i * step;
        if (j >= a.width)
            continue;
        norm_first<T, V, GATED>(kept[KEPT ? i : 0], a, row, sample, j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            sum += kept[KEPT ? i : 0][l];
    }
    const REAL mean = AFFINE && !a.shift ? 0 : mbl_warp_sum(sum) / (REAL)a.width; /* RMS norm: about 0 */
    MBL_UNROLL
    for (int i = 0; i < steps; i++) {
        size_t j = first + (size_t)i * step;
        if (j >= a.width)
            continue;
        if (!KEPT)
            mbl_get<T, V>(kept[0], again + row * a.width + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++) {
            REAL c = kept[KEPT ? i : 0][l] - mean;
            square += c * c;
        }
    }
    const REAL rstd = 1 / sqrt(mbl_warp_sum(square) / (REAL)a.width + a.eps);
    MBL_UNROLL
    for (int i = 0; i < steps; i++) {
        size_t j = first + (size_t)i * step;
        if (j >= a.width)
            continue;
        if (!KEPT)
            mbl_get<T, V>(kept[0], again + row * a.width + j);
        REAL scale[V], shift[V], out[V];
        mbl_get<T, V>(scale, a.scale + sample * a.scale_stride + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            shift[l] = 0;
        if (!AFFINE || a.shift)
            mbl_get<T, V>(shift, a.shift + sample * a.shift_stride + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            out[l] = (kept[KEPT ? i : 0][l] - mean) * rstd * (AFFINE ? scale[l] : 1 + scale[l]) + shift[l];
        mbl_put(a.z + row * a.width + j, out);
    }
    if (a.mean && threadIdx.x % MBL_WARP == 0) {
        a.mean[row] = mean;
        a.rstd[row] = rstd;
    }
}

/* The kernel for the row's length; wide: 16 bytes at a time are possible. */
template <class T, bool GATED, bool AFFINE>
static mbl_status_t run_norm(mbl_ops_t *ops, const char *what, const norm_t<T> &a, bool wide) {
    constexpr int V = mbl_lanes<T>::count;
    const unsigned grid = (unsigned)mbl_ceil_div(a.rows, MBL_WARPS);
    const size_t lane = mbl_ceil_div(a.width, (size_t)V * MBL_WARP);
#define NORM(V, KEPT)                                                                                        \
    MBL_LAUNCH((norm_rows<T, V, KEPT, GATED, AFFINE>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a)
    if (!wide)
        NORM(1, 0);
    else if (sizeof(T) == 8 || lane > 12)
        NORM(V, 0);
    else if (lane > 6)
        NORM(V, 12);
    else if (lane > 2)
        NORM(V, 6);
    else
        NORM(V, 2);
#undef NORM
    return MBL_CUDA_LAUNCHED(what);
}

extern "C" mbl_status_t mbl_cuda_layer_norm(mbl_ops_t *ops, const mbl_layer_norm_args_t *args) {
    const mbl_tensor_t *x = args->x;
    MBL_WITH_TYPE(x->dtype, T, {
        constexpr size_t V = mbl_lanes<T>::count;
        norm_t<T> a = {NULL,
                       mbl_data<T>(args->y),
                       mbl_data<REAL>(args->mean),
                       mbl_data<REAL>(args->rstd),
                       mbl_data<T>(x),
                       NULL,
                       NULL,
                       mbl_data<T>(args->scale),
                       mbl_data<T>(args->shift),
                       0,
                       args->scale->stride[0],
                       args->shift->stride[0],
                       x->dim[0] * x->dim[1],
                       x->dim[1],
                       x->dim[2],
                       (REAL)args->eps,
                       NULL,
                       NULL,
                       0};
        return run_norm<T, false, false>(ops, "layer_norm", a,
                                         mbl_wide(x, V) && mbl_wide(args->y, V) && mbl_wide(args->scale, V) &&
                                             mbl_wide(args->shift, V));
    });
}

extern "C" mbl_status_t mbl_cuda_gate_norm(mbl_ops_t *ops, const mbl_gate_norm_args_t *args) {
    const mbl_tensor_t *x = args->x;
    MBL_WITH_TYPE(x->dtype, T, {
        constexpr size_t V = mbl_lanes<T>::count;
        norm_t<T> a = {mbl_data<T>(args->y),
                       mbl_data<T>(args->z),
                       mbl_data<REAL>(args->mean),
                       mbl_data<REAL>(args->rstd),
                       mbl_data<T>(x),
                       mbl_data<T>(args->gate),
                       mbl_data<T>(args->h),
                       mbl_data<T>(args->scale),
                       mbl_data<T>(args->shift),
                       args->gate->stride[0],
                       args->scale->stride[0],
                       args->shift->stride[0],
                       x->dim[0] * x->dim[1],
                       x->dim[1],
                       x->dim[2],
                       (REAL)args->eps,
                       mbl_data<T>(args->gate2),
                       mbl_data<T>(args->h2),
                       args->gate2 ? args->gate2->stride[0] : 0};
        return run_norm<T, true, false>(ops, "gate_norm", a,
                                        mbl_wide(x, V) && mbl_wide(args->y, V) && mbl_wide(args->z, V) &&
                                            mbl_wide(args->h, V) && mbl_wide(args->gate, V) &&
                                            mbl_wide(args->scale, V) && mbl_wide(args->shift, V) &&
                                            mbl_wide(args->gate2, V) && mbl_wide(args->h2, V));
    });
}

extern "C" mbl_status_t mbl_cuda_layer_norm_affine(mbl_ops_t *ops, const mbl_layer_norm_affine_args_t *args) {
    const mbl_tensor_t *x = args->x;
    MBL_WITH_TYPE(x->dtype, T, {
        constexpr size_t V = mbl_lanes<T>::count;
        norm_t<T> a = {NULL,
                       mbl_data<T>(args->y),
                       NULL,
                       NULL,
                       mbl_data<T>(x),
                       NULL,
                       NULL,
                       mbl_data<T>(args->weight),
                       mbl_data<T>(args->bias),
                       0,
                       0,
                       0,
                       x->dim[0],
                       1,
                       x->dim[1],
                       (REAL)args->eps,
                       NULL,
                       NULL,
                       0};
        return run_norm<T, false, true>(ops, "layer_norm_affine", a,
                                        mbl_wide(x, V) && mbl_wide(args->y, V) && mbl_wide(args->weight, V) &&
                                            mbl_wide(args->bias, V));
    });
}
