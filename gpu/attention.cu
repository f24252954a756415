/* Attention forward on tensor cores (bf16), and the choice between it and the plain kernels. A block takes a
 * tile of queries of one head and goes through the keys in tiles, two of them in shared memory at a time: one
 * being used, one on its way. Scores live in registers only; maximum and sum are carried from tile to tile
 * (online softmax). A warp owns whole rows of queries, so warps meet only at the tile's barrier. */
#include "gpu/attention_tile.h"

typedef attention_call_t<mbl_bf16_t, float> call_t;

/* Per head size: 16-row groups of queries per warp, warps, keys of a tile, blocks per multiprocessor that
 * the registers are cut for, and whether queries are kept in registers. whole: rows are `width` wide and
 * aligned. */
template <int width, bool whole> struct plan_t;
template <bool whole> struct plan_t<32, whole> {
    enum { groups = 2, warps = 4, keys = 64, blocks = 2, keep = 1 };
};
template <bool whole> struct plan_t<64, whole> {
    enum { groups = 2, warps = 4, keys = 64, blocks = 2, keep = 1 };
};
template <bool whole> struct plan_t<128, whole> {
    enum { groups = whole ? 2 : 1, warps = whole ? 4 : 8, keys = 32, blocks = whole ? 2 : 1, keep = 0 };
};

template <int width, bool whole> struct shape_t {
    typedef plan_t<width, whole> plan;
    enum {
        threads = plan::warps * MBL_WARP,
        rows = plan::groups * 16, /* of a warp */
        queries = plan::warps * rows,
        columns = plan::keys / 8, /* score accumulators across */
        query_bytes = mbl_tile_bytes(queries, width),
        key_bytes = mbl_tile_bytes(plan::keys, width),
        shared = query_bytes + 4 * key_bytes /* k and v, twice */
    };
    typedef float score_t[plan::groups][columns][4];
    typedef left_t<width, plan::groups, plan::keep> query_t;
};

/* What a warp carries through the keys; rows g and g + 8 of each group of 16 are this thread's. */
template <int width, bool whole> struct state_t {
    float out[plan_t<width, whole>::groups][width / 8][4];
    float top[plan_t<width, whole>::groups][2], sum[plan_t<width, whole>::groups][2]; /* largest scale score;
                                                                           sum of exp2(scale score - top) */
};

/* Scores of keys that a query does not see become -infinity: those beyond the last, and later ones if causal.
 * `row` and `key` are the tokens of the warp's first row and of the tile's first key. */
template <int width, bool whole>
static __device__ __forceinline__ void mask(typename shape_t<width, whole>::score_t &score, const call_t &x,
                                            int row, int key) {
    int lane = (int)threadIdx.x % MBL_WARP;
    MBL_UNROLL
    for (int g = 0; g < plan_t<width, whole>::groups; g++)
        MBL_UNROLL
    for (int c = 0; c < shape_t<width, whole>::columns; c++)
        MBL_UNROLL
    for (int i = 0; i < 4; i++) {
        int query = row + 16 * g + lane / 4 + (i >> 1) * 8, at = key + 8 * c + lane % 4 * 2 + (i & 1);
        if (at >= x.tokens || (x.causal && at > query))
            score[g][c][i] = -INFINITY;
    }
}

static __device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
static __device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Brings the maxima up to date with a tile of scores, rescales what was summed under the old ones, and turns
 * the scores into exp(scale score - max). Sums are this thread's part of each row until the end. */
template <int width, bool whole>
static __device__ __forceinline__ void softmax(typename shape_t<width, whole>::score_t &score,
                                               state_t<width, whole> &s, float scale) {
    constexpr int columns = shape_t<width, whole>::columns;
    MBL_UNROLL
    for (int g = 0; g < plan_t<width, whole>::groups; g++) {
        float top[2] = {score[g][0][0], score[g][0][2]};
        bool moved = false;
        MBL_UNROLL
        for (int c = 0; c < columns; c++)
            MBL_UNROLL
        for (int i = 0; i < 4; i++)
            top[i >> 1] = fmaxf(top[i >> 1], score[g][c][i]);
        MBL_UNROLL
        for (int h = 0; h < 2; h++) {
            top[h] = fmaxf(scale * quad_max(top[h]), s.top[g][h]);
            moved = moved || top[h] > s.top[g][h];
        }
        if (__any_sync(0xffffffffu, moved)) {
            MBL_UNROLL
            for (int h = 0; h < 2; h++) {
                float factor = mbl_exp2(s.top[g][h] - top[h]);
                s.top[g][h] = top[h];
                s.sum[g][h] *= factor;
                MBL_UNROLL
                for (int c = 0; c < width / 8; c++) {
                    s.out[g][c][2 * h] *= factor;
                    s.out[g][c][2 * h + 1] *= factor;
                }
            }
        }
        MBL_UNROLL
        for (int c = 0; c < columns; c++)
            MBL_UNROLL
        for (int i = 0; i < 4; i++) {
            score[g][c][i] = mbl_exp2(fmaf(scale, score[g][c][i], -top[i >> 1]));
            s.sum[g][i >> 1] += score[g][c][i];
        }
    }
}

