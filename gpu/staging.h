/* Copies between host memory that is not pinned and the device, through memory that is. */
#ifndef MBL_GPU_STAGING_H
#define MBL_GPU_STAGING_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "base/status.h"

typedef struct mbl_cuda_staging mbl_cuda_staging_t;

/* *waits grows with every wait after which the device has nothing more to do, or nearly. */
mbl_status_t mbl_cuda_staging_open(uint64_t *waits, mbl_cuda_staging_t **out);
void mbl_cuda_staging_close(mbl_cuda_staging_t *staging); /* NULL is fine; the device has finished */

/* On return src may be reused. A small copy has a slot of a ring and waits for nothing, until the ring is
 * full of copies that are still under way. */
mbl_status_t mbl_cuda_staging_put(mbl_cuda_staging_t *staging, void *dst, const void *src, size_t bytes,
                                  cudaStream_t stream);
/* Waits for all that stands in the stream before it. */
mbl_status_t mbl_cuda_staging_get(mbl_cuda_staging_t *staging, void *dst, const void *src, size_t bytes,
                                  cudaStream_t stream);
/* The host has waited for the stream: no copy is under way. */
void mbl_cuda_staging_passed(mbl_cuda_staging_t *staging);

#endif
