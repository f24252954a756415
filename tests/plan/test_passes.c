/* src/plan/passes: what is counted without weights is what the same encoders and the same decoder count with
 * them; how often it is run; and what an estimate makes of it. */
#include "support.h"

#include "base/mem.h"
#include "model/embeds.h"
#include "plan/estimate.h"
#include "plan/passes.h"

#include <string.h>

#define assert_ok(expr) assert_int_equal((expr), MBL_OK)
#define PROMPTS MBL_SOURCE_DIR "/tests/golden/prompt"
#define PIPELINE MBL_SOURCE_DIR "/tests/golden/pipeline"

enum { WIDTH = 40, TOKENS = 28 };

static void assert_same(const mbl_cost_item_t *a, size_t n, const mbl_cost_item_t *b, size_t n_b) {
    assert_true(n > 0);
    assert_int_equal(n, n_b);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].row, b[i].row);
        assert_int_equal(a[i].calls, b[i].calls);
        assert_memory_equal(&a[i].cost, &b[i].cost, sizeof a[i].cost);
    }
}

/* Prompts encoded once more, after the weights are there. */
static const mbl_cost_item_t *encode(mbl_text_t *text, mbl_ops_t *ops, mbl_dtype_t dtype, size_t *items) {
    enum { N = 3 };
    static const char *const prompts[N] = {"a photo", "a sign", ""};
    mbl_tensor_t context, pooled;
    assert_ok(mbl_tensor_new(ops, dtype, &context, 3, (size_t)N, mbl_text_tokens(text), (size_t)WIDTH));
    assert_ok(mbl_tensor_new(ops, dtype, &pooled, 2, (size_t)N, mbl_text_pooled(text)));
    for (int i = 0; i < 2; i++) {
        (void)mbl_cost_model_take(ops, items);
        assert_ok(mbl_text_encode(text, prompts, N, &context, &pooled));
    }
    const mbl_cost_item_t *out = mbl_cost_model_take(ops, items);
    mbl_tensor_free(ops, &context);
    mbl_tensor_free(ops, &pooled);
    return out;
}

static void blank_encoders_count_as_real_ones(void **state) {
    static const mbl_dtype_t dtypes[] = {MBL_BF16, MBL_F32};
    const mbl_text_options_t options = {.max_tokens = TOKENS};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        mbl_ops_t *ops[2];
        mbl_text_t *text[2];
        size_t n[2];
        const mbl_cost_item_t *item[2];
        for (int blank = 0; blank < 2; blank++) {
            assert_ok(mbl_cost_model_open(&ops[blank]));
            assert_ok(blank ? mbl_text_blank(ops[1], dtypes[i], PROMPTS, &options, &text[1])
                            : mbl_text_open(ops[0], dtypes[i], PROMPTS, &options, &text[0]));
            assert_int_equal(mbl_text_tokens(text[blank]), mbl_text_tokens(text[0]));
            assert_int_equal(mbl_text_width(text[blank]), WIDTH);
            item[blank] = encode(text[blank], ops[blank], dtypes[i], &n[blank]);
        }
        assert_same(item[0], n[0], item[1], n[1]);
        for (int blank = 0; blank < 2; blank++) {
            mbl_text_close(text[blank]);
            assert_int_equal(mbl_cost_model_live(ops[blank]), 0);
            mbl_ops_close(ops[blank]);
        }
    }
}

static mbl_plan_shape_t of_pipeline(void) {
    mbl_plan_shape_t shape = {.dtype = MBL_BF16,
                              .tokens = TOKENS,
                              .images = 5,
                              .rollout_batch = 2,
                              .decode_bytes = 1 << 30,
                              .decode_tile = 128};
    assert_ok(mbl_plan_read_model(PIPELINE "/transformer/config.json", 0, &shape));
    assert_ok(mbl_vae_config_read(PIPELINE "/vae/config.json", &shape.vae));
    return shape;
}

/* Two images decoded by the decoder with its weights. */
static const mbl_cost_item_t *decode(mbl_ops_t *ops, const mbl_plan_shape_t *shape, size_t *items) {
    static uint8_t rgb[1 << 20];
    const size_t side = shape->sizes.side, n = shape->rollout_batch;
    mbl_vae_t *vae;
    mbl_vae_decoder_t *decoder;
    mbl_tensor_t latents;
    assert_ok(mbl_vae_open(ops, shape->dtype, PIPELINE "/vae", MBL_VAE_DECODER, &vae));
    assert_true(n * side * side * 3 * mbl_vae_scale(&shape->vae) * mbl_vae_scale(&shape->vae) <= sizeof rgb);
    assert_ok(mbl_vae_decoder_new(vae, n, side, side, &decoder));
    assert_ok(mbl_tensor_new(ops, MBL_F32, &latents, 4, n, shape->vae.latent_channels, side, side));
    (void)mbl_cost_model_take(ops, items);
    assert_ok(mbl_vae_decode_bytes(decoder, &latents, rgb, NULL));
    const mbl_cost_item_t *out = mbl_cost_model_take(ops, items);
    mbl_tensor_free(ops, &latents);
    mbl_vae_decoder_free(decoder);
    mbl_vae_close(vae);
    return out;
}

