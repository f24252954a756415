/* Tiles of bf16 in shared memory: rows of `width` numbers (32, 64 or 128) in chunks of 16 bytes. The place of
 * a chunk within its row depends on the row, so that eight chunks below each other, which one matrix load
 * reads, and eight beside each other, which a copy writes, lie in different banks. */
#ifndef MBL_GPU_TILE_H
#define MBL_GPU_TILE_H

#include "gpu/elem.h"
#include "gpu/mma.h"
#include "gpu/rows.h"

typedef __nv_bfloat16 mbl_bf16_t;

enum { MBL_CHUNK = 8, MBL_CHUNK_BYTES = 16 };

static __host__ __device__ constexpr int mbl_tile_bytes(int rows, int width) {
    return rows * width * 2;
}

/* Which way round the chunks of a row are: eight successive rows of 64 or more differ, for 32 eight
 * successive half-lines do. */
template <int width> static __device__ __forceinline__ int mbl_tile_turn(int row) {
    return width == 32 ? row >> 1 & 3 : row & 7;
}

/* Bytes from the start of the tile to a chunk. */
template <int width> static __device__ __forceinline__ int mbl_tile_at(int row, int chunk) {
    return row * width * 2 + ((chunk ^ mbl_tile_turn<width>(row)) * MBL_CHUNK_BYTES);
}

/* The 8 numbers of a chunk that may be cut short or not aligned, with zeros beyond `width`. */
static __device__ __forceinline__ uint4 mbl_load_chunk(const mbl_bf16_t *from, int first, int width) {
    uint32_t word[4];
    MBL_UNROLL
    for (int i = 0; i < 4; i++) {
        int at = first + 2 * i;
        float low = at < width ? __bfloat162float(from[at]) : 0;
        float high = at + 1 < width ? __bfloat162float(from[at + 1]) : 0;
        word[i] = mbl_pack_bf16(low, high);
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* Starts the copy of rows t0 .. t0 + n_rows - 1 to a tile by all `threads` of the block; rows beyond the
 * count and columns beyond `width_given` become zeros. whole: rows are aligned to 16 bytes and full of whole
 * chunks, and the copies are asynchronous. */
template <int width, int n_rows, int threads, bool whole, class rows_t>
static __device__ __forceinline__ void mbl_tile_load(unsigned char *tile, const rows_t &rows, int t0,
                                                     int width_given) {
    constexpr int across = width / MBL_CHUNK, step = threads / across; /* rows at a time */
    static_assert(threads % across == 0 && step % 8 == 0 && n_rows % step == 0, "whole turns");
    const int row = (int)threadIdx.x / across, chunk = (int)threadIdx.x % across;
    unsigned char *to = tile + mbl_tile_at<width>(row, chunk);
    if (whole) {
        const bool inside = chunk * MBL_CHUNK < width_given;
        MBL_UNROLL
        for (int i = 0; i < n_rows; i += step, to += step * width * 2)
            mbl_copy16(to, mbl_row(rows, t0 + row + i) + chunk * MBL_CHUNK,
                       inside && t0 + row + i < rows.count);
    } else {
        for (int t = t0 + row; t < t0 + n_rows; t += step, to += step * width * 2)
            *(uint4 *)to = mbl_load_chunk(mbl_row(rows, t < rows.count ? t : 0), chunk * MBL_CHUNK,
                                          t < rows.count ? width_given : 0);
    }
}

/* Which 8 x 8 matrix a lane points into, and where, when a warp loads a 16 x 16 piece of a tile: in `down`
 * the second matrix lies below the first, in `along` beside it.
 *   a of a product from a tile [m,k]: down;                 from a tile [k,m]: along, transposed
 *   b of two products from a tile [n,k]: along;             from a tile [k,n]: down, transposed
 * (b: words 0, 1 are columns 0..7 of the product, words 2, 3 columns 8..15). */
typedef struct {
    int row, chunk; /* the lane's own, within the piece */
} mbl_lane_t;
static __device__ __forceinline__ mbl_lane_t mbl_lane_down() {
    int lane = (int)threadIdx.x % MBL_WARP;
    return {lane & 15, lane >> 4};
}
static __device__ __forceinline__ mbl_lane_t mbl_lane_along() {
    int lane = (int)threadIdx.x % MBL_WARP;
    return {(lane & 7) | (lane >> 4) << 3, lane >> 3 & 1};
}

/* The piece at rows row.. and columns column.., both multiples of 16. */
template <int width>
static __device__ __forceinline__ const unsigned char *mbl_tile_piece(const unsigned char *tile,
                                                                      mbl_lane_t lane, int row, int column) {
    int turned = lane.chunk ^ mbl_tile_turn<width>(lane.row); /* rows of a piece start at a multiple of 16 */
    return tile + (row + lane.row) * width * 2 + ((column / MBL_CHUNK ^ turned) * MBL_CHUNK_BYTES);
}
template <int width>
static __device__ __forceinline__ void mbl_tile_get(uint32_t out[4], const unsigned char *tile,
                                                    mbl_lane_t lane, int row, int column) {
    mbl_load_matrices(out, mbl_tile_piece<width>(tile, lane, row, column));
}
template <int width>
static __device__ __forceinline__ void mbl_tile_get_transposed(uint32_t out[4], const unsigned char *tile,
                                                               mbl_lane_t lane, int row, int column) {
    mbl_load_matrices_transposed(out, mbl_tile_piece<width>(tile, lane, row, column));
}

/* Puts two numbers of a result to a tile: row, and the first of two columns (even). */
template <int width>
static __device__ __forceinline__ void mbl_tile_put(unsigned char *tile, int row, int column, float x,
                                                    float y) {
    *(uint32_t *)(tile + mbl_tile_at<width>(row, column / MBL_CHUNK) + column % MBL_CHUNK * 2) =
        mbl_pack_bf16(x, y);
}

/* Writes rows row .. row + n_rows - 1 of a tile, which only this warp has touched, to rows t0 + row.. of
 * global memory; whole: in chunks, else number by number up to `width_given`. */
template <int width, int n_rows, bool whole, class rows_t>
static __device__ __forceinline__ void mbl_tile_store(const rows_t &rows, const unsigned char *tile, int row,
                                                      int t0, int width_given) {
    constexpr int across = width / MBL_CHUNK;
    MBL_UNROLL
    for (int first = 0; first < n_rows * across; first += MBL_WARP) {
        int i = first + (int)threadIdx.x % MBL_WARP, at = row + i / across, chunk = i % across;
        if (t0 + at >= rows.count)
            continue;
        const unsigned char *from = tile + mbl_tile_at<width>(at, chunk);
        mbl_bf16_t *to = mbl_row(rows, t0 + at) + chunk * MBL_CHUNK;
        if (whole)
            *(uint4 *)to = *(const uint4 *)from;
        else
            for (int c = 0; c < MBL_CHUNK && chunk * MBL_CHUNK + c < width_given; c++)
                to[c] = ((const mbl_bf16_t *)from)[c];
    }
}

#endif
