/* Element by element operations: activations, gated residuals, row sums, conversion, and the epilogue of
 * products. Flat ones take 16 bytes a thread and step; those with a row that many rows share give a warp to
 * each row. */
#include "gpu/act.h"
#include "gpu/elem.h"

enum { FLAT_BLOCKS = 16 }; /* blocks per multiprocessor at most: then each thread takes several steps */

static unsigned flat_grid(mbl_ops_t *ops, size_t steps) {
    size_t blocks = mbl_ceil_div(steps, MBL_THREADS),
           most = (size_t)mbl_cuda_of(ops)->device.multiprocessors * FLAT_BLOCKS;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}
static unsigned row_grid(size_t rows) {
    return (unsigned)mbl_ceil_div(rows, MBL_WARPS);
}

/* ---- flat: f(x, ...) over count elements, V at a time, then the tail ---- */

template <class T> struct act_step {
    T *y;
    const T *x;
    mbl_act_t act;
    template <int V> __device__ void at(size_t i) const {
        REAL v[V];
        mbl_get<T, V>(v, x + i);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            v[l] = mbl_act_value(v[l], act);
        mbl_put(y + i, v);
    }
};

template <class T> struct act_bwd_step {
    T *dx;
    const T *dy, *x;
    mbl_act_t act;
    template <int V> __device__ void at(size_t i) const {
        REAL v[V], g[V];
        mbl_get<T, V>(v, x + i);
        mbl_get<T, V>(g, dy + i);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            v[l] = g[l] * mbl_act_slope(v[l], act);
        mbl_put(dx + i, v);
    }
};

template <class T> struct axpby_step {
    T *y;
    const T *x;
    REAL a, b;
    template <int V> __device__ void at(size_t i) const {
        REAL v[V], w[V];
        mbl_get<T, V>(v, x + i);
        if (b != 0)
            mbl_get<T, V>(w, y + i);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            v[l] = b != 0 ? a * v[l] + b * w[l] : a * v[l];
        mbl_put(y + i, v);
    }
};

template <class T, class U> struct convert_step {
    U *dst;
    const T *src;
    template <int V> __device__ void at(size_t i) const {
        REAL v[V];
        mbl_get<T, V>(v, src + i);
        mbl_put(dst + i, v);
    }
};

template <class STEP, int V> __global__ void __launch_bounds__(MBL_THREADS) flat(STEP step, size_t count) {
    size_t first = (size_t)blockIdx.x * blockDim.x + threadIdx.x, all = (size_t)gridDim.x * blockDim.x;
    for (size_t i = first; i < count / V; i += all)
        step.template at<V>(i * V);
    size_t tail = count / V * V + first;
    if (V > 1 && tail < count)
        step.template at<1>(tail);
}

/* wide: every pointer is aligned to 16 bytes */
template <int V, class STEP>
static mbl_status_t run_flat(mbl_ops_t *ops, const char *what, STEP step, size_t count, bool wide) {
    if (wide)
        MBL_LAUNCH((flat<STEP, V>), flat_grid(ops, count / V), MBL_THREADS, 0, mbl_cuda_stream(ops), step,
                   count);
    else
        MBL_LAUNCH((flat<STEP, 1>), flat_grid(ops, count), MBL_THREADS, 0, mbl_cuda_stream(ops), step, count);
    return MBL_CUDA_LAUNCHED(what);
}

static bool aligned(const mbl_tensor_t *t) {
    return (uintptr_t)t->data % 16 == 0;
}

extern "C" mbl_status_t mbl_cuda_act(mbl_ops_t *ops, const mbl_act_args_t *args) {
    MBL_WITH_TYPE(args->x->dtype, T, {
        act_step<T> step = {mbl_data<T>(args->y), mbl_data<T>(args->x), args->act};
        return run_flat<mbl_lanes<T>::count>(ops, "act", step, mbl_tensor_count(args->x),
                                             aligned(args->x) && aligned(args->y));
    });
}

extern "C" mbl_status_t mbl_cuda_act_bwd(mbl_ops_t *ops, const mbl_act_bwd_args_t *args) {
    MBL_WITH_TYPE(args->x->dtype, T, {
        act_bwd_step<T> step = {mbl_data<T>(args->dx), mbl_data<T>(args->dy), mbl_data<T>(args->x),
                                args->act};
        return run_flat<mbl_lanes<T>::count>(ops, "act_bwd", step, mbl_tensor_count(args->x),
                                             aligned(args->x) && aligned(args->dy) && aligned(args->dx));
    });
}

