/* src/reward/signs: the five scorers on images whose score is known by construction. */
#include "signs_case.h"

static const uint8_t *rgb_of(const char *name) {
    for (int c = 0; c < mbl_signs_colors(); c++)
        if (strcmp(mbl_signs_color_name(c), name) == 0)
            return mbl_signs_color_rgb(c);
    fail_msg("no colour %s", name);
    return NULL;
}

static pixels_t recolor(pixels_t pixels, const char *from, const char *to) {
    const uint8_t *old = rgb_of(from), *new = rgb_of(to);
    for (int i = 0; i < PIXELS; i++)
        if (memcmp(pixels.rgb + 3 * i, old, 3) == 0)
            memcpy(pixels.rgb + 3 * i, new, 3);
    return pixels;
}

/* Adds a shape at a place. */
static void stamp(pixels_t *pixels, int shape, const uint8_t color[3], int left, int top) {
    for (int y = 0; y < MBL_SHAPE_SIZE; y++)
        for (int x = 0; x < MBL_SHAPE_SIZE; x++)
            if (mbl_signs_shape_pixel(shape, x, y))
                memcpy(pixels->rgb + 3 * ((top + y) * SIZE + left + x), color, 3);
}

/* n shapes of one kind on the ground, at fixed corners. */
static pixels_t group(int shape, const char *color, int n) {
    static const int x[6] = {1, 12, 23, 1, 12, 23}, y[6] = {2, 2, 2, 20, 20, 20};
    pixels_t pixels = flat(mbl_signs_ground_rgb());
    for (int i = 0; i < n; i++)
        stamp(&pixels, shape, rgb_of(color), x[i], y[i]);
    return pixels;
}

/* The ideal is reached by every true drawing, in every reward that applies. */
static void true_drawings_score_best(void **state) {
    (void)state;
    mbl_signs_scene_t scene;
    pixels_t pixels;
    char sentence[64];
    for (size_t i = 0; mbl_signs_scene_at(i, &scene); i++)
        for (uint32_t repeat = 0; repeat < (scene.kind == MBL_SIGNS_TEXT ? 1 : 10); repeat++) {
            mbl_rng_t rng = mbl_rng(14, MBL_RNG_WORLD, repeat, i);
            mbl_signs_draw(&scene, &rng, pixels.rgb);
            mbl_signs_sentence(&scene, sentence);
            mbl_score_t ocr = ask("ocr", &pixels, sentence), count = ask("count", &pixels, sentence);
            assert_int_equal(ocr.state, scene.kind == MBL_SIGNS_TEXT ? MBL_SCORE_VALID : MBL_SCORE_NA);
            assert_int_equal(count.state, scene.kind == MBL_SIGNS_COUNT ? MBL_SCORE_VALID : MBL_SCORE_NA);
            if (ocr.value + count.value != (scene.kind != MBL_SIGNS_HORIZON))
                fail_msg("'%s': ocr %f, count %f", sentence, ocr.value, count.value);
            assert_near(value("color", &pixels, sentence), 1, 1e-6);
            assert_near(value("clean", &pixels, sentence), 1, 1e-6);
        }
}

/* Nothing is gained by drawing less than asked, and a true drawing loses nothing: jpeg is the same for both.
 * Noise costs. */
static void jpeg_saturates_at_a_clean_image(void **state) {
    (void)state;
    mbl_signs_scene_t scene;
    char sentence[64];
    pixels_t empty = flat(mbl_signs_ground_rgb());
    for (size_t i = 0; mbl_signs_scene_at(i, &scene); i++) {
        pixels_t pixels;
        mbl_signs_sentence(&scene, sentence);
        double best = value("jpeg", &empty, sentence);
        for (uint32_t repeat = 0; repeat < (scene.kind == MBL_SIGNS_TEXT ? 1 : 20); repeat++) {
            mbl_rng_t rng = mbl_rng(15, MBL_RNG_WORLD, repeat, i);
            mbl_signs_draw(&scene, &rng, pixels.rgb);
            double own = value("jpeg", &pixels, sentence);
            assert_near(own, best, 1e-12);
        }
        pixels = disturb(pixels, 40);
        if (value("jpeg", &pixels, sentence) > best - 0.2)
            fail_msg("'%s': noise %f, clean %f", sentence, value("jpeg", &pixels, sentence), best);
    }
    /* no limit outside the world: an even image is header and little else */
    mbl_image_t image = {SIZE, SIZE, empty.rgb};
    size_t bytes;
    assert_int_equal(mbl_image_jpeg_bytes(&image, 90, &bytes), MBL_OK);
    assert_near(value("jpeg", &empty, "a photo of a dog"), -(double)bytes / 1000, 1e-12);
    assert_in_range(bytes, 600, 700);
}

