/* Layer norm backward. With g = dy (1 + scale) and c = (x - mean) rstd: dx += rstd (g - mean(g) - c mean(g
 * c)), dscale += sum over tokens of dy c, dshift += sum of dy. A sample's tokens are cut into chunks of fixed
 * length; a block goes through one with its threads side by side along the row, so that one pass gives both
 * the rows' sums and the columns'. Rows that do not fit that take two passes. */
#include "gpu/elem.h"

enum { CHUNK = 32, ROWS = 2, MAX_WARPS = 12, COLUMNS = 128 };

template <class T> struct norm_bwd_t {
    T *dx;
    REAL *partial; /* [N,chunks,2,D] (or NULL) */
    const T *dy, *x, *scale;
    const REAL *mean, *rstd;
    size_t scale_stride, rows, tokens, width, chunks;
};

/* The sums of ROWS pairs over the block, in a fixed order, to every thread. The caller alternates between two
 * halves of shared memory, so that one barrier is enough. */
template <class R> __device__ inline void block_sums(R (&sum)[ROWS], R (&dot)[ROWS], R *shared) {
    const unsigned warp = threadIdx.x / MBL_WARP, warps = blockDim.x / MBL_WARP;
    MBL_UNROLL
    for (int r = 0; r < ROWS; r++) {
        sum[r] = mbl_warp_sum(sum[r]);
        dot[r] = mbl_warp_sum(dot[r]);
        if (threadIdx.x % MBL_WARP == 0) {
            shared[(warp * ROWS + (unsigned)r) * 2] = sum[r];
            shared[(warp * ROWS + (unsigned)r) * 2 + 1] = dot[r];
        }
    }
    __syncthreads();
    MBL_UNROLL
    for (int r = 0; r < ROWS; r++) {
        sum[r] = dot[r] = 0;
        for (unsigned w = 0; w < warps; w++) {
            sum[r] += shared[(w * ROWS + (unsigned)r) * 2];
            dot[r] += shared[(w * ROWS + (unsigned)r) * 2 + 1];
        }
    }
}

/* What a thread has of a row, as it came from memory: it waits for the row's sums in half the registers. */
template <class T> struct held_t {
    uint4 x, dy, dx;
    REAL mean, rstd;
};

static __device__ __forceinline__ uint4 bits_at(const void *address) {
    return *static_cast<const uint4 *>(address);
}

/* Number l of 16 bytes. */
template <class T> static __device__ __forceinline__ REAL number(const uint4 &bits, int l) {
    mbl_chunk<T> chunk;
    memcpy(&chunk, &bits, sizeof chunk);
    return mbl_load(chunk.at[l]);
}

/* blockIdx.x: chunk, blockIdx.y: sample; thread i has numbers V i .. V i + V - 1 of the row. All that a turn
 * reads is asked for before its barrier, and two blocks share a multiprocessor: one computes while the other
 * waits for memory. */
template <class T, int V>
__global__ void __launch_bounds__(MAX_WARPS *MBL_WARP, sizeof(T) < 8 ? 2 : 1)
    norm_bwd_chunk(norm_bwd_t<T> a) {
    static_assert(V == mbl_lanes<T>::count, "a thread has 16 bytes of a row");
    MBL_SHARED(REAL, shared, 2 * MAX_WARPS * ROWS * 2);
    const size_t sample = blockIdx.y, j = (size_t)threadIdx.x * V, first = (size_t)blockIdx.x * CHUNK;
    const size_t last = first + CHUNK < a.tokens ? first + CHUNK : a.tokens;
    const bool active = j < a.width;
    uint4 scale = {0, 0, 0, 0};
    REAL dscale[V] = {0}, dshift[V] = {0};
    if (active)
        scale = bits_at(a.scale + sample * a.scale_stride + j);
    int half = 0;
    for (size_t t = first; t < last; t += ROWS, half ^= 1) {
        held_t<T> held[ROWS];
        REAL sum[ROWS], dot[ROWS];
        MBL_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const size_t row = sample * a.tokens + t + (size_t)r;
            if (!active || t + (size_t)r >= last)
                continue;
            held[r].x = bits_at(a.x + row * a.width + j);
            held[r].dy = bits_at(a.dy + row * a.width + j);
            held[r].dx = bits_at(a.dx + row * a.width + j);
            held[r].mean = a.mean[row];
            held[r].rstd = a.rstd[row];
        }
        MBL_UNROLL
        for (int r = 0; r < ROWS; r++) {
            sum[r] = dot[r] = 0;
            if (!active || t + (size_t)r >= last)
                continue;
            MBL_UNROLL
            for (int l = 0; l < V; l++) {
                const REAL c = (number<T>(held[r].x, l) - held[r].mean) * held[r].rstd,
                           dy = number<T>(held[r].dy, l), g = dy * (1 + number<T>(scale, l));
                sum[r] += g;
                dot[r] += g * c;
                dscale[l] += dy * c;
                dshift[l] += dy;
            }
        }
        block_sums(sum, dot, shared + half * MAX_WARPS * ROWS * 2);
        MBL_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const size_t row = sample * a.tokens + t + (size_t)r;
            if (!active || t + (size_t)r >= last)
                continue;
            const REAL g_mean = sum[r] / (REAL)a.width, c_mean = dot[r] / (REAL)a.width;
            REAL dx[V];
            MBL_UNROLL
            for (int l = 0; l < V; l++) {
                const REAL c = (number<T>(held[r].x, l) - held[r].mean) * held[r].rstd,
                           dy = number<T>(held[r].dy, l);
                dx[l] = number<T>(held[r].dx, l) +
                        held[r].rstd * (dy * (1 + number<T>(scale, l)) - g_mean - c * c_mean);
            }
            mbl_put(a.dx + row * a.width + j, dx);
        }
    }
    if (a.partial && active) {
        REAL *out = a.partial + (sample * a.chunks + blockIdx.x) * 2 * a.width + j;
        mbl_put(out, dscale);
        mbl_put(out + a.width, dshift);
    }
}