extern "C" mbl_status_t mbl_cuda_axpby(mbl_ops_t *ops, const mbl_axpby_args_t *args) {
    MBL_WITH_TYPE(args->x->dtype, T, {
        axpby_step<T> step = {mbl_data<T>(args->y), mbl_data<T>(args->x), (REAL)args->a, (REAL)args->b};
        return run_flat<mbl_lanes<T>::count>(ops, "axpby", step, mbl_tensor_count(args->x),
                                             aligned(args->x) && aligned(args->y));
    });
}

/* ---- a warp for each row ---- */

typedef struct {
    size_t rows, tokens, width;
} rows_t;

static rows_t rows_of(const mbl_tensor_t *x) {
    rows_t r = {x->dim[0] * x->dim[1], x->dim[1], x->dim[2]};
    return r;
}

/* y = x + gate h; gate's row is that of the sample. */
template <class T, int V>
__global__ void __launch_bounds__(MBL_THREADS)
    gate_rows(T *y, const T *x, const T *gate, size_t gate_stride, const T *h, rows_t r) {
    size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP;
    if (row >= r.rows)
        return;
    gate += row / r.tokens * gate_stride;
    for (size_t j = threadIdx.x % MBL_WARP * V; j < r.width; j += MBL_WARP * V) {
        REAL a[V], b[V], c[V];
        mbl_get<T, V>(a, x + row * r.width + j);
        mbl_get<T, V>(b, gate + j);
        mbl_get<T, V>(c, h + row * r.width + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            a[l] = a[l] + b[l] * c[l];
        mbl_put(y + row * r.width + j, a);
    }
}

extern "C" mbl_status_t mbl_cuda_gate(mbl_ops_t *ops, const mbl_gate_args_t *args) {
    rows_t r = rows_of(args->x);
    MBL_WITH_TYPE(args->x->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        T *y = mbl_data<T>(args->y), *x = mbl_data<T>(args->x), *gate = mbl_data<T>(args->gate),
          *h = mbl_data<T>(args->h);
        size_t stride = args->gate->stride[0];
        if (mbl_wide(args->x, V) && mbl_wide(args->y, V) && mbl_wide(args->h, V) && mbl_wide(args->gate, V))
            MBL_LAUNCH((gate_rows<T, V>), row_grid(r.rows), MBL_THREADS, 0, mbl_cuda_stream(ops), y, x, gate,
                       stride, h, r);
        else
            MBL_LAUNCH((gate_rows<T, 1>), row_grid(r.rows), MBL_THREADS, 0, mbl_cuda_stream(ops), y, x, gate,
                       stride, h, r);
    });
    return MBL_CUDA_LAUNCHED("gate");
}