static void ocr_reads_what_is_written(void **state) {
    (void)state;
    const char *asked = "a red sign that says \"K7\"";
    pixels_t pixels = draw(asked, 0);
    assert_near(value("ocr", &pixels, asked), 1, 0);
    assert_near(value("ocr", &pixels, "a red sign that says \"K4\""), 0.5, 0);
    assert_near(value("ocr", &pixels, "a red sign that says \"H7\""), 0.5, 0);
    assert_near(value("ocr", &pixels, "a red sign that says \"7K\""), 0, 0);
    assert_near(value("ocr", &pixels, "a red sign that says \"7H\""), 0, 0);
    assert_near(value("ocr", &pixels, "a red sign that says \"CX\""), 0, 0);
    assert_near(value("ocr", &pixels, "a blue sign that says \"K7\""), 1, 0); /* colours are color's */
    pixels = disturb(draw(asked, 0), 40);
    assert_near(value("ocr", &pixels, asked), 1, 0);
    pixels = draw(asked, 0);
    pixels = blur(&pixels);
    assert_near(value("ocr", &pixels, asked), 1, 0);
}

/* Confusions of the least different glyphs in noise stay rare. */
static void ocr_separates_glyphs_in_noise(void **state) {
    (void)state;
    int wrong = 0;
    for (int a = 0; a < MBL_SIGNS_GLYPHS; a++) {
        char sentence[] = "a brown sign that says \"??\"";
        sentence[24] = sentence[25] = mbl_signs_glyphs()[a];
        pixels_t pixels = disturb(draw(sentence, 0), 30);
        wrong += value("ocr", &pixels, sentence) != 1;
    }
    assert_int_equal(wrong, 0);
}

static void ocr_reads_nothing_where_nothing_is(void **state) {
    (void)state;
    const char *asked = "a red sign that says \"K7\"";
    pixels_t empty = flat(mbl_signs_ground_rgb()), plate = flat(rgb_of("red")), half = draw(asked, 0);
    assert_near(value("ocr", &empty, asked), 0, 0);
    assert_near(value("ocr", &plate, asked), 0, 0);
    for (int y = 0; y < SIZE; y++) /* no second glyph */
        for (int x = MBL_GLYPH_X + MBL_GLYPH_STEP; x < SIZE; x++)
            memcpy(half.rgb + 3 * (y * SIZE + x), rgb_of("red"), 3);
    assert_near(value("ocr", &half, asked), 0.5, 0);
    double sum = 0;
    for (uint64_t i = 0; i < 200; i++) {
        pixels_t pixels = noise(i);
        sum += value("ocr", &pixels, asked);
    }
    assert_near(sum / 200, 0, 0.005);
    pixels_t white = draw(asked, 0); /* bright on dark is not ink */
    for (int i = 0; i < 3 * PIXELS; i++)
        white.rgb[i] = (uint8_t)(255 - white.rgb[i]);
    assert_near(value("ocr", &white, asked), 0, 0);
}

