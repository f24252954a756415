/* Gradients per sample contracted at once with K coefficients (src/rl/README.md). First every product a_i'
 * b_i is formed once, whatever K is: a block takes a tile of it and up to 512 tokens of one sample; bf16 on
 * tensor cores, where a warp takes 16 tokens of 64 and the warps' sums meet at the end. Then a thread adds a
 * number of every sample, in order and in f64, to the K blocks of the result. Samples without a coefficient
 * that is not 0 are neither formed nor read. */
#include "gpu/tile.h"

enum { SEGMENT = 512, SAMPLE_WARPS = 4, SAMPLE_THREADS = SAMPLE_WARPS * MBL_WARP };
enum { SETS = 8, AT_ONCE = 4, CONTRACT_THREADS = 128 }; /* contraction: most sets, samples at once */
enum { TOKENS = 16 * SAMPLE_WARPS, STAGES = 4 }; /* tensor cores: tokens of a stage, stages in flight */
enum { PLAIN_P = 32, PLAIN_Q = 64, PLAIN_SIDE = 4, PLAIN_TOKENS = 16 };
static const size_t MOST_BYTES = (size_t)64 << 20; /* of products at a time */

/* a [N,T,P], b [N,T,Q], coefficient [K,N], from sample `first` on. product [samples,segments,P,Q] R. */
template <class T, class R> struct sample_call_t {
    const T *a, *b;
    const float *coefficient;
    R *product;
    size_t a_sample, a_token, b_sample, b_token;
    int first, samples, tokens, p, q, k, segments;
};

/* Whether sample `first + i` goes anywhere. */
template <class T, class R>
static __device__ __forceinline__ bool wanted(const sample_call_t<T, R> &x, int i) {
    for (int k = 0; k < x.k; k++)
        if (x.coefficient[(size_t)k * (size_t)x.samples + (size_t)(x.first + i)] != 0)
            return true;
    return false;
}

/* What a block takes: tile blockIdx.x of the product, tokens of segment blockIdx.y, sample blockIdx.z. */
struct place_t {
    int p, q, token, end;
};
template <int tile_p, int tile_q, class T, class R>
static __device__ __forceinline__ place_t place(const sample_call_t<T, R> &x) {
    int tiles = (x.q + tile_q - 1) / tile_q, token = (int)blockIdx.y * SEGMENT;
    return {(int)blockIdx.x / tiles * tile_p, (int)blockIdx.x % tiles * tile_q, token,
            token + SEGMENT < x.tokens ? token + SEGMENT : x.tokens};
}
template <class T, class R> static __device__ __forceinline__ R *product_of(const sample_call_t<T, R> &x) {
    return x.product + ((size_t)blockIdx.z * (size_t)x.segments + blockIdx.y) * (size_t)x.p * (size_t)x.q;
}
template <class T, class R>
static __device__ __forceinline__ mbl_rows_t<const T> a_rows(const sample_call_t<T, R> &x,
                                                             const place_t &at) {
    return {x.a + (size_t)(x.first + (int)blockIdx.z) * x.a_sample + at.p, x.a_token, at.end};
}
template <class T, class R>
static __device__ __forceinline__ mbl_rows_t<const T> b_rows(const sample_call_t<T, R> &x,
                                                             const place_t &at) {
    return {x.b + (size_t)(x.first + (int)blockIdx.z) * x.b_sample + at.q, x.b_token, at.end};
}

/* ---- products on tensor cores ---- */

template <int tile_p, int tile_q> struct stage_t {
    enum {
        a_bytes = mbl_tile_bytes(TOKENS, tile_p),
        bytes = a_bytes + mbl_tile_bytes(TOKENS, tile_q),
        row = tile_q + 8, /* of the warps' sums: four rows of a warp's store are on banks of their own */
        sums = SAMPLE_WARPS * tile_p * row * (int)sizeof(float),
        shared = STAGES * bytes > sums ? STAGES *bytes : sums
    };
};

