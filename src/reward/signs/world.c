/* The signs world as its scorers see it. */
#include "reward/signs/world.h"
#include "data/signs/layout.h"

#include <math.h>

mbl_status_t mbl_world_asked(const mbl_image_t *image, const mbl_prompt_t *prompt, bool *inside,
                             mbl_signs_scene_t *scene) {
    bool parsed = mbl_signs_parse(prompt->text, scene);
    if (parsed && (image->width != MBL_SIGNS_SIZE || image->height != MBL_SIGNS_SIZE))
        return MBL_FAIL(MBL_ERR_REWARD,
                        "an image of %zu x %zu for '%s'; images of the signs example are %d x %d",
                        image->width, image->height, prompt->text, MBL_SIGNS_SIZE, MBL_SIGNS_SIZE);
    *inside = parsed;
    return MBL_OK;
}

bool mbl_world_asks(const mbl_prompt_t *prompt, int kind) {
    mbl_signs_scene_t scene;
    return mbl_signs_parse(prompt->text, &scene) && (int)scene.kind == kind;
}

bool mbl_world_asks_any(const void *self, const mbl_prompt_t *prompt) {
    mbl_signs_scene_t scene;
    (void)self;
    return mbl_signs_parse(prompt->text, &scene);
}

static int squared(const uint8_t *a, const uint8_t *b) {
    int r = a[0] - b[0], g = a[1] - b[1], blue = a[2] - b[2];
    return r * r + g * g + blue * blue;
}

float mbl_world_distance(const uint8_t *a, const uint8_t *b) {
    return sqrtf((float)squared(a, b));
}

float mbl_world_near(float distance, float full, float none) {
    float inside = (none - distance) / (none - full);
    return inside < 0 ? 0 : inside > 1 ? 1 : inside;
}

int mbl_world_nearest(const uint8_t *pixel, float *distance) {
    int nearest = MBL_WORLD_GROUND, least = squared(pixel, mbl_signs_ground_rgb());
    int ink = squared(pixel, mbl_signs_ink_rgb());
    if (ink < least) {
        least = ink;
        nearest = MBL_WORLD_INK;
    }
    for (int color = 0; color < mbl_signs_colors(); color++) {
        int far = squared(pixel, mbl_signs_color_rgb(color));
        if (far < least) {
            least = far;
            nearest = color;
        }
    }
    *distance = sqrtf((float)least);
    return nearest;
}

mbl_score_t mbl_score_valid(double value) {
    return (mbl_score_t){.value = value, .state = MBL_SCORE_VALID};
}

mbl_score_t mbl_score_na(void) {
    return (mbl_score_t){.state = MBL_SCORE_NA};
}
