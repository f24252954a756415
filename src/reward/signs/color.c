/* color: the asked colours where something is drawn. N/A outside the signs world.
 *
 * With near(p, c) = 1 up to a distance of 30 in RGB, falling to 0 at 110:
 *
 *     horizon      mean over the pixels of near(p, c)
 *     text, count  sum of drawn(p) near(p, c) / max(sum of drawn(p), least area)
 *
 * A horizon's c is the upper colour above the rows where the edge may lie, the lower colour below them, and
 * the better of both within. drawn(p) says how much p differs from the ground (and, on a sign, from ink): 0
 * up to a distance of 20, 1 from 80. The least area is 2/3 of what the scene asks for, so that a speck of
 * colour is no full score. */
#include "reward/scorers.h"
#include "reward/signs/world.h"
#include "data/signs/layout.h"

enum { SIZE = MBL_SIGNS_SIZE, PIXELS = SIZE * SIZE, MOST_INK = 120 /* of two glyphs */ };

static float near_color(const uint8_t *pixel, int color) {
    return mbl_world_near(mbl_world_distance(pixel, mbl_signs_color_rgb(color)), 30, 110);
}

static float drawn(const uint8_t *pixel, bool ink_aside) {
    float weight = 1 - mbl_world_near(mbl_world_distance(pixel, mbl_signs_ground_rgb()), 20, 80);
    if (ink_aside)
        weight *= 1 - mbl_world_near(mbl_world_distance(pixel, mbl_signs_ink_rgb()), 20, 80);
    return weight;
}

static double horizon(const mbl_image_t *image, int upper, int lower) {
    double sum = 0;
    for (int i = 0; i < PIXELS; i++) {
        const uint8_t *pixel = image->rgb + 3 * i;
        int y = i / SIZE;
        float above = y < MBL_HORIZON_LAST ? near_color(pixel, upper) : 0;
        float below = y >= MBL_HORIZON_FIRST ? near_color(pixel, lower) : 0;
        sum += above > below ? above : below;
    }
    return sum / PIXELS;
}

static double figure(const mbl_image_t *image, int color, bool ink_aside, double least) {
    double right = 0, all = 0;
    for (int i = 0; i < PIXELS; i++) {
        float weight = drawn(image->rgb + 3 * i, ink_aside);
        right += weight * near_color(image->rgb + 3 * i, color);
        all += weight;
    }
    return right / (all > least ? all : least);
}

static mbl_status_t score_image(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                mbl_score_t *out) {
    (void)self;
    mbl_signs_scene_t asked;
    bool inside;
    MBL_TRY(mbl_world_asked(image, prompt, &inside, &asked));
    if (!inside)
        *out = mbl_score_na();
    else if (asked.kind == MBL_SIGNS_HORIZON)
        *out = mbl_score_valid(horizon(image, asked.color, asked.color2));
    else if (asked.kind == MBL_SIGNS_TEXT)
        *out = mbl_score_valid(
            figure(image, asked.color, true, (MBL_PLATE_WIDTH * MBL_PLATE_HEIGHT - MOST_INK) / 1.5));
    else
        *out = mbl_score_valid(
            figure(image, asked.color, false, asked.count * mbl_signs_shape_area(asked.shape) / 1.5));
    return MBL_OK;
}

MBL_SCORE_EACH(score_color, score_image)

const mbl_scorer_t mbl_scorer_color = {.name = "color",
                                       .help = "the asked colours where something is drawn",
                                       .low = 0,
                                       .high = 1,
                                       .batch = 1,
                                       .score = score_color,
                                       .applies = mbl_world_asks_any};