template <int tile_p, int tile_q, bool wide>
static __global__ void __launch_bounds__(SAMPLE_THREADS) sample_product(sample_call_t<mbl_bf16_t, float> x) {
    typedef stage_t<tile_p, tile_q> stage;
    MBL_SHARED_DYNAMIC(unsigned char, shared);
    if (!wanted(x, (int)blockIdx.z))
        return;
    const place_t at = place<tile_p, tile_q>(x);
    const mbl_rows_t<const mbl_bf16_t> a = a_rows(x, at), b = b_rows(x, at);
    const mbl_lane_t along = mbl_lane_along(), down = mbl_lane_down();
    const int warp = (int)threadIdx.x / MBL_WARP, lane = (int)threadIdx.x % MBL_WARP;
    float sum[tile_p / 16][tile_q / 8][4];
    MBL_UNROLL
    for (int i = 0; i < tile_p / 16; i++)
        MBL_UNROLL
    for (int j = 0; j < tile_q / 8; j++)
        MBL_UNROLL
    for (int e = 0; e < 4; e++)
        sum[i][j][e] = 0;
    const int steps = (at.end - at.token + TOKENS - 1) / TOKENS;
    for (int step = 1 - STAGES; step < steps; step++) {
        if (step >= 0) {
            mbl_copy_wait<STAGES - 2>();
            __syncthreads(); /* this stage has arrived, and nobody uses the one before it any more */
        }
        const int next = step + STAGES - 1;
        if (next < steps) {
            unsigned char *to = shared + next % STAGES * stage::bytes;
            mbl_tile_load<tile_p, TOKENS, SAMPLE_THREADS, wide>(to, a, at.token + next * TOKENS, x.p - at.p);
            mbl_tile_load<tile_q, TOKENS, SAMPLE_THREADS, wide>(to + stage::a_bytes, b,
                                                                at.token + next * TOKENS, x.q - at.q);
        }
        mbl_copy_commit(); /* also when empty: every step is a group */
        if (step < 0)
            continue;
        const unsigned char *from = shared + step % STAGES * stage::bytes;
        uint32_t left[tile_p / 16][4], right[4];
        MBL_UNROLL
        for (int i = 0; i < tile_p / 16; i++)
            mbl_tile_get_transposed<tile_p>(left[i], from, along, 16 * warp, 16 * i);
        MBL_UNROLL
        for (int j = 0; j < tile_q / 8; j += 2) {
            mbl_tile_get_transposed<tile_q>(right, from + stage::a_bytes, down, 16 * warp, 8 * j);
            MBL_UNROLL
            for (int i = 0; i < tile_p / 16; i++) {
                mbl_mma_bf16(sum[i][j], left[i], right);
                mbl_mma_bf16(sum[i][j + 1], left[i], right + 2);
            }
        }
    }
    __syncthreads(); /* the stages become room for the warps' sums */
    float *sums = (float *)shared;
    MBL_UNROLL
    for (int i = 0; i < tile_p / 16; i++)
        MBL_UNROLL
    for (int j = 0; j < tile_q / 8; j++)
        MBL_UNROLL
    for (int h = 0; h < 2; h++)
        *(float2 *)(sums + (warp * tile_p + 16 * i + 8 * h + lane / 4) * stage::row + 8 * j + lane % 4 * 2) =
            make_float2(sum[i][j][2 * h], sum[i][j][2 * h + 1]);
    __syncthreads();
    float *out = product_of(x);
    for (int i = (int)threadIdx.x; i < tile_p * tile_q; i += SAMPLE_THREADS) {
        int p = at.p + i / tile_q, q = at.q + i % tile_q;
        const float *from = sums + i / tile_q * stage::row + i % tile_q;
        float all = from[0];
        MBL_UNROLL
        for (int w = 1; w < SAMPLE_WARPS; w++)
            all += from[w * tile_p * stage::row];
        if (p < x.p && q < x.q)
            out[(size_t)p * (size_t)x.q + (size_t)q] = all;
    }
}

/* ---- products on the ordinary units ---- */

template <class R>
static __global__ void __launch_bounds__(SAMPLE_THREADS) sample_product_plain(sample_call_t<R, R> x) {
    constexpr int across = PLAIN_Q / PLAIN_SIDE, step_p = PLAIN_P / PLAIN_SIDE;
    MBL_SHARED(R, left, PLAIN_TOKENS * PLAIN_P);
    MBL_SHARED(R, right, PLAIN_TOKENS * PLAIN_Q);
    if (!wanted(x, (int)blockIdx.z))
        return;
    const place_t at = place<PLAIN_P, PLAIN_Q>(x);
    const mbl_rows_t<const R> a = a_rows(x, at), b = b_rows(x, at);
    const int down = (int)threadIdx.x / across, along = (int)threadIdx.x % across;
    R sum[PLAIN_SIDE][PLAIN_SIDE];
    MBL_UNROLL
    for (int i = 0; i < PLAIN_SIDE; i++)
        MBL_UNROLL
    for (int j = 0; j < PLAIN_SIDE; j++)
        sum[i][j] = 0;
    for (int t = at.token; t < at.end; t += PLAIN_TOKENS) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < PLAIN_TOKENS * PLAIN_P; i += SAMPLE_THREADS) {
            int row = t + i / PLAIN_P, c = i % PLAIN_P;
            left[i] = row < at.end && at.p + c < x.p ? mbl_row(a, row)[c] : 0;
        }
        for (int i = (int)threadIdx.x; i < PLAIN_TOKENS * PLAIN_Q; i += SAMPLE_THREADS) {
            int row = t + i / PLAIN_Q, c = i % PLAIN_Q;
            right[i] = row < at.end && at.q + c < x.q ? mbl_row(b, row)[c] : 0;
        }
        __syncthreads();
        MBL_UNROLL
        for (int row = 0; row < PLAIN_TOKENS; row++)
            MBL_UNROLL
        for (int i = 0; i < PLAIN_SIDE; i++)
            MBL_UNROLL
        for (int j = 0; j < PLAIN_SIDE; j++)
            sum[i][j] = fma(left[row * PLAIN_P + down + step_p * i],
                            right[row * PLAIN_Q + along + across * j], sum[i][j]);
    }
    R *out = product_of(x);
    MBL_UNROLL
    for (int i = 0; i < PLAIN_SIDE; i++)
        MBL_UNROLL
    for (int j = 0; j < PLAIN_SIDE; j++) {
        int p = at.p + down + step_p * i, q = at.q + along + across * j;
        if (p < x.p && q < x.q)
            out[(size_t)p * (size_t)x.q + (size_t)q] = sum[i][j];
    }
}