static size_t launches(const mbl_plan_count_t *count, int row) {
    size_t sum = 0;
    for (size_t i = 0; i < count->n; i++)
        if (count->item[i].row == row)
            sum += count->item[i].cost.launches * (size_t)count->item[i].calls;
    return sum;
}

static void a_blank_decoder_counts_as_a_real_one(void **state) {
    mbl_plan_shape_t shape = of_pipeline();
    mbl_plan_count_t count = {0}, single = {0}, tiled = {0}, none = {0};
    mbl_ops_t *ops;
    size_t n;
    (void)state;
    assert_ok(mbl_cost_model_open(&ops));
    assert_ok(mbl_plan_count_decoder(&shape, &count));
    assert_int_equal(count.times, 3);
    assert_near(count.share, 5.0 / 6, 1e-12);
    const mbl_cost_item_t *item = decode(ops, &shape, &n);
    assert_same(count.item, count.n, item, n);
    mbl_ops_close(ops);
    shape.decode_bytes = 1; /* one by one */
    assert_ok(mbl_plan_count_decoder(&shape, &single));
    assert_int_equal(launches(&single, MBL_OP_group_norm), 2 * launches(&count, MBL_OP_group_norm));
    shape.decode_tile = 4; /* in overlapping tiles */
    assert_true(shape.sizes.side > shape.decode_tile);
    assert_ok(mbl_plan_count_decoder(&shape, &tiled));
    assert_true(launches(&tiled, MBL_OP_group_norm) > launches(&single, MBL_OP_group_norm));
    shape.vae.blocks = 0;
    assert_ok(mbl_plan_count_decoder(&shape, &none));
    assert_int_equal(none.n + none.times, 0);
    mbl_free(count.item);
    mbl_free(single.item);
    mbl_free(tiled.item);
    mbl_plan_shape_free(&shape);
}

/* 130 prompts are encoded 64, 64 and 2 at a time; an estimate goes by how many there are. */
static void prompts_of_a_rank(void **state) {
    char folder[] = PROMPTS;
    mbl_plan_shape_t shape = {
        .dtype = MBL_BF16, .folder = folder, .text_options = {.max_tokens = TOKENS}, .encoded = 130};
    const mbl_gpu_t *h100 = mbl_gpu_find("h100");
    mbl_plan_estimate_t all, full;
    mbl_plan_t plan = {0};
    (void)state;
    shape.sizes.context_width = WIDTH;
    assert_ok(mbl_plan_count_text(&shape, &plan.phase[MBL_PLAN_TEXT]));
    assert_int_equal(plan.phase[MBL_PLAN_TEXT].times, 3);
    mbl_plan_estimate_text(h100, &plan, &all);
    mbl_plan_free(&plan);
    shape.encoded = MBL_EMBEDS_AT_ONCE;
    assert_ok(mbl_plan_count_text(&shape, &plan.phase[MBL_PLAN_TEXT]));
    assert_int_equal(plan.phase[MBL_PLAN_TEXT].times, 1);
    mbl_plan_estimate_text(h100, &plan, &full);
    assert_true(full.bound > 0 && full.kernels > full.bound && full.gaps > 0);
    assert_near(full.seconds, full.kernels + full.tails + full.gaps, 1e-12);
    assert_near(all.seconds, full.seconds * 130 / 64, 1e-9 * all.seconds);
    assert_near(all.bound, full.bound * 130 / 64, 1e-9 * all.bound);
    mbl_plan_free(&plan);
    shape.encoded = 0;
    assert_ok(mbl_plan_count_text(&shape, &plan.phase[MBL_PLAN_TEXT]));
    assert_int_equal(plan.phase[MBL_PLAN_TEXT].n, 0);
}

/* Decoding is of an epoch, encoding is not. */
static void an_epoch_has_its_decoding(void **state) {
    mbl_plan_shape_t shape = of_pipeline();
    const mbl_gpu_t *h100 = mbl_gpu_find("h100");
    mbl_plan_t plan = {0};
    mbl_plan_estimate_t without, with;
    (void)state;
    mbl_plan_estimate(h100, &shape, &plan, &without);
    assert_near(without.seconds, 0, 0);
    assert_ok(mbl_plan_count_decoder(&shape, &plan.phase[MBL_PLAN_DECODE]));
    mbl_plan_estimate(h100, &shape, &plan, &with);
    assert_true(with.bound > 0 && with.seconds > with.bound);
    plan.phase[MBL_PLAN_TEXT] = plan.phase[MBL_PLAN_DECODE];
    mbl_plan_estimate(h100, &shape, &plan, &without);
    assert_near(with.seconds, without.seconds, 0);
    plan.phase[MBL_PLAN_TEXT] = (mbl_plan_count_t){0};
    mbl_plan_free(&plan);
    mbl_plan_shape_free(&shape);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(blank_encoders_count_as_real_ones),
                                       cmocka_unit_test(a_blank_decoder_counts_as_a_real_one),
                                       cmocka_unit_test(prompts_of_a_rank),
                                       cmocka_unit_test(an_epoch_has_its_decoding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