static void count_gives_partial_credit(void **state) {
    (void)state;
    const char *three = "three blue circles";
    for (int n = 0; n <= 6; n++) {
        pixels_t pixels = group(0, "blue", n);
        assert_near(value("count", &pixels, three), n <= 3 ? n / 3.0 : 3.0 / n, 1e-12);
    }
    pixels_t wrong = group(1, "blue", 3), other = group(0, "green", 3), mixed = group(0, "blue", 2);
    assert_near(value("count", &wrong, three), 0.5, 1e-12);
    assert_near(value("count", &wrong, "three blue squares"), 1, 0);
    assert_near(value("count", &other, three), 0, 0);
    stamp(&mixed, 2, rgb_of("blue"), 23, 20); /* two circles and a triangle */
    assert_near(value("count", &mixed, three), (1 + 1 + 0.5) / 3, 1e-12);
    stamp(&mixed, 0, rgb_of("red"), 1, 20); /* another colour's are not counted */
    assert_near(value("count", &mixed, three), (1 + 1 + 0.5) / 3, 1e-12);
    pixels_t six = group(1, "blue", 6); /* six squares are not three circles at half the price */
    assert_near(value("count", &six, three), 0.25, 1e-12);
}

static void count_knows_blobs_from_shapes(void **state) {
    (void)state;
    pixels_t full = flat(rgb_of("blue")), empty = flat(mbl_signs_ground_rgb()), specks = group(0, "blue", 3);
    assert_near(value("count", &full, "one blue circle"), 0.25, 1e-12);
    assert_near(value("count", &full, "four blue circles"), 0.0625, 1e-12);
    assert_near(value("count", &empty, "one blue circle"), 0, 0);
    for (int i = 0; i < 11; i++) /* a line of eleven pixels is too small to count */
        memcpy(specks.rgb + 3 * (15 * SIZE + 3 + i), rgb_of("blue"), 3);
    assert_near(value("count", &specks, "three blue circles"), 1, 0);
    memcpy(specks.rgb + 3 * (15 * SIZE + 3 + 11), rgb_of("blue"), 3); /* of twelve, it does */
    assert_near(value("count", &specks, "three blue circles"), 0.75 * (3 + 0.25) / 4, 1e-12);
    for (uint64_t i = 0; i < 50; i++) {
        pixels_t pixels = noise(i);
        assert_near(value("count", &pixels, "two green squares"), 0, 0.3);
    }
}

static void count_survives_blur_and_noise(void **state) {
    (void)state;
    for (int shape = 0; shape < MBL_SHAPES; shape++) {
        static const char *const asked[] = {"four red circles", "four red squares", "four red triangles"};
        pixels_t pixels = disturb(draw(asked[shape], 3), 20);
        assert_near(value("count", &pixels, asked[shape]), 1, 0);
    }
    pixels_t pixels = draw("two red squares", 3);
    pixels = blur(&pixels);
    assert_in_range(value("count", &pixels, "two red squares") >= 0.5, 1, 1);
}

static void color_is_the_right_share(void **state) {
    (void)state;
    const char *sign = "a red sign that says \"K7\"", *three = "three blue circles";
    pixels_t pixels = draw(sign, 0), other = recolor(pixels, "red", "green");
    assert_near(value("color", &other, sign), 0, 1e-6);
    assert_near(value("color", &other, "a green sign that says \"K7\""), 1, 1e-6);
    assert_near(value("color", &other, "a green sign that says \"X1\""), 1, 1e-6); /* glyphs are ocr's */
    pixels = group(0, "blue", 3);
    stamp(&pixels, 0, rgb_of("red"), 1, 20);
    assert_near(value("color", &pixels, three), 0.75, 1e-6);
    pixels = group(0, "blue", 1); /* less than two thirds of what was asked for: 52 of 104 */
    assert_near(value("color", &pixels, three), 0.5, 1e-6);
    pixels = group(0, "blue", 4); /* counting is count's */
    assert_near(value("color", &pixels, three), 1, 1e-6);
}

static void color_of_a_horizon(void **state) {
    (void)state;
    const char *asked = "green above purple";
    pixels_t pixels = draw(asked, 1), all = flat(rgb_of("green"));
    assert_near(value("color", &pixels, "purple above green"), (MBL_HORIZON_LAST - MBL_HORIZON_FIRST) / 32.0,
                1e-6);
    assert_near(value("color", &all, asked), MBL_HORIZON_LAST / 32.0, 1e-6);
    pixels = recolor(pixels, "purple", "yellow");
    double share = value("color", &pixels, asked);
    assert_true(share >= MBL_HORIZON_FIRST / 32.0 && share <= MBL_HORIZON_LAST / 32.0);
}

