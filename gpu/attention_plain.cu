/* Attention on the ordinary units: f32 and f64, head sizes that the tensor core kernels do not take, scales
 * that are not positive, scores with a bias. Same plan: a block owns a tile of rows of one head, and `tile`
 * columns of what it writes (wider heads: several blocks form the same scores), and goes through the other
 * side in tiles. */
#include "gpu/attention.h"

/* Numbers of a tile per thread and direction; a product's columns at a time; sizes of tiles. */
enum { SIDE = 4, DEPTH = 16, SMALL = 32, LARGE = 64 };

/* A plan: numbers are computed in R, scores in tiles of size x size. Small heads take small tiles: columns
 * that a head does not have are computed, too. */
template <class R_, int size> struct plain_t {
    typedef R_ R;
    enum { tile = size, side = tile / SIDE, threads = side * side };
    /* Rows i of a thread: y + side i, columns j: x + side j; the padding keeps banks apart. */
    struct shared_t {
        R a[tile][DEPTH + 1], b[DEPTH][tile + 1], p[tile][tile + 1];
    };
};

template <class plain> static __device__ __forceinline__ int across() {
    return (int)threadIdx.x % plain::side;
}
template <class plain> static __device__ __forceinline__ int down() {
    return (int)threadIdx.x / plain::side;
}

template <class R> static __device__ __forceinline__ void clear(R (&y)[SIDE][SIDE]) {
    MBL_UNROLL
    for (int i = 0; i < SIDE; i++)
        MBL_UNROLL
    for (int j = 0; j < SIDE; j++)
        y[i][j] = 0;
}

/* y = a b', for `tile` rows of each from a0 and b0 on, d columns; rows that are not there count as zeros. */
template <class plain, class R, class rows_a_t, class rows_b_t>
static __device__ void multiply(R (&y)[SIDE][SIDE], const rows_a_t &a, int a0, const rows_b_t &b, int b0,
                                int d, typename plain::shared_t &s) {
    constexpr int tile = plain::tile, side = plain::side;
    clear(y);
    for (int first = 0; first < d; first += DEPTH) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < tile * DEPTH; i += plain::threads) {
            int row = i / DEPTH, c = i % DEPTH, at = first + c;
            s.a[row][c] = a0 + row < a.count && at < d ? mbl_load(mbl_row(a, a0 + row)[at]) : 0;
            s.b[c][row] = b0 + row < b.count && at < d ? mbl_load(mbl_row(b, b0 + row)[at]) : 0;
        }
        __syncthreads();
        MBL_UNROLL
        for (int c = 0; c < DEPTH; c++) {
            R left[SIDE], right[SIDE];
            MBL_UNROLL
            for (int i = 0; i < SIDE; i++) {
                left[i] = s.a[down<plain>() + side * i][c];
                right[i] = s.b[c][across<plain>() + side * i];
            }
            MBL_UNROLL
            for (int i = 0; i < SIDE; i++)
                MBL_UNROLL
            for (int j = 0; j < SIDE; j++)
                y[i][j] = fma(left[i], right[j], y[i][j]);
        }
    }
}

/* y += p x: p is this tile of scores, x rows x0.. and columns `column`.. of a tensor d wide. */
template <class plain, class R, class rows_t>
static __device__ void weigh(R (&y)[SIDE][SIDE], const R (&p)[SIDE][SIDE], const rows_t &x, int x0,
                             int column, int d, typename plain::shared_t &s) {
    constexpr int tile = plain::tile, side = plain::side;
    __syncthreads();
    MBL_UNROLL
    for (int i = 0; i < SIDE; i++)
        MBL_UNROLL
    for (int j = 0; j < SIDE; j++)
        s.p[down<plain>() + side * i][across<plain>() + side * j] = p[i][j];
    for (int first = 0; first < tile && x0 + first < x.count; first += DEPTH) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < tile * DEPTH; i += plain::threads) {
            int row = i / tile, c = i % tile, t = x0 + first + row;
            s.b[row][c] = t < x.count && column + c < d ? mbl_load(mbl_row(x, t)[column + c]) : 0;
        }
        __syncthreads();
        MBL_UNROLL
        for (int c = 0; c < DEPTH; c++) {
            R left[SIDE], right[SIDE];
            MBL_UNROLL
            for (int i = 0; i < SIDE; i++) {
                left[i] = s.p[down<plain>() + side * i][first + c];
                right[i] = s.b[c][across<plain>() + side * i];
            }
            MBL_UNROLL
            for (int i = 0; i < SIDE; i++)
                MBL_UNROLL
            for (int j = 0; j < SIDE; j++)
                y[i][j] = fma(left[i], right[j], y[i][j]);
        }
    }
}

