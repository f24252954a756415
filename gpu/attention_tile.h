/* Products of the tensor core attention kernels, forward and backward: a warp holds `groups` times 16 rows of
 * the left factor, a tile in shared memory the right one. Private to gpu/attention*.cu. */
#ifndef MBL_GPU_ATTENTION_TILE_H
#define MBL_GPU_ATTENTION_TILE_H

#include "gpu/attention.h"
#include "gpu/tile.h"

/* Rows of a left factor: their tile and the warp's first row there; kept: all of it in registers. */
template <int width, int groups, bool keep> struct left_t {
    const unsigned char *tile;
    int row;
    uint32_t kept[groups][keep ? width / 16 : 1][4];
};

template <int width, int groups, bool keep>
static __device__ __forceinline__ void take_left(left_t<width, groups, keep> &left) {
    const mbl_lane_t down = mbl_lane_down();
    if (keep) {
        MBL_UNROLL
        for (int g = 0; g < groups; g++)
            MBL_UNROLL
        for (int k = 0; k < (keep ? width / 16 : 1); k++)
            mbl_tile_get<width>(left.kept[g][k], left.tile, down, left.row + 16 * g, 16 * k);
    }
}

/* y = left x', for rows row .. row + 8 columns - 1 of the tile x: the sum runs over the head size. */
template <int columns, int width, int groups, bool keep>
static __device__ __forceinline__ void multiply(float (&y)[groups][columns][4],
                                                const left_t<width, groups, keep> &left,
                                                const unsigned char *x, int row) {
    const mbl_lane_t down = mbl_lane_down(), along = mbl_lane_along();
    MBL_UNROLL
    for (int g = 0; g < groups; g++)
        MBL_UNROLL
    for (int c = 0; c < columns; c++)
        MBL_UNROLL
    for (int i = 0; i < 4; i++)
        y[g][c][i] = 0;
    MBL_UNROLL
    for (int k = 0; k < width / 16; k++) {
        uint32_t a[groups][4], b[4];
        MBL_UNROLL
        for (int g = 0; g < groups; g++)
            if (keep) {
                MBL_UNROLL
                for (int i = 0; i < 4; i++)
                    a[g][i] = left.kept[g][keep ? k : 0][i];
            } else {
                mbl_tile_get<width>(a[g], left.tile, down, left.row + 16 * g, 16 * k);
            }
        MBL_UNROLL
        for (int c = 0; c < columns; c += 2) {
            mbl_tile_get<width>(b, x, along, row + 8 * c, 16 * k);
            MBL_UNROLL
            for (int g = 0; g < groups; g++) {
                mbl_mma_bf16(y[g][c], a[g], b);
                mbl_mma_bf16(y[g][c + 1], a[g], b + 2);
            }
        }
    }
}

/* y += p x, for rows row .. row + 8 columns - 1 of the tile x: the sum runs over p's columns. */
template <int width, int columns, int groups>
static __device__ __forceinline__ void weigh(float (&y)[groups][width / 8][4],
                                             const float (&p)[groups][columns][4], const unsigned char *x,
                                             int row) {
    const mbl_lane_t down = mbl_lane_down();
    MBL_UNROLL
    for (int k = 0; k < columns; k += 2) {
        uint32_t a[groups][4], b[4];
        MBL_UNROLL
        for (int g = 0; g < groups; g++)
            MBL_UNROLL
        for (int i = 0; i < 4; i++)
            a[g][i] = mbl_pack_bf16(p[g][k + i / 2][i % 2 * 2], p[g][k + i / 2][i % 2 * 2 + 1]);
        MBL_UNROLL
        for (int c = 0; c < width / 8; c += 2) {
            mbl_tile_get_transposed<width>(b, x, down, row + 8 * k, 8 * c);
            MBL_UNROLL
            for (int g = 0; g < groups; g++) {
                mbl_mma_bf16(y[g][c], a[g], b);
                mbl_mma_bf16(y[g][c + 1], a[g], b + 2);
            }
        }
    }
}

template <int columns, int groups>
static __device__ __forceinline__ void clear(float (&y)[groups][columns][4]) {
    MBL_UNROLL
    for (int g = 0; g < groups; g++)
        MBL_UNROLL
    for (int c = 0; c < columns; c++)
        MBL_UNROLL
    for (int i = 0; i < 4; i++)
        y[g][c][i] = 0;
}

/* Puts y times a factor per row to the warp's rows of a tile, from where they leave in whole chunks. */
template <int columns, int groups>
static __device__ __forceinline__ void put(unsigned char *tile, int row, const float (&y)[groups][columns][4],
                                           const float (&factor)[groups][2]) {
    const int lane = (int)threadIdx.x % MBL_WARP;
    __syncwarp(); /* the rows have been read as a factor */
    MBL_UNROLL
    for (int g = 0; g < groups; g++)
        MBL_UNROLL
    for (int c = 0; c < columns; c++)
        MBL_UNROLL
    for (int h = 0; h < 2; h++)
        mbl_tile_put<8 * columns>(tile, row + 16 * g + 8 * h + lane / 4, 8 * c + lane % 4 * 2,
                                  y[g][c][2 * h] * factor[g][h], y[g][c][2 * h + 1] * factor[g][h]);
    __syncwarp();
}

#endif
