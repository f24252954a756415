/* Time from counts: the roofline of GPUs by their datasheets. */
#ifndef MBL_OPS_ROOFLINE_H
#define MBL_OPS_ROOFLINE_H

#include "ops/cost_model.h"

typedef struct {
    const char *name;       /* "h100" */
    const char *title;      /* "H100 SXM" */
    const char *device;     /* the driver's name for it */
    double peak[MBL_UNITS]; /* operations a second */
    double bandwidth;       /* of device memory, bytes a second */
    double memory;          /* of the device, bytes */
    size_t processors;      /* multiprocessors */
    double link, network;   /* bytes a second and direction of a GPU: to others of its host, to other hosts */
} mbl_gpu_t;

/* NULL: no such GPU; mbl_gpu_at gives NULL after the last one. */
const mbl_gpu_t *mbl_gpu_find(const char *name);
const mbl_gpu_t *mbl_gpu_at(size_t i);
/* By a device's description ("NVIDIA H200, 139.8 GiB, ..."); NULL: none of these. */
const mbl_gpu_t *mbl_gpu_of_device(const char *description);

/* Seconds of one call: the longest of its arithmetic on every unit and of its bytes, and `launch` seconds for
 * each launch. A bound from below: nothing runs faster, real kernels reach a part of it. */
double mbl_roofline(const mbl_gpu_t *gpu, const mbl_cost_t *cost, double launch);

#endif
