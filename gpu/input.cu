/* What enters and leaves the model: images to tokens and back, the sinusoids of the timestep, embeddings.
 */
#include "gpu/elem.h"

/* A thread for each number of the result, in its order; within a token the column is the last but one (PQC)
 * or the last (CPQ) axis. */
typedef struct {
    size_t channels, height, width, patch, count;
    bool cpq, to_tokens;
} layout_t;

/* Where number i of the tokens lies in the images. */
__device__ inline size_t image_of(const layout_t &l, size_t i) {
    const size_t p = l.patch, across = l.width / p, tokens = l.height / p * across, size = l.channels * p * p;
    const size_t within = i % size, token = i / size % tokens, n = i / size / tokens;
    const size_t c = l.cpq ? within / (p * p) : within % l.channels;
    const size_t y = l.cpq ? within / p % p : within / (l.channels * p);
    const size_t x = l.cpq ? within % p : within / l.channels % p;
    return ((n * l.channels + c) * l.height + token / across * p + y) * l.width + token % across * p + x;
}

/* Where number i of the images lies in the tokens. */
__device__ inline size_t token_of(const layout_t &l, size_t i) {
    const size_t p = l.patch, across = l.width / p;
    const size_t column = i % l.width, row = i / l.width % l.height,
                 c = i / (l.width * l.height) % l.channels;
    const size_t n = i / (l.width * l.height * l.channels), y = row % p, x = column % p;
    const size_t token = (n * (l.height / p) + row / p) * across + column / p;
    return token * l.channels * p * p + (l.cpq ? (c * p + y) * p + x : (y * p + x) * l.channels + c);
}

template <class T, class U>
__global__ void __launch_bounds__(MBL_THREADS) move(U *dst, const T *src, layout_t l) {
    const size_t i = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x;
    if (i < l.count)
        mbl_store(dst + i, mbl_load(src[l.to_tokens ? image_of(l, i) : token_of(l, i)]));
}

static mbl_status_t move_all(mbl_ops_t *ops, const char *what, const mbl_tensor_t *dst,
                             const mbl_tensor_t *src, const mbl_tensor_t *image, size_t patch,
                             mbl_patch_order_t order, bool to_tokens) {
    layout_t l = {image->dim[1],         image->dim[2],          image->dim[3], patch,
                  mbl_tensor_count(dst), order == MBL_PATCH_CPQ, to_tokens};
    const unsigned grid = (unsigned)mbl_ceil_div(l.count, MBL_THREADS);
    MBL_WITH_TYPE(src->dtype, T, MBL_WITH_TYPE(dst->dtype, U, {
                      MBL_LAUNCH((move<T, U>), grid, MBL_THREADS, 0, mbl_cuda_stream(ops), mbl_data<U>(dst),
                                 mbl_data<T>(src), l);
                  }));
    return MBL_CUDA_LAUNCHED(what);
}

extern "C" mbl_status_t mbl_cuda_patchify(mbl_ops_t *ops, const mbl_patchify_args_t *args) {
    return move_all(ops, "patchify", args->tokens, args->image, args->image, args->patch, args->order, true);
}

extern "C" mbl_status_t mbl_cuda_unpatchify(mbl_ops_t *ops, const mbl_unpatchify_args_t *args) {
    return move_all(ops, "unpatchify", args->image, args->tokens, args->image, args->patch, args->order,
                    false);
}

/* Frequencies and angles are formed in f32 for f32 and bf16, as the models' authors do: at angles near 1,000
 * the rounding of the angle is larger than that of the result, and a better one would be another number. */
template <class T>
__global__ void __launch_bounds__(MBL_THREADS)
    sinusoids(T *y, const REAL *times, REAL factor, size_t half, size_t count) {
    const size_t i = (size_t)blockIdx.x * MBL_THREADS + threadIdx.x, n = i / half, j = i % half;
    if (i >= count)
        return;
    const REAL time = times[n] * factor, exponent = (REAL)-9.210340371976184 * (REAL)j / (REAL)half;
    const REAL angle = time * (REAL)exp((double)exponent);
    mbl_store(y + n * 2 * half + j, (REAL)cos((double)angle));
    mbl_store(y + n * 2 * half + half + j, (REAL)sin((double)angle));
}

extern "C" mbl_status_t mbl_cuda_timestep(mbl_ops_t *ops, const mbl_timestep_args_t *args) {
    const size_t half = args->y->dim[1] / 2, count = args->y->dim[0] * half;
    MBL_WITH_TYPE(args->y->dtype, T, {
        MBL_LAUNCH(sinusoids<T>, (unsigned)mbl_ceil_div(count, MBL_THREADS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), mbl_data<T>(args->y), mbl_data<REAL>(args->t), (REAL)args->factor,
                   half, count);
    });
    return MBL_CUDA_LAUNCHED("timestep");
}

/* A warp for each token. An id that the table lacks is reported (mbl_cuda_fault_t) and gives zeros. */
template <class T>
__global__ void __launch_bounds__(MBL_THREADS)
    embed_rows(T *y, const T *table, const int32_t *ids, const T *position, size_t rows, size_t tokens,
               size_t width, size_t entries, mbl_cuda_fault_t *fault) {
    const size_t row = (size_t)blockIdx.x * MBL_WARPS + threadIdx.x / MBL_WARP, lane = threadIdx.x % MBL_WARP;
    if (row >= rows)
        return;
    const int32_t id = ids[row];
    const bool known = id >= 0 && (size_t)id < entries;
    if (!known && lane == 0) {
        fault->id = id;
        fault->entries = entries;
        fault->position = row + 1;
    }
    const T *x = table + (known ? (size_t)id : 0) * width,
            *p = position ? position + row % tokens * width : NULL;
    for (size_t j = lane; j < width; j += MBL_WARP) {
        if (p)
            mbl_store(y + row * width + j, known ? mbl_load(x[j]) + mbl_load(p[j]) : 0);
        else
            mbl_store(y + row * width + j, known ? mbl_load(x[j]) : 0);
    }
}

extern "C" mbl_status_t mbl_cuda_embed(mbl_ops_t *ops, const mbl_embed_args_t *args) {
    const size_t rows = mbl_tensor_count(args->ids);
    MBL_WITH_TYPE(args->y->dtype, T, {
        MBL_LAUNCH(embed_rows<T>, (unsigned)mbl_ceil_div(rows, MBL_WARPS), MBL_THREADS, 0,
                   mbl_cuda_stream(ops), mbl_data<T>(args->y), mbl_data<T>(args->table),
                   mbl_data<int32_t>(args->ids), mbl_data<T>(args->position), rows, args->ids->dim[1],
                   args->y->dim[2], args->table->dim[0], mbl_cuda_of(ops)->fault);
    });
    return MBL_CUDA_LAUNCHED("embed");
}
