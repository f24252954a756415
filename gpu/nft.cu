/* The DiffusionNFT loss and its seeds (src/rl/README.md), per-sample linear combinations, and
 * noise. A sample's numbers are cut into pieces of fixed length; the pieces' sums are added in order, in f64.
 */
#include "gpu/elem.h"

enum { PIECE = 4096, SUMS = 5 }; /* |p|, |m|, p^2, m^2, (v - v_ref)^2 */

template <class R> struct nft_t {
    R *u, *h, *dkl, *loss_plus, *loss_minus, *kl; /* h, dkl, kl or NULL */
    const R *v, *v_old, *v_ref, *xt, *x0, *t;
    double *partial, *scale; /* [N,pieces,SUMS]; [N,2]: t beta / (n w+), t beta / (n w-) */
    double beta;
    size_t width, pieces;
};

/* The sum over the block, in a fixed order, to thread 0. */
__device__ inline double block_sum(double x, double *shared) {
    x = mbl_warp_sum(x);
    if (threadIdx.x % MBL_WARP == 0)
        shared[threadIdx.x / MBL_WARP] = x;
    __syncthreads();
    x = 0;
    for (unsigned w = 0; threadIdx.x == 0 && w < MBL_WARPS; w++)
        x += shared[w];
    __syncthreads();
    return x;
}

/* blockIdx: piece, sample. With p, m = x0hat(+/-) - x0 = e -/+ t beta d. */
template <class R, int V> __global__ void __launch_bounds__(MBL_THREADS) nft_sums(nft_t<R> a) {
    MBL_SHARED(double, shared, MBL_WARPS);
    const size_t first = (size_t)blockIdx.x * PIECE, last = first + PIECE < a.width ? first + PIECE : a.width;
    const size_t row = blockIdx.y * a.width;
    const R t = a.t[blockIdx.y], tb = (R)((double)t * a.beta), by = (R)(2.0 / (double)a.width);
    double sum[SUMS] = {0};
    for (size_t j = first + threadIdx.x * V; j < last; j += MBL_THREADS * V) {
        R v[V], old[V], xt[V], x0[V];
        mbl_get<R, V>(v, a.v + row + j);
        mbl_get<R, V>(old, a.v_old + row + j);
        mbl_get<R, V>(xt, a.xt + row + j);
        mbl_get<R, V>(x0, a.x0 + row + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++) {
            const R e = xt[l] - t * old[l] - x0[l], d = tb * (v[l] - old[l]);
            const double p = (double)(e - d), m = (double)(e + d);
            sum[0] += fabs(p);
            sum[1] += fabs(m);
            sum[2] += p * p;
            sum[3] += m * m;
        }
        if (a.dkl) {
            mbl_get<R, V>(xt, a.v_ref + row + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++) {
                const R d = v[l] - xt[l];
                sum[4] += (double)d * (double)d;
                xt[l] = by * d;
            }
            mbl_put(a.dkl + row + j, xt);
        }
    }
    for (int s = 0; s < SUMS; s++) {
        const double whole = block_sum(sum[s], shared);
        if (threadIdx.x == 0)
            a.partial[(blockIdx.y * a.pieces + blockIdx.x) * SUMS + (size_t)s] = whole;
    }
}

/* A thread for each sample: the losses, and what the seeds are multiplied by. */
template <class R> __global__ void __launch_bounds__(MBL_THREADS) nft_losses(nft_t<R> a, size_t samples) {
    const size_t i = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    if (i >= samples)
        return;
    double sum[SUMS] = {0};
    for (size_t piece = 0; piece < a.pieces; piece++)
        for (int s = 0; s < SUMS; s++)
            sum[s] += a.partial[(i * a.pieces + piece) * SUMS + (size_t)s];
    const double n = (double)a.width, w_p = fmax(sum[0] / n, 1e-5), w_m = fmax(sum[1] / n, 1e-5);
    a.loss_plus[i] = (R)(sum[2] / n / w_p);
    a.loss_minus[i] = (R)(sum[3] / n / w_m);
    if (a.kl)
        a.kl[i] = (R)(sum[4] / n);
    const double scale = (double)a.t[i] * a.beta / n;
    a.scale[2 * i] = scale / w_p;
    a.scale[2 * i + 1] = scale / w_m;
}

