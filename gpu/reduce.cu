/* Sums over rows: of columns, of gated residuals' gradients, and of the partial sums that other families
 * leave. Rows are cut into chunks of fixed length and the chunks' sums added in order, so that neither the
 * order nor the error depends on the batch or the launch. */
#include "gpu/elem.h"

enum { CHUNK = 32, WIDE_CHUNK = 128, COLUMNS = 64 };

/* y[n,j] += sum over chunks of partial[n,chunk,j], in f64. */
template <class R>
__global__ void __launch_bounds__(MBL_THREADS)
    add_partials(R *y, size_t y_stride, const R *partial, size_t sample_stride, size_t chunks,
                 size_t chunk_stride, size_t width) {
    const size_t j = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x, n = blockIdx.y;
    if (j >= width)
        return;
    double sum = 0;
    for (size_t c = 0; c < chunks; c++)
        sum += (double)partial[n * sample_stride + c * chunk_stride + j];
    y[n * y_stride + j] = (R)((double)y[n * y_stride + j] + sum);
}

extern "C" mbl_status_t mbl_cuda_add_partials(mbl_ops_t *ops, const mbl_tensor_t *y, const void *partial,
                                              mbl_dtype_t dtype, size_t samples, size_t sample_stride,
                                              size_t chunks, size_t chunk_stride) {
    const size_t width = y->dim[y->ndim - 1], stride = y->ndim > 1 ? y->stride[0] : 0;
    const dim3 grid((unsigned)mbl_ceil_div(width, MBL_THREADS), (unsigned)samples);
    MBL_WITH_REAL(dtype, R, {
        MBL_LAUNCH(add_partials<R>, grid, MBL_THREADS, 0, mbl_cuda_stream(ops), mbl_data<R>(y), stride,
                   (const R *)partial, sample_stride, chunks, chunk_stride, width);
    });
    return MBL_CUDA_LAUNCHED("the sum of partial sums");
}

/* dh = gate dy, and the chunk's sum of dy h. blockIdx: columns, chunk, sample; a thread has V columns. */
template <class T> struct gate_bwd_t {
    T *dh;
    REAL *partial; /* [N,chunks,D] (or NULL) */
    const T *dy, *gate, *h;
    size_t gate_stride, tokens, width, chunks;
};

template <class T, int V> __global__ void __launch_bounds__(COLUMNS) gate_bwd_chunk(gate_bwd_t<T> a) {
    const size_t j = ((size_t)blockIdx.x * COLUMNS + threadIdx.x) * V, sample = blockIdx.z;
    const size_t first = (size_t)blockIdx.y * CHUNK,
                 last = first + CHUNK < a.tokens ? first + CHUNK : a.tokens;
    if (j >= a.width)
        return;
    REAL gate[V], sum[V] = {0};
    mbl_get<T, V>(gate, a.gate + sample * a.gate_stride + j);
    MBL_UNROLL_BY(8) /* all 32 spill on sm_100 */
    for (int r = 0; r < CHUNK; r++) {
        const size_t t = first + (size_t)r, at = (sample * a.tokens + t) * a.width + j;
        if (t >= last)
            break;
        REAL dy[V], h[V];
        mbl_get<T, V>(dy, a.dy + at);
        if (a.partial) { /* before dh is written: dh may stand where h stood */
            mbl_get<T, V>(h, a.h + at);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                sum[l] += dy[l] * h[l];
        }
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            dy[l] = gate[l] * dy[l];
        mbl_put(a.dh + at, dy);
    }
    if (a.partial)
        mbl_put(a.partial + (sample * a.chunks + blockIdx.y) * a.width + j, sum);
}

