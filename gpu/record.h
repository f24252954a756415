/* Recorded parts: between mbl_ops_record_begin and _end operations are collected with all their arguments. A
 * part that was seen before, to the last pointer and scalar, runs as one CUDA graph; so a graph is never out
 * of date, and what changes from time to time (timesteps, coefficients) has to be in device memory to profit.
 */
#ifndef MBL_GPU_RECORD_H
#define MBL_GPU_RECORD_H

#include <cuda_runtime_api.h>

#include "ops/ops.h"

typedef struct mbl_cuda_record mbl_cuda_record_t;

mbl_status_t mbl_cuda_record_open(mbl_cuda_record_t **out);
void mbl_cuda_record_close(mbl_cuda_record_t *record); /* NULL is fine */

mbl_status_t mbl_cuda_record_begin(mbl_ops_t *ops);
/* Runs what was collected; with a `status` other than OK drops it and passes the status on. */
mbl_status_t mbl_cuda_record_end(mbl_ops_t *ops, mbl_status_t status);
/* Runs what was collected so far: before the host waits, copies to or from the device, or frees. */
mbl_status_t mbl_cuda_record_flush(mbl_ops_t *ops);
/* Drops all graphs: memory that they use is about to go. */
void mbl_cuda_record_forget(mbl_ops_t *ops);

/* Copies within device memory and clearing, collected like operations. */
mbl_status_t mbl_cuda_record_copy(mbl_ops_t *ops, void *dst, const void *src, size_t bytes);
mbl_status_t mbl_cuda_record_zero(mbl_ops_t *ops, void *ptr, size_t bytes);

/* The slots of the table: collect inside a part, else run at once. */
#define MBL_CUDA_RECORDED(name, need)                                                                        \
    mbl_status_t mbl_cuda_recorded_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args);
MBL_OPS_LIST(MBL_CUDA_RECORDED)
#undef MBL_CUDA_RECORDED

#endif