/* u = -(2 t beta / n) (p / w+ + m / w-), h = (t beta / n) (m / w- - p / w+); d = 0 gives h = 0 exactly. */
template <class R, int V> __global__ void __launch_bounds__(MBL_THREADS) nft_seeds(nft_t<R> a) {
    const size_t first = (size_t)blockIdx.x * PIECE, last = first + PIECE < a.width ? first + PIECE : a.width;
    const size_t row = blockIdx.y * a.width;
    const R t = a.t[blockIdx.y], tb = (R)((double)t * a.beta);
    const R by_p = (R)a.scale[2 * blockIdx.y], by_m = (R)a.scale[2 * blockIdx.y + 1];
    for (size_t j = first + threadIdx.x * V; j < last; j += MBL_THREADS * V) {
        R v[V], old[V], xt[V], x0[V];
        mbl_get<R, V>(v, a.v + row + j);
        mbl_get<R, V>(old, a.v_old + row + j);
        mbl_get<R, V>(xt, a.xt + row + j);
        mbl_get<R, V>(x0, a.x0 + row + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++) {
            const R e = xt[l] - t * old[l] - x0[l], d = tb * (v[l] - old[l]);
            xt[l] = -2 * ((e - d) * by_p + (e + d) * by_m);
            x0[l] = (e + d) * by_m - (e - d) * by_p;
        }
        mbl_put(a.u + row + j, xt);
        if (a.h)
            mbl_put(a.h + row + j, x0);
    }
}

