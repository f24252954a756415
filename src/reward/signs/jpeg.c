/* jpeg: minus the kilobytes (1000 bytes) at quality 90, the compressibility reward of DDPO. Applies to every
 * image.
 *
 *   score = - max(bytes, clean bytes) / 1000
 *
 * Clean bytes are those of a true drawing of the sentence, so that the ideal image is best and nothing is
 * gained by drawing less: for a sign, of its one drawing; for a horizon, of the largest of its drawings; for
 * a count, a bound on all drawings of that many shapes; 0 outside the signs world.
 */
#include "reward/scorers.h"
#include "reward/signs/world.h"
#include "data/signs/layout.h"

#include <string.h>

enum { QUALITY = 90, SIZE = MBL_SIGNS_SIZE };

/* [count - 1]; libjpeg's integer DCT and default Huffman tables. The shape hardly matters. */
static const size_t group_bytes[4] = {735, 820, 900, 975};

static mbl_status_t sign_bytes(const mbl_signs_scene_t *scene, size_t *bytes) {
    uint8_t rgb[3 * SIZE * SIZE];
    mbl_image_t drawing = {SIZE, SIZE, rgb};
    mbl_rng_t unused = mbl_rng(0, MBL_RNG_WORLD, 0, 0); /* a sign leaves nothing to chance */
    mbl_signs_draw(scene, &unused, rgb);
    return mbl_image_jpeg_bytes(&drawing, QUALITY, bytes);
}

static mbl_status_t horizon_bytes(const mbl_signs_scene_t *scene, size_t *bytes) {
    uint8_t rgb[3 * SIZE * SIZE];
    mbl_image_t drawing = {SIZE, SIZE, rgb};
    size_t most = 0, here;
    for (int edge = MBL_HORIZON_FIRST; edge <= MBL_HORIZON_LAST; edge++) {
        for (int i = 0; i < SIZE * SIZE; i++)
            memcpy(rgb + 3 * i, mbl_signs_color_rgb(i / SIZE < edge ? scene->color : scene->color2), 3);
        MBL_TRY(mbl_image_jpeg_bytes(&drawing, QUALITY, &here));
        most = here > most ? here : most;
    }
    *bytes = most;
    return MBL_OK;
}

static mbl_status_t clean_bytes(const mbl_signs_scene_t *scene, size_t *bytes) {
    switch (scene->kind) {
    case MBL_SIGNS_TEXT:
        return sign_bytes(scene, bytes);
    case MBL_SIGNS_HORIZON:
        return horizon_bytes(scene, bytes);
    case MBL_SIGNS_COUNT:
        *bytes = group_bytes[scene->count - 1];
        return MBL_OK;
    }
    return MBL_FAIL(MBL_ERR_INTERNAL, "jpeg: a scene of unknown kind %d", (int)scene->kind);
}

static mbl_status_t score_image(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                mbl_score_t *out) {
    (void)self;
    mbl_signs_scene_t asked;
    bool inside;
    size_t bytes, clean = 0;
    MBL_TRY(mbl_world_asked(image, prompt, &inside, &asked));
    MBL_TRY(mbl_image_jpeg_bytes(image, QUALITY, &bytes));
    if (inside)
        MBL_TRY(clean_bytes(&asked, &clean));
    *out = mbl_score_valid(-(double)(bytes > clean ? bytes : clean) / 1000);
    return MBL_OK;
}

MBL_SCORE_EACH(score_jpeg, score_image)

const mbl_scorer_t mbl_scorer_jpeg = {
    .name = "jpeg",
    .help = "minus the kilobytes as JPEG at quality 90, no better than a clean image",
    .low = -1000,
    .high = 0,
    .batch = 1,
    .score = score_jpeg};
