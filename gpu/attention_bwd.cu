/* Attention backward on tensor cores (bf16): one pass for the gradients of keys and values, one for those of
 * queries. Each forms the scores again from the saved log-sum-exp, and a block owns what it writes: nothing
 * is added up between blocks, so the result is the same bits every time. A pass keeps a tile of one side,
 * keys or queries, and goes through the other in tiles, two of them in shared memory at a time. With p =
 * exp(scale q k' - lse), delta = dout . out and ds = p (dout v' - delta): dv = p' dout,  dk = scale ds' q, dq
 * = scale ds k. */
#include "gpu/attention_tile.h"

typedef attention_call_t<mbl_bf16_t, float> call_t;

/* Per head size and pass: 16-row groups of a warp, warps, rows of a passing tile, of which a strip's scores
 * are in registers at a time, blocks per multiprocessor that the registers are cut for, and which left
 * factors (k and v, q and dout) are kept in registers. */
template <int width> struct keys_plan_t;
template <> struct keys_plan_t<32> {
    enum { groups = 2, warps = 4, passing = 64, blocks = 2, strip = 16, keep1 = 1, keep2 = 1 };
};
template <> struct keys_plan_t<64> {
    enum { groups = 2, warps = 4, passing = 64, blocks = 2, strip = 16, keep1 = 1, keep2 = 0 };
};
template <> struct keys_plan_t<128> {
    enum { groups = 1, warps = 8, passing = 32, blocks = 1, strip = 16, keep1 = 0, keep2 = 0 };
};
template <int width> struct queries_plan_t;
template <> struct queries_plan_t<32> {
    enum { groups = 2, warps = 4, passing = 64, blocks = 2, strip = 16, keep1 = 1, keep2 = 1 };
};
template <> struct queries_plan_t<64> {
    enum { groups = 2, warps = 4, passing = 64, blocks = 2, strip = 16, keep1 = 1, keep2 = 1 };
};
template <> struct queries_plan_t<128> {
    enum { groups = 1, warps = 8, passing = 32, blocks = 1, strip = 16, keep1 = 1, keep2 = 1 };
};

template <class plan_, int width_> struct pass_t {
    typedef plan_ plan;
    enum {
        width = width_,
        groups = plan::groups,
        threads = plan::warps * MBL_WARP,
        rows = groups * 16, /* of a warp */
        owned = plan::warps * rows,
        passing = plan::passing,
        strip = plan::strip,
        owned_bytes = mbl_tile_bytes(owned, width),
        passing_bytes = mbl_tile_bytes(passing, width),
        stats_bytes = passing * 2 * (int)sizeof(float),
        stage_bytes = 2 * passing_bytes + stats_bytes,
        shared = 2 * owned_bytes + 2 * stage_bytes
    };
    typedef float strip_t[groups][plan::strip / 8][4];
    typedef float result_t[groups][width / 8][4];
    typedef left_t<width, groups, plan::keep1> left1_t;
    typedef left_t<width, groups, plan::keep2> left2_t;
};
template <int width> struct keys_pass_t : pass_t<keys_plan_t<width>, width> {};
template <int width> struct queries_pass_t : pass_t<queries_plan_t<width>, width> {};

/* Starts the copy of `rows` rows from t on of two tensors, to tiles one behind the other. */
template <class pass, int rows, bool whole, class first_t, class second_t>
static __device__ __forceinline__ void fetch(unsigned char *tiles, first_t first, second_t second, int t,
                                             int d) {
    constexpr int width = pass::width, threads = pass::threads;
    d = whole ? width : d;
    mbl_tile_load<width, rows, threads, whole>(tiles, first, t, d);
    mbl_tile_load<width, rows, threads, whole>(tiles + mbl_tile_bytes(rows, width), second, t, d);
}

/* The statistics of queries t.. of a head, which are padded to whole tiles. */
template <class pass>
static __device__ __forceinline__ void fetch_stats(unsigned char *to, const call_t &x, int head, int t) {
    const float *from = x.stats + 2 * ((size_t)head * (size_t)x.padded + (size_t)t);
    if ((int)threadIdx.x < pass::stats_bytes / MBL_CHUNK_BYTES)
        mbl_copy16(to + threadIdx.x * MBL_CHUNK_BYTES, from + threadIdx.x * 4, true);
}

/* p and ds from scores and dout v' of one number. */
static __device__ __forceinline__ void derive(float &score, float &slope, float scale, float lse,
                                              float delta) {
    score = mbl_exp2(fmaf(scale, score, -lse));
    slope = score * (slope - delta);
}

/* Writes a warp's rows of a result times a factor through its own rows of a tile. */
template <class pass, bool whole, class rows_t>
static __device__ __forceinline__ void write(const rows_t &rows, unsigned char *tile, int row, int first,
                                             int d, const typename pass::result_t &y, float factor) {
    float factors[pass::groups][2];
    MBL_UNROLL
    for (int g = 0; g < pass::groups; g++)
        factors[g][0] = factors[g][1] = factor;
    put(tile, row, y, factors);
    mbl_tile_store<pass::width, pass::rows, whole>(rows, tile, row, first, d);
}

