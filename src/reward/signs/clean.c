/* clean: no blur and no noise. Applies to every image.
 *
 *   score = mean over the pixels of near(p), 1 up to a distance of 10 in RGB from the nearest colour of the
 * signs world (palette, ground, ink), falling evenly to 0 at 70. Blends between two colours and noise lie
 * farther away. */
#include "reward/scorers.h"
#include "reward/signs/world.h"

static mbl_status_t score_image(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                mbl_score_t *out) {
    (void)self;
    (void)prompt;
    size_t pixels = image->width * image->height;
    double sum = 0;
    MBL_REQUIRE(pixels > 0, "clean: an empty image");
    for (size_t i = 0; i < pixels; i++) {
        float distance;
        mbl_world_nearest(image->rgb + 3 * i, &distance);
        sum += mbl_world_near(distance, 10, 70);
    }
    *out = mbl_score_valid(sum / (double)pixels);
    return MBL_OK;
}

MBL_SCORE_EACH(score_clean, score_image)

const mbl_scorer_t mbl_scorer_clean = {.name = "clean",
                                       .help = "pixels near a colour of the signs example: no blur, no noise",
                                       .low = 0,
                                       .high = 1,
                                       .batch = 1,
                                       .score = score_clean};
