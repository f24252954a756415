/* src/reward: the five scorers on images whose score is known by construction, and the scorer pool that runs
 * them. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/signs/signs.h"
#include "data/signs/layout.h"
#include "reward/reward.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

enum { SIZE = MBL_SIGNS_SIZE, PIXELS = SIZE * SIZE };

typedef struct {
    uint8_t rgb[3 * PIXELS];
} pixels_t;

static mbl_status_t score_of(const mbl_scorer_t *scorer, const mbl_image_t *image, const mbl_prompt_t *prompt,
                             mbl_score_t *out) {
    return scorer->score(NULL, image, &prompt, 1, out);
}

/* What a scorer says; fails the test when it breaks. */
static mbl_score_t ask(const char *name, pixels_t *pixels, const char *sentence) {
    mbl_score_t score = {-77, MBL_SCORE_FAILED};
    mbl_prompt_t prompt = {(char *)sentence, NULL};
    mbl_image_t image = {SIZE, SIZE, pixels->rgb};
    const mbl_scorer_t *scorer = mbl_scorer_find(name);
    assert_non_null(scorer);
    assert_int_equal(score_of(scorer, &image, &prompt, &score), MBL_OK);
    if (score.state == MBL_SCORE_VALID && !(score.value >= scorer->low && score.value <= scorer->high))
        fail_msg("%s of '%s' is %f, outside %f .. %f", name, sentence, score.value, scorer->low,
                 scorer->high);
    return score;
}

static double value(const char *name, pixels_t *pixels, const char *sentence) {
    mbl_score_t score = ask(name, pixels, sentence);
    assert_int_equal(score.state, MBL_SCORE_VALID);
    return score.value;
}

static pixels_t draw(const char *sentence, uint64_t sample) {
    pixels_t pixels;
    mbl_signs_scene_t scene;
    mbl_rng_t rng = mbl_rng(11, MBL_RNG_WORLD, 0, sample);
    assert_true(mbl_signs_parse(sentence, &scene));
    mbl_signs_draw(&scene, &rng, pixels.rgb);
    return pixels;
}

static pixels_t flat(const uint8_t color[3]) {
    pixels_t pixels;
    for (int i = 0; i < PIXELS; i++)
        memcpy(pixels.rgb + 3 * i, color, 3);
    return pixels;
}

static pixels_t noise(uint64_t sample) {
    pixels_t pixels;
    mbl_rng_t rng = mbl_rng(12, MBL_RNG_NOISE, 0, sample);
    for (int i = 0; i < 3 * PIXELS; i++)
        pixels.rgb[i] = (uint8_t)mbl_rng_below(&rng, 256);
    return pixels;
}