extern "C" mbl_status_t mbl_cuda_nft(mbl_ops_t *ops, const mbl_nft_args_t *args) {
    const size_t samples = args->v->dim[0], width = args->v->dim[1], pieces = mbl_ceil_div(width, PIECE);
    void *work;
    MBL_TRY(mbl_cuda_workspace(ops, samples * (pieces * SUMS + 2) * sizeof(double), &work));
    const dim3 grid((unsigned)pieces, (unsigned)samples);
    MBL_WITH_REAL(args->v->dtype, R, {
        constexpr int V = mbl_lanes<R>::count;
        nft_t<R> a = {mbl_data<R>(args->u),
                      mbl_data<R>(args->h),
                      mbl_data<R>(args->dkl),
                      mbl_data<R>(args->loss_plus),
                      mbl_data<R>(args->loss_minus),
                      mbl_data<R>(args->kl),
                      mbl_data<R>(args->v),
                      mbl_data<R>(args->v_old),
                      mbl_data<R>(args->v_ref),
                      mbl_data<R>(args->xt),
                      mbl_data<R>(args->x0),
                      mbl_data<R>(args->t),
                      (double *)work,
                      (double *)work + samples * pieces * SUMS,
                      args->beta,
                      width,
                      pieces};
        const bool wide = mbl_wide(args->v, V) && mbl_wide(args->v_old, V) && mbl_wide(args->v_ref, V) &&
                          mbl_wide(args->xt, V) && mbl_wide(args->x0, V) && mbl_wide(args->u, V) &&
                          mbl_wide(args->h, V) && mbl_wide(args->dkl, V);
        if (wide)
            MBL_LAUNCH((nft_sums<R, V>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
        else
            MBL_LAUNCH((nft_sums<R, 1>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
        MBL_LAUNCH(nft_losses<R>, (unsigned)mbl_ceil_div(samples, MBL_THREADS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), a, samples);
        if (wide)
            MBL_LAUNCH((nft_seeds<R, V>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
        else
            MBL_LAUNCH((nft_seeds<R, 1>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
    });
    return MBL_CUDA_LAUNCHED("nft");
}

/* Terms are added in the order given; y may be any of them. blockIdx: piece, sample. */
template <class R> struct terms_t {
    R *y;
    const R *x[MBL_ROWS_TERMS], *coefficient;
    size_t samples, width;
    int terms;
};

template <class R, int V> __global__ void __launch_bounds__(MBL_THREADS) combine_rows(terms_t<R> a) {
    const size_t first = (size_t)blockIdx.x * PIECE, last = first + PIECE < a.width ? first + PIECE : a.width;
    const size_t row = blockIdx.y * a.width;
    for (size_t j = first + threadIdx.x * V; j < last; j += MBL_THREADS * V) {
        R sum[V], x[V];
        /* unrolled: an index into the arguments would put them into local memory (see pick in qk_norm.cu) */
        MBL_UNROLL
        for (int k = 0; k < MBL_ROWS_TERMS; k++) {
            if (k >= a.terms)
                break;
            const R c = a.coefficient[(size_t)k * a.samples + blockIdx.y];
            mbl_get<R, V>(x, a.x[k] + row + j);
            MBL_UNROLL
            for (int l = 0; l < V; l++)
                sum[l] = k ? sum[l] + c * x[l] : c * x[l];
        }
        mbl_put(a.y + row + j, sum);
    }
}

extern "C" mbl_status_t mbl_cuda_rows_combine(mbl_ops_t *ops, const mbl_rows_combine_args_t *args) {
    const mbl_tensor_t *y = args->y;
    const dim3 grid((unsigned)mbl_ceil_div(y->dim[1], PIECE), (unsigned)y->dim[0]);
    MBL_WITH_REAL(y->dtype, R, {
        constexpr int V = mbl_lanes<R>::count;
        terms_t<R> a = {mbl_data<R>(y),
                        {NULL, NULL, NULL, NULL},
                        mbl_data<R>(args->coefficient),
                        y->dim[0],
                        y->dim[1],
                        0};
        bool wide = mbl_wide(y, V);
        for (; a.terms < MBL_ROWS_TERMS && args->x[a.terms]; a.terms++) {
            a.x[a.terms] = mbl_data<R>(args->x[a.terms]);
            wide = wide && mbl_wide(args->x[a.terms], V);
        }
        if (wide)
            MBL_LAUNCH((combine_rows<R, V>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
        else
            MBL_LAUNCH((combine_rows<R, 1>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), a);
    });
    return MBL_CUDA_LAUNCHED("rows_combine");
}

/* Philox4x32-10, the words of src/base/rng.c. */
__device__ inline void philox(uint32_t (&c)[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)p1;
        c[2] = n2;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

__device__ inline float uniform(uint32_t word) {
    return (float)(word >> 8) * 5.9604644775390625e-8f; /* 2^-24 */
}

/* A thread for each block of four words: two pairs by Box and Muller. blockIdx.y: row. */
template <class R>
__global__ void __launch_bounds__(MBL_THREADS)
    normals(R *y, const int64_t *sample, uint32_t k0, uint32_t k1, uint32_t step, size_t width) {
    const size_t block = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    if (block * 4 >= width)
        return;
    const uint64_t id = (uint64_t)sample[blockIdx.y];
    uint32_t word[4] = {(uint32_t)block, (uint32_t)id, (uint32_t)(id >> 32), step};
    philox(word, k0, k1);
    R *out = y + blockIdx.y * width + block * 4;
    MBL_UNROLL
    for (int pair = 0; pair < 2; pair++) {
        const float radius = sqrtf(-2.0f * logf(1.0f - uniform(word[2 * pair])));
        const float angle = 6.28318530717958648f * uniform(word[2 * pair + 1]);
        if (block * 4 + (size_t)(2 * pair) < width)
            out[2 * pair] = (R)(radius * cosf(angle));
        if (block * 4 + (size_t)(2 * pair + 1) < width)
            out[2 * pair + 1] = (R)(radius * sinf(angle));
    }
}

extern "C" mbl_status_t mbl_cuda_normal(mbl_ops_t *ops, const mbl_normal_args_t *args) {
    const size_t width = args->y->dim[1];
    const uint32_t k0 = (uint32_t)args->seed, k1 = (uint32_t)(args->seed >> 32) ^ args->purpose * 0x9E3779B9u;
    const dim3 grid((unsigned)mbl_ceil_div(mbl_ceil_div(width, 4), MBL_THREADS), (unsigned)args->y->dim[0]);
    MBL_WITH_REAL(args->y->dtype, R, {
        MBL_LAUNCH(normals<R>, grid, MBL_THREADS, 0, mbl_cuda_stream(ops), mbl_data<R>(args->y),
                   mbl_data<int64_t>(args->sample), k0, k1, args->step, width);
    });
    return MBL_CUDA_LAUNCHED("normal");
}