template <class T, int V>
__global__ void __launch_bounds__(MBL_THREADS) add_rows(T *y, const T *x, rows_t r) {
    size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP;
    if (row >= r.rows)
        return;
    y += row * r.width;
    x += row % r.tokens * r.width;
    for (size_t j = threadIdx.x % MBL_WARP * V; j < r.width; j += MBL_WARP * V) {
        REAL a[V], b[V];
        mbl_get<T, V>(a, y + j);
        mbl_get<T, V>(b, x + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            a[l] = a[l] + b[l];
        mbl_put(y + j, a);
    }
}

extern "C" mbl_status_t mbl_cuda_add_rows(mbl_ops_t *ops, const mbl_add_rows_args_t *args) {
    rows_t r = rows_of(args->y);
    MBL_WITH_TYPE(args->y->dtype, T, {
        constexpr int V = mbl_lanes<T>::count;
        T *y = mbl_data<T>(args->y), *x = mbl_data<T>(args->rows);
        if (mbl_wide(args->y, V) && mbl_wide(args->rows, V))
            MBL_LAUNCH((add_rows<T, V>), row_grid(r.rows), MBL_THREADS, 0, mbl_cuda_stream(ops), y, x, r);
        else
            MBL_LAUNCH((add_rows<T, 1>), row_grid(r.rows), MBL_THREADS, 0, mbl_cuda_stream(ops), y, x, r);
    });
    return MBL_CUDA_LAUNCHED("add_rows");
}

/* Rows of a tensor of up to four dimensions: where row i starts. */
typedef struct {
    size_t dim[3], dst[3], src[3], rows, width;
} strided_t;

template <class T, class U>
__global__ void __launch_bounds__(MBL_THREADS) convert_rows(U *dst, const T *src, strided_t s) {
    size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP, rest = row;
    if (row >= s.rows)
        return;
    for (int d = 2; d >= 0; d--) {
        dst += rest % s.dim[d] * s.dst[d];
        src += rest % s.dim[d] * s.src[d];
        rest /= s.dim[d];
    }
    for (size_t j = threadIdx.x % MBL_WARP; j < s.width; j += MBL_WARP)
        mbl_store(dst + j, mbl_load(src[j]));
}

static strided_t strided_of(const mbl_convert_args_t *args) {
    const mbl_tensor_t *dst = args->dst, *src = args->src;
    strided_t s = {{1, 1, 1}, {0, 0, 0}, {0, 0, 0}, 1, dst->dim[dst->ndim - 1]};
    for (int d = 0; d + 1 < dst->ndim; d++) {
        int at = 3 - (dst->ndim - 1) + d;
        s.dim[at] = dst->dim[d];
        s.dst[at] = dst->stride[d];
        s.src[at] = src->stride[d];
        s.rows *= dst->dim[d];
    }
    return s;
}

extern "C" mbl_status_t mbl_cuda_convert(mbl_ops_t *ops, const mbl_convert_args_t *args) {
    const mbl_tensor_t *dst = args->dst, *src = args->src;
    bool dense = mbl_tensor_contiguous(dst) && mbl_tensor_contiguous(src);
    MBL_WITH_TYPE(src->dtype, T, MBL_WITH_TYPE(dst->dtype, U, {
                      if (!dense) {
                          strided_t s = strided_of(args);
                          MBL_LAUNCH((convert_rows<T, U>), row_grid(s.rows), MBL_THREADS, 0,
                                     mbl_cuda_stream(ops), mbl_data<U>(dst), mbl_data<T>(src), s);
                          return MBL_CUDA_LAUNCHED("convert");
                      }
                      constexpr int V = 16 / (sizeof(T) < sizeof(U) ? sizeof(T) : sizeof(U));
                      convert_step<T, U> step = {mbl_data<U>(dst), mbl_data<T>(src)};
                      return run_flat<V>(ops, "convert", step, mbl_tensor_count(dst),
                                         aligned(dst) && aligned(src));
                  }));
}

/* y = act(y + bias); a warp for each row. B is the type of the bias. */
template <class T, class B> struct epilogue_t {
    T *y, *pre; /* pre, through, bias: or NULL */
    const T *through;
    const B *bias;
    size_t y_stride, pre_stride, through_stride, rows, width;
    mbl_act_t act;
};

template <class T, class B, int V>
__global__ void __launch_bounds__(MBL_THREADS) epilogue(epilogue_t<T, B> x) {
    size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP;
    if (row >= x.rows)
        return;
    for (size_t j = threadIdx.x % MBL_WARP * V; j < x.width; j += MBL_WARP * V) {
        REAL a[V], at[V];
        mbl_get<T, V>(a, x.y + row * x.y_stride + j);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            a[l] = x.bias ? a[l] + mbl_load(x.bias[j + (size_t)l]) : a[l];
        if (x.through)
            mbl_get<T, V>(at, x.through + row * x.through_stride + j);
        if (x.pre)
            mbl_put(x.pre + row * x.pre_stride + j, a);
        MBL_UNROLL
        for (int l = 0; l < V; l++)
            a[l] = x.through ? a[l] * mbl_act_slope(at[l], x.act) : mbl_act_value(a[l], x.act);
        mbl_put(x.y + row * x.y_stride + j, a);
    }
}

template <class T, class B> static void run_epilogue(mbl_ops_t *ops, const mbl_matmul_args_t *args) {
    constexpr int V = sizeof(T) == 8 ? 2 : 8;
    const mbl_tensor_t *y = args->y, *pre = args->pre, *through = args->through;
    const epilogue_t<T, B> x = {mbl_data<T>(y),
                                mbl_data<T>(pre),
                                mbl_data<T>(through),
                                mbl_data<B>(args->bias),
                                y->stride[0],
                                pre ? pre->stride[0] : 0,
                                through ? through->stride[0] : 0,
                                y->dim[0],
                                y->dim[1],
                                args->act};
    if (mbl_wide(y, V) && mbl_wide(pre, V) && mbl_wide(through, V))
        MBL_LAUNCH((epilogue<T, B, V>), row_grid(x.rows), MBL_THREADS, 0, mbl_cuda_stream(ops), x);
    else
        MBL_LAUNCH((epilogue<T, B, 1>), row_grid(x.rows), MBL_THREADS, 0, mbl_cuda_stream(ops), x);
}

extern "C" mbl_status_t mbl_cuda_epilogue(mbl_ops_t *ops, const mbl_matmul_args_t *args) {
    const mbl_dtype_t type = args->y->dtype, bias_type = args->bias ? args->bias->dtype : type;
    if (type == MBL_F64)
        run_epilogue<double, double>(ops, args);
    else if (type == MBL_BF16)
        run_epilogue<__nv_bfloat16, __nv_bfloat16>(ops, args);
    else if (bias_type == MBL_BF16)
        run_epilogue<float, __nv_bfloat16>(ops, args);
    else
        run_epilogue<float, float>(ops, args);
    return MBL_CUDA_LAUNCHED("the epilogue of matmul");
}

/* ---- pixels to bytes ---- */

template <class R> __device__ inline unsigned pixel_byte(R pixel) {
    float share = (float)(pixel * (R)0.5 + (R)0.5);
    share = share > 0 ? share < 1 ? share : 1 : 0;
    return (unsigned)rintf(share * 255);
}

/* Pixels first..first+n-1 to bytes, n at most 4; whether any before `end` is not finite. */
template <class T>
__device__ inline unsigned pixel_word(const T *x, size_t first, size_t n, size_t end, int *bad) {
    unsigned word = 0;
    for (size_t b = 0; b < n; b++) {
        const REAL pixel = mbl_load(x[first + b]);
        word |= pixel_byte(pixel) << (8 * b);
        *bad |= first + b < end && !(pixel - pixel == 0);
    }
    return word;
}

/* A block for each sample, which writes the aligned words that begin in it: pixel j is byte j + lead of them.
 * The beginning of a sample may so be written with the one before. */
template <class T>
__global__ void __launch_bounds__(MBL_THREADS)
    to_bytes(unsigned char *y, int *broken, const T *x, size_t count) {
    MBL_SHARED(int, found, MBL_WARPS);
    const size_t lead = (uintptr_t)y % 4, all = lead + gridDim.x * count, begin = blockIdx.x * count,
                 end = begin + count, first = begin > 0 ? (begin + lead + 3) / 4 : 0,
                 last = (end + lead + 3) / 4;
    int bad = 0;
    for (size_t w = first + threadIdx.x; w < last; w += MBL_THREADS) {
        const size_t from = 4 * w < lead ? lead : 4 * w, to = 4 * w + 4 < all ? 4 * w + 4 : all;
        const unsigned word = pixel_word(x, from - lead, to - from, end, &bad);
        if (to - from == 4)
            *reinterpret_cast<unsigned *>(y + from - lead) = word;
        else
            for (size_t b = 0; b < to - from; b++)
                y[from - lead + b] = (unsigned char)(word >> (8 * b));
    }
    const size_t before = 4 * first - lead - begin; /* of the sample's pixels; with begin > 0 alone */
    if (threadIdx.x == 0 && begin > 0)
        (void)pixel_word(x, begin, before < count ? before : count, end, &bad);
    bad = __any_sync(0xffffffffu, bad);
    if (threadIdx.x % MBL_WARP == 0)
        found[threadIdx.x / MBL_WARP] = bad;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int w = 1; w < MBL_WARPS; w++)
        bad |= found[w];
    broken[blockIdx.x] = bad != 0;
}

extern "C" mbl_status_t mbl_cuda_to_bytes(mbl_ops_t *ops, const mbl_to_bytes_args_t *args) {
    const size_t samples = args->x->dim[0], each = args->x->dim[1];
    MBL_WITH_TYPE(args->x->dtype, T, {
        MBL_LAUNCH((to_bytes<T>), (unsigned)samples, MBL_THREADS, 0, mbl_cuda_stream(ops),
                   mbl_data<unsigned char>(args->y), mbl_data<int>(args->broken), mbl_data<T>(args->x), each);
    });
    return MBL_CUDA_LAUNCHED("to_bytes");
}