/* Any width: dx by a warp for each row. */
template <class T> __global__ void __launch_bounds__(MBL_THREADS) norm_bwd_rows(norm_bwd_t<T> a) {
    size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP;
    if (row >= a.rows)
        return;
    const T *x = a.x + row * a.width, *dy = a.dy + row * a.width,
            *scale = a.scale + row / a.tokens * a.scale_stride;
    T *dx = a.dx + row * a.width;
    const REAL mean = a.mean[row], rstd = a.rstd[row];
    REAL sum = 0, dot = 0;
    for (size_t j = threadIdx.x % MBL_WARP; j < a.width; j += MBL_WARP) {
        REAL g = mbl_load(dy[j]) * (1 + mbl_load(scale[j]));
        sum += g;
        dot += g * ((mbl_load(x[j]) - mean) * rstd);
    }
    sum = mbl_warp_sum(sum) / (REAL)a.width;
    dot = mbl_warp_sum(dot) / (REAL)a.width;
    for (size_t j = threadIdx.x % MBL_WARP; j < a.width; j += MBL_WARP) {
        REAL g = mbl_load(dy[j]) * (1 + mbl_load(scale[j])), c = (mbl_load(x[j]) - mean) * rstd;
        mbl_store(dx + j, mbl_load(dx[j]) + rstd * (g - sum - c * dot));
    }
}

/* Any width: the columns of a chunk, a thread for each. blockIdx: columns, chunk, sample. */
template <class T> __global__ void __launch_bounds__(COLUMNS) norm_bwd_columns(norm_bwd_t<T> a) {
    const size_t j = (size_t)blockIdx.x * COLUMNS + threadIdx.x, sample = blockIdx.z;
    const size_t first = (size_t)blockIdx.y * CHUNK,
                 last = first + CHUNK < a.tokens ? first + CHUNK : a.tokens;
    if (j >= a.width)
        return;
    REAL dscale = 0, dshift = 0;
    for (size_t t = first; t < last; t++) {
        const size_t row = sample * a.tokens + t;
        const REAL dy = mbl_load(a.dy[row * a.width + j]);
        dscale += dy * ((mbl_load(a.x[row * a.width + j]) - a.mean[row]) * a.rstd[row]);
        dshift += dy;
    }
    REAL *out = a.partial + (sample * a.chunks + blockIdx.y) * 2 * a.width + j;
    out[0] = dscale;
    out[a.width] = dshift;
}

template <class T>
static mbl_status_t run_norm_bwd(mbl_ops_t *ops, const norm_bwd_t<T> &a, size_t samples, bool wide) {
    constexpr int V = mbl_lanes<T>::count;
    size_t threads = mbl_ceil_div(mbl_ceil_div(a.width, V), MBL_WARP) * MBL_WARP;
    if (wide && threads <= MAX_WARPS * MBL_WARP) {
        MBL_LAUNCH((norm_bwd_chunk<T, V>), dim3((unsigned)a.chunks, (unsigned)samples), (unsigned)threads, 0,
                   mbl_cuda_stream(ops), a);
    } else {
        MBL_LAUNCH((norm_bwd_rows<T>), (unsigned)mbl_ceil_div(a.rows, MBL_WARPS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), a);
        if (a.partial)
            MBL_LAUNCH((norm_bwd_columns<T>),
                       dim3((unsigned)mbl_ceil_div(a.width, COLUMNS), (unsigned)a.chunks, (unsigned)samples),
                       COLUMNS, 0, mbl_cuda_stream(ops), a);
    }
    return MBL_CUDA_LAUNCHED("layer_norm_bwd");
}

extern "C" mbl_status_t mbl_cuda_layer_norm_bwd(mbl_ops_t *ops, const mbl_layer_norm_bwd_args_t *args) {
    const mbl_tensor_t *x = args->x;
    const size_t samples = x->dim[0], width = x->dim[2], chunks = mbl_ceil_div(x->dim[1], CHUNK);
    const mbl_dtype_t st = mbl_dtype_stat(x->dtype);
    void *partial = NULL;
    if (args->dscale)
        MBL_TRY(mbl_cuda_workspace(ops, samples * chunks * 2 * width * mbl_dtype_size(st), &partial));
    MBL_WITH_TYPE(x->dtype, T, {
        constexpr size_t V = mbl_lanes<T>::count;
        norm_bwd_t<T> a = {mbl_data<T>(args->dx),
                           (REAL *)partial,
                           mbl_data<T>(args->dy),
                           mbl_data<T>(x),
                           mbl_data<T>(args->scale),
                           mbl_data<REAL>(args->mean),
                           mbl_data<REAL>(args->rstd),
                           args->scale->stride[0],
                           samples * x->dim[1],
                           x->dim[1],
                           width,
                           chunks};
        MBL_TRY(run_norm_bwd(ops, a, samples,
                             mbl_wide(x, V) && mbl_wide(args->dx, V) && mbl_wide(args->dy, V) &&
                                 mbl_wide(args->scale, V)));
    });
    if (!args->dscale)
        return MBL_OK;
    const char *second = (const char *)partial + width * mbl_dtype_size(st);
    MBL_TRY(mbl_cuda_add_partials(ops, args->dscale, partial, st, samples, chunks * 2 * width, chunks,
                                  2 * width));
    return mbl_cuda_add_partials(ops, args->dshift, second, st, samples, chunks * 2 * width, chunks,
                                 2 * width);
}
