/* Rollout on a tiny pipeline with the signs rewards: images and scores belong to the sample, not to the
 * micro-batch, the rank or the worker thread that makes them.
 *
 * ctest-wrap: mbl_dit_forward */
#include "tiny_pipeline.h"

#include "base/share.h"
#include "rl/rollout.h"

enum { PROMPTS = 8, GROUP = 3, N = PROMPTS * GROUP, STEPS = 3, SIDE = MBL_SIGNS_SIZE };
enum { LATENT = 3 * SIDE * SIDE, IMAGE = SIDE * SIDE * 3 };
enum { OCR, COUNT, COLOR, CLEAN, JPEG, K };

static const mbl_reward_spec_t specs[K] = {{.name = "ocr", .type = "ocr"},
                                           {.name = "count", .type = "count"},
                                           {.name = "color", .type = "color"},
                                           {.name = "clean", .type = "clean"},
                                           {.name = "jpeg", .type = "jpeg"}};

typedef struct {
    tiny_t tiny;
    mbl_prompts_t prompts;
    const char *text[PROMPTS];
    mbl_encoder_t encoder;
    mbl_embeds_t *embeds;
    mbl_sampler_plan_t plan;
    bool broken_fails; /* images that are not finite fail */
} fixture_t;

/* What a rollout of N samples leaves behind. */
typedef struct {
    float x0[N * LATENT];
    uint8_t rgb[N * IMAGE];
    mbl_score_t scores[N * K];
} result_t;

static mbl_status_t keep(void *context, size_t i, const void *record) {
    fixture_t *w = context;
    size_t bytes = mbl_embeds_bytes(&w->encoder);
    memcpy(mbl_embeds_host(w->embeds) + i * bytes, record, bytes);
    return MBL_OK;
}

/* On the device, the prompts of one micro-batch at a time. */
static void encode(fixture_t *w) {
    uint32_t all[PROMPTS];
    w->encoder = mbl_pipeline_encoder(w->tiny.pipeline);
    for (uint32_t i = 0; i < PROMPTS; i++)
        all[i] = i;
    assert_ok(mbl_embeds_new(&w->encoder, w->text, PROMPTS, 0, &w->embeds));
    assert_non_null(mbl_embeds_host(w->embeds));
    assert_ok(mbl_embeds_encode(&w->encoder, w->text, all, PROMPTS, &(mbl_embeds_sink_t){keep, NULL, w}));
}

static void open_fixture(fixture_t *w, mbl_dtype_t dtype) {
    memset(w, 0, sizeof *w);
    assert_ok(mbl_prompts_load("signs", NULL, 3, 0, PROMPTS, &w->prompts));
    for (size_t i = 0; i < PROMPTS; i++)
        w->text[i] = w->prompts.items[i].text;
    tiny_open(&w->tiny, dtype, 1, 4, SIDE, 8, 2, w->text, PROMPTS);
    encode(w);
    assert_ok(mbl_sampler_plan(MBL_SOLVER_DPM2, STEPS, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false},
                               &w->plan));
}

static void close_fixture(fixture_t *w) {
    mbl_embeds_free(w->embeds);
    mbl_prompts_free(&w->prompts);
    tiny_close(&w->tiny);
}

static result_t *new_result(void) {
    result_t *result = mbl_calloc(1, sizeof *result);
    assert_non_null(result);
    return result;
}