/* ---- contraction ---- */

/* What a launch of sample_contract adds: acc [K,count] (blocks acc_stride apart) += factor coefficient
 * product. */
template <class R> struct contract_call_t {
    double *acc;
    size_t acc_stride, count;
    const R *product;
    const float *coefficient;
    double factor;
    int first, samples, of_samples, k, segments;
};

/* V numbers that one instruction loads. */
template <class R, int V> struct alignas(V * sizeof(R)) numbers_t { R at[V]; };

/* The coefficients of sample i for `sets` sets from k0 on; whether one of them is not 0. */
template <int sets, class R>
static __device__ __forceinline__ bool coefficients_of(const contract_call_t<R> &x, int k0, int i,
                                                       float (&c)[sets]) {
    bool any = false;
    MBL_UNROLL
    for (int s = 0; s < sets; s++) {
        const size_t row = (size_t)(k0 + s) * (size_t)x.of_samples;
        c[s] = k0 + s < x.k && i < x.samples ? x.coefficient[row + (size_t)(x.first + i)] : 0;
        any = any || c[s] != 0;
    }
    return any;
}

/* V numbers a thread, the `sets` sets from sets blockIdx.y on. Segments of a sample are added in R, samples
 * in order; the numbers of AT_ONCE of them are asked for before the first is added. */
template <class R, int V, int sets>
static __global__ void __launch_bounds__(CONTRACT_THREADS, 4) sample_contract(contract_call_t<R> x) {
    const size_t at = ((size_t)blockIdx.x * CONTRACT_THREADS + threadIdx.x) * V;
    const int k0 = (int)blockIdx.y * sets;
    double sum[sets][V];
    if (at >= x.count)
        return;
    MBL_UNROLL
    for (int s = 0; s < sets; s++)
        MBL_UNROLL
    for (int v = 0; v < V; v++)
        sum[s][v] = 0;
    for (int i0 = 0; i0 < x.samples; i0 += AT_ONCE) {
        float c[AT_ONCE][sets];
        R value[AT_ONCE][V];
        bool formed[AT_ONCE]; /* of the others 0 is added */
        MBL_UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            formed[i] = coefficients_of<sets>(x, k0, i0 + i, c[i]);
            MBL_UNROLL
            for (int v = 0; v < V; v++)
                value[i][v] = 0;
        }
        for (int j = 0; j < x.segments; j++)
            MBL_UNROLL
        for (int i = 0; i < AT_ONCE; i++)
            if (formed[i]) {
                const size_t piece = (size_t)(i0 + i) * (size_t)x.segments + (size_t)j;
                const numbers_t<R, V> from =
                    *reinterpret_cast<const numbers_t<R, V> *>(x.product + piece * x.count + at);
                MBL_UNROLL
                for (int v = 0; v < V; v++)
                    value[i][v] += from.at[v];
            }
        MBL_UNROLL
        for (int i = 0; i < AT_ONCE; i++)
            MBL_UNROLL
        for (int s = 0; s < sets; s++)
            MBL_UNROLL
        for (int v = 0; v < V; v++)
            sum[s][v] = fma(x.factor * (double)c[i][s], (double)value[i][v], sum[s][v]);
    }
    MBL_UNROLL
    for (int s = 0; s < sets; s++)
        if (k0 + s < x.k) {
            double *to = x.acc + (size_t)(k0 + s) * x.acc_stride + at, old[V];
            mbl_get<double, V>(old, to);
            MBL_UNROLL
            for (int v = 0; v < V; v++)
                old[v] += sum[s][v];
            mbl_put<double, double, V>(to, old);
        }
}

/* ---- launches ---- */