/* Adds gaussian noise of this standard deviation (of 255). */
static pixels_t disturb(pixels_t pixels, float deviation) {
    static float normal[3 * PIXELS];
    mbl_rng_t rng = mbl_rng(13, MBL_RNG_NOISE, 0, 0);
    mbl_rng_normal(&rng, normal, 3 * PIXELS);
    for (int i = 0; i < 3 * PIXELS; i++) {
        float v = (float)pixels.rgb[i] + deviation * normal[i];
        pixels.rgb[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
    return pixels;
}

/* Mean over 3 x 3 pixels. */
static pixels_t blur(const pixels_t *sharp) {
    pixels_t pixels;
    for (int i = 0; i < 3 * PIXELS; i++) {
        int x = i / 3 % SIZE, y = i / 3 / SIZE, sum = 0, n = 0;
        for (int v = y > 0 ? y - 1 : 0; v <= y + 1 && v < SIZE; v++)
            for (int u = x > 0 ? x - 1 : 0; u <= x + 1 && u < SIZE; u++, n++)
                sum += sharp->rgb[3 * (v * SIZE + u) + i % 3];
        pixels.rgb[i] = (uint8_t)(sum / n);
    }
    return pixels;
}

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

/* A batch of true and disturbed images with their prompts. */
enum { BATCH = 53 };
typedef struct {
    pixels_t pixels[BATCH];
    mbl_image_t images[BATCH];
    mbl_prompt_t prompts[BATCH];
    const mbl_prompt_t *asked[BATCH];
    char text[BATCH][64];
} batch_t;

static void fill_batch(batch_t *batch) {
    for (size_t i = 0; i < BATCH; i++) {
        mbl_rng_t rng = mbl_rng(16, MBL_RNG_WORLD, 0, i);
        mbl_signs_scene_t scene;
        mbl_signs_scene(&rng, &scene);
        mbl_signs_draw(&scene, &rng, batch->pixels[i].rgb);
        mbl_signs_sentence(&scene, batch->text[i]);
        batch->pixels[i] = disturb(batch->pixels[i], (float)(i % 7 * 10));
        batch->images[i] = (mbl_image_t){SIZE, SIZE, batch->pixels[i].rgb};
        batch->prompts[i] = (mbl_prompt_t){batch->text[i], NULL};
        batch->asked[i] = &batch->prompts[i];
    }
}

static const mbl_reward_spec_t five[5] = {{.name = "ocr", .weight = 1},
                                          {.name = "count", .weight = 1},
                                          {.name = "hue", .type = "color", .weight = 1},
                                          {.name = "clean", .weight = 1},
                                          {.name = "jpeg", .weight = 1}};

static void pool_is_the_same_on_any_threads(void **state) {
    (void)state;
    static batch_t batch;
    static mbl_score_t scores[3][BATCH * 5];
    const size_t threads[3] = {0, 2, 5};
    size_t live = mbl_mem_live();
    fill_batch(&batch);
    for (size_t t = 0; t < 3; t++) {
        mbl_scorer_pool_t *pool = NULL;
        assert_int_equal(mbl_scorer_pool_open(five, 5, threads[t], &pool), MBL_OK);
        for (int repeat = 0; repeat < 3; repeat++) { /* several under way, of odd sizes */
            memset(scores[t], 0x55, sizeof scores[t]);
            for (size_t from = 0, n; from < BATCH; from += n) {
                n = from % 3 ? 1 : 10;
                n = n < BATCH - from ? n : BATCH - from;
                assert_int_equal(mbl_scorer_pool_submit(pool, batch.images + from, batch.asked + from, n,
                                                        scores[t] + 5 * from),
                                 MBL_OK);
            }
            assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        }
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK); /* nothing under way */
        mbl_scorer_pool_close(pool);
    }
    for (size_t i = 0; i < BATCH; i++)
        for (size_t k = 0; k < 5; k++) {
            mbl_score_t own = ask(mbl_scorer_at(k)->name, &batch.pixels[i], batch.text[i]);
            for (size_t t = 0; t < 3; t++) {
                assert_int_equal(scores[t][5 * i + k].state, own.state);
                assert_near(scores[t][5 * i + k].value, own.value, 0);
            }
        }
    assert_int_equal(mbl_mem_live(), live);
}

/* A scorer that misbehaves in turn; `self` counts its calls of open and close. */
static mbl_status_t open_bad(const char *options, void **self) {
    static int opened;
    if (options && strcmp(options, "refuse") == 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "bad: refused");
    opened = 1;
    *self = &opened;
    return MBL_OK;
}

static void close_bad(void *self) {
    *(int *)self = 2;
}

static mbl_status_t score_bad_one(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                  mbl_score_t *out) {
    if (*(const int *)self != 1)
        return MBL_FAIL(MBL_ERR_INTERNAL, "not open");
    *out = (mbl_score_t){.value = 3, .state = MBL_SCORE_VALID};
    switch (image->rgb[0] % 5) {
    case 0:
        return MBL_FAIL(MBL_ERR_REWARD, "no answer for %s", prompt->text);
    case 1:
        out->value = NAN;
        return MBL_OK;
    case 2:
        out->value = INFINITY;
        return MBL_OK;
    case 3:
        out->state = MBL_SCORE_NA;
        return MBL_OK;
    default:
        return MBL_OK;
    }
}

MBL_SCORE_EACH(score_bad, score_bad_one)

static const mbl_scorer_t bad = {.name = "bad",
                                 .help = "misbehaves",
                                 .low = 0,
                                 .high = 3,
                                 .batch = 1,
                                 .open = open_bad,
                                 .close = close_bad,
                                 .score = score_bad};

static void failures_are_failed_not_zero(void **state) {
    (void)state;
    enum { N = 40 };
    static pixels_t pixels[N];
    static mbl_image_t images[N];
    static const mbl_prompt_t prompt = {"anything", NULL};
    const mbl_prompt_t *asked[N];
    mbl_score_t scores[2 * N];
    const mbl_scorer_t *scorers[2] = {&bad, mbl_scorer_find("clean")};
    mbl_reward_spec_t specs[2] = {{.name = "bad"}, {.name = "clean"}};
    for (int i = 0; i < N; i++) {
        pixels[i] = flat((uint8_t[3]){(uint8_t)(i + 3), 0, 0});
        images[i] = (mbl_image_t){SIZE, SIZE, pixels[i].rgb};
        asked[i] = &prompt;
    }
    for (int stop = 0; stop < 2; stop++)
        for (size_t threads = 1; threads <= 3; threads += 2) {
            mbl_scorer_pool_t *pool;
            specs[0].on_failure = stop ? MBL_ON_FAILURE_STOP : MBL_ON_FAILURE_SKIP;
            mbl_log_set_level(MBL_LOG_OFF);
            assert_int_equal(mbl_scorer_pool_open_with(scorers, specs, 2, threads, &pool), MBL_OK);
            assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
            assert_int_equal(mbl_scorer_pool_wait(pool), stop ? MBL_ERR_REWARD : MBL_OK);
            if (stop) { /* the earliest: image 2, whose first byte is 5 */
                assert_non_null(
                    strstr(mbl_fail_message(), "reward bad failed on 'anything': no answer for anything"));
            }
            assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK); /* reported once */
            mbl_scorer_pool_close(pool);
            mbl_log_set_level(MBL_LOG_INFO);
            for (int i = 0; i < N; i++) {
                int way = (i + 3) % 5;
                assert_int_equal(scores[2 * i].state, way < 3    ? MBL_SCORE_FAILED
                                                      : way == 3 ? MBL_SCORE_NA
                                                                 : MBL_SCORE_VALID);
                assert_near(scores[2 * i].value, way == 4 ? 3 : 0, 0);
                assert_int_equal(scores[2 * i + 1].state, MBL_SCORE_VALID);
            }
        }
}