/* Samples first .. first + n - 1 of the N into their places of `out`, as a rank that has only them does. */
static mbl_status_t roll(fixture_t *w, const mbl_adapter_t *adapter, size_t first, size_t n,
                         size_t micro_batch, size_t threads, const volatile sig_atomic_t *stop,
                         result_t *out) {
    mbl_sampler_t *sampler;
    mbl_scorer_pool_t *pool;
    uint32_t prompt[N];
    int64_t sample[N];
    mbl_image_t images[N];
    const mbl_prompt_t *asked[N];
    for (size_t i = 0; i < n; i++) {
        prompt[i] = (uint32_t)((first + i) / GROUP);
        sample[i] = (int64_t)(first + i);
    }
    mbl_batch_t batch = {.n = n, .n_global = N, .group_size = GROUP, .k = K, .prompt = prompt};
    batch.sample = sample;
    batch.x0 = mbl_tensor_of(out->x0 + first * LATENT, MBL_F32, MBL_HOST, 4, n, (size_t)3, (size_t)SIDE,
                             (size_t)SIDE);
    batch.rgb = out->rgb + first * IMAGE;
    batch.scores = out->scores + first * K;
    assert_ok(mbl_sampler_new(w->tiny.pipeline, w->tiny.lora, micro_batch, &sampler));
    assert_ok(mbl_embeds_room(w->embeds, micro_batch < PROMPTS ? micro_batch : PROMPTS));
    assert_ok(mbl_scorer_pool_open(specs, K, threads, NULL, &pool));
    mbl_rollout_t rollout = {.pipeline = w->tiny.pipeline,
                             .sampler = sampler,
                             .plan = &w->plan,
                             .adapter = adapter,
                             .embeds = w->embeds,
                             .prompts = &w->prompts,
                             .pool = pool,
                             .micro_batch = micro_batch,
                             .seed = 8,
                             .purpose = MBL_RNG_NOISE,
                             .step = 2,
                             .broken_fails = w->broken_fails,
                             .stop = stop};
    mbl_rollout_views_t views = {images, asked};
    mbl_status_t status = mbl_rollout(&rollout, &batch, &views);
    assert_ok(mbl_scorer_pool_wait(pool));
    for (size_t i = 0; status == MBL_OK && i < n; i++) {
        assert_ptr_equal(images[i].rgb, batch.rgb + i * IMAGE);
        assert_ptr_equal(asked[i], &w->prompts.items[prompt[i]]);
    }
    mbl_scorer_pool_close(pool);
    mbl_sampler_free(sampler);
    return status;
}

static void check_same(const result_t *got, const result_t *want, const char *what, size_t value) {
    for (size_t i = 0; i < N; i++) {
        if (memcmp(got->x0 + i * LATENT, want->x0 + i * LATENT, LATENT * sizeof(float)) != 0 ||
            memcmp(got->rgb + i * IMAGE, want->rgb + i * IMAGE, IMAGE) != 0)
            fail_msg("%s %zu: image %zu differs (latents by %.3g)", what, value, i,
                     relative_error_f32(got->x0 + i * LATENT, want->x0 + i * LATENT, LATENT));
        for (size_t k = 0; k < K; k++) {
            assert_int_equal(got->scores[i * K + k].state, want->scores[i * K + k].state);
            assert_near(got->scores[i * K + k].value, want->scores[i * K + k].value, 0);
        }
    }
}

static void batching_does_not_matter(void **state) {
    static const mbl_dtype_t dtypes[] = {MBL_F32, MBL_BF16};
    static const size_t sizes[] = {1, 5, 7, 32};
    (void)state;
    for (size_t d = 0; d < 2; d++) {
        fixture_t w;
        result_t *want = new_result();
        open_fixture(&w, dtypes[d]);
        assert_ok(roll(&w, &w.tiny.old, 0, N, N, 1, NULL, want));
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            result_t *got = new_result();
            assert_ok(roll(&w, &w.tiny.old, 0, N, sizes[s], s, NULL, got));
            check_same(got, want, "micro-batch", sizes[s]);
            mbl_free(got);
        }
        mbl_free(want);
        close_fixture(&w);
    }
}

static void ranks_do_not_matter(void **state) {
    fixture_t w;
    result_t *want = new_result();
    (void)state;
    open_fixture(&w, MBL_F32);
    assert_ok(roll(&w, &w.tiny.old, 0, N, 7, 1, NULL, want));
    for (size_t ranks = 2; ranks <= 5; ranks++) {
        result_t *got = new_result();
        for (size_t rank = 0; rank < ranks; rank++) {
            mbl_share_t own = mbl_share(N, ranks, rank); /* parts of groups */
            assert_ok(roll(&w, &w.tiny.old, own.first, own.n, 7, 1, NULL, got));
        }
        check_same(got, want, "ranks", ranks);
        mbl_free(got);
    }
    mbl_free(want);
    close_fixture(&w);
}

