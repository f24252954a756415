/* marble bench decode: the image decoder of a model folder at its full size. */
#include "cli/bench/bench.h"

#include "base/mem.h"
#include "model/vae/vae.h"

#include <stdio.h>

typedef struct {
    const mbl_bench_t *bench;
    mbl_ops_t *ops;
    mbl_vae_t *vae;
    mbl_vae_decoder_t *decoder;
    mbl_tensor_t latents;
    uint8_t *rgb;
} decode_t;

static mbl_status_t run(void *context) {
    decode_t *w = context;
    return mbl_vae_decode_bytes(w->decoder, &w->latents, w->rgb, NULL);
}

static mbl_status_t open_all(decode_t *w, mbl_dtype_t dtype, const char *folder) {
    const mbl_bench_t *bench = w->bench;
    MBL_TRY(mbl_vae_open(w->ops, dtype, folder, MBL_VAE_DECODER, &w->vae));
    const mbl_vae_config_t *config = mbl_vae_config(w->vae);
    const size_t scale = mbl_vae_scale(config), side = bench->size / scale;
    if (side == 0 || bench->size % scale)
        return MBL_FAIL(MBL_ERR_USAGE, "--size: %zu; expected a multiple of %zu", bench->size, scale);
    MBL_TRY(mbl_vae_decoder_new(w->vae, bench->batch, side, side, &w->decoder));
    MBL_TRY(
        mbl_bench_random(w->ops, MBL_F32, &w->latents, bench->batch, config->latent_channels, side, side));
    MBL_ALLOC(w->rgb, bench->batch * bench->size * bench->size * 3);
    return MBL_OK;
}

static mbl_status_t time_one(decode_t *w, mbl_dtype_t dtype) {
    mbl_bench_case_t one = {run, w, NULL};
    char what[80];
    mbl_status_t status = mbl_bench_alternate(w->bench, &one, 1);
    if (status == MBL_OK) {
        mbl_bench_time_t time = mbl_bench_time(one.seconds, w->bench->runs);
        const mbl_bench_figure_t figures[] = {{"peak_gib", (double)mbl_mem_peak() / 1073741824.0, NULL},
                                              {"type", 0, mbl_dtype_name(dtype)}};
        snprintf(what, sizeof what, "%zu of %zu x %zu", w->bench->batch, w->bench->size, w->bench->size);
        status = mbl_bench_print(w->bench, "decode", what, &time, figures, sizeof figures / sizeof *figures);
    }
    mbl_bench_forget(&one, 1);
    return status;
}

static void close_all(decode_t *w) {
    if (w->ops) {
        mbl_vae_decoder_free(w->decoder);
        mbl_vae_close(w->vae);
        mbl_tensor_free(w->ops, &w->latents);
        mbl_ops_close(w->ops);
    }
    mbl_free(w->rgb);
}

mbl_status_t mbl_bench_decode(const mbl_bench_t *bench) {
    decode_t w = {.bench = bench};
    if (!bench->model)
        return MBL_FAIL(MBL_ERR_USAGE, "bench decode: expected --model with the folder of a model");
    char *folder = mbl_format("%s/vae", bench->model);
    mbl_status_t status = folder ? mbl_ops_open(bench->device, bench->threads, &w.ops)
                                 : MBL_FAIL(MBL_ERR_MEM, "no memory for a folder name");
    if (status == MBL_OK) {
        const mbl_dtype_t dtype = mbl_ops_bf16_is_native(w.ops) ? MBL_BF16 : MBL_F32;
        status = open_all(&w, dtype, folder);
        if (status == MBL_OK)
            status = time_one(&w, dtype);
    }
    close_all(&w);
    mbl_free(folder);
    return status;
}