/* Divides by the sums, and writes the warp's rows of the result through its own rows of the query tile. */
template <int width, bool whole>
static __device__ __forceinline__ void finish(const state_t<width, whole> &s, const call_t &x,
                                              unsigned char *tile, int row, int head, int first) {
    constexpr int groups = plan_t<width, whole>::groups;
    const int lane = (int)threadIdx.x % MBL_WARP;
    float factor[groups][2];
    MBL_UNROLL
    for (int g = 0; g < groups; g++)
        MBL_UNROLL
    for (int h = 0; h < 2; h++) {
        float sum = quad_sum(s.sum[g][h]);
        int token = first + row + 16 * g + 8 * h + lane / 4;
        factor[g][h] = 1 / sum;
        if (x.lse && lane % 4 == 0 && token < x.tokens)
            x.lse[(size_t)head * (size_t)x.tokens + (size_t)token] =
                (s.top[g][h] + log2f(sum)) * 0.693147180559945309f;
    }
    put(tile, row, s.out, factor);
    mbl_tile_store<width, 16 * groups, whole>(merged_rows(x, x.out, head), tile, row, first, x.d);
}

/* Starts the copy of a tile of keys and of the values beside them. */
template <int width, bool whole>
static __device__ __forceinline__ void fetch(unsigned char *stage, const call_t &x, int head, int key) {
    constexpr int keys = plan_t<width, whole>::keys, threads = shape_t<width, whole>::threads,
                  known = whole ? width : 0;
    const int d = whole ? width : x.d;
    unsigned char *values = stage + shape_t<width, whole>::key_bytes;
    mbl_tile_load<width, keys, threads, whole>(stage, head_rows<known>(x, x.k, head), key, d);
    mbl_tile_load<width, keys, threads, whole>(values, merged_rows(x, x.v, head, x.v_row), key, d);
    mbl_copy_commit();
}

template <int width, bool whole>
static __global__ void __launch_bounds__(shape_t<width, whole>::threads, plan_t<width, whole>::blocks)
    attention_forward(call_t x) {
    typedef plan_t<width, whole> plan;
    typedef shape_t<width, whole> shape;
    constexpr int known = whole ? width : 0;
    MBL_SHARED_DYNAMIC(unsigned char, shared);
    const int tiles = (x.tokens + shape::queries - 1) / shape::queries, head = (int)blockIdx.x / tiles;
    const int first = (tiles - 1 - (int)blockIdx.x % tiles) * shape::queries; /* causal: long ones first */
    const int row = (int)threadIdx.x / MBL_WARP * shape::rows;
    const int end = x.causal && first + shape::queries < x.tokens ? first + shape::queries : x.tokens;
    const bool busy = first + row < x.tokens;
    typename shape::score_t score;
    typename shape::query_t query = {shared, row, {}};
    state_t<width, whole> s;
    clear(s.out);
    MBL_UNROLL
    for (int g = 0; g < plan::groups; g++) {
        s.top[g][0] = s.top[g][1] = -INFINITY;
        s.sum[g][0] = s.sum[g][1] = 0;
    }
    unsigned char *stage = shared + shape::query_bytes, *next = stage + 2 * shape::key_bytes;
    mbl_tile_load<width, shape::queries, shape::threads, whole>(shared, head_rows<known>(x, x.q, head), first,
                                                                whole ? width : x.d);
    fetch<width, whole>(stage, x, head, 0);
    for (int key = 0; key < end; key += plan::keys) {
        mbl_copy_wait<0>();
        __syncthreads(); /* this tile has arrived, and nobody uses the one before it any more */
        if (key == 0)
            take_left(query);
        if (key + plan::keys < end)
            fetch<width, whole>(next, x, head, key + plan::keys);
        if (busy) {
            multiply(score, query, stage, 0);
            if (key + plan::keys > x.tokens || (x.causal && key + plan::keys > first + row))
                mask<width, whole>(score, x, first + row, key);
            softmax<width, whole>(score, s, x.scale);
            weigh<width>(s.out, score, stage + shape::key_bytes, 0);
        }
        unsigned char *used = stage;
        stage = next, next = used;
    }
    if (busy)
        finish<width, whole>(s, x, shared, row, head, first);
}

template <int width, bool whole> static mbl_status_t launch(mbl_ops_t *ops, const call_t &x) {
    typedef shape_t<width, whole> shape;
    unsigned blocks = (unsigned)x.heads * (unsigned)mbl_ceil_div((size_t)x.tokens, shape::queries);
    MBL_CUDA_TRY(MBL_SHARED_ALLOW((attention_forward<width, whole>), shape::shared), "attention");
    MBL_LAUNCH((attention_forward<width, whole>), dim3(blocks), dim3(shape::threads), shape::shared,
               mbl_cuda_stream(ops), x);
    return MBL_CUDA_LAUNCHED("attention");
}

template <int width> static mbl_status_t launch_width(mbl_ops_t *ops, const call_t &x, bool whole) {
    return whole && x.d == width ? launch<width, true>(ops, x) : launch<width, false>(ops, x);
}

mbl_status_t mbl_cuda_attention_mma(mbl_ops_t *ops, const mbl_attention_args_t *args) {
    call_t x;
    forward_call(x, args);
    x.scale = (float)(args->scale * MBL_LOG2_E);
    if (x.heads == 0 || x.tokens == 0)
        return MBL_OK;
    const mbl_tensor_t *all[] = {args->q, args->k, args->v1, args->v2, args->out1, args->out2};
    bool whole = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        whole = whole && mbl_wide(all[i], MBL_CHUNK);
    return x.d <= 32   ? launch_width<32>(ops, x, whole)
           : x.d <= 64 ? launch_width<64>(ops, x, whole)
                       : launch_width<128>(ops, x, whole);
}