/* A prompt whose images are not finite: in an evaluation every reward that applies fails on them, and only on
 * them; in training they are scored as they look, since the step's loss shows what they are. */
static void images_that_are_not_finite_fail(void **state) {
    enum { BROKEN = 2 };
    const float nan = NAN;
    fixture_t w;
    result_t *want = new_result(), *got = new_result();
    (void)state;
    open_fixture(&w, MBL_F32);
    assert_ok(roll(&w, &w.tiny.old, 0, N, 7, 1, NULL, want));
    size_t bytes = mbl_embeds_bytes(&w.encoder);
    memcpy(mbl_embeds_host(w.embeds) + (BROKEN + 1) * bytes - sizeof nan, &nan,
           sizeof nan);                            /* pooled's end */
    assert_ok(mbl_embeds_room(w.embeds, PROMPTS)); /* all are read anew */
    assert_ok(roll(&w, &w.tiny.old, 0, N, 7, 1, NULL, got));
    for (size_t i = BROKEN * GROUP * K; i < (BROKEN + 1) * GROUP * K; i++)
        assert_int_not_equal(got->scores[i].state, MBL_SCORE_FAILED);
    w.broken_fails = true;
    size_t failed = 0;
    for (size_t threads = 0; threads < 3; threads++, failed = 0) {
        assert_ok(roll(&w, &w.tiny.old, 0, N, 7, threads, NULL, got));
        for (size_t i = 0; i < N * K; i++) {
            bool broken = i / K / GROUP == BROKEN, applies = want->scores[i].state == MBL_SCORE_VALID;
            assert_int_equal(got->scores[i].state,
                             broken && applies ? MBL_SCORE_FAILED : want->scores[i].state);
            assert_near(got->scores[i].value, broken ? 0 : want->scores[i].value, 0);
            failed += got->scores[i].state == MBL_SCORE_FAILED;
        }
        assert_true(failed >= 2 * GROUP); /* clean and jpeg apply to every prompt */
    }
    mbl_free(got);
    mbl_free(want);
    close_fixture(&w);
}

/* Scores are the scorers' own on the decoded images; what does not apply to a sentence is N/A. */
static void scores_are_of_the_images(void **state) {
    fixture_t w;
    result_t *result = new_result();
    size_t na = 0, kinds[3] = {0};
    (void)state;
    open_fixture(&w, MBL_F32);
    assert_ok(roll(&w, &w.tiny.old, 0, N, 5, 2, NULL, result));
    for (size_t i = 0; i < N; i++) {
        mbl_signs_scene_t scene;
        const mbl_prompt_t *prompt = &w.prompts.items[i / GROUP];
        assert_true(mbl_signs_parse(prompt->text, &scene));
        kinds[scene.kind]++;
        for (size_t k = 0; k < K; k++) {
            mbl_image_t image = {SIDE, SIDE, result->rgb + i * IMAGE};
            const mbl_scorer_t *scorer = mbl_scorer_find(specs[k].type);
            const mbl_score_t *got = &result->scores[i * K + k];
            mbl_score_t want = {0};
            void *self = NULL;
            if (scorer->open)
                assert_ok(scorer->open(NULL, &self));
            assert_ok(scorer->score(self, &image, &prompt, 1, &want));
            if (scorer->close)
                scorer->close(self);
            bool applies = k == OCR     ? scene.kind == MBL_SIGNS_TEXT
                           : k == COUNT ? scene.kind == MBL_SIGNS_COUNT
                                        : true;
            assert_int_equal(got->state, applies ? MBL_SCORE_VALID : MBL_SCORE_NA);
            assert_int_equal(got->state, want.state);
            assert_near(got->value, (float)want.value, 0); /* scores count as FP32 */
            na += got->state == MBL_SCORE_NA;
        }
    }
    assert_true(kinds[0] > 0 && kinds[1] > 0 && kinds[2] > 0);
    assert_true(na > 0);
    for (size_t i = 1; i < N; i++) /* every image has noise of its own */
        assert_memory_not_equal(result->rgb + i * IMAGE, result->rgb, IMAGE);
    mbl_free(result);
    close_fixture(&w);
}

