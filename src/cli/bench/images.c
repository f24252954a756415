#include "cli/bench/images.h"

#include "base/mem.h"

mbl_status_t mbl_bench_images_make(mbl_bench_images_t *out) {
    const size_t bytes = (size_t)MBL_BENCH_IMAGES * MBL_BENCH_PIXELS;
    MBL_ALLOC(out->pixels, bytes);
    for (size_t i = 0; i < bytes; i++)
        out->pixels[i] = (uint8_t)(i * i >> 7);
    for (size_t i = 0; i < MBL_BENCH_IMAGES; i++) {
        out->rgb[i] = out->pixels + i * MBL_BENCH_PIXELS;
        out->prompts[i] = "four red circles beside a green triangle";
    }
    return MBL_OK;
}

void mbl_bench_images_free(mbl_bench_images_t *images) {
    mbl_free(images->pixels);
}