template <int tile_p, int tile_q, bool wide>
static mbl_status_t products(const sample_call_t<mbl_bf16_t, float> &x, int samples, cudaStream_t stream) {
    typedef stage_t<tile_p, tile_q> stage;
    dim3 grid((unsigned)(mbl_ceil_div((size_t)x.p, tile_p) * mbl_ceil_div((size_t)x.q, tile_q)),
              (unsigned)x.segments, (unsigned)samples);
    MBL_CUDA_TRY(MBL_SHARED_ALLOW((sample_product<tile_p, tile_q, wide>), stage::shared), "sample_grad");
    MBL_LAUNCH((sample_product<tile_p, tile_q, wide>), grid, dim3(SAMPLE_THREADS), stage::shared, stream, x);
    return MBL_OK;
}
/* Long rows of the tile along the longer side of the product. */
static mbl_status_t products(const sample_call_t<mbl_bf16_t, float> &x, int samples, cudaStream_t stream,
                             bool wide) {
    if (x.p <= x.q)
        return wide ? products<32, 64, true>(x, samples, stream)
                    : products<32, 64, false>(x, samples, stream);
    return wide ? products<64, 32, true>(x, samples, stream) : products<64, 32, false>(x, samples, stream);
}
template <class R>
static mbl_status_t products(const sample_call_t<R, R> &x, int samples, cudaStream_t stream, bool) {
    dim3 grid((unsigned)(mbl_ceil_div((size_t)x.p, PLAIN_P) * mbl_ceil_div((size_t)x.q, PLAIN_Q)),
              (unsigned)x.segments, (unsigned)samples);
    MBL_LAUNCH(sample_product_plain<R>, grid, dim3(SAMPLE_THREADS), 0, stream, x);
    return MBL_OK;
}

template <class R, int sets>
static void contract(const contract_call_t<R> &x, cudaStream_t stream, bool pairs) {
    const dim3 grid((unsigned)mbl_ceil_div(x.count, CONTRACT_THREADS * (pairs ? 2u : 1u)),
                    (unsigned)mbl_ceil_div((size_t)x.k, sets));
    if (pairs)
        MBL_LAUNCH((sample_contract<R, 2, sets>), grid, dim3(CONTRACT_THREADS), 0, stream, x);
    else
        MBL_LAUNCH((sample_contract<R, 1, sets>), grid, dim3(CONTRACT_THREADS), 0, stream, x);
}

template <class T> static mbl_status_t run(mbl_ops_t *ops, const mbl_sample_grad_args_t *args) {
    const mbl_tensor_t *a = args->a, *b = args->b;
    const size_t n = a->dim[0], p = a->dim[2], q = b->dim[2], k = args->coefficient->dim[0], count = p * q;
    const size_t segments = mbl_ceil_div(a->dim[1], SEGMENT), bytes = segments * count * sizeof(REAL);
    const bool wide = mbl_wide(a, MBL_CHUNK) && mbl_wide(b, MBL_CHUNK);
    const bool pairs =
        count % 2 == 0 && args->acc->stride[0] % 2 == 0 && (uintptr_t)args->acc->data % 16 == 0;
    cudaStream_t stream = mbl_cuda_stream(ops);
    size_t most = MOST_BYTES / bytes > 1 ? MOST_BYTES / bytes : 1;
    most = most < n ? most : n;
    void *work;
    MBL_TRY(mbl_cuda_workspace(ops, most * bytes, &work));
    sample_call_t<T, REAL> x = {};
    x.a = (const T *)a->data, x.a_sample = a->stride[0], x.a_token = a->stride[1];
    x.b = (const T *)b->data, x.b_sample = b->stride[0], x.b_token = b->stride[1];
    x.coefficient = (const float *)args->coefficient->data;
    x.product = (REAL *)work;
    x.samples = (int)n, x.tokens = (int)a->dim[1], x.p = (int)p, x.q = (int)q, x.k = (int)k;
    x.segments = (int)segments;
    for (size_t first = 0; first < n; first += most) {
        int samples = (int)(n - first < most ? n - first : most);
        x.first = (int)first;
        MBL_TRY(products(x, samples, stream, wide));
        const contract_call_t<REAL> y = {(double *)args->acc->data,
                                         args->acc->stride[0],
                                         count,
                                         x.product,
                                         x.coefficient,
                                         args->factor,
                                         x.first,
                                         samples,
                                         x.samples,
                                         x.k,
                                         x.segments};
        if (k == 1)
            contract<REAL, 1>(y, stream, pairs);
        else if (k <= 4)
            contract<REAL, 4>(y, stream, pairs);
        else
            contract<REAL, SETS>(y, stream, pairs);
    }
    return MBL_CUDA_LAUNCHED("sample_grad");
}

mbl_status_t mbl_cuda_sample_grad(mbl_ops_t *ops, const mbl_sample_grad_args_t *args) {
    MBL_WITH_TYPE(args->a->dtype, T, return run<T>(ops, args));
}