/* y times a factor per row, to rows t0.. and columns `column`.. . */
template <class plain, class R, class rows_t>
static __device__ void write(const rows_t &rows, int t0, int column, int d, const R (&y)[SIDE][SIDE],
                             const R (&factor)[SIDE]) {
    constexpr int side = plain::side;
    MBL_UNROLL
    for (int i = 0; i < SIDE; i++) {
        int t = t0 + down<plain>() + side * i;
        MBL_UNROLL
        for (int j = 0; j < SIDE; j++) {
            int c = column + across<plain>() + side * j;
            if (t < rows.count && c < d)
                mbl_store(mbl_row(rows, t) + c, y[i][j] * factor[i]);
        }
    }
}

/* The largest over the threads of a row of the tile. */
template <class plain, class R> static __device__ __forceinline__ R row_max(R x) {
    MBL_UNROLL
    for (int o = plain::side / 2; o > 0; o /= 2) {
        R other = __shfl_xor_sync(0xffffffffu, x, o);
        x = other > x ? other : x;
    }
    return x;
}

/* What a block owns: tile `blockIdx.x` of the heads' rows, columns of blockIdx.y. */
struct place_t {
    int head, first, column;
};
template <class plain, class call_t> static __device__ __forceinline__ place_t place(const call_t &x) {
    constexpr int tile = plain::tile;
    int tiles = (x.tokens + tile - 1) / tile;
    return {(int)blockIdx.x / tiles, (int)blockIdx.x % tiles * tile, (int)blockIdx.y * tile};
}

template <class T, class plain>
static __global__ void __launch_bounds__(plain::threads, 2)
    attention_plain(attention_call_t<T, typename plain::R> x) {
    typedef typename plain::R R;
    MBL_SHARED(typename plain::shared_t, shared, 1);
    const place_t at = place<plain>(x);
    const auto q = head_rows<0>(x, x.q, at.head), k = head_rows<0>(x, x.k, at.head);
    const auto v = merged_rows(x, x.v, at.head, x.v_row);
    R score[SIDE][SIDE], out[SIDE][SIDE], top[SIDE], sum[SIDE];
    clear(out);
    MBL_UNROLL
    for (int i = 0; i < SIDE; i++) {
        top[i] = -(R)INFINITY;
        sum[i] = 0;
    }
    const R *bias =
        x.bias ? x.bias + (size_t)(at.head % x.n_heads) * (size_t)(2 * x.tokens - 1) + x.tokens - 1 : NULL;
    const int end = x.causal && at.first + plain::tile < x.tokens ? at.first + plain::tile : x.tokens;
    for (int key = 0; key < end; key += plain::tile) {
        multiply<plain>(score, q, at.first, k, key, x.d, shared[0]);
        MBL_UNROLL
        for (int i = 0; i < SIDE; i++) {
            int query = at.first + down<plain>() + plain::side * i;
            R most = -(R)INFINITY;
            MBL_UNROLL
            for (int j = 0; j < SIDE; j++) {
                int token = key + across<plain>() + plain::side * j;
                bool seen = token < x.tokens && (!x.causal || token <= query);
                score[i][j] = seen ? x.factor * score[i][j] : -(R)INFINITY;
                if (x.bias && seen && query < x.tokens)
                    score[i][j] += bias[token - query];
                most = score[i][j] > most ? score[i][j] : most;
            }
            most = row_max<plain>(most);
            most = most > top[i] ? most : top[i];
            R rescale = exp(top[i] - most);
            top[i] = most;
            sum[i] *= rescale;
            MBL_UNROLL
            for (int j = 0; j < SIDE; j++) {
                out[i][j] *= rescale;
                score[i][j] = exp(score[i][j] - most);
                sum[i] += score[i][j];
            }
        }
        weigh<plain>(out, score, v, key, at.column, x.d, shared[0]);
    }
    MBL_UNROLL
    for (int i = 0; i < SIDE; i++) {
        int t = at.first + down<plain>() + plain::side * i;
        sum[i] = mbl_lanes_sum(sum[i], plain::side);
        if (x.lse && at.column == 0 && across<plain>() == 0 && t < x.tokens)
            x.lse[(size_t)at.head * (size_t)x.tokens + (size_t)t] = top[i] + log(sum[i]);
        sum[i] = 1 / sum[i];
    }
    write<plain>(merged_rows(x, x.out, at.head), at.first, at.column, x.d, out, sum);
}