static void color_of_nothing(void **state) {
    (void)state;
    static const char *const asked[] = {"a red sign that says \"K7\"", "three blue circles",
                                        "green above purple", "four pink squares", "pink above yellow"};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        pixels_t empty = flat(mbl_signs_ground_rgb()), ink = flat(mbl_signs_ink_rgb()), random = noise(i);
        assert_near(value("color", &empty, asked[i]), 0, 1e-6);
        assert_near(value("color", &ink, asked[i]), 0, 1e-6);
        assert_near(value("color", &random, asked[i]), 0, 0.2);
        double last = 1;
        for (int deviation = 20; deviation <= 80; deviation += 20) { /* a slope all the way */
            pixels_t pixels = disturb(draw(asked[i], 0), (float)deviation);
            double now = value("color", &pixels, asked[i]);
            assert_true(now < last);
            last = now;
        }
    }
}

static void clean_falls_with_blur_and_noise(void **state) {
    (void)state;
    const char *asked = "a red sign that says \"K7\"";
    pixels_t pixels = draw(asked, 0), soft = blur(&pixels), softer = blur(&soft), random = noise(0);
    double once = value("clean", &soft, asked), twice = value("clean", &softer, asked);
    assert_true(once < 0.8 && twice < once - 0.02);
    assert_true(value("clean", &random, asked) < 0.35);
    double last = 1;
    for (int deviation = 10; deviation <= 60; deviation += 10) {
        pixels_t rough = disturb(pixels, (float)deviation);
        double now = value("clean", &rough, asked);
        if (!(now < last - 0.02))
            fail_msg("noise of %d: %f after %f", deviation, now, last);
        last = now;
    }
    for (int y = 0; y < 8;
         y++) /* a quarter of the image grey, 45 from the nearest colour but not less than 70 */
        for (int x = 0; x < SIZE; x++)
            memcpy(pixels.rgb + 3 * (y * SIZE + x), (uint8_t[3]){170, 170, 170}, 3);
    assert_near(value("clean", &pixels, asked), 0.75, 1e-6);
    assert_near(value("clean", &pixels, "a photo of a dog"), 0.75, 1e-6);
}

static void other_sentences_do_not_apply(void **state) {
    (void)state;
    pixels_t pixels = draw("three blue circles", 0);
    static const char *const others[] = {"a photo of a dog", "", "a billboard that says \"HELLO\""};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ask("ocr", &pixels, others[i]).state, MBL_SCORE_NA);
        assert_int_equal(ask("count", &pixels, others[i]).state, MBL_SCORE_NA);
        assert_int_equal(ask("color", &pixels, others[i]).state, MBL_SCORE_NA);
        assert_int_equal(ask("clean", &pixels, others[i]).state, MBL_SCORE_VALID);
        assert_int_equal(ask("jpeg", &pixels, others[i]).state, MBL_SCORE_VALID);
    }
    assert_int_equal(ask("ocr", &pixels, "three blue circles").state, MBL_SCORE_NA);
    assert_int_equal(ask("ocr", &pixels, "red above blue").state, MBL_SCORE_NA);
    assert_int_equal(ask("count", &pixels, "a red sign that says \"K7\"").state, MBL_SCORE_NA);
    assert_int_equal(ask("count", &pixels, "red above blue").state, MBL_SCORE_NA);
}

