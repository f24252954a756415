/* Counting the image decoder and the text encoders. */
#include "plan/passes.h"

#include "base/mem.h"
#include "model/embeds.h"

#include <string.h>

mbl_status_t mbl_plan_take(mbl_ops_t *ops, size_t times, mbl_plan_count_t *out) {
    size_t n;
    const mbl_cost_item_t *items = mbl_cost_model_take(ops, &n);
    out->times = times;
    out->n = n;
    MBL_ALLOC(out->item, n + 1);
    memcpy(out->item, items, n * sizeof *items);
    return MBL_OK;
}

static size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

/* ---- images ---- */

/* In pieces as rl/rollout.c decodes them. */
static mbl_status_t decode(mbl_ops_t *ops, mbl_pipeline_t *p, const mbl_plan_shape_t *s,
                           mbl_plan_count_t *out) {
    const size_t n = s->rollout_batch;
    size_t channels, latent_height, latent_width, height, width, ignored;
    mbl_tensor_t latents = {0};
    mbl_status_t status;
    uint8_t *rgb;
    mbl_pipeline_latent(p, &channels, &latent_height, &latent_width);
    mbl_pipeline_image_size(p, &height, &width);
    MBL_ALLOC(rgb, n * height * width * 3);
    MBL_TRY_GOTO(
        mbl_tensor_new(ops, mbl_dtype_stat(s->dtype), &latents, 4, n, channels, latent_height, latent_width),
        done);
    MBL_TRY_GOTO(mbl_pipeline_prepare_decoding(p, s->images), done);
    (void)mbl_cost_model_take(ops, &ignored); /* making all that is not of an epoch */
    MBL_TRY_GOTO(mbl_pipeline_decode(p, &latents, rgb, NULL), done);
    status = mbl_plan_take(ops, ceil_div(s->images, n), out);
    out->share = (double)s->images / (double)(out->times * n);
done:
    mbl_tensor_free(ops, &latents);
    mbl_free(rgb);
    return status;
}

mbl_status_t mbl_plan_count_decoder(const mbl_plan_shape_t *s, mbl_plan_count_t *out) {
    mbl_ops_t *ops;
    mbl_pipeline_t *p = NULL;
    mbl_status_t status;
    if (s->vae.blocks == 0)
        return MBL_OK;
    MBL_TRY(mbl_cost_model_open(&ops));
    MBL_TRY_GOTO(mbl_pipeline_blank(ops, s->dtype, s->model, s->tokens, &p), done);
    MBL_TRY_GOTO(mbl_pipeline_blank_vae(p, &s->vae), done);
    MBL_TRY_GOTO(mbl_pipeline_set_decoding(p, s->decode_bytes, s->decode_tile), done);
    status = decode(ops, p, s, out);
done:
    mbl_pipeline_close(p);
    mbl_ops_close(ops);
    return status;
}

/* ---- prompts ---- */

static mbl_status_t drop(void *context, size_t i, const void *record) {
    (void)context, (void)i, (void)record;
    return MBL_OK;
}

/* The first prompt brings the weights to the device, and is not counted. */
static mbl_status_t encode(const mbl_encoder_t *encoder, size_t n) {
    static const mbl_embeds_sink_t nowhere = {.put = drop};
    mbl_status_t status;
    size_t ignored;
    uint32_t *which;
    static const char *const any = "";
    MBL_ALLOC(which, n); /* zeros: the same prompt throughout */
    MBL_TRY_GOTO(mbl_embeds_encode(encoder, &any, which, 1, &nowhere), done);
    (void)mbl_cost_model_take(encoder->ops, &ignored);
    status = mbl_embeds_encode(encoder, &any, which, n, &nowhere);
done:
    mbl_free(which);
    return status;
}

mbl_status_t mbl_plan_count_text(const mbl_plan_shape_t *s, mbl_plan_count_t *out) {
    enum { UNIT = MBL_EMBEDS_AT_ONCE };
    const size_t n = s->encoded < UNIT ? s->encoded : UNIT;
    mbl_encoder_t encoder = {.dtype = s->dtype, .width = s->sizes.context_width};
    mbl_status_t status;
    if (n == 0)
        return MBL_OK;
    MBL_TRY(mbl_cost_model_open(&encoder.ops));
    MBL_TRY_GOTO(mbl_text_blank(encoder.ops, s->dtype, s->folder, &s->text_options, &encoder.text), done);
    MBL_TRY_GOTO(encode(&encoder, n), done);
    status = mbl_plan_take(encoder.ops, ceil_div(s->encoded, n), out);
    out->share = (double)s->encoded / (double)(out->times * n);
done:
    mbl_text_close(encoder.text);
    mbl_ops_close(encoder.ops);
    return status;
}