/* ---- keys and values ---- */

/* One strip of queries of a passing tile: scores have keys down and queries across. */
template <class pass>
static __device__ __forceinline__ void
keys_strip(typename pass::result_t &dk, typename pass::result_t &dv, const typename pass::left1_t &k,
           const typename pass::left2_t &v, const unsigned char *stage, int from, float scale) {
    const unsigned char *q = stage, *dout = stage + pass::passing_bytes;
    const float *stats = (const float *)(stage + 2 * pass::passing_bytes);
    typename pass::strip_t p, ds;
    multiply(p, k, q, from);
    multiply(ds, v, dout, from);
    MBL_UNROLL
    for (int c = 0; c < pass::strip / 8; c++) {
        /* lse and delta of this thread's two columns */
        const float4 s = *(const float4 *)(stats + 2 * (from + 8 * c + (int)threadIdx.x % 4 * 2));
        MBL_UNROLL
        for (int g = 0; g < pass::groups; g++)
            MBL_UNROLL
        for (int i = 0; i < 4; i++)
            derive(p[g][c][i], ds[g][c][i], scale, i % 2 ? s.z : s.x, i % 2 ? s.w : s.y);
    }
    weigh<pass::width>(dv, p, dout, from);
    weigh<pass::width>(dk, ds, q, from);
}

template <int width, bool whole>
static __global__ void __launch_bounds__(keys_pass_t<width>::threads, keys_plan_t<width>::blocks)
    attention_bwd_keys(call_t x) {
    typedef keys_pass_t<width> pass;
    constexpr int known = whole ? width : 0;
    MBL_SHARED_DYNAMIC(unsigned char, shared);
    const int tiles = (x.tokens + pass::owned - 1) / pass::owned, head = (int)blockIdx.x / tiles;
    const int first = (int)blockIdx.x % tiles * pass::owned;
    const int row = (int)threadIdx.x / MBL_WARP * pass::rows;
    unsigned char *values = shared + pass::owned_bytes, *stage = values + pass::owned_bytes;
    unsigned char *next = stage + pass::stage_bytes;
    const mbl_rows_t<const mbl_bf16_t> q = head_rows<known>(x, x.q, head);
    const mbl_row_pair_t<const mbl_bf16_t> dout = merged_rows(x, x.dout, head);
    typename pass::left1_t k = {shared, row, {}};
    typename pass::left2_t v = {values, row, {}};
    typename pass::result_t dk, dv;
    clear(dk);
    clear(dv);
    fetch<pass, pass::owned, whole>(shared, head_rows<known>(x, x.k, head),
                                    merged_rows(x, x.v, head, x.v_row), first, x.d);
    fetch<pass, pass::passing, whole>(stage, q, dout, 0, x.d);
    fetch_stats<pass>(stage + 2 * pass::passing_bytes, x, head, 0);
    mbl_copy_commit();
    for (int t = 0; t < x.tokens; t += pass::passing) {
        mbl_copy_wait<0>();
        __syncthreads(); /* this tile has arrived, and nobody uses the one before it any more */
        if (t == 0) {
            take_left(k);
            take_left(v);
        }
        if (t + pass::passing < x.tokens) {
            fetch<pass, pass::passing, whole>(next, q, dout, t + pass::passing, x.d);
            fetch_stats<pass>(next + 2 * pass::passing_bytes, x, head, t + pass::passing);
            mbl_copy_commit();
        }
        if (first + row < x.tokens) {
            MBL_UNROLL_BY(1) /* two strips at once spill on sm_80 */
            for (int from = 0; from < pass::passing; from += pass::strip)
                keys_strip<pass>(dk, dv, k, v, stage, from, x.scale);
        }
        unsigned char *used = stage;
        stage = next, next = used;
    }
    write<pass, whole>(head_rows<known>(x, x.dk, head), shared, row, first, x.d, dk, x.factor);
    write<pass, whole>(merged_rows(x, x.dv, head, x.dv_row), values, row, first, x.d, dv, 1);
}

/* ---- queries ---- */

/* One strip of keys of a passing tile; `seen` of them are there. */
template <class pass>
static __device__ __forceinline__ void
queries_strip(typename pass::result_t &dq, const typename pass::left1_t &q,
              const typename pass::left2_t &dout, const float (&stats)[pass::groups][2][2],
              const unsigned char *stage, int from, int seen, float scale) {
    const unsigned char *k = stage, *v = stage + pass::passing_bytes;
    typename pass::strip_t p, ds;
    multiply(p, q, k, from);
    multiply(ds, dout, v, from);
    MBL_UNROLL
    for (int g = 0; g < pass::groups; g++)
        MBL_UNROLL
    for (int c = 0; c < pass::strip / 8; c++)
        MBL_UNROLL
    for (int i = 0; i < 4; i++) {
        derive(p[g][c][i], ds[g][c][i], scale, stats[g][i / 2][0], stats[g][i / 2][1]);
        if (seen < pass::strip && 8 * c + (int)threadIdx.x % 4 * 2 + i % 2 >= seen)
            ds[g][c][i] = 0;
    }
    weigh<pass::width>(dq, ds, k, from);
}

