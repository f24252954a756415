/* Marks of the cuda backend (mbl_ops_mark). */
#ifndef MBL_GPU_MARKS_H
#define MBL_GPU_MARKS_H

#include "gpu/cuda.h"
#include "gpu/record.h"

mbl_status_t mbl_cuda_mark(mbl_ops_t *ops, size_t i);
mbl_status_t mbl_cuda_between(mbl_ops_t *ops, size_t from, size_t to, double *seconds);
void mbl_cuda_marks_close(mbl_cuda_t *cuda);

#endif