/* What was asked of a scorer, by all threads. */
static struct {
    uv_mutex_t lock;
    size_t under_way, most_at_once, calls, largest, pixels;
    bool by_others; /* by more threads than one */
    uv_thread_t thread;
} calls;

/* The first byte of every image; the whole call fails where one of them is 0. */
static mbl_status_t score_several(void *self, const mbl_image_t *images, const mbl_prompt_t *const *prompts,
                                  size_t n, mbl_score_t *out) {
    uv_thread_t me = uv_thread_self();
    (void)self;
    (void)prompts;
    uv_mutex_lock(&calls.lock);
    calls.by_others |= calls.calls > 0 && !uv_thread_equal(&me, &calls.thread);
    calls.thread = me;
    calls.calls++;
    calls.pixels += n;
    calls.largest = n > calls.largest ? n : calls.largest;
    calls.under_way++;
    calls.most_at_once = calls.under_way > calls.most_at_once ? calls.under_way : calls.most_at_once;
    uv_mutex_unlock(&calls.lock);
    uv_sleep(2);
    bool zero = false;
    for (size_t i = 0; i < n; i++) {
        out[i] = (mbl_score_t){.value = images[i].rgb[0], .state = MBL_SCORE_VALID};
        zero |= images[i].rgb[0] == 0;
    }
    uv_mutex_lock(&calls.lock);
    calls.under_way--;
    uv_mutex_unlock(&calls.lock);
    return zero ? MBL_FAIL(MBL_ERR_REWARD, "an image of zeros") : MBL_OK;
}

/* Calls are as large as a scorer takes them; one that waits or has a device is called by one thread, one call
 * at a time, while the workers go on with the others. A call that fails takes its images along and no
 * others. */
