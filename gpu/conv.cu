/* Convolutions of images, channels last: windows of the image are laid out as rows of a matrix, a band of
 * them at a time, and multiplied with the weights by cublasLt. A band is as large as half of an H100's
 * second-level cache, so that the product may find there what was just laid out, and still gives it a tile
 * for most multiprocessors. 1 x 1 windows are the image itself. */
#include "gpu/elem.h"

static const size_t band_bytes = 32 << 20;
static const size_t tile = 128; /* the rows of a band are a multiple of it, as products are made in tiles */

typedef struct {
    size_t first;             /* window of the band's first row, among those of all samples */
    size_t height, width;     /* windows of a sample */
    int x_height, x_width;    /* pixels of a sample, enlarged `up` times */
    unsigned steps;           /* a pixel's channels, V at a time */
    unsigned window, columns; /* pixels of a window, and in one of its rows */
    unsigned count;           /* rows * window * steps */
    int up, pad;
} windows_t;

/* A thread for every V channels: out [rows,window,channels] from x. U: V numbers. */
template <class U> __global__ void __launch_bounds__(MBL_THREADS) lay_out(U *out, const U *x, windows_t w) {
    const unsigned i = blockIdx.x * MBL_THREADS + threadIdx.x;
    if (i >= w.count)
        return;
    const unsigned step = i % w.steps, within = i / w.steps % w.window;
    const size_t at = w.first + i / w.steps / w.window;
    const int row = (int)(at / w.width % w.height + within / w.columns) - w.pad;
    const int column = (int)(at % w.width + within % w.columns) - w.pad;
    U value = U();
    if (row >= 0 && row < w.x_height && column >= 0 && column < w.x_width) {
        const size_t x_rows = (size_t)(w.x_height / w.up), across = (size_t)(w.x_width / w.up);
        const size_t pixel =
            (at / w.width / w.height * x_rows + (size_t)(row / w.up)) * across + (size_t)(column / w.up);
        value = x[pixel * w.steps + step];
    }
    out[i] = value;
}

static windows_t windows_of(const mbl_conv2d_args_t *args, size_t lanes) {
    const mbl_tensor_t *x = args->x, *weight = args->weight;
    windows_t w = {0,
                   args->y->dim[1],
                   args->y->dim[2],
                   (int)(x->dim[1] * args->up),
                   (int)(x->dim[2] * args->up),
                   (unsigned)(x->dim[3] / lanes),
                   (unsigned)(weight->dim[1] * weight->dim[2]),
                   (unsigned)weight->dim[2],
                   0,
                   (int)args->up,
                   (int)args->pad};
    return w;
}

/* `rows` windows from the first-th on. */
static mbl_status_t run_lay_out(mbl_ops_t *ops, const mbl_conv2d_args_t *args, void *out, size_t first,
                                size_t rows) {
    const size_t size = mbl_dtype_size(args->x->dtype), lanes = 16 / size;
    const bool wide = mbl_wide(args->x, lanes);
    windows_t w = windows_of(args, wide ? lanes : 1);
    w.first = first;
    w.count = (unsigned)(rows * w.window * w.steps);
    const unsigned grid = (unsigned)mbl_ceil_div(w.count, MBL_THREADS);
#define LAY_OUT(U)                                                                                           \
    MBL_LAUNCH(lay_out<U>, grid, MBL_THREADS, 0, mbl_cuda_stream(ops), (U *)out, mbl_data<U>(args->x), w)
    if (wide)
        LAY_OUT(uint4);
    else if (size == 8)
        LAY_OUT(uint64_t);
    else if (size == 4)
        LAY_OUT(uint32_t);
    else
        LAY_OUT(uint16_t);
#undef LAY_OUT
    return MBL_CUDA_LAUNCHED("conv2d");
}

/* y rows from the first-th on (+)= windows weight' + bias. */
static mbl_status_t multiply(mbl_ops_t *ops, const mbl_conv2d_args_t *args, const mbl_tensor_t *windows,
                             size_t first) {
    const size_t outputs = args->y->dim[3], all = mbl_tensor_count(args->y) / outputs;
    const mbl_tensor_t whole = mbl_tensor_reshape(args->y, 2, all, outputs);
    const mbl_tensor_t y = mbl_tensor_rows(&whole, first, windows->dim[0]);
    const mbl_tensor_t weight = mbl_tensor_reshape(args->weight, 2, outputs, windows->dim[1]);
    mbl_matmul_args_t product = {};
    product.y = &y, product.a = windows, product.b = &weight, product.bias = args->bias;
    product.transpose_b = true, product.accumulate = args->accumulate;
    return mbl_cuda_matmul(ops, &product);
}

extern "C" mbl_status_t mbl_cuda_conv2d(mbl_ops_t *ops, const mbl_conv2d_args_t *args) {
    const mbl_tensor_t *x = args->x, *weight = args->weight;
    const size_t rows = mbl_tensor_count(args->y) / args->y->dim[3], channels = x->dim[3];
    const size_t length = weight->dim[1] * weight->dim[2] * channels;
    if (length == channels && args->up == 1) {
        const mbl_tensor_t pixels = mbl_tensor_reshape(x, 2, rows, channels);
        return multiply(ops, args, &pixels, 0);
    }
    const size_t row_bytes = length * mbl_dtype_size(x->dtype);
    size_t band = band_bytes / row_bytes / tile * tile;
    band = band < tile ? tile : band;
    band = band < rows ? band : rows;
    void *work;
    MBL_TRY(mbl_cuda_workspace(ops, band * row_bytes, &work));
    for (size_t first = 0; first < rows; first += band) {
        const size_t here = rows - first < band ? rows - first : band;
        const mbl_tensor_t windows = mbl_tensor_of(work, x->dtype, MBL_DEVICE, 2, here, length);
        MBL_TRY(run_lay_out(ops, args, work, first, here));
        MBL_TRY(multiply(ops, args, &windows, first));
    }
    return MBL_OK;
}