/* p = exp(scale score - lse) and ds = p (slope - delta) of one number; rows of either side that are not there
 * have neither. */
template <class T, class R>
static __device__ __forceinline__ void derive(const attention_call_t<T, R> &x, int head, int query, int key,
                                              R &score, R &slope) {
    const R *stats = x.stats + 2 * ((size_t)head * (size_t)x.padded + (size_t)query);
    bool there = query < x.tokens && key < x.tokens;
    score = there ? exp(x.factor * score - stats[0]) : 0;
    slope = there ? score * (slope - stats[1]) : 0;
}

template <class T, class plain>
static __global__ void __launch_bounds__(plain::threads)
    attention_bwd_keys_plain(attention_call_t<T, typename plain::R> x) {
    typedef typename plain::R R;
    MBL_SHARED(typename plain::shared_t, shared, 1);
    const place_t at = place<plain>(x);
    const auto q = head_rows<0>(x, x.q, at.head), k = head_rows<0>(x, x.k, at.head);
    const auto v = merged_rows(x, x.v, at.head, x.v_row);
    const auto dout = merged_rows(x, x.dout, at.head);
    R p[SIDE][SIDE], ds[SIDE][SIDE], dk[SIDE][SIDE], dv[SIDE][SIDE];
    const R scale[SIDE] = {x.factor, x.factor, x.factor, x.factor}, one[SIDE] = {1, 1, 1, 1};
    clear(dk);
    clear(dv);
    for (int query = 0; query < x.tokens; query += plain::tile) {
        multiply<plain>(p, k, at.first, q, query, x.d, shared[0]);
        multiply<plain>(ds, v, at.first, dout, query, x.d, shared[0]);
        MBL_UNROLL
        for (int i = 0; i < SIDE; i++)
            MBL_UNROLL
        for (int j = 0; j < SIDE; j++)
            derive(x, at.head, query + across<plain>() + plain::side * j,
                   at.first + down<plain>() + plain::side * i, p[i][j], ds[i][j]);
        weigh<plain>(dv, p, dout, query, at.column, x.d, shared[0]);
        weigh<plain>(dk, ds, q, query, at.column, x.d, shared[0]);
    }
    write<plain>(head_rows<0>(x, x.dk, at.head), at.first, at.column, x.d, dk, scale);
    write<plain>(merged_rows(x, x.dv, at.head, x.dv_row), at.first, at.column, x.d, dv, one);
}