static void adapter_is_used(void **state) {
    fixture_t w;
    result_t *old = new_result(), *current = new_result(), *base = new_result();
    (void)state;
    open_fixture(&w, MBL_F32);
    assert_ok(roll(&w, &w.tiny.old, 0, N, N, 1, NULL, old));
    assert_ok(roll(&w, &w.tiny.current, 0, N, N, 1, NULL, current));
    assert_ok(roll(&w, NULL, 0, N, N, 1, NULL, base));
    assert_true(relative_error_f32(current->x0, old->x0, N * LATENT) > 1e-3);
    assert_true(relative_error_f32(base->x0, old->x0, N * LATENT) > 1e-3);
    mbl_free(old);
    mbl_free(current);
    mbl_free(base);
    close_fixture(&w);
}

/* A stop ends the rollout; what was submitted before is still scored safely. */
static void stop_is_obeyed(void **state) {
    fixture_t w;
    result_t *result = new_result();
    const volatile sig_atomic_t stop = 1;
    (void)state;
    open_fixture(&w, MBL_F32);
    assert_int_equal(roll(&w, &w.tiny.old, 0, N, 5, 1, &stop, result), MBL_ERR_STOPPED);
    mbl_free(result);
    close_fixture(&w);
}

/* Where a stop is asked for: at the beginning of pass `stop_at` of the transformer; and what the passes gave.
 */
static volatile sig_atomic_t asked_to_stop;
static size_t passes, stop_at;
static mbl_status_t last_pass;

mbl_status_t __real_mbl_dit_forward(mbl_dit_t *model, const mbl_adapter_t *adapter,
                                    const mbl_dit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *v);
mbl_status_t __wrap_mbl_dit_forward(mbl_dit_t *model, const mbl_adapter_t *adapter,
                                    const mbl_dit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *v);
mbl_status_t __wrap_mbl_dit_forward(mbl_dit_t *model, const mbl_adapter_t *adapter,
                                    const mbl_dit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *v) {
    asked_to_stop |= ++passes == stop_at;
    last_pass = __real_mbl_dit_forward(model, adapter, input, tape, v);
    return last_pass;
}

/* One that comes while the transformer runs does not wait for the end of its pass, which takes a minute where
 * the model is large; and the next rollout is as if it had not been. */
static void stop_ends_a_pass(void **state) {
    fixture_t w;
    result_t *want = new_result(), *got = new_result();
    (void)state;
    open_fixture(&w, MBL_F32);
    stop_at = 0;
    assert_ok(roll(&w, &w.tiny.old, 0, N, 5, 1, NULL, want));
    assert_ok(last_pass);
    for (stop_at = 1; stop_at <= STEPS + 2; stop_at++) {
        passes = 0;
        asked_to_stop = 0;
        assert_int_equal(roll(&w, &w.tiny.old, 0, N, 5, 1, &asked_to_stop, got), MBL_ERR_STOPPED);
        assert_int_equal(passes, stop_at);
        assert_int_equal(last_pass, MBL_ERR_STOPPED);
    }
    stop_at = 0;
    asked_to_stop = 0;
    assert_ok(roll(&w, &w.tiny.old, 0, N, 5, 1, &asked_to_stop, got));
    check_same(got, want, "after a stop", 0);
    mbl_free(want);
    mbl_free(got);
    close_fixture(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batching_does_not_matter),
        cmocka_unit_test(ranks_do_not_matter),
        cmocka_unit_test(images_that_are_not_finite_fail),
        cmocka_unit_test(scores_are_of_the_images),
        cmocka_unit_test(adapter_is_used),
        cmocka_unit_test(stop_is_obeyed),
        cmocka_unit_test(stop_ends_a_pass),
    };
    return cmocka_run_group_tests_name("rollout", tests, NULL, NULL);
}
