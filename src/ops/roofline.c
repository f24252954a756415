/* Datasheet rates, dense (without structured sparsity), without tensor cores for f32 and f64. */
#include "ops/roofline.h"

#include <string.h>

/* Sources: "NVIDIA A100 Tensor Core GPU" datasheet (80 GB SXM); "NVIDIA H100 Tensor Core GPU" datasheet
 * (SXM); "NVIDIA H200 Tensor Core GPU" datasheet (SXM); "NVIDIA Blackwell" datasheet (HGX B200, per GPU at
 * 1,000 W; 180 GB usable). Where a sheet gives the rate with sparsity, half of it stands here. Links: NVLink
 * 3, 4, 5 in one direction; an adapter of 200 Gb/s for every GPU of a DGX A100, of 400 Gb/s of the others. */
static const mbl_gpu_t gpus[] = {
    {"a100",
     "A100 SXM 80 GB",
     "NVIDIA A100-SXM4-80GB",
     {312e12, 19.5e12, 9.7e12},
     2.039e12,
     80e9,
     108,
     300e9,
     25e9},
    {"h100", "H100 SXM", "NVIDIA H100 80GB HBM3", {989e12, 67e12, 34e12}, 3.35e12, 80e9, 132, 450e9, 50e9},
    {"h200", "H200 SXM", "NVIDIA H200", {989e12, 67e12, 34e12}, 4.8e12, 141e9, 132, 450e9, 50e9},
    {"b200", "B200 HGX", "NVIDIA B200", {2250e12, 80e12, 40e12}, 8.0e12, 180e9, 148, 900e9, 50e9},
};
enum { GPUS = sizeof gpus / sizeof *gpus };

const mbl_gpu_t *mbl_gpu_at(size_t i) {
    return i < GPUS ? &gpus[i] : NULL;
}

const mbl_gpu_t *mbl_gpu_of_device(const char *description) {
    for (size_t i = 0; i < GPUS; i++) {
        const size_t length = strlen(gpus[i].device);
        if (strncmp(description, gpus[i].device, length) == 0 && description[length] == ',')
            return &gpus[i];
    }
    return NULL;
}

const mbl_gpu_t *mbl_gpu_find(const char *name) {
    for (size_t i = 0; i < GPUS; i++)
        if (strcmp(gpus[i].name, name) == 0)
            return &gpus[i];
    return NULL;
}

double mbl_roofline(const mbl_gpu_t *gpu, const mbl_cost_t *cost, double launch) {
    double seconds = cost->bytes / gpu->bandwidth;
    for (int unit = 0; unit < MBL_UNITS; unit++)
        if (cost->flops[unit] / gpu->peak[unit] > seconds)
            seconds = cost->flops[unit] / gpu->peak[unit];
    return seconds + launch * (double)cost->launches;
}