/* Before there is an image: exactly those prompts that get a score. */
static void what_applies_is_known_beforehand(void **state) {
    (void)state;
    static const char *const others[] = {"a cat", "three blue circles 1", "a red sign that says 'K7'", ""};
    enum { OTHERS = sizeof others / sizeof *others };
    static const char *const names[] = {"ocr", "count", "color", "clean", "jpeg"};
    size_t applied[5] = {0}, n = 0;
    pixels_t pixels = flat((uint8_t[3]){1, 2, 3});
    const mbl_image_t image = {SIZE, SIZE, pixels.rgb};
    mbl_signs_scene_t scene;
    for (size_t i = 0; i < OTHERS || mbl_signs_scene_at(i - OTHERS, &scene); i += i < OTHERS ? 1 : 7, n++) {
        char sentence[64];
        if (i < OTHERS)
            snprintf(sentence, sizeof sentence, "%s", others[i]);
        else
            mbl_signs_sentence(&scene, sentence);
        const mbl_prompt_t prompt = {sentence, NULL};
        for (size_t k = 0; k < 5; k++) {
            const mbl_scorer_t *scorer = mbl_scorer_find(names[k]);
            mbl_score_t score;
            assert_int_equal(score_of(scorer, &image, &prompt, &score), MBL_OK);
            bool applies = !scorer->applies || scorer->applies(NULL, &prompt);
            assert_int_equal(applies, score.state == MBL_SCORE_VALID);
            applied[k] += applies;
        }
    }
    assert_true(applied[0] > 100 && applied[1] > 5 && applied[0] + applied[1] < applied[2]);
    assert_int_equal(applied[2], n - OTHERS);
    assert_int_equal(applied[4], n);
}

static void other_sizes_fail(void **state) {
    (void)state;
    uint8_t rgb[3 * 16 * 16] = {0};
    mbl_image_t image = {16, 16, rgb};
    mbl_prompt_t prompt = {"three blue circles", NULL}, dog = {"a dog", NULL};
    mbl_score_t score;
    mbl_fail_quiet(1);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(score_of(mbl_scorer_at(i), &image, &prompt, &score), MBL_ERR_REWARD);
    mbl_fail_quiet(0);
    assert_int_equal(score_of(mbl_scorer_find("clean"), &image, &dog, &score), MBL_OK);
    assert_int_equal(score_of(mbl_scorer_find("jpeg"), &image, &dog, &score), MBL_OK);
}

static void scores_outside_a_range(void **state) {
    (void)state;
    const mbl_score_t scores[] = {{1 + 5e-7, MBL_SCORE_VALID}, {1.5, MBL_SCORE_VALID},  {9, MBL_SCORE_FAILED},
                                  {-1e-3, MBL_SCORE_VALID},    {0.25, MBL_SCORE_VALID}, {-9, MBL_SCORE_NA}};
    const mbl_reward_spec_t own = {.type = "ocr", .low = NAN, .high = NAN}, wide = {.type = "ocr", .high = 2},
                            unknown = {.type = "remote", .low = NAN, .high = NAN};
    assert_int_equal(mbl_scores_outside(&own, scores, 6, 1), 2); /* 1.5 and -1e-3 */
    assert_int_equal(mbl_scores_outside(&own, scores, 3, 2), 0); /* every second one */
    assert_int_equal(mbl_scores_outside(&own, scores + 1, 3, 2), 2);
    assert_int_equal(mbl_scores_outside(&wide, scores, 6, 1), 1);
    assert_int_equal(mbl_scores_outside(&unknown, scores, 6, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(true_drawings_score_best),
        cmocka_unit_test(jpeg_saturates_at_a_clean_image),
        cmocka_unit_test(ocr_reads_what_is_written),
        cmocka_unit_test(ocr_separates_glyphs_in_noise),
        cmocka_unit_test(ocr_reads_nothing_where_nothing_is),
        cmocka_unit_test(count_gives_partial_credit),
        cmocka_unit_test(count_knows_blobs_from_shapes),
        cmocka_unit_test(count_survives_blur_and_noise),
        cmocka_unit_test(color_is_the_right_share),
        cmocka_unit_test(color_of_a_horizon),
        cmocka_unit_test(color_of_nothing),
        cmocka_unit_test(clean_falls_with_blur_and_noise),
        cmocka_unit_test(other_sentences_do_not_apply),
        cmocka_unit_test(what_applies_is_known_beforehand),
        cmocka_unit_test(scores_outside_a_range),
        cmocka_unit_test(other_sizes_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
