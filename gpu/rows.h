/* Rows of numbers in global memory that a block reads or writes a tile of. */
#ifndef MBL_GPU_ROWS_H
#define MBL_GPU_ROWS_H

#include "gpu/kernel.h"

/* Rows in global memory, `stride` numbers apart; nothing is touched at or beyond row `count`. In a pair, rows
 * split.. follow from `second`, which is where its row 0 would be. */
template <class T> struct mbl_rows_t {
    T *first;
    size_t stride;
    int count;
};
template <class T> struct mbl_row_pair_t {
    T *first, *second;
    size_t stride;
    int split, count;
};

template <class T> static __device__ __forceinline__ T *mbl_row(const mbl_rows_t<T> &rows, int t) {
    return rows.first + (size_t)t * rows.stride;
}
template <class T> static __device__ __forceinline__ T *mbl_row(const mbl_row_pair_t<T> &rows, int t) {
    return (t < rows.split ? rows.first : rows.second) + (size_t)t * rows.stride;
}

#endif
