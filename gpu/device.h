/* Which GPU a rank takes, and whether it can be used at all. */
#ifndef MBL_GPU_DEVICE_H
#define MBL_GPU_DEVICE_H

#include "base/status.h"

typedef struct {
    int index, count; /* among those that CUDA_VISIBLE_DEVICES leaves */
    int capability;   /* compute capability, 90 for 9.0 */
    int driver;       /* newest CUDA the driver takes, 13000 for 13.0 */
    int multiprocessors;
    int claim;     /* holds the GPU against other ranks; -1: none */
    size_t memory; /* bytes */
    char name[128];
} mbl_device_t;

/* Chooses the device of this process (its rank on this host, from Open MPI, Slurm or PMI, counted through the
 * visible devices), makes it the calling thread's, and fills *device; claim must be -1 before.
 * ERR_UNSUPPORTED without a driver, with one that is too old, or without a usable device; ERR_DEVICE where
 * two ranks of a job would share a GPU (the second one says so), unless MARBLE_SHARE_GPU=1 allows it. Give
 * the claim back with mbl_device_release. */
mbl_status_t mbl_device_open(mbl_device_t *device);
void mbl_device_release(mbl_device_t *device);

#endif