static void scorers_take_batches(void **state) {
    enum { N = 50, ZERO = 23 };
    static const struct {
        size_t batch, threads, largest, calls;
        bool device, async;
    } kinds[] = {{4, 3, 4, 13, false, false}, /* workers take 8 at a time, at last 2 */
                 {0, 1, 8, 7, false, false},
                 {16, 3, 16, 4, true, false},
                 {0, 3, N, 1, false, true},
                 {1, 2, 1, N, false, true}};
    static pixels_t pixels[N];
    static mbl_image_t images[N];
    static const mbl_prompt_t prompt = {"anything", NULL};
    const mbl_prompt_t *asked[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        pixels[i] = flat((uint8_t[3]){(uint8_t)(i == ZERO ? 0 : i + 1), 0, 0});
        images[i] = (mbl_image_t){SIZE, SIZE, pixels[i].rgb};
        asked[i] = &prompt;
    }
    for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++) {
        mbl_scorer_t scorer = {.name = "several",
                               .low = 0,
                               .high = 255,
                               .batch = kinds[j].batch,
                               .device = kinds[j].device,
                               .async = kinds[j].async,
                               .score = score_several};
        const mbl_scorer_t *scorers[] = {&scorer, mbl_scorer_find("clean")};
        mbl_reward_spec_t specs[] = {{.name = "several"}, {.name = "clean"}};
        mbl_score_t scores[2 * N];
        mbl_scorer_pool_t *pool;
        memset(&calls, 0, sizeof calls);
        assert_int_equal(uv_mutex_init(&calls.lock), 0);
        mbl_log_set_level(MBL_LOG_OFF);
        assert_int_equal(mbl_scorer_pool_open_with(scorers, specs, 2, kinds[j].threads, &pool), MBL_OK);
        assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        mbl_scorer_pool_close(pool);
        mbl_log_set_level(MBL_LOG_INFO);
        uv_mutex_destroy(&calls.lock);
        assert_int_equal(calls.pixels, N);
        assert_int_equal(calls.largest, kinds[j].largest);
        assert_int_equal(calls.calls, kinds[j].calls);
        if (kinds[j].device || kinds[j].async)
            assert_true(calls.most_at_once == 1 && !calls.by_others);
        size_t failed = 0;
        for (size_t i = 0; i < N; i++) {
            failed += scores[2 * i].state == MBL_SCORE_FAILED;
            if (scores[2 * i].state == MBL_SCORE_VALID)
                assert_near(scores[2 * i].value, (double)i + 1, 0);
            assert_int_equal(scores[2 * i + 1].state, MBL_SCORE_VALID);
        }
        assert_int_equal(scores[2 * ZERO].state, MBL_SCORE_FAILED);
        assert_in_range(failed, 1, kinds[j].largest);
    }
}

static void wrong_specs_are_refused(void **state) {
    (void)state;
    mbl_scorer_pool_t *pool = NULL;
    const mbl_scorer_t *scorers[2] = {mbl_scorer_find("clean"), &bad};
    mbl_reward_spec_t unknown = {.name = "beauty"}, options = {.name = "clean", .options = "{\"a\": 1}"};
    mbl_reward_spec_t refuse[2] = {{.name = "clean"}, {.name = "bad", .options = "refuse"}};
    size_t live = mbl_mem_live();
    mbl_fail_quiet(1);
    assert_int_equal(mbl_scorer_pool_open(&unknown, 1, 1, &pool), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "'beauty'; there are: ocr, count, color, clean, jpeg"));
    assert_int_equal(mbl_scorer_pool_open(&options, 1, 1, &pool), MBL_ERR_CONFIG);
    assert_int_equal(mbl_scorer_pool_open(five, 0, 1, &pool), MBL_ERR_ARG);
    assert_int_equal(mbl_scorer_pool_open_with(scorers, refuse, 2, 1, &pool), MBL_ERR_CONFIG);
    mbl_fail_quiet(0);
    assert_null(pool);
    assert_int_equal(mbl_mem_live(), live);
}

static void pool_survives_want_of_memory(void **state) {
    (void)state;
    static batch_t batch;
    static mbl_score_t scores[BATCH * 5];
    size_t live = mbl_mem_live(), n = 1;
    fill_batch(&batch);
    mbl_fail_quiet(1);
    for (;; n++) {
        mbl_scorer_pool_t *pool = NULL;
        mbl_mem_fail_at(n);
        mbl_status_t status = mbl_scorer_pool_open(five, 5, 2, &pool);
        if (status == MBL_OK)
            status = mbl_scorer_pool_submit(pool, batch.images, batch.asked, BATCH, scores);
        mbl_mem_fail_at(0);
        mbl_scorer_pool_close(pool);
        assert_int_equal(mbl_mem_live(), live);
        if (status == MBL_OK)
            break;
        assert_int_equal(status, MBL_ERR_MEM);
    }
    mbl_fail_quiet(0);
    assert_in_range(n, 9, 20); /* five names and the rest each failed once */
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
        cmocka_unit_test(other_sizes_fail),
        cmocka_unit_test(pool_is_the_same_on_any_threads),
        cmocka_unit_test(failures_are_failed_not_zero),
        cmocka_unit_test(scorers_take_batches),
        cmocka_unit_test(wrong_specs_are_refused),
        cmocka_unit_test(pool_survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
