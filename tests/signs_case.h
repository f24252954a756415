/* Images of the signs example and of none, and what a scorer says of them. */
#ifndef MBL_TESTS_SIGNS_CASE_H
#define MBL_TESTS_SIGNS_CASE_H

#include "support.h"
#include "base/mem.h"
#include "data/signs/layout.h"
#include "data/signs/signs.h"
#include "reward/reward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = MBL_SIGNS_SIZE, PIXELS = SIZE * SIZE };

typedef struct {
    uint8_t rgb[3 * PIXELS];
} pixels_t;

static inline mbl_status_t score_of(const mbl_scorer_t *scorer, const mbl_image_t *image,
                                    const mbl_prompt_t *prompt, mbl_score_t *out) {
    return scorer->score(NULL, image, &prompt, 1, out);
}

/* What a scorer says; fails the test when it breaks. */
static inline mbl_score_t ask(const char *name, pixels_t *pixels, const char *sentence) {
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

static inline double value(const char *name, pixels_t *pixels, const char *sentence) {
    mbl_score_t score = ask(name, pixels, sentence);
    assert_int_equal(score.state, MBL_SCORE_VALID);
    return score.value;
}

static inline pixels_t draw(const char *sentence, uint64_t sample) {
    pixels_t pixels;
    mbl_signs_scene_t scene;
    mbl_rng_t rng = mbl_rng(11, MBL_RNG_WORLD, 0, sample);
    assert_true(mbl_signs_parse(sentence, &scene));
    mbl_signs_draw(&scene, &rng, pixels.rgb);
    return pixels;
}

static inline pixels_t flat(const uint8_t color[3]) {
    pixels_t pixels;
    for (int i = 0; i < PIXELS; i++)
        memcpy(pixels.rgb + 3 * i, color, 3);
    return pixels;
}

static inline pixels_t noise(uint64_t sample) {
    pixels_t pixels;
    mbl_rng_t rng = mbl_rng(12, MBL_RNG_NOISE, 0, sample);
    for (int i = 0; i < 3 * PIXELS; i++)
        pixels.rgb[i] = (uint8_t)mbl_rng_below(&rng, 256);
    return pixels;
}

/* Adds gaussian noise of this standard deviation (of 255). */
static inline pixels_t disturb(pixels_t pixels, float deviation) {
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
static inline pixels_t blur(const pixels_t *sharp) {
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

#endif