extern "C" mbl_status_t mbl_cuda_gate_bwd(mbl_ops_t *ops, const mbl_gate_bwd_args_t *args) {
    const mbl_tensor_t *dy = args->dy;
    const size_t samples = dy->dim[0], width = dy->dim[2], chunks = mbl_ceil_div(dy->dim[1], CHUNK);
    const mbl_dtype_t st = mbl_dtype_stat(dy->dtype);
    void *partial = NULL;
    if (args->dgate)
        MBL_TRY(mbl_cuda_workspace(ops, samples * chunks * width * mbl_dtype_size(st), &partial));
    MBL_WITH_TYPE(dy->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        gate_bwd_t<T> a = {mbl_data<T>(args->dh),
                           (REAL *)partial,
                           mbl_data<T>(dy),
                           mbl_data<T>(args->gate),
                           mbl_data<T>(args->h),
                           args->gate->stride[0],
                           dy->dim[1],
                           width,
                           chunks};
        if (mbl_wide(dy, V) && mbl_wide(args->dh, V) && mbl_wide(args->h, V) && mbl_wide(args->gate, V))
            MBL_LAUNCH((gate_bwd_chunk<T, V>),
                       dim3((unsigned)mbl_ceil_div(width / V, COLUMNS), (unsigned)chunks, (unsigned)samples),
                       COLUMNS, 0, mbl_cuda_stream(ops), a);
        else
            MBL_LAUNCH((gate_bwd_chunk<T, 1>),
                       dim3((unsigned)mbl_ceil_div(width, COLUMNS), (unsigned)chunks, (unsigned)samples),
                       COLUMNS, 0, mbl_cuda_stream(ops), a);
    });
    MBL_TRY(MBL_CUDA_LAUNCHED("gate_bwd"));
    return args->dgate
               ? mbl_cuda_add_partials(ops, args->dgate, partial, st, samples, chunks * width, chunks, width)
               : MBL_OK;
}

/* The sums of a chunk's columns, in f64 over sums of CHUNK rows. blockIdx: columns, chunk. */
template <class T, int V>
__global__ void __launch_bounds__(COLUMNS)
    column_chunk(double *partial, const T *x, size_t stride, size_t rows, size_t width) {
    const size_t j = ((size_t)blockIdx.x * COLUMNS + threadIdx.x) * V;
    const size_t first = (size_t)blockIdx.y * WIDE_CHUNK,
                 last = first + WIDE_CHUNK < rows ? first + WIDE_CHUNK : rows;
    if (j >= width)
        return;
    double total[V] = {0};
    for (size_t block = first; block < last; block += CHUNK) {
        REAL sum[V] = {0}, v[V];
        for (size_t r = block; r < last && r < block + CHUNK; r++) {
            mbl_get<T, V>(v, x + r * stride + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                sum[l] += v[l];
        }
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            total[l] += (double)sum[l];
    }
    MBL_UNROLL
    for (int l = 0; l < V; l++)
        partial[blockIdx.y * width + j + (size_t)l] = total[l];
}

template <class R>
__global__ void __launch_bounds__(MBL_THREADS)
    add_columns(R *y, const double *partial, size_t chunks, size_t width) {
    const size_t j = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    if (j >= width)
        return;
    double sum = 0;
    for (size_t c = 0; c < chunks; c++)
        sum += partial[c * width + j];
    y[j] = (R)((double)y[j] + sum);
}

extern "C" mbl_status_t mbl_cuda_column_sum(mbl_ops_t *ops, const mbl_column_sum_args_t *args) {
    const mbl_tensor_t *x = args->x;
    const size_t rows = x->dim[0], width = x->dim[1], chunks = mbl_ceil_div(rows, WIDE_CHUNK);
    void *partial;
    MBL_TRY(mbl_cuda_workspace(ops, chunks * width * sizeof(double), &partial));
    MBL_WITH_TYPE(x->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        if (mbl_wide(x, V))
            MBL_LAUNCH((column_chunk<T, V>),
                       dim3((unsigned)mbl_ceil_div(width / V, COLUMNS), (unsigned)chunks), COLUMNS, 0,
                       mbl_cuda_stream(ops), (double *)partial, mbl_data<T>(x), x->stride[0], rows, width);
        else
            MBL_LAUNCH((column_chunk<T, 1>), dim3((unsigned)mbl_ceil_div(width, COLUMNS), (unsigned)chunks),
                       COLUMNS, 0, mbl_cuda_stream(ops), (double *)partial, mbl_data<T>(x), x->stride[0],
                       rows, width);
        MBL_LAUNCH(add_columns<REAL>, (unsigned)mbl_ceil_div(width, MBL_THREADS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), mbl_data<REAL>(args->y), (const double *)partial, chunks, width);
    });
    return MBL_CUDA_LAUNCHED("column_sum");
}