template <int width, bool whole>
static __global__ void __launch_bounds__(queries_pass_t<width>::threads, queries_plan_t<width>::blocks)
    attention_bwd_queries(call_t x) {
    typedef queries_pass_t<width> pass;
    constexpr int known = whole ? width : 0;
    MBL_SHARED_DYNAMIC(unsigned char, shared);
    const int tiles = (x.tokens + pass::owned - 1) / pass::owned, head = (int)blockIdx.x / tiles;
    const int first = (int)blockIdx.x % tiles * pass::owned;
    const int row = (int)threadIdx.x / MBL_WARP * pass::rows;
    unsigned char *stage = shared + 2 * pass::owned_bytes, *next = stage + 2 * pass::passing_bytes;
    const mbl_rows_t<const mbl_bf16_t> k = head_rows<known>(x, x.k, head);
    const mbl_row_pair_t<const mbl_bf16_t> v = merged_rows(x, x.v, head, x.v_row);
    typename pass::left1_t q = {shared, row, {}};
    typename pass::left2_t dout = {shared + pass::owned_bytes, row, {}};
    typename pass::result_t dq;
    float stats[pass::groups][2][2];
    clear(dq);
    fetch<pass, pass::owned, whole>(shared, head_rows<known>(x, x.q, head), merged_rows(x, x.dout, head),
                                    first, x.d);
    fetch<pass, pass::passing, whole>(stage, k, v, 0, x.d);
    mbl_copy_commit();
    MBL_UNROLL
    for (int g = 0; g < pass::groups; g++)
        MBL_UNROLL
    for (int h = 0; h < 2; h++) {
        int t = first + row + 16 * g + 8 * h + (int)threadIdx.x % MBL_WARP / 4;
        const float *from = x.stats + 2 * ((size_t)head * (size_t)x.padded + (size_t)t);
        stats[g][h][0] = from[0];
        stats[g][h][1] = from[1];
    }
    for (int t = 0; t < x.tokens; t += pass::passing) {
        mbl_copy_wait<0>();
        __syncthreads(); /* this tile has arrived, and nobody uses the one before it any more */
        if (t == 0) {
            take_left(q);
            take_left(dout);
        }
        if (t + pass::passing < x.tokens) {
            fetch<pass, pass::passing, whole>(next, k, v, t + pass::passing, x.d);
            mbl_copy_commit();
        }
        if (first + row < x.tokens)
            for (int from = 0; from < pass::passing && t + from < x.tokens; from += pass::strip)
                queries_strip<pass>(dq, q, dout, stats, stage, from, x.tokens - t - from, x.scale);
        unsigned char *used = stage;
        stage = next, next = used;
    }
    write<pass, whole>(head_rows<known>(x, x.dq, head), shared, row, first, x.d, dq, x.factor);
}

template <class pass, void kernel(call_t)> static mbl_status_t launch(mbl_ops_t *ops, const call_t &x) {
    unsigned blocks = (unsigned)x.heads * (unsigned)mbl_ceil_div((size_t)x.tokens, pass::owned);
    MBL_CUDA_TRY(MBL_SHARED_ALLOW(kernel, pass::shared), "attention_bwd");
    MBL_LAUNCH(kernel, dim3(blocks), dim3(pass::threads), pass::shared, mbl_cuda_stream(ops), x);
    return MBL_CUDA_LAUNCHED("attention_bwd");
}

template <int width, bool whole> static mbl_status_t launch_both(mbl_ops_t *ops, const call_t &x) {
    MBL_TRY((launch<keys_pass_t<width>, attention_bwd_keys<width, whole>>(ops, x)));
    return launch<queries_pass_t<width>, attention_bwd_queries<width, whole>>(ops, x);
}
template <int width> static mbl_status_t launch_width(mbl_ops_t *ops, const call_t &x, bool whole) {
    return whole && x.d == width ? launch_both<width, true>(ops, x) : launch_both<width, false>(ops, x);
}

mbl_status_t mbl_cuda_attention_bwd_mma(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args) {
    call_t x;
    backward_call(x, args);
    x.scale = (float)(args->scale * MBL_LOG2_E);
    if (x.heads == 0 || x.tokens == 0)
        return MBL_OK;
    const mbl_tensor_t *all[] = {args->q,   args->k,   args->v1,    args->v2,    args->dq,   args->dk,
                                 args->dv1, args->dv2, args->dout1, args->dout2, args->out1, args->out2};
    bool whole = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        whole = whole && mbl_wide(all[i], MBL_CHUNK);
    MBL_TRY(mbl_cuda_attention_stats(ops, x, (float)MBL_LOG2_E, whole));
    return x.d <= 32   ? launch_width<32>(ops, x, whole)
           : x.d <= 64 ? launch_width<64>(ops, x, whole)
                       : launch_width<128>(ops, x, whole);
}
