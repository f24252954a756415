/* Images and prompts for benchmarks of reward servers. */
#ifndef MBL_CLI_BENCH_IMAGES_H
#define MBL_CLI_BENCH_IMAGES_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    MBL_BENCH_IMAGES = 64,
    MBL_BENCH_SIDE = 512,
    MBL_BENCH_PIXELS = MBL_BENCH_SIDE * MBL_BENCH_SIDE * 3, /* bytes of an image */
};

typedef struct {
    uint8_t *pixels; /* of all images, one after the other */
    const uint8_t *rgb[MBL_BENCH_IMAGES];
    const char *prompts[MBL_BENCH_IMAGES];
} mbl_bench_images_t;

/* Free with mbl_bench_images_free. */
mbl_status_t mbl_bench_images_make(mbl_bench_images_t *out);
void mbl_bench_images_free(mbl_bench_images_t *images);

#endif
