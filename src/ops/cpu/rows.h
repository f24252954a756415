/* Addresses inside strided tensors, for the CPU loops. */
#ifndef MBL_OPS_CPU_ROWS_H
#define MBL_OPS_CPU_ROWS_H

#include "ops/tensor.h"

/* The address of t[i,...], t[i,j,...] and t[i,j,k,...] as a pointer to `type`. */
#define MBL_ROW2(type, t, i) ((type *)(t)->data + (i) * (t)->stride[0])
#define MBL_ROW3(type, t, i, j) ((type *)(t)->data + (i) * (t)->stride[0] + (j) * (t)->stride[1])
#define MBL_ROW4(type, t, i, j, k)                                                                           \
    ((type *)(t)->data + (i) * (t)->stride[0] + (j) * (t)->stride[1] + (k) * (t)->stride[2])

#endif