template <class T, class plain>
static __global__ void __launch_bounds__(plain::threads)
    attention_bwd_queries_plain(attention_call_t<T, typename plain::R> x) {
    typedef typename plain::R R;
    MBL_SHARED(typename plain::shared_t, shared, 1);
    const place_t at = place<plain>(x);
    const auto q = head_rows<0>(x, x.q, at.head), k = head_rows<0>(x, x.k, at.head);
    const auto v = merged_rows(x, x.v, at.head, x.v_row);
    const auto dout = merged_rows(x, x.dout, at.head);
    R p[SIDE][SIDE], ds[SIDE][SIDE], dq[SIDE][SIDE];
    const R scale[SIDE] = {x.factor, x.factor, x.factor, x.factor};
    clear(dq);
    for (int key = 0; key < x.tokens; key += plain::tile) {
        multiply<plain>(p, q, at.first, k, key, x.d, shared[0]);
        multiply<plain>(ds, dout, at.first, v, key, x.d, shared[0]);
        MBL_UNROLL
        for (int i = 0; i < SIDE; i++)
            MBL_UNROLL
        for (int j = 0; j < SIDE; j++)
            derive(x, at.head, at.first + down<plain>() + plain::side * i,
                   key + across<plain>() + plain::side * j, p[i][j], ds[i][j]);
        weigh<plain>(dq, ds, k, key, at.column, x.d, shared[0]);
    }
    write<plain>(head_rows<0>(x, x.dq, at.head), at.first, at.column, x.d, dq, scale);
}

template <class plain, class call_t> static dim3 grid_of(const call_t &x) {
    size_t tile = plain::tile;
    return dim3((unsigned)((size_t)x.heads * mbl_ceil_div((size_t)x.tokens, tile)),
                (unsigned)mbl_ceil_div((size_t)x.d, tile));
}

template <class plain, class T>
static void launch_forward(mbl_ops_t *ops, const attention_call_t<T, typename plain::R> &x) {
    MBL_LAUNCH((attention_plain<T, plain>), grid_of<plain>(x), dim3(plain::threads), 0, mbl_cuda_stream(ops),
               x);
}
template <class plain, class T>
static void launch_backward(mbl_ops_t *ops, const attention_call_t<T, typename plain::R> &x) {
    MBL_LAUNCH((attention_bwd_keys_plain<T, plain>), grid_of<plain>(x), dim3(plain::threads), 0,
               mbl_cuda_stream(ops), x);
    MBL_LAUNCH((attention_bwd_queries_plain<T, plain>), grid_of<plain>(x), dim3(plain::threads), 0,
               mbl_cuda_stream(ops), x);
}

/* The plan for wider heads; numbers of 8 bytes fill shared memory sooner. */
template <class R> using large_t = plain_t<R, sizeof(R) == 4 ? LARGE : SMALL>;

template <class T> static mbl_status_t forward(mbl_ops_t *ops, const mbl_attention_args_t *args) {
    attention_call_t<T, REAL> x;
    forward_call(x, args);
    if (x.heads == 0 || x.tokens == 0 || x.d == 0)
        return MBL_OK;
    if (x.d <= SMALL)
        launch_forward<plain_t<REAL, SMALL>>(ops, x);
    else
        launch_forward<large_t<REAL>>(ops, x);
    return MBL_CUDA_LAUNCHED("attention");
}

template <class T> static mbl_status_t backward(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args) {
    attention_call_t<T, REAL> x;
    backward_call(x, args);
    if (x.heads == 0 || x.tokens == 0 || x.d == 0)
        return MBL_OK;
    MBL_TRY(mbl_cuda_attention_stats(ops, x, (REAL)1, false));
    if (x.d <= SMALL)
        launch_backward<plain_t<REAL, SMALL>>(ops, x);
    else
        launch_backward<large_t<REAL>>(ops, x);
    return MBL_CUDA_LAUNCHED("attention_bwd");
}

mbl_status_t mbl_cuda_attention_plain(mbl_ops_t *ops, const mbl_attention_args_t *args) {
    MBL_WITH_TYPE(args->q->dtype, T, return forward<T>(ops, args));
}
mbl_status_t mbl_cuda_attention_bwd_plain(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args) {
    MBL_WITH_TYPE(args->q->dtype, T, return backward<T>(ops, args));
}
